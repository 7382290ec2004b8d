"""What is asked of a process of time, whichever way its matrices are kept."""

from __future__ import annotations

from typing import Any

import jax

from . import _arrays as arrays, _engine as engine, _paths as paths, _steady as steady
from ._backend import MOST_STATES, Plan
from ._spaces import AbstractStateSpace
from ._steps import Series, Smoothed


def outputs(readout: Any) -> int | None:
    """The number of outputs, None of one that is no vector; readouts of one may change in time."""
    return None if readout is None or readout.ndim == 3 else len(readout)


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
    if plan.arrays:
        return arrays.smooth(plan, space, series, wanted, readout)
    (one,) = wanted
    # Numbers that are known are kept as such, so that zeros cost nothing.
    row = tuple(one) if isinstance(one, jax.Array) else tuple(map(_number, one))
    mean, variance, found = engine.smooth(plan, space, series, row)
    return mean[:, None], variance[:, None], found


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
