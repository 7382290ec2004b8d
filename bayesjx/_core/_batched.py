"""Cholesky factors of many small matrices and solves with them, without batched LAPACK calls.

jaxlib's batched LAPACK kernels split their work over XLA's threads and wait for it there. Two of
them at a time on a machine with two cores occupy both threads and wait for each other for ever
(seen with jaxlib 0.10.2, triangular solves). What a user's own `vmap` does is beyond this file;
what the library does for itself, blocks along a chain or the elements of a plate, goes through it.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.lax.linalg import triangular_solve

UNROLLED = 8  # rows up to which elements are computed one by one, all matrices at once


@jax.custom_jvp
def cholesky_each(matrices: jax.Array) -> jax.Array:
    """Lower Cholesky factors; those of matrices that are not positive definite hold NaN.

    Args:
        matrices: symmetric, shape `(..., n, n)`; only lower triangles are read.
    """
    n = matrices.shape[-1]
    if matrices.ndim == 2:
        return jnp.linalg.cholesky(matrices, symmetrize_input=False)
    if n <= UNROLLED:
        return _unrolled_cholesky(matrices)
    one = functools.partial(jnp.linalg.cholesky, symmetrize_input=False)
    return each(one, matrices)


@cholesky_each.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # Murray (2016), "Differentiation of the Cholesky decomposition", equation 8.
    (matrices,), (change,) = primals, tangents
    tril = cholesky_each(matrices)
    change = jnp.tril(change) + jnp.tril(change, -1).mT
    inside = solve_tril_each(tril, solve_tril_each(tril, change).mT)
    half = jnp.tril(inside, -1) + 0.5 * inside * jnp.eye(tril.shape[-1], dtype=tril.dtype)
    return tril, tril @ half


def solve_tril_each(tril: jax.Array, b: jax.Array, *, transposed: bool = False) -> jax.Array:
    r"""$L^{-1} B$ or $L^{-\top} B$ for many lower triangular matrices.

    Args:
        tril: shape `(..., n, n)`; only lower triangles are read.
        b: shape `(..., n, k)`, the same leading axes.
        transposed: solve with the transposes.
    """
    tril = jnp.tril(tril)
    fixed = jax.lax.stop_gradient(tril)

    def multiply(x: jax.Array) -> jax.Array:
        return (tril.mT if transposed else tril) @ x

    return jax.lax.custom_linear_solve(
        multiply,
        b,
        lambda _, rhs: _substitute(fixed, rhs, transposed),
        transpose_solve=lambda _, rhs: _substitute(fixed, rhs, not transposed),
    )


def _substitute(tril: jax.Array, b: jax.Array, transposed: bool) -> jax.Array:
    n = tril.shape[-1]
    solve = functools.partial(triangular_solve, left_side=True, lower=True, transpose_a=transposed)
    if tril.ndim == 2:
        return solve(tril, b)
    if n > UNROLLED:
        return each(lambda pair: solve(*pair), (tril, b))
    rows: dict[int, jax.Array] = {}
    for i in reversed(range(n)) if transposed else range(n):
        rest = b[..., i, :]
        for j, row in rows.items():
            entry = tril[..., j, i] if transposed else tril[..., i, j]
            rest = rest - entry[..., None] * row
        rows[i] = rest / tril[..., i, i, None]
    return jnp.stack([rows[i] for i in range(n)], axis=-2)


def _unrolled_cholesky(matrices: jax.Array) -> jax.Array:
    n = matrices.shape[-1]
    entries: dict[tuple[int, int], jax.Array] = {}
    for j in range(n):
        for i in range(j, n):
            rest = matrices[..., i, j]
            for k in range(j):
                rest = rest - entries[i, k] * entries[j, k]
            entries[i, j] = jnp.sqrt(rest) if i == j else rest / entries[j, j]
    zero = jnp.zeros_like(matrices[..., 0, 0])
    rows = [jnp.stack([entries.get((i, j), zero) for j in range(n)], axis=-1) for i in range(n)]
    return jnp.stack(rows, axis=-2)


def each(function: Any, matrices: Any) -> Any:
    """A function of matrices mapped over leading axes: in turn on CPUs, all at once elsewhere.

    Args:
        function: of one matrix, or of a tuple of them, to an array or a tree of them; serves
            stacks as well.
        matrices: shape `(..., n, m)`, or a tuple of such with the same leading axes.
    """
    lead = jax.tree.leaves(matrices)[0].shape[:-2]

    def in_turn(matrices: Any) -> Any:
        flat = jax.tree.map(lambda x: x.reshape(math.prod(lead), *x.shape[-2:]), matrices)
        out = jax.lax.map(function, flat)
        return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), out)

    return jax.lax.platform_dependent(matrices, cpu=in_turn, default=function)
