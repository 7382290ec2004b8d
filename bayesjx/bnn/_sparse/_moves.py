"""Moves of active subspaces: unimportant units leave, those of the largest gradients come."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._criteria import removal_score
from ._weight import SparseWeight


class Move(NamedTuple):
    """Weights after a move.

    Attributes:
        weight: the weights.
        changed: the units that are new, shape `(groups, k)`.
    """

    weight: SparseWeight
    changed: Bool[Array, "groups k"]


def move(
    weight: SparseWeight,
    growth: Float[Array, "groups candidates"],
    fraction: Any,
    criterion: str,
    rate: float,
    new_scale: float | None,
) -> Move:
    """One removal and addition; the number of units of each group stays.

    Units that are removed may come back, and then keep all that they have. New ones have mean 0.

    Args:
        weight: with a scale.
        growth: of all units, by which they are added; not negative.
        fraction: of the active units that are removed, over all groups.
        criterion: see `removal_score`, by whose mean over a unit units are removed.
        rate: see `removal_score`.
        new_scale: standard deviation of new weights; None for the geometric mean of the active.
    """
    removed = _least(unit_scores(weight, criterion, rate), fraction)
    index, changed = _replaced(weight.index, removed, growth)
    scale: Any = weight.scale
    fresh = geometric_scale(weight) if new_scale is None else jnp.asarray(new_scale, scale.dtype)
    new = changed[:, :, None]
    mean = jnp.where(new, 0, weight.mean)
    scale = jnp.where(new, fresh, scale)
    return Move(weight.replaced(mean=mean, scale=scale, index=index), changed)


def geometric_scale(weight: SparseWeight) -> Float[Array, ""]:
    """The geometric mean of the standard deviations of the active weights."""
    scale: Any = weight.scale
    inside = weight.masked(jnp.ones_like(scale))
    return jnp.exp(jnp.sum(inside * jnp.log(scale)) / jnp.sum(inside))


def unit_scores(weight: SparseWeight, criterion: str, rate: float) -> Float[Array, "groups k"]:
    """The mean criterion of the weights of each unit, those beyond the matrix left out."""
    scale: Any = weight.scale
    scores = removal_score(weight.mean, scale, criterion, rate)
    inside = weight.inside()
    if inside is None:
        return jnp.mean(scores, 2)
    return jnp.sum(jnp.where(inside, scores, 0), 2) / jnp.sum(inside, 2)


def _least(scores: Float[Array, "groups k"], fraction: Any) -> Bool[Array, "groups k"]:
    """Which units have the least scores, a fraction of all, rounded down."""
    order = jnp.argsort(scores.reshape(-1))
    rank = jnp.zeros(scores.size, jnp.int32).at[order].set(jnp.arange(scores.size, dtype=jnp.int32))
    count = jnp.floor(fraction * scores.size).astype(jnp.int32)
    return (rank < count).reshape(scores.shape)


def _replaced(
    index: Int[Array, "groups k"],
    removed: Bool[Array, "groups k"],
    growth: Float[Array, "groups candidates"],
) -> tuple[Int[Array, "groups k"], Bool[Array, "groups k"]]:
    """Indices after each group has got as many of its best candidates as it has lost."""
    k, candidates = index.shape[1], growth.shape[1]
    group = jnp.arange(len(index), dtype=jnp.int32)[:, None]
    active = jnp.zeros(growth.shape, bool).at[group, index].set(True)
    kept = jnp.zeros(growth.shape, bool).at[group, index].set(~removed)
    open_growth = jnp.where(kept, -1, growth)
    best = jnp.argsort(-open_growth, axis=1)[:, : min(k, candidates)].astype(jnp.int32)
    taken = jnp.arange(best.shape[1], dtype=jnp.int32) < jnp.sum(removed, 1, keepdims=True)
    back = jnp.zeros(growth.shape, bool).at[group, best].max(taken)
    free = removed & ~back[group, index]
    new = taken & ~active[group, best]
    first_new = jnp.take_along_axis(best, jnp.argsort(~new, axis=1), 1)  # in order of growth
    slot = jnp.maximum(jnp.cumsum(free.astype(jnp.int32), axis=1) - 1, 0)
    return jnp.where(free, jnp.take_along_axis(first_new, slot, 1), index), free
