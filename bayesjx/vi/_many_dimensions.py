"""Fits in many dimensions: a Gaussian, and transitions of Hamiltonian Monte Carlo that check it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random

from ._batch_and_match import batch_and_match
from ._moves import look
from ._normal_mixture import KrylovNormal, LowRankNormal, weigh
from ._posterior_fit import PosteriorFit
from ._unconstrained import Unconstrained

_RANK = 16
_STEPS = 300  # of batch and match
_PROBES = 100  # random signs for the diagonal of the Hessian
_KRYLOV = 100  # dimensions of the subspace
_ROUNDS = 3  # of transitions, each from a Gaussian with the moments of the last
_FEW = 100.0


def fit_checked(
    keys: Any, density: Unconstrained, normal: Any, notes: tuple[str, ...], collapses: bool
) -> PosteriorFit:
    """The fit from a Gaussian, trusted by its weights or else if transitions leave its moments.

    Weights of many dimensions vary more than those of few at the same error of each: in hundreds
    of them k-hat condemns Gaussians whose means and standard deviations are right.
    """
    weighed = weigh(next(keys), density, normal, 1000)
    if collapses:
        return PosteriorFit.of(density, normal, weighed, notes, math.inf)
    if bool(weighed.weights.reliable) and float(weighed.weights.ess) >= _FEW:
        return PosteriorFit.of(density, normal, weighed, notes, _FEW)
    for _ in range(_ROUNDS):
        used = normal
        moved, change, normal = look(next(keys), density, used)
        if bool(change.reliable):
            break
    return PosteriorFit.of_moves(density, used, weighed, moved, change, notes)


def low_rank(key: jax.Array, density: Unconstrained, loc: jax.Array) -> LowRankNormal:
    """Batch and match with a covariance of low rank plus diagonal, from the curvature at a mode."""
    return _matched(key, density, loc, min(_RANK, density.dim))


@eqx.filter_jit
def _matched(key: jax.Array, density: Unconstrained, loc: jax.Array, rank: int) -> Any:
    probe_key, step_key = random.split(key)

    def curvature(key: jax.Array) -> jax.Array:
        probe = random.rademacher(key, loc.shape, loc.dtype)
        return -probe * jax.jvp(jax.grad(density), (loc,), (probe,))[1]

    diagonal = jnp.mean(jax.lax.map(curvature, random.split(probe_key, 30)), axis=0)
    typical = jnp.median(jnp.abs(diagonal))
    diagonal = jnp.maximum(diagonal, 1e-3 * typical)
    algorithm = batch_and_match(density, num_draws=32, rank=rank)
    state = algorithm.init(loc, 1 / diagonal)

    def step(state: Any, number: jax.Array) -> tuple[Any, None]:
        return algorithm.step(random.fold_in(step_key, number), state)[0], None

    state = jax.lax.scan(step, state, jnp.arange(_STEPS))[0]
    return LowRankNormal(state.loc, state.factor, state.diagonal)


@eqx.filter_jit
def curved(key: jax.Array, density: Any, loc: jax.Array) -> KrylovNormal:
    """Laplace's Gaussian at a mode, by products with the Hessian; $O(d k)$ numbers of memory.

    Coordinates are scaled by the diagonal of the Hessian, which random signs estimate (Hutchinson).
    In them, the curvature is that of the Hessian on a Krylov subspace, which holds its largest and
    smallest eigenvalues, and constant beside it.
    """
    probe_key, start_key = random.split(key)
    slope = jax.grad(density)

    def times(vector: jax.Array) -> jax.Array:
        return -jax.jvp(slope, (loc,), (vector,))[1]

    def probe(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        signs = random.rademacher(key, loc.shape, loc.dtype)
        product = times(signs)
        return signs * product, product**2

    probed = jax.lax.map(probe, random.split(probe_key, _PROBES))
    diagonal, squares = (jnp.mean(x, axis=0) for x in probed)
    rows = jnp.sqrt(squares) + jnp.finfo(loc.dtype).tiny
    root = jnp.sqrt(jnp.where(diagonal > 0.05 * rows, diagonal, rows))
    steps = min(_KRYLOV, loc.size)
    start = random.normal(start_key, loc.shape, loc.dtype)
    basis, inner = _lanczos(lambda v: times(v / root) / root, start, steps)
    values, vectors = jnp.linalg.eigh(inner)
    values = jnp.maximum(jnp.abs(values), jnp.finfo(loc.dtype).eps ** 0.5 * values[-1])
    basis = basis @ vectors
    # A subspace that was complete before leaves columns of zeros.
    real = jnp.sum(basis**2, axis=0) > 0.5
    # What the trace leaves for each direction outside of the subspace.
    rest = jnp.sum(diagonal / root**2) - jnp.sum(jnp.where(real, values, 0.0))
    outside = rest / jnp.maximum(loc.size - jnp.sum(real), 1).astype(loc.dtype)
    outside = jnp.maximum(outside, jnp.min(jnp.where(real, values, jnp.inf)))
    values = jnp.where(real, values, outside)
    # Between the eigenvectors the Cholesky factor is diagonal.
    inner_tril = jnp.diag(jnp.sqrt(outside / values))
    return KrylovNormal(loc, 1 / (root * jnp.sqrt(outside)), basis, inner_tril)


def _lanczos(
    times: Callable[[jax.Array], jax.Array], start: jax.Array, num_steps: int
) -> tuple[jax.Array, jax.Array]:
    """An orthonormal basis of the Krylov subspace, shape `(d, k)`, and the matrix on it."""
    d = start.size

    def step(carry: tuple, number: jax.Array) -> tuple[tuple, tuple]:
        basis, vector = carry
        basis = basis.at[number].set(vector)
        product = times(vector)
        along = vector @ product
        for _ in range(2):  # against rounding
            product = product - basis.T @ (basis @ product)
        norm = jnp.linalg.norm(product)
        done = norm <= jnp.finfo(start.dtype).eps * d * jnp.abs(along)
        return (basis, jnp.where(done, 0.0, product / jnp.where(done, 1.0, norm))), (
            along,
            jnp.where(done, 0.0, norm),
        )

    empty = jnp.zeros((num_steps, d), start.dtype)
    first = empty, start / jnp.linalg.norm(start)
    (basis, _), (along, beside) = jax.lax.scan(step, first, jnp.arange(num_steps))
    beside = beside[:-1]
    return basis.T, jnp.diag(along) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
