"""State spaces and series as arrays, and filters on them."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from . import _algebra as alg, _array_passes as passes
from ._array_steps import Law, Records
from ._backend import Plan
from ._roots import of_blocks
from ._spaces import AbstractStateSpace
from ._steps import Series, Smoothed


def log_density(
    plan: Plan, space: AbstractStateSpace, series: Series, readout: Any = None
) -> jax.Array:
    """The log density of what was observed, scalar, with exact derivatives.

    Args:
        plan: how to go about it.
        space: law of the state, whose arrays are scalars.
        series: times and steps `(n,)`; observations, their noise and what was seen `(n,)`, or
            `(n, p)` for several outputs.
        readout: of the outputs, `(p, d)`, or `(n, p, d)`; by default that of the space.
    """
    return passes.log_density(plan, *as_arrays(space, series, readout))


def smooth(
    plan: Plan, space: AbstractStateSpace, series: Series, wanted: Any, readout: Any = None
) -> tuple[jax.Array, jax.Array, Smoothed]:
    """Mean and variance of combinations of the states given all observations.

    Args:
        plan: how to go about it.
        space: law of the state.
        series: see `log_density`.
        wanted: the combinations, `(q, d)`.
        readout: see `log_density`.

    Returns:
        Shape `(n, q)` both, and derivatives in each observation, of their shape.
    """
    n, lanes = len(series.step), plan.lanes
    _, found = passes.filtered(plan, *as_arrays(space, series, readout))
    back = passes.backward(plan, found, padded(space, wanted))
    (mean, variance), weight, precision = jax.tree.map(
        lambda array: passes.one_after_another(array, n, lanes),
        (back.smoothed, back.found.weight, back.found.precision),
    )
    flat = (lambda a: a[:, 0]) if series.y.ndim == 1 else (lambda a: a)
    return mean, variance, Smoothed(flat(weight), flat(precision))


def prior_paths(
    key: jax.Array,
    space: AbstractStateSpace,
    before: jax.Array,
    lengths: jax.Array,
    shape: tuple[int, ...],
    readout: Any = None,
) -> jax.Array:
    """Draws of the outputs at sorted times, `(*shape, n, p)`; see `_paths.prior_paths`."""
    n, dtype = len(lengths), lengths.dtype
    nothing = jnp.zeros(n, dtype)
    series = Series(before, lengths, nothing, nothing, nothing)
    law, records = as_arrays(space, series, readout)
    roots = jax.vmap(of_blocks)(law.noise)
    count, k = law.matrix.shape[1:3]
    draws = math.prod(shape)

    varying = records.readout if records.readout.ndim == 3 else None

    def step(states: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        matrix, root, key, now = inputs
        rows = records.readout if now is None else now
        noise = jax.random.normal(key, states.shape, dtype)
        both = jnp.concatenate([matrix, root], axis=2)
        states = jnp.matmul(both, jnp.concatenate([states, noise], axis=1), precision="highest")
        return states, rows @ states.reshape(count * k, draws)

    start = jnp.zeros((count, k, draws), dtype)
    inputs = (law.matrix, roots, jax.random.split(key, n), varying)
    path = jax.lax.scan(step, start, inputs)[1]
    return jnp.moveaxis(path, -1, 0).reshape(*shape, n, -1)


def as_arrays(
    space: AbstractStateSpace, series: Series, readout: Any = None
) -> tuple[Law, Records]:
    """Blocks of one size, of one or several independent processes each, and observations."""
    n, dtype = len(series.step), series.step.dtype
    count, k, places = packed([block.size for block in space.blocks])
    matrix = jnp.zeros((n, count, k, k), dtype)
    noise = jnp.zeros((n, count, k, k), dtype)
    for block, (which, first) in zip(space.blocks, places, strict=True):
        at = (slice(None), which, *2 * (slice(first, first + block.size),))
        matrix = matrix.at[at].set(alg.stacked(block.transition(series.step), (n,), dtype))
        added = alg.stacked(block.noise(series.time, series.step), (n,), dtype)
        prior = alg.stacked(block.marginal(series.time[:1]), (1,), dtype)
        noise = noise.at[at].set(added.at[:1].set(prior))
    records = [a if a is None or a.ndim == 2 else a[:, None] for a in series[2:]]
    rows = padded(space, [space.readout] if readout is None else readout).astype(dtype)
    return Law(matrix, noise), Records(rows, *records)


def padded(space: AbstractStateSpace, readout: Any) -> jax.Array:
    """Combinations of states, `(..., d)`, as they are for the blocks of `as_arrays`."""
    sizes = [block.size for block in space.blocks]
    count, k, places = packed(sizes)
    starts = [which * k + first for which, first in places]
    kept = np.concatenate([a + np.arange(size) for a, size in zip(starts, sizes, strict=True)])
    readout = jnp.asarray(readout)
    readout = readout if jnp.issubdtype(readout.dtype, jnp.inexact) else readout.astype(float)
    wide = jnp.zeros((*readout.shape[:-1], count * k), readout.dtype)
    return wide.at[..., kept].set(readout)


def packed(sizes: list[int]) -> tuple[int, int, list[tuple[int, int]]]:
    """Bins that hold blocks of these sizes: their number and size, and bin and place of each.

    First fit, the largest first, for the bin size that leaves the least room unused.
    """
    return min(map(functools.partial(_first_fit, sizes), _sizes(sizes)), key=lambda p: p[0] * p[1])


def _sizes(sizes: list[int]) -> range:
    return range(max(sizes), 2 * max(sizes) + 1)


def _first_fit(sizes: list[int], k: int) -> tuple[int, int, list[tuple[int, int]]]:
    filled: list[int] = []
    places = [(0, 0)] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        which = next((b for b, full in enumerate(filled) if full + sizes[i] <= k), len(filled))
        filled += [0] if which == len(filled) else []
        places[i] = (which, filled[which])
        filled[which] += sizes[i]
    return len(filled), k, places
