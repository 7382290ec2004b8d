"""Rules for sums, products and multiples: which structure survives them.

The only file with all kinds of operators. A sum is looked up on the left term and then, with
the terms exchanged, on the right one; `None` says that this pair has no structure.
"""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp

from ._arithmetic import multiple, plus, times
from ._block_diag import BlockDiag
from ._block_tridiag import BlockBidiag, BlockTridiag
from ._categorical import CategoricalCovariance
from ._dense import Dense
from ._diagonal import Diag, ScaledIdentity
from ._khatri_rao import KhatriRao
from ._kron import Kron
from ._kron_diag import KronPlusDiag
from ._kron_noise import KronPlusNoise
from ._kron_sum import KronSum
from ._low_rank import LowRank, LowRankPlusDiag
from ._masked import Masked
from ._operator import AbstractOperator
from ._reordered import Reordered
from ._scaled import Scaled
from ._sparse_operator import AbstractSparse
from ._stacks import HStack, VStack
from ._tags import negative, psd, scaled_tags, shared_tags, symmetric
from ._toeplitz import Toeplitz

# Sums.


@plus.register
def _(left: Dense, right: Any) -> Dense | None:
    if not isinstance(right, AbstractOperator):
        return None
    tags = shared_tags(left, right)
    if isinstance(right, (Diag, ScaledIdentity)):
        n = jnp.arange(left.shape[0])
        return Dense(left.matrix.at[n, n].add(right._diag()), tags)
    return Dense(left.matrix + right.as_matrix(), tags)


@plus.register
def _(left: Diag, right: Any) -> Diag | None:
    if isinstance(right, (Diag, ScaledIdentity)):
        return Diag(left.entries + right._diag(), shared_tags(left, right))
    return None


@plus.register
def _(left: ScaledIdentity, right: Any) -> ScaledIdentity | None:
    if isinstance(right, ScaledIdentity):
        return ScaledIdentity(left.scale + right.scale, left.size, shared_tags(left, right))
    return None


@plus.register
def _(left: Toeplitz, right: Any) -> Toeplitz | None:
    if isinstance(right, ScaledIdentity):
        return Toeplitz(left.column.at[0].add(right.scale), shared_tags(left, right))
    if isinstance(right, Toeplitz):
        return Toeplitz(left.column + right.column, shared_tags(left, right))
    return None


@plus.register
def _(left: LowRank, right: Any) -> LowRank | LowRankPlusDiag | None:
    if isinstance(right, LowRank):
        factor = _beside(left.left, right.left)
        if left.right is None and right.right is None:
            return LowRank(factor)
        return LowRank(factor, _beside(left.second, right.second))
    noise = isinstance(right, (Diag, ScaledIdentity)) and psd in right.tags
    if noise and left.right is None:
        return LowRankPlusDiag(left.left, right._diag())
    return None


@plus.register
def _(left: LowRankPlusDiag, right: Any) -> LowRankPlusDiag | None:
    if not isinstance(right, AbstractOperator) or psd not in right.tags:
        return None
    if isinstance(right, (Diag, ScaledIdentity)):
        return LowRankPlusDiag(left.factor, left.diagonal + right._diag())
    if isinstance(right, LowRank):
        return LowRankPlusDiag(_beside(left.factor, right.left), left.diagonal)
    if isinstance(right, LowRankPlusDiag):
        both = _beside(left.factor, right.factor)
        return LowRankPlusDiag(both, left.diagonal + right.diagonal)
    return None


