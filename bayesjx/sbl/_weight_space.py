r"""Posterior moments of Gaussian weights from the $m \times m$ system, with all derivatives.

With prior variances $g$, $D = \mathrm{diag}(g)$ and $N = \Phi^H \Phi / \sigma^2$, all that the data
say beyond $\Phi^H y$, the posterior has

- the covariance $\Sigma = D - D S D = (I + D N)^{-1} D$,
- $T = (I + D N)^{-1}$, by which it shrinks the prior: $\Sigma = T D$, $T = I - \Sigma N$,
- $S = N T = \Phi^H C^{-1} \Phi$ for the covariance $C$ of the measurements: $D S = I - T$.

They come from the Cholesky factor of $I + D^{1/2} N D^{1/2}$. Their derivatives are written in
themselves, without the root, so that they hold to every order where a prior variance is 0:
$d\Sigma = T\,dD\,T^H - \Sigma\,dN\,\Sigma$, $dT = -T\,dD\,S - \Sigma\,dN\,T$,
$dS = T^H dN\,T - S\,dD\,S$ and $d\log\det(I + D N) = \mathrm{tr}(S\,dD) + \mathrm{tr}(\Sigma\,dN)$.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._core import cholesky_each, inverse_tril
from ._design import solve_adjoint, solve_tril


class Moments(NamedTuple):
    r"""Posterior mean and what the evidence takes.

    Attributes:
        mean: $\Sigma b$, shape `(m, L)`.
        score: $T^H b = \Phi^H C^{-1} y$, shape `(m, L)`; the mean is $D$ times it.
        logdet: $\log\det(I + D N)$, scalar.
    """

    mean: jax.Array
    score: jax.Array
    logdet: jax.Array


class Blocks(NamedTuple):
    r"""$\Sigma$, $T$ and $S$, shape `(m, m)` each."""

    covariance: jax.Array
    shrinkage: jax.Array
    explained: jax.Array


def root(prior_var: jax.Array) -> jax.Array:
    """Prior standard deviations, with the derivative 0 at 0."""
    positive = prior_var > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, prior_var, 1)), 0)


def system_tril(precision: jax.Array, prior_var: jax.Array) -> jax.Array:
    r"""The lower Cholesky factor of $I + D^{1/2} N D^{1/2}$, shape `(m, m)`."""
    half = root(prior_var)
    matrix = half[:, None] * precision * half + jnp.eye(half.size, dtype=precision.dtype)
    return cholesky_each(matrix)


def positive_definite(precision: jax.Array, prior_var: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The matrix $N$, and by what part its diagonal was raised for a factor to exist, if any.

    Where data say so much more than the prior that their difference is below a rounding, as of
    columns that are the same, the system has no factor without.
    """
    failed = jnp.isnan(jnp.sum(system_tril(*jax.lax.stop_gradient((precision, prior_var)))))
    diagonal = jnp.diag(precision)
    part = jnp.where(failed, 10 * diagonal.size * jnp.finfo(precision.dtype).eps, 0)
    part = part.astype(prior_var.dtype)
    return precision + jnp.diag(part * diagonal), part


@jax.custom_jvp
def moments(precision: jax.Array, prior_var: jax.Array, rhs: jax.Array) -> Moments:
    """Posterior moments given $N$, shape `(m, m)`, $g$ and the right-hand sides $b$, `(m, L)`."""
    tril, half = system_tril(precision, prior_var), root(prior_var)[:, None]
    mean = half * solve_adjoint(tril, solve_tril(tril, half * rhs))
    # Where data say more of a weight than its prior, what they leave of b is lost to rounding.
    strong = _strong(precision, prior_var)[:, None]
    score = jnp.where(strong, mean / jnp.where(strong, half**2, 1), rhs - precision @ mean)
    logdet = 2 * jnp.sum(jnp.log(jnp.real(jnp.diag(tril))))
    return Moments(mean, score, logdet)


@moments.defjvp
def _(primals: Any, tangents: Any) -> tuple[Moments, Moments]:
    precision, prior_var, _ = primals
    d_precision, d_var, d_rhs = tangents
    out = moments(*primals)
    covariance, shrinkage, explained = blocks(precision, prior_var)
    from_prior, from_data = d_var[:, None] * out.score, d_rhs - d_precision @ out.mean
    d_mean = shrinkage @ from_prior + covariance @ from_data
    d_score = shrinkage.mT.conj() @ from_data - explained @ from_prior
    d_logdet = jnp.sum(jnp.real(jnp.diag(explained)) * d_var)
    d_logdet += jnp.sum(jnp.real(covariance.mT * d_precision))
    return out, Moments(d_mean, d_score, d_logdet)


@jax.custom_jvp
def blocks(precision: jax.Array, prior_var: jax.Array) -> Blocks:
    """The three matrices, given $N$, shape `(m, m)`, and $g$."""
    half, eye = root(prior_var), jnp.eye(prior_var.size, dtype=precision.dtype)
    inverse = inverse_tril(system_tril(precision, prior_var))
    inside = inverse.mT.conj() @ inverse
    covariance = half[:, None] * inside * half
    # Each by the formula whose rounding is small: where the data say more, or the prior.
    strong = _strong(precision, prior_var)
    safe = jnp.where(strong, half, 1)
    shrinkage = jnp.where(strong, half[:, None] * inside / safe, eye - covariance @ precision)
    by_prior = (eye - shrinkage) / safe[:, None] ** 2
    explained = jnp.where(strong[:, None], by_prior, precision @ shrinkage)
    return Blocks(covariance, shrinkage, explained)


@blocks.defjvp
def _(primals: Any, tangents: Any) -> tuple[Blocks, Blocks]:
    out = blocks(*primals)
    (covariance, shrinkage, explained), (d_precision, d_var) = out, tangents
    from_prior, from_data = d_var[:, None] * explained, d_precision @ shrinkage
    adjoint = shrinkage.mT.conj()
    return out, Blocks(
        (shrinkage * d_var) @ adjoint - covariance @ d_precision @ covariance,
        -shrinkage @ from_prior - covariance @ from_data,
        adjoint @ from_data - explained @ from_prior,
    )


def _strong(precision: jax.Array, prior_var: jax.Array) -> jax.Array:
    return prior_var * jnp.real(jnp.diag(precision)) > 1
