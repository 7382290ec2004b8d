"""A search that only the signs of the gradient steer: for starts where the density explodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax


class BestPoint(NamedTuple):
    """The best point of a search and its value."""

    point: jax.Array
    value: jax.Array


def sign_search(
    value: Callable[[jax.Array], jax.Array], start: jax.Array, num_steps: int = 50
) -> BestPoint:
    """The lowest point that resilient back-propagation (Rprop) visits.

    Its steps do not depend on the size of the gradient, so that it leaves regions where a line
    search stalls: values of 1e80 of an explosive recursion, a narrow valley far from the mode.

    Args:
        value: of a flat vector, to be lowered.
        start: where to begin.
        num_steps: how many.

    References:
        Riedmiller and Braun (1993), "A direct adaptive method for faster backpropagation learning:
        the RPROP algorithm"; run by Optax.
    """
    solver = optax.rprop(0.1)

    def step(carry: tuple, _: None) -> tuple[tuple, None]:
        point, state, best = carry
        now, gradient = jax.value_and_grad(value)(point)
        better = now < best.value
        best = BestPoint(
            *(jnp.where(better, a, b) for a, b in zip((point, now), best, strict=True))
        )
        usable = jnp.all(jnp.isfinite(gradient)) & jnp.isfinite(now)
        # From where nothing is finite, halfway back to the best point.
        updates, after = solver.update(jnp.where(usable, gradient, 0.0), state, point)
        moved = jnp.where(usable, point + jnp.asarray(updates), (point + best.point) / 2)
        return (moved, after, best), None

    worst = BestPoint(start, jnp.asarray(jnp.inf, start.dtype))
    carry, _ = jax.lax.scan(step, (start, solver.init(start), worst), length=num_steps)
    return carry[2]
