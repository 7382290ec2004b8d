"""Row-wise Khatri-Rao products: covariances of scattered points with a grid."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.tree_util import Partial
from jaxtyping import Array, Inexact

from .._core import compiled
from . import _general as general
from ._checks import checked_arrays
from ._kron import Kron
from ._operator import AbstractOperator, unknown

CHUNK = 64  # rows of a cross-covariance that are made dense together
LARGEST = 2**22  # elements of an intermediate result up to which products are made at once


class KhatriRao(AbstractOperator):
    r"""Row-wise Khatri-Rao product: row $j$ is $F_1[j] \otimes \dots \otimes F_D[j]$.

    What `Kron` is between two grids, this is between scattered points and a grid: a product kernel
    of point $j$ and a cell is a product of one number for each axis. A product with a vector takes
    $m \prod_d n_d$ multiply-adds, and memory for the matrix divided by $n_1$, or less.

    Args:
        *factors: shape `(m, n_d)` each.

    Raises:
        ValueError: no factor, one that is no matrix, other numbers of rows, or mixed types.

    References:
        Khatri and Rao (1968), "Solutions to some functional equations and their applications to
        characterization of probability distributions".
    """

    factors: tuple[Inexact[Array, "m _n"], ...]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, *factors: Any):
        shapes = [jnp.shape(f) for f in factors]
        if not shapes or any(len(s) != 2 for s in shapes) or len({s[0] for s in shapes}) != 1:
            raise ValueError(
                f"KhatriRao: factors must be matrices with the same number of rows, got {shapes}"
            )
        self.factors = checked_arrays(
            "KhatriRao", {f"factor {d}": f for d, f in enumerate(factors)}
        )
        self.tags = frozenset()

    @property
    def shape(self) -> tuple[int, int]:
        return (len(self.factors[0]), math.prod(f.shape[1] for f in self.factors))

    @property
    def dtype(self) -> Any:
        return self.factors[0].dtype

    def transpose(self) -> AbstractOperator:
        return KhatriRaoTransposed(self)

    def dense(self) -> Inexact[Array, "m n"]:
        """The dense matrix, shape `(m, n)`."""
        matrix = self.factors[0]
        for factor in self.factors[1:]:
            matrix = (matrix[:, :, None] * factor[:, None]).reshape(len(factor), -1)
        return matrix

    def _mm(self, x: jax.Array) -> jax.Array:
        m, first = self.factors[0].shape
        if m > CHUNK and m * x.size // first > LARGEST:
            return _mm_by_rows(self, x)
        return self._at_once(x)

    def _at_once(self, x: jax.Array) -> jax.Array:
        first, *others = self.factors
        z = first @ x.reshape(first.shape[1], -1)
        for factor in others:
            z = jnp.einsum("ja,jar->jr", factor, z.reshape(*factor.shape, -1))
        return z

    _solve, _logdet, _diag, _root = map(unknown, ("solve", "logdet", "diag", "root"))


@general.as_matrix.register
def _(operator: KhatriRao) -> jax.Array:
    return operator.dense()


@compiled
def _mm_by_rows(operator: KhatriRao, x: jax.Array) -> jax.Array:
    @jax.checkpoint
    def some(factors: tuple[jax.Array, ...]) -> jax.Array:
        return KhatriRao(*factors)._at_once(x)

    m = operator.shape[0]
    padded = [jnp.pad(f, ((0, -m % CHUNK), (0, 0))) for f in operator.factors]
    chunks = tuple(f.reshape(-1, CHUNK, f.shape[1]) for f in padded)
    return jax.lax.map(some, chunks).reshape(-1, x.shape[1])[:m]


class KhatriRaoTransposed(AbstractOperator):
    """The transpose of a `KhatriRao`."""

    base: KhatriRao
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, base: KhatriRao):
        self.base = base
        self.tags = frozenset()

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape[::-1]

    @property
    def dtype(self) -> Any:
        return self.base.dtype

    def transpose(self) -> KhatriRao:
        return self.base

    def _mm(self, x: jax.Array) -> jax.Array:
        first, *others = self.base.factors
        rest = KhatriRao(*others).dense() if others else jnp.ones_like(first[:, :1])
        inner = (rest[:, :, None] * x[:, None]).reshape(len(first), -1)
        return (first.T @ inner).reshape(-1, x.shape[1])

    _solve, _logdet, _diag, _root = map(unknown, ("solve", "logdet", "diag", "root"))


def check_cross(operator: Any, grid: tuple[int, ...], cross: Any, prior: Any) -> None:
    """Refuses what is no covariance of test points with the cells of a grid, or no variances.

    Raises:
        ValueError: `cross` is neither a `Kron` nor a `KhatriRao`, or shapes or types do not fit.
    """
    owner = f"marginal_variance of a {type(operator).__name__}"
    if not isinstance(cross, (Kron, KhatriRao)):
        raise ValueError(f"{owner}: cross must be a Kron or KhatriRao, got {type(cross).__name__}")
    columns = tuple(factor.shape[1] for factor in cross.factors)
    if columns != grid:
        raise ValueError(
            f"{owner}: the factors of cross must have {grid} columns, as the grid has cells, got "
            f"{columns}"
        )
    if jnp.shape(prior) != cross.shape[:1]:
        raise ValueError(
            f"{owner}: prior must have shape {cross.shape[:1]}, got {jnp.shape(prior)}"
        )
    if not operator.dtype == cross.dtype == jnp.result_type(prior):
        raise ValueError(
            f"{owner}: cross and prior must have its type, {operator.dtype}, got {cross.dtype} and "
            f"{jnp.result_type(prior)}"
        )


def dense_rows(cross: Kron | KhatriRao, index: jax.Array) -> jax.Array:
    """Some rows, shape `(k, n)`, without a product; beyond the last row, the last."""
    index = jnp.minimum(index, cross.shape[0] - 1)
    where = (index,) * len(cross.factors)
    if isinstance(cross, Kron):
        where = jnp.unravel_index(index, cross.grid)
    return KhatriRao(*(f[i] for f, i in zip(cross.factors, where, strict=True))).dense()


@compiled
def map_rows(cross: Any, some: Any) -> Inexact[Array, " m"]:
    """Maps a function of columns `(n, k)` to `(k,)` over the rows of `cross`, in chunks.

    Args:
        cross: a `Kron`, a `KhatriRao` or an array, shape `(m, n)`.
        some: of rows made columns, a `jax.tree_util.Partial` of a function of a module with its
            data; its intermediate results are not kept for derivatives.
    """
    m = cross.shape[0]
    chunk = min(CHUNK, m)

    @jax.checkpoint
    def one(start: jax.Array) -> jax.Array:
        index = start + jnp.arange(chunk)
        if isinstance(cross, lx.AbstractLinearOperator):
            return some(dense_rows(cross, index).T)
        return some(cross[jnp.minimum(index, m - 1)].T)

    return jax.lax.map(one, jnp.arange(0, m, chunk)).reshape(-1)[:m]


def explained_variance(
    operator: AbstractOperator, cross: Any, observed: Any = ...
) -> Inexact[Array, " m"]:
    r"""Diagonal of $C A^{-1} C^\top$ by solves, some rows of $C$ at a time.

    Args:
        operator: $A$, shape `(n, n)`, or `(n_o, n_o)` if of some cells only.
        cross: $C$, shape `(m, n)`.
        observed: those cells.
    """
    return map_rows(cross, Partial(_explained, operator, observed))


def _explained(operator: AbstractOperator, observed: Any, rows: jax.Array) -> jax.Array:
    rows = rows[observed]
    return jnp.sum(rows * operator._solve(rows), axis=0)
