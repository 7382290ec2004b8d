"""The square-root Kalman filter, $P = S S^T$: never indefinite, in any precision."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._dense_algebra import DENSE
from ._dynamics import AbstractDynamics
from ._steps import log_factors, Moments, Observations


class SquareRoot(NamedTuple):
    """Mean `(d,)` of a state and a root of its covariance `(d, d)`."""

    mean: Float[Array, "d ..."]
    root: Float[Array, "d d ..."]


def forward(
    dynamics: AbstractDynamics,
    observations: Observations,
    state: Moments,
    precise: bool,
    keep: bool = True,
) -> tuple[Moments, jax.Array, Any]:
    """The filter of `_passes.forward` with roots of covariances; the state before it is 0."""
    matrices, noise = dynamics.inputs

    def step(carry: Any, inputs: Any) -> Any:
        (matrix, added), now = inputs
        kept = Moments(carry[0].mean, _square(carry[0].root)) if keep else None
        readout = observations.readout if now.readout is None else now.readout
        predicted = predict(matrix, added, carry[0])

        def observe(carry: Any, one: Observations) -> Any:
            state, exponent, determinant = update(one, carry[0])
            return (state, carry[1] + exponent), determinant

        carry, determinants = jax.lax.scan(
            observe, (predicted, carry[1]), now._replace(readout=readout)
        )
        return carry, (kept, determinants)

    moving = observations
    if observations.readout.ndim == observations.y.ndim:
        moving = observations._replace(readout=None)
    start = (SquareRoot(*state), jnp.zeros_like(dynamics.like))
    inputs = ((matrices, jax.vmap(block_cholesky)(noise)), moving)
    (last, total), (kept, determinants) = jax.lax.scan(step, start, inputs)
    total = total + log_factors(observations, determinants, 0)
    return Moments(last.mean, _square(last.root)), total, kept


def block_cholesky(noise: jax.Array) -> jax.Array:
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


def predict(matrix: jax.Array, added: jax.Array, state: SquareRoot) -> SquareRoot:
    """The state a step later, where the process noise has this root."""
    moved = DENSE.apply_to_square(matrix, state.root)
    new = DENSE.add_noise(jnp.zeros_like(moved), added)
    root = triangular(jnp.concatenate([moved, new], axis=1))
    return SquareRoot(DENSE.apply(matrix, state.mean), root)


def triangular(wide: jax.Array) -> jax.Array:
    r"""Lower triangular $L$ with $L L^T = M M^T$, of `(d, m)`, by orthogonalising the rows.

    Modified Gram-Schmidt, whose triangular factor is as accurate as that of Householder's method;
    rows that are 0 give columns that are.
    """
    d = len(wide)

    def step(i: Any, carry: Any) -> Any:
        rows, lower = carry
        row = rows[i]
        length = jnp.sqrt(jnp.sum(row**2))
        unit = row / jnp.where(length > 0, length, 1.0)
        # Rows before this one are 0 now, so that only the triangle is filled.
        column = jnp.sum(rows * unit, axis=1)
        return rows - column[:, None] * unit, lower.at[:, i].set(column)

    return jax.lax.fori_loop(0, d, step, (wide, jnp.zeros((d, d), wide.dtype)))[1]


def update(now: Observations, state: SquareRoot) -> tuple[SquareRoot, jax.Array, jax.Array]:
    """The state given one output too, and exponent and variance of its density.

    References:
        Potter's update: Bierman (1977), "Factorization methods for discrete sequential
        estimation", section V.2.
    """
    side = state.root.T @ now.readout
    variance = jnp.where(now.observed > 0, side @ side + now.noise_var, 1.0)
    residual = jnp.where(now.observed > 0, now.y - now.readout @ state.mean, 0.0)
    precision = now.observed / variance
    cross = state.root @ side
    shrink = precision / (1 + jnp.sqrt(now.noise_var * precision))
    root = state.root - shrink * jnp.outer(cross, side)
    exponent = -0.5 * residual**2 * precision
    return SquareRoot(state.mean + residual * precision * cross, root), exponent, variance


def _square(root: jax.Array) -> jax.Array:
    return jnp.matmul(root, root.T, precision="highest")
