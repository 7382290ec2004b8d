"""Batch and match: Gaussian variational inference by matching scores, without a step size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random

from ..._core import Algorithm, checked_finite, refuse_where, whole_number

_PATCHES = 5  # steps of expectation maximisation that project a covariance on low rank


class BatchMatchState(NamedTuple):
    """State of `batch_and_match`.

    Attributes:
        loc: mean, shape `(d,)`.
        factor: of the covariance: the lower Cholesky factor, shape `(d, d)`, or with `rank` the
            columns $F$ of $F F^\\top + \\mathrm{diag}(v)$, shape `(d, rank)`.
        diagonal: $v$, shape `(d,)`; zeros without `rank`.
        count: steps done.
    """

    loc: jax.Array
    factor: jax.Array
    diagonal: jax.Array
    count: jax.Array

    @property
    def covariance(self) -> jax.Array:
        """Dense, shape `(d, d)`."""
        return self.factor @ self.factor.T + jnp.diag(self.diagonal)

    def draw(self, key: jax.Array, num_draws: int) -> jax.Array:
        """Draws of the Gaussian, shape `(num_draws, d)`."""
        first, second = random.split(key)
        noise = random.normal(first, (num_draws, self.factor.shape[1]), self.loc.dtype)
        draws = self.loc + noise @ self.factor.T
        if self.factor.shape[0] == self.factor.shape[1]:
            return draws
        own = random.normal(second, (num_draws, self.loc.size), self.loc.dtype)
        return draws + own * jnp.sqrt(self.diagonal)


class BatchMatchInfo(NamedTuple):
    """What one step reports.

    Attributes:
        objective: mean log density of the draws.
        divergence: mean over the draws of the squared difference of the scores of target and
            Gaussian, each weighted by the Gaussian's covariance: what the method lowers.
        used: share of the draws at which the density and its gradient are finite.
    """

    objective: jax.Array
    divergence: jax.Array
    used: jax.Array


def batch_and_match(
    log_density: Callable[..., jax.Array],
    *,
    num_draws: int = 32,
    rank: int | None = None,
    rate: Callable[[jax.Array], jax.Array] | float | None = None,
) -> Algorithm:
    r"""Batch and match (BaM): a Gaussian whose scores are those of a density.

    Each step draws $z_1, \dots, z_B$ from $N(\mu, \Sigma)$ and takes the Gaussian that is the
    closest to the present one while its scores match $\nabla \log p$ at the draws; with
    $\bar z, C$ the mean and covariance of the draws and $\bar g, \Gamma$ those of the scores,

    $$U = \lambda \Gamma + \tfrac{\lambda}{1 + \lambda} \bar g \bar g^\top, \quad V = \Sigma +
    \lambda C + \tfrac{\lambda}{1 + \lambda} (\mu - \bar z)(\mu - \bar z)^\top, \quad
    \Sigma' U \Sigma' + \Sigma' = V,$$

    $$\mu' = \tfrac{1}{1 + \lambda} \mu + \tfrac{\lambda}{1 + \lambda} (\Sigma' \bar g + \bar z).$$

    It is invariant under affine maps and has no step size. With more than $d$ draws the error on a
    Gaussian target falls geometrically, and one step is exact as $\lambda \to \infty$; elsewhere it
    takes far fewer gradients than stochastic gradients of a bound. Draws at which the density or
    its gradient is not finite are left out of the batch. A step costs `num_draws` gradients and
    $O(d^3)$; with `rank` it costs $O(d (r + B)^2)$: the covariance is kept as low rank plus
    diagonal, on which each step projects by expectation maximisation ("patch").

    Args:
        log_density: `log_density(z, *batch)` of a flat vector, unnormalised, differentiable.
        num_draws: $B$, at least 2.
        rank: columns of a low-rank covariance; None for a dense one.
        rate: $\lambda$ as a function of the number of steps done, or a positive number; by default
            $B d / (t + 1)$.

    Returns:
        `init(loc, covariance=1.0) -> BatchMatchState`, from a number, a vector of variances or a
        matrix; `step(key, state, *batch) -> (BatchMatchState, BatchMatchInfo)`, for `bayesjx.fit`.

    Raises:
        ValueError: an option is out of range, `log_density` no function or its value no scalar,
            or `loc` and `covariance` do not fit.

    References:
        Cai, Modi, Pillaud-Vivien, Margossian, Gower, Blei and Saul (2024), "Batch and match:
        black-box variational inference with a score-based divergence", ICML, equations 6 to 11;
        Modi, Cai and Saul (2025), "Batch, match, and patch: low-rank approximations for
        score-based variational inference", AISTATS, for `rank`.
    """
    _check_options(log_density, num_draws, rank, rate)

    def init(loc: Any, covariance: Any = 1.0) -> BatchMatchState:
        return _start(loc, covariance, rank)

    def step(
        key: jax.Array, state: BatchMatchState, *batch: Any
    ) -> tuple[BatchMatchState, BatchMatchInfo]:
        draws = state.draw(key, num_draws)
        score = jax.value_and_grad(lambda z: _scalar(log_density(z, *batch)))
        values, scores = jax.vmap(score)(draws)
        d = state.loc.size
        if rate is None:
            weight = num_draws * d / (state.count + 1).astype(state.loc.dtype)
        else:
            weight = jnp.asarray(rate(state.count) if callable(rate) else rate, state.loc.dtype)
        used = jnp.isfinite(values) & jnp.all(jnp.isfinite(scores), axis=1)
        moments = _moments(draws, scores, used)
        matched = _match_dense if rank is None else _match_low_rank
        new = matched(state, moments, weight)
        # An update that lost its digits is none: the next batch tries again.
        good = jnp.any(used) & jnp.all(jnp.isfinite(new.factor)) & jnp.all(jnp.isfinite(new.loc))
        new = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, state)
        info = BatchMatchInfo(
            jnp.sum(jnp.where(used, values, 0.0)) / jnp.maximum(jnp.sum(used), 1),
            _divergence(state, moments),
            jnp.mean(used.astype(state.loc.dtype)),
        )
        return new._replace(count=state.count + 1), info

    return Algorithm(init, step)


class _Moments(NamedTuple):
    """Means of a batch, and its deviations divided by the root of the number of draws."""

    z: jax.Array
    g: jax.Array
    dz: jax.Array
    dg: jax.Array


def _moments(draws: jax.Array, scores: jax.Array, used: jax.Array) -> _Moments:
    number = jnp.maximum(jnp.sum(used), 1).astype(draws.dtype)

    def of(values: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = jnp.where(used[:, None], values, 0.0)
        mean = jnp.sum(values, axis=0) / number
        return mean, jnp.where(used[:, None], values - mean, 0.0) / jnp.sqrt(number)

    (z, dz), (g, dg) = of(draws), of(scores)
    return _Moments(z, g, dz, dg)


def _columns(state: BatchMatchState, m: _Moments, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """$Q$ with $U = Q Q^\\top$, and $R$ with $V = R R^\\top$ but for the diagonal of the state."""
    share = jnp.sqrt(weight / (1 + weight))
    root = jnp.sqrt(weight)
    q = jnp.concatenate([root * m.dg, share * m.g[None]]).T
    r = jnp.concatenate([state.factor.T, root * m.dz, share * (state.loc - m.z)[None]]).T
    return q, r


def _new_loc(state: BatchMatchState, m: _Moments, weight: jax.Array, moved: jax.Array) -> jax.Array:
    return (state.loc + weight * (moved + m.z)) / (1 + weight)


def _match_dense(state: BatchMatchState, m: _Moments, weight: jax.Array) -> BatchMatchState:
    q, r = _columns(state, m, weight)
    # V = T T^T; S solves S U S + S = V: S = T f(M M^T) T^T with M = T^T Q, f of eigenvalues.
    tril = jnp.linalg.qr(r.T, mode="r").T
    moved = tril.T @ q
    wide = moved.shape[0] > moved.shape[1]
    gram = moved.T @ moved if wide else moved @ moved.T
    resolved = jnp.trace(gram) < jnp.finfo(gram.dtype).eps ** -0.5
    by_gram = _inner_wide if wide else _inner_square
    factor = jax.lax.cond(
        resolved,
        lambda: tril @ jnp.linalg.cholesky(by_gram(moved, gram)),
        lambda: _by_singular_values(tril, moved),
    )
    factor = factor * jnp.where(jnp.diag(factor) < 0, -1.0, 1.0).astype(factor.dtype)
    loc = _new_loc(state, m, weight, factor @ (factor.T @ m.g))
    return state._replace(loc=loc, factor=factor)


def _inner_square(moved: jax.Array, gram: jax.Array) -> jax.Array:
    """$f(M M^\\top)$ for $f(x) = 2 / (1 + (1 + 4 x)^{1/2})$, by eigenvalues of $M M^\\top$."""
    values, vectors = jnp.linalg.eigh(gram)
    return (vectors * (2 / (1 + jnp.sqrt(1 + 4 * jnp.maximum(values, 0.0))))) @ vectors.T


def _inner_wide(moved: jax.Array, gram: jax.Array) -> jax.Array:
    """The same by eigenvalues of $M^\\top M$, of which there are fewer."""
    values, vectors = jnp.linalg.eigh(gram)
    columns = moved @ (vectors * (2 / (1 + jnp.sqrt(1 + 4 * jnp.maximum(values, 0.0)))))
    return jnp.eye(len(moved), dtype=moved.dtype) - columns @ columns.T


def _by_singular_values(tril: jax.Array, moved: jax.Array) -> jax.Array:
    """The factor of the new covariance, with the digits that a Gram matrix loses."""
    left, singular, _ = jnp.linalg.svd(moved, full_matrices=True)
    d = len(tril)
    square = jnp.pad(singular, (0, max(d - singular.size, 0)))[:d] ** 2
    root = (tril @ left) * jnp.sqrt(2 / (1 + jnp.sqrt(1 + 4 * square)))
    return jnp.linalg.qr(root.T, mode="r").T


def _match_low_rank(state: BatchMatchState, m: _Moments, weight: jax.Array) -> BatchMatchState:
    q, r = _columns(state, m, weight)
    v = state.diagonal

    def times_v(x: jax.Array) -> jax.Array:
        return v[:, None] * x + r @ (r.T @ x)

    # S = V - V Q (1/2 + (1/4 + Q^T V Q)^(1/2))^(-2) Q^T V, all of it d x few.
    vq = times_v(q)
    inner = q.T @ vq
    values, vectors = jnp.linalg.eigh(0.5 * (inner + inner.T))
    drop = vq @ (vectors / (0.5 + jnp.sqrt(0.25 + jnp.maximum(values, 0.0))))

    def times(x: jax.Array) -> jax.Array:
        return times_v(x) - drop @ (drop.T @ x)

    variance = v + jnp.sum(r**2, axis=1) - jnp.sum(drop**2, axis=1)
    variance = jnp.maximum(variance, jnp.finfo(v.dtype).eps * (v + jnp.sum(r**2, axis=1)))
    factor, diagonal = _patch(times, variance, state.factor, v)
    loc = _new_loc(state, m, weight, times(m.g[:, None])[:, 0])
    return state._replace(loc=loc, factor=factor, diagonal=diagonal)


def _patch(
    times: Callable[[jax.Array], jax.Array],
    variance: jax.Array,
    factor: jax.Array,
    diagonal: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Factor analysis of a covariance that is known by products: a few steps of EM."""
    eye = jnp.eye(factor.shape[1], dtype=factor.dtype)
    least = 1e-3 * variance  # no Heywood case: no coordinate without noise of its own

    def em(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple, None]:
        factor, diagonal = carry
        scaled = factor / diagonal[:, None]
        beta = jnp.linalg.solve(eye + factor.T @ scaled, scaled.T)
        moment = times(beta.T)
        middle = beta @ moment + eye - beta @ factor
        factor = jnp.linalg.solve(0.5 * (middle + middle.T), moment.T).T
        diagonal = jnp.maximum(variance - jnp.sum(factor * moment, axis=1), least)
        return (factor, diagonal), None

    return jax.lax.scan(em, (factor, jnp.maximum(diagonal, least)), length=_PATCHES)[0]


