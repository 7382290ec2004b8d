"""Filters and adjoint smoothers on arrays: one loop over a series, or over parts side by side."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import _array_steps as steps, _roots as roots
from ._array_steps import Adjoint, Found, Law, Moments, Records
from ._backend import Plan
from ._slopes import with_slopes
from ._stretches import futures, seen_from, starts, Stretch


class Filtered(NamedTuple):
    """What the backward pass starts from: steps, lanes last, kept states, and the last adjoint."""

    law: Law
    records: Records
    kept: Moments
    last: Adjoint


class Backward(NamedTuple):
    """Derivatives in the law and in the records, and what was asked of each smoothed state."""

    matrix: jax.Array
    noise: jax.Array
    found: Found
    smoothed: Any


def _value(plan: Plan, law: Law, records: Records) -> jax.Array:
    """The log density of what was observed, scalar, with exact derivatives in all arrays.

    Args:
        plan: how to go about it.
        law: of the steps, `(n, ...)`.
        records: observations.
    """
    if plan.lanes == 1:
        return _forward(plan, law, records, _nothing(law), keep=False)[1]
    law, records = side_by_side(law, records, plan.lanes)
    stretches = _stretches(law, records, plan.precise)
    return starts(stretches, plan.associative, records.scale is None)[1]


def filtered(plan: Plan, law: Law, records: Records) -> tuple[jax.Array, Filtered]:
    """The log density, and what the backward pass needs."""
    nothing = _nothing(law)
    if plan.lanes == 1:
        _, total, kept = _forward(plan, law, records, nothing, keep=True)
        return total, Filtered(law, records, kept, Adjoint(*map(jnp.zeros_like, nothing)))
    law, records = side_by_side(law, records, plan.lanes)
    stretches = _stretches(law, records, plan.precise)
    begins, total = starts(stretches, plan.associative, records.scale is None)
    ends, _, kept = _forward(plan, law, records, begins, keep=True)
    later = futures(stretches, plan.associative)
    return total, Filtered(law, records, kept, seen_from(ends, *later))


def backward(plan: Plan, found: Filtered, readout: jax.Array | None = None) -> Backward:
    """The adjoint smoother.

    Args:
        plan: how the series was filtered.
        found: by `filtered`.
        readout: `(q, d)`, combinations of the states whose smoothed means and variances
            `(n, q)` are wanted; without, derivatives in the law are found instead.
    """

    def step(later: Adjoint, inputs: Any) -> Any:
        law, now, earlier = inputs
        state = steps.predict(law, earlier)
        adjoint, each = _unobserve_all(_with_readout(now, found.records), state, later, plan)
        before = Adjoint(
            steps.times_blocks(steps.transposed(law.matrix), adjoint.slope[:, None])[:, 0],
            steps.congruence(steps.transposed(law.matrix), adjoint.curvature),
        )
        if readout is None:
            return before, (*_in_law(law, earlier, adjoint), each, None)
        return before, (None, None, each, _smoothed(readout, state, adjoint))

    inputs = (found.law, _moving(found.records), found.kept)
    return Backward(*jax.lax.scan(step, found.last, inputs, reverse=True)[1])


def _forward(
    plan: Plan, law: Law, records: Records, state: Moments, keep: bool
) -> tuple[Moments, jax.Array, Any]:
    if plan.roots:
        return _forward_by_roots(law, records, state, keep)

    def step(carry: Any, inputs: Any) -> Any:
        state, total = carry
        law, now = inputs
        now = _with_readout(now, records)
        after, density, _ = _observe_all(now, steps.predict(law, state), plan.precise, keep=False)
        return (after, total + density), state if keep else None

    start = (state, jnp.zeros_like(state.mean[0]))
    (last, total), kept = jax.lax.scan(step, start, (law, _moving(records)))
    return last, total, kept


def _forward_by_roots(
    law: Law, records: Records, state: Moments, keep: bool
) -> tuple[Moments, jax.Array, Any]:
    """The same with roots of covariances, which cannot lose definiteness; begins from nothing."""

    def observe(carry: Any, one: Records) -> Any:
        state, total = carry
        after, density = roots.observe(one, state)
        return (after, total + density), None

    def step(carry: Any, inputs: Any) -> Any:
        (matrix, added), now = inputs
        kept = Moments(carry[0].mean, steps.times_transpose(carry[0].root)) if keep else None
        state = roots.predict(matrix, added, carry[0])
        return jax.lax.scan(observe, (state, carry[1]), _with_readout(now, records))[0], kept

    added = jax.vmap(roots.of_blocks)(law.noise)
    start = (roots.Rooted(*state), jnp.zeros_like(state.mean[0]))
    inputs = ((law.matrix, added), _moving(records))
    (last, total), kept = jax.lax.scan(step, start, inputs)
    return Moments(last.mean, steps.times_transpose(last.root)), total, kept


def _observe_all(now: Records, state: Moments, precise: bool, keep: bool) -> Any:
    """All outputs, one after another; states before each are kept on demand."""
    if now.y.shape[0] == 1:
        after, density = steps.observe(_output(now, 0), state, precise)
        return after, density, jax.tree.map(lambda leaf: leaf[None], state) if keep else None

    def step(carry: Any, one: Records) -> Any:
        state, total = carry
        after, density = steps.observe(one, state, precise)
        return (after, total + density), state if keep else None

    (state, total), kept = jax.lax.scan(step, (state, jnp.zeros_like(state.mean[0])), now)
    return state, total, kept


def _unobserve_all(
    now: Records, state: Moments, later: Adjoint, plan: Plan
) -> tuple[Adjoint, Found]:
    if now.y.shape[0] == 1:
        adjoint, found = steps.unobserve(_output(now, 0), state, later)
        return adjoint, jax.tree.map(lambda leaf: leaf[None], found)
    kept = _observe_all(now, state, plan.precise, keep=True)[2]
    return jax.lax.scan(
        lambda later, inputs: steps.unobserve(*inputs, later), later, (now, kept), reverse=True
    )


def _in_law(law: Law, earlier: Moments, adjoint: Adjoint) -> tuple[jax.Array, jax.Array]:
    """Derivatives of the log density in the blocks of a step's matrix and noise."""
    blocks, k = law.matrix.shape[:2]
    lanes = law.matrix.shape[3:]
    second = steps.outer(adjoint.slope, adjoint.slope) - adjoint.curvature
    moved = steps.times_blocks(law.matrix, earlier.cov)
    # Symmetric, so that its columns serve as rows.
    left = second.reshape(-1, blocks, k, *lanes)
    right = moved.reshape(-1, blocks, k, *lanes)
    if lanes:
        in_cov = jnp.sum(left[:, :, :, None] * right[:, :, None], axis=0)
    else:
        in_cov = jnp.einsum("cbi,cbj->bij", left, right, precision="highest")
    slope = adjoint.slope.reshape(blocks, k, 1, *lanes)
    in_mean = slope * earlier.mean.reshape(blocks, 1, k, *lanes)
    places = jnp.arange(blocks)
    whole = second.reshape(blocks, k, blocks, k, *lanes)
    return in_mean + in_cov, 0.5 * whole[places, :, places]


