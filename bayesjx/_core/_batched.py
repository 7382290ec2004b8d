"""Factorisations and solves of one or many matrices, without batched LAPACK calls on CPUs.

jaxlib's batched LAPACK kernels split their work over XLA's threads and wait for it there. Two of
them at a time on a machine with two cores occupy both threads and wait for each other for ever
(seen with jaxlib 0.10.2, triangular solves and QR). So what the library does for itself, blocks
along a chain or the elements of a plate, goes through `cholesky_each` and `solve_tril_each`, and a
`vmap` over these or over `solve_triangular`, `cho_solve` and `eigh`, as that of NUTS over its
chains, works on one matrix after the other. Other platforms do all at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
from jax.custom_batching import custom_vmap
from jax.lax.linalg import triangular_solve

from ._eager import compiled

LEAF = 64  # rows up to which a triangular matrix is inverted by substitution
UNROLLED = 8  # rows up to which elements are computed one by one, all matrices at once


@jax.custom_jvp
def cholesky_each(matrices: jax.Array) -> jax.Array:
    """Lower Cholesky factors; those of matrices that are not positive definite hold NaN.

    Args:
        matrices: symmetric, or complex and Hermitian, shape `(..., n, n)`; only lower triangles
            are read.
    """
    if matrices.ndim == 2:
        return _cholesky(matrices)
    if matrices.shape[-1] <= UNROLLED:
        return _unrolled_cholesky(matrices)
    return each(_cholesky, matrices, _lapack_cholesky)


@cholesky_each.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # Murray (2016), "Differentiation of the Cholesky decomposition", equation 8.
    (matrices,), (change,) = primals, tangents
    tril = cholesky_each(matrices)
    change = jnp.tril(change) + jnp.tril(change, -1).mT.conj()
    inside = solve_tril_each(tril, solve_tril_each(tril, change).mT.conj())
    half = jnp.tril(inside, -1) + 0.5 * inside * jnp.eye(tril.shape[-1], dtype=tril.dtype)
    return tril, tril @ half


def solve_tril_each(tril: jax.Array, b: jax.Array, *, transposed: bool = False) -> jax.Array:
    r"""$L^{-1} B$ or $L^{-\top} B$ for many lower triangular matrices.

    Args:
        tril: shape `(..., n, n)`; only lower triangles are read.
        b: shape `(..., n, k)`, the same leading axes.
        transposed: solve with the transposes.
    """
    if isinstance(tril, jax.core.Tracer) or isinstance(b, jax.core.Tracer):
        return _solve_tril_each(tril, b, transposed)
    return _solve_tril_each_compiled(tril, b, transposed)


def _solve_tril_each(tril: jax.Array, b: jax.Array, transposed: bool) -> jax.Array:
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


_solve_tril_each_compiled = compiled(_solve_tril_each)


def inverse_tril(tril: jax.Array) -> jax.Array:
    """Inverses of lower triangular matrices by halves, so that nearly all work is products.

    Args:
        tril: shape `(..., n, n)`.
    """
    return _inverse_by_halves(tril) if tril.ndim == 2 else each(_inverse_by_halves, tril)


def _inverse_by_halves(tril: jax.Array) -> jax.Array:
    *lead, n, _ = tril.shape
    if n <= LEAF:
        return solve_tril_each(tril, jnp.broadcast_to(jnp.eye(n, dtype=tril.dtype), tril.shape))
    half = n // 2
    top = _inverse_by_halves(tril[..., :half, :half])
    bottom = _inverse_by_halves(tril[..., half:, half:])
    corner = -bottom @ (tril[..., half:, :half] @ top)
    zero = jnp.zeros((*lead, half, n - half), tril.dtype)
    return jnp.block([[top, zero], [corner, bottom]])


def solve_triangular(
    matrix: jax.Array, b: jax.Array, *, trans: int = 0, lower: bool = False
) -> jax.Array:
    """`jax.scipy.linalg.solve_triangular` of one matrix; under `vmap` without batched calls.

    Args:
        matrix: shape `(n, n)`; only one triangle is read.
        b: shape `(n,)` or `(n, k)`.
        trans: 1 to solve with the transpose.
        lower: which triangle.
    """
    tril, transposed = (matrix, bool(trans)) if lower else (matrix.T, not trans)
    if b.ndim == 1:
        return solve_tril_each(tril, b[:, None], transposed=transposed)[:, 0]
    return solve_tril_each(tril, b, transposed=transposed)


def cho_solve(factor: tuple[jax.Array, bool], b: jax.Array) -> jax.Array:
    """`jax.scipy.linalg.cho_solve` of one matrix; under `vmap` without batched calls.

    Args:
        factor: a Cholesky factor of shape `(n, n)`, and whether it is the lower one.
        b: shape `(n,)` or `(n, k)`.
    """
    matrix, lower = factor
    half = solve_triangular(matrix, b, trans=0 if lower else 1, lower=lower)
    return solve_triangular(matrix, half, trans=1 if lower else 0, lower=lower)


@jax.custom_jvp
def eigh(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Eigenvalues, ascending, and eigenvectors, columns; under `vmap` without batched calls.

    Args:
        matrix: symmetric, shape `(n, n)`.
    """
    return _eigh(matrix)


