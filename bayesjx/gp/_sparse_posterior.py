"""The posterior of a process that is known through a Gaussian law of its inducing variables."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .. import ops
from .._core import refuse_where, solve_triangular
from ..distributions._likelihood import Likelihood
from ._inducing_features import InducingFeatures
from ._posterior import AbstractPosterior
from ._predictive import predictive
from ._process import GP, observations
from ._sparse import diagonal_noise, features_at
from ._structure import all_points


class SparsePosterior(AbstractPosterior):
    r"""The function where whitened inducing variables are $v \sim N(m, R R^\top)$.

    With the features $\phi(x)$ of the inducing points, the mean is $\phi(x)^\top m$ beside that of
    the prior, and the variance $k(x, x) - \|\phi(x)\|^2 + \|R^\top \phi(x)\|^2$. A question about
    `n` points costs $O(n m^2)$.

    Attributes:
        prior: the process before data.
        features: those of `m` inducing points.
        whitened_mean: mean of $v = L_u^{-1} u$, shape `(m,)`.
        scale_tril: $R$, lower triangular, shape `(m, m)`.
        likelihood: of the observations; None for the noise of the prior.
        num_latents: functions that the likelihood is of, of which this is one.

    References:
        Titsias (2009), "Variational learning of inducing variables in sparse Gaussian processes",
        AISTATS, equation 6.
    """

    prior: GP
    features: InducingFeatures
    whitened_mean: jax.Array
    scale_tril: jax.Array
    likelihood: Likelihood | None = None
    num_latents: int = eqx.field(static=True, default=1)

    @property
    def jitter(self) -> jax.Array:
        """What was added to the variances of the inducing variables, scalar."""
        return self.features.jitter

    def moments(self, x: Any) -> tuple[jax.Array, jax.Array]:
        x = all_points(x)
        phi = self.features(x)
        mean = self.prior.mean_at(x) + phi.T @ self.whitened_mean
        own = jnp.sum((self.scale_tril.T @ phi) ** 2, axis=0)
        return mean, self.features.residual(x, phi) + own

    def mean(self, x: Any) -> jax.Array:
        x = all_points(x)
        return self.prior.mean_at(x) + self.features(x).T @ self.whitened_mean

    def covariance(self, x: Any) -> jax.Array:
        x = all_points(x)
        phi = self.features(x)
        own = self.scale_tril.T @ phi
        return self.prior.kernel.gram(x) - phi.T @ phi + own.T @ own

    def predict(self, x: Any) -> Any:
        """The distribution of a new observation at each point, batch shape `(m,)`.

        A normal where the noise is; else a mixture of the likelihood's distributions, by
        quadrature over the function.

        Raises:
            ValueError: the likelihood is of several functions, of which this posterior is one, or
                holds data of each observation; or the noise differs between observations.
        """
        if self.num_latents > 1:
            raise ValueError(
                f"predict: the likelihood is of {self.num_latents} functions and this is the "
                "posterior of one; stack the moments of all posterior(latent), shape (m, l), and "
                "use gp.log_predictive_prob(likelihood, y, mean, variance), or draws of them"
            )
        if self.likelihood is None:
            return super().predict(x)
        return predictive(self.likelihood, *self.moments(x))


def sparse_posterior(
    prior: GP,
    points: Any,
    x: Any,
    y: Any,
    *,
    alpha: Any = 0.0,
    jitter: float | None = None,
) -> SparsePosterior:
    r"""The best Gaussian law of the inducing variables given data, in closed form.

    $N(B^{-1} \Phi S^{-1} (y - m), B^{-1})$ with $B = I + \Phi S^{-1} \Phi^\top$ and $S$ the noise
    plus $\alpha$ times the variance that the inducing points leave. It takes $O(n m^2)$.

    Args:
        prior: the process with its noise, a scalar or `(n,)`, positive.
        points: inducing points, shape `(m, d)` or `(m,)`, no more than data.
        x: inputs, shape `(n, d)` or `(n,)`.
        y: responses, shape `(n,)`.
        alpha: 0, the default, is the optimum of every bound of `sgpr`, tightened or not; 1 is
            that of `fitc`, and between them are those of `power_ep`.
        jitter: see `inducing_features`; the result reports what was used.

    Raises:
        ValueError: wrong shapes, NaN in the data or the points, more points than data, noise that
            is not positive or differs in shape, `alpha` outside of 0 to 1.
        RuntimeError: the same of values known only when a compiled program runs, or covariances
            of the inducing variables that have no Cholesky factor even with jitter.

    References:
        Titsias (2009), equation 10; Bui, Yan and Turner (2017), "A unifying framework for Gaussian
        process pseudo-point approximations using power expectation propagation", JMLR 18.
    """
    x, y = observations(prior, x, y)
    noise = refuse_where(
        diagonal_noise(prior, x), lambda v: ~(v > 0), "noise must be positive for sparse_posterior"
    )
    alpha = refuse_where(
        alpha, lambda v: ~((v >= 0) & (v <= 1)), "alpha must lie in 0 to 1 for sparse_posterior"
    )
    features, phi = features_at(prior, points, x, jitter)
    # Less than rounding of the covariances cannot be told from noise, and would be fitted.
    rounding = 10 * jnp.finfo(x.dtype).eps * jnp.mean(prior.kernel.diag(x))
    noise = jnp.maximum(noise, jax.lax.stop_gradient(rounding))
    spread = noise + jnp.asarray(alpha, x.dtype) * features.residual(x, phi)
    mean, tril = _optimum(phi, spread, y - prior.mean_at(x))
    mean = eqx.error_if(
        mean,
        ~jnp.all(jnp.isfinite(mean)),
        "sparse_posterior: the covariance of the inducing variables has no Cholesky factor even "
        "with jitter, or holds NaN; are lengthscales and variances positive?",
    )
    return SparsePosterior(prior, features, mean, tril)


def _optimum(phi: jax.Array, spread: jax.Array, residual: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""Mean and lower triangular root of the covariance $B^{-1}$.

    The factor of $B$ with rows and columns in reverse, reversed again, is upper triangular, and
    the transpose of its inverse is the root that is asked for.
    """
    reverse = ops.LowRankPlusDiag(phi[::-1].T, spread).inner_cholesky()
    eye = jnp.eye(len(phi), dtype=phi.dtype)
    tril = solve_triangular(reverse, eye, lower=True).T[::-1, ::-1]
    mean = tril @ (tril.T @ (phi @ (residual / spread)))
    # Once corrected: in float32 the factor comes from a QR decomposition and deserves it.
    rest = phi @ ((residual - phi.T @ mean) / spread) - mean
    return mean + tril @ (tril.T @ rest), tril
