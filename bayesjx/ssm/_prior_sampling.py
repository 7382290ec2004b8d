"""Draws of whole paths of a state-space model."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp

from . import _unrolled as unrolled
from ._dynamics import block_dynamics, padded
from ._spaces import AbstractStateSpace
from ._square_root import block_cholesky


def prior_paths(
    key: jax.Array,
    space: AbstractStateSpace,
    before: jax.Array,
    steps: jax.Array,
    shape: tuple[int, ...] = (),
) -> jax.Array:
    """Draws of the function at sorted times, shape `(*shape, n)`, by an associative scan.

    Args:
        key: random key.
        space: with few states.
        before: time before each time, for the first its own, shape `(n,)`.
        steps: time since then, shape `(n,)`.
        shape: of the sample.
    """
    n, d, dtype = len(steps), space.size, steps.dtype
    a = unrolled.filled(space.transition(steps), (n,), dtype)
    added = unrolled.filled(space.noise(before, steps), (n,), dtype)
    first = space.marginal(before[:1])
    # The first state is one of the prior, which its step of length 0 adds to nothing.
    added = jax.tree.map(
        lambda q, p: q.at[0].set(jnp.reshape(jnp.asarray(p, dtype), ())), added, first
    )
    draws = jax.random.normal(key, (d, *shape, n), dtype)
    noise = unrolled.matvec(unrolled.cholesky(added), tuple(draws))
    noise = unrolled.filled(noise, (*shape, n), dtype)
    matrices = unrolled.filled(a, (*shape, n), dtype)
    states = jax.lax.associative_scan(_then, (matrices, noise), axis=-1)[1]
    return unrolled.filled(unrolled.dot(space.readout, states), (*shape, n), dtype)


def _then(earlier: Any, later: Any) -> Any:
    (a1, b1), (a2, b2) = earlier, later
    both = unrolled.matmul(a2, a1), unrolled.add(unrolled.matvec(a2, b1), b2)
    return unrolled.filled(both, b1[0].shape, b1[0].dtype)


def prior_paths_of_outputs(
    key: jax.Array,
    space: AbstractStateSpace,
    before: jax.Array,
    steps: jax.Array,
    shape: tuple[int, ...],
    readout: Any,
) -> jax.Array:
    """Draws of outputs `(p, d)` or `(n, p, d)` of any state, `(*shape, n, p)`, step by step."""
    n, dtype, draws = len(steps), steps.dtype, math.prod(shape)
    dynamics = block_dynamics(space, before, steps)
    rows = padded(space, readout).astype(dtype)
    count, k = dynamics.matrix.shape[1:3]
    varying = rows if rows.ndim == 3 else None

    def step(states: jax.Array, inputs: Any) -> tuple[jax.Array, jax.Array]:
        matrix, root, key, now = inputs
        noise = jax.random.normal(key, states.shape, dtype)
        both = jnp.concatenate([matrix, root], axis=2)
        states = jnp.matmul(both, jnp.concatenate([states, noise], axis=1), precision="highest")
        return states, (rows if now is None else now) @ states.reshape(count * k, draws)

    start = jnp.zeros((count, k, draws), dtype)
    roots = jax.vmap(block_cholesky)(dynamics.noise)
    inputs = (dynamics.matrix, roots, jax.random.split(key, n), varying)
    path = jax.lax.scan(step, start, inputs)[1]
    return jnp.moveaxis(path, -1, 0).reshape(*shape, n, -1)
