"""Weights to start from: at random, or the largest of a dense matrix."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float, Int

from ..._core import compiled
from ._arguments import real
from ._weight import grid, SparseWeight, unit_norms


@compiled
def random_weight(
    key: jax.Array,
    size: tuple[int, int],
    block: tuple[int, int],
    k: int,
    relative_scale: Any,
    dtype: Any,
) -> SparseWeight:
    """`k` units of each group at random, with means that keep the variance of rectified inputs."""
    groups, candidates = grid(size, block)
    where, means = random.split(key)
    order = jnp.argsort(random.uniform(where, (groups, candidates)), axis=1)
    index = jnp.sort(order[:, :k], axis=1)
    if k == candidates:
        block, index = _full(size)
    shape = (*index.shape, block[0] * block[1])
    fan_in = max(1.0, index.size * shape[2] / size[1])
    mean = (2 / fan_in) ** 0.5 * random.normal(means, shape, dtype)
    return _with_scale(mean, index, size, block, relative_scale, (2 / fan_in) ** 0.5)


@compiled
def largest_weight(
    matrix: Float[Array, "K N"], block: tuple[int, int], k: int, relative_scale: Any
) -> SparseWeight:
    """The `k` units of each group that have the largest norms, with the values of the matrix."""
    rows, cols = matrix.shape
    size, candidates = (rows, cols), grid((rows, cols), block)[1]
    if k == candidates:
        block, index = _full(size)
        mean = matrix[None]
    else:
        index = jnp.sort(jnp.argsort(-unit_norms(matrix, block), axis=1)[:, :k], axis=1)
        mean = unit_values(matrix, index, block)
    scale = jnp.sqrt(jnp.mean(mean**2))
    return _with_scale(mean, index, size, block, relative_scale, scale)


def unit_values(
    matrix: Float[Array, "K N"], index: Int[Array, "groups k"], block: tuple[int, int]
) -> Float[Array, "groups k u"]:
    """What a matrix has at units."""
    size = matrix.shape[0], matrix.shape[1]
    empty = jnp.zeros((*index.shape, block[0] * block[1]), matrix.dtype)
    at = SparseWeight(empty, index.astype(jnp.int32), size, block, None)
    return at.masked(matrix.at[at.positions()].get(mode="fill", fill_value=0))


def _full(size: tuple[int, int]) -> tuple[tuple[int, int], Int[Array, "1 k"]]:
    return (1, size[1]), jnp.arange(size[0], dtype=jnp.int32)[None]


def _with_scale(
    mean: Any, index: Any, size: Any, block: Any, relative_scale: Any, unit: Any
) -> SparseWeight:
    wanted = "a number above 0 and at most 1"
    relative = real("relative_scale", relative_scale, 0, 1, wanted)
    scale = jnp.broadcast_to(jnp.asarray(relative * unit, mean.dtype), mean.shape)
    weight = SparseWeight(mean, index.astype(jnp.int32), size, block, scale)
    return weight.replaced(mean=weight.masked(mean))
