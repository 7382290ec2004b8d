"""Kronecker products of any number of factors, and products of them with vectors."""

from __future__ import annotations

import abc
import functools
import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Inexact, Shaped

from .._core import eigh
from . import _general as general
from ._checks import checked_arrays, checked_size
from ._dense import Dense
from ._kron_pair import kron_pair
from ._operator import AbstractOperator
from ._tags import checked_tags, negative, shared_tags, symmetric


class AbstractKron(AbstractOperator):
    """Abstract base class of matrices with a factor for each axis of a grid.

    Attributes:
        factors: matrices, shape `(m_d, n_d)` each.
    """

    factors: eqx.AbstractVar[tuple[Inexact[Array, "_m _n"], ...]]

    @abc.abstractmethod
    def combine(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """The eigenvalue of the whole from those of two factors: their product or sum."""

    @property
    def dtype(self) -> Any:
        return self.factors[0].dtype

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows of each factor: the shape of the grid."""
        return tuple(f.shape[0] for f in self.factors)


class Kron(AbstractKron):
    r"""Kronecker product $K_1 \otimes \dots \otimes K_D$, factors of any shape.

    Vectors are grids in C order, the last factor's index running fastest, as in `numpy.kron`.
    A product with an $N$-vector takes $N \sum_d m_d$ multiply-adds (square factors of $m_d$ rows),
    as plain matrix multiplications, and memory for two vectors.

    `solve` and `logdet` factorise each factor: Cholesky if tagged `ops.psd`, else LU; a factor that
    is singular is an error at run time, to which adding `ops.ScaledIdentity(noise)` is the cure.
    `root` is the Kronecker product of Cholesky factors, with jitter where needed.

    Args:
        *factors: matrices, shape `(m_d, n_d)` each, or operators, which are made dense.
        tags: properties of every factor, such as `ops.psd`; by default those that all factors
            given as operators share. Factors that are negative semi-definite, in an even number,
            have a product that is known as symmetric only.

    Raises:
        ValueError: no factor, a factor that is no matrix, integer or mixed types, more than
            2³¹ rows or columns, or a tag that a product does not inherit.

    References:
        Saatçi (2011), "Scalable inference for structured Gaussian process models", chapter 5.
    """

    factors: tuple[Inexact[Array, "_m _n"], ...]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, *factors: Any, tags: object = ()):
        arrays, shared = factor_arrays("Kron", factors)
        self.factors = checked_arrays("Kron", {f"factor {d}": f for d, f in enumerate(arrays)})
        for d, factor in enumerate(self.factors):
            if jnp.ndim(factor) != 2 or 0 in jnp.shape(factor):
                raise ValueError(
                    f"Kron: factor {d} must be a matrix with at least one row and column, got "
                    f"shape {jnp.shape(factor)}"
                )
        self.tags = _tags_of_product(checked_tags("Kron", tags), len(arrays)) | shared
        for axis in (0, 1):
            checked_size("Kron", math.prod(f.shape[axis] for f in self.factors))
        if lx.is_symmetric(self):
            for d, factor in enumerate(self.factors):
                if factor.shape[0] != factor.shape[1]:
                    raise ValueError(
                        f"Kron: a symmetric product needs square factors, factor {d} has shape "
                        f"{factor.shape}"
                    )

    @property
    def shape(self) -> tuple[int, int]:
        return (
            math.prod(f.shape[0] for f in self.factors),
            math.prod(f.shape[1] for f in self.factors),
        )

    def combine(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """The product."""
        return left * right

    def transpose(self) -> Kron:
        if lx.is_symmetric(self):
            return self
        return Kron(*(f.T for f in self.factors), tags=lx.transpose_tags(self.tags))

    def trace(self) -> Inexact[Array, ""]:
        """The trace, scalar: the product of the traces of the factors."""
        self._need_square("trace")
        return _product([jnp.trace(f) for f in self.factors])

    def eigh(self) -> tuple[Kron, Inexact[Array, " ..."]]:
        r"""Eigenvectors $\otimes_d Q_d$ and eigenvalues as a grid, not sorted.

        Not differentiable where eigenvalues coincide; `Kron + noise` has derivatives that are.

        Raises:
            ValueError: the operator is not tagged as symmetric or positive semi-definite.
        """
        if not lx.is_symmetric(self):
            raise ValueError("eigh needs a symmetric Kron: tags=ops.symmetric or ops.psd")
        pairs = [eigh(f) for f in self.factors]
        return Kron(*(p[1] for p in pairs)), outer_grid([p[0] for p in pairs])

    def _mm(self, x: jax.Array) -> jax.Array:
        return kron_mm(self.factors, x)

    def _solve(self, b: jax.Array) -> jax.Array:
        return self._by_axis(b, lambda factor: factor._solve)

    def _logdet(self) -> jax.Array:
        n = self.shape[0]
        parts = [
            n // f.shape[0] * op._logdet()
            for f, op in zip(self.factors, self._dense(), strict=True)
        ]
        return functools.reduce(jnp.add, parts)

    def _diag(self) -> jax.Array:
        self._need_square_factors("diag")
        return outer_grid([jnp.diag(f) for f in self.factors]).reshape(-1)

    def _root(self) -> Kron:
        roots = [op._root() for op in self._dense()]
        return Kron(*(root.matrix for root in roots), tags=lx.lower_triangular_tag)

    def _dense(self) -> list[Dense]:
        self._need_square_factors("solve")
        return [Dense(f, self.tags) for f in self.factors]

    def _by_axis(self, b: jax.Array, solver: Any) -> jax.Array:
        grid = b.reshape(*(f.shape[0] for f in self.factors), b.shape[1])
        for axis, factor in enumerate(self._dense()):
            front = jnp.moveaxis(grid, axis, 0)
            solved = solver(factor)(front.reshape(front.shape[0], -1)).reshape(front.shape)
            grid = jnp.moveaxis(solved, 0, axis)
        return grid.reshape(b.shape)

    def _need_square_factors(self, what: str) -> None:
        if any(f.shape[0] != f.shape[1] for f in self.factors):
            shapes = ", ".join(str(f.shape) for f in self.factors)
            raise ValueError(f"{what} of a Kron needs square factors, got {shapes}")


def kron_mm(
    factors: tuple[Inexact[Array, "_m _n"], ...], x: Inexact[Array, "n k"]
) -> Inexact[Array, "m k"]:
    r"""$(K_1 \otimes \dots \otimes K_D) X$ for matrices of shape `(m_d, n_d)`.

    The axis that comes last is contracted and put in front, so each factor is one plain matrix
    multiplication without a transposition, and after the last the axes are in order again. The
    columns of `x` ride along in front. Two factors and one column go to `kron_pair`.

    Args:
        factors: the matrices.
        x: shape `(prod n_d, k)`.
    """
    k = x.shape[1]
    if len(factors) == 2 and k == 1:  # one kernel, where the platform has one
        rows = factors[0].shape[1], factors[1].shape[1]
        return kron_pair(*factors, x.reshape(rows)).reshape(-1, 1)
    if any(f.shape[0] != f.shape[1] for f in factors):
        return _rectangular_mm(factors, x)
    z = x.T if k > 1 else x
    for factor in reversed(factors):
        z = z.reshape(-1, factor.shape[1])
        z = jax.lax.dot_general(factor, z, (((1,), (1,)), ((), ())))
    # Now the columns of x are the last axis, behind those of the grid.
    return z.reshape(-1, k)


def _rectangular_mm(factors: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
    """The same, beginning with the factors that shrink the grid most."""
    k = x.shape[1]
    grid = x.reshape(*(f.shape[1] for f in factors), k)
    for axis in sorted(
        range(len(factors)), key=lambda d: factors[d].shape[0] / factors[d].shape[1]
    ):
        product = jnp.tensordot(factors[axis], grid, (1, axis))
        grid = jnp.moveaxis(product, 0, axis)
    return grid.reshape(-1, k)


def outer_grid(
    vectors: list[Shaped[Array, " _n"]], combine: Any = jnp.multiply
) -> Shaped[Array, " ..."]:
    """Products (or sums) of one element of each vector, as a grid with an axis for each."""
    return functools.reduce(lambda grid, v: combine(grid[..., None], v), vectors)


def contract_grid(
    grid: Inexact[Array, " ..."], vectors: Sequence[Inexact[Array, " _n"]], keep: int
) -> Inexact[Array, " n"]:
    """The grid summed against a vector along every axis but one.

    Args:
        grid: an axis for each vector.
        vectors: one for each axis; that of the axis which stays is not used.
        keep: that axis.
    """
    for axis in reversed(range(len(vectors))):
        if axis != keep:
            grid = jnp.tensordot(grid, vectors[axis], (axis, 0))
    return grid


def grid_gram(
    a: Inexact[Array, " ..."], b: Inexact[Array, " ..."], axis: int
) -> Inexact[Array, "n n"]:
    """Products of slices of two grids along an axis, shape `(n, n)`, without transposing a grid.

    Args:
        a: a grid.
        b: another of its shape.
        axis: along which slices are taken.
    """
    n, before, after = a.shape[axis], math.prod(a.shape[:axis]), math.prod(a.shape[axis + 1 :])
    if before == 1 or after == 1:
        contracted = int(after > 1)
        shape = (n, after) if contracted else (before, n)
        dimensions = (((contracted,), (contracted,)), ((), ()))
        return jax.lax.dot_general(a.reshape(shape), b.reshape(shape), dimensions)
    shape = (before, n, after)
    return jnp.sum(a.reshape(shape) @ b.reshape(shape).mT, axis=0)


def _product(values: list[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.multiply, values)


def factor_arrays(owner: str, factors: tuple[Any, ...]) -> tuple[list[Any], frozenset[object]]:
    """Dense factors, and what all of them are known to be if all were given as operators."""
    if not factors:
        raise ValueError(f"{owner}: at least one factor is needed")
    given = [f for f in factors if isinstance(f, lx.AbstractLinearOperator)]
    for factor in given:
        if isinstance(factor, AbstractOperator):
            general.check_size(factor, owner)
    arrays = [f.as_matrix() if isinstance(f, lx.AbstractLinearOperator) else f for f in factors]
    shared = shared_tags(*given) if len(given) == len(arrays) else frozenset()
    return arrays, shared - {lx.tridiagonal_tag, negative}


def _tags_of_product(tags: frozenset[object], count: int) -> frozenset[object]:
    """What holds for a product if the tags hold for every factor."""
    refuse_tags("Kron", tags, {lx.tridiagonal_tag}, count)
    if negative in tags and count % 2 == 0:
        return tags - {negative} | {symmetric}
    return tags


def refuse_tags(owner: str, tags: frozenset[object], bad: set[object], count: int) -> None:
    """Refuses tags that do not hold for the product where they hold for every factor.

    Raises:
        ValueError: `tags` holds one of `bad`, and there are several factors.
    """
    if tags & bad and count > 1:
        raise ValueError(
            f"{owner}: tags must hold for the whole matrix, and {set(tags & bad)} does not if it "
            "holds for every factor; leave it out"
        )
