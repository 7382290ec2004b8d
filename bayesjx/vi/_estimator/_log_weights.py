"""Sums, means and shares of log weights, without NaN where all weights are zero."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float


def log_sum(
    log_weights: Float[Array, ...], axis: int | None = None, keepdims: bool = False
) -> Float[Array, ...]:
    """Log of the sum of weights: −inf if all are zero, inf if one is infinite.

    In both cases the gradient is zero.
    """
    top = jnp.max(log_weights, axis=axis, keepdims=True)
    special = jnp.isinf(top)
    total = logsumexp(jnp.where(special, 0.0, log_weights), axis=axis, keepdims=True)
    total = jnp.where(special, jax.lax.stop_gradient(top), total)
    return total if keepdims else jnp.squeeze(total, axis=axis)


def log_mean(log_weights: Float[Array, ...]) -> Float[Array, ""]:
    """Log of the mean weight of a vector; see `log_sum`."""
    return log_sum(log_weights) - jnp.log(jnp.asarray(log_weights.size, log_weights.dtype))


def shares(log_weights: Float[Array, " n"]) -> Float[Array, " n"]:
    """Normalised weights of a vector, all zero if all weights are; no gradient flows through."""
    log_weights = jax.lax.stop_gradient(log_weights)
    top = jnp.max(log_weights)
    usual = jax.nn.softmax(jnp.where(jnp.isinf(top), 0.0, log_weights))
    infinite = jnp.isposinf(log_weights)
    at_top = infinite / jnp.maximum(jnp.sum(infinite), 1).astype(log_weights.dtype)
    return jnp.where(jnp.isinf(top), at_top, usual)


def weighted_sum(shares: Float[Array, ...], values: Float[Array, ...]) -> Float[Array, ""]:
    """Sum of shares times values, in which nothing comes from a share of zero."""
    return jnp.sum(shares * jnp.where(shares == 0, 0.0, values))


def drawable(log_weights: Float[Array, ...]) -> Float[Array, ...]:
    """Log weights that can be sampled from: even ones if all weights are zero."""
    return jnp.where(jnp.all(log_weights == -jnp.inf), 0.0, log_weights)
