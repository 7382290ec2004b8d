"""Criteria of importance of weights with normal posteriors, for their removal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jax.scipy.stats import norm
from jaxtyping import Array, Float

from ._arguments import one_of, real


def removal_score(
    mean: Float[Array, ...],
    scale: Float[Array, ...],
    criterion: str = "snr_mean_abs",
    rate: float = 1.0,
) -> Float[Array, ...]:
    r"""Importance of weights $w \sim N(\mu, \sigma^2)$; those of the least are removed first.

    Only the order of scores of one criterion is meaningful: `"snr_mean_abs"` is never below 1.32,
    and those with exponentials are given in logarithms, as they exceed any number. For single
    weights `"snr"` and `"snr_mean_abs"` have the same order; sums over a unit differ.

    Args:
        mean: $\mu$.
        scale: $\sigma$, positive, of the same shape.
        criterion: `"mean"`, the absolute mean; `"snr"`, that over $\sigma$; `"mean_abs"`, the mean
            of the absolute weight $a$; `"snr_mean_abs"`, that over the standard deviation of $a$;
            `"exp"`, $\log E e^{\lambda a}$; `"snr_exp"`, the logarithm of $E e^{\lambda a}$ over
            the standard deviation of $e^{\lambda a}$.
        rate: $\lambda > 0$ of the last two.

    Returns:
        Of the shape of the arguments.

    Raises:
        ValueError: another criterion, or a rate that is not positive.

    References:
        Li, Miao, Qiu and Zhang (2024), "Training Bayesian neural networks with sparse subspace
        variational inference", ICLR, table 1.
    """
    score = CRITERIA[one_of("criterion", criterion, tuple(CRITERIA))]
    rate = real("rate", rate, 0, float("inf"), "a positive number")
    mean, scale = jnp.asarray(mean), jnp.asarray(scale)
    if mean.shape != scale.shape:
        raise ValueError(f"scale must have the shape of mean, {mean.shape}; got {scale.shape}")
    return score(jnp.abs(mean), scale, rate)


def _mean(mean: Any, scale: Any, rate: float) -> jax.Array:
    return mean


def _snr(mean: Any, scale: Any, rate: float) -> jax.Array:
    return _ratio(mean, scale)


def _mean_abs(mean: Any, scale: Any, rate: float) -> jax.Array:
    return mean + scale * _excess(_ratio(mean, scale))


def _snr_mean_abs(mean: Any, scale: Any, rate: float) -> jax.Array:
    ratio = _ratio(mean, scale)
    return (ratio + _excess(ratio)) / jnp.sqrt(_relative_var(ratio))


def _exp(mean: Any, scale: Any, rate: float) -> jax.Array:
    growth = rate * mean + (rate * scale) ** 2 / 2
    return growth + _log_sides(mean, scale, rate)


def _snr_exp(mean: Any, scale: Any, rate: float) -> jax.Array:
    """$-\\frac12 \\log (e^D - 1)$ with D the log of the second moment over the squared first."""
    step = rate * scale
    far = step**2 + _log_sides(mean, scale, 2 * rate) - 2 * _log_sides(mean, scale, rate)
    # Of short steps the terms of first order cancel; then D is the variance of the exponent.
    near = step**2 * _relative_var(_ratio(mean, scale))
    root = jnp.finfo(step.dtype).eps ** 0.5
    tiny = jnp.finfo(step.dtype).tiny
    gap = jnp.maximum(jnp.where(step < root, near, far), tiny)
    small = jnp.minimum(gap, 1)
    log_gap = jnp.where(gap < 1, jnp.log(jnp.expm1(small)), gap + jnp.log1p(-jnp.exp(-gap)))
    return -0.5 * log_gap


def _log_sides(mean: Any, scale: Any, rate: float) -> jax.Array:
    r"""$\log(\Phi(z + \lambda\sigma) + e^{-2\lambda|\mu|} \Phi(\lambda\sigma - z))$."""
    ratio, step = _ratio(mean, scale), rate * scale
    return jnp.logaddexp(log_ndtr(ratio + step), log_ndtr(step - ratio) - 2 * rate * mean)


def _ratio(mean: Any, scale: Any) -> jax.Array:
    # Beyond this nothing changes but rounding, and squares stay finite in single precision.
    return jnp.minimum(mean / jnp.maximum(scale, jnp.finfo(scale.dtype).tiny), 1e15)


def _excess(ratio: Any) -> jax.Array:
    """E|w| - |mean| in units of the scale; the difference would cancel where it is small."""
    return 2 * jnp.maximum(norm.pdf(ratio) - ratio * norm.cdf(-ratio), 0)


def _relative_var(ratio: Any) -> jax.Array:
    """Variance of |w| in units of that of w, between 1 - 2 / pi and 1."""
    excess = _excess(ratio)
    return 1 - excess * (2 * ratio + excess)


CRITERIA: dict[str, Callable[..., jax.Array]] = {
    "mean": _mean,
    "snr": _snr,
    "mean_abs": _mean_abs,
    "snr_mean_abs": _snr_mean_abs,
    "exp": _exp,
    "snr_exp": _snr_exp,
}
