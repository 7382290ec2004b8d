"""Small matrices written out entry by entry.

A matrix is a tuple of rows of scalars, each an array of any shape (one lane for each series or
part of one). A filter step is then a list of additions and multiplications, which XLA fuses to one
kernel, where calls of LAPACK would cost microseconds each. Zeros and ones that are Python numbers
are left out of it, so block-diagonal matrices cost what their blocks cost. Symmetric matrices hold
the same object above and below the diagonal, and nothing is computed twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

Vector = tuple[Any, ...]
Matrix = tuple[Vector, ...]


def plus(a: Any, b: Any) -> Any:
    """The sum, without an operation where one is known to be 0."""
    return b if _is(a, 0) else a if _is(b, 0) else a + b


def negative(a: Any) -> Any:
    """The scalar with the other sign."""
    return 0 if _is(a, 0) else -a


def minus(a: Any, b: Any) -> Any:
    """The difference, without an operation where one is known to be 0."""
    return a if _is(b, 0) else negative(b) if _is(a, 0) else a - b


def times(a: Any, b: Any) -> Any:
    """The product, without an operation where one is known to be 0, 1 or -1."""
    if _is(a, 0) or _is(b, 0):
        return 0
    if _is(a, 1):
        return b
    if _is(b, 1):
        return a
    if _is(a, -1):
        return negative(b)
    return negative(a) if _is(b, -1) else a * b


def add(a: Vector, b: Vector) -> Vector:
    """The sum of two vectors."""
    return tuple(map(plus, a, b))


def subtract(a: Vector, b: Vector) -> Vector:
    """The difference of two vectors."""
    return tuple(map(minus, a, b))


def scale(factor: Any, x: Vector) -> Vector:
    """A number times a vector."""
    return tuple(times(factor, entry) for entry in x)


def dot(a: Vector, b: Vector) -> Any:
    """The inner product."""
    total: Any = 0
    for x, y in zip(a, b, strict=True):
        total = plus(total, times(x, y))
    return total


def matvec(a: Matrix, x: Vector) -> Vector:
    """$A x$."""
    return tuple(dot(row, x) for row in a)


def matmul(a: Matrix, b: Matrix) -> Matrix:
    """$A B$."""
    columns = transpose(b)
    return tuple(tuple(dot(row, column) for column in columns) for row in a)


def transpose(a: Matrix) -> Matrix:
    """$A^T$."""
    return tuple(zip(*a, strict=True))


def subtract_outer(m: Matrix, a: Vector, b: Vector) -> Matrix:
    """$M - a b^T$."""
    pairs = zip(m, a, strict=True)
    return tuple(
        tuple(minus(x, times(left, y)) for x, y in zip(row, b, strict=True)) for row, left in pairs
    )


def symmetric(lower: Sequence[Sequence[Any]]) -> Matrix:
    """The symmetric matrix with this lower triangle."""
    d = len(lower)
    return tuple(tuple(lower[max(i, j)][min(i, j)] for j in range(d)) for i in range(d))


def add_symmetric(a: Matrix, b: Matrix) -> Matrix:
    """The sum of two symmetric matrices."""
    return symmetric([[plus(a[i][j], b[i][j]) for j in range(i + 1)] for i in range(len(a))])


def subtract_symmetric(a: Matrix, b: Matrix) -> Matrix:
    """The difference of two symmetric matrices."""
    return symmetric([[minus(a[i][j], b[i][j]) for j in range(i + 1)] for i in range(len(a))])


def scale_symmetric(factor: Any, a: Matrix) -> Matrix:
    """A number times a symmetric matrix."""
    return symmetric([[times(factor, a[i][j]) for j in range(i + 1)] for i in range(len(a))])


def congruence(a: Matrix, p: Matrix) -> Matrix:
    """$A P A^T$ of a symmetric matrix."""
    half = matmul(a, p)
    return symmetric([[dot(half[i], a[j]) for j in range(i + 1)] for i in range(len(a))])


def symmetric_product(a: Matrix, b: Matrix) -> Matrix:
    """$A B$, where that is symmetric; the lower triangle is computed."""
    columns = transpose(b)
    return symmetric([[dot(a[i], columns[j]) for j in range(i + 1)] for i in range(len(a))])


def with_rank_one(p: Matrix, w: Vector, factor: Any) -> Matrix:
    """$P + c w w^T$ of a symmetric matrix.

    The factor, which comes from a division in filters, is multiplied last: products of the vector
    do not wait for it.
    """
    rows = [
        [plus(p[i][j], times(factor, times(w[i], w[j]))) for j in range(i + 1)]
        for i in range(len(w))
    ]
    return symmetric(rows)


def condition_on_precision(
    cov: Matrix, precision: Matrix, definite: bool = True
) -> tuple[Matrix, Any]:
    r"""$(P^{-1} + J)^{-1}$ and $\log|I + P J|$; see `_algebra.AbstractAlgebra`."""
    d, log_det = len(cov), 0.0
    left = [list(row) for row in precision]
    for i in range(d):
        pivot = jnp.asarray(left[i][i])
        safe = jnp.where(pivot != 0, pivot, 1.0)
        column = [1 if j == i else jnp.where(pivot != 0, left[j][i] / safe, 0.0) for j in range(d)]
        direction = tuple(0 if j < i else column[j] for j in range(d))
        for j in range(i + 1, d):
            for k in range(i + 1, j + 1):
                left[j][k] = left[k][j] = left[j][k] - pivot * column[j] * column[k]
        cross = matvec(cov, direction)
        ratio = pivot * dot(direction, cross)
        cov = with_rank_one(cov, cross, -pivot / (1 + ratio))
        log_det = log_det + (jnp.log1p(ratio) if definite else jnp.log(jnp.abs(1 + ratio)))
    return cov, log_det


def cholesky(p: Matrix) -> Matrix:
    """A lower triangular root of a positive semi-definite matrix; columns may be 0."""
    d = len(p)
    rows: list[list[Any]] = [[0] * d for _ in range(d)]
    for j in range(d):
        known = dot(tuple(rows[j][:j]), tuple(rows[j][:j]))
        left = jnp.maximum(minus(p[j][j], known), 0)
        rows[j][j] = jnp.sqrt(left)
        inverse = jnp.where(left > 0, 1 / jnp.sqrt(jnp.where(left > 0, left, 1.0)), 0.0)
        for i in range(j + 1, d):
            known = dot(tuple(rows[i][:j]), tuple(rows[j][:j]))
            rows[i][j] = times(minus(p[i][j], known), inverse)
    return tuple(map(tuple, rows))


def kron(a: Matrix, b: Matrix) -> Matrix:
    """The Kronecker product."""
    rows = [(row, other) for row in a for other in b]
    return tuple(tuple(times(x, y) for x in row for y in other) for row, other in rows)


def block_diagonal(*blocks: Matrix) -> Matrix:
    """Blocks along the diagonal, with zeros that cost nothing elsewhere."""
    total, before, rows = sum(map(len, blocks)), 0, []
    for block in blocks:
        after = total - before - len(block)
        rows += [(0,) * before + tuple(row) + (0,) * after for row in block]
        before += len(block)
    return tuple(rows)


def identity(d: int) -> Matrix:
    """The identity, of Python numbers."""
    return tuple(tuple(int(i == j) for j in range(d)) for i in range(d))


def zeros(d: int) -> Matrix:
    """The zero matrix, of Python numbers."""
    return tuple((0,) * d for _ in range(d))


def packed(p: Matrix) -> Vector:
    """The lower triangle of a symmetric matrix, row by row."""
    return tuple(p[i][j] for i in range(len(p)) for j in range(i + 1))


def unpacked(flat: Vector) -> Matrix:
    """The inverse of `packed`."""
    d = int((2 * len(flat) + 0.25) ** 0.5)
    entries = iter(flat)
    return symmetric([[next(entries) for _ in range(i + 1)] for i in range(d)])


def stacked(a: Any, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """A vector or matrix as one array `(*shape, d)` or `(*shape, d, d)`."""
    if a and isinstance(a[0], tuple):
        return jnp.stack([stacked(row, shape, dtype) for row in a], axis=-2)
    return jnp.stack([jnp.broadcast_to(jnp.asarray(x, dtype), shape) for x in a], axis=-1)


def filled(tree: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """The same with arrays of this shape for all entries, as loops carry them."""
    return jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, dtype), shape), tree)


def _is(value: Any, number: int) -> bool:
    return isinstance(value, int | float) and value == number
