"""How the variance of reparameterised gradients grows with the dimension, family by family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesjx import vi

RANK = 5
FAMILIES: dict[str, dict[str, Any]] = {
    "mean-field": {"scale": "meanfield"},
    "low-rank(5)": {"scale": "lowrank", "rank": RANK},
    "full-rank": {"scale": "fullrank"},
}
NORMAL_KURTOSIS, STUDENT_KURTOSIS = 3.0, 9.0  # of the base; Student's t with 5 degrees of freedom


class Target(NamedTuple):
    """A log-concave target with what the theory needs to know of it.

    Attributes:
        model: NumPyro program with one site `z`.
        mode: of the density.
        covariance: of the optimal full-rank Gaussian (exact, or Laplace's).
        precision: of the same.
        smoothness: Lipschitz constant of the gradient of the log density.
    """

    model: Callable[[], None]
    mode: jax.Array
    covariance: jax.Array
    precision: jax.Array
    smoothness: float


class Moments(NamedTuple):
    """Of the gradient of minus the energy, over draws at one point.

    Attributes:
        variance: summed over all parameters.
        square: mean of the squared norm.
        distance: squared distance of the parameters to the optimum.
        bound: what theory says `square` stays below.
    """

    variance: Any
    square: Any
    distance: Any
    bound: Any

    @property
    def normalised(self) -> Any:
        """Variance over squared distance."""
        return self.variance / self.distance


def quadratic(dim: int, condition: float) -> Target:
    """A Gaussian with diagonal precision between `1 / condition` and 1."""
    precision = jnp.geomspace(1 / condition, 1.0, dim)

    def model() -> None:
        numpyro.sample("z", dist.Normal(jnp.zeros(dim), precision**-0.5).to_event(1))

    return Target(model, jnp.zeros(dim), jnp.diag(1 / precision), jnp.diag(precision), 1.0)


def logistic(dim: int, rows: int = 500) -> Target:
    """Bayesian logistic regression with standard normal features and prior."""
    rng = np.random.default_rng(dim)
    design = jnp.asarray(rng.normal(size=(rows, dim)))
    weights = jnp.asarray(rng.normal(size=dim)) / np.sqrt(dim)
    labels = jnp.asarray(rng.uniform(size=rows)) < jax.nn.sigmoid(design @ weights)

    def model() -> None:
        z = numpyro.sample("z", dist.Normal(jnp.zeros(dim), 1.0).to_event(1))
        numpyro.sample("y", dist.Bernoulli(logits=design @ z).to_event(1), obs=labels)

    def energy(z: jax.Array) -> jax.Array:
        return -vi.log_density(model, {"z": z}).total

    @jax.jit
    def newton(z: jax.Array) -> tuple[jax.Array, jax.Array]:
        hessian = jax.hessian(energy)(z)
        return z - jnp.linalg.solve(hessian, jax.grad(energy)(z)), hessian

    mode = jnp.zeros(dim)
    for _ in range(20):
        mode, precision = newton(mode)
    largest = jnp.linalg.eigvalsh(design.T @ design)[-1]
    return Target(model, mode, jnp.linalg.inv(precision), precision, float(1 + largest / 4))


def gaussian_moments(
    target: Target, family: str, conditioner: str, num_draws: int, shift: float = 1.0
) -> Moments:
    """Moments at location `mode + shift` and unit scale, through `vi.elbo` and `GaussianGuide`."""

    @jax.jit  # all of it, since setting up a guide compiles dozens of small programs
    def run() -> Moments:
        guide = vi.GaussianGuide(target.model, conditioner=conditioner, **FAMILIES[family])
        problem = vi.functional(jax.random.key(0), target.model, guide)
        start = problem.constrain(problem.params)
        at = {name: jnp.zeros_like(value) for name, value in start.items()}
        at |= {"auto_loc": target.mode + shift, "auto_scale": jnp.ones_like(target.mode)}
        params = problem.unconstrain(at)
        bound = vi.elbo(problem.model, problem.guide, entropy="analytic")

        def entropy(params: Any) -> jax.Array:
            return guide.get_posterior(problem.constrain(params)).entropy()

        def gradient(key: jax.Array) -> Any:
            return jax.grad(lambda p: bound.surrogate(key, p))(params)

        mean, variance = _moments(gradient, num_draws, params)
        energy = jax.tree.map(jnp.subtract, mean, jax.grad(entropy)(params))
        square = variance + _square(energy)
        return _against_theory(target, family, at, variance, square, NORMAL_KURTOSIS)

    return Moments(*map(float, run()))


def student_moments(target: Target, family: str, num_draws: int, shift: float = 1.0) -> Moments:
    """The same for noise from Student's t with 5 degrees of freedom, scaled to unit variance."""
    dim = target.mode.size
    base = dist.StudentT(5.0, 0.0, (3 / 5) ** 0.5)
    at = {"loc": target.mode + shift, "scale": jnp.ones(dim)}
    if family == "full-rank":
        at["lower"] = jnp.zeros((dim, dim))
    if family == "low-rank(5)":
        at["factor"] = jnp.zeros((dim, RANK))

    def noise() -> None:
        numpyro.sample("u", base.expand((dim,)).to_event(1))
        if family == "low-rank(5)":
            numpyro.sample("v", base.expand((RANK,)).to_event(1))

    @vi.expectation
    def energy(params: Any) -> Any:
        draw, _ = vi.simulate(noise)
        z = params["loc"] + params["scale"] * draw["u"]
        if family == "full-rank":
            z = z + jnp.tril(params["lower"], -1) @ draw["u"]
        if family == "low-rank(5)":
            z = z + params["factor"] @ draw["v"]
        return vi.log_density(target.model, {"z": z})

    def gradient(key: jax.Array) -> Any:
        return jax.grad(lambda p: energy.surrogate(key, p))(at)

    @jax.jit
    def run() -> Moments:
        mean, variance = _moments(gradient, num_draws, at)
        named = {f"auto_{name}": value for name, value in at.items()}
        square = variance + _square(mean)
        return _against_theory(target, family, named, variance, square, STUDENT_KURTOSIS)

    return Moments(*map(float, run()))


def landing_variance(dim: int, num_draws: int) -> dict[str, float]:
    """Total gradient variance at the exact posterior, by the way the entropy is estimated."""
    target = quadratic(dim, 100.0)

    @jax.jit
    def run() -> dict[str, jax.Array]:
        guide = vi.GaussianGuide(target.model, scale="fullrank")
        problem = vi.functional(jax.random.key(0), target.model, guide)
        scale = jnp.sqrt(jnp.diag(target.covariance))
        at = {"auto_loc": target.mode, "auto_scale": scale, "auto_lower": jnp.zeros((dim, dim))}
        params = problem.unconstrain(at)
        totals = {}
        for entropy in ("stl", "analytic"):
            bound = vi.elbo(problem.model, problem.guide, entropy=entropy)
            slope = lambda key, b=bound: jax.grad(lambda p: b.surrogate(key, p))(params)  # noqa: E731
            totals[entropy] = _moments(slope, num_draws, params)[1]
        return totals

    return {name: float(value) for name, value in run().items()}


def slope(moments: Mapping[int, Moments]) -> float:
    """Of the logarithm of the normalised variance against that of the dimension."""
    dims = np.log([*moments])
    values = np.log([m.normalised for m in moments.values()])
    return float(np.polyfit(dims, values, 1)[0])


def _moments(
    gradient: Callable[[jax.Array], Any], num_draws: int, like: Any
) -> tuple[Any, jax.Array]:
    """Mean gradient and its total variance, one draw at a time: gradients can be megabytes."""

    def add(sums: Any, key: jax.Array) -> tuple[Any, None]:
        draw = gradient(key)
        first, second = sums
        return (jax.tree.map(jnp.add, first, draw), second + _square(draw)), None

    zeros = (jax.tree.map(jnp.zeros_like, like), jnp.zeros(()))
    keys = jax.random.split(jax.random.key(1), num_draws)
    (first, second), _ = jax.lax.scan(add, zeros, keys)
    mean = jax.tree.map(lambda x: x / num_draws, first)
    return mean, (second / num_draws - _square(mean)) * num_draws / (num_draws - 1)


def _square(tree: Any) -> jax.Array:
    return sum((jnp.sum(x**2) for x in jax.tree.leaves(tree)), jnp.zeros(()))


def _against_theory(
    target: Target, family: str, at: Any, variance: Any, square: Any, kurtosis: float
) -> Moments:
    dim = target.mode.size
    scale = jnp.diag(at["auto_scale"])
    if family == "mean-field":
        best = jnp.diag(jnp.diag(target.precision) ** -0.5)
    elif family == "full-rank":
        scale = scale + jnp.tril(at["auto_lower"], -1)
        best = jnp.linalg.cholesky(target.covariance)
    else:  # with the factor at zero, its own optimum for a diagonal target
        best = jnp.diag(jnp.diag(target.covariance) ** 0.5)
    location = jnp.sum((at["auto_loc"] - target.mode) ** 2)
    distance = location + jnp.sum((scale - best) ** 2)
    to_collapsed = location + jnp.sum(scale**2)
    factor = {
        "mean-field": 2 * kurtosis * dim**0.5 + 1,
        "low-rank(5)": 2 * kurtosis * dim**0.5 + 1 + RANK + kurtosis,
        "full-rank": dim + kurtosis,
    }[family]
    return Moments(variance, square, distance, target.smoothness**2 * factor * to_collapsed)
