"""Cholesky factors of matrices that rounding may have made indefinite."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._batched import cholesky_each
from ._eager import compiled

RUNGS = 3  # the jitter grows by ten that often before giving up
FINE_GROWTH = 30  # of the finer search, from some roundings up to 1e-5, in float32 to 1e-2


class Factor(NamedTuple):
    """A lower Cholesky factor and what had to be added to get it.

    Attributes:
        tril: lower triangular factor of `matrix + jitter I`, shape `(..., n, n)`; NaN if even the
            largest jitter did not help.
        jitter: what was added to the diagonal, shape `(...)`; 0 if nothing was.
    """

    tril: jax.Array
    jitter: jax.Array


def default_jitter(dtype: Any) -> float:
    """The first jitter relative to the mean of the diagonal: 1e-6, or 1e-4 in single precision."""
    return 1e-6 if dtype == jnp.float64 else 1e-4


def safe_cholesky(matrix: jax.Array, jitter: float | None = None) -> Factor:
    """Cholesky factor; where there is none, that of the matrix plus a growing multiple of I.

    Tries 0, then `jitter` times the mean of the diagonal, ten and a hundred times that. The jitter
    depends on the matrix but is taken as constant in derivatives.

    Args:
        matrix: symmetric, shape `(..., n, n)`; only its lower triangle is read.
        jitter: first relative jitter; by default 1e-6 in float64 and 1e-4 in float32.

    Returns:
        the factor and the jitter of each matrix. Check `tril` for NaN, or the jitter for its size.
    """
    if jitter is None:
        jitter = default_jitter(matrix.dtype)
    mean = jnp.mean(jnp.diagonal(matrix, axis1=-2, axis2=-1), axis=-1)
    return _factor(matrix, jitter * mean)


def needed_jitter(matrix: jax.Array, scale: jax.Array) -> jax.Array:
    """The jitter that gives a difference of matrices a Cholesky factor.

    What is left of a prior covariance after data may be no larger than its rounding, so that its
    own diagonal says nothing of how much it takes: the scale does. Tries 0, then a hundred
    roundings of the scale and so on, by factors of thirty; constant in derivatives.

    Args:
        matrix: symmetric, shape `(n, n)`; only its lower triangle is read.
        scale: size of the numbers that were subtracted, such as the mean prior variance, scalar.

    Returns:
        Scalar; 0 if nothing is needed.
    """
    step = 100 * jnp.finfo(matrix.dtype).eps * jnp.asarray(scale, matrix.dtype)
    return _search(matrix, step, FINE_GROWTH, 7 if matrix.dtype == jnp.float64 else 3)


@compiled
def _factor(matrix: jax.Array, step: jax.Array) -> Factor:
    added = _search(matrix, step, 10, RUNGS)
    # The search is done without derivatives; the factor is computed once more with them.
    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)
    return Factor(cholesky_each(matrix + added[..., None, None] * eye), added)


@compiled
def _search(matrix: jax.Array, step: jax.Array, growth: int, rungs: int) -> jax.Array:
    fixed, step = jax.lax.stop_gradient((matrix, step))
    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)

    def failed(added: jax.Array) -> jax.Array:
        tril = cholesky_each(fixed + added[..., None, None] * eye)
        return ~jnp.isfinite(jnp.sum(tril, axis=(-2, -1)))

    def climb(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        rung, added, bad = carry
        added = jnp.where(bad, step * float(growth) ** rung, added).astype(matrix.dtype)
        return rung + 1, added, bad & failed(added)

    def go_on(carry: tuple[Any, Any, Any]) -> jax.Array:
        rung, _, bad = carry
        return (rung < rungs) & jnp.any(bad)

    none = jnp.zeros_like(step)
    _, added, _ = jax.lax.while_loop(go_on, climb, (jnp.asarray(0), none, failed(none)))
    return jax.lax.stop_gradient(added)
