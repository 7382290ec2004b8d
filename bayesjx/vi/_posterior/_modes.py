"""Modes of a density from several starts, and the coordinates in which a mode is standard."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from ..._core import Descent, l_bfgs
from ._sign_search import (
    sign_search,
)

_MOST_STEPS = 400  # of L-BFGS from one start, each time
_ATTEMPTS = 3
_MEMORY = 20
_STALLED = 3  # steps in a row that gain nothing
_NEAR = 0.01  # nats that a search by signs may still gain at what counts as a mode
_AT_ONCE = 300  # columns of a Hessian
FLAT = 1e-10  # curvature of a direction relative to its coordinates' own that counts as none


class Modes(NamedTuple):
    """Ends of a search for modes, one for each start.

    Attributes:
        points: shape `(starts, d)`.
        values: log density there.
        converged: whether nothing higher was seen around.
        num_steps: of L-BFGS.
    """

    points: jax.Array
    values: jax.Array
    converged: jax.Array
    num_steps: jax.Array


@eqx.filter_jit
def find_modes(
    density: Callable[[jax.Array], jax.Array], starts: jax.Array, free: jax.Array
) -> Modes:
    """Searches by signs, then L-BFGS (Optax, zoom line search), from each start.

    Both are repeated from where they end until the search by signs gains nothing more.

    Args:
        density: log density of a vector; a pytree of arrays and functions.
        starts: shape `(starts, d)`.
        free: which coordinates may move, shape `(d,)`.
    """

    def from_start(start: jax.Array) -> Modes:
        def value(point: jax.Array) -> jax.Array:
            out = -density(jnp.where(free, point, start))
            return jnp.where(jnp.isnan(out), jnp.inf, out)

        def go_on(carry: tuple) -> jax.Array:
            number, _, _, _, done = carry
            return (number <= _ATTEMPTS) & ~done

        def attempt(carry: tuple) -> tuple:
            number, point, before, steps, _ = carry
            found = sign_search(value, point)
            done = (found.value > before - _NEAR) & (number > 0)
            end, after, more = jax.lax.cond(
                done | (number == _ATTEMPTS),
                lambda x: (point, before, 0),
                lambda x: _climb(value, x),
                found.point,
            )
            return number + 1, end, after, steps + more, done

        first = jnp.asarray(0), start, value(start), jnp.asarray(0), jnp.asarray(False)
        _, point, height, steps, done = jax.lax.while_loop(go_on, attempt, first)
        return Modes(jnp.where(free, point, start), -height, done, steps)

    return jax.lax.map(from_start, starts)


def _climb(value: Callable[[jax.Array], jax.Array], start: jax.Array) -> tuple:
    """L-BFGS down to where it stalls: the point, its value, and the number of steps."""
    tolerance = 10 * jnp.finfo(start.dtype).eps

    def stalled(state: Descent) -> jax.Array:
        before, after = state.values[:-1], state.values[1:]
        small = ~(before - after > tolerance * (1 + jnp.abs(before)))
        return (state.num_steps >= _STALLED) & jnp.all(small)

    end = l_bfgs(
        value,
        start,
        stalled,
        max_steps=_MOST_STEPS,
        memory=_MEMORY,
        window=_STALLED,
        linesearch=optax.scale_by_zoom_linesearch(max_linesearch_steps=20),
    )
    return end.params, end.value, end.num_steps


class Coordinates(NamedTuple):
    """An affine map $z = m + W u$ under which a mode looks standard normal.

    Attributes:
        loc: $m$: the point, or where a Newton step from it leads if that is higher.
        scale: $W$, shape `(d, d)`.
        lowest: smallest eigenvalue of the curvature whose diagonal is scaled to one.
        direction: its eigenvector, by coordinate.
        flat: coordinates without any curvature of their own.
        decrement: what a Newton step from the point would gain, in nats.
        runaway: coordinates along which the density still rises, with too little curvature to stop.
    """

    loc: jax.Array
    scale: jax.Array
    lowest: jax.Array
    direction: jax.Array
    flat: jax.Array
    decrement: jax.Array
    runaway: jax.Array


@eqx.filter_jit
def coordinates(density: Callable[[jax.Array], jax.Array], loc: jax.Array, free: jax.Array) -> Any:
    """Whitens by the Hessian; coordinates that are not free get a standard deviation of one.

    The diagonal is scaled to one first, so that units do not matter; eigenvalues are then floored
    at `FLAT` (or what the precision resolves) of the largest.
    """
    gradient, hessian = jax.grad(density)(loc), -_hessian(density)(loc)
    both = free[:, None] & free[None, :]
    diagonal = jnp.diag(hessian)
    flat = free & ~(diagonal > 0)
    root = jnp.where(free & ~flat, jnp.sqrt(jnp.where(flat, 1.0, diagonal)), 1.0)
    root = jnp.where(free, root, 1.0)
    scaled = jnp.where(both, hessian / root / root[:, None], 0.0)
    scaled = scaled + jnp.diag(jnp.where(free, 0.0, 1.0).astype(loc.dtype))
    scaled = jnp.where(jnp.isfinite(scaled), scaled, 0.0)
    values, vectors = jnp.linalg.eigh(0.5 * (scaled + scaled.T))
    floor = jnp.maximum(FLAT, jnp.finfo(loc.dtype).eps) * values[-1]
    kept = jnp.maximum(jnp.abs(values), floor)
    scale = vectors / jnp.sqrt(kept) / root[:, None]
    slope = jnp.where(free, scale.T @ jnp.where(free, gradient, 0.0), 0.0)
    # From where L-BFGS stalled among columns of raw units: the best of a few lengths of the step.
    lengths = jnp.asarray([0.0, 1.0, 0.5, 0.2, 0.05], loc.dtype)
    along = loc + lengths[:, None] * (scale @ slope)
    heights = jax.lax.map(density, along)
    newton = along[jnp.argmax(jnp.where(jnp.isfinite(heights), heights, -jnp.inf))]
    rises = free & (jnp.abs(gradient) > 0.3) & ~(diagonal > 1e-3 * gradient**2)
    decrement = 0.5 * jnp.sum(slope**2)
    return Coordinates(newton, scale, values[0], vectors[:, 0], flat, decrement, rises)


def _hessian(density: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """Forward over reverse, or reverse over reverse where a primitive has no forward mode."""
    gradient = jax.grad(density)

    def forward(loc: jax.Array) -> jax.Array:
        if loc.size <= _AT_ONCE:
            return jax.jacfwd(gradient)(loc)
        product = lambda v: jax.jvp(gradient, (loc,), (v,))[1]  # noqa: E731
        return jax.lax.map(product, jnp.eye(loc.size, dtype=loc.dtype), batch_size=_AT_ONCE)

    def run(loc: jax.Array) -> jax.Array:
        try:
            return forward(loc)
        except TypeError:
            return jax.jacrev(gradient)(loc)

    return run
