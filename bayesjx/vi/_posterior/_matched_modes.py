"""Gaussians matched to a posterior around its modes, in the coordinates of each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random

from ._batch_and_match import (
    batch_and_match,
    BatchMatchState,
)
from ._modes import Coordinates
from ._normal_mixture import NormalMixture
from ._unconstrained import Unconstrained

_MOST_BLOCKS, _BLOCK = 6, 50  # blocks of steps of batch and match, and steps of one
_SETTLED = 0.05  # change between blocks, in standard deviations, after which it stops


class _InCoordinates(eqx.Module):
    """A density as a function of the coordinates of a mode."""

    density: Any
    loc: jax.Array
    scale: jax.Array

    def __call__(self, u: jax.Array) -> jax.Array:
        return self.density(self.loc + self.scale @ u)


class _Blocks(NamedTuple):
    """Batch and match in blocks of steps, each with its mean and covariance over them.

    Attributes:
        number: blocks done.
        state: of the algorithm.
        loc: mean of the locations of the last block.
        covariance: of the same.
        settled: whether the last block agrees with that before.
    """

    number: jax.Array
    state: BatchMatchState
    loc: jax.Array
    covariance: jax.Array
    settled: jax.Array


@eqx.filter_jit
def _matched(
    key: jax.Array, density: _InCoordinates, num_draws: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Laplace evidence, and mean and Cholesky factor averaged over the last block of steps.

    Averages: a step of weight $B d / t$ leaves Monte Carlo noise of a few per cent in each iterate.
    """
    algorithm = batch_and_match(density, num_draws=num_draws)
    d, dtype = density.loc.size, density.loc.dtype

    def step(carry: Any, number: jax.Array) -> tuple[Any, None]:
        state, loc, square = carry
        state, _ = algorithm.step(random.fold_in(key, number), state)
        second = state.factor @ state.factor.T + jnp.outer(state.loc, state.loc)
        return (state, loc + state.loc / _BLOCK, square + second / _BLOCK), None

    def block(before: _Blocks) -> _Blocks:
        numbers = before.number * _BLOCK + jnp.arange(_BLOCK)
        empty = before.state, jnp.zeros(d, dtype), jnp.zeros((d, d), dtype)
        state, loc, square = jax.lax.scan(step, empty, numbers)[0]
        covariance = square - jnp.outer(loc, loc)
        sd, old = jnp.sqrt(jnp.diag(covariance)), jnp.sqrt(jnp.diag(before.covariance))
        change = jnp.maximum(jnp.abs(loc - before.loc) / old, jnp.abs(sd / old - 1))
        return _Blocks(before.number + 1, state, loc, covariance, jnp.all(change < _SETTLED))

    def go_on(blocks: _Blocks) -> jax.Array:
        return (blocks.number < _MOST_BLOCKS) & ~blocks.settled

    zero = jnp.zeros(d, dtype)
    begin = _Blocks(
        jnp.asarray(0), algorithm.init(zero), zero, jnp.eye(d, dtype=dtype), jnp.asarray(False)
    )
    end = jax.lax.while_loop(go_on, block, begin)
    tril = cholesky_in(density.scale, end.covariance)
    middle = density.loc + density.scale @ end.loc
    good = jnp.all(jnp.isfinite(tril)) & jnp.all(jnp.isfinite(middle))
    laplace = cholesky_in(density.scale, jnp.eye(d, dtype=dtype))
    tril, middle = jnp.where(good, tril, laplace), jnp.where(good, middle, density.loc)
    evidence = density(zero) + jnp.sum(jnp.log(jnp.abs(jnp.diag(tril))))
    return evidence, middle, tril


def match_modes(
    keys: Iterator[jax.Array], density: Unconstrained, coordinates: Sequence[Coordinates]
) -> NormalMixture:
    """A Gaussian by batch and match from each mode, weighed by their Laplace evidence."""
    d = density.dim
    num_draws = 32 if d <= 16 else min(2 * d, 256)
    matched = []
    for coords in coordinates:
        inside = _InCoordinates(density, coords.loc, coords.scale)
        matched.append(_matched(next(keys), inside, num_draws))
    return _together(matched)


@eqx.filter_jit
def _together(matched: list[tuple[jax.Array, ...]]) -> NormalMixture:
    evidences, locs, trils = (jnp.stack(x) for x in zip(*matched, strict=True))
    shares = jax.nn.log_softmax(evidences)
    shares = jnp.logaddexp(shares, jnp.log(0.05 / len(locs)))  # a floor until weights are known
    return NormalMixture(jax.nn.log_softmax(shares), locs, trils)


def cholesky_in(scale: jax.Array, covariance: jax.Array) -> jax.Array:
    """The lower Cholesky factor of `scale @ covariance @ scale.T`."""
    root = scale @ jnp.linalg.cholesky(0.5 * (covariance + covariance.T))
    upper = jnp.linalg.qr(root.T, mode="r")
    sign = jnp.where(jnp.diag(upper) < 0, -1.0, 1.0).astype(root.dtype)
    return jnp.tril(upper.T * sign)
