"""Log densities in single precision by one library."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._worker import serve
from benchmarks.ssm.series_worker import _matern

COUNT, NOISE = 200, 0.1
SIGNAL = np.sin(np.arange(COUNT) / 7.0) + 0.3 * np.random.default_rng(0).normal(size=COUNT)


def densities(library: str, order: str, cases: list[list[float]]) -> list[float]:
    """One for each pair of spacing and lengthscale."""
    jax.config.update("jax_enable_x64", False)
    y = SIGNAL.astype(np.float32)
    density = jax.jit(MAKE[library](order))
    found = []
    for spacing, lengthscale in cases:
        times = (spacing * np.arange(COUNT)).astype(np.float32)
        value = density(jnp.asarray(times), jnp.asarray(y), jnp.float32(lengthscale))
        assert value.dtype == jnp.float32
        found.append(float(value))
    return found


def _bayesjx(order: str) -> Any:
    from bayesjx import kernels, ssm

    kind = getattr(kernels, f"Matern{order}")

    def density(times: Any, y: Any, lengthscale: Any) -> Any:
        series = ssm.MarkovGP(kind(lengthscale), times, noise_var=NOISE, backend="sequential")
        return series.log_prob(y)

    return density


def _tinygp(order: str) -> Any:
    import tinygp

    kind = getattr(tinygp.kernels.quasisep, f"Matern{order}")

    def density(times: Any, y: Any, lengthscale: Any) -> Any:
        process = tinygp.GaussianProcess(
            kind(scale=lengthscale), times, diag=jnp.float32(NOISE), assume_sorted=True
        )
        return process.log_probability(y)

    return density


def _dynamax(order: str) -> Any:
    import importlib

    inference: Any = importlib.import_module("dynamax.linear_gaussian_ssm.inference")
    d = {"32": 2, "52": 3}[order]

    def density(times: Any, y: Any, lengthscale: Any) -> Any:
        steps = jnp.diff(times, prepend=times[:1])
        turn, prior = _matern(order, steps, lengthscale, jnp.float32(1.0))
        noise = prior - turn @ prior @ jnp.swapaxes(turn, 1, 2)
        parameters = inference.make_lgssm_params(
            initial_mean=jnp.zeros(d),
            initial_cov=prior,
            dynamics_weights=turn,
            dynamics_cov=noise,
            emissions_weights=jnp.eye(1, d),
            emissions_cov=jnp.full((1, 1), NOISE),
        )
        return inference.lgssm_filter(parameters, y[:, None]).marginal_loglik

    return density


MAKE = {"bayesjx": _bayesjx, "tinygp": _tinygp, "dynamax": _dynamax}

if __name__ == "__main__":
    serve({"densities": densities}, {})
