"""Linear algebra of states whose matrices are arrays; see `_algebra`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._algebra import AbstractAlgebra, Blocks, Square, Symmetric, Vector


class Dense(AbstractAlgebra):
    """Matrices that are arrays `(d, d)`, with lanes as a last axis if there are any.

    Transition matrices are block-diagonal, `(blocks, k, k)` with `d = blocks k`. Without lanes
    products are calls of the matrix library, which XLA cannot fuse into what follows and repeat
    there; with lanes they are fused loops. None is taken in reduced precision.
    """

    def apply(self, a: Blocks, x: Vector) -> Vector:
        return self.apply_to_square(a, x[:, None])[:, 0]

    def apply_to_square(self, a: Blocks, m: Square) -> Square:
        blocks, k = a.shape[:2]
        rows = m.reshape(blocks, k, *m.shape[1:])
        if a.ndim == 3:
            total = jnp.matmul(a, rows, precision="highest")
        else:
            total = sum(a[:, :, j, None] * rows[:, None, j] for j in range(k))
        return jnp.reshape(total, m.shape)

    def conjugate(self, a: Blocks, p: Symmetric) -> Symmetric:
        return self.apply_to_square(a, self.transpose(self.apply_to_square(a, p)))

    def transposed(self, a: Blocks) -> Blocks:
        return jnp.swapaxes(a, 1, 2)

    def add_noise(self, p: Symmetric, noise: Blocks) -> Symmetric:
        count, k, lanes = noise.shape[0], noise.shape[1], noise.shape[3:]
        same = jnp.eye(count, dtype=p.dtype).reshape(count, 1, count, 1, *(1,) * len(lanes))
        whole = p.reshape(count, k, count, k, *lanes) + same * noise[:, :, None]
        return whole.reshape(p.shape)

    def add(self, x: Vector, w: Vector) -> Vector:
        return x + w

    def subtract(self, x: Vector, w: Vector) -> Vector:
        return x - w

    def scale(self, factor: Any, x: Vector) -> Vector:
        return factor * x

    def dot(self, x: Vector, w: Vector) -> Any:
        return jnp.sum(x * w, axis=0)

    def matvec(self, m: Square, x: Vector) -> Vector:
        if m.ndim == 2 and x.ndim == 1:
            return jnp.matmul(m, x, precision="highest")
        return jnp.sum(m * x[None], axis=1)

    def matmul(self, m: Square, n: Square) -> Square:
        if m.ndim == 2:
            return jnp.matmul(m, n, precision="highest")
        return jnp.sum(m[:, :, None] * n[None], axis=1)

    def transpose(self, m: Square) -> Square:
        return jnp.swapaxes(m, 0, 1)

    def subtract_square(self, m: Square, n: Square) -> Square:
        return m - n

    def subtract_outer(self, m: Square, x: Vector, w: Vector) -> Square:
        return m - x[:, None] * w[None]

    def add_symmetric(self, p: Symmetric, q: Symmetric) -> Symmetric:
        return p + q

    def subtract_symmetric(self, p: Symmetric, q: Symmetric) -> Symmetric:
        return p - q

    def congruence(self, m: Square, p: Symmetric) -> Symmetric:
        return self.symmetric_product(m, self.matmul(p, self.transpose(m)))

    def symmetric_product(self, m: Square, n: Square) -> Symmetric:
        return self._symmetric(self.matmul(m, n))

    def add_rank_one(self, p: Symmetric, w: Vector, factor: Any) -> Symmetric:
        return p + factor * (w[:, None] * w[None])

    def subtract_symmetric_outer(self, p: Symmetric, x: Vector, w: Vector) -> Symmetric:
        return self._symmetric(p - x[:, None] * w[None])

    def subtract_both_outer(self, p: Symmetric, x: Vector, w: Vector) -> Symmetric:
        product = x[:, None] * w[None]
        return p - product - self.transpose(product)

    def condition_on_precision(
        self, cov: Symmetric, precision: Symmetric, definite: bool = True
    ) -> tuple[Symmetric, Any]:
        # The most informative observations first: without that order, what rounding leaves of a
        # matrix of low rank would be divided by itself.
        d, diagonal = len(cov), jnp.arange(len(cov))

        def step(_: Any, carry: Any) -> Any:
            cov, left, done, log_det = carry
            gain = jnp.abs(left[diagonal, diagonal]) * cov[diagonal, diagonal]
            best = jnp.argmax(jnp.where(done, -1.0, gain), axis=0)
            chosen = jax.nn.one_hot(best, d, axis=0, dtype=cov.dtype)
            column = jnp.where(done, 0.0, self.matvec(left, chosen))
            pivot = self.dot(column, chosen)
            direction = jnp.where(pivot != 0, column / jnp.where(pivot != 0, pivot, 1.0), 0.0)
            cross = self.matvec(cov, direction)
            ratio = pivot * self.dot(direction, cross)
            cov = self.add_rank_one(cov, cross, -pivot / (1 + ratio))
            left = self.add_rank_one(left, direction, -pivot)
            log_det = log_det + (jnp.log1p(ratio) if definite else jnp.log(jnp.abs(1 + ratio)))
            return cov, left, done | (chosen > 0), log_det

        start = cov, precision, jnp.zeros(cov.shape[1:], bool), jnp.zeros_like(cov[0, 0])
        cov, _, _, log_det = jax.lax.fori_loop(0, d, step, start)
        return cov, log_det

    def zero_vector(self, size: int, like: jax.Array) -> Vector:
        return jnp.zeros((size, *like.shape), like.dtype)

    def zero_matrix(self, size: int, like: jax.Array) -> Symmetric:
        return jnp.zeros((size, size, *like.shape), like.dtype)

    def identity(self, size: int, like: jax.Array) -> Square:
        one = jnp.eye(size, dtype=like.dtype).reshape(size, size, *(1,) * like.ndim)
        return jnp.broadcast_to(one, (size, size, *like.shape))

    def packed(self, p: Symmetric) -> Any:
        return p

    def unpacked(self, entries: Any) -> Symmetric:
        return entries

    def filled(self, tree: Any, like: jax.Array) -> Any:
        return tree

    def lanes_first(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), tree)

    def lanes_last(self, tree: Any) -> Any:
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), tree)

    def over_rows(self, query: Callable[[Vector], Any], rows: Any, like: jax.Array) -> Any:
        return jax.vmap(lambda row: query(row.reshape(-1, *(1,) * like.ndim)))(rows)

    def over_outputs(
        self, step: Callable[..., Any], carry: Any, inputs: Any, reverse: bool = False
    ) -> tuple[Any, Any]:
        if len(jax.tree.leaves(inputs)[0]) > 1:
            return jax.lax.scan(step, carry, inputs, reverse=reverse)
        carry, made = step(carry, jax.tree.map(lambda leaf: leaf[0], inputs))
        return carry, jax.tree.map(lambda leaf: leaf[None], made)

    def stacked(self, m: Any, like: jax.Array) -> jax.Array:
        return m

    def _symmetric(self, m: Square) -> Symmetric:
        """The same without the asymmetry that rounding leaves."""
        return 0.5 * (m + jnp.swapaxes(m, 0, 1))


DENSE = Dense()