def _divergence(state: BatchMatchState, m: _Moments) -> jax.Array:
    """$E \\lvert g(z) + \\Sigma^{-1} (z - \\mu) \\rvert^2$ in the norm of $\\Sigma$."""
    shift = jnp.concatenate([m.dz, (m.z - state.loc)[None]])
    score = jnp.concatenate([m.dg, m.g[None]])
    if state.factor.shape[0] == state.factor.shape[1]:
        back = jax.scipy.linalg.solve_triangular(state.factor, shift.T, lower=True)
        return jnp.sum((back + state.factor.T @ score.T) ** 2)
    scaled = state.factor / state.diagonal[:, None]
    inner = jnp.eye(state.factor.shape[1], dtype=shift.dtype) + state.factor.T @ scaled
    whole = shift / state.diagonal - (shift @ scaled) @ jnp.linalg.solve(inner, scaled.T)
    gap = score + whole
    return jnp.sum((gap @ state.factor) ** 2) + jnp.sum(gap**2 * state.diagonal)


def _start(loc: Any, covariance: Any, rank: int | None) -> BatchMatchState:
    loc = jnp.asarray(loc)
    if loc.ndim != 1 or not loc.size or not jnp.issubdtype(loc.dtype, jnp.floating):
        raise ValueError(
            f"loc must be a vector of floating-point numbers, got {loc.dtype}{list(loc.shape)}"
        )
    loc, d = checked_finite("loc", loc), loc.size
    covariance = checked_finite("covariance", jnp.asarray(covariance, loc.dtype))
    if covariance.shape not in ((), (d,), (d, d)):
        raise ValueError(
            f"covariance must be a number, {d} variances or a matrix of shape {(d, d)} for loc of "
            f"shape {loc.shape}; got shape {covariance.shape}"
        )
    variance = jnp.diag(covariance) if covariance.ndim == 2 else covariance
    variance = refuse_where(
        variance, lambda v: v <= 0, "covariance must be positive definite: positive"
    )
    if covariance.ndim == 2:
        tril = jnp.linalg.cholesky(covariance)
        text = "covariance must be symmetric and positive definite"
        refuse_where(tril, lambda x: x != x, text)
    variance = jnp.broadcast_to(variance, (d,))
    count = jnp.asarray(0)
    if rank is None:
        dense = covariance if covariance.ndim == 2 else jnp.diag(variance)
        return BatchMatchState(loc, jnp.linalg.cholesky(dense), jnp.zeros_like(loc), count)
    if rank > d:
        raise ValueError(f"rank {rank} exceeds the {d} dimensions of loc; leave out rank")
    if covariance.ndim == 2:
        values, vectors = jnp.linalg.eigh(covariance)
        factor = vectors[:, -rank:] * jnp.sqrt(values[-rank:] / 2)
    else:
        # Not zero, from where expectation maximisation does not move.
        noise = random.normal(random.key(0), (d, rank), loc.dtype)
        factor = 0.1 * jnp.sqrt(variance)[:, None] * noise / rank**0.5
    return BatchMatchState(loc, factor, variance - jnp.sum(factor**2, axis=1), count)


def _scalar(value: Any) -> jax.Array:
    try:
        array = jnp.asarray(value)
    except TypeError:
        got = type(value).__name__
        raise ValueError(f"log_density must return a scalar array, got {got}") from None
    if array.shape != () or not jnp.issubdtype(array.dtype, jnp.floating):
        raise ValueError(
            "log_density must return a floating-point scalar, got "
            f"{array.dtype}{list(array.shape)}; sum over its terms"
        )
    return array


def _check_options(log_density: Any, num_draws: Any, rank: Any, rate: Any) -> None:
    if not callable(log_density):
        raise ValueError(f"log_density must be a function, got {type(log_density).__name__}")
    whole_number("num_draws", num_draws, 2)
    if rank is not None:
        whole_number("rank", rank)
    known = isinstance(rate, int | float) and not isinstance(rate, bool)
    if rate is not None and not callable(rate) and not (known and rate > 0):
        raise ValueError(f"rate must be a positive number, a function or None, got {rate!r}")
