"""The log density of a regular series by the Kalman filter with its steady-state gain."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import _passes as passes, _steps as steps
from ._dense_algebra import DENSE
from ._dynamics import AbstractDynamics, in_order
from ._spaces import AbstractStateSpace
from ._steps import LOG_2PI, Moments, Observations, Transition

BURN_IN = 512  # observations that are filtered exactly
DOUBLINGS = 30
LEAST_PARTS = 16
SETTLED = 1e-2  # relative difference of predicted variances after the burn-in


def log_density(dynamics: AbstractDynamics, observations: Observations) -> jax.Array:
    r"""The log density of equally spaced observations with one noise, nearly exact, scalar.

    The first 512 are filtered as usual. Then the covariance is held at its limit, the solution of
    Riccati's equation, computed by doubling; what is left is a recurrence of means with one matrix,
    $O(n d^2)$. Its error decays like the memory of the filter to the power of 512. NaN where the
    predicted variance of the function is then not within 1 % of its limit.

    References:
        Anderson and Moore (1979), "Optimal filtering", sections 4.4 and 6.7.
    """
    n, readout = len(observations.y), observations.readout
    burn_in = min(BURN_IN, n)
    cut = lambda array: array[:burn_in]  # noqa: E731
    first, (y, noise_var, observed) = jax.tree.map(cut, (dynamics, observations[:3]))
    early = Observations(y, noise_var, observed, None, readout)
    state, total, _ = passes.forward(first, early, first.start(), precise=True, keep=False)
    if n == burn_in:
        return total
    h, noise = readout[0], noise_var[0, 0]
    last = dynamics.transition(jax.tree.map(lambda array: array[burn_in - 1], dynamics.inputs))
    settled = steps.predict(DENSE, last, Moments(jnp.zeros_like(h), _limit(last, h, noise)))
    cross = settled.cov @ h
    variance = h @ cross + noise
    reached = h @ steps.predict(DENSE, last, state).cov @ h
    late = observations.y[burn_in:, 0]
    total = total + _means(last, h, cross / variance, variance, state.mean, late)
    return jnp.where(jnp.abs(reached / (h @ cross) - 1) < SETTLED, total, jnp.nan)


def _limit(transition: Transition, h: jax.Array, noise: jax.Array) -> jax.Array:
    """The covariance of the state after many observations: one step, combined with itself."""
    like = h[0]
    empty = steps.empty_element(DENSE, len(h), like)
    one = jnp.ones_like(like)
    now = Observations(jnp.zeros_like(like), noise, one)
    element = steps.predict_element(DENSE, transition, empty)
    element, _ = steps.update_element(DENSE, h, element, now, precise=True)
    doubled = lambda part, _: (steps.combine(DENSE, part, part), None)  # noqa: E731
    return jax.lax.scan(doubled, element, length=DOUBLINGS)[0].cov


def _means(
    transition: Transition,
    h: jax.Array,
    gain: jax.Array,
    variance: jax.Array,
    mean: jax.Array,
    y: jax.Array,
) -> jax.Array:
    """The log density of what follows, from the filter's mean before it.

    Parts run side by side from 0; their starts follow from their ends, by linearity.
    """
    d = len(h)
    matrix = DENSE.apply_to_square(transition.matrix, jnp.eye(d, dtype=h.dtype))
    row = h @ matrix
    parts = max(LEAST_PARTS, 2 ** round(math.log2(math.sqrt(len(y)))))
    length = -(-len(y) // parts)
    # Added observations come last, so that nothing depends on them but what is cut off.
    y_parts = jnp.pad(y, (0, parts * length - len(y))).reshape(parts, length).T

    def step(means: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
        residual = now - row @ means
        return matrix @ means + gain[:, None] * residual, residual

    nothing = jnp.zeros((d, parts), h.dtype)
    ends, _ = jax.lax.scan(step, nothing, y_parts)
    closed = matrix - jnp.outer(gain, row)
    whole = _power(closed, length)

    def next_part(start: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
        return whole @ start + end, start

    _, starts = jax.lax.scan(next_part, mean, ends.T)
    _, residuals = jax.lax.scan(step, starts.T, y_parts)
    residuals = in_order(residuals, len(y), parts)
    return -0.5 * (len(y) * (LOG_2PI + jnp.log(variance)) + jnp.sum(residuals**2) / variance)


def _power(matrix: jax.Array, exponent: int) -> jax.Array:
    """The matrix to an integer power, by squaring."""
    result = jnp.eye(len(matrix), dtype=matrix.dtype)
    while exponent:
        result = result @ matrix if exponent & 1 else result
        matrix, exponent = matrix @ matrix, exponent >> 1
    return result


def check(space: AbstractStateSpace, times: Any, noise_var: Any, mask: Any) -> None:
    """Refuse what has no steady-state gain.

    Raises:
        ValueError: unequal steps, gaps, noise that changes, a component without process noise, or
            times that are known at run time only.
    """
    if any(isinstance(a, jax.core.Tracer) for a in (times, mask)):
        raise ValueError('backend="steady" needs times and mask that are known when traced')
    lengths = np.diff(np.sort(np.asarray(times, np.float64)))
    if lengths.size and np.ptp(lengths) > 1e-3 * np.max(lengths):
        raise ValueError('backend="steady" is for equally spaced times')
    if mask is not None and not np.all(mask):
        raise ValueError('backend="steady" is for series without missing values')
    if jnp.ndim(noise_var) > 0 and (isinstance(noise_var, jax.core.Tracer) or np.ptp(noise_var)):
        raise ValueError('backend="steady" is for noise that does not change, a scalar noise_var')
    for block in space.blocks:
        added = jax.tree.leaves(block.noise(0.0, 1.0))
        if all(isinstance(entry, int) for entry in added):
            raise ValueError(
                f'backend="steady": {type(block).__name__} has no process noise, so that its '
                "uncertainty never settles"
            )
