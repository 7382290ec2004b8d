"""Filters and adjoint smoothers as loops over a series, or over parts of it side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from . import _algebra as alg, _steps as steps
from ._algebra import Matrix, Vector
from ._spaces import AbstractStateSpace
from ._steps import Adjoint, Element, Future, Moments, Series, Smoothed

BLOCK = 100_000  # observations, whose arrays fit into the cache


class Backward(NamedTuple):
    """What the backward pass finds.

    Attributes:
        records: derivatives of the log density in what was observed, the fields of `Series` from
            `y` on.
        space: derivative of the log density in the parameters of the space.
        time: in the times before each step.
        step: in the steps.
        first: in the first state of each lane.
    """

    records: tuple[Any, ...]
    space: Any
    time: Any
    step: Any
    first: Adjoint


def start(space: AbstractStateSpace, series: Series) -> Moments:
    """The prior law of the state at the first observation of a series."""
    time = series.time[0]
    d = space.size
    return Moments((0,) * d, space.marginal(time))


def forward(
    space: AbstractStateSpace, series: Series, state: Moments, precise: bool
) -> tuple[Moments, Any, Any]:
    """The filter, along the leading axis of a series.

    Args:
        space: the law of the state.
        series: arrays `(n,)`, or `(n, lanes)`.
        state: before the first step.
        precise: see `predict`.

    Returns:
        The last state, the log density, and states before each step.
    """
    like = series.step[0]

    def step(carry: Any, now: Series) -> Any:
        after, determinant = _filtered(space, carry, now, precise)
        return after, (carry[0], determinant)

    first = (_flat(state, like), jnp.zeros_like(like))
    (last, total), (kept, determinants) = jax.lax.scan(step, first, series)
    # Logarithms of all steps at once take a fraction of their time inside of the loop.
    total = total + steps.log_factors(series, determinants)
    return Moments(last[0], alg.unpacked(last[1])), total, kept


def density(space: AbstractStateSpace, series: Series, state: Moments, precise: bool) -> Any:
    """The log density of a series `(n,)`, block by block.

    Transitions of a block are taken at once, before its loop, and logarithms after it; all that a
    block needs stays in the cache.

    Args:
        space: the law of the state.
        series: arrays `(n,)`.
        state: before the first step.
        precise: see `predict`.
    """
    like = series.step[0]
    whole, rest = divmod(len(series.step), BLOCK)
    constant = eqx.filter(space.transition(series.step[:1]), _has_lanes, inverse=True)

    def step(carry: Any, inputs: Any) -> Any:
        now, changing = inputs
        return _filtered(space, carry, now, precise, eqx.combine(changing, constant))

    def block(carry: Any, begin: Any, length: int) -> Any:
        now = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, begin, length), series)
        changing = eqx.filter(space.transition(now.step), _has_lanes)
        (state, total), determinants = jax.lax.scan(step, carry, (now, changing))
        return state, total + steps.log_factors(now, determinants)

    def next_block(carry: Any, i: Any) -> Any:
        return block(carry, i * BLOCK, BLOCK), None

    carry = (_flat(state, like), jnp.zeros_like(like))
    if whole:
        carry, _ = jax.lax.scan(next_block, carry, jnp.arange(whole))
    if rest:
        carry = block(carry, whole * BLOCK, rest)
    return carry[1]


def _filtered(
    space: AbstractStateSpace,
    carry: Any,
    now: Series,
    precise: bool,
    transition: Matrix | None = None,
) -> tuple[Any, Any]:
    """A filter step: state and log density after it, and the determinant that the latter lacks."""
    (mean, cov), total = carry
    state = Moments(mean, alg.unpacked(cov))
    ahead = steps.predict(space, state, now.time, now.step, precise, transition)
    after, found = steps.observe(space.readout, ahead, now, precise)
    return (_flat(after, total), total + found.exponent), found.determinant


def backward(
    space: AbstractStateSpace, series: Series, kept: Any, last: Adjoint, precise: bool
) -> Backward:
    """The adjoint smoother and the gradient, along the leading axis of a series.

    Args:
        space: the law of the state.
        series: arrays `(n,)`, or `(n, lanes)`.
        kept: states before each step, of `forward`.
        last: derivatives in the state after the last observation.
        precise: see `predict`.
    """
    h, like = space.readout, series.step[0]
    lanes = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, like.shape), space)
    zero = jax.tree.map(jnp.zeros_like, lanes)

    def step(carry: Any, inputs: Any) -> Any:
        (slope, curvature), total = carry
        now, (mean, cov) = inputs
        earlier = Moments(mean, alg.unpacked(cov))
        later = Adjoint(slope, alg.unpacked(curvature))
        state = steps.predict(space, earlier, now.time, now.step, precise)
        adjoint, smoothed = steps.adjoint_step(h, state, now, later)
        in_space, in_time, in_step = steps.parameter_gradient(lanes, earlier, adjoint, now, precise)
        total = jax.tree.map(jnp.add, total, in_space)
        passed = steps.back(space, adjoint, now.step)
        in_records = steps.record_gradient(h, state, now, adjoint, smoothed)
        return (_flat(passed, like), total), (in_records, in_time, in_step)

    first = (_flat(last, like), zero)
    (passed, total), (in_records, in_time, in_step) = jax.lax.scan(
        step, first, (series, kept), reverse=True
    )
    total = jax.tree.map(jnp.sum, total)
    adjoint = Adjoint(passed[0], alg.unpacked(passed[1]))
    return Backward(in_records, total, in_time, in_step, adjoint)


def smooth(
    space: AbstractStateSpace,
    series: Series,
    kept: Any,
    last: Adjoint,
    readout: Vector,
    precise: bool,
) -> tuple[Any, Any, Smoothed]:
    """Mean and variance of some combination of the states, given all observations.

    Args:
        space: the law of the state.
        series: arrays `(n,)`, or `(n, lanes)`.
        kept: states before each step, of `forward`.
        last: derivatives in the state after the last observation.
        readout: the combination, numbers.
        precise: see `predict`.

    Returns:
        Arrays of the shape of the series, and derivatives in each observation.
    """
    h, like = space.readout, series.step[0]

    def step(later: Any, inputs: Any) -> Any:
        now, (mean, cov) = inputs
        earlier = Moments(mean, alg.unpacked(cov))
        later = Adjoint(later[0], alg.unpacked(later[1]))
        state = steps.predict(space, earlier, now.time, now.step, precise)
        adjoint, smoothed = steps.adjoint_step(h, state, now, later)
        mean, variance = steps.smoothed_moments(readout, state, adjoint)
        return _flat(steps.back(space, adjoint, now.step), like), (mean, variance, smoothed)

    return jax.lax.scan(step, _flat(last, like), (series, kept), reverse=True)[1]


def elements(space: AbstractStateSpace, series: Series, precise: bool) -> Element:
    """Each lane of a series `(n, lanes)` as a function of the state before it."""
    like = series.step[0]

    def step(so_far: Any, now: Series) -> Any:
        stretch, determinant = steps.extend(space, _element(so_far), now, precise)
        return alg.filled(_packed(stretch), like.shape, like.dtype), determinant

    first = alg.filled(_packed(steps.empty(space.size)), like.shape, like.dtype)
    last, determinants = jax.lax.scan(step, first, series)
    total = last.log_density + steps.log_factors(series, determinants)
    return _element(last._replace(log_density=total))


def starts(state: Moments, stretches: Element, definite: bool) -> tuple[Moments, Any]:
    """States before each stretch of a list, leading axis, and the log density of all."""
    like = stretches.log_density[0]

    def step(carry: Any, stretch: Any) -> Any:
        state, total = carry
        state = Moments(state[0], alg.unpacked(state[1]))
        after, density = steps.through(state, _element(stretch), definite)
        return (_flat(after, like), total + density), _flat(state, like)

    first = (_flat(state, like), jnp.zeros_like(like))
    (_, total), kept = jax.lax.scan(step, first, _packed(stretches))
    return Moments(kept[0], alg.unpacked(kept[1])), total


def futures(stretches: Element) -> Future:
    """What comes after each stretch says about the state at its end."""
    like = stretches.log_density[0]
    d = len(stretches.mean)

    def step(later: Any, stretch: Any) -> Any:
        found = steps.before(_element(stretch), Future(later[0], alg.unpacked(later[1])))
        return _flat(found, like), later

    none = _flat(Future((0,) * d, alg.zeros(d)), like)
    _, kept = jax.lax.scan(step, none, _packed(stretches), reverse=True)
    return Future(kept[0], alg.unpacked(kept[1]))


def _flat(pair: Any, like: Any) -> Any:
    """A vector and a symmetric matrix as loops carry them."""
    vector, matrix = pair
    return alg.filled((tuple(vector), alg.packed(matrix)), like.shape, like.dtype)


def _has_lanes(entry: Any) -> bool:
    return jnp.ndim(entry) > 0


def _packed(element: Element) -> Element:
    """The same with the lower triangles of symmetric matrices."""
    future = Future(element.future.shift, alg.packed(element.future.precision))
    cov = alg.packed(element.cov)
    return Element(element.matrix, element.mean, cov, future, element.log_density)


def _element(flat: Any) -> Element:
    shift, precision = flat[3]
    future = Future(shift, alg.unpacked(precision))
    return Element(flat[0], flat[1], alg.unpacked(flat[2]), future, flat[4])