def _beside(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.concatenate([left, right], axis=1)


@plus.register
def _(left: BlockDiag, right: Any) -> BlockDiag | None:
    if isinstance(left.blocks, tuple):
        return _sum_of_blocks(left.blocks, right)
    tags, rows, columns = shared_tags(left, right), *left.blocks.shape[1:]
    if isinstance(right, (Diag, ScaledIdentity)) and rows == columns:
        i = jnp.arange(rows)
        entries = right._diag().reshape(-1, rows)
        return BlockDiag(left.blocks.at[:, i, i].add(entries), tags)
    if isinstance(right, BlockDiag) and jnp.shape(right.blocks) == left.blocks.shape:
        return BlockDiag(left.blocks + right.blocks, tags)
    return None


def _sum_of_blocks(blocks: tuple[AbstractOperator, ...], right: Any) -> BlockDiag | None:
    """The sum with operators as blocks, each of which adds up with its own term."""
    shapes = [block.shape for block in blocks]
    if isinstance(right, (Diag, ScaledIdentity)) and all(a == b for a, b in shapes):
        ends = list(itertools.accumulate(rows for rows, _ in shapes))
        terms = [Diag(part, right.tags) for part in jnp.split(right._diag(), ends[:-1])]
        if isinstance(right, ScaledIdentity):
            terms = [ScaledIdentity(right.scale, n, right.tags) for n, _ in shapes]
    elif isinstance(right, BlockDiag) and isinstance(right.blocks, tuple):
        terms = list(right.blocks)
        if [block.shape for block in terms] != shapes:
            return None
    else:
        return None
    sums = [block + term for block, term in zip(blocks, terms, strict=True)]
    return BlockDiag(tuple(sums)) if all(isinstance(s, AbstractOperator) for s in sums) else None


@plus.register
def _(left: BlockTridiag, right: Any) -> BlockTridiag | None:
    if not isinstance(right, AbstractOperator) or psd not in right.tags:
        return None
    lower = left.lower
    if isinstance(right, (Diag, ScaledIdentity)):
        i = jnp.arange(left.diagonal.shape[1])
        entries = right._diag().reshape(left.diagonal.shape[:2])
        diagonal = left.diagonal.at[:, i, i].add(entries)
    elif isinstance(right, (BlockTridiag, BlockDiag)):
        blocks = right.diagonal if isinstance(right, BlockTridiag) else right.blocks
        if jnp.shape(blocks) != left.diagonal.shape:
            return None
        diagonal = left.diagonal + blocks
        lower = lower + right.lower if isinstance(right, BlockTridiag) else lower
    else:
        return None
    return BlockTridiag(diagonal, lower, left.parallel)


@plus.register
def _(left: Kron, right: Any) -> AbstractOperator | None:
    if isinstance(right, (Kron, ScaledIdentity)):
        return KronPlusNoise(left, right) if left.shape[0] == left.shape[1] else None
    return KronPlusDiag(left, right.entries) if isinstance(right, Diag) else None


@plus.register
def _(left: KronSum, right: Any) -> AbstractOperator | None:
    if isinstance(right, KronSum) and right.grid == left.grid:
        pairs = zip(left.factors, right.factors, strict=True)
        return KronSum(*(a + b for a, b in pairs), tags=shared_tags(left, right))
    return KronPlusNoise(left, right) if isinstance(right, ScaledIdentity) else None


@plus.register
def _(left: KronPlusNoise, right: Any) -> AbstractOperator | None:
    if not isinstance(left.noise, ScaledIdentity):
        return None
    if isinstance(right, ScaledIdentity):
        scale, tags = left.noise.scale + right.scale, shared_tags(left.noise, right)
        return KronPlusNoise(left.signal, ScaledIdentity(scale, left.shape[0], tags))
    if isinstance(right, Diag) and psd in left.tags & right.tags:
        return plus(left.signal, Diag(left.noise._diag() + right.entries, psd))
    return None


@plus.register
def _(left: KronPlusDiag, right: Any) -> KronPlusDiag | None:
    if not isinstance(right, (Diag, ScaledIdentity)) or psd not in right.tags:
        return None
    return left.replaced(left.signal, left.noise + right._diag())


@plus.register
def _(left: Masked, right: Any) -> Masked | None:
    if not isinstance(right, ScaledIdentity) or psd not in right.tags:
        return None
    full = plus(left.full, ScaledIdentity(right.scale, left.full.shape[0]))
    return None if full is None else left.replaced(full)


@plus.register
def _(left: Reordered, right: Any) -> Reordered | None:
    if isinstance(right, Diag):
        right = Diag(right.entries[left.order], right.tags)
    elif not isinstance(right, ScaledIdentity):
        return None
    total = plus(left.operator, right)
    return None if total is None else Reordered(total, left.order)


@plus.register
def _(left: CategoricalCovariance, right: Any) -> BlockDiag | None:
    """Blocks of classes by classes, as they have a solution."""
    if not isinstance(right, (Diag, ScaledIdentity)):
        return None
    probs = left.probs
    entries = probs + right._diag().reshape(probs.shape)
    blocks = entries[..., None] * jnp.eye(probs.shape[1], dtype=probs.dtype)
    return BlockDiag(blocks - probs[:, :, None] * probs[:, None], shared_tags(left, right))


# Products.


@times.register
def _(left: Kron, right: Any) -> Kron | None:
    if isinstance(right, Kron):
        inner = [f.shape[1] for f in left.factors], [f.shape[0] for f in right.factors]
        if inner[0] == inner[1]:
            return Kron(*(a @ b for a, b in zip(left.factors, right.factors, strict=True)))
    return None


# Multiples; `Scaled` where a class cannot hold one, as a negative multiple of a covariance.


def _scaled(operator: AbstractOperator, factor: jax.Array, sign: int) -> Scaled:
    return Scaled(operator, factor, scaled_tags(operator.tags, sign))


multiple.register(AbstractOperator, _scaled)


@multiple.register
def _(operator: Scaled, factor: jax.Array, sign: int) -> Scaled:
    return Scaled(operator.base, factor * operator.factor, scaled_tags(operator.tags, sign))


@multiple.register
def _(operator: Dense, factor: jax.Array, sign: int) -> Dense:
    tags = scaled_tags(operator.tags, sign)
    return Dense(factor * operator.matrix, tags, factor * operator.jitter)


@multiple.register
def _(operator: Diag, factor: jax.Array, sign: int) -> Diag:
    return Diag(factor * operator.entries, scaled_tags(operator.tags, sign))


@multiple.register
def _(operator: ScaledIdentity, factor: jax.Array, sign: int) -> ScaledIdentity:
    tags = scaled_tags(operator.tags, sign)
    return ScaledIdentity(factor * operator.scale, operator.size, tags)


@multiple.register
def _(operator: Toeplitz, factor: jax.Array, sign: int) -> AbstractOperator:
    if psd in operator.tags and sign < 1:
        return _scaled(operator, factor, sign)
    return Toeplitz(factor * operator.column, scaled_tags(operator.tags, sign))


@multiple.register
def _(operator: LowRank, factor: jax.Array, sign: int) -> AbstractOperator:
    if operator.right is not None:
        return LowRank(factor * operator.left, operator.right)
    if sign < 1:
        return _scaled(operator, factor, sign)
    return LowRank(jnp.sqrt(factor) * operator.left)


@multiple.register
def _(operator: LowRankPlusDiag, factor: jax.Array, sign: int) -> AbstractOperator:
    if sign < 1:
        return _scaled(operator, factor, sign)
    return LowRankPlusDiag(jnp.sqrt(factor) * operator.factor, factor * operator.diagonal)


@multiple.register
def _(operator: BlockDiag, factor: jax.Array, sign: int) -> BlockDiag:
    if isinstance(operator.blocks, tuple):
        return BlockDiag(tuple(multiple(block, factor, sign) for block in operator.blocks))
    return BlockDiag(factor * operator.blocks, scaled_tags(operator.tags, sign))


@multiple.register
def _(operator: BlockTridiag, factor: jax.Array, sign: int) -> AbstractOperator:
    if sign < 1:
        return _scaled(operator, factor, sign)
    return BlockTridiag(factor * operator.diagonal, factor * operator.lower, operator.parallel)


@multiple.register
def _(operator: BlockBidiag, factor: jax.Array, sign: int) -> BlockBidiag:
    arrays = factor * operator.diagonal, factor * operator.lower
    return BlockBidiag(*arrays, operator.parallel, operator.transposed)


@multiple.register
def _(operator: Kron, factor: jax.Array, sign: int) -> Kron:
    tags = scaled_tags(operator.tags, sign)
    if negative in tags | operator.tags:  # tags are of factors; here one differs from the rest
        tags = tags - {negative, psd} | {symmetric}
    return Kron(factor * operator.factors[0], *operator.factors[1:], tags=tags)


@multiple.register
def _(operator: KronSum, factor: jax.Array, sign: int) -> KronSum:
    tags = scaled_tags(operator.tags, sign)
    return KronSum(*(factor * f for f in operator.factors), tags=tags)


@multiple.register
def _(operator: KronPlusNoise, factor: jax.Array, sign: int) -> AbstractOperator:
    if sign < 1:
        return _scaled(operator, factor, sign)
    return KronPlusNoise(*(multiple(p, factor, sign) for p in (operator.signal, operator.noise)))


@multiple.register
def _(operator: KronPlusDiag, factor: jax.Array, sign: int) -> AbstractOperator:
    if sign < 1:
        return _scaled(operator, factor, sign)
    return operator.replaced(multiple(operator.signal, factor, sign), factor * operator.noise)


@multiple.register
def _(operator: Masked, factor: jax.Array, sign: int) -> AbstractOperator:
    if sign < 1:
        return _scaled(operator, factor, sign)
    return operator.replaced(multiple(operator.full, factor, sign))


@multiple.register
def _(operator: Reordered, factor: jax.Array, sign: int) -> Reordered:
    return Reordered(multiple(operator.operator, factor, sign), operator.order)


@multiple.register
def _(operator: KhatriRao, factor: jax.Array, sign: int) -> KhatriRao:
    return KhatriRao(factor * operator.factors[0], *operator.factors[1:])


@multiple.register
def _(operator: HStack, factor: jax.Array, sign: int) -> HStack:
    return HStack(*(multiple(part, factor, sign) for part in operator.parts))


@multiple.register
def _(operator: VStack, factor: jax.Array, sign: int) -> VStack:
    return VStack(*(multiple(part, factor, sign) for part in operator.parts))


@multiple.register
def _(operator: AbstractSparse, factor: jax.Array, sign: int) -> AbstractSparse:
    tags = scaled_tags(operator.tags, sign)
    return operator.replaced(values=factor * operator.values, tags=tags)
