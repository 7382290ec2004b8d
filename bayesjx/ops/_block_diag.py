"""Block-diagonal matrices: equal blocks as one array, or operators of any kind."""

from __future__ import annotations

import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax import random
from jaxtyping import Array, Inexact

from .._core import cholesky_each, compiled, each, safe_cholesky, solve_tril_each
from . import _general as general
from ._checks import checked_arrays, checked_size
from ._factors import check_each, symmetric_solve
from ._operator import AbstractOperator
from ._stacks import checked_parts
from ._tags import checked_tags, psd, shared_tags


class BlockDiag(AbstractOperator):
    r"""Block-diagonal matrix $\mathrm{diag}(A_1, \dots, A_T)$.

    Equal blocks in one array go through batched linear algebra: $O(T b^3)$ to factorise, $O(T b^2)$
    a column for products and solves. Operators in a tuple keep their own structure.

    As with `ops.Dense`, blocks tagged `ops.psd` are factorised by Cholesky, where `root` adds
    jitter to the blocks that need it; triangular blocks take substitution, others LU.

    Args:
        blocks: array of shape `(T, m, n)`, or a tuple of operators, of any sizes.
        tags: what every block of an array is, such as `ops.psd`; believed. Operators bring theirs.

    Raises:
        ValueError: an array without three axes, no blocks, tags given for operators, or types that
            differ or are not floating-point.
        RuntimeError: in `solve` and `logdet`, a block tagged `ops.psd` is not positive definite;
            the text says which.
    """

    blocks: Inexact[Array, "T m n"] | tuple[AbstractOperator, ...]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, blocks: Any, tags: object = ()):
        if isinstance(blocks, (tuple, list)):
            self.blocks = _checked_operators(tuple(blocks), tags)
            self.tags = shared_tags(*self.blocks)
        else:
            if jnp.ndim(blocks) != 3 or jnp.shape(blocks)[0] == 0:
                raise ValueError(
                    "BlockDiag: blocks must have shape (T, m, n) with T > 0, or be a tuple of "
                    f"operators; got shape {jnp.shape(blocks)}"
                )
            (self.blocks,) = checked_arrays("BlockDiag", {"blocks": blocks})
            self.tags = checked_tags("BlockDiag", tags)
        checked_size("BlockDiag", max(self.shape))

    @property
    def shape(self) -> tuple[int, int]:
        if isinstance(self.blocks, tuple):
            rows, cols = zip(*(block.shape for block in self.blocks), strict=True)
            return (sum(rows), sum(cols))
        number, rows, cols = self.blocks.shape
        return (number * rows, number * cols)

    @property
    def dtype(self) -> Any:
        return self.blocks[0].dtype

    def transpose(self) -> BlockDiag:
        if lx.is_symmetric(self):
            return self
        if isinstance(self.blocks, tuple):
            return BlockDiag(tuple(block.transpose() for block in self.blocks))
        return BlockDiag(self.blocks.mT, lx.transpose_tags(self.tags))

    def _mm(self, x: jax.Array) -> jax.Array:
        if isinstance(self.blocks, tuple):
            pieces = _split(x, [block.shape[1] for block in self.blocks])
            return jnp.concatenate([b._mm(x) for b, x in zip(self.blocks, pieces, strict=True)])
        return (self.blocks @ self._rows(x)).reshape(-1, x.shape[1])

    def _solve(self, b: jax.Array) -> jax.Array:
        if isinstance(self.blocks, tuple):
            self._need_square_blocks("solve")
            pieces = _split(b, [block.shape[0] for block in self.blocks])
            return jnp.concatenate([a._solve(b) for a, b in zip(self.blocks, pieces, strict=True)])
        rows = self._rows(b)
        if lx.is_lower_triangular(self) or lx.is_upper_triangular(self):
            lower = lx.is_lower_triangular(self)
            tril = self.blocks if lower else self.blocks.mT
            out = solve_tril_each(tril, rows, transposed=not lower)
        elif psd in self.tags:
            return _solved(self, jax.lax.stop_gradient(self)._tril("solve"), b)
        else:
            out = each(_solve_pair, (self.blocks, rows))
        return out.reshape(b.shape)

    def _logdet(self) -> jax.Array:
        if isinstance(self.blocks, tuple):
            self._need_square_blocks("logdet")
            return jnp.sum(jnp.stack([block._logdet() for block in self.blocks]))
        if lx.is_lower_triangular(self) or lx.is_upper_triangular(self):
            return jnp.sum(jnp.log(jnp.abs(self._diag())))
        if psd in self.tags:
            return 2 * jnp.sum(jnp.log(_diagonals(self._tril("logdet"))))
        return jnp.sum(each(_log_abs_det, self.blocks))

    def _diag(self) -> jax.Array:
        if isinstance(self.blocks, tuple):
            self._need_square_blocks("diag")
            return jnp.concatenate([block._diag() for block in self.blocks])
        return _diagonals(self.blocks).reshape(-1)

    def _root(self) -> BlockDiag:
        if isinstance(self.blocks, tuple):
            return BlockDiag(tuple(block._root() for block in self.blocks))
        tril = safe_cholesky(self.blocks).tril
        return BlockDiag(self._checked_tril(tril, "root"), lx.lower_triangular_tag)

    def _rows(self, x: jax.Array) -> jax.Array:
        return x.reshape(self.blocks.shape[0], -1, x.shape[1])  # ty: ignore

    def _tril(self, what: str) -> jax.Array:
        return self._checked_tril(cholesky_each(self.blocks), what)

    def _checked_tril(self, tril: jax.Array, what: str) -> jax.Array:
        bad = ~jnp.all(jnp.isfinite(_diagonals(tril)), axis=1)
        return check_each(tril, bad, f"{what}: block {{}} of BlockDiag is not positive definite")

    def _need_square_blocks(self, what: str) -> None:
        shapes = [block.shape for block in self.blocks]
        if any(rows != cols for rows, cols in shapes):
            raise ValueError(f"{what} needs square blocks in BlockDiag, they are {shapes}")


