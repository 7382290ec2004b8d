"""The log density of a series by filters, with the adjoint smoother as its derivative.

Matrices of small states are written out entry by entry, see `_algebra`.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import _algebra as alg, _passes as passes, _steps as steps
from ._backend import Plan
from ._passes import Backward
from ._slopes import with_slopes
from ._spaces import AbstractStateSpace
from ._steps import Adjoint, Series, Smoothed


class Filtered(NamedTuple):
    """What the backward pass starts from.

    Attributes:
        series: arrays `(steps, lanes)`, or `(n,)` with one lane.
        kept: states before each step.
        last: derivatives in the states after the last step.
    """

    series: Series
    kept: Any
    last: Adjoint


def _value(plan: Plan, space: AbstractStateSpace, series: Series) -> jax.Array:
    """The log density of what was observed, scalar.

    Its derivatives are exact and come from one pass backward, in all parameters of the space, the
    times, the observations and their noise, or factors; higher orders are those of that pass.

    Args:
        plan: how to go about it.
        space: law of the state, whose arrays are scalars.
        series: arrays of shape `(n,)`.
    """
    in_parts = functools.partial(_in_parts, plan)
    if plan.lanes == 1:
        return _in_turn(plan, space, series)
    if not plan.brief:
        return in_parts(space, series)
    # Several at once would make the body of the loop longer.
    alone = jax.custom_batching.custom_vmap(functools.partial(_in_turn, plan))

    @alone.def_vmap
    def together(size: int, batched: Any, *args: Any) -> tuple[jax.Array, bool]:
        axes = jax.tree.map(lambda several: 0 if several else None, tuple(batched))
        return jax.vmap(in_parts, axes)(*args), True

    return alone(space, series)


def _in_turn(plan: Plan, space: AbstractStateSpace, series: Series) -> jax.Array:
    return passes.density(space, series, passes.start(space, series), plan.precise)


def _in_parts(plan: Plan, space: AbstractStateSpace, series: Series) -> jax.Array:
    stretches = passes.elements(space, side_by_side(series, plan.lanes), plan.precise)
    return passes.starts(passes.start(space, series), stretches, series.scale is None)[1]


def filtered(plan: Plan, space: AbstractStateSpace, series: Series) -> tuple[jax.Array, Filtered]:
    """The log density, and what the backward pass needs."""
    state = passes.start(space, series)
    if plan.lanes == 1:
        _, total, kept = passes.forward(space, series, state, plan.precise)
        d = space.size
        return total, Filtered(series, kept, Adjoint((0,) * d, alg.zeros(d)))
    lanes = side_by_side(series, plan.lanes)
    stretches = passes.elements(space, lanes, plan.precise)
    begins, total = passes.starts(state, stretches, series.scale is None)
    ends, _, kept = passes.forward(space, lanes, begins, plan.precise)
    return total, Filtered(lanes, kept, steps.seen_from(ends, passes.futures(stretches)))


def smooth(
    plan: Plan, space: AbstractStateSpace, series: Series, readout: Any
) -> tuple[Any, Any, Smoothed]:
    """Mean and variance of a combination of the states given all observations, see `passes`."""
    _, found = filtered(plan, space, series)
    arrays = passes.smooth(space, found.series, found.kept, found.last, readout, plan.precise)
    return jax.tree.map(lambda array: one_after_another(array, len(series.step)), arrays)


def side_by_side(series: Series, lanes: int) -> Series:
    """The series cut into parts, which are the columns of arrays `(steps, lanes)`."""
    n = len(series.step)
    length = -(-n // lanes)
    end = series.time[-1] + series.step[-1]
    fill = Series(end, 0.0, 0.0, 1.0, 0.0, 0.0)

    def cut(array: jax.Array, value: Any) -> jax.Array:
        rest = jnp.full(length * lanes - n, value, array.dtype)
        return jnp.concatenate([array, rest]).reshape(lanes, length).T

    pairs = zip(series, fill, strict=True)
    return Series(*(None if array is None else cut(array, value) for array, value in pairs))


def one_after_another(array: jax.Array, n: int) -> jax.Array:
    """The inverse of `side_by_side` for one array, `(n,)` or `(steps, lanes)`."""
    return array if array.ndim == 1 else array.T.reshape(-1)[:n]


def _with_slopes(
    plan: Plan, space: AbstractStateSpace, series: Series
) -> tuple[jax.Array, tuple[Any, Series]]:
    total, found = filtered(plan, space, series)
    n = len(series.step)
    back: Backward = passes.backward(space, found.series, found.kept, found.last, plan.precise)
    arrays = (back.time, back.step, *back.records)
    in_records = Series(
        *(None if array is None else one_after_another(array, n) for array in arrays)
    )
    in_start, in_time = _start_gradient(space, series, back.first)
    in_space = jax.tree.map(jnp.add, back.space, in_start)
    in_records = in_records._replace(time=in_records.time.at[0].add(in_time))
    return total, (in_space, in_records)


log_density = with_slopes(_value, _with_slopes)


def _start_gradient(space: AbstractStateSpace, series: Series, first: Adjoint) -> tuple[Any, Any]:
    """Derivatives through the prior law of the first state."""
    cotangent = steps.covariance_cotangent(_of_lane(first, 0))

    def packed(space: AbstractStateSpace, time: jax.Array) -> Any:
        state = passes.start(space, series._replace(time=time[None]))
        return alg.filled(alg.packed(state.cov), (), time.dtype)

    _, pull = jax.vjp(packed, space, series.time[0])
    return pull(alg.filled(cotangent, (), series.time.dtype))


def _of_lane(tree: Any, lane: int) -> Any:
    return jax.tree.map(lambda leaf: leaf[lane] if jnp.ndim(leaf) else leaf, tree)
