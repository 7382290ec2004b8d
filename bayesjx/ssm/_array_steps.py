"""Filter steps on arrays, for states with many entries and for several outputs.

The formulas are those of `_steps`. All arrays may have lanes, further axes behind those that are
named: parts of a series side by side. Transitions are block-diagonal, `(blocks, k, k)`; a
covariance has shape `(d, d)` with `d = blocks k`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._steps import compared, factor_gradient, Innovation


class Law(NamedTuple):
    """How the state moves.

    Attributes:
        matrix: of the transition into each time, shape `(n, blocks, k, k)`.
        noise: covariance of what it adds, of that shape; for the first, that of the state itself.
    """

    matrix: jax.Array
    noise: jax.Array


class Records(NamedTuple):
    """What was observed.

    Attributes:
        readout: `(p, d)`, or `(n, p, d)` if it changes with time; None inside of loops over time
            that need not carry it.
        y: `(n, p)`, 0 where nothing was observed.
        noise: variances, of that shape.
        seen: 1 where something was observed, else 0.
        scale: None, or as in `_steps.Series`.
    """

    readout: Any
    y: jax.Array
    noise: jax.Array
    seen: jax.Array
    scale: Any = None


class Moments(NamedTuple):
    """Mean `(d,)` and covariance `(d, d)` of a state."""

    mean: jax.Array
    cov: jax.Array


class Adjoint(NamedTuple):
    """Derivatives of the log density of what comes after, in a mean: first, and minus second."""

    slope: jax.Array
    curvature: jax.Array


class Found(NamedTuple):
    """Derivatives in one observation.

    Attributes:
        weight: of the log density in it, with the other sign.
        precision: minus the second one.
        readout: in its readout.
        records: in the fields of `Records` from `y` on.
    """

    weight: jax.Array
    precision: jax.Array
    readout: jax.Array
    records: tuple[Any, ...]


def times_blocks(a: jax.Array, x: jax.Array) -> jax.Array:
    """$A X$ of a block-diagonal `(blocks, k, k)` and `(d, m)`."""
    blocks, k = a.shape[:2]
    rows = x.reshape(blocks, k, *x.shape[1:])
    if a.ndim == 3:  # a call of its own, which XLA cannot fuse into what follows and repeat there
        total = jnp.matmul(a, rows, precision="highest")
    else:
        total = sum(a[:, :, j, None] * rows[:, None, j] for j in range(k))
    return jnp.reshape(total, x.shape)


def transposed(a: jax.Array) -> jax.Array:
    """Blocks, transposed."""
    return jnp.swapaxes(a, 1, 2)


def symmetric(p: jax.Array) -> jax.Array:
    """The same without the asymmetry that rounding leaves."""
    return 0.5 * (p + jnp.swapaxes(p, 0, 1))


def congruence(a: jax.Array, p: jax.Array) -> jax.Array:
    """$A P A^T$ of a symmetric matrix."""
    return times_blocks(a, jnp.swapaxes(times_blocks(a, p), 0, 1))


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """$A B$ of square matrices; with lanes one fused loop, never in reduced precision."""
    if a.ndim == 2:
        return jnp.matmul(a, b, precision="highest")
    return jnp.sum(a[:, :, None] * b[None], axis=1)


def times_transpose(a: jax.Array) -> jax.Array:
    """$A A^T$."""
    return jnp.matmul(a, a.T, precision="highest")


def matvec(p: jax.Array, x: jax.Array) -> jax.Array:
    """$P x$."""
    if x.ndim == 1:
        return jnp.matmul(p, x, precision="highest")
    return jnp.sum(p * x[None], axis=1)


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
    """The inner product."""
    return jnp.sum(x * y, axis=0)


def outer(x: jax.Array, y: jax.Array) -> jax.Array:
    """$x y^T$."""
    return x[:, None] * y[None]


def add_blocks(p: jax.Array, blocks: jax.Array) -> jax.Array:
    """A matrix plus a block-diagonal one."""
    count, k, lanes = blocks.shape[0], blocks.shape[1], blocks.shape[3:]
    places = jnp.eye(count, dtype=p.dtype).reshape(count, 1, count, 1, *(1,) * len(lanes))
    whole = p.reshape(count, k, count, k, *lanes) + places * blocks[:, :, None]
    return whole.reshape(p.shape)


def predict(law: Law, state: Moments) -> Moments:
    """The state a step later."""
    mean = times_blocks(law.matrix, state.mean[:, None])[:, 0]
    return Moments(mean, add_blocks(congruence(law.matrix, state.cov), law.noise))


def innovation(now: Records, state: Moments) -> Innovation:
    """One output against what the state predicts; `now` has arrays without the axis of outputs."""
    cross = matvec(state.cov, now.readout)
    return Innovation(cross, *compared(now, dot(now.readout, state.mean), dot(now.readout, cross)))


def observe(now: Records, state: Moments, precise: bool) -> tuple[Moments, jax.Array]:
    """The state given one output too, and the log density of that."""
    found = innovation(now, state)
    cross, precision, density = found.cross, found.precision, found.log_density(now)
    mean = state.mean + found.pull * cross
    if not precise:
        return Moments(mean, state.cov - precision * outer(cross, cross)), density
    gain = precision * cross
    left = state.cov - outer(gain, cross)
    cov = left - outer(matvec(left, now.readout), gain) + found.spread * outer(cross, cross)
    return Moments(mean, symmetric(cov)), density


def unobserve(now: Records, state: Moments, later: Adjoint) -> tuple[Adjoint, Found]:
    """Derivatives in the state before one output, from those after it; see `_steps`."""
    cross, pull, precision = innovation(now, state)[:3]
    h, gain = now.readout, precision * cross
    bent = matvec(later.curvature, gain)
    weight = pull - dot(gain, later.slope)
    curvature = precision + dot(gain, bent)
    in_noise = 0.5 * (weight**2 - curvature)
    through = matvec(state.cov, weight * later.slope + bent)
    in_readout = weight * state.mean + 2 * in_noise * cross + now.seen * through
    mixed = outer(bent, h)
    before = later.curvature - mixed - jnp.swapaxes(mixed, 0, 1) + curvature * outer(h, h)
    adjoint = Adjoint(later.slope + weight * h, before)
    nothing = jnp.zeros_like(weight)
    in_records: tuple[Any, ...] = (-weight, in_noise, nothing, None)
    if now.scale is not None:
        mean = dot(h, state.mean) + dot(cross, adjoint.slope)
        variance = dot(h, cross) - dot(cross, matvec(before, cross))
        in_records = factor_gradient(now, mean, variance)
    return adjoint, Found(weight, curvature, in_readout, in_records)


def absorb(
    cov: jax.Array, precision: jax.Array, definite: bool = True
) -> tuple[jax.Array, jax.Array]:
    r"""$(P^{-1} + J)^{-1}$ and $\log|I + P J|$ of a semi-definite $P$, without an inverse.

    $J$ is taken apart to scalar observations, as in `_steps.absorb`, those first that say most:
    without that order, what rounding leaves of a matrix of low rank would be divided by itself.
    """
    d = len(cov)

    def step(_: Any, carry: Any) -> Any:
        cov, left, done, log_det = carry
        says = jnp.where(done, -1.0, jnp.abs(diagonal(left)) * diagonal(cov))
        chosen = jax.nn.one_hot(jnp.argmax(says, axis=0), d, axis=0, dtype=cov.dtype)
        column = jnp.where(done, 0.0, matvec(left, chosen))
        pivot = dot(column, chosen)
        direction = jnp.where(pivot != 0, column / jnp.where(pivot != 0, pivot, 1.0), 0.0)
        cross = matvec(cov, direction)
        ratio = pivot * dot(direction, cross)
        cov = cov - pivot / (1 + ratio) * outer(cross, cross)
        left = left - pivot * outer(direction, direction)
        log_det = log_det + (jnp.log1p(ratio) if definite else jnp.log(jnp.abs(1 + ratio)))
        return cov, left, done | (chosen > 0), log_det

    start = cov, precision, jnp.zeros(cov.shape[1:], bool), jnp.zeros_like(cov[0, 0])
    cov, _, _, log_det = jax.lax.fori_loop(0, d, step, start)
    return cov, log_det


def diagonal(p: jax.Array) -> jax.Array:
    """The diagonal, `(d,)`."""
    places = jnp.arange(len(p))
    return p[places, places]
