"""Filter steps with roots of covariances, $P = S S^T$: never indefinite, in any precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import _array_steps as steps
from ._array_steps import Records
from ._steps import LOG_2PI


class Rooted(NamedTuple):
    """Mean `(d,)` of a state and a root of its covariance `(d, d)`."""

    mean: jax.Array
    root: jax.Array


def of_blocks(noise: jax.Array) -> jax.Array:
    """Lower triangular roots of positive semi-definite blocks `(blocks, k, k)`."""
    k = noise.shape[-1]
    root = jnp.zeros_like(noise)
    for j in range(k):
        known = jnp.sum(root[:, j:, :j] * root[:, j, None, :j], axis=-1)
        column = noise[:, j:, j] - known
        pivot = jnp.maximum(column[:, :1], 0)
        inverse = jnp.where(pivot > 0, jax.lax.rsqrt(jnp.where(pivot > 0, pivot, 1.0)), 0.0)
        root = root.at[:, j:, j].set(column * inverse)
    return root


def predict(matrix: jax.Array, added: jax.Array, state: Rooted) -> Rooted:
    """The state a step later, where the noise has this root."""
    d = len(state.mean)
    mean = steps.times_blocks(matrix, state.mean[:, None])[:, 0]
    moved = steps.times_blocks(matrix, state.root)
    new = steps.add_blocks(jnp.zeros((d, d), moved.dtype), added)
    return Rooted(mean, triangular(jnp.concatenate([moved, new], axis=1)))


def triangular(wide: jax.Array) -> jax.Array:
    r"""Lower triangular $L$ with $L L^T = M M^T$, of `(d, m)`, by orthogonalising the rows.

    Modified Gram-Schmidt, whose triangular factor is as accurate as that of Householder's method;
    rows that are 0 give columns that are.
    """
    d = len(wide)

    def step(i: Any, carry: Any) -> Any:
        rows, found = carry
        row = rows[i]
        length = jnp.sqrt(jnp.sum(row**2))
        unit = row / jnp.where(length > 0, length, 1.0)
        # Rows before this one are 0 now, so that only the triangle is filled.
        column = jnp.sum(rows * unit, axis=1)
        return rows - column[:, None] * unit, found.at[:, i].set(column)

    return jax.lax.fori_loop(0, d, step, (wide, jnp.zeros((d, d), wide.dtype)))[1]


def observe(now: Records, state: Rooted) -> tuple[Rooted, jax.Array]:
    """The state given one output too, and its log density.

    References:
        Potter's update: Bierman (1977), "Factorization methods for discrete sequential
        estimation", section V.2.
    """
    side = state.root.T @ now.readout
    variance = jnp.where(now.seen > 0, side @ side + now.noise, 1.0)
    value = jnp.where(now.seen > 0, now.y - now.readout @ state.mean, 0.0)
    precision = now.seen / variance
    cross = state.root @ side
    shrink = precision / (1 + jnp.sqrt(now.noise * precision))
    density = -0.5 * (now.seen * (LOG_2PI + jnp.log(variance)) + value**2 * precision)
    root = state.root - shrink * jnp.outer(cross, side)
    return Rooted(state.mean + value * precision * cross, root), density
