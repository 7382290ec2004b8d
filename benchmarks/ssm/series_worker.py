"""Log densities of a long series by one library, in a process with its own options of XLA."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._worker import serve

jax.config.update("jax_enable_x64", True)
CANDIDATES: dict[str, Any] = {}
THETA = (0.7, 1.3, 0.04)  # lengthscale, variance, variance of the noise
SPACING = 0.1


def series(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Random times and noisy waves."""
    rng = np.random.default_rng(0)
    times = np.sort(rng.uniform(0, SPACING * n, n))
    return times, np.sin(times) + 0.2 * rng.normal(size=n)


def start(library: str, order: str, n: int, gradient: bool = True) -> dict[str, Any]:
    """Make the candidates `library value` and `library gradient`, and say what they find."""
    times, y = series(n)
    made = MAKE[library](order, times, y)
    if library == "celerite2":
        CANDIDATES["celerite2 value"] = made
        return {"value": float(made())}
    theta = jnp.array(THETA)
    value = jax.jit(made)
    CANDIDATES[f"{library} value"] = (value, (theta,))
    found: dict[str, Any] = {"value": float(value(theta))}
    if gradient:
        both = jax.jit(jax.value_and_grad(made))
        CANDIDATES[f"{library} gradient"] = (both, (theta,))
        found["gradient"] = [float(slope) for slope in both(theta)[1]]
    return found


def _bayesjx(order: str, times: np.ndarray, y: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    from bayesjx import kernels, ssm

    kind = getattr(kernels, f"Matern{order}")

    def density(theta: jax.Array) -> jax.Array:
        return ssm.MarkovGP(kind(theta[0], theta[1]), times, noise_var=theta[2]).log_prob(y)

    return density


def _tinygp(order: str, times: np.ndarray, y: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    import tinygp

    kind = getattr(tinygp.kernels.quasisep, f"Matern{order}")

    def density(theta: jax.Array) -> jax.Array:
        kernel = kind(scale=theta[0], sigma=jnp.sqrt(theta[1]))
        # The times are in order, so the check for that is left out.
        process = tinygp.GaussianProcess(
            kernel, jnp.asarray(times), diag=theta[2], assume_sorted=True
        )
        return process.log_probability(jnp.asarray(y))

    return density


def _dynamax(order: str, times: np.ndarray, y: np.ndarray) -> Callable[[jax.Array], jax.Array]:
    """Its filter with a matrix for each step; those of the first step are not used."""
    inference: Any = importlib.import_module("dynamax.linear_gaussian_ssm.inference")

    steps = jnp.asarray(np.diff(times, prepend=times[0]))
    d = {"32": 2, "52": 3}[order]

    def density(theta: jax.Array) -> jax.Array:
        turn, prior = _matern(order, steps, theta[0], theta[1])
        noise = prior - turn @ prior @ jnp.swapaxes(turn, 1, 2)
        parameters = inference.make_lgssm_params(
            initial_mean=jnp.zeros(d),
            initial_cov=prior,
            dynamics_weights=turn,
            dynamics_cov=noise,
            emissions_weights=jnp.eye(1, d),
            emissions_cov=theta[2][None, None],
        )
        return inference.lgssm_filter(parameters, jnp.asarray(y)[:, None]).marginal_loglik

    return density


def _matern(order: str, steps: Any, lengthscale: Any, variance: Any) -> tuple[Any, Any]:
    """Transitions and prior covariance in the usual coordinates, function and derivatives."""
    d = {"32": 2, "52": 3}[order]
    rate = jnp.sqrt(2.0 * d - 1) / lengthscale
    x = (rate * steps)[:, None, None]
    shift = np.eye(d, k=1)
    shift[-1] -= {2: [1, 2], 3: [1, 3, 3]}[d]
    shift += np.eye(d)
    turn = np.eye(d) + x * shift + (x**2 / 2) * (shift @ shift)
    scale = rate ** jnp.arange(d)
    turn = jnp.exp(-x) * turn * scale[:, None] / scale
    third = 1 / 3
    prior = {
        2: np.eye(2),
        3: np.array([[1, 0, -third], [0, third, 0], [-third, 0, 1]]),
    }[d]
    return turn, variance * prior * scale[:, None] * scale


def _celerite2(order: str, times: np.ndarray, y: np.ndarray) -> Callable[[], float]:
    """Its C++ code. Matérn-3/2 is approximated there, and 5/2 is not to be had."""
    celerite2: Any = importlib.import_module("celerite2")

    lengthscale, variance, noise = THETA
    term = celerite2.terms.Matern32Term(sigma=variance**0.5, rho=lengthscale)
    process = celerite2.GaussianProcess(term)

    def density() -> float:
        process.compute(times, diag=np.full(len(times), noise), check_sorted=False)
        return process.log_likelihood(y)

    return density


MAKE: dict[str, Any] = {
    "bayesjx": _bayesjx,
    "tinygp": _tinygp,
    "dynamax": _dynamax,
    "celerite2": _celerite2,
}

if __name__ == "__main__":
    serve({"start": start}, CANDIDATES)
