"""Independent copies of a part of an objective, and the log-mean-exp of importance bounds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import random

from ..._core import whole_number
from ._context import (
    activate,
    current,
    Suspend,
)
from ._cost import (
    Cost,
    Frame,
    Frames,
    PARTICLES,
    reduce_to,
    Term,
)
from ._log_weights import (
    log_sum,
)
from ._site import (
    Site,
)
from ._surrogate import (
    ScoreRecord,
    Settings,
)

# Particles are plates to the left of all that a program can have.
_OUTERMOST_DIM = -12
_MAX_DEPTH = 3


def particles(num_particles: int) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Runs a function `num_particles` times with independent random numbers, by `jax.vmap`.

    Use it in place of `jax.vmap` inside objectives: sites keep their strategies. Subsampled
    plates draw the same minibatch in every copy. Score-function sites get the mean of the other
    copies as a baseline where the copies enter linearly.

    Args:
        num_particles: number of copies, positive.

    Returns:
        a transformation of functions. The new function returns what the old one did, stacked:
        arrays get a leading axis; a `Cost` gets an axis of its own, over which its `total` sums
        and which `log_mean_exp` understands.

    Replayed sites (enum, mvd, ...) treat the copies as a plate: right for costs that are local to
    a copy. Where the copies are combined by something else than a sum, such as `log_mean_exp`,
    use `vi.reinforce`, the joint `vi.disarm` and `vi.rloo`, or `lanes=True`, which changes one
    copy at a time.

    Raises:
        ValueError: `num_particles` is not a positive integer, or copies are nested too deep.
    """
    num_particles = whole_number("num_particles", num_particles)

    def transform(fn: Callable[..., Any]) -> Callable[..., Any]:
        def stacked(*args: Any, **kwargs: Any) -> Any:
            return map_sites(lambda _: fn(*args, **kwargs), jnp.arange(num_particles))

        return stacked

    return transform


def map_sites(fn: Callable[[Any], Any], xs: Any) -> Any:
    """`jax.vmap` of a function of one argument that may draw sites of the running objective.

    To the running objective the copies are a plate, also for the sites that are replayed: then
    all copies run again under the values that the plate's site is given.
    """
    num_particles = jax.tree.leaves(xs)[0].shape[0]
    parent = current("particles")
    prefix, key = parent.enter_call()
    frame = Frame(PARTICLES + prefix, _OUTERMOST_DIM + parent.depth, num_particles)
    if parent.depth > _MAX_DEPTH:
        raise ValueError(f"vi.particles is nested more than {_MAX_DEPTH + 1} deep")
    fixed = {a: v for a, v in parent.fixed.items() if a.startswith(prefix)}
    settings = Settings(parent.plate_key, parent.states, parent.maximise, prefix)
    # What does not go through `vmap` must not hold its tracers: they would outlive it.
    sites: list[Site] = []
    stopped: list[Site] = []

    def one(key: jax.Array, x: Any, fixed: dict[str, jax.Array]) -> tuple[Any, ...]:
        context = settings.context(
            key, fixed=fixed, done=parent.done, suspend=parent.suspend, stage=parent.stage
        )
        context.depth = parent.depth + 1
        context.scored = None if parent.scored is None else []
        output = parts = None
        with activate(context):
            try:
                output = fn(x)
            except Suspend as stop:
                site = stop.site
                stopped.append(site.without_values())
                parts = site.distribution, site.strategy, site.key, site.stacked_value
        sites[:] = [site.without_values() for site in context.sites]
        return output, (context.records(), context.scored), parts, context.mutables

    keys = jax.vmap(lambda i: random.fold_in(key, i))(jnp.arange(num_particles))
    out, (records, scored), parts, mutables = jax.vmap(one)(keys, xs, fixed)
    parent.mutables.update(mean_state(mutables))
    if parent.scored is not None:
        parent.scored += [dataclasses.replace(s, particles=s.particles + 1) for s in scored]
    parent.exported += [_record_with_axis(record, frame) for record in records]
    if parts is not None:
        raise Suspend(_site_with_axis(stopped[-1], parts, frame))
    parent.sites += sites
    if not isinstance(out, Cost):
        return out
    means = {name: jnp.mean(value, axis=0) for name, value in out.records.items()}
    return Cost(tuple(_term_with_axis(term, frame) for term in out.terms), means)


def mean_state(stacked: Any) -> Any:
    """The mean over copies of the values of mutable sites; of integers, those of the first copy."""
    inexact = lambda x: jnp.issubdtype(x.dtype, jnp.inexact)  # noqa: E731
    return jax.tree.map(lambda x: jnp.mean(x, axis=0) if inexact(x) else x[0], stacked)


def _site_with_axis(site: Site, parts: Any, frame: Frame) -> Site:
    distribution, strategy, keys, value = parts
    if site.loop is not None:
        raise site.explain(
            "a site of a scan inside particles cannot be replayed", "Use vi.reinforce there"
        )
    return Site(
        site.address,
        distribution,
        site.frames | {frame},
        strategy,
        keys[0],
        value,
        site.in_loop,
        particles=(frame, *site.particles),
    )


def _term_with_axis(term: Term, frame: Frame) -> Term:
    return dataclasses.replace(
        term,
        value=_move(term.value, frame),
        signals={f: _move(s, frame) for f, s in term.signals.items()},
        frames=term.frames | {frame},
    )


