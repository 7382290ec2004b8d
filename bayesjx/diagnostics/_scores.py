"""Scores of predictive distributions: proper ones, lower where better."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import ndtr
from jaxtyping import Array, Float

from .._core import compiled, number_array, refuse_where, safe_sqrt, whole_number


class ScoreDifference(NamedTuple):
    """Result of `compare_scores`.

    Attributes:
        mean: mean of the first scores less mean of the others; negative if the first are better.
        standard_error: of that mean, from the differences case by case.
    """

    mean: Float[Array, ""]
    standard_error: Float[Array, ""]


def compare_scores(scores: Any, others: Any) -> ScoreDifference:
    """Difference of two mean scores on the same cases, with its paired standard error.

    Any score will do, case by case: `crps`, `energy_score`, or the logarithmic score, which is
    `-predictive.log_prob(y)`. What cases have in common cancels, so the error is often far below
    that of either mean.

    Args:
        scores: shape `(n,)`, of one model.
        others: shape `(n,)`, of another on the same cases in the same order.

    Raises:
        ValueError: shapes that disagree, fewer than 2 cases, NaN.
        RuntimeError: under `jit`, NaN.
    """
    scores, others = (
        refuse_where(
            _real("compare_scores", name, value),
            lambda a: a != a,
            f"compare_scores: {name} must not be NaN",
        )
        for name, value in (("scores", scores), ("others", others))
    )
    if scores.ndim != 1 or scores.shape != others.shape or len(scores) < 2:
        raise ValueError(
            "compare_scores: scores and others must both have shape (n,) with n of at least 2, "
            f"got {scores.shape} and {others.shape}"
        )
    gap = scores - others.astype(scores.dtype)
    return ScoreDifference(jnp.mean(gap), jnp.std(gap, ddof=1) / math.sqrt(len(scores)))


def crps(predictive: Any, y: Any, *, num_quantiles: int = 200) -> Float[Array, ...]:
    r"""Continuous ranked probability score of each observation, in its units.

    $\int (F(x) - 1[y \le x])^2 dx$: the absolute error of a point prediction, for distributions. A
    normal distribution has it in closed form. Draws give the fair estimate
    $\frac{1}{s} \sum_i \lvert x_i - y \rvert - \frac{1}{2 s (s - 1)} \sum_{i,j} \lvert x_i - x_j
    \rvert$, unbiased for any number of them. Any other distribution with quantiles gives twice
    their mean pinball loss, on a grid.

    Args:
        predictive: a NumPyro distribution whose batch shape is that of `y`, or draws of shape
            `(s, *y.shape)`.
        y: observations.
        num_quantiles: at the middles of so many intervals of probability.

    Returns:
        The shape of `y`.

    Raises:
        ValueError: shapes that disagree, fewer than 2 draws, a distribution without quantiles, NaN.
        RuntimeError: under `jit`, NaN.

    References:
        Gneiting and Raftery (2007), "Strictly proper scoring rules, prediction, and estimation",
        JASA 102, equations 20 and 21; Ferro (2014), "Fair scores for ensemble forecasts", Quarterly
        Journal of the Royal Meteorological Society 140.
    """
    y = _known("crps", "y", y)
    if isinstance(predictive, dist.Distribution):
        _check_batch("crps", predictive, y)
        if isinstance(predictive, dist.Normal):
            loc, scale = (
                jnp.asarray(p).astype(y.dtype) for p in (predictive.loc, predictive.scale)
            )
            z = (y - loc) / scale
            density = jnp.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
            return scale * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / math.sqrt(math.pi))
        return _crps_of_quantiles(predictive, y, num_quantiles)
    draws = _draws("crps", predictive, y)
    return fair_crps(draws, y)


def energy_score(draws: Any, y: Any) -> Float[Array, ...]:
    r"""Energy score of vectors: the continuous ranked probability score in `d` dimensions.

    $\frac{1}{s} \sum_i \lVert x_i - y \rVert - \frac{1}{2 s (s - 1)} \sum_{i,j} \lVert x_i - x_j
    \rVert$, unbiased for any number of draws. It sees means and scales well, correlations hardly:
    for these see `variogram_score`. Time grows with the square of the number of draws.

    Args:
        draws: shape `(s, ..., d)`.
        y: observations, shape `(..., d)`.

    Returns:
        Shape `(...)`.

    Raises:
        ValueError: shapes that disagree, fewer than 2 draws, NaN.
        RuntimeError: under `jit`, NaN.

    References:
        Gneiting and Raftery (2007), JASA 102, equation 22.
    """
    y = _vectors("energy_score", y)
    draws = _draws("energy_score", draws, y, "draws")

    return _energy(draws, y)


def variogram_score(
    draws: Any, y: Any, *, order: float = 0.5, weights: Any = None
) -> Float[Array, ...]:
    r"""Variogram score of vectors, which sees wrong correlations.

    $\sum_{i,j} w_{ij} \left(\lvert y_i - y_j \rvert^p - \frac{1}{s} \sum_k \lvert x_{ki} - x_{kj}
    \rvert^p \right)^2$. A shift of all coordinates leaves it as it is.

    Args:
        draws: shape `(s, ..., d)`.
        y: observations, shape `(..., d)`.
        order: $p > 0$.
        weights: $w_{ij} \ge 0$, shape `(d, d)`; 1 by default. Often less for coordinates that are
            far from each other.

    Returns:
        Shape `(...)`.

    Raises:
        ValueError: shapes that disagree, fewer than 2 draws, NaN, an order that is not positive.
        RuntimeError: under `jit`, NaN.

    References:
        Scheuerer and Hamill (2015), "Variogram-based proper scoring rules for probabilistic
        forecasts of multivariate quantities", Monthly Weather Review 143, equation 12.
    """
    y = _vectors("variogram_score", y)
    draws = _draws("variogram_score", draws, y, "draws")
    if isinstance(order, bool) or not isinstance(order, int | float) or not order > 0:
        raise ValueError(f"variogram_score: order must be a positive number, got {order!r}")
    size = y.shape[-1]
    weights = jnp.ones((size, size), y.dtype) if weights is None else weights
    weights = _real("variogram_score", "weights", weights)
    if weights.shape != (size, size):
        raise ValueError(
            f"variogram_score: weights must have shape {(size, size)}, got {weights.shape}"
        )

    return _variogram(draws, y, float(order), weights.astype(y.dtype))


def fair_crps(draws: Float[Array, "s ..."], y: Float[Array, ...]) -> Float[Array, ...]:
    """As `crps`, of draws that were checked."""
    number = len(draws)
    weights = 2 * jnp.arange(1, number + 1, dtype=draws.dtype) - number - 1
    weights = weights.reshape(-1, *[1] * y.ndim)
    gini = jnp.sum(weights * jnp.sort(draws, axis=0), axis=0) / (number * (number - 1))
    return jnp.mean(jnp.abs(draws - y), axis=0) - gini


@compiled
def _energy(draws: Float[Array, "s ... d"], y: Float[Array, "... d"]) -> Float[Array, ...]:
    def distances(x: jax.Array) -> jax.Array:
        return safe_sqrt(jnp.sum((draws - x) ** 2, axis=-1))

    number = len(draws)
    total = jnp.sum(jax.lax.map(lambda x: jnp.sum(distances(x), axis=0), draws), axis=0)
    return jnp.mean(distances(y), axis=0) - total / (2 * number * (number - 1))


@compiled
def _variogram(
    draws: Float[Array, "s ... d"], y: Float[Array, "... d"], order: Any, weights: Any
) -> Float[Array, ...]:
    def variogram(x: jax.Array) -> jax.Array:
        gap = safe_sqrt((x[..., :, None] - x[..., None, :]) ** 2)
        return jnp.where(jnp.eye(y.shape[-1], dtype=bool), 0.0, gap**order)

    def add(total: jax.Array, x: jax.Array) -> tuple[jax.Array, None]:
        return total + variogram(x), None

    start = jnp.zeros((*y.shape, y.shape[-1]), y.dtype)
    mean = jax.lax.scan(add, start, draws)[0] / len(draws)
    return jnp.sum(weights * (variogram(y) - mean) ** 2, axis=(-2, -1))


def _crps_of_quantiles(predictive: Any, y: jax.Array, num_quantiles: Any) -> jax.Array:
    num_quantiles = whole_number("crps: num_quantiles", num_quantiles)
    probs = (jnp.arange(num_quantiles, dtype=y.dtype) + 0.5) / num_quantiles
    probs = probs.reshape(-1, *[1] * y.ndim)
    try:
        gap = y - jnp.asarray(predictive.icdf(probs)).astype(y.dtype)
    except NotImplementedError as error:
        raise ValueError(
            f"crps: predictive must have quantiles, which {type(predictive).__name__} has not; "
            "give draws of it, shape (s, *y.shape)"
        ) from error
    return 2 * jnp.mean(jnp.maximum(probs * gap, (probs - 1) * gap), axis=0)


def _check_batch(owner: str, predictive: Any, y: jax.Array) -> None:
    if predictive.event_shape or predictive.batch_shape not in ((), y.shape):
        raise ValueError(
            f"{owner}: predictive must be a distribution of numbers with the batch shape of y, "
            f"{y.shape}, got batch shape {predictive.batch_shape} and event shape "
            f"{predictive.event_shape}"
        )


def _draws(owner: str, draws: Any, y: jax.Array, name: str = "predictive") -> jax.Array:
    draws = _known(owner, name, draws).astype(y.dtype)
    if draws.shape[1:] != y.shape or draws.ndim != y.ndim + 1 or len(draws) < 2:
        raise ValueError(
            f"{owner}: {name} must be draws of shape (s, *y.shape) with s of at least 2 and y of "
            f"shape {y.shape}, got {draws.shape}"
        )
    return draws


def _vectors(owner: str, y: Any) -> jax.Array:
    y = _known(owner, "y", y)
    if y.ndim == 0:
        raise ValueError(f"{owner}: y must have shape (..., d), got a number")
    return y


def _known(owner: str, name: str, value: Any) -> jax.Array:
    array = _real(owner, name, value)
    if array.size == 0:
        raise ValueError(f"{owner}: {name} is empty: its shape is {array.shape}")
    return refuse_where(array, lambda a: a != a, f"{owner}: {name} must not be NaN")


def _real(owner: str, name: str, value: Any) -> jax.Array:
    array = number_array(f"{owner}: {name}", value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{owner}: {name} must hold real numbers, got {array.dtype}")
    array = jnp.asarray(array)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)