@eigh.defjvp
def _(primals: Any, tangents: Any) -> Any:
    # Of eigenvectors only where eigenvalues are distinct, as everywhere.
    (matrix,), (change,) = primals, tangents
    values, vectors = eigh(matrix)
    inside = vectors.T @ (0.5 * (change + change.T)) @ vectors
    gaps = values - values[:, None]
    same = jnp.eye(len(values), dtype=bool)
    turned = vectors @ jnp.where(same, 0, inside / jnp.where(same, 1, gaps))
    return (values, vectors), (jnp.diag(inside), turned)


@jax.custom_jvp
def eigenvalues(matrix: jax.Array) -> jax.Array:
    """Those of `eigh`, with first derivatives where some coincide, too.

    Second ones are NaN there, and right elsewhere.

    Args:
        matrix: symmetric, shape `(n, n)`.
    """
    return eigh(matrix)[0]


@eigenvalues.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (matrix,), (change,) = primals, tangents
    values, vectors = eigh(matrix)
    return values, jnp.sum(vectors * (0.5 * (change + change.T) @ vectors), axis=0)


def _substitute(tril: jax.Array, b: jax.Array, transposed: bool) -> jax.Array:
    n = tril.shape[-1]
    if tril.ndim == 2:
        return _SOLVERS[transposed](tril, b)
    if n > UNROLLED:
        return each(_PAIR_SOLVERS[transposed], (tril, b), _LAPACK_PAIR_SOLVERS[transposed])
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
                rest = rest - entries[i, k] * entries[j, k].conj()
            entries[i, j] = jnp.sqrt(rest) if i == j else rest / entries[j, j]
    zero = jnp.zeros_like(matrices[..., 0, 0])
    rows = [jnp.stack([entries.get((i, j), zero) for j in range(n)], axis=-1) for i in range(n)]
    return jnp.stack(rows, axis=-2)


def each(function: Any, matrices: Any, at_once: Any = None) -> Any:
    """A function of matrices mapped over leading axes: in turn on CPUs, all at once elsewhere.

    Args:
        function: of one matrix, or of a tuple of them, to an array or a tree of them; one of a
            module, where it is called outside of `jit`.
        matrices: shape `(..., n, m)`, or a tuple of such with the same leading axes.
        at_once: the same of stacks of matrices; by default `function` serves those as well.
    """
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(matrices)):
        return _each(function, matrices, at_once or function)
    return _each_compiled(function, matrices, at_once or function)