def _record_with_axis(record: ScoreRecord, frame: Frame) -> ScoreRecord:
    strategy = jax.tree.map(lambda leaf: _move(leaf, frame), record.strategy)
    return dataclasses.replace(
        record,
        log_prob=_move(record.log_prob, frame),
        strategy=strategy,
        frames=record.frames | {frame},
    )


def _move(value: jax.Array, frame: Frame) -> jax.Array:
    """Puts the leading particle axis at the frame's dim."""
    missing = -frame.dim - value.ndim
    return value.reshape(value.shape[:1] + (1,) * missing + value.shape[1:])


def log_mean_exp(cost: Cost, plate: str | None = None) -> Cost:
    r"""$\log \frac1K \sum_k e^{l_k}$ of the log weights of $K$ particles.

    It is −inf, without a gradient, where all weights are zero.

    Score-function sites inside the particles see $L - L_{-k}$, where $L_{-k}$ replaces the
    particle's own log weight by the mean of the others (VIMCO), in place of $L$.

    Args:
        cost: what a function under `particles(K)` returned as a `Cost`; not used linearly.
        plate: name of a plate that every term lies in; the log-mean-exp is then taken for each
            element of the plate and summed, a tighter bound if latents are local to the plate.

    Returns:
        a `Cost` of one term.

    Raises:
        TypeError: `cost` is no `Cost`.
        ValueError: `cost` has no particle axis, a term lies outside particles or `plate`, terms
            or have different subsampling scales.

    References:
        Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders"; Mnih and
        Rezende (2016), "Variational inference for Monte Carlo objectives", equation 12.
    """
    if not isinstance(cost, Cost):
        raise TypeError(
            "cost must be the Cost that a function under vi.particles(K) returned, got "
            f"{type(cost).__name__}"
        )
    frame = _particle_frame(cost)
    keep: Frames = frozenset({frame})
    scale = 1.0
    if plate is not None:
        local = _find_plate(cost, plate)
        keep = keep | {local}
        scales = {term.scale for term in cost.terms}
        if len(scales) > 1 or scales != scales & {s for s in scales if s == s}:
            raise ValueError(
                f"log_mean_exp(plate={plate!r}): the terms have different or non-constant scales "
                f"{sorted(scales)}; all sites must lie in the same subsampled plates"
            )
        scale = scales.pop()
    weights = [reduce_to(term.value, keep) / scale for term in cost.terms]
    log_weights = sum(weights[1:], weights[0])
    axis, n = frame.dim, frame.size
    bound = log_sum(log_weights, axis=axis, keepdims=True) - jnp.log(n).astype(log_weights.dtype)
    signal = bound if n == 1 else bound - _bound_without(jax.lax.stop_gradient(log_weights), axis)
    signal = jnp.where(jnp.isinf(bound), 0.0, signal)
    frames = keep - {frame}
    value = reduce_to(scale * bound, frames)
    label = " + ".join(dict.fromkeys(term.label for term in cost.terms))
    term = Term(value, {frame: scale * signal}, frames=frozenset(frames), label=label, scale=scale)
    return Cost((term,), cost.records)


def _bound_without(log_weights: jax.Array, axis: int) -> jax.Array:
    """The bound with each log weight replaced by the mean of the others (geometric VIMCO)."""
    axis = axis % log_weights.ndim
    n = log_weights.shape[axis]
    possible = log_weights > -jnp.inf
    finite = jnp.where(possible, log_weights, 0.0)
    mean = (jnp.sum(finite, axis=axis, keepdims=True) - finite) / (n - 1)
    others = jnp.sum(possible, axis=axis, keepdims=True) - possible
    mean = jnp.where(others == n - 1, mean, -jnp.inf)
    pad = [(0, 0, 0)] * log_weights.ndim
    before = jax.lax.cumlogsumexp(log_weights, axis=axis)
    after = jax.lax.cumlogsumexp(log_weights, axis=axis, reverse=True)
    low = jnp.asarray(-jnp.inf, log_weights.dtype)
    pad[axis] = (1, -1, 0)
    before = jax.lax.pad(before, low, pad)
    pad[axis] = (-1, 1, 0)
    after = jax.lax.pad(after, low, pad)
    others = jnp.logaddexp(before, after)
    bound = jnp.logaddexp(others, mean) - jnp.log(n).astype(log_weights.dtype)
    return jnp.where(jnp.isinf(bound), 0.0, bound)


def _particle_frame(cost: Cost) -> Frame:
    shared = [
        frozenset(f for f in term.frames if f.name.startswith(PARTICLES)) for term in cost.terms
    ]
    common = frozenset.intersection(*shared) if shared else frozenset()
    if not common:
        raise ValueError(
            "log_mean_exp expects the Cost that a function under vi.particles(K) returned, with "
            "every term inside the particles; return a Cost (not its .total) from that function"
        )
    return min(common, key=lambda frame: frame.dim)


def _find_plate(cost: Cost, plate: str) -> Frame:
    frames: set[Frame] = set()
    for term in cost.terms:
        inside = {frame for frame in term.frames if frame.name == plate}
        if not inside:
            raise ValueError(
                f"log_mean_exp(plate={plate!r}): the term {term.label!r} is outside that plate; "
                "leave out plate=, or move the site into the plate"
            )
        frames |= inside
    return frames.pop()
