"""One program under one choice of strategies, its exact answer, and how far a mean is from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from bayesjx import vi

# Numerical error of the exact answers; without it an estimator of variance zero, whose standard
# error is rounding, could not be judged.
TOLERANCE = 1e-9

# Each program runs once, for milliseconds: what it costs is its compilation.
COMPILER_OPTIONS: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}


class Cell(NamedTuple):
    """One row of the table.

    Attributes:
        program: which program.
        strategies: which strategies at its sites.
        objective: `Objective` of the parameter vector.
        exact: the exact expectation as a differentiable function of the same vector.
        point: the parameter vector.
        quick: whether the quick run measures it.
        states: states of moving-average baselines, by address.
    """

    program: str
    strategies: str
    objective: vi.Objective
    exact: Callable[[jax.Array], jax.Array]
    point: jax.Array
    quick: bool = False
    states: dict[str, jax.Array] | None = None

    @property
    def name(self) -> str:
        return f"{self.program}: {self.strategies}"


class Measured(NamedTuple):
    """Means over draws beside the exact answer.

    Attributes:
        value_z: standard errors between the mean value and the exact one.
        worst_z: the largest absolute one, over the value and all entries of the gradient.
        worst_gradient_z: the same over the gradient alone.
        variance: summed variance of the gradient's entries.
        gradient: mean gradient.
        exact: exact gradient.
    """

    value_z: float
    worst_z: float
    worst_gradient_z: float
    variance: float
    gradient: np.ndarray
    exact: np.ndarray


Draw = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def draws_of(cell: Cell) -> Draw:
    """`(key, point) -> (value, gradient)` of one draw."""

    def draw(key: jax.Array, point: jax.Array) -> tuple[jax.Array, jax.Array]:
        def loss(p: jax.Array) -> jax.Array:
            if cell.states is None:
                return cell.objective.surrogate(key, p)
            return cell.objective.surrogate_with_records(key, cell.states, p)[0]

        return jax.value_and_grad(loss)(point)

    return draw


def start(cell: Cell, num_draws: int, pool: Executor, draw: Draw | None = None) -> Future[Any]:
    """Traces the cell, or another way to draw from it, here and compiles it in the pool."""
    keys = jax.random.split(jax.random.key(0), num_draws)
    lowered = jax.jit(jax.vmap(draw or draws_of(cell), (0, None))).lower(keys, cell.point)
    return pool.submit(lowered.compile, COMPILER_OPTIONS)


def finish(cell: Cell, key: jax.Array, num_draws: int, started: Future[Any]) -> Measured:
    """Runs what `start` compiled and compares the means with the exact answer."""
    keys = jax.random.split(key, num_draws)
    values, gradients = started.result()(keys, cell.point)
    return compare_with(values, gradients, *exact_of(cell))


def measure(cell: Cell, key: jax.Array, num_draws: int, draw: Draw | None = None) -> Measured:
    """`start` and `finish` of one cell."""
    with ThreadPoolExecutor(1) as pool:
        return finish(cell, key, num_draws, start(cell, num_draws, pool, draw))


def exact_of(cell: Cell) -> tuple[np.ndarray, np.ndarray]:
    """The exact value and gradient; cells of one program share them."""
    point = np.asarray(cell.point)
    return _exact(cell.exact, point.tobytes(), point.dtype.name)


@cache
def _exact(
    exact: Callable[[jax.Array], jax.Array], point: bytes, dtype: str
) -> tuple[np.ndarray, np.ndarray]:
    value, gradient = jax.jit(jax.value_and_grad(exact))(jnp.asarray(np.frombuffer(point, dtype)))
    return np.asarray(value), np.asarray(gradient)


def compare_with(values: Any, gradients: Any, exact_value: Any, exact_gradient: Any) -> Measured:
    """Means of draws beside the exact value and gradient."""
    values, gradients = np.asarray(values, np.float64), np.asarray(gradients, np.float64)
    value_z = z_score(values, np.asarray(exact_value))
    gradient_z = np.abs(z_score(gradients, np.asarray(exact_gradient)))
    return Measured(
        float(value_z),
        float(np.max(np.append(gradient_z, abs(value_z)))),
        float(np.max(gradient_z)),
        float(gradients.var(axis=0).sum()),
        gradients.mean(axis=0),
        np.asarray(exact_gradient),
    )


def z_score(draws: np.ndarray, exact: np.ndarray) -> np.ndarray:
    """Standard errors between the mean over the leading axis and `exact`; NaN becomes infinite."""
    error = draws.std(axis=0, ddof=1) / np.sqrt(len(draws))
    z = (draws.mean(axis=0) - exact) / np.hypot(error, TOLERANCE * (1 + np.abs(exact)))
    return np.where(np.isfinite(z), z, np.inf)


def given(d: dist.Distribution, strategy: Any) -> dist.Distribution:
    """`d` with a strategy; None leaves the library's default."""
    return d if strategy is None else vi.with_strategy(d, strategy)


STRATEGIES: Mapping[str, Any] = {
    "default": None,
    "reparam": vi.reparam(),
    "reinforce": vi.reinforce(),
    "enum": vi.enum(),
    "enum lanes": vi.enum(lanes=True),
    "leg": vi.leg(),
    "leg lanes": vi.leg(lanes=True),
    "mvd": vi.mvd(),
    "mvd lanes": vi.mvd(lanes=True),
    "rloo": vi.rloo(),
    "rloo 3": vi.rloo(num_samples=3),
    "disarm": vi.disarm(),
    "importance": vi.importance(proposal=dist.Bernoulli(0.5)),
}


def log_bernoulli(logits: Any, value: Any) -> jax.Array:
    """Log probability of 0 or 1, written independently of the library and of NumPyro."""
    return -jax.nn.softplus(jnp.where(value == 1, -1.0, 1.0) * logits)


def log_normal(x: Any, loc: Any, scale: Any) -> jax.Array:
    """Log density of a normal distribution, written independently."""
    return -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)


def gauss_hermite(loc: Any, scale: Any, num_nodes: int = 60) -> tuple[jax.Array, jax.Array]:
    """Nodes and weights for the expectation under a normal distribution."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    return loc + scale * jnp.asarray(nodes), jnp.asarray(weights / weights.sum())
