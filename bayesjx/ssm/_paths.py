"""Draws of whole paths of a state-space model with few states, by an associative scan."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from . import _algebra as alg
from ._algebra import Matrix, Vector
from ._spaces import AbstractStateSpace


def prior_paths(
    key: jax.Array,
    space: AbstractStateSpace,
    before: jax.Array,
    steps: jax.Array,
    shape: tuple[int, ...] = (),
) -> jax.Array:
    """Draws of the function at sorted times, shape `(*shape, n)`.

    Args:
        key: random key.
        space: law of the state.
        before: time before each time, for the first its own, shape `(n,)`.
        steps: time since then, shape `(n,)`.
        shape: of the sample.
    """
    n, d, dtype = len(steps), space.size, steps.dtype
    a = alg.filled(space.transition(steps), (n,), dtype)
    added = alg.filled(space.noise(before, steps), (n,), dtype)
    first = space.marginal(before[:1])
    # The first state comes from the prior law, which its step of length 0 adds to nothing.
    added = jax.tree.map(
        lambda q, p: q.at[0].set(jnp.reshape(jnp.asarray(p, dtype), ())), added, first
    )
    root = cholesky(added)
    draws = jax.random.normal(key, (d, *shape, n), dtype)
    noise = alg.matvec(root, tuple(draws))
    noise = alg.filled(noise, (*shape, n), dtype)
    turns = alg.filled(a, (*shape, n), dtype)
    states = jax.lax.associative_scan(_then, (turns, noise), axis=-1)[1]
    return alg.filled(alg.dot(space.readout, states), (*shape, n), dtype)


def _then(earlier: Any, later: Any) -> tuple[Matrix, Vector]:
    (a1, b1), (a2, b2) = earlier, later
    shape, dtype = b1[0].shape, b1[0].dtype
    moved = alg.matmul(a2, a1), alg.add(alg.matvec(a2, b1), b2)
    return alg.filled(moved, shape, dtype)


def cholesky(p: Matrix) -> Matrix:
    """A lower triangular root of a positive semi-definite matrix; columns may be 0."""
    d = len(p)
    rows: list[list[Any]] = [[0] * d for _ in range(d)]
    for j in range(d):
        known = alg.dot(tuple(rows[j][:j]), tuple(rows[j][:j]))
        left = jnp.maximum(alg.minus(p[j][j], known), 0)
        rows[j][j] = jnp.sqrt(left)
        inverse = jnp.where(left > 0, 1 / jnp.sqrt(jnp.where(left > 0, left, 1.0)), 0.0)
        for i in range(j + 1, d):
            known = alg.dot(tuple(rows[i][:j]), tuple(rows[j][:j]))
            rows[i][j] = alg.times(alg.minus(p[i][j], known), inverse)
    return tuple(map(tuple, rows))
