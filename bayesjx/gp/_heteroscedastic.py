"""Regression with noise that varies: a second process for the logarithm of its variance."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro import distributions as dist

from .. import ops
from .._core import refuse_where, safe_cholesky, solve_triangular
from ..likelihoods import gauss_hermite
from ._exact import exact_posterior, ExactPosterior
from ._inputs import all_points
from ._posterior import AbstractGPPosterior, clipped, dense_draws
from ._process import check_prior, GP, observations

NODES = 32  # of the quadrature over the log variance of the noise


class HeteroscedasticPosterior(AbstractGPPosterior):
    r"""The functions $f$ and $g$ of $y = f(x) + e^{g(x) / 2} \epsilon$ after data.

    Mean, variance and draws are those of $f$, a Gaussian process; `log_noise` and `noise_variance`
    are of $g$.

    Attributes:
        prior: the process of $f$ before data, with the noise variances of the observations.
        function: the posterior of $f$, exact for the noise variances $e^{\mu - \Sigma_{ii} / 2}$.
        log_noise_prior: the process of $g$ before data.
        constant_noise: variance of the noise of `prior_f`, that of all observations.
        slopes: $\lambda - 1/2$, which the mean of $g$ is a combination of kernels with, `(n,)`.
        root_lambda: $\lambda^{1/2}$, shape `(n,)`.
        tril: lower Cholesky factor of $I + \Lambda^{1/2} K_g \Lambda^{1/2}$, shape `(n, n)`.
        penalty: what the bound is below the evidence of `function`, scalar.
    """

    prior: GP
    function: ExactPosterior
    log_noise_prior: GP
    constant_noise: Float[Array, ""]
    slopes: Float[Array, " n"]
    root_lambda: Float[Array, " n"]
    tril: Float[Array, "n n"]
    penalty: Float[Array, ""]

    def moments(self, x: Any) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        return self.function.moments(x)

    def mean(self, x: Any) -> Float[Array, " m"]:
        return self.function.mean(x)

    def covariance(self, x: Any) -> Float[Array, "m m"]:
        return self.function.covariance(x)

    def sample(
        self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample m"]:
        return dense_draws(self, key, x, sample_shape)

    def log_evidence(self) -> Float[Array, ""]:
        """The lower bound of the log evidence of the data, scalar, see `heteroscedastic_bound`."""
        return self.function.log_evidence() - self.penalty

    def log_noise(self, x: Any) -> dist.Normal:
        """The posterior of the logarithm of the noise variance at points, a normal `(m,)`."""
        x = all_points(x, dtype=self.function.x.dtype)
        kernel = self.log_noise_prior.kernel
        cross = kernel.gram(self.function.x, x)
        half = solve_triangular(self.tril, self.root_lambda[:, None] * cross, lower=True)
        mean = self.log_noise_prior.mean_at(x) + cross.T @ self.slopes
        variance = clipped(kernel.diag(x), jnp.sum(half**2, axis=0))
        return dist.Normal(mean, jnp.sqrt(variance))

    def noise_variance(self, x: Any) -> Float[Array, " m"]:
        """The expected variance of the noise at points, shape `(m,)`."""
        log_noise = self.log_noise(x)
        return jnp.exp(log_noise.loc + log_noise.scale**2 / 2) + self.constant_noise

    def predict(self, x: Any) -> dist.MixtureSameFamily:
        """The predictive distribution of a new observation at each point, batch shape `(m,)`.

        It is a mixture of normals, by Gauss-Hermite quadrature over the variance of the noise: its
        tails are heavier than those of a normal.
        """
        mean, variance = self.moments(x)
        log_noise = self.log_noise(x)
        nodes, weights = (jnp.asarray(a, mean.dtype) for a in gauss_hermite(NODES))
        log_variance = log_noise.loc[:, None] + log_noise.scale[:, None] * nodes[:, 0]
        total = variance[:, None] + self.constant_noise + jnp.exp(log_variance)
        component = dist.Normal(jnp.broadcast_to(mean[:, None], total.shape), jnp.sqrt(total))
        mixing = dist.CategoricalProbs(jnp.broadcast_to(weights, total.shape))
        return dist.MixtureSameFamily(mixing, component)


def heteroscedastic_bound(
    prior_f: GP, prior_g: GP, log_lambda: Any, x: Any, y: Any
) -> Float[Array, ""]:
    r"""A lower bound of the log evidence of $y = f(x) + e^{g(x) / 2} \epsilon$, scalar.

    $\log N(y; m_f, K_f + R) - \mathrm{tr}(\Sigma) / 4 - KL(N(\mu, \Sigma) \| N(m_g, K_g))$ with
    $R = \mathrm{diag}(e^{\mu_i - \Sigma_{ii} / 2})$: $f$ is integrated out, and $N(\mu, \Sigma)$ of
    $g$ is best for $\Sigma^{-1} = K_g^{-1} + \Lambda$, $\mu = m_g + K_g (\lambda - 1/2)$, so that
    one number for each observation remains. It takes $O(n^3)$. To fit,
    `minimise(lambda p: -heteroscedastic_bound(*p, x, y), (prior_f, prior_g, log_lambda))`, where
    `trainable` must leave out noise of 0, which has no logarithm; in a NumPyro model it is a
    `numpyro.factor`.

    Args:
        prior_f: the process of $f$. Its noise, a scalar or `(n,)`, adds to that of $g$.
        prior_g: the process of the logarithm of the noise's variance, itself without noise.
        log_lambda: $\log \lambda$, shape `(n,)`; start from $\log(1/2)$, where $\mu$ is the prior
            mean.
        x: inputs, shape `(n, d)` or `(n,)`.
        y: responses, shape `(n,)`.

    Raises:
        ValueError: wrong shapes, NaN in the data, correlated noise of `prior_f`, or noise of
            `prior_g`.

    References:
        Lázaro-Gredilla and Titsias (2011), "Variational heteroscedastic Gaussian process
        regression", ICML: the marginalised bound, equation 7, and its reparametrisation.
    """
    x, y = observations(prior_f, x, y)
    noise = _log_noise_at_data(prior_f, prior_g, log_lambda, x)
    return noise.prior(x).log_prob(y) - _penalty(noise, prior_g, x)


def heteroscedastic_posterior(
    prior_f: GP, prior_g: GP, log_lambda: Any, x: Any, y: Any
) -> HeteroscedasticPosterior:
    """The posterior at which `heteroscedastic_bound` is attained, with its arguments.

    Raises:
        ValueError: as `heteroscedastic_bound`; or noise of `prior_f` that differs between
            observations, so that of new ones is not known.
        RuntimeError: a covariance has no Cholesky factor even with jitter, or holds NaN.
    """
    if isinstance(prior_f.noise_var, ops.AbstractOperator) or prior_f.noise_var.ndim:
        raise ValueError("heteroscedastic_posterior: noise_var of prior_f must be a scalar")
    x, y = observations(prior_f, x, y)
    noise = _log_noise_at_data(prior_f, prior_g, log_lambda, x)
    return HeteroscedasticPosterior(
        noise.prior,
        exact_posterior(noise.prior, x, y),
        prior_g,
        prior_f.noise_var.astype(y.dtype),
        noise.slopes,
        noise.root_lambda,
        noise.tril,
        _penalty(noise, prior_g, x),
    )


class _LogNoise(NamedTuple):
    r"""$N(\mu, \Sigma)$ at the data, and `prior_f` with the noise that it makes."""

    mean: jax.Array
    variance: jax.Array
    slopes: jax.Array
    root_lambda: jax.Array
    tril: jax.Array
    prior: GP


def _log_noise_at_data(prior_f: GP, prior_g: GP, log_lambda: Any, x: jax.Array) -> _LogNoise:
    if jnp.shape(log_lambda) != (len(x),):
        raise ValueError(f"log_lambda must have shape ({len(x)},), got {jnp.shape(log_lambda)}")
    if not isinstance(log_lambda, jax.core.Tracer):  # else the bound is NaN
        refuse_where(log_lambda, np.isnan, "log_lambda holds NaN")
    check_prior(prior_g, "prior_g")
    _refuse_noise(prior_g)
    if isinstance(prior_f.noise_var, ops.AbstractOperator):
        raise ValueError("prior_f: noise_var must be a scalar or (n,), not an operator")
    lambdas = jnp.exp(jnp.asarray(log_lambda).astype(x.dtype))
    root, slopes = jnp.sqrt(lambdas), lambdas - 0.5
    gram = prior_g.kernel.gram(x)
    # Λ^½ (K⁻¹ + Λ)⁻¹ Λ^½ = I - B⁻¹: the eigenvalues of B are at least 1, and K is never inverted.
    matrix = jnp.eye(len(x), dtype=x.dtype) + root[:, None] * gram * root
    tril = safe_cholesky(matrix).tril
    half = solve_triangular(tril, root[:, None] * gram, lower=True)
    variance = clipped(prior_g.kernel.diag(x), jnp.sum(half**2, axis=0))
    mean = prior_g.mean_at(x) + gram @ slopes
    noise = jnp.exp(mean - variance / 2) + prior_f.noise_operator(x).diag()
    prior = GP(prior_f.kernel, prior_f.mean, noise_var=noise)
    return _LogNoise(mean, variance, slopes, root, tril, prior)


def _penalty(noise: _LogNoise, prior_g: GP, x: jax.Array) -> jax.Array:
    r"""$\mathrm{tr}(\Sigma) / 4 + KL(N(\mu, \Sigma) \| N(m_g, K_g))$, scalar."""
    half_logdet = jnp.sum(jnp.log(jnp.diag(noise.tril)))
    inverse_tril = solve_triangular(noise.tril, jnp.eye(len(x), dtype=x.dtype), lower=True)
    quadratic = (noise.mean - prior_g.mean_at(x)) @ noise.slopes
    divergence = half_logdet + 0.5 * (jnp.sum(inverse_tril**2) + quadratic - len(x))
    return 0.25 * jnp.sum(noise.variance) + divergence


def _refuse_noise(prior: GP) -> None:
    if isinstance(prior.noise_var, jax.core.Tracer):  # of values that are not known it is believed
        return
    if isinstance(prior.noise_var, ops.AbstractOperator) or np.any(np.asarray(prior.noise_var)):
        raise ValueError(
            "prior_g is the process of the log variance itself and takes no noise; put a constant "
            "noise into prior_f"
        )