def _smoothed(readout: jax.Array, state: Moments, adjoint: Adjoint) -> tuple[jax.Array, jax.Array]:
    """Means and variances of combinations of a state given all observations."""
    cross = jnp.einsum("ij...,qj->qi...", state.cov, readout)
    mean = jnp.einsum("qi,i...->q...", readout, state.mean)
    mean = mean + jnp.einsum("qi...,i...->q...", cross, adjoint.slope)
    known = jnp.einsum("qi...,ij...,qj...->q...", cross, adjoint.curvature, cross)
    return mean, jnp.einsum("qi...,qi->q...", cross, readout) - known


def _stretches(law: Law, records: Records, precise: bool) -> Stretch:
    """Each lane as a function of the state before it."""
    vector, zero = _nothing(law)
    one = jnp.eye(len(zero), dtype=zero.dtype)
    one = jnp.broadcast_to(one.reshape(one.shape + (1,) * (zero.ndim - 2)), zero.shape)

    def observe(so_far: Stretch, now: Records) -> tuple[Stretch, None]:
        state = Moments(so_far.mean, so_far.cov)
        found = steps.innovation(now, state)
        cross, pull, precision = found[:3]
        row = steps.matvec(jnp.swapaxes(so_far.matrix, 0, 1), now.readout)
        state, _ = steps.observe(now, state, precise)
        return Stretch(
            so_far.matrix - steps.outer(precision * cross, row),
            state.mean,
            state.cov,
            so_far.shift + pull * row,
            so_far.precision + precision * steps.outer(row, row),
            so_far.log_density + found.log_density(now),
        ), None

    def step(so_far: Stretch, inputs: Any) -> tuple[Stretch, None]:
        law, now = inputs
        state = steps.predict(law, Moments(so_far.mean, so_far.cov))
        moved = steps.times_blocks(law.matrix, so_far.matrix)
        so_far = so_far._replace(matrix=moved, mean=state.mean, cov=state.cov)
        now = _with_readout(now, records)
        if now.y.shape[0] == 1:
            return observe(so_far, _output(now, 0))
        return jax.lax.scan(observe, so_far, now)[0], None

    start = Stretch(one, vector, zero, vector, zero, vector[0])
    return jax.lax.scan(step, start, (law, _moving(records)))[0]


