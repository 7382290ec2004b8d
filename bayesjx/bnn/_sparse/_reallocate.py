"""Units of a network that move from layer to layer, under one budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..._core import check_key
from ._arguments import one_of, real
from ._criteria import CRITERIA
from ._evaluate import weights_of, with_weights
from ._mean_field import sparse_mean_field, SparseMeanField
from ._moves import geometric_scale, unit_scores
from ._ssvi import dense_gradients
from ._weight import SparseWeight, unit_norms


def reallocate(
    key: Any,
    distribution: Any,
    x: Any,
    y: Any,
    *,
    swap: float = 0.3,
    criterion: str = "snr_mean_abs",
    rate: float = 1.0,
) -> SparseMeanField:
    """The distribution with another number of active units in each layer, and no more in all.

    A move over all layers together, under one budget: the least important units of the network are
    taken away, and as many are given to the layers where the gradients of units that are not active
    are largest. Layers that shrink lose the least important units of each group, others gain the
    units with the largest gradients, with mean 0 and the geometric mean of the layer's scales.
    Shapes change, so that `ssvi` has to be made anew and compiles; a few times in a training do.

    Args:
        key: for the noise of the gradients.
        distribution: with a likelihood.
        x: inputs, along the first axis, as many as one evaluation may take.
        y: their observations.
        swap: share of the active weights that is taken away.
        criterion: see `removal_score`, taken as the mean over a unit.
        rate: see `removal_score`.

    Raises:
        ValueError: a network in which no layer can change, arguments that do not fit.
    """
    check_key(key)
    if not isinstance(distribution, SparseMeanField):
        raise ValueError(
            "reallocate: distribution must be what sparse_mean_field(network, likelihood) returns, "
            f"got {type(distribution).__name__}"
        )
    share = real("swap", swap, 0, 1, "a number above 0 and at most 1")
    one_of("criterion", criterion, tuple(CRITERIA))
    rate = real("rate", rate, 0, 1e30, "a positive number")
    weights = distribution.weights
    moving = [i for i, weight in enumerate(weights) if not weight.full]
    if not moving:
        raise ValueError("reallocate: distribution must have a layer that is not dense")
    measured = _measures(criterion, rate, key, distribution, x, y)
    layers = [weights[i] for i in moving]
    scores, growth = ([np.asarray(each[i]) for i in moving] for each in measured)
    counts = _counts(layers, scores, growth, share)
    for i, score, gradient, count in zip(moving, scores, growth, counts, strict=True):
        weights[i] = _resized(weights[i], score, gradient, count)
    network = distribution.network()
    left = iter(weights)
    all_weights = [w if w.scale is None else next(left) for w in weights_of(network)]
    return sparse_mean_field(
        with_weights(network, all_weights),
        distribution.likelihood,
        prior_scale=distribution.prior_scale,
        estimator=distribution.estimator,
    )


@eqx.filter_jit
def _measures(
    criterion: str, rate: float, key: Any, q: SparseMeanField, x: Any, y: Any
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Importance of active units, and mean squares of the gradients of all, of each layer."""
    gradients = dense_gradients(q, key, x, y, None)[1]
    scores = [unit_scores(weight, criterion, rate) for weight in q.weights]
    pairs = zip(q.weights, gradients, strict=True)
    dense = [jnp.zeros(w.size, w.dtype) if g is None else g for w, g in pairs]
    pairs = zip(q.weights, dense, strict=True)
    norms = [unit_norms(matrix, w.block) / w.mean.shape[2] for w, matrix in pairs]
    return scores, norms


def _counts(
    layers: Sequence[SparseWeight],
    scores: Sequence[np.ndarray],
    growth: Sequence[np.ndarray],
    share: float,
) -> list[int]:
    """Units of a group of each layer, with no more weights in all than before."""
    sizes = np.array([weight.mean.shape[2] for weight in layers])
    budget = sum(weight.mean.size for weight in layers)
    units = [weight.index.size for weight in layers]
    value, layer = np.concatenate([s.ravel() for s in scores]), np.repeat(range(len(units)), units)
    order = np.argsort(value, kind="stable")
    gone = np.zeros(value.size, bool)
    gone[order[np.cumsum(sizes[layer[order]]) <= share * budget]] = True
    free = (sizes[layer] * gone).sum()
    counts = np.array(units, float) - np.bincount(layer, gone, len(units))
    kept = np.split(~gone, np.cumsum(units)[:-1])
    candidates, where = [], []
    for i, (weight, gradient) in enumerate(zip(layers, growth, strict=True)):
        open_growth = gradient.copy()
        index, stays = np.asarray(weight.index), kept[i].reshape(weight.index.shape)
        group = np.broadcast_to(np.arange(len(index))[:, None], index.shape)
        open_growth[group[stays], index[stays]] = -1
        candidates.append(open_growth[open_growth >= 0])
        where.append(np.full(candidates[-1].size, i))
    value, layer = np.concatenate(candidates), np.concatenate(where)
    order = np.argsort(-value, kind="stable")
    taken = order[np.cumsum(sizes[layer[order]]) <= free]
    counts += np.bincount(layer[taken], minlength=len(units))
    return _whole(layers, counts, budget)


def _whole(layers: Sequence[SparseWeight], counts: np.ndarray, budget: int) -> list[int]:
    """Whole units for each group, the largest remainders rounded up while the budget lasts."""
    groups = np.array([len(weight.index) for weight in layers])
    most = np.array([weight.candidates for weight in layers])
    exact = np.clip(counts / groups, 1, most)
    whole = np.floor(exact).astype(int)
    cost = groups * np.array([weight.mean.shape[2] for weight in layers])
    for i in np.argsort(whole - exact, kind="stable"):
        if whole[i] < min(exact[i], most[i]) and (whole * cost).sum() + cost[i] <= budget:
            whole[i] += 1
    while (whole * cost).sum() > budget and (whole > 1).any():  # where one was below a unit
        whole[np.argmax(np.where(whole > 1, whole - counts / groups, -np.inf))] -= 1
    return [int(k) for k in whole]


def _resized(
    weight: SparseWeight, scores: np.ndarray, growth: np.ndarray, count: int
) -> SparseWeight:
    """The weight with `count` units in each group."""
    index, mean, scale = (np.asarray(a) for a in (weight.index, weight.mean, weight.scale))
    keep = min(count, index.shape[1])
    slots = np.sort(np.argsort(-scores, axis=1, kind="stable")[:, :keep], axis=1)
    index, mean, scale = (_taken(array, slots) for array in (index, mean, scale))
    if count > keep:
        open_growth = growth.copy()
        np.put_along_axis(open_growth, index, -1, axis=1)
        new = np.argsort(-open_growth, axis=1, kind="stable")[:, : count - keep]
        index = np.concatenate([index, new], 1)
        shape = (len(index), count - keep, mean.shape[2])
        fresh = np.asarray(geometric_scale(weight))
        mean = np.concatenate([mean, np.zeros(shape, mean.dtype)], 1)
        scale = np.concatenate([scale, np.broadcast_to(fresh, shape)], 1)
    order = np.argsort(index, axis=1)
    index, mean, scale = (_taken(array, order) for array in (index, mean, scale))
    index = jnp.asarray(index, jnp.int32)
    return weight.replaced(mean=jnp.asarray(mean), scale=jnp.asarray(scale), index=index)


def _taken(array: np.ndarray, slots: np.ndarray) -> np.ndarray:
    """The units of each group at some of its slots."""
    at = slots.reshape(*slots.shape, *(1,) * (array.ndim - 2))
    return np.take_along_axis(array, at, 1)