def _each(function: Any, matrices: Any, at_once: Any) -> Any:
    lead = jax.tree.leaves(matrices)[0].shape[:-2]

    def in_turn(matrices: Any) -> Any:
        flat = jax.tree.map(lambda x: x.reshape(math.prod(lead), *x.shape[-2:]), matrices)
        out = jax.lax.map(function, flat)
        return jax.tree.map(lambda x: x.reshape(*lead, *x.shape[1:]), out)

    return jax.lax.platform_dependent(matrices, cpu=in_turn, default=at_once)


_each_compiled = compiled(_each)


def in_turn_under_vmap(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of arrays that a `vmap` applies to one member after the other on CPUs.

    For loops of which some members end sooner: all at once, each would take the steps of the
    slowest. It has no derivatives.

    Args:
        function: of pytrees of arrays.
    """
    wrapped = custom_vmap(function)

    @wrapped.def_vmap
    def _(axis_size: int, in_batched: Any, *args: Any) -> Any:
        del axis_size
        leaves, structure = jax.tree.flatten(args)
        mapped = jax.tree.leaves(in_batched)
        axes = jax.tree.unflatten(structure, [0 if batched else None for batched in mapped])

        def in_turn(*leaves: Any) -> Any:
            batched, shared = eqx.partition(list(leaves), mapped)
            one = lambda own: wrapped(*jax.tree.unflatten(structure, eqx.combine(own, shared)))  # noqa: E731
            return jax.lax.map(one, batched)

        def at_once(*leaves: Any) -> Any:
            return jax.vmap(function, in_axes=axes)(*jax.tree.unflatten(structure, leaves))

        out = jax.lax.platform_dependent(*leaves, cpu=in_turn, default=at_once)
        return out, jax.tree.map(lambda _: True, out)

    return wrapped


def _in_turn_under_vmap(function: Any) -> Any:
    """A function of one matrix that a `vmap` applies to one after the other on CPUs."""
    wrapped = custom_vmap(function)

    @wrapped.def_vmap
    def _(axis_size: int, in_batched: Any, matrix: Any) -> Any:
        del axis_size, in_batched
        out = each(wrapped, matrix, function)
        return out, jax.tree.map(lambda _: True, out)

    return wrapped


def _solver_under_vmap(function: Any) -> Any:
    """The same for a solve, of a matrix and right-hand sides."""
    wrapped = custom_vmap(function)
    pairs, pairs_at_once = _of_pair(wrapped), _of_pair(function)

    @wrapped.def_vmap
    def _(axis_size: int, in_batched: Any, tril: Any, b: Any) -> Any:
        if not in_batched[0]:  # one matrix and more columns
            columns = jnp.moveaxis(b, 0, 1).reshape(b.shape[1], -1)
            out = wrapped(tril, columns).reshape(b.shape[1], axis_size, b.shape[2])
            return jnp.moveaxis(out, 1, 0), True
        if not in_batched[1]:
            b = jnp.broadcast_to(b, (axis_size, *b.shape))
        out = each(pairs, (tril, b), pairs_at_once)
        return out, True

    return wrapped


def _of_pair(function: Any) -> Any:
    return lambda pair: function(*pair)


def _lapack_cholesky(matrices: jax.Array) -> jax.Array:
    return jnp.linalg.cholesky(matrices, symmetrize_input=False)


def _lapack_eigh(matrices: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, vectors = jnp.linalg.eigh(matrices)
    return values, vectors


_LAPACK_SOLVERS = [
    functools.partial(triangular_solve, left_side=True, lower=True, transpose_a=transposed)
    for transposed in (False, True)
]
_SOLVERS = [_solver_under_vmap(solve) for solve in _LAPACK_SOLVERS]
_PAIR_SOLVERS = list(map(_of_pair, _SOLVERS))
_LAPACK_PAIR_SOLVERS = list(map(_of_pair, _LAPACK_SOLVERS))
_cholesky = _in_turn_under_vmap(_lapack_cholesky)
_eigh = _in_turn_under_vmap(_lapack_eigh)
