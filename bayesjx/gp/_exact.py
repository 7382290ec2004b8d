"""Exact regression at points, by a Cholesky factor, and at times, by a state space."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped
from numpyro import distributions as dist

from .._core import cho_solve, safe_cholesky, solve_triangular
from ..likelihoods import Likelihood
from ..ssm import MarkovApproximation, MarkovPosterior
from ._inputs import all_points, Times
from ._posterior import AbstractGPPosterior, clipped, dense_draws, with_noise
from ._process import GP, observations


class ExactPosterior(AbstractGPPosterior):
    """The exact posterior given noisy values at points.

    Attributes:
        prior: the process before data.
        x: inputs, shape `(n, d)`.
        residual: `y` less the prior mean, shape `(n,)`.
        tril: lower Cholesky factor of the observations' covariance, shape `(n, n)`.
        weights: that covariance's inverse times `residual`, shape `(n,)`.
        jitter: what had to be added to the diagonal to factorise it, scalar; 0 if nothing.

    References:
        Rasmussen and Williams (2006), "Gaussian processes for machine learning", algorithm 2.1.
    """

    prior: GP
    x: Float[Array, "n d"]
    residual: Float[Array, " n"]
    tril: Float[Array, "n n"]
    weights: Float[Array, " n"]
    jitter: Float[Array, ""]

    def moments(self, x: Any) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        x = all_points(x, dtype=self.x.dtype)
        cross = self.prior.kernel.gram(self.x, x)
        half = solve_triangular(self.tril, cross, lower=True)
        mean = self.prior.mean_at(x) + cross.T @ self.weights
        return mean, clipped(self.prior.kernel.diag(x), jnp.sum(half**2, axis=0))

    def mean(self, x: Any) -> Float[Array, " m"]:
        x = all_points(x, dtype=self.x.dtype)
        return self.prior.mean_at(x) + self.prior.kernel.gram(x, self.x) @ self.weights

    def covariance(self, x: Any) -> Float[Array, "m m"]:
        x = all_points(x, dtype=self.x.dtype)
        half = solve_triangular(self.tril, self.prior.kernel.gram(self.x, x), lower=True)
        return self.prior.kernel.gram(x) - half.T @ half

    def predict(self, x: Any) -> dist.Normal:
        return with_noise(self.prior, *self.moments(x))

    def sample(
        self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample m"]:
        return dense_draws(self, key, x, sample_shape)

    def log_evidence(self) -> Float[Array, ""]:
        """Log marginal likelihood of the data, scalar, with the jitter that was needed.

        To optimise it use `prior(x).log_prob(y)`, whose gradient is the cheap one.
        """
        quad = self.residual @ self.weights
        logdet = 2 * jnp.sum(jnp.log(jnp.diag(self.tril)))
        return -0.5 * (quad + logdet + self.residual.size * jnp.log(2 * jnp.pi))

    def leave_one_out(self) -> dist.Normal:
        """The leave-one-out predictive distribution of each observation, a normal of shape `(n,)`.

        Its `log_prob(y)` summed is the leave-one-out predictive density of the data.

        References:
            Rasmussen and Williams (2006), "Gaussian processes for machine learning", equations
            5.12 (after Sundararajan and Keerthi, 2001).
        """
        eye = jnp.eye(len(self.tril), dtype=self.tril.dtype)
        precision = jnp.sum(solve_triangular(self.tril, eye, lower=True) ** 2, axis=0)
        y = self.prior.mean_at(self.x) + self.residual
        return dist.Normal(y - self.weights / precision, 1 / jnp.sqrt(precision))


def exact_posterior(prior: GP, x: Any, y: Any) -> ExactPosterior:
    """The exact posterior of a process given observations at points; see `condition`."""
    x, y = observations(prior, x, y)
    residual = y - prior.mean_at(x)
    factor = safe_cholesky(prior.observed_covariance(x).as_matrix())
    tril = eqx.error_if(
        factor.tril,
        ~jnp.all(jnp.isfinite(jnp.diag(factor.tril))),
        "condition: the covariance of the observations has no Cholesky factor even with jitter, or "
        "holds NaN; are lengthscales, variances and noise positive?",
    )
    return ExactPosterior(
        prior, x, residual, tril, cho_solve((tril, True), residual), factor.jitter
    )


class TimesPosterior(AbstractGPPosterior):
    """The posterior given observations at times, in linear time: exact with normal noise.

    Attributes:
        prior: the process before data.
        process: the same posterior by a state space, which computes all of it; an
            `ssm.MarkovApproximation` with a likelihood that is not normal.
        y: the observations, shape `(n,)`.
    """

    prior: GP
    process: MarkovPosterior | MarkovApproximation
    y: Shaped[Array, " n"]

    def moments(self, x: Any) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        return self.process.moments(_plain(x))

    def mean(self, x: Any) -> Float[Array, " m"]:
        return self.process.mean(_plain(x))

    def covariance(self, x: Any) -> Float[Array, "m m"]:
        return self.process.covariance(_plain(x))

    def predict(self, x: Any) -> dist.Distribution:
        return self.process.predict(_plain(x))

    def sample(
        self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample m"]:
        return self.process.sample(key, _plain(x), sample_shape)

    def log_evidence(self) -> Float[Array, ""]:
        """Log marginal likelihood of the data, or its bound or estimate, scalar."""
        return self.process.log_evidence()

    def leave_one_out(self) -> dist.Normal:
        """The leave-one-out predictive distribution of each observation, `(n,)`.

        Raises:
            ValueError: the likelihood is not normal.
        """
        if isinstance(self.process, MarkovApproximation):
            raise ValueError(
                "leave_one_out: known with normal noise only, of a posterior by condition(prior, "
                "x, y) without a likelihood"
            )
        return self.process.leave_one_out()


def times_posterior(
    prior: GP, x: Times, y: Any, mask: Any, likelihood: Likelihood | None = None, **options: Any
) -> TimesPosterior:
    """The posterior of a process given observations at times; see `condition`."""
    process = prior.in_time(x, mask, noisy=likelihood is None).condition(y, likelihood, **options)
    return TimesPosterior(prior, process, jnp.asarray(y))


def _plain(x: Any) -> Any:
    """Times `(m,)`, in double precision where they are known."""
    times = x.times if isinstance(x, Times) else x
    if jnp.ndim(times) == 2 and jnp.shape(times)[1] == 1:
        times = times[:, 0]
    return times
