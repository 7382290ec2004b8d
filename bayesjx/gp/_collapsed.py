"""Sparse regression with inducing points: the collapsed bounds and their posterior."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro import distributions as dist

from .. import ops
from .._core import failures_are_nan, refuse_where, solve_triangular, whole_number
from ..distributions import CollapsedNormal
from ..kernels import AbstractKernel
from ..likelihoods import Likelihood, predictive
from ._inducing import diagonal_noise, features_at, InducingFeatures
from ._inputs import all_points
from ._posterior import AbstractGPPosterior, dense_draws, with_noise
from ._process import GP, observations


class SparsePosterior(AbstractGPPosterior):
    r"""The function where whitened inducing variables are $v \sim N(m, R R^\top)$.

    With the features $\phi(x)$ of the inducing points, the mean is $\phi(x)^\top m$ beside that of
    the prior, and the variance $k(x, x) - \|\phi(x)\|^2 + \|R^\top \phi(x)\|^2$. A query of
    `n` points costs $O(n m^2)$.

    Attributes:
        prior: the process before data.
        features: those of `m` inducing points.
        whitened_mean: mean of $v = L_u^{-1} u$, shape `(m,)`.
        scale_tril: $R$, lower triangular, shape `(m, m)`.
        likelihood: of the observations; None for the noise of the prior.
        num_latents: functions that the likelihood is of, of which this is one.
        bound: of the log evidence of the data that it was made from, scalar; None if it does not
            hold them.

    References:
        Titsias (2009), "Variational learning of inducing variables in sparse Gaussian processes",
        AISTATS, equation 6.
    """

    prior: GP
    features: InducingFeatures
    whitened_mean: Float[Array, " m"]
    scale_tril: Float[Array, "m m"]
    likelihood: Likelihood | None = None
    num_latents: int = eqx.field(static=True, default=1)
    bound: Float[Array, ""] | None = None

    @property
    def jitter(self) -> Float[Array, ""]:
        """What was added to the variances of the inducing variables, scalar."""
        return self.features.jitter

    def moments(self, x: Any) -> tuple[Float[Array, " m"], Float[Array, " m"]]:
        x = all_points(x, dtype=self.whitened_mean.dtype)
        phi = self.features(x)
        mean = self.prior.mean_at(x) + phi.T @ self.whitened_mean
        own = jnp.sum((self.scale_tril.T @ phi) ** 2, axis=0)
        return mean, self.features.residual(x, phi) + own

    def mean(self, x: Any) -> Float[Array, " m"]:
        x = all_points(x, dtype=self.whitened_mean.dtype)
        return self.prior.mean_at(x) + self.features(x).T @ self.whitened_mean

    def covariance(self, x: Any) -> Float[Array, "m m"]:
        x = all_points(x, dtype=self.whitened_mean.dtype)
        phi = self.features(x)
        own = self.scale_tril.T @ phi
        return self.prior.kernel.gram(x) - phi.T @ phi + own.T @ own

    def predict(self, x: Any) -> dist.Distribution:
        """The predictive distribution of a new observation at each point, batch shape `(m,)`.

        Raises:
            ValueError: the likelihood is of several functions, of which this posterior is one, or
                holds data of each observation; or the noise differs between observations.
        """
        if self.num_latents > 1:
            raise ValueError(
                f"predict: the likelihood is of {self.num_latents} functions and this is the "
                "posterior of one; stack the moments of all posterior(latent), shape (m, l), and "
                "use likelihoods.log_predictive_prob(likelihood, y, mean, variance)"
            )
        if self.likelihood is None:
            return with_noise(self.prior, *self.moments(x))
        return predictive(self.likelihood, *self.moments(x))

    def sample(
        self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample m"]:
        return dense_draws(self, key, x, sample_shape)

    def log_evidence(self) -> Float[Array, ""]:
        """The bound of the log marginal likelihood of the data, scalar.

        With `alpha = 0` that of `sgpr`, tightened; else what `power_ep` says.

        Raises:
            ValueError: a posterior that `sparse_posterior` did not make, which holds no data.
        """
        if self.bound is None:
            raise ValueError(
                "log_evidence: this posterior holds no data; elbo(x, y) of the SVGP that made it "
                "is the bound, and sparse_posterior(prior, ...) makes posteriors that hold theirs"
            )
        return self.bound


def sparse_posterior(
    prior: GP,
    x: Any,
    y: Any,
    *,
    inducing_points: Any,
    alpha: Any = 0.0,
    jitter: float | None = None,
) -> SparsePosterior:
    r"""The best normal distribution of the inducing variables given data, in closed form.

    $N(B^{-1} \Phi S^{-1} (y - m), B^{-1})$ with $B = I + \Phi S^{-1} \Phi^\top$ and $S$ the noise
    plus $\alpha$ times the variance that the inducing points leave. It takes $O(n m^2)$.

    Args:
        prior: the process with its noise, a scalar or `(n,)`, positive.
        x: inputs, shape `(n, d)` or `(n,)`.
        y: responses, shape `(n,)`.
        inducing_points: shape `(m, d)` or `(m,)`, no more than data.
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
        diagonal_noise(prior, x),
        lambda v: ~(v > 0),
        "noise_var must be positive for sparse_posterior",
    )
    alpha = refuse_where(
        alpha, lambda v: ~((v >= 0) & (v <= 1)), "alpha must lie in 0 to 1 for sparse_posterior"
    )
    features, phi = features_at(prior, x, inducing_points, jitter)
    # Less than rounding of the covariances cannot be told from noise, and would be fitted.
    rounding = 10 * jnp.finfo(x.dtype).eps * jnp.mean(prior.kernel.diag(x))
    noise = jnp.maximum(noise, jax.lax.stop_gradient(rounding))
    left = features.residual(x, phi)
    alpha = jnp.asarray(alpha, x.dtype)
    # With features in reverse, the reversed factor of B is upper triangular.
    covariance = ops.LowRankPlusDiag(phi[::-1].T, noise + alpha * left)
    mean, tril = _optimum(phi, covariance, y - prior.mean_at(x))
    mean = eqx.error_if(
        mean,
        ~jnp.all(jnp.isfinite(mean)),
        "sparse_posterior: the covariance of the inducing variables has no Cholesky factor even "
        "with jitter, or holds NaN; are lengthscales and variances positive?",
    )
    penalty = jnp.where(
        alpha > 0, power_penalty(left / noise, alpha), jnp.sum(jnp.log1p(left / noise))
    )
    bound = CollapsedNormal(prior.mean_at(x), covariance, -0.5 * penalty).log_prob(y)
    return SparsePosterior(prior, features, mean, tril, bound=bound)


