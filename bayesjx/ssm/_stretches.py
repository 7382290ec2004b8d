"""Parts of a series as functions of the state before them, and how they join."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import _array_steps as steps
from ._array_steps import Adjoint, Moments


class Stretch(NamedTuple):
    """A part of a series, or several as the last axis, see `_steps.Element`."""

    matrix: jax.Array
    mean: jax.Array
    cov: jax.Array
    shift: jax.Array
    precision: jax.Array
    log_density: jax.Array


def join(first: Stretch, second: Stretch, definite: bool = True) -> Stretch:
    r"""Two parts as one; no covariance is inverted, so steps of length 0 are fine.

    Args:
        first: the earlier one.
        second: the later one.
        definite: see `absorb`.

    References:
        Särkkä and García-Fernández (2021), "Temporal parallelization of Bayesian smoothers", IEEE
        Transactions on Automatic Control, lemma 8, with
        $(I + C J)^{-1} = I - (C^{-1} + J)^{-1} J$.
    """
    cov, log_det = steps.absorb(first.cov, second.precision, definite)
    gap = second.shift - steps.matvec(second.precision, first.mean)
    moved = steps.matvec(cov, gap)
    density = first.log_density + second.log_density - 0.5 * log_det
    density = density + 0.5 * (steps.dot(gap, moved) + steps.dot(first.mean, second.shift + gap))
    # Each product is with a vector or a covariance, in the order that has the fewest of them.
    kept = first.matrix - steps.matmul(cov, steps.matmul(second.precision, first.matrix))
    slope = gap - steps.matvec(second.precision, moved)
    back = jnp.swapaxes(first.matrix, 0, 1)
    bent = steps.matmul(back, steps.matmul(second.precision, kept))
    forth = jnp.swapaxes(second.matrix, 0, 1)
    return Stretch(
        steps.matmul(second.matrix, kept),
        second.mean + steps.matvec(second.matrix, first.mean + moved),
        second.cov + steps.symmetric(steps.matmul(second.matrix, steps.matmul(cov, forth))),
        first.shift + steps.matvec(back, slope),
        first.precision + steps.symmetric(bent),
        density,
    )


def starts(
    stretches: Stretch, associative: bool, definite: bool = True
) -> tuple[Moments, jax.Array]:
    """States before each part, where there is nothing before the first, and the log density."""
    listed = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), stretches)
    if associative:
        both = jax.vmap(lambda first, second: join(first, second, definite))
        so_far = jax.lax.associative_scan(both, listed)
        kept = jax.tree.map(_later, Moments(so_far.mean, so_far.cov))
        return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), kept), so_far.log_density[-1]

    def step(carry: Any, part: Stretch) -> Any:
        state, total = carry
        start = Stretch(part.matrix, state.mean, state.cov, *_said_nothing(state), total)
        after = join(start, part, definite)
        return (Moments(after.mean, after.cov), after.log_density), state

    first = jax.tree.map(lambda leaf: jnp.zeros_like(leaf[0]), Moments(listed.mean, listed.cov))
    (_, total), kept = jax.lax.scan(step, (first, jnp.zeros_like(first.mean[0])), listed)
    return jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), kept), total


def futures(stretches: Stretch, associative: bool) -> tuple[jax.Array, jax.Array]:
    """What comes after each part says about the state at its end: shift and precision."""
    listed = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), stretches)
    if associative:
        backward = jax.vmap(lambda later, earlier: join(earlier, later))
        rest = jax.lax.associative_scan(backward, listed, reverse=True)
        shift, precision = _earlier(rest.shift), _earlier(rest.precision)
        return jnp.moveaxis(shift, 0, -1), jnp.moveaxis(precision, 0, -1)

    def step(later: Any, part: Stretch) -> Any:
        adjoint = seen_from(Moments(part.mean, part.cov), *later)
        back = jnp.swapaxes(part.matrix, 0, 1)
        bent = steps.matmul(back, steps.matmul(adjoint.curvature, part.matrix))
        shift = part.shift + steps.matvec(back, adjoint.slope)
        return (shift, part.precision + steps.symmetric(bent)), later

    nothing = jnp.zeros_like(listed.shift[0]), jnp.zeros_like(listed.precision[0])
    _, (shift, precision) = jax.lax.scan(step, nothing, listed, reverse=True)
    return jnp.moveaxis(shift, 0, -1), jnp.moveaxis(precision, 0, -1)


def seen_from(state: Moments, shift: jax.Array, precision: jax.Array) -> Adjoint:
    """Derivatives in the mean of a state of the log density of what comes later."""
    cov, _ = steps.absorb(state.cov, precision)
    gap = shift - steps.matvec(precision, state.mean)
    slope = gap - steps.matvec(precision, steps.matvec(cov, gap))
    bent = steps.matmul(precision, steps.matmul(cov, precision))
    return Adjoint(slope, steps.symmetric(precision - bent))


def _said_nothing(state: Moments) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros_like(state.mean), jnp.zeros_like(state.cov)


def _later(array: jax.Array) -> jax.Array:
    return jnp.concatenate([jnp.zeros_like(array[:1]), array[:-1]])


def _earlier(array: jax.Array) -> jax.Array:
    return jnp.concatenate([array[1:], jnp.zeros_like(array[:1])])
