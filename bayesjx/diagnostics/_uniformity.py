"""Tests of values that are uniform if a posterior or a predictive distribution is right."""

from __future__ import annotations

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Int
from scipy import stats

from .._core import compiled, number_array, refuse_where, whole_number
from ._bands import ecdf_band, tabulated

NUM_TESTS = 3  # that make `p_value`
_EDGE = 2.0**-24  # of values that are 0 or 1 up to rounding


class Uniformity(eqx.Module):
    r"""Whether values are uniform, and if not what that says of the distributions they come from.

    Values are $u = F(\theta)$ of truths $\theta$ under their distributions $F$, so a mean of normal
    scores $z = \Phi^{-1}(u)$ above 0 says that the distributions are too low, and a standard
    deviation above 1 that they are too narrow. Batches of values have leading axes `...`.

    Attributes:
        score_mean: mean of the normal scores: by how many of its standard deviations the
            distribution is too low, shape `(...)`.
        score_scale: standard deviation of the normal scores, by which the standard deviation of the
            distribution should be multiplied, shape `(...)`.
        p_mean: p-value of `score_mean`, by Student's t; valid whatever the scale is.
        p_scale: p-value of `score_scale`, two-sided.
        p_ecdf: p-value of the empirical distribution function, by simultaneous bands; a little too
            large, as it is that of one of 40 bands.
        p_ks: p-value of Kolmogorov's and Smirnov's test.
        p_chi2: p-value of the chi-square test of the histogram.
        histogram: number of values in each bin, shape `(..., bins)`.
        points: between 0 and 1, shape `(k,)`.
        ecdf: empirical distribution function there, shape `(..., k)`.
        lower: lower end of the simultaneous band, shape `(k,)`.
        upper: upper end of the simultaneous band, shape `(k,)`.
        num_values: how many values there are, known when traced.
    """

    score_mean: Float[Array, ...]
    score_scale: Float[Array, ...]
    p_mean: Float[Array, ...]
    p_scale: Float[Array, ...]
    p_ecdf: Float[Array, ...]
    p_ks: Float[Array, ...]
    p_chi2: Float[Array, ...]
    histogram: Int[Array, "... bins"]
    points: Float[Array, " k"]
    ecdf: Float[Array, "... k"]
    lower: Float[Array, " k"]
    upper: Float[Array, " k"]
    num_values: int = eqx.field(static=True)

    @property
    def p_value(self) -> Float[Array, ...]:
        """One p-value of all: three times the least of `p_mean`, `p_scale` and `p_ecdf`."""
        least = jnp.minimum(jnp.minimum(self.p_mean, self.p_scale), self.p_ecdf)
        return jnp.minimum(NUM_TESTS * least, 1.0)


def uniformity(
    values: Any, *, num_bins: int = 20, num_points: int = 50, prob: float = 0.95
) -> Uniformity:
    """Tests whether values between 0 and 1 are independent and uniform.

    Such values are probability integral transforms (`pit`), the shares of posterior draws below a
    truth (`sbc`) and those of `tarp`. Two tests tell what is wrong: the mean and the scale of the
    values' normal scores; a third, of the empirical distribution function, sees all else. Works
    under `jit` and `vmap`.

    Args:
        values: shape `(..., n)`, with `n` of 3 or more.
        num_bins: of the histogram.
        num_points: intervals in which the empirical distribution function is looked at.
        prob: of the simultaneous band.

    Raises:
        ValueError: too few values, values that are known to be outside of 0 and 1 or NaN, numbers
            below 2, a probability that is not between 0 and 1.
        RuntimeError: under `jit`, such values.

    References:
        Berkowitz (2001), "Testing density forecasts, with applications to risk management", Journal
        of Business & Economic Statistics 19, for normal scores; Säilynoja, Bürkner and Vehtari
        (2022), Statistics and Computing 32, for the bands.
    """
    values = number_array("uniformity: values", values)
    if not jnp.issubdtype(values.dtype, jnp.floating):
        raise ValueError(
            f"uniformity: values must be floating-point numbers, got {values.dtype}; of ranks, "
            "give (rank + u) / (num_draws + 1) with u uniform, or use sbc"
        )
    if values.ndim == 0 or values.shape[-1] < 3:
        raise ValueError(
            f"uniformity: values must have shape (..., n) with n of at least 3, got {values.shape}"
        )
    whole_number("uniformity: num_bins", num_bins, 2)
    values = refuse_where(
        values, lambda u: ~((u >= 0) & (u <= 1)), "uniformity: values must be between 0 and 1"
    )
    ecdf_band(values.shape[-1], num_points=num_points, prob=prob)  # checks its arguments
    return tested(jnp.asarray(values), int(num_bins), int(num_points), float(prob))