def power_penalty(ratio: Float[Array, " n"], alpha: Float[Array, ""]) -> Float[Array, ""]:
    r"""$\frac{1 - \alpha}{\alpha} \sum_n \log(1 + \alpha r_n)$ from the ratios $r$, scalar."""
    power = jnp.where(alpha > 0, alpha, 1)
    each = jnp.where(alpha > 0, jnp.log1p(power * ratio) / power, ratio)
    return (1 - alpha) * jnp.sum(each)


def _optimum(
    phi: jax.Array, covariance: ops.LowRankPlusDiag, residual: jax.Array
) -> tuple[jax.Array, jax.Array]:
    r"""Mean and lower triangular root of the covariance $B^{-1}$ of the inducing variables.

    Args:
        phi: features, shape `(m, n)`.
        covariance: of the observations, from the same features in reverse. The factor of their $B$,
            reversed again, is upper triangular, and the transpose of its inverse is the root.
        residual: observations less their mean, shape `(n,)`.
    """
    eye = jnp.eye(len(phi), dtype=phi.dtype)
    tril = solve_triangular(covariance.inner_cholesky(), eye, lower=True).T[::-1, ::-1]
    diagonal = covariance.diagonal
    mean = tril @ (tril.T @ (phi @ (residual / diagonal)))
    # Once corrected: in float32 the factor comes from a QR decomposition and deserves it.
    rest = phi @ ((residual - phi.T @ mean) / diagonal) - mean
    return mean + tril @ (tril.T @ rest), tril


