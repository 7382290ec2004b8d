"""Cholesky factors of matrices that rounding may have made indefinite."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._batched import cholesky_each
from ._eager import compiled

RUNGS = 3  # the jitter grows by ten that often before giving up


class Factor(NamedTuple):
    """A lower Cholesky factor and what had to be added to get it.

    Attributes:
        tril: lower triangular factor of `matrix + jitter I`, shape `(..., n, n)`; NaN if even the
            largest jitter did not help.
        jitter: what was added to the diagonal, shape `(...)`; 0 if nothing was.
    """

    tril: jax.Array
    jitter: jax.Array


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
        jitter = 1e-6 if matrix.dtype == jnp.float64 else 1e-4
    return _climbed(matrix, jitter)


@compiled
def _climbed(matrix: jax.Array, jitter: float) -> Factor:
    step = jitter * jnp.mean(jnp.diagonal(matrix, axis1=-2, axis2=-1), axis=-1)
    step = jax.lax.stop_gradient(step)
    eye = jnp.eye(matrix.shape[-1], dtype=matrix.dtype)

    def failed(added: jax.Array) -> jax.Array:
        tril = cholesky_each(fixed + added[..., None, None] * eye)
        return ~jnp.isfinite(jnp.sum(tril, axis=(-2, -1)))

    def climb(carry: tuple[Any, Any, Any]) -> tuple[Any, Any, Any]:
        rung, added, bad = carry
        added = jnp.where(bad, step * 10.0**rung, added).astype(matrix.dtype)
        return rung + 1, added, bad & failed(added)

    def go_on(carry: tuple[Any, Any, Any]) -> jax.Array:
        rung, _, bad = carry
        return (rung < RUNGS) & jnp.any(bad)

    # The search is done without derivatives; the factor is computed once more with them.
    fixed = jax.lax.stop_gradient(matrix)
    none = jnp.zeros_like(step)
    _, added, _ = jax.lax.while_loop(go_on, climb, (jnp.asarray(0), none, failed(none)))
    added = jax.lax.stop_gradient(added)
    return Factor(cholesky_each(matrix + added[..., None, None] * eye), added)
