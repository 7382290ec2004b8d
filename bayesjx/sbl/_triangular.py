"""Inverses of small triangular matrices by products alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from .._core import inverse_tril, solve_tril_each
from ._design import solve_tril

BLOCK = 8  # rows that are inverted by substitution, in elementwise operations
SMALL = 512  # rows up to which LAPACK's triangular solves, split over threads, take longer


def small_inverse(tril: jax.Array) -> jax.Array:
    r"""$L^{-1}$ for `tril` of shape `(n, n)`.

    Up to 512 rows by blocks of twice the size in each pass, where all blocks are multiplied
    together: for loops whose steps are short, also under `vmap`.
    """
    n = len(tril)
    if n > SMALL:
        return inverse_tril(tril)
    size = BLOCK
    while size < n:
        size *= 2
    beyond = jnp.diag((jnp.arange(size) >= n).astype(tril.dtype))
    full = jnp.pad(jnp.tril(tril), ((0, size - n), (0, size - n))) + beyond
    width = BLOCK
    blocks = _blocks(full, width, 0)
    identity = jnp.broadcast_to(jnp.eye(width, dtype=tril.dtype), blocks.shape)
    inverse = solve_tril_each(blocks, identity)
    while width < size:
        top, bottom = inverse[0::2], inverse[1::2]
        corner = -bottom @ (_blocks(full, width, 1) @ top)
        upper = jnp.concatenate([top, jnp.zeros_like(top)], axis=2)
        inverse = jnp.concatenate([upper, jnp.concatenate([corner, bottom], axis=2)], axis=1)
        width *= 2
    return inverse[0][:n, :n]


def half_solved(tril: jax.Array, *sides: jax.Array) -> list[jax.Array]:
    r"""$L^{-1} B$ for each of some sides `(n, k)`, by the inverse where that is small."""
    if len(tril) > SMALL:
        return [solve_tril(tril, side) for side in sides]
    inverse = small_inverse(tril)
    return [inverse @ side for side in sides]


def _blocks(full: jax.Array, width: int, below: int) -> jax.Array:
    """Blocks on the diagonal, or every second one of those below it, shape `(., width, width)`."""
    steps = range(0, len(full), width * (1 + below))
    low = width * below
    return jnp.stack([full[i + low : i + low + width, i : i + width] for i in steps])