def sgpr(
    prior: GP,
    x: Any,
    *,
    inducing_points: Any,
    tight: bool = True,
    blocks: int | None = None,
    jitter: float | None = None,
) -> CollapsedNormal:
    r"""A lower bound of the marginal likelihood by `m` inducing points, in $O(n m^2)$.

    In a model, `numpyro.sample("y", sgpr(prior, x, inducing_points=z), obs=y)`; to fit, minimise
    `-sgpr(prior, x, inducing_points=z).log_prob(y)`. It is $\log N(y; m, \Phi^\top \Phi + S)$
    with the whitened features $\Phi$ and the noise $S$, less a penalty of the variance $d_n$ that
    the inducing points leave at each input:

    - tightened, the default: $\frac12 \sum_n \log(1 + d_n / \sigma_n^2)$;
    - `tight=False`, Titsias (2009): $\frac12 \sum_n d_n / \sigma_n^2$, which is never less and
      makes fits prefer too much noise. For comparisons;
    - `blocks`: $\frac12 \sum_b \log\det(I + S_b^{-1} D_b)$ with the covariances $D_b$ that are left
      within blocks of consecutive data, so that neighbours should be close in `x`. Tighter still
      for $O(n^3 / b^2)$ more.

    All are below the exact `prior(x).log_prob(y)`, and equal it where the inducing points are the
    inputs, but for the jitter. The best normal distribution of the inducing
    variables is the same for all; see
    `sparse_posterior`.

    Args:
        prior: the process with its noise, a scalar or `(n,)`, positive.
        x: inputs, shape `(n, d)` or `(n,)`.
        inducing_points: shape `(m, d)` or `(m,)`, no more than data.
        tight: whether to tighten the bound.
        blocks: number of blocks of data; sizes differ by at most one.
        jitter: see `inducing_features`.

    Returns:
        A distribution of `y`, shape `(n,)`. Its density is NaN where parameters known only at run
        time have none: negative lengthscales, variances or noise.

    Raises:
        ValueError: wrong shapes, NaN in the inputs or the points, more points than data, noise
            that is known and not positive, `blocks` below 1 or above `n` or without `tight`.
        RuntimeError: inputs or points known only when a compiled program runs hold NaN.

    References:
        Titsias (2009), "Variational learning of inducing variables in sparse Gaussian processes",
        AISTATS, equation 9. Titsias (2025), "New bounds for sparse variational Gaussian processes";
        Bui, Ashman and Turner (2025), "Tighter sparse variational Gaussian processes": the
        tightened bound. Bui and Titsias, "Sparse Gaussian processes: structured approximations and
        power-EP revisited": blocks.
    """
    if blocks is not None and not tight:
        raise ValueError("sgpr: blocks are for the tightened bound; leave tight=True")
    x = all_points(x)
    if blocks is not None:
        whole_number("sgpr: blocks", blocks, 1, len(x))
    if not tight:
        return power_ep(prior, x, inducing_points=inducing_points, alpha=0.0, jitter=jitter)
    noise = diagonal_noise(prior, x)
    features, phi = features_at(prior, x, inducing_points, jitter)
    if blocks is None:
        penalty = jnp.sum(jnp.log1p(features.residual(x, phi) / noise))
    else:
        penalty = _block_logdet(prior.kernel, x, phi, noise, blocks)
    return _bound(prior, x, phi, noise, -0.5 * penalty)


def fitc(
    prior: GP, x: Any, *, inducing_points: Any, jitter: float | None = None
) -> CollapsedNormal:
    r"""The approximation with exact variances, the fully independent training conditional.

    With the notation of `sgpr`, the covariance is $\Phi^\top \Phi + \mathrm{diag}(d) + S$. A model
    of its own and no bound: fits tend to too little noise, and more inducing points may make it
    worse. Prefer `sgpr`, unless the noise is known or varies with the input.

    Args:
        prior: the process with its noise, a scalar or `(n,)`, positive.
        x: inputs, shape `(n, d)` or `(n,)`.
        inducing_points: shape `(m, d)` or `(m,)`, no more than data.
        jitter: see `inducing_features`.

    Returns:
        A distribution of `y`, shape `(n,)`.

    Raises:
        ValueError: as for `sgpr`.
        RuntimeError: as for `sgpr`.

    References:
        Snelson and Ghahramani (2006), "Sparse Gaussian processes using pseudo-inputs", NeurIPS 18;
        the name is of Quiñonero-Candela and Rasmussen (2005), JMLR 6.
    """
    return power_ep(prior, x, inducing_points=inducing_points, alpha=1.0, jitter=jitter)


