"""Kronecker products and sums of any number of factors."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx

from .._core import eigh
from ._dense import Dense, ScaledIdentity
from ._kron_pair import kron_pair
from ._operator import (
    AbstractOperator,
    checked_arrays,
    checked_size,
    checked_tags,
    psd,
)


class Kron(AbstractOperator):
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
            given as operators share.

    Raises:
        ValueError: no factor, a factor that is no matrix, integer or mixed types, or more than
            2³¹ rows or columns.

    References:
        Saatçi (2011), "Scalable inference for structured Gaussian process models", chapter 5.
    """

    factors: tuple[jax.Array, ...]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, *factors: Any, tags: object = ()):
        given = [f for f in factors if isinstance(f, lx.AbstractLinearOperator)]
        arrays = [f.as_matrix() if isinstance(f, lx.AbstractLinearOperator) else f for f in factors]
        if not arrays:
            raise ValueError("Kron: at least one factor is needed")
        for d, factor in enumerate(arrays):
            if jnp.ndim(factor) != 2 or 0 in jnp.shape(factor):
                raise ValueError(
                    f"Kron: factor {d} must be a matrix with at least one row and column, got "
                    f"shape {jnp.shape(factor)}"
                )
        self.factors = checked_arrays("Kron", {f"factor {d}": f for d, f in enumerate(arrays)})
        self.tags = checked_tags(tags)
        if len(given) == len(arrays):
            self.tags |= _shared_tags(given)
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

    @property
    def dtype(self) -> Any:
        return self.factors[0].dtype

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows of each factor: the shape of the grid that a product lives on."""
        return tuple(f.shape[0] for f in self.factors)

    def transpose(self) -> Kron:
        if lx.is_symmetric(self):
            return self
        return Kron(*(f.T for f in self.factors), tags=lx.transpose_tags(self.tags))

    def trace(self) -> jax.Array:
        """The trace, scalar: the product of the traces of the factors."""
        self._need_square("trace")
        return _product([jnp.trace(f) for f in self.factors])

    def eigh(self) -> tuple[Kron, jax.Array]:
        r"""Eigenvectors $\otimes_d Q_d$ and eigenvalues as a grid, not sorted.

        Not differentiable where eigenvalues coincide; `Kron + noise` has derivatives that are.

        Raises:
            ValueError: the operator is not tagged as symmetric or positive semi-definite.
        """
        if not lx.is_symmetric(self):
            raise ValueError("eigh needs a symmetric Kron: tags=ops.symmetric or ops.psd")
        pairs = [eigh(f) for f in self.factors]
        return Kron(*(p[1] for p in pairs)), outer([p[0] for p in pairs])

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
        return outer([jnp.diag(f) for f in self.factors]).reshape(-1)

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

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, Kron):
            inner = [f.shape[1] for f in self.factors], [f.shape[0] for f in other.factors]
            if inner[0] == inner[1]:
                return Kron(*(a @ b for a, b in zip(self.factors, other.factors, strict=True)))
        return super().__matmul__(other)

    def __mul__(self, other: Any) -> Kron:
        if jnp.ndim(other) != 0:
            raise ValueError(f"Kron: can be scaled by a scalar, got shape {jnp.shape(other)}")
        tags = self.tags - {lx.unit_diagonal_tag}
        if not (isinstance(other, (int, float)) and other >= 0):
            tags = tags - {psd} | ({lx.symmetric_tag} if psd in tags else set())
        first = jnp.asarray(other, self.dtype) * self.factors[0]
        return Kron(first, *self.factors[1:], tags=tags)

    def _plus(self, other: Any) -> AbstractOperator | None:
        from ._kron_noise import add_noise

        return add_noise(self, other)


class KronSum(AbstractOperator):
    r"""Kronecker sum $K_1 \oplus \dots \oplus K_D = \sum_d I \otimes \dots K_d \dots \otimes I$.

    Eigenvectors are those of the Kronecker product and eigenvalues add up, so `solve` and `logdet`
    take $\sum_d n_d^3 + N \sum_d n_d$, with derivatives that are finite for equal eigenvalues.

    Args:
        *factors: symmetric matrices, shape `(n_d, n_d)`.
        tags: `ops.psd` if all factors are positive semi-definite; they are taken as symmetric.

    Raises:
        ValueError: no factor, or one that is not square; integer or mixed types.
    """

    factors: tuple[jax.Array, ...]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, *factors: Any, tags: object = ()):
        for d, factor in enumerate(factors):
            shape = jnp.shape(factor)
            if len(shape) != 2 or shape[0] != shape[1] or 0 in shape:
                raise ValueError(f"KronSum: factor {d} must be a square matrix, got shape {shape}")
        if not factors:
            raise ValueError("KronSum: at least one factor is needed")
        named = {f"factor {d}": f for d, f in enumerate(factors)}
        self.factors = checked_arrays("KronSum", named)
        self.tags = checked_tags(tags) | {lx.symmetric_tag}
        checked_size("KronSum", self.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        n = math.prod(len(f) for f in self.factors)
        return (n, n)

    @property
    def dtype(self) -> Any:
        return self.factors[0].dtype

    @property
    def grid(self) -> tuple[int, ...]:
        """Rows of each factor: the shape of the grid that a product lives on."""
        return tuple(len(f) for f in self.factors)

    def transpose(self) -> KronSum:
        return self

    def _mm(self, x: jax.Array) -> jax.Array:
        grid = x.reshape(*self.grid, x.shape[1])
        total = jnp.zeros_like(grid)
        for axis, factor in enumerate(self.factors):
            product = jnp.tensordot(factor, grid, (1, axis))
            total = total + jnp.moveaxis(product, 0, axis)
        return total.reshape(x.shape)

    def _solve(self, b: jax.Array) -> jax.Array:
        return self._spectrum()._solve(b)

    def _logdet(self) -> jax.Array:
        return self._spectrum()._logdet()

    def _diag(self) -> jax.Array:
        return outer([jnp.diag(f) for f in self.factors], jnp.add).reshape(-1)

    def _root(self) -> HStack:
        roots = []
        for axis, factor in enumerate(self.factors):
            parts = [jnp.eye(n, dtype=self.dtype) for n in self.grid]
            parts[axis] = Dense(factor, psd)._root().matrix
            roots.append(Kron(*parts))
        return HStack(*roots)

    def _plus(self, other: Any) -> AbstractOperator | None:
        from ._kron_noise import add_noise

        return add_noise(self, other)

    def _spectrum(self) -> Any:
        from ._kron_noise import KronPlusNoise

        return KronPlusNoise(self, ScaledIdentity(jnp.zeros((), self.dtype), self.shape[0]))


class HStack(AbstractOperator):
    r"""Operators side by side, $[A_1, \dots, A_k]$; a root of $\sum_i A_i A_i^\top$.

    Args:
        *parts: operators with the same number of rows.

    Raises:
        ValueError: numbers of rows differ.
    """

    parts: tuple[AbstractOperator, ...]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, *parts: AbstractOperator):
        rows = [part.shape[0] for part in parts]
        if len(set(rows)) != 1:
            raise ValueError(f"HStack: parts must have the same number of rows, got {rows}")
        self.parts = parts
        self.tags = frozenset()

    @property
    def shape(self) -> tuple[int, int]:
        return (self.parts[0].shape[0], sum(part.shape[1] for part in self.parts))

    @property
    def dtype(self) -> Any:
        return self.parts[0].dtype

    def transpose(self) -> VStack:
        return VStack(*(part.transpose() for part in self.parts))

    def _mm(self, x: jax.Array) -> jax.Array:
        ends = list(itertools.accumulate(part.shape[1] for part in self.parts))
        pieces = jnp.split(x, ends[:-1])
        return functools.reduce(
            jnp.add, [p._mm(x) for p, x in zip(self.parts, pieces, strict=True)]
        )


class VStack(AbstractOperator):
    """Operators on top of each other, the transpose of `HStack`.

    Args:
        *parts: operators with the same number of columns.

    Raises:
        ValueError: numbers of columns differ.
    """

    parts: tuple[AbstractOperator, ...]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, *parts: AbstractOperator):
        columns = [part.shape[1] for part in parts]
        if len(set(columns)) != 1:
            raise ValueError(f"VStack: parts must have the same number of columns, got {columns}")
        self.parts = parts
        self.tags = frozenset()

    @property
    def shape(self) -> tuple[int, int]:
        return (sum(part.shape[0] for part in self.parts), self.parts[0].shape[1])

    @property
    def dtype(self) -> Any:
        return self.parts[0].dtype

    def transpose(self) -> HStack:
        return HStack(*(part.transpose() for part in self.parts))

    def _mm(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([part._mm(x) for part in self.parts])


def kron_mm(factors: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
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


def outer(vectors: list[jax.Array], combine: Any = jnp.multiply) -> jax.Array:
    """Products (or sums) of one element of each vector, as a grid with an axis for each."""
    return functools.reduce(lambda grid, v: combine(grid[..., None], v), vectors)


def _product(values: list[jax.Array]) -> jax.Array:
    return functools.reduce(jnp.multiply, values)


def _shared_tags(operators: list[Any]) -> frozenset[object]:
    tags: set[object] = set()
    if all(lx.is_positive_semidefinite(op) for op in operators):
        tags.add(psd)
    elif all(lx.is_symmetric(op) for op in operators):
        tags.add(lx.symmetric_tag)
    return frozenset(tags)
