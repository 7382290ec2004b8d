"""Mixtures of Gaussians as importance densities, adapted to a density by their own weights."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jax.scipy.special import logsumexp

from ..._core import solve_triangular
from ...diagnostics import PSIS, psis
from ...distributions import SubspaceNormal

# Each component stands for three of its shape, two of them wider, and one with heavy tails along
# each coordinate: tails that the weights can bear.
_WIDTHS = (1.0, 1.5, 3.0)
_SHARES = (0.65, 0.15, 0.05)
_TAIL_SHARE, _TAIL_DOF = 0.15, 2.0  # of Student's t
_BATCH = 250  # densities evaluated at once
BLOCK = 1000  # importance draws of one run of a program
_ALONE, _UNEXPLAINED = 0.02, 10.0  # share, and multiple of its smoothed one, of a strange weight


class NormalMixture(eqx.Module):
    r"""A mixture of multivariate Gaussians, each with a share of heavier ones of the same centre.

    Two are wider. The third has Student's t as the marginal of one coordinate, drawn by chance, and
    the Gaussian's conditional of the others: $N(x) \tfrac1d \sum_j t(x_j) / N(x_j)$. Scales and
    probabilities have tails $e^{-a|z|}$ on the unconstrained scale, along their coordinate; a
    Gaussian of any width leaves weights without bound there, and multivariate t has a Gaussian's
    tails along a single one of many coordinates.

    Attributes:
        log_shares: shape `(k,)`.
        locs: shape `(k, d)`.
        trils: lower Cholesky factors of the covariances, shape `(k, d, d)`.
        wide: whether there are heavier ones.
    """

    log_shares: jax.Array
    locs: jax.Array
    trils: jax.Array
    wide: bool = eqx.field(static=True, default=True)

    def sample(self, key: jax.Array, num_draws: int) -> jax.Array:
        """Shape `(num_draws, d)`."""
        which_key, width_key, noise_key, tail_key, axis_key = random.split(key, 5)
        dtype, d = self.locs.dtype, self.locs.shape[1]
        widths, shares = self._widths
        which = random.categorical(which_key, self.log_shares, shape=(num_draws,))
        width = random.categorical(width_key, jnp.log(shares), shape=(num_draws,))
        noise = random.normal(noise_key, (num_draws, d), dtype) * widths[width][:, None]
        tail = random.t(tail_key, _TAIL_DOF, (num_draws,), dtype)
        axis = random.randint(axis_key, (num_draws,), 0, max(d, 1))

        def one(args: tuple[jax.Array, ...]) -> jax.Array:
            number, width, noise, tail, axis = args
            tril = self.trils[number]
            if self.wide and d:
                row = tril[axis]
                unit = row / jnp.linalg.norm(row)  # of the noise that this coordinate is made of
                heavy = noise + unit * (tail - unit @ noise)
                noise = jnp.where(width == len(_WIDTHS), heavy, noise)
            return self.locs[number] + tril @ noise

        return jax.lax.map(one, (which, width, noise, tail, axis), batch_size=_BATCH)

    @property
    def _widths(self) -> tuple[jax.Array, jax.Array]:
        """Of each of a component's shapes, the last of which has the tails; and their shares."""
        widths, shares = ((*_WIDTHS, 1.0), (*_SHARES, _TAIL_SHARE)) if self.wide else ((1.0,),) * 2
        return jnp.asarray(widths, self.locs.dtype), jnp.asarray(shares, self.locs.dtype)

    def log_prob(self, draws: jax.Array) -> jax.Array:
        """Of each draw, shape `(num_draws,)`."""
        return logsumexp(self.by_component(draws), axis=0)

    def by_component(self, draws: jax.Array) -> jax.Array:
        """Log share times density of each component, shape `(k, num_draws)`."""
        d = self.locs.shape[1]
        widths, shares = (x[:, None] for x in self._widths)
        shares = jnp.log(shares) - d * jnp.log(widths)

        def component(args: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
            log_share, loc, tril = args
            noise = solve_triangular(tril, (draws - loc).T, lower=True)
            parts = shares - 0.5 * jnp.sum(noise**2, axis=0) / widths**2
            if self.wide and d:
                parts = parts.at[-1].add(_log_tails((draws - loc) / jnp.linalg.norm(tril, axis=1)))
            log_det = jnp.sum(jnp.log(jnp.abs(jnp.diag(tril))))
            constant = log_share - 0.5 * d * jnp.log(2 * jnp.pi) - log_det
            return logsumexp(parts, axis=0) + constant

        return jax.lax.map(component, (self.log_shares, self.locs, self.trils))


def _log_tails(scaled: jax.Array) -> jax.Array:
    """Log mean over coordinates of Student's t density over the standard normal's."""
    dof = _TAIL_DOF
    constant = math.lgamma((dof + 1) / 2) - math.lgamma(dof / 2) - 0.5 * math.log(dof / 2)
    ratios = 0.5 * scaled**2 - 0.5 * (dof + 1) * jnp.log1p(scaled**2 / dof) + constant
    return logsumexp(ratios, axis=1) - math.log(scaled.shape[1])


class DenseNormal(eqx.Module):
    """A Gaussian by its mean and the lower Cholesky factor of its covariance."""

    loc: jax.Array
    tril: jax.Array

    @property
    def sd(self) -> jax.Array:
        """Standard deviation of each coordinate."""
        return jnp.linalg.norm(self.tril, axis=1)

    def sample(self, key: jax.Array, num_draws: int) -> jax.Array:
        """Shape `(num_draws, d)`."""
        noise = random.normal(key, (num_draws, self.loc.size), self.loc.dtype)
        return self.loc + noise @ self.tril.T

    def log_prob(self, draws: jax.Array) -> jax.Array:
        """Of each draw, shape `(num_draws,)`."""
        noise = solve_triangular(self.tril, (draws - self.loc).T, lower=True)
        log_det = jnp.sum(jnp.log(jnp.diag(self.tril)))
        constant = 0.5 * self.loc.size * jnp.log(2 * jnp.pi) + log_det
        return -0.5 * jnp.sum(noise**2, axis=0) - constant

    def times_covariance(self, vectors: jax.Array) -> jax.Array:
        """The covariance times each row."""
        return (vectors @ self.tril) @ self.tril.T


class KrylovNormal(eqx.Module):
    """A Gaussian whose covariance is diagonal but for a small subspace: `SubspaceNormal`."""

    loc: jax.Array
    scale: jax.Array
    basis: jax.Array
    inner_tril: jax.Array

    @property
    def _normal(self) -> SubspaceNormal:
        return SubspaceNormal(self.loc, self.scale, self.basis, self.inner_tril)

    @property
    def sd(self) -> jax.Array:
        """Standard deviation of each coordinate."""
        return jnp.sqrt(self._normal.variance)

    def sample(self, key: jax.Array, num_draws: int) -> jax.Array:
        """Shape `(num_draws, d)`."""
        return self._normal.sample(key, (num_draws,))

    def log_prob(self, draws: jax.Array) -> jax.Array:
        """Of each draw, shape `(num_draws,)`."""
        return self._normal.log_prob(draws)

    def times_covariance(self, vectors: jax.Array) -> jax.Array:
        """The covariance times each row."""
        return self._normal.covariance_times(vectors.T).T


class Weighed(eqx.Module):
    """Draws of an importance density with their weights.

    Attributes:
        draws: shape `(s, d)`.
        log_ratios: their log weights as they are, shape `(s,)`.
        weights: Pareto-smoothed log weights with their k-hat and effective sample size.
        log_evidence: log of the mean weight.
        surprise: share of the largest weight where that is far more than the smoothed one: a draw
            in a region that the others tell nothing of; else 0.
    """

    draws: jax.Array
    log_ratios: jax.Array
    weights: PSIS
    log_evidence: jax.Array
    surprise: jax.Array

    def better_than(self, other: Weighed) -> bool:
        """Whether these weights can be trusted more than the others, or as much, and tell more."""
        mine, theirs = self._level, other._level
        return mine > theirs or (mine == theirs and bool(self.weights.ess > other.weights.ess))

    @property
    def _level(self) -> int:
        """How far the weights can be trusted: below k-hat of a half their variance is finite."""
        return int(self.weights.reliable) + int(self.weights.k_hat < 0.5)


def weigh(key: jax.Array, density: Any, proposal: Any, num_draws: int) -> Weighed:
    """Importance weights of fresh draws, a multiple of `BLOCK`; `log_ratios` has the blocks."""
    keys = random.split(key, num_draws // BLOCK)
    blocks = [log_ratios(block_key, density, proposal) for block_key in keys]
    return _weighed(blocks)


@eqx.filter_jit
def log_ratios(key: jax.Array, density: Any, proposal: Any) -> tuple[jax.Array, jax.Array]:
    """Draws and their log weights; without a finite density these are -inf."""
    draws = proposal.sample(key, BLOCK)
    log_p = jax.lax.map(density, draws, batch_size=_BATCH)
    log_weights = log_p - proposal.log_prob(draws)
    return draws, jnp.where(jnp.isnan(log_weights), -jnp.inf, log_weights)


@eqx.filter_jit
def _weighed(blocks: list[tuple[jax.Array, jax.Array]]) -> Weighed:
    draws, log_weights = (jnp.concatenate(x) for x in zip(*blocks, strict=True))
    smoothed = psis(log_weights)
    total = logsumexp(log_weights)
    largest = jnp.exp(jnp.max(log_weights) - total)
    explained = jnp.exp(jnp.max(smoothed.log_weights))
    alone = (largest > _ALONE) & (largest > _UNEXPLAINED * explained)
    evidence = total - jnp.log(1.0 * log_weights.size)
    return Weighed(draws, log_weights, smoothed, evidence, jnp.where(alone, largest, 0.0))


@eqx.filter_jit
def adapted(mixture: NormalMixture, weighed: Weighed) -> NormalMixture:
    """A step of population Monte Carlo: shares and moments from weighted draws.

    Covariances are drawn towards the old ones where few effective draws stand behind them.

    References:
        Cappé, Douc, Guillin, Marin and Robert (2008), "Adaptive importance sampling in general
        mixture classes", Statistics and Computing 18.
    """
    draws, d = weighed.draws, mixture.locs.shape[1]
    parts = mixture.by_component(draws)
    belongs = jax.nn.softmax(parts, axis=0)
    shares = belongs * jnp.exp(weighed.weights.log_weights)

    def component(args: tuple) -> tuple[jax.Array, jax.Array, jax.Array]:
        share, loc, tril = args
        total = jnp.sum(share)
        share = share / jnp.maximum(total, jnp.finfo(share.dtype).tiny)
        effective = 1 / jnp.maximum(jnp.sum(share**2), 1e-12)
        trust = effective / (effective + 4 * d)
        new = share @ draws
        noise = solve_triangular(tril, (draws - new).T, lower=True)
        shift = solve_triangular(tril, (new - loc)[:, None], lower=True)[:, 0]
        eye = jnp.eye(d, dtype=draws.dtype)
        inner = trust * (noise * share) @ noise.T + (1 - trust) * eye
        middle = trust * new + (1 - trust) * loc
        inner = inner + trust * (1 - trust) * jnp.outer(shift, shift)
        factor = tril @ jnp.linalg.cholesky(0.5 * (inner + inner.T))
        good = (effective > 2) & jnp.all(jnp.isfinite(factor)) & jnp.all(jnp.isfinite(middle))
        return total, jnp.where(good, middle, loc), jnp.where(good, factor, tril)

    totals, locs, trils = jax.lax.map(component, (shares, mixture.locs, mixture.trils))
    log_shares = jnp.log(jnp.maximum(totals, 1e-4))
    return NormalMixture(log_shares - logsumexp(log_shares), locs, trils)


@eqx.filter_jit
def split(key: jax.Array, weighed: Weighed, number: int, width: float = 0.6) -> NormalMixture:
    """A mixture whose components sit on weighted draws, each narrower than all of them."""
    weights = jnp.exp(weighed.weights.log_weights)
    mean = weights @ weighed.draws
    shift = weighed.draws - mean
    scale = jnp.sqrt(weights @ shift**2)
    scaled = shift / scale
    d = mean.size
    correlation = (scaled * weights[:, None]).T @ scaled
    eye = jnp.eye(d, dtype=mean.dtype)
    effective = weighed.weights.ess
    trust = effective / (effective + 4 * d)
    tril = scale[:, None] * jnp.linalg.cholesky(trust * correlation + (1 - trust) * eye)
    chosen = resampled(key, weighed.weights.log_weights, number)
    log_shares = jnp.full((number,), -jnp.log(1.0 * number), mean.dtype)
    return NormalMixture(
        log_shares, weighed.draws[chosen], jnp.broadcast_to(width * tril, (number, d, d))
    )


@eqx.filter_jit
def resampled(key: jax.Array, log_weights: jax.Array, number: int) -> jax.Array:
    """Indices drawn by systematic resampling, in random order."""
    offset_key, order_key = random.split(key)
    edges = jnp.cumsum(jnp.exp(log_weights - jnp.max(log_weights)))
    offset = random.uniform(offset_key, (), edges.dtype)
    at = (jnp.arange(number, dtype=edges.dtype) + offset) / number * edges[-1]
    index = jnp.minimum(jnp.searchsorted(edges, at, side="right"), log_weights.size - 1)
    return random.permutation(order_key, index)
