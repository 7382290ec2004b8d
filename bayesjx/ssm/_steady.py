"""The log density of a regular series by a filter whose gain has settled."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from . import _array_steps as steps
from ._array_passes import one_after_another
from ._array_steps import Law, Moments, Records
from ._arrays import as_arrays
from ._spaces import AbstractStateSpace
from ._steps import LOG_2PI, Series
from ._stretches import join, Stretch

BURN_IN = 512  # observations that are filtered exactly
DOUBLINGS = 30
LEAST_PARTS = 16
SETTLED = 1e-2  # relative difference of predicted variances after the burn-in


def log_density(space: AbstractStateSpace, series: Series) -> jax.Array:
    r"""The log density of equally spaced observations with one noise, nearly exact, scalar.

    The first 512 are filtered as usual. Then the covariance is held at its limit, the solution of
    Riccati's equation, found by doubling; what is left is a recurrence of means with one matrix,
    $O(n d^2)$. Its error decays like the memory of the filter to the power of 512. NaN where the
    predicted variance of the function is then not within 1 % of its limit.

    References:
        Anderson and Moore (1979), "Optimal filtering", sections 4.4 and 6.7.
    """
    n = len(series.step)
    burn_in = min(BURN_IN, n)
    law, records = as_arrays(space, jax.tree.map(lambda a: a[:burn_in], series))
    state, total = _exact(law, records)
    if n == burn_in:
        return total
    h, noise = records.readout[0], records.noise[0, 0]
    last = Law(law.matrix[-1], law.noise[-1])
    settled = steps.predict(last, Moments(jnp.zeros_like(h), _limit(last, h, noise)))
    cross = settled.cov @ h
    variance = h @ cross + noise
    reached = h @ steps.predict(last, state).cov @ h
    total = total + _means(last, h, cross / variance, variance, state.mean, series.y[burn_in:])
    return jnp.where(jnp.abs(reached / (h @ cross) - 1) < SETTLED, total, jnp.nan)


def _exact(law: Law, records: Records) -> tuple[Moments, jax.Array]:
    """The filter, by itself differentiable; the last state and the log density."""

    def step(carry: Any, inputs: Any) -> Any:
        law, (y, noise, seen) = inputs
        now = Records(records.readout[0], y[0], noise[0], seen[0])
        state, density = steps.observe(now, steps.predict(law, carry[0]), precise=True)
        return (state, carry[1] + density), None

    zero = jnp.zeros_like(records.readout[0])
    start = (Moments(zero, jnp.zeros((zero.size, zero.size), zero.dtype)), jnp.zeros_like(zero[0]))
    arrays = (records.y, records.noise, records.seen)
    return jax.lax.scan(step, start, (law, arrays))[0]


def _limit(law: Law, h: jax.Array, noise: jax.Array) -> jax.Array:
    """The covariance of the state after many observations: one step, joined to itself again."""
    d, zero = len(h), jnp.zeros_like(h)
    matrix = steps.times_blocks(law.matrix, jnp.eye(d, dtype=h.dtype))
    prior = steps.add_blocks(jnp.zeros((d, d), h.dtype), law.noise)
    cross = prior @ h
    gain = cross / (h @ cross + noise)
    row = matrix.T @ h
    one = Stretch(
        matrix - jnp.outer(gain, row),
        zero,
        steps.symmetric(prior - jnp.outer(gain, cross)),
        zero,
        jnp.outer(row, row) / (h @ cross + noise),
        zero[0],
    )
    many = jax.lax.scan(lambda part, _: (join(part, part), None), one, length=DOUBLINGS)[0]
    return many.cov


def _means(
    law: Law, h: jax.Array, gain: jax.Array, variance: jax.Array, mean: jax.Array, y: jax.Array
) -> jax.Array:
    """The log density of what follows, from the filter's mean before it.

    Parts run side by side from 0; their starts follow from their ends, by linearity.
    """
    d = len(h)
    turn = steps.times_blocks(law.matrix, jnp.eye(d, dtype=h.dtype))
    row = h @ turn
    parts = max(LEAST_PARTS, 2 ** round(math.log2(math.sqrt(len(y)))))
    length = -(-len(y) // parts)
    # Added observations come last, so that nothing depends on them but what is cut off.
    y_parts = jnp.pad(y, (0, parts * length - len(y))).reshape(parts, length).T

    def step(means: jax.Array, now: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = now - row @ means
        return turn @ means + gain[:, None] * value, value

    nothing = jnp.zeros((d, parts), h.dtype)
    ends, _ = jax.lax.scan(step, nothing, y_parts)
    closed = turn - jnp.outer(gain, row)
    whole = _power(closed, length)

    def next_part(start: jax.Array, end: jax.Array) -> tuple[jax.Array, jax.Array]:
        return whole @ start + end, start

    _, starts = jax.lax.scan(next_part, mean, ends.T)
    _, values = jax.lax.scan(step, starts.T, y_parts)
    values = one_after_another(values, len(y), parts)
    return -0.5 * (len(y) * (LOG_2PI + jnp.log(variance)) + jnp.sum(values**2) / variance)


def _power(matrix: jax.Array, exponent: int) -> jax.Array:
    """The matrix to an integer power, by squaring."""
    result = jnp.eye(len(matrix), dtype=matrix.dtype)
    while exponent:
        result = result @ matrix if exponent & 1 else result
        matrix, exponent = matrix @ matrix, exponent >> 1
    return result


def check(space: AbstractStateSpace, times: Any, noise: Any, mask: Any) -> None:
    """Refuse what has no settled gain.

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
    if jnp.ndim(noise) > 0 and (isinstance(noise, jax.core.Tracer) or np.ptp(noise) > 0):
        raise ValueError('backend="steady" is for noise that does not change, a scalar')
    for block in space.blocks:
        added = jax.tree.leaves(block.noise(0.0, 1.0))
        if all(isinstance(entry, int) for entry in added):
            raise ValueError(
                f'backend="steady": {type(block).__name__} has no process noise, so that its '
                "uncertainty never settles"
            )
