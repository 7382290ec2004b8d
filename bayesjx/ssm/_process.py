"""Densities, moments and draws of processes of time, whichever way matrices are kept.

Each query is one compiled program, which all series of one length share.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Float

from . import _engine as engine, _prior_sampling as sampling, _steady_state as steady_state
from ._backend import MOST_STATES, Plan
from ._dynamics import AbstractDynamics, block_dynamics, padded, SpaceDynamics, state_indices
from ._spaces import AbstractStateSpace
from ._steps import Moments, Observations, Smoothed


class Series(NamedTuple):
    """Sorted times and what was observed at them.

    Attributes:
        time: of the observation before this one, for the first its own, shape `(n,)`.
        step: time since then, not negative, shape `(n,)`.
        y: see `_steps.Observations`, as all others.
        noise_var: variances.
        observed: 1 where something was observed, else 0.
        site_precision: of factors in place of observations.
    """

    time: Float[Array, " n"]
    step: Float[Array, " n"]
    y: Float[Array, "n ..."]
    noise_var: Float[Array, "n ..."]
    observed: Float[Array, "n ..."]
    site_precision: Any = None


def outputs(readout: Any) -> int | None:
    """The number of outputs, None of one that is no vector; readouts of one may change in time."""
    return None if readout is None or readout.ndim == 3 else len(readout)


def _model(
    plan: Plan, space: AbstractStateSpace, series: Series, readout: Any
) -> tuple[AbstractDynamics, Observations]:
    """How the states move, and what was observed, as a plan has them."""
    time, step, *values = series
    if not plan.arrays:
        return SpaceDynamics(space, time, step, plan.precise), Observations(*values)
    rows = padded(space, [space.readout] if readout is None else readout).astype(step.dtype)
    values = [a if a is None or a.ndim == 2 else a[:, None] for a in values]
    return block_dynamics(space, time, step), Observations(*values, readout=rows)


@functools.partial(jax.jit, static_argnums=0)
def log_density(
    plan: Plan, space: AbstractStateSpace, series: Series, readout: Any = None
) -> Float[Array, ""]:
    """The log density of what was observed, scalar, with exact derivatives.

    Args:
        plan: which backend.
        space: whose arrays are scalars.
        series: observations, their noise and what was observed `(n,)`, or `(n, p)`.
        readout: of the outputs, `(p, d)`, or `(n, p, d)`; by default that of the space.
    """
    dynamics, observations = _model(plan, space, series, readout)
    if plan.steady:
        return steady_state.log_density(dynamics, observations)
    return engine.log_density(plan, dynamics, observations)


def smooth(
    plan: Plan, space: AbstractStateSpace, series: Series, rows: Any, readout: Any = None
) -> tuple[Float[Array, "n q"], Float[Array, "n q"], Smoothed]:
    """Means and variances `(n, q)` of combinations `(q, d)` of the states given all observations.

    Also derivatives in each observation, of their shape.
    """
    # Numbers that are known are kept as such, so that zeros cost nothing.
    if isinstance(rows, jax.Array):
        return _smooth(plan, None, space, series, rows, readout)
    known = tuple(tuple(map(_number, row)) for row in rows)
    return _smooth(plan, known, space, series, None, readout)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _smooth(plan: Plan, known: Any, space: Any, series: Series, rows: Any, readout: Any) -> Any:
    rows = known if rows is None else rows
    rows = padded(space, rows) if plan.arrays else rows
    dynamics, observations = _model(plan, space, series, readout)
    mean, variance, smoothed = engine.smooth(plan, dynamics, observations, rows)
    return mean, variance, jax.tree.map(lambda a: a.reshape(series.y.shape), smoothed)


@functools.partial(jax.jit, static_argnums=(0, 4))
def states(
    plan: Plan, space: AbstractStateSpace, series: Series, readout: Any, smoothed: bool
) -> tuple[Moments, Float[Array, ""]]:
    """Means `(n, d)` and covariances `(n, d, d)` of the states, and the log density.

    Given the observations up to each time, or all of them.
    """
    dynamics, observations = _model(plan, space, series, readout)
    query = engine.smoothed_states if smoothed else engine.filtered_states
    (mean, cov), total = query(plan, dynamics, observations)
    if plan.arrays:
        _, kept = state_indices(space)
        mean, cov = mean[:, kept], cov[:, kept[:, None], kept]
    return Moments(mean, cov), total


@functools.partial(jax.jit, static_argnums=4)
def prior_paths(
    key: jax.Array,
    space: AbstractStateSpace,
    before: Float[Array, " n"],
    steps: Float[Array, " n"],
    shape: tuple[int, ...] = (),
    readout: Any = None,
) -> Float[Array, "*shape n p"]:
    """Draws of the outputs at sorted times, `(*shape, n, p)`.

    Args:
        key: random key.
        space: the state space.
        before: time before each time, for the first its own, shape `(n,)`.
        steps: time since then, shape `(n,)`.
        shape: of the sample.
        readout: of the outputs, `(p, d)` or `(n, p, d)`, by default that of the space.
    """
    if readout is None and space.size <= MOST_STATES:
        return sampling.prior_paths(key, space, before, steps, shape)[..., None]
    rows = [space.readout] if readout is None else readout
    return sampling.prior_paths_of_outputs(key, space, before, steps, shape, rows)


def _number(h: Any) -> Any:
    return int(h) if h == int(h) else float(h)
