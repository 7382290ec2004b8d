"""Fits in many dimensions: Gaussians by curvature, and transitions that check and mend them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random

from ._moves import (
    look,
)
from ._normal_mixture import (
    DenseNormal,
    KrylovNormal,
    weigh,
)
from ._posterior_fit import (
    PosteriorFit,
)
from ._unconstrained import (
    Unconstrained,
)

_PROBES = 100  # random signs for the diagonal of the Hessian
_KRYLOV = 100  # dimensions of the subspace
_POINTS = 16  # draws at which the curvature is averaged
_ROUNDS = 4  # of transitions, each from a Gaussian with the mean and curvature of the last
_COLUMNS = 100  # of a Hessian at once
_FEW = 100.0


def fit_checked(
    keys: Any,
    density: Unconstrained,
    normal: DenseNormal | KrylovNormal,
    notes: tuple[str, ...],
    collapses: bool,
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
    for number in range(_ROUNDS):
        moved, change = look(next(keys), density, normal)
        if bool(change.reliable) or number == _ROUNDS - 1:
            break
        refitted = dense_at if isinstance(normal, DenseNormal) else krylov_at
        normal = refitted(next(keys), density, moved.draws)
    return PosteriorFit.of_moves(density, normal, weighed, moved, change, notes)


@eqx.filter_jit
def dense_at(key: jax.Array, density: Any, draws: jax.Array) -> DenseNormal:
    """The Gaussian with the mean of draws and the mean curvature at some of them."""
    loc, points = jnp.mean(draws, axis=0), _some(key, draws)
    columns = jnp.eye(loc.size, dtype=loc.dtype)
    hessian = jax.lax.map(_products(density, points), columns, batch_size=_COLUMNS)
    root = jnp.sqrt(jnp.abs(jnp.diag(hessian)))  # units of the coordinates
    values, vectors = jnp.linalg.eigh(0.5 * (hessian + hessian.T) / root / root[:, None])
    values = _positive(values)
    factor = vectors / jnp.sqrt(values) / root[:, None]
    upper = jnp.linalg.qr(factor.T, mode="r")
    sign = jnp.where(jnp.diag(upper) < 0, -1.0, 1.0).astype(loc.dtype)
    return DenseNormal(loc, jnp.tril(upper.T * sign))


def krylov_at(key: jax.Array, density: Any, draws: jax.Array) -> KrylovNormal:
    """As `dense_at`, on a Krylov subspace: $O(d k)$ numbers of memory, no Hessian.

    Args:
        key: randomness.
        density: log density of a vector.
        draws: shape `(s, d)`; a single one is a mode.
    """
    return _best(key, density, draws, len(draws) > 1)


@eqx.filter_jit
def _best(key: jax.Array, density: Any, draws: jax.Array, measured: bool) -> KrylovNormal:
    """The best of several scalings of the coordinates, by the evidence lower bound.

    Where data inform each coordinate by itself, curvature is even in the coordinates that the
    diagonal of the Hessian scales; where they inform a few directions, in those of the prior, for
    which stand coordinates as they are, or scaled by the standard deviations of draws.
    """
    pick_key, probe_key, start_key, bound_key = random.split(key, 4)
    loc, points = jnp.mean(draws, axis=0), _some(pick_key, draws)
    times = _products(density, points)

    def probe(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        signs = random.rademacher(key, loc.shape, loc.dtype)
        product = times(signs)
        return signs * product, product**2

    probed = jax.lax.map(probe, random.split(probe_key, _PROBES))
    diagonal, squares = (jnp.mean(x, axis=0) for x in probed)
    rows = jnp.sqrt(squares) + jnp.finfo(loc.dtype).tiny
    roots = [jnp.sqrt(jnp.where(diagonal > 0.05 * rows, diagonal, rows)), jnp.ones_like(loc)]
    if measured:
        roots.append(1 / jnp.std(draws, axis=0))
    start = random.normal(start_key, loc.shape, loc.dtype)
    normals = [krylov(times, loc, root, diagonal, start) for root in roots]
    bounds = jnp.stack([_bound(bound_key, density, normal) for normal in normals])
    best = jnp.argmax(jnp.where(jnp.isnan(bounds), -jnp.inf, bounds))
    return jax.tree.map(lambda *leaves: jnp.stack(leaves)[best], *normals)


def _bound(key: jax.Array, density: Any, normal: KrylovNormal) -> jax.Array:
    draws = normal.sample(key, 100)
    return jnp.mean(jax.lax.map(density, draws, batch_size=_COLUMNS) - normal.log_prob(draws))


def krylov(
    times: Callable[[jax.Array], jax.Array],
    loc: jax.Array,
    root: jax.Array,
    diagonal: jax.Array,
    start: jax.Array,
) -> KrylovNormal:
    """A Gaussian whose precision is a matrix on a Krylov subspace, and constant beside it.

    Args:
        times: products with the matrix.
        loc: mean.
        root: what coordinates are multiplied with first.
        diagonal: of the matrix, estimated; its trace is what counts.
        start: of the Lanczos iteration.
    """
    steps = min(_KRYLOV, loc.size)
    basis, inner = _lanczos(lambda v: times(v / root) / root, start, steps)
    values, vectors = jnp.linalg.eigh(inner)
    values = _positive(values)
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


def _positive(values: jax.Array) -> jax.Array:
    """Eigenvalues in ascending order, away from zero: those of a ridge or a saddle count, too."""
    size = jnp.maximum(jnp.abs(values[0]), jnp.abs(values[-1]))
    return jnp.maximum(jnp.abs(values), jnp.finfo(values.dtype).eps ** 0.75 * size)


def _products(density: Any, points: jax.Array) -> Callable[[jax.Array], jax.Array]:
    """Products with the mean over points of the negative Hessian."""
    slope = jax.grad(density)

    def times(vector: jax.Array) -> jax.Array:
        product = lambda point: jax.jvp(slope, (point,), (vector,))[1]  # noqa: E731
        products = jax.lax.map(product, points)
        good = jnp.all(jnp.isfinite(products), axis=1, keepdims=True)
        return -jnp.sum(jnp.where(good, products, 0.0), axis=0) / jnp.maximum(jnp.sum(good), 1)

    return times


def _some(key: jax.Array, draws: jax.Array) -> jax.Array:
    number = min(_POINTS, len(draws))
    return draws[random.choice(key, len(draws), (number,), replace=False)]


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
        following = jnp.where(done, 0.0, product / jnp.where(done, 1.0, norm))
        return (basis, following), (along, jnp.where(done, 0.0, norm))

    empty = jnp.zeros((num_steps, d), start.dtype)
    first = empty, start / jnp.linalg.norm(start)
    (basis, _), (along, beside) = jax.lax.scan(step, first, jnp.arange(num_steps))
    beside = beside[:-1]
    return basis.T, jnp.diag(along) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
