"""What is asked of a process of time, whichever way its matrices are kept.

Each question is one compiled program, which all series of one length share.
"""

from __future__ import annotations

import functools
from typing import Any

import jax

from . import _arrays as arrays, _engine as engine, _paths as paths, _steady as steady
from ._backend import MOST_STATES, Plan
from ._spaces import AbstractStateSpace
from ._steps import Series, Smoothed


def outputs(readout: Any) -> int | None:
    """The number of outputs, None of one that is no vector; readouts of one may change in time."""
    return None if readout is None or readout.ndim == 3 else len(readout)


@functools.partial(jax.jit, static_argnums=0)
def log_density(
    plan: Plan, space: AbstractStateSpace, series: Series, readout: Any = None
) -> jax.Array:
    """The log density of what was observed, scalar; see `_arrays.log_density`."""
    if plan.steady:
        return steady.log_density(space, series)
    if plan.arrays:
        return arrays.log_density(plan, space, series, readout)
    return engine.log_density(plan, space, series)


def smooth(
    plan: Plan, space: AbstractStateSpace, series: Series, wanted: Any, readout: Any = None
) -> tuple[jax.Array, jax.Array, Smoothed]:
    """Means and variances `(n, q)` of combinations `(q, d)` of the states, see `_arrays.smooth`."""
    # Numbers that are known are kept as such, so that zeros cost nothing.
    if isinstance(wanted, jax.Array):
        return _smooth(plan, None, space, series, wanted, readout)
    known = tuple(tuple(map(_number, row)) for row in wanted)
    return _smooth(plan, known, space, series, None, readout)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _smooth(plan: Plan, known: Any, space: Any, series: Series, wanted: Any, readout: Any) -> Any:
    rows = known if wanted is None else wanted
    if plan.arrays:
        return arrays.smooth(plan, space, series, rows, readout)
    (row,) = rows
    mean, variance, found = engine.smooth(plan, space, series, tuple(row))
    return mean[:, None], variance[:, None], found


@functools.partial(jax.jit, static_argnums=4)
def prior_paths(
    key: jax.Array,
    space: AbstractStateSpace,
    before: jax.Array,
    steps: jax.Array,
    shape: tuple[int, ...] = (),
    readout: Any = None,
) -> jax.Array:
    """Draws of the outputs at sorted times, `(*shape, n, p)`.

    Args:
        key: random key.
        space: law of the state.
        before: time before each time, for the first its own, shape `(n,)`.
        steps: time since then, shape `(n,)`.
        shape: of the sample.
        readout: of the outputs, `(p, d)` or `(n, p, d)`, by default that of the space.
    """
    if readout is None and space.size <= MOST_STATES:
        return paths.prior_paths(key, space, before, steps, shape)[..., None]
    return arrays.prior_paths(key, space, before, steps, shape, readout)


def _number(h: Any) -> Any:
    return int(h) if h == int(h) else float(h)
