"""Passes over a series, or over parts of it side by side: filter, smoother, filter elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from . import _adjoint_steps as adjoint_steps, _steps as steps
from ._algebra import AbstractAlgebra
from ._dynamics import AbstractDynamics, in_lanes, SpaceDynamics
from ._steps import Adjoint, FilterElement, Information, Moments, Observations, Smoothed

BLOCK = 100_000  # observations, whose arrays fit into the cache

# From the inputs of a step, the state before it, the predicted one, its adjoint, and derivatives
# in the observation: something to sum over steps, and something to keep of each.
Visit = Callable[[Any, Moments, Moments, Adjoint, Smoothed], tuple[Any, Any]]


class Backward(NamedTuple):
    """Output of the backward pass.

    Attributes:
        summed: over all steps, by what was asked.
        kept: of each step, by what was asked.
        smoothed: derivatives in each observation.
        observations: derivatives in the fields of each observation, if asked for.
        first: adjoint of the state before the first step.
    """

    summed: Any
    kept: Any
    smoothed: Smoothed
    observations: Any
    first: Adjoint


def observations_in_lanes(observations: Observations, lanes: int) -> Observations:
    """Observations cut into parts side by side, as a last axis."""
    y, noise_var, observed, site_precision, readout = observations
    if readout is not None:
        varies = _varies(observations)
        readout = in_lanes(readout, lanes, 0.0) if varies else readout[..., None]
    return Observations(
        in_lanes(y, lanes, 0.0),
        in_lanes(noise_var, lanes, 1.0),
        in_lanes(observed, lanes, 0.0),
        None if site_precision is None else in_lanes(site_precision, lanes, 0.0),
        readout,
    )


def forward(
    dynamics: AbstractDynamics,
    observations: Observations,
    state: Moments,
    precise: bool,
    keep: bool = True,
) -> tuple[Moments, Any, Any]:
    """The Kalman filter, along the leading axis of a series.

    Args:
        dynamics: of the states.
        observations: arrays with a leading axis of steps, and lanes last.
        state: before the first step.
        precise: see `_steps.update`.
        keep: whether states before each step are returned too, packed.

    Returns:
        The last state, the log density, and states before each step.
    """
    alg, like = dynamics.algebra, dynamics.like

    def step(carry: Any, inputs: Any) -> Any:
        moves, now = inputs
        transition = dynamics.transition(moves)
        after, determinant = _filter_step(dynamics, observations, transition, carry, now, precise)
        return after, (carry[0] if keep else None, determinant)

    first = (_packed(alg, state, like), jnp.zeros_like(like))
    inputs = (dynamics.inputs, _moving(observations))
    (last, total), (kept, determinants) = jax.lax.scan(step, first, inputs)
    # Logarithms of all steps at once take a fraction of their time inside of the loop.
    total = total + steps.log_factors(observations, determinants, like.ndim)
    return _unpacked(alg, last), total, kept


def log_density_in_blocks(
    dynamics: SpaceDynamics, observations: Observations, precise: bool
) -> Any:
    """The log density of a series without lanes, by the Kalman filter, block by block.

    Transitions of a block are taken at once, before its loop, and logarithms after it; all that a
    block needs stays in the cache.
    """
    alg, like, space = dynamics.algebra, dynamics.like, dynamics.space
    whole, rest = divmod(len(dynamics.step), BLOCK)
    constant = eqx.filter(space.transition(dynamics.step[:1]), _has_lanes, inverse=True)
    series = (dynamics.inputs, observations)

    def step(carry: Any, inputs: Any) -> Any:
        (moves, now), changing = inputs
        transition = dynamics.transition(moves, eqx.combine(changing, constant))
        return _filter_step(dynamics, observations, transition, carry, now, precise)

    def block(carry: Any, begin: Any, length: int) -> Any:
        now = jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, begin, length), series)
        changing = eqx.filter(space.transition(now[0][1]), _has_lanes)
        (state, total), determinants = jax.lax.scan(step, carry, (now, changing))
        return state, total + steps.log_factors(now[1], determinants, 0)

    def next_block(carry: Any, i: Any) -> Any:
        return block(carry, i * BLOCK, BLOCK), None

    carry = (_packed(alg, dynamics.start(), like), jnp.zeros_like(like))
    if whole:
        carry, _ = jax.lax.scan(next_block, carry, jnp.arange(whole))
    if rest:
        carry = block(carry, whole * BLOCK, rest)
    return carry[1]


def _filter_step(
    dynamics: AbstractDynamics,
    observations: Observations,
    transition: steps.Transition,
    carry: Any,
    now: Observations,
    precise: bool,
) -> tuple[Any, Any]:
    """A filter step: state and log density after it, and the determinant that the latter lacks."""
    alg, (state, total) = dynamics.algebra, carry
    state = steps.predict(alg, transition, _unpacked(alg, state))

    def update(carry: Any, one: Observations) -> tuple[Any, Any]:
        state, total = carry
        state, made = steps.update(alg, _readout(dynamics, one), state, one, precise)
        return (state, total + made.exponent), made.determinant

    now = _with_readout(now, observations)
    (state, total), determinant = alg.over_outputs(update, (state, total), now)
    return (_packed(alg, state, total), total), determinant


def backward(
    dynamics: AbstractDynamics,
    observations: Observations,
    kept: Any,
    last: Adjoint,
    precise: bool,
    visit: Visit,
    summed: Any = (),
    gradient: bool = False,
) -> Backward:
    """The Bryson-Frazier smoother, along the leading axis of a series.

    Args:
        dynamics: of the states.
        observations: see `forward`.
        kept: states before each step, of `forward`.
        last: adjoint of the state after the last observation.
        precise: see `_steps.update`.
        visit: what to make of each step.
        summed: where its sums begin.
        gradient: whether derivatives in the fields of observations are wanted.
    """
    alg, like = dynamics.algebra, dynamics.like

    def step(carry: Any, inputs: Any) -> Any:
        later, total = carry
        moves, now, earlier = inputs
        transition, earlier = dynamics.transition(moves), _unpacked(alg, earlier)
        later = Adjoint(*_unpacked(alg, later))
        state = steps.predict(alg, transition, earlier)
        now = _with_readout(now, observations)
        adjoint, (smoothed, in_observations) = _adjoint_outputs(
            dynamics, now, state, later, precise, gradient
        )
        added, each = visit(moves, earlier, state, adjoint, smoothed)
        total = jax.tree.map(jnp.add, total, added)
        before = adjoint_steps.adjoint_predict(alg, transition, adjoint)
        return (_packed(alg, before, like), total), (each, smoothed, in_observations)

    inputs = (dynamics.inputs, _moving(observations), kept)
    start = (_packed(alg, last, like), summed)
    (first, summed), made = jax.lax.scan(step, start, inputs, reverse=True)
    return Backward(summed, *made, Adjoint(*_unpacked(alg, first)))


def _adjoint_outputs(
    dynamics: AbstractDynamics,
    now: Observations,
    state: Moments,
    later: Adjoint,
    precise: bool,
    gradient: bool,
) -> tuple[Adjoint, Any]:
    """Back through all outputs of one time, each with the state that was predicted for it."""
    alg = dynamics.algebra

    def update(state: Moments, one: Observations) -> tuple[Moments, Moments]:
        return steps.update(alg, _readout(dynamics, one), state, one, precise)[0], state

    def back(later: Adjoint, inputs: Any) -> tuple[Adjoint, Any]:
        one, state = inputs
        h = _readout(dynamics, one)
        adjoint, smoothed = adjoint_steps.adjoint_update(alg, h, state, one, later)
        slopes = None
        if gradient:
            slopes = adjoint_steps.observation_gradient(
                alg, h, state, one, later, adjoint, smoothed
            )
        return adjoint, (smoothed, slopes)

    _, states = alg.over_outputs(update, state, now)
    return alg.over_outputs(back, later, (now, states), reverse=True)


def elements(
    dynamics: AbstractDynamics, observations: Observations, precise: bool
) -> FilterElement:
    """Each lane of a series as a filter element, packed."""
    alg, like = dynamics.algebra, dynamics.like

    def step(element: Any, inputs: Any) -> Any:
        moves, now = inputs
        transition = dynamics.transition(moves)
        element = steps.predict_element(alg, transition, _unpacked_element(alg, element))

        def update(element: FilterElement, one: Observations) -> tuple[FilterElement, Any]:
            return steps.update_element(alg, _readout(dynamics, one), element, one, precise)

        now = _with_readout(now, observations)
        element, determinant = alg.over_outputs(update, element, now)
        return _packed_element(alg, element, like), determinant

    first = _packed_element(alg, steps.empty_element(alg, dynamics.size, like), like)
    inputs = (dynamics.inputs, _moving(observations))
    last, determinants = jax.lax.scan(step, first, inputs)
    factors = steps.log_factors(observations, determinants, like.ndim)
    return last._replace(log_density=last.log_density + factors)


def states_before(
    alg: AbstractAlgebra, state: Moments, parts: Any, associative: bool, definite: bool
) -> tuple[Moments, Any]:
    """States before each part of a series, and the log density of all.

    Args:
        alg: the algebra.
        state: before the first part; for the associative scan it must be 0.
        parts: filter elements of the lanes, packed.
        associative: whether to combine them by a scan that takes a logarithmic number of steps.
        definite: see `AbstractAlgebra.condition_on_precision`.
    """
    listed = alg.lanes_first(parts)
    like = listed.log_density[0]
    if associative:
        both = jax.vmap(lambda first, second: steps.combine(alg, first, second, definite))
        scanned = jax.lax.associative_scan(both, listed)
        states = jax.tree.map(_shifted_later, Moments(scanned.mean, scanned.cov))
        return alg.lanes_last(states), scanned.log_density[-1]

    def step(carry: Any, part: Any) -> Any:
        state, total = carry
        element = _unpacked_element(alg, part)
        after, density, _ = steps.through(alg, _unpacked(alg, state), element, definite)
        return (_packed(alg, after, like), total + density), state

    first = (_packed(alg, state, like), jnp.zeros_like(like))
    (_, total), states = jax.lax.scan(step, first, listed)
    return _unpacked(alg, alg.lanes_last(states)), total


def information_after(
    alg: AbstractAlgebra, size: int, parts: Any, associative: bool
) -> Information:
    """Information about the state at the end of each part, from all after; see `states_before`."""
    listed = alg.lanes_first(parts)
    like = listed.log_density[0]
    if associative:
        both = jax.vmap(lambda later, earlier: steps.combine(alg, earlier, later))
        scanned = jax.lax.associative_scan(both, listed, reverse=True)
        return alg.lanes_last(jax.tree.map(_shifted_earlier, scanned.information))

    def step(later: Any, part: Any) -> Any:
        element = _unpacked_element(alg, part)
        before = adjoint_steps.information_before(alg, element, Information(*_unpacked(alg, later)))
        return _packed(alg, before, like), later

    nothing = alg.zero_vector(size, like), alg.zero_matrix(size, like)
    _, later = jax.lax.scan(step, _packed(alg, nothing, like), listed, reverse=True)
    return Information(*_unpacked(alg, alg.lanes_last(later)))


def _packed(alg: AbstractAlgebra, pair: Any, like: Any) -> Any:
    """A vector and a symmetric matrix as loops carry them."""
    vector, matrix = pair
    return alg.filled((vector, alg.packed(matrix)), like)


def _unpacked(alg: AbstractAlgebra, pair: Any) -> Moments:
    return Moments(pair[0], alg.unpacked(pair[1]))


def _packed_element(alg: AbstractAlgebra, element: FilterElement, like: Any) -> FilterElement:
    linear, precision = element.information
    information = Information(linear, alg.packed(precision))
    packed = element._replace(cov=alg.packed(element.cov), information=information)
    return alg.filled(packed, like)


def _unpacked_element(alg: AbstractAlgebra, packed: FilterElement) -> FilterElement:
    linear, precision = packed.information
    information = Information(linear, alg.unpacked(precision))
    return packed._replace(cov=alg.unpacked(packed.cov), information=information)


def _varies(observations: Observations) -> bool:
    """Whether the readout changes with time."""
    return observations.readout.ndim > observations.y.ndim


def _moving(observations: Observations) -> Observations:
    """What a loop over steps takes one by one."""
    if observations.readout is None or _varies(observations):
        return observations
    return observations._replace(readout=None)


def _with_readout(now: Observations, observations: Observations) -> Observations:
    return now._replace(readout=observations.readout) if now.readout is None else now


def _readout(dynamics: AbstractDynamics, one: Observations) -> Any:
    return dynamics.readout if one.readout is None else one.readout


def _has_lanes(entry: Any) -> bool:
    return jnp.ndim(entry) > 0


def _shifted_later(array: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros_like(array[:1]), array[:-1]])


def _shifted_earlier(array: jax.Array) -> jax.Array:
    return jnp.concatenate([array[1:], jnp.zeros_like(array[:1])])