def side_by_side(law: Law, records: Records, lanes: int) -> tuple[Law, Records]:
    """Arrays `(n, ...)` cut into parts `(steps, ..., lanes)`."""
    n = len(law.matrix)
    length = -(-n // lanes)

    def cut(array: jax.Array, fill: Any) -> jax.Array:
        rest = jnp.broadcast_to(jnp.asarray(fill, array.dtype), array.shape[1:])
        rest = jnp.broadcast_to(rest, (length * lanes - n, *array.shape[1:]))
        whole = jnp.concatenate([array, rest]).reshape(lanes, length, *array.shape[1:])
        return jnp.moveaxis(whole, 0, -1)

    stay = jnp.eye(law.matrix.shape[-1])
    readout = cut(records.readout, 0.0) if _varies(records) else records.readout[..., None]
    y, noise, seen = cut(records.y, 0.0), cut(records.noise, 1.0), cut(records.seen, 0.0)
    scale = None if records.scale is None else cut(records.scale, 0.0)
    records = Records(readout, y, noise, seen, scale)
    return Law(cut(law.matrix, stay), cut(law.noise, 0.0)), records


def one_after_another(array: jax.Array, n: int, lanes: int) -> jax.Array:
    """The inverse of `side_by_side` for one array."""
    if lanes == 1:
        return array
    back = jnp.moveaxis(array, -1, 0)
    return back.reshape(-1, *back.shape[2:])[:n]


def _with_slopes(plan: Plan, law: Law, records: Records) -> tuple[jax.Array, tuple[Law, Records]]:
    total, found = filtered(plan, law, records)
    n = len(records.y)
    back = backward(plan, found)
    arrays = (back.matrix, back.noise, back.found.readout, back.found.records)
    matrix, noise, readout, in_records = jax.tree.map(
        lambda array: one_after_another(array, n, plan.lanes), arrays
    )
    readout = readout if _varies(records) else jnp.sum(readout, axis=0)
    return total, (Law(matrix, noise), Records(readout, *in_records))


log_density = with_slopes(_value, _with_slopes)


def _varies(records: Records) -> bool:
    return records.readout.ndim > records.y.ndim


def _moving(records: Records) -> Records:
    """What a loop over steps takes one by one."""
    return records if _varies(records) else records._replace(readout=None)


def _with_readout(now: Records, records: Records) -> Records:
    return now._replace(readout=records.readout) if now.readout is None else now


def _output(now: Records, which: int) -> Records:
    return jax.tree.map(lambda leaf: leaf[which], now)


def _nothing(law: Law) -> Moments:
    """The state before the first step, which adds the prior law to it."""
    blocks, k = law.matrix.shape[1:3]
    d, lanes, dtype = blocks * k, law.matrix.shape[4:], law.matrix.dtype
    return Moments(jnp.zeros((d, *lanes), dtype), jnp.zeros((d, d, *lanes), dtype))
