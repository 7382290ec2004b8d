"""Linear algebra of states, as the filter steps of `_steps` need it, in two implementations.

`Unrolled` writes small matrices out entry by entry (see `_unrolled`), so that XLA fuses a step to
one kernel; `Dense`, in `_dense_algebra`, keeps matrices as arrays, for states with many entries and
for several outputs. Both may have lanes: parts of a series, or several series, side by side.
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from . import _unrolled as unrolled

# Vectors, symmetric matrices, square matrices and transition matrices of either implementation.
Vector = Any
Symmetric = Any
Square = Any
Blocks = Any


class AbstractAlgebra(abc.ABC):
    """Vectors $x, w$, symmetric matrices $P, J$, square ones $M$ and transition matrices $A$."""

    # Of transition matrices, which may be block-diagonal.

    @abc.abstractmethod
    def apply(self, a: Blocks, x: Vector) -> Vector:
        """$A x$."""

    @abc.abstractmethod
    def apply_to_square(self, a: Blocks, m: Square) -> Square:
        """$A M$."""

    @abc.abstractmethod
    def conjugate(self, a: Blocks, p: Symmetric) -> Symmetric:
        """$A P A^T$."""

    @abc.abstractmethod
    def transposed(self, a: Blocks) -> Blocks:
        """$A^T$."""

    @abc.abstractmethod
    def add_noise(self, p: Symmetric, noise: Blocks) -> Symmetric:
        """$P + Q$, with blocks like those of the transition matrix."""

    # Of vectors.

    @abc.abstractmethod
    def add(self, x: Vector, w: Vector) -> Vector:
        """$x + w$."""

    @abc.abstractmethod
    def subtract(self, x: Vector, w: Vector) -> Vector:
        """$x - w$."""

    @abc.abstractmethod
    def scale(self, factor: Any, x: Vector) -> Vector:
        """$c x$."""

    @abc.abstractmethod
    def dot(self, x: Vector, w: Vector) -> Any:
        """$x^T w$."""

    @abc.abstractmethod
    def matvec(self, m: Square, x: Vector) -> Vector:
        """$M x$."""

    # Of square matrices.

    @abc.abstractmethod
    def matmul(self, m: Square, n: Square) -> Square:
        """$M N$."""

    @abc.abstractmethod
    def transpose(self, m: Square) -> Square:
        """$M^T$."""

    @abc.abstractmethod
    def subtract_square(self, m: Square, n: Square) -> Square:
        """$M - N$."""

    @abc.abstractmethod
    def subtract_outer(self, m: Square, x: Vector, w: Vector) -> Square:
        """$M - x w^T$."""

    # Of symmetric matrices.

    @abc.abstractmethod
    def add_symmetric(self, p: Symmetric, q: Symmetric) -> Symmetric:
        """$P + Q$."""

    @abc.abstractmethod
    def subtract_symmetric(self, p: Symmetric, q: Symmetric) -> Symmetric:
        """$P - Q$."""

    @abc.abstractmethod
    def congruence(self, m: Square, p: Symmetric) -> Symmetric:
        """$M P M^T$."""

    @abc.abstractmethod
    def symmetric_product(self, m: Square, n: Square) -> Symmetric:
        """$M N$, where that is symmetric but for rounding."""

    @abc.abstractmethod
    def add_rank_one(self, p: Symmetric, w: Vector, factor: Any) -> Symmetric:
        """$P + c w w^T$."""

    @abc.abstractmethod
    def subtract_symmetric_outer(self, p: Symmetric, x: Vector, w: Vector) -> Symmetric:
        """$P - x w^T$, where $x$ is a multiple of $w$ but for rounding."""

    @abc.abstractmethod
    def subtract_both_outer(self, p: Symmetric, x: Vector, w: Vector) -> Symmetric:
        """$P - x w^T - w x^T$."""

    @abc.abstractmethod
    def condition_on_precision(
        self, cov: Symmetric, precision: Symmetric, definite: bool = True
    ) -> tuple[Symmetric, Any]:
        r"""$(P^{-1} + J)^{-1}$ and $\log|I + P J|$ of a semi-definite $P$, without an inverse.

        A square-root-free Cholesky factor of $J$ makes it a list of scalar observations, which are
        taken in one after another.

        Args:
            cov: $P$.
            precision: $J$.
            definite: whether $J$ is positive semi-definite. If not, $P^{-1} + J$ must still be
                positive definite, or that of all that comes after; the logarithm is of an absolute
                value then.
        """

    # How loops carry and stack them. `like` has the shape and type of a number of each lane.

    @abc.abstractmethod
    def zero_vector(self, size: int, like: jax.Array) -> Vector:
        """The vector of zeros."""

    @abc.abstractmethod
    def zero_matrix(self, size: int, like: jax.Array) -> Symmetric:
        """The matrix of zeros."""

    @abc.abstractmethod
    def identity(self, size: int, like: jax.Array) -> Square:
        """The identity."""

    @abc.abstractmethod
    def packed(self, p: Symmetric) -> Any:
        """A symmetric matrix without entries that are held twice."""

    @abc.abstractmethod
    def unpacked(self, entries: Any) -> Symmetric:
        """The inverse of `packed`."""

    @abc.abstractmethod
    def filled(self, tree: Any, like: jax.Array) -> Any:
        """The same with arrays for all entries, as loops carry them."""

    @abc.abstractmethod
    def lanes_first(self, tree: Any) -> Any:
        """Arrays with the axis of lanes in front, for loops over lanes."""

    @abc.abstractmethod
    def lanes_last(self, tree: Any) -> Any:
        """The inverse of `lanes_first`."""

    @abc.abstractmethod
    def over_rows(self, query: Callable[[Vector], Any], rows: Any, like: jax.Array) -> Any:
        """The results for each row `(q, d)`, stacked along a leading axis."""

    @abc.abstractmethod
    def over_outputs(
        self, step: Callable[..., Any], carry: Any, inputs: Any, reverse: bool = False
    ) -> tuple[Any, Any]:
        """A loop over the outputs of one time, like `jax.lax.scan`."""

    @abc.abstractmethod
    def stacked(self, m: Any, like: jax.Array) -> jax.Array:
        """A vector `(d, ...)` or matrix `(d, d, ...)` as one array, lanes last."""


class Unrolled(AbstractAlgebra):
    """Matrices written out entry by entry: tuples of rows of scalars, or of lanes of scalars."""

    def apply(self, a: Blocks, x: Vector) -> Vector:
        return unrolled.matvec(a, x)

    def apply_to_square(self, a: Blocks, m: Square) -> Square:
        return unrolled.matmul(a, m)

    def conjugate(self, a: Blocks, p: Symmetric) -> Symmetric:
        return unrolled.congruence(a, p)

    def transposed(self, a: Blocks) -> Blocks:
        return unrolled.transpose(a)

    def add_noise(self, p: Symmetric, noise: Blocks) -> Symmetric:
        return unrolled.add_symmetric(p, noise)

    def add(self, x: Vector, w: Vector) -> Vector:
        return unrolled.add(x, w)

    def subtract(self, x: Vector, w: Vector) -> Vector:
        return unrolled.subtract(x, w)

    def scale(self, factor: Any, x: Vector) -> Vector:
        return unrolled.scale(factor, x)

    def dot(self, x: Vector, w: Vector) -> Any:
        return unrolled.dot(x, w)

    def matvec(self, m: Square, x: Vector) -> Vector:
        return unrolled.matvec(m, x)

    def matmul(self, m: Square, n: Square) -> Square:
        return unrolled.matmul(m, n)

    def transpose(self, m: Square) -> Square:
        return unrolled.transpose(m)

    def subtract_square(self, m: Square, n: Square) -> Square:
        return tuple(map(unrolled.subtract, m, n))

    def subtract_outer(self, m: Square, x: Vector, w: Vector) -> Square:
        return unrolled.subtract_outer(m, x, w)

    def add_symmetric(self, p: Symmetric, q: Symmetric) -> Symmetric:
        return unrolled.add_symmetric(p, q)

    def subtract_symmetric(self, p: Symmetric, q: Symmetric) -> Symmetric:
        return unrolled.subtract_symmetric(p, q)

    def congruence(self, m: Square, p: Symmetric) -> Symmetric:
        return unrolled.congruence(m, p)

    def symmetric_product(self, m: Square, n: Square) -> Symmetric:
        return unrolled.symmetric_product(m, n)

    def add_rank_one(self, p: Symmetric, w: Vector, factor: Any) -> Symmetric:
        return unrolled.with_rank_one(p, w, factor)

    def subtract_symmetric_outer(self, p: Symmetric, x: Vector, w: Vector) -> Symmetric:
        return unrolled.symmetric(unrolled.subtract_outer(p, x, w))

    def subtract_both_outer(self, p: Symmetric, x: Vector, w: Vector) -> Symmetric:
        return unrolled.symmetric(unrolled.subtract_outer(unrolled.subtract_outer(p, x, w), w, x))

    def condition_on_precision(
        self, cov: Symmetric, precision: Symmetric, definite: bool = True
    ) -> tuple[Symmetric, Any]:
        return unrolled.condition_on_precision(cov, precision, definite)

    def zero_vector(self, size: int, like: jax.Array) -> Vector:
        return (0,) * size

    def zero_matrix(self, size: int, like: jax.Array) -> Symmetric:
        return unrolled.zeros(size)

    def identity(self, size: int, like: jax.Array) -> Square:
        return unrolled.identity(size)

    def packed(self, p: Symmetric) -> Any:
        return unrolled.packed(p)

    def unpacked(self, entries: Any) -> Symmetric:
        return unrolled.unpacked(entries)

    def filled(self, tree: Any, like: jax.Array) -> Any:
        return unrolled.filled(tree, like.shape, like.dtype)

    def lanes_first(self, tree: Any) -> Any:
        return tree

    def lanes_last(self, tree: Any) -> Any:
        return tree

    def over_rows(self, query: Callable[[Vector], Any], rows: Any, like: jax.Array) -> Any:
        results = [self.filled(query(tuple(row)), like) for row in rows]
        return jax.tree.map(lambda *leaves: jnp.stack(leaves), *results)

    def over_outputs(
        self, step: Callable[..., Any], carry: Any, inputs: Any, reverse: bool = False
    ) -> tuple[Any, Any]:
        return step(carry, inputs)  # there is one

    def stacked(self, m: Any, like: jax.Array) -> jax.Array:
        if isinstance(m[0], tuple):
            return jnp.stack([self.stacked(row, like) for row in m])
        return jnp.stack(self.filled(m, like))


UNROLLED = Unrolled()