@compiled
def tested(
    values: Float[Array, "*batch n"], num_bins: int = 20, num_points: int = 50, prob: float = 0.95
) -> Uniformity:
    """As `uniformity`, of values that are between 0 and 1."""
    number, dtype = values.shape[-1], values.dtype
    band = ecdf_band(number, num_points=num_points, prob=prob)
    ordered = jnp.sort(values, axis=-1)
    counts = _count(ordered, band.points)
    edges = _count(ordered, np.arange(1, num_bins) / num_bins)
    sides = [jnp.zeros_like(edges[..., :1]), jnp.full_like(edges[..., :1], number)]
    histogram = jnp.diff(jnp.concatenate([sides[0], edges, sides[1]], axis=-1), axis=-1)
    mean, scale, p_mean, p_scale = _scores(ordered)
    expected = number / num_bins
    statistic = jnp.sum((histogram.astype(dtype) - expected) ** 2, axis=-1) / expected
    return Uniformity(
        score_mean=mean,
        score_scale=scale,
        p_mean=p_mean,
        p_scale=p_scale,
        p_ecdf=_p_of_bands(counts, number, num_points, dtype),
        p_ks=_p_of_kolmogorov(ordered),
        p_chi2=_looked_up(jnp.cbrt(statistic), *_chi_square(num_bins)),
        histogram=histogram,
        points=jnp.asarray(band.points, dtype),
        ecdf=counts.astype(dtype) / number,
        lower=jnp.asarray(band.lower, dtype),
        upper=jnp.asarray(band.upper, dtype),
        num_values=number,
    )


def _count(ordered: jax.Array, points: np.ndarray) -> jax.Array:
    """How many of the ordered values are at most each point."""
    at = jnp.asarray(points, ordered.dtype)
    flat = ordered.reshape(-1, ordered.shape[-1])
    found = jax.vmap(lambda row: jnp.searchsorted(row, at, side="right"))(flat)
    return found.reshape(*ordered.shape[:-1], len(points))


def _scores(values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Mean and standard deviation of normal scores, and the p-values of both."""
    number = values.shape[-1]
    scores = ndtri(jnp.clip(values, _EDGE, 1 - _EDGE))
    mean = jnp.mean(scores, axis=-1)
    variance = jnp.var(scores, axis=-1, ddof=1)
    t = jnp.abs(mean) * math.sqrt(number) / jnp.sqrt(jnp.maximum(variance, 1e-30))
    log_variance = math.sqrt((number - 1) / 2) * jnp.log(jnp.maximum(variance, 1e-30))
    p_mean = _looked_up(jnp.arcsinh(t), *_student(number))
    return mean, jnp.sqrt(variance), p_mean, _looked_up(log_variance, *_variance(number))


def _looked_up(x: jax.Array, at: np.ndarray, log_p: np.ndarray) -> jax.Array:
    """A p-value from a table; incomplete beta and gamma functions take seconds to compile."""
    return jnp.exp(jnp.interp(x, jnp.asarray(at, x.dtype), jnp.asarray(log_p, x.dtype)))


@functools.lru_cache(64)
def _student(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Logarithms of two-sided p-values of Student's t by `arcsinh(t)`."""
    at = np.linspace(0, 10, 1001)
    return at, _log(2 * stats.t.sf(np.sinh(at), number - 1))


@functools.lru_cache(64)
def _variance(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Those of variances of `number` normal values, by the logarithm over its standard error."""
    at = np.linspace(-40, 40, 3201)
    statistic = (number - 1) * np.exp(at / math.sqrt((number - 1) / 2))
    tails = stats.chi2.cdf(statistic, number - 1), stats.chi2.sf(statistic, number - 1)
    return at, _log(np.minimum(2 * np.minimum(*tails), 1.0))


@functools.lru_cache(64)
def _chi_square(num_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Those of the chi-square statistic of a histogram, by its cube root."""
    at = np.linspace(0, 20, 2001)
    return at, _log(stats.chi2.sf(at**3, num_bins - 1))


def _log(p: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(p, np.finfo(np.float32).tiny))


def _p_of_bands(counts: jax.Array, number: int, num_points: int, dtype: Any) -> jax.Array:
    """Of the bands that the function leaves, the probability of the least likely to be left."""
    lower, upper, leave = tabulated(number, num_points)
    at = counts[..., None, :]
    outside = jnp.any((at < jnp.asarray(lower)) | (at > jnp.asarray(upper)), axis=-1)
    return jnp.min(jnp.where(outside, jnp.asarray(leave, dtype), 1.0), axis=-1)


def _p_of_kolmogorov(ordered: jax.Array) -> jax.Array:
    """P-value of the largest distance, by the limit with a correction for finite numbers.

    Vrbik (2018), "Small-sample corrections to Kolmogorov-Smirnov test statistic", Pioneer Journal
    of Theoretical and Applied Statistics 15.
    """
    number, dtype = ordered.shape[-1], ordered.dtype
    ranks = jnp.arange(number, dtype=dtype)
    distance = jnp.maximum((ranks + 1) / number - ordered, ordered - ranks / number)
    x = math.sqrt(number) * jnp.max(distance, axis=-1)
    x = x + 1 / (6 * math.sqrt(number)) + (x - 1) / (4 * number)
    k = jnp.arange(1, 6, dtype=dtype)
    squared = jnp.maximum(x, 0.1)[..., None] ** 2
    tail = 2 * jnp.sum(jnp.where(k % 2 == 1, 1, -1) * jnp.exp(-2 * k**2 * squared), axis=-1)
    near = jnp.exp(-((2 * k - 1) ** 2) * math.pi**2 / (8 * squared))
    near = 1 - math.sqrt(2 * math.pi) * jnp.sum(near, axis=-1) / jnp.sqrt(squared[..., 0])
    return jnp.clip(jnp.where(x > 1, tail, near), 0, 1)