def power_ep(
    prior: GP, x: Any, *, inducing_points: Any, alpha: Any, jitter: float | None = None
) -> CollapsedNormal:
    r"""The marginal likelihood of power expectation propagation, between the bound and FITC.

    With the notation of `sgpr`, the covariance is $\Phi^\top \Phi + \alpha\,\mathrm{diag}(d) + S$
    and the penalty $\frac{1 - \alpha}{2 \alpha} \sum_n \log(1 + \alpha d_n / \sigma_n^2)$. At
    $\alpha = 0$ it is the bound of Titsias (2009), at 1 it is `fitc`; in between it is no bound.

    Args:
        prior: the process with its noise, a scalar or `(n,)`, positive.
        x: inputs, shape `(n, d)` or `(n,)`.
        inducing_points: shape `(m, d)` or `(m,)`, no more than data.
        alpha: the power, in 0 to 1, scalar; no derivative at exactly 0.
        jitter: see `inducing_features`.

    Returns:
        A distribution of `y`, shape `(n,)`.

    Raises:
        ValueError: as for `sgpr`, or `alpha` outside of 0 to 1.
        RuntimeError: as for `sgpr`, also for `alpha`.

    References:
        Bui, Yan and Turner (2017), "A unifying framework for Gaussian process pseudo-point
        approximations using power expectation propagation", JMLR 18.
    """
    if jnp.ndim(alpha) != 0:
        raise ValueError(f"power_ep: alpha must be a scalar, got shape {jnp.shape(alpha)}")
    alpha = refuse_where(
        alpha, lambda v: ~((v >= 0) & (v <= 1)), "power_ep: alpha must lie in 0 to 1"
    )
    x = all_points(x)
    noise = diagonal_noise(prior, x)
    features, phi = features_at(prior, x, inducing_points, jitter)
    left = features.residual(x, phi)
    alpha = jnp.asarray(alpha, x.dtype)
    penalty = power_penalty(left / noise, alpha)
    return _bound(prior, x, phi, noise + alpha * left, -0.5 * penalty)


def _bound(
    prior: GP, x: jax.Array, phi: jax.Array, diagonal: jax.Array, correction: jax.Array
) -> CollapsedNormal:
    with failures_are_nan():  # the operator is part of a density, which a sampler moves
        covariance = ops.LowRankPlusDiag(phi.T, diagonal)
    return CollapsedNormal(prior.mean_at(x), covariance, correction)


def _block_logdet(
    kernel: AbstractKernel, x: jax.Array, phi: jax.Array, noise: jax.Array, blocks: int
) -> jax.Array:
    r"""$\sum_b \log\det(I + S_b^{-1/2} D_b S_b^{-1/2})$; the first blocks are one longer."""
    size, longer = divmod(len(x), blocks)
    cut = longer * (size + 1)
    scale = jnp.sqrt(noise)
    total = jnp.zeros((), x.dtype)
    for length, part in ((size + 1, slice(0, cut)), (size, slice(cut, None))):
        if not len(x[part]):
            continue
        inputs = x[part].reshape(-1, length, x.shape[1])
        unit = (phi[:, part] / scale[part]).T.reshape(-1, length, len(phi))
        own = scale[part].reshape(-1, length)
        left = jax.vmap(kernel.gram)(inputs) / (own[:, :, None] * own[:, None, :])
        left = left - jnp.einsum("bim,bjm->bij", unit, unit) + jnp.eye(length, dtype=x.dtype)
        with failures_are_nan():
            total = total + ops.BlockDiag(left, ops.psd).logdet()
    return total
