"""The log density of a series by the Kalman filter, with the adjoint smoother as its derivative."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _adjoint_steps as adjoint_steps, _passes as passes, _square_root as square_root
from ._backend import Plan
from ._derivatives import with_derivatives
from ._dynamics import AbstractDynamics, in_order, SpaceDynamics
from ._steps import Adjoint, Moments, Observations, Smoothed


class Filtered(NamedTuple):
    """Output of the forward pass, from which the backward pass starts, cut into lanes.

    Attributes:
        dynamics: of the states.
        observations: that were filtered.
        kept: states before each step, packed.
        ends: states after the last step.
        last: adjoint of those.
    """

    dynamics: AbstractDynamics
    observations: Observations
    kept: Any
    ends: Moments
    last: Adjoint


def _value(plan: Plan, dynamics: AbstractDynamics, observations: Observations) -> jax.Array:
    """The log density of what was observed, scalar.

    Its derivatives are exact and come from one pass backward, in all parameters of the dynamics and
    the observations; higher orders are those of that pass.

    Args:
        plan: which backend.
        dynamics: of the states.
        observations: arrays of shape `(n,)`, or `(n, p)`.
    """
    if plan.lanes == 1:
        return _sequential(plan, dynamics, observations)
    chunked = functools.partial(_chunked, plan)
    if not plan.brief:
        return chunked(dynamics, observations)
    # Several at once would make the body of the loop longer.
    alone = jax.custom_batching.custom_vmap(functools.partial(_sequential, plan))

    @alone.def_vmap
    def together(size: int, batched: Any, *args: Any) -> tuple[jax.Array, bool]:
        axes = jax.tree.map(lambda several: 0 if several else None, tuple(batched))
        return jax.vmap(chunked, axes)(*args), True

    return alone(dynamics, observations)


def _sequential(plan: Plan, dynamics: AbstractDynamics, observations: Observations) -> jax.Array:
    if isinstance(dynamics, SpaceDynamics):
        return passes.log_density_in_blocks(dynamics, observations, plan.precise)
    run = square_root.forward if plan.roots else passes.forward
    return run(dynamics, observations, dynamics.start(), plan.precise, keep=False)[1]


def _chunked(plan: Plan, dynamics: AbstractDynamics, observations: Observations) -> jax.Array:
    definite, start = observations.site_precision is None, dynamics.start()
    lanes = dynamics.in_lanes(plan.lanes)
    cut = passes.observations_in_lanes(observations, plan.lanes)
    parts = passes.elements(lanes, cut, plan.precise)
    return passes.states_before(lanes.algebra, start, parts, plan.associative, definite)[1]


def kalman_filter(
    plan: Plan, dynamics: AbstractDynamics, observations: Observations
) -> tuple[Float[Array, ""], Filtered]:
    """The log density, and what the backward pass needs."""
    alg, start, size = dynamics.algebra, dynamics.start(), dynamics.size
    if plan.lanes == 1:
        run = square_root.forward if plan.roots else passes.forward
        ends, total, kept = run(dynamics, observations, start, plan.precise, keep=True)
        nothing = alg.zero_vector(size, dynamics.like), alg.zero_matrix(size, dynamics.like)
        return total, Filtered(dynamics, observations, kept, ends, Adjoint(*nothing))
    definite = observations.site_precision is None
    dynamics = dynamics.in_lanes(plan.lanes)
    observations = passes.observations_in_lanes(observations, plan.lanes)
    parts = passes.elements(dynamics, observations, plan.precise)
    begins, total = passes.states_before(alg, start, parts, plan.associative, definite)
    ends, _, kept = passes.forward(dynamics, observations, begins, plan.precise)
    later = passes.information_after(alg, size, parts, plan.associative)
    last = adjoint_steps.adjoint_of(alg, ends, later)
    return total, Filtered(dynamics, observations, kept, ends, last)


def smooth(
    plan: Plan, dynamics: AbstractDynamics, observations: Observations, rows: Any
) -> tuple[Float[Array, "n q"], Float[Array, "n q"], Smoothed]:
    """Means and variances of combinations of the states given all observations.

    Args:
        plan: which backend.
        dynamics: of the states.
        observations: arrays of shape `(n,)`, or `(n, p)`.
        rows: the combinations, `(q, d)`.

    Returns:
        Shape `(n, q)` both, and derivatives in each observation, of their shape.
    """
    alg, n = dynamics.algebra, len(observations.y)
    _, filtered = kalman_filter(plan, dynamics, observations)
    like = filtered.dynamics.like

    def moments(moves: Any, earlier: Any, state: Any, adjoint: Any, smoothed: Any) -> Any:
        query = functools.partial(adjoint_steps.smoothed_moments, alg, state=state, adjoint=adjoint)
        return (), alg.over_rows(query, rows, like)

    back = _backward(plan, filtered, moments)
    kept = jax.tree.map(lambda a: in_order(a, n, plan.lanes), (back.kept, back.smoothed))
    (mean, variance), smoothed = kept
    return mean, variance, smoothed


def filtered_states(
    plan: Plan, dynamics: AbstractDynamics, observations: Observations
) -> tuple[Moments, Float[Array, ""]]:
    """States given all observations up to each time, means `(n, d)`, and the log density."""
    alg, n = dynamics.algebra, len(observations.y)
    total, filtered = kalman_filter(plan, dynamics, observations)
    like = filtered.dynamics.like
    per_step = jnp.broadcast_to(like, (len(jax.tree.leaves(filtered.kept)[0]), *like.shape))
    kept = jax.vmap(lambda state, like: _stacked(alg, state, like))(
        Moments(filtered.kept[0], filtered.kept[1]), per_step
    )
    ends = _stacked(alg, Moments(filtered.ends.mean, alg.packed(filtered.ends.cov)), like)

    def after(before: jax.Array, end: jax.Array) -> jax.Array:
        end = end if plan.lanes == 1 else end[..., -1]
        ordered = in_order(before, before.shape[0] * plan.lanes, plan.lanes)
        return jnp.concatenate([ordered[1:], end[None]])[:n]

    return jax.tree.map(after, kept, ends), total


def smoothed_states(
    plan: Plan, dynamics: AbstractDynamics, observations: Observations
) -> tuple[Moments, Float[Array, ""]]:
    """States given all observations, means `(n, d)`, and the log density."""
    alg, n = dynamics.algebra, len(observations.y)
    total, filtered = kalman_filter(plan, dynamics, observations)
    like = filtered.dynamics.like

    def whole(moves: Any, earlier: Any, state: Any, adjoint: Any, smoothed: Any) -> Any:
        mean, cov = adjoint_steps.smoothed_state(alg, state, adjoint)
        return (), Moments(alg.stacked(mean, like), alg.stacked(cov, like))

    back = _backward(plan, filtered, whole)
    return jax.tree.map(lambda array: in_order(array, n, plan.lanes), back.kept), total


def _stacked(alg: Any, state: Moments, like: jax.Array) -> Moments:
    """A packed state as two arrays."""
    return Moments(alg.stacked(state.mean, like), alg.stacked(alg.unpacked(state.cov), like))


def _backward(plan: Plan, filtered: Filtered, visit: Any, **options: Any) -> passes.Backward:
    dynamics, observations, kept, _, last = filtered
    return passes.backward(dynamics, observations, kept, last, plan.precise, visit, **options)


def _derivatives(
    plan: Plan, dynamics: AbstractDynamics, observations: Observations
) -> tuple[jax.Array, tuple[AbstractDynamics, Observations]]:
    total, filtered = kalman_filter(plan, dynamics, observations)
    n, wide = len(observations.y), filtered.dynamics.with_lanes()

    def gradient(moves: Any, earlier: Any, state: Any, adjoint: Any, smoothed: Any) -> Any:
        return wide.gradient(moves, earlier, adjoint)

    start = wide.gradient_start()
    back = _backward(plan, filtered, gradient, summed=start, gradient=True)
    kept, in_observations = jax.tree.map(
        lambda array: in_order(array, n, plan.lanes), (back.kept, back.observations)
    )
    readout = observations.readout
    if readout is not None and readout.ndim == 2:
        in_observations = in_observations._replace(readout=jnp.sum(in_observations.readout, axis=0))
    return total, (dynamics.whole_gradient(back.summed, kept, back.first), in_observations)


log_density = with_derivatives(_value, _derivatives)
