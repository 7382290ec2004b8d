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
_HALVINGS = 40  # of the length of a coordinate
_FALL, _FLAT_FALL = 2.0, 0.25  # nats, at most over a coordinate's length, and along what is flat
_PARTS = (1.0, 0.5, 0.2, 0.05, 0.01, 0.0)  # of a Newton step
_ROUNDING = 5  # what rounding of a Hessian comes to, in units of the precision
_SADDLE = -1e-4  # curvature that is clearly negative, of a direction or a coordinate
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
            best = sign_search(value, point)
            done = (best.value > before - _NEAR) & (number > 0)
            end, after, more = jax.lax.cond(
                done | (number == _ATTEMPTS),
                lambda x: (point, before, 0),
                lambda x: _climb(value, x),
                best.point,
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
        loc: $m$: the point, or where a part of a Newton step from it leads, if that is higher.
        value: log density there.
        scale: $W$, shape `(d, d)`.
        lowest: smallest eigenvalue of the curvature whose diagonal is scaled to one; 0 where
            rounding comes to more.
        saddle: whether the curvature is clearly negative in some direction.
        direction: its eigenvector, by coordinate.
        flat: coordinates without any curvature of their own.
        decrement: what a Newton step from the point would gain, in nats.
        runaway: coordinates along which the density still rises, with too little curvature to stop.
    """

    loc: jax.Array
    value: jax.Array
    scale: jax.Array
    lowest: jax.Array
    saddle: jax.Array
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
    largest = jnp.where(values[-1] > 0, values[-1], 1.0)
    floor = jnp.maximum(FLAT, jnp.finfo(loc.dtype).eps) * largest
    kept = jnp.maximum(jnp.abs(values), floor)
    # Curvature below rounding is noise of either sign.
    rounding = _ROUNDING * jnp.finfo(loc.dtype).eps * largest
    lowest = jnp.where(jnp.abs(values[0]) < rounding, 0.0, values[0])
    saddle = (values[0] < _SADDLE) | jnp.any(free & (diagonal < _SADDLE))
    scale = vectors / jnp.sqrt(kept) / root[:, None]
    slope = jnp.where(free, scale.T @ jnp.where(free, gradient, 0.0), 0.0)
    # From where L-BFGS stalled among columns of raw units; negative curvature counts as positive.
    rises = free & (jnp.abs(gradient) > 0.3) & ~(diagonal > 1e-3 * gradient**2)
    candidates = loc + jnp.asarray(_PARTS, loc.dtype)[:, None] * (scale @ slope)
    onward = loc + jnp.where(rises, jnp.sign(gradient), 0.0)
    heights = jax.lax.map(density, jnp.concatenate([candidates, onward[None]]))
    heights = jnp.where(jnp.isfinite(heights), heights, -jnp.inf)
    heights, rises = heights[:-1], rises & (heights[-1] > heights[-2])  # beyond a kink it falls
    best = jnp.argmax(heights)
    decrement = 0.5 * jnp.sum(slope**2)
    direction = vectors[:, 0]
    loc, value = candidates[best], heights[best]
    return Coordinates(loc, value, scale, lowest, saddle, direction, flat, decrement, rises)


@eqx.filter_jit
def resized(density: Callable[[jax.Array], jax.Array], coords: Coordinates) -> Coordinates:
    """Coordinates whose lengths are those over which the density falls, if it does.

    At a kink (Laplace's density) or along a curved ridge there is no curvature, though the density
    falls. What is flat over a whole length, on a side, remains so.
    """
    sides = jnp.asarray([1.0, -1.0], coords.loc.dtype)
    parts = 0.5 ** jnp.arange(_HALVINGS, dtype=coords.loc.dtype)

    def of_column(column: jax.Array) -> tuple[jax.Array, jax.Array]:
        points = coords.loc + (parts[:, None] * sides).reshape(-1, 1) * column
        fallen = coords.value - jax.lax.map(density, points).reshape(-1, 2)
        fallen = jnp.where(jnp.isnan(fallen), jnp.inf, fallen)
        short = jnp.max(fallen, axis=1) <= _FALL
        return parts[jnp.argmax(short)], jnp.min(fallen[0]) < _FLAT_FALL

    sizes, flat = jax.lax.map(of_column, coords.scale.T)
    proper = ~jnp.any(flat)
    return coords._replace(
        scale=coords.scale * sizes,
        lowest=jnp.where(proper, 1.0, coords.lowest),
        flat=coords.flat & ~proper,
        decrement=jnp.where(proper, 0.0, coords.decrement),
    )


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
