"""Pareto smoothed importance sampling: how far the largest weights can be trusted."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp

_FEWEST = 5  # tail draws that a fit needs
_PRIOR_SCALE, _PRIOR_WEIGHT, _PRIOR_SHAPE = 3.0, 10.0, 0.5  # weak priors of the fit


class PSIS(NamedTuple):
    r"""Result of `psis`, with the leading axes of its input.

    Attributes:
        log_weights: smoothed log weights, normalised to `logsumexp` zero over the last axis.
        k_hat: shape $\hat k$ of the weights' tail. The weights have moments up to order
            $1 / \hat k$: above 0.5 their variance is infinite, above 1 their mean.
        ess: effective sample size $1 / \sum_s w_s^2$ of the smoothed weights.
    """

    log_weights: jax.Array
    k_hat: jax.Array
    ess: jax.Array

    @property
    def threshold(self) -> float:
        r"""Up to this $\hat k$ estimates are reliable: $\min(1 - 1 / \log_{10} S, 0.7)$."""
        num_draws = self.log_weights.shape[-1]
        return min(1 - 1 / math.log10(num_draws), 0.7) if num_draws > 10 else 0.0

    @property
    def reliable(self) -> jax.Array:
        """Whether `k_hat` is at most `threshold`."""
        return self.k_hat <= self.threshold


def psis(log_weights: jax.Array, relative_efficiency: float = 1.0) -> PSIS:
    r"""Smooths the largest importance weights with a generalised Pareto fit.

    The shape of the fit, $\hat k$, tells how reliable the weighted draws are, and for a
    variational posterior whether it covers the target. Degenerate input gives these values,
    and never NaN:

    - all weights zero, or one of them NaN: `k_hat` inf, `ess` 0, `log_weights` all -inf;
    - infinite weights: `k_hat` inf, all weight on these draws;
    - fewer than 25 draws, or fewer than 5 distinguishable weights in the tail: `k_hat` inf,
      weights normalised but not smoothed;
    - the whole tail (or everything) has one weight: `k_hat` -inf, nothing to smooth.

    Ties at the cutoff of the tail, of rounded weights or repeated draws, would all be excesses of
    exactly zero, which no Pareto distribution has: they make the fit depend on how many of them
    the tail happens to hold, and its first quartile 0 if there are many. The tail is then what is
    strictly above them, and the cutoff halfway to its smallest weight, as for a histogram: `k_hat`
    of weights rounded to 0.1 in the logarithm is that of the weights themselves, to its own noise.
    ArviZ (arviz-stats 0.8) and R's loo keep the zeros; without ties the results agree.

    Args:
        log_weights: shape `(..., s)`, unnormalised, $\log p - \log q$ at draws of $q$.
        relative_efficiency: effective over actual number of draws, for correlated draws.

    Returns:
        a `PSIS`. Works under `jit` and `vmap`.

    Raises:
        ValueError: there are no draws, the log weights are not real floating-point numbers, or
            `relative_efficiency` is not positive.

    References:
        Vehtari, Simpson, Gelman, Yao and Gabry (2024), "Pareto smoothed importance sampling",
        JMLR 25; Zhang and Stephens (2009), "A new and efficient estimation method for the
        generalized Pareto distribution", Technometrics 51, for the fit.
    """
    try:
        log_weights = jnp.asarray(log_weights)
    except (TypeError, ValueError):
        got = type(log_weights).__name__
        raise ValueError(f"log_weights must be floating-point numbers, got {got}") from None
    if log_weights.ndim == 0 or log_weights.shape[-1] == 0:
        raise ValueError(
            f"log_weights must have shape (..., s) with s >= 1 draws, got {log_weights.shape}"
        )
    if not jnp.issubdtype(log_weights.dtype, jnp.floating):
        raise ValueError(
            f"log_weights must be floating-point numbers, got {log_weights.dtype}; "
            "are these weights, not their logarithms?"
        )
    if not isinstance(relative_efficiency, int | float) or not relative_efficiency > 0:
        raise ValueError(f"relative_efficiency must be positive, got {relative_efficiency}")
    tail = _tail_size(log_weights.shape[-1], relative_efficiency)
    rows = log_weights.reshape((-1, log_weights.shape[-1]))
    smoothed, k_hat, ess = jax.vmap(lambda row: _psis_of_row(row, tail))(rows)
    lead = log_weights.shape[:-1]
    return PSIS(smoothed.reshape(log_weights.shape), k_hat.reshape(lead), ess.reshape(lead))


def _tail_size(num_draws: int, relative_efficiency: float) -> int:
    """The smaller of a fifth of the draws and $3 \\sqrt{S / r}$."""
    if num_draws * relative_efficiency > 225:
        size = int(3 * math.sqrt(num_draws / relative_efficiency))
        return min(size, num_draws - 1)
    return num_draws // 5


def _psis_of_row(log_weights: jax.Array, tail: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    infinite = log_weights == jnp.inf
    any_infinite = jnp.any(infinite)
    log_weights = jnp.where(any_infinite, jnp.where(infinite, 0.0, _low(log_weights)), log_weights)
    useless = jnp.any(jnp.isnan(log_weights)) | jnp.all(log_weights == -jnp.inf)
    log_weights = jnp.where(useless, 0.0, log_weights)
    log_weights = log_weights - jnp.max(log_weights)
    k_hat = jnp.asarray(jnp.inf, log_weights.dtype)
    if tail >= _FEWEST:
        smoothed, k_hat = _smooth(log_weights, tail)
        log_weights = jnp.where(any_infinite, log_weights, smoothed)
        k_hat = jnp.where(any_infinite, jnp.inf, k_hat)
    log_weights = log_weights - logsumexp(log_weights)
    ess = jnp.exp(-logsumexp(2 * log_weights))
    return (
        jnp.where(useless, _low(log_weights), log_weights),
        jnp.where(useless, jnp.inf, k_hat),
        jnp.where(useless, 0.0, ess),
    )


def _smooth(log_weights: jax.Array, tail: int) -> tuple[jax.Array, jax.Array]:
    """Replaces the `tail` largest of log weights whose maximum is 0 by Pareto quantiles."""
    order = jnp.argsort(log_weights)[-tail - 1 :]
    cutoff, largest = log_weights[order[0]], log_weights[order[1:]]
    flat = cutoff == 0
    above = largest > cutoff
    # exp(largest) - exp(cutoff), without cancellation
    excess = -jnp.exp(largest) * jnp.expm1(jnp.where(above, cutoff - largest, 0.0))
    used = excess > 100 * jnp.finfo(log_weights.dtype).tiny
    number = jnp.sum(used)
    tied = jnp.sum(log_weights == cutoff) > 1
    raised = jnp.where(tied, jnp.min(jnp.where(used, excess, jnp.inf)) / 2, 0.0)
    raised = jnp.where(number > 0, raised, 0.0)
    excess = excess - raised
    k_hat, scale = _fit_pareto(jnp.where(used, excess, 1.0), used, number)
    fitted = (number >= _FEWEST) & jnp.isfinite(k_hat) & jnp.isfinite(scale) & (scale > 0) & ~flat
    k_hat, scale = jnp.where(fitted, k_hat, 1.0), jnp.where(fitted, scale, 1.0)
    rank = jnp.arange(tail, dtype=log_weights.dtype) - (tail - number) + 0.5
    probability = jnp.where(used, rank / number, 0.5)
    exponent = -jnp.log1p(-probability)
    small = jnp.abs(k_hat) < 1e-6
    shape = jnp.where(small, 1.0, k_hat)
    quantile = scale * jnp.where(small, exponent, jnp.expm1(shape * exponent) / shape)
    smoothed = jnp.minimum(jnp.log(quantile + (jnp.exp(cutoff) + raised)), 0.0)
    largest = jnp.where(used & fitted, smoothed, largest)
    k_hat = jnp.where(fitted, k_hat, jnp.where(flat, -jnp.inf, jnp.inf))
    return log_weights.at[order[1:]].set(largest), k_hat


def _fit_pareto(
    excess: jax.Array, used: jax.Array, number: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Shape and scale of a generalised Pareto distribution: posterior means on a grid.

    Args:
        excess: positive, ascending; entries that are not used come first.
        used: which entries count.
        number: how many of them.
    """
    dtype = excess.dtype
    size = excess.shape[0]
    count = jnp.maximum(number, 1).astype(dtype)

    def mean_log(b: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(used, jnp.log1p(-b * excess), 0.0)) / count

    # The grid has 30 + sqrt(number) points; as number is traced, the rest is masked.
    points = 30 + jnp.floor(jnp.sqrt(count))
    steps = jnp.arange(1, 31 + math.isqrt(size), dtype=dtype)
    quartile = excess[size - number + jnp.floor(count / 4 + 0.5).astype(int) - 1]
    grid = (1 - jnp.sqrt(points / (steps - 0.5))) / (_PRIOR_SCALE * quartile) + 1 / excess[-1]
    shapes = jax.vmap(mean_log)(grid)
    log_likelihood = count * (jnp.log(-grid / shapes) - shapes - 1)
    log_likelihood = jnp.where(steps <= points, log_likelihood, -jnp.inf)
    log_likelihood = jnp.where(jnp.isnan(log_likelihood), -jnp.inf, log_likelihood)
    weights = jax.nn.softmax(log_likelihood)
    weights = jnp.where(weights >= 10 * jnp.finfo(dtype).eps, weights, 0.0)
    b = jnp.sum(jnp.where(weights > 0, weights * grid, 0.0)) / jnp.sum(weights)
    shape = mean_log(b)
    scale = -shape / b
    shape = (count * shape + _PRIOR_WEIGHT * _PRIOR_SHAPE) / (count + _PRIOR_WEIGHT)
    return shape, scale


def _low(like: jax.Array) -> jax.Array:
    return jnp.asarray(-jnp.inf, like.dtype)