@general.psd_logdet.register
def _(operator: BlockDiag) -> jax.Array:
    if isinstance(operator.blocks, tuple):
        return jnp.sum(jnp.stack([general.psd_logdet(block) for block in operator.blocks]))
    return operator._logdet()


@general.inverse_diag.register
def _(operator: BlockDiag) -> jax.Array:
    blocks = operator.blocks
    if isinstance(blocks, tuple):
        operator._need_square_blocks("inverse_diag")
        return jnp.concatenate([general.inverse_diag(block) for block in blocks])
    if psd not in operator.tags:
        return _diagonals(each(jnp.linalg.inv, blocks)).reshape(-1)
    eye = jnp.broadcast_to(jnp.eye(blocks.shape[1], dtype=operator.dtype), blocks.shape)
    half = solve_tril_each(operator._tril("inverse_diag"), eye)
    return jnp.sum(half**2, axis=1).reshape(-1)


@general.sample.register
def _(operator: BlockDiag, key: jax.Array, num: int) -> jax.Array:
    if isinstance(operator.blocks, tuple):
        pairs = zip(operator.blocks, random.split(key, len(operator.blocks)), strict=True)
        return jnp.concatenate([general.sample(block, key, num) for block, key in pairs])
    return operator._root()._mm(random.normal(key, (operator.shape[0], num), operator.dtype))


@general.sample_inverse.register
def _(operator: BlockDiag, key: jax.Array, num: int) -> jax.Array:
    if isinstance(operator.blocks, tuple):
        pairs = zip(operator.blocks, random.split(key, len(operator.blocks)), strict=True)
        return jnp.concatenate([general.sample_inverse(block, key, num) for block, key in pairs])
    noise = random.normal(key, (operator.shape[0], num), operator.dtype)
    return operator._root().transpose()._solve(noise)


def _checked_operators(blocks: tuple[Any, ...], tags: object) -> tuple[AbstractOperator, ...]:
    if not blocks or not all(isinstance(block, AbstractOperator) for block in blocks):
        kinds = [type(block).__name__ for block in blocks]
        raise ValueError(
            f"BlockDiag: blocks must be one array of shape (T, m, n) or operators, got {kinds}; "
            "a list of equal arrays is jnp.stack(list), unequal ones are ops.Dense each"
        )
    if checked_tags("BlockDiag", tags):
        raise ValueError("BlockDiag: tag the operators themselves, tags= is for an array of blocks")
    return checked_parts("BlockDiag", blocks, None)


def _split(x: jax.Array, sizes: list[int]) -> list[jax.Array]:
    return jnp.split(x, list(itertools.accumulate(sizes))[:-1])


def _diagonals(blocks: jax.Array) -> jax.Array:
    return jnp.diagonal(blocks, axis1=-2, axis2=-1)


@compiled
def _solved(operator: BlockDiag, tril: jax.Array, b: jax.Array) -> jax.Array:
    def solve(b: jax.Array) -> jax.Array:
        half = solve_tril_each(tril, operator._rows(b))
        out = solve_tril_each(tril, half, transposed=True)
        return out.reshape(b.shape)

    return symmetric_solve(operator._mm, solve, b)


def _solve_pair(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    return jnp.linalg.solve(*pair)


def _log_abs_det(blocks: jax.Array) -> jax.Array:
    return jnp.linalg.slogdet(blocks)[1]
