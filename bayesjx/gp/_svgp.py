"""Stochastic variational Gaussian processes: any likelihood, any number of data."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from .. import ops
from .._core import checked_finite, refuse_where, trained, whole_number
from ..kernels import AbstractKernel, real_points
from ..likelihoods import expectation, Gaussian, held, in_support, Likelihood
from ._arguments import checked_jitter
from ._collapsed import SparsePosterior
from ._inducing import inducing_features
from ._inputs import all_points
from ._inverse_factor import inverse_factor, product, written_out
from ._process import check_prior, GP


class WhitenedNormal(eqx.Module):
    r"""Normal distribution of whitened inducing variables, $v \sim N(m, R R^\top)$.

    A priori they are standard normal.

    Attributes:
        mean: $m$, shape `(m,)`, or `(l, m)` for `l` latent functions.
        scale_tril: $R$, shape `(m, m)` or `(l, m, m)`; only its lower triangle is read.
    """

    mean: Float[Array, "... m"]
    scale_tril: Float[Array, "... m m"]

    def through(
        self, phi: Float[Array, "m n"]
    ) -> tuple[Float[Array, " n *l"], Float[Array, " n *l"]]:
        r"""Mean and variance of $\phi^\top v$, shape `(n,)` or `(n, l)`, for features `(m, n)`."""
        root = written_out(jnp.tril(self.scale_tril).mT)
        variance = jnp.sum(product(root, phi) ** 2, axis=-2)
        return (self.mean @ phi).T, variance.T

    def divergence(self) -> Float[Array, ""]:
        """The Kullback-Leibler divergence from the standard normal, scalar."""
        tril = jnp.tril(self.scale_tril)
        logdet = 2 * jnp.sum(jnp.log(jnp.abs(jnp.diagonal(tril, axis1=-2, axis2=-1))))
        return 0.5 * (jnp.sum(tril**2) + jnp.sum(self.mean**2) - self.mean.size - logdet)


class Projection(NamedTuple):
    """Prior mean, features and residual variances at the points of a minibatch.

    Attributes:
        mean: of the prior, shape `(n,)`.
        features: of each block of inducing variables, shapes `(m_i, n)`.
        residual: variance that they leave, shape `(n,)`.
    """

    mean: Float[Array, " n"]
    features: tuple[Float[Array, "_ n"], ...]
    residual: Float[Array, " n"]


class AbstractSVGP(eqx.Module):
    """A process approximated through independent blocks of whitened inducing variables."""

    prior: eqx.AbstractVar[GP]
    inducing_points: eqx.AbstractVar[Float[Array, "m d"]]
    likelihood: eqx.AbstractVar[Likelihood | None]
    tight: eqx.AbstractVar[bool]
    blocks: eqx.AbstractVar[tuple[WhitenedNormal, ...]]

    @abc.abstractmethod
    def project(self, x: Float[Array, "n d"]) -> Projection:
        """The prior's part at points `(n, d)`."""

    @abc.abstractmethod
    def posterior(self, latent: int | None = None) -> SparsePosterior:
        """The approximate posterior of the function.

        Args:
            latent: which one, if there are several.

        Raises:
            ValueError: `latent` is missing, or out of range.
        """

    @property
    def observed(self) -> Likelihood:
        """The likelihood: that of the prior's noise if none was given."""
        return Gaussian(self.prior.noise_var) if self.likelihood is None else self.likelihood

    def elbo(
        self, x: Any, y: Any, num_data: int | None = None, *, key: jax.Array | None = None
    ) -> Float[Array, ""]:
        r"""The evidence lower bound, or its unbiased estimate from a minibatch.

        $\frac{N}{B} \sum_n E_q[\log p(y_n \mid f_n)] - \mathrm{KL}(q(v) \,\|\, p(v))$.

        Args:
            x: inputs, shape `(b, d)` or `(b,)`.
            y: observations, shape `(b,)`, or `(b, ...)` for distributions of vectors.
            num_data: $N$, of which these are drawn; by default these are all.
            key: for likelihoods of three and more latents.

        Returns:
            Scalar.

        Raises:
            ValueError: shapes that disagree, NaN, `y` outside of the likelihood's support, fewer
                data than the batch or the inducing points have.
            RuntimeError: under `jit`, NaN, or `y` outside of the support.

        References:
            Hensman, Fusi and Lawrence (2013), "Gaussian processes for big data", UAI, equation 4;
            Hensman, Matthews and Ghahramani (2015), "Scalable variational Gaussian process
            classification", AISTATS, equation 19.
        """
        x, y, weight = self.batch(x, y, num_data)
        return self.bound(self.project(x), y, weight, key)

    def bound(
        self, at: Projection, y: jax.Array, weight: Any, key: jax.Array | None = None
    ) -> Float[Array, ""]:
        """The bound from what `project` and `batch` gave, scalar."""
        mean, variance = total(self.contributions(at))
        divergence = jnp.stack([block.divergence() for block in self.blocks])
        term = self.data_term(at, y, mean, variance, key)
        return weight * jnp.sum(term) - jnp.sum(divergence)

    def contributions(
        self, at: Projection
    ) -> list[tuple[Float[Array, " n *l"], Float[Array, " n *l"]]]:
        """Mean and variance of the function that each block brings about."""
        pairs = zip(self.blocks, at.features, strict=True)
        return [block.through(phi) for block, phi in pairs]

    def data_term(
        self, at: Projection, y: jax.Array, mean: Any, variance: Any, key: Any = None
    ) -> Float[Array, " n"]:
        """Expected log densities where the blocks bring mean and variance, shape `(n,)`."""
        prior_mean, residual = at.mean, at.residual
        if mean.ndim == 2:
            prior_mean, residual = prior_mean[:, None], residual[:, None]
        mean = prior_mean + mean
        if not self.tight:
            return expectation(self.observed, y, mean, residual + variance, key)
        # What the inducing variables leave costs log(1 + d / σ²) / 2 instead of d / (2 σ²).
        noise = _noise(self.observed).astype(mean.dtype)
        term = expectation(self.observed, y, mean, variance)
        return term - 0.5 * jnp.log1p(residual / noise)

    def batch(
        self, x: Any, y: Any, num_data: int | None
    ) -> tuple[Float[Array, "n d"], Shaped[Array, "n ..."], Float[Array, ""]]:
        """Inputs and responses, checked, and what the sum over them is multiplied with."""
        x = real_points("x", x)
        guard = jnp.ones((), self.inducing_points.dtype)
        if isinstance(x, jax.core.Tracer):  # as in `in_support`
            bad = ~jnp.all(jnp.isfinite(x))
            guard = eqx.error_if(guard, bad, "x holds NaN or infinite values")
        else:
            checked_finite("x", x)
        x = x.astype(self.inducing_points.dtype)
        if x.shape[1] != self.inducing_points.shape[1]:
            d = self.inducing_points.shape[1]
            raise ValueError(f"x has {x.shape[1]} coordinates, the inducing points {d}")
        if jnp.ndim(y) == 0 or jnp.shape(y)[0] != len(x):
            raise ValueError(f"y must have shape ({len(x)},) or ({len(x)}, ...); {jnp.shape(y)}")
        latents = self.blocks[0].mean.shape[:-1]
        at = jnp.zeros((len(x), *latents), x.dtype)
        y, guard = in_support(self.observed, y, at, guard)
        num_data = len(x) if num_data is None else num_data
        if not num_data >= len(x):
            raise ValueError(f"num_data is {num_data}, less than the {len(x)} of the batch")
        for block in self.blocks:
            if num_data < block.mean.shape[-1]:
                raise ValueError(
                    f"there are more inducing points, {block.mean.shape[-1]}, than data, "
                    f"{num_data}; is num_data the number of all data?"
                )
        return x, y, guard * (num_data / len(x))

    def with_blocks(self, blocks: tuple[WhitenedNormal, ...]) -> Any:
        """The same with other distributions of the inducing variables."""
        return eqx.tree_at(lambda svgp: svgp.blocks, self, blocks)

    def trained(self, state: Any) -> Any:
        """The same with the arrays of a state of `svgp_natgrad` or `svgp_adam`, made from it."""
        svgp = trained(self, state)
        return svgp if state.natural is None else svgp.with_blocks(state.natural.blocks)


class SVGP(AbstractSVGP):
    r"""A sparse variational process, whitened: $q(v) = N(m, R R^\top)$ with $u = L_u v$.

    One step of `svgp_natgrad` or `svgp_adam` on `b` data costs $O(m^3 + b m^2)$. For data with
    normal noise that fit in memory at once, `sgpr` has no parameters of q to learn; at the cost of
    256 points, 128 with 128 orthogonal ones (`DecoupledSVGP`) take less time.

    Args:
        prior: the process. Without a likelihood, its `noise_var` is that of the observations.
        likelihood: from the function to a NumPyro distribution, see
            `likelihoods.expected_log_prob`.
        inducing_points: shape `(m, d)` or `(m,)`.
        num_latents: independent functions with this prior that the likelihood has of each
            observation, as trailing axis of its argument; 1 means no such axis.
        q: distribution of the whitened inducing variables; by default that of the prior.
        tight: use the tightened bound, with normal noise only: never below the other one, with
            the same optimum of `q`.
        jitter: see `inducing_features`.

    Raises:
        ValueError: wrong shapes, NaN in the points, noise that is not a positive scalar, noise
            beside a likelihood, `tight` with a likelihood that is not normal.

    References:
        Hensman, Matthews and Ghahramani (2015), "Scalable variational Gaussian process
        classification", AISTATS; Titsias (2025), "New bounds for sparse variational Gaussian
        processes" (`tight`).
    """

    prior: GP
    likelihood: Likelihood | None
    inducing_points: Float[Array, "m d"]
    blocks: tuple[WhitenedNormal, ...]
    tight: bool = eqx.field(static=True)
    jitter: float | None = eqx.field(static=True)

    def __init__(
        self,
        prior: GP,
        likelihood: Likelihood | None = None,
        *,
        inducing_points: Any,
        num_latents: int = 1,
        q: WhitenedNormal | None = None,
        tight: bool = False,
        jitter: float | None = None,
    ):
        check_observed(prior, likelihood, tight)
        self.prior, self.likelihood = prior, likelihood
        self.inducing_points = all_points(inducing_points, "inducing_points")
        self.jitter = None if jitter is None else checked_jitter(jitter, self.inducing_points.dtype)
        self.blocks = (
            start(q, "q", len(self.inducing_points), num_latents, self.inducing_points.dtype),
        )
        self.tight = tight

    @property
    def q(self) -> WhitenedNormal:
        """The distribution of the whitened inducing variables."""
        return self.blocks[0]

    def project(self, x: Float[Array, "n d"]) -> Projection:
        """The prior's part at points `(n, d)`."""
        kernel = self.prior.kernel
        added = first_jitter(kernel, self.inducing_points, self.jitter)
        whiten = inverse_factor(kernel.gram(self.inducing_points) + added)[0]
        phi = product(whiten, kernel.gram(self.inducing_points, x))
        residual = jnp.maximum(kernel.diag(x) - jnp.sum(phi**2, axis=0), 0)
        return Projection(mean_at(self.prior, x), (phi,), residual)

    def posterior(self, latent: int | None = None) -> SparsePosterior:
        features = inducing_features(self.prior.kernel, self.inducing_points, self.jitter)
        q = of_latent(self.q, latent)
        tril = jnp.tril(q.scale_tril)
        count = num_latents(self.q)
        return SparsePosterior(self.prior, features, q.mean, tril, held(self.likelihood), count)


def mean_at(prior: GP, x: Float[Array, "n d"]) -> Float[Array, " n"]:
    """The prior mean at points that have been checked, shape `(n,)`."""
    if not callable(prior.mean):
        return prior.mean_at(x)
    return jax.vmap(prior.mean)(x).reshape(-1).astype(x.dtype)


def total(
    contributions: list[tuple[Float[Array, " n *l"], Float[Array, " n *l"]]],
) -> tuple[Float[Array, " n *l"], Float[Array, " n *l"]]:
    """Mean and variance that all blocks bring together."""
    mean, variance = contributions[0]
    for more_mean, more_variance in contributions[1:]:
        mean, variance = mean + more_mean, variance + more_variance
    return mean, variance


def first_jitter(
    kernel: AbstractKernel, points: Float[Array, "m d"], jitter: float | None
) -> Float[Array, "m m"]:
    """The jitter that `inducing_features` adds to a covariance, a scalar multiple of I."""
    added = checked_jitter(jitter, points.dtype) * jax.lax.stop_gradient(
        jnp.mean(kernel.diag(points))
    )
    return added * jnp.eye(len(points), dtype=points.dtype)


def start(
    q: WhitenedNormal | None, name: str, m: int, num_latents: int, dtype: Any
) -> WhitenedNormal:
    """The distribution that was given, checked, or that of the prior."""
    whole_number("num_latents", num_latents, 1)
    lead = () if num_latents == 1 else (num_latents,)
    if q is None:
        eye = jnp.broadcast_to(jnp.eye(m, dtype=dtype), (*lead, m, m))
        return WhitenedNormal(jnp.zeros((*lead, m), dtype), eye)
    mean, tril = jnp.asarray(q.mean, dtype), jnp.asarray(q.scale_tril, dtype)
    if mean.shape != (*lead, m) or tril.shape != (*lead, m, m):
        raise ValueError(
            f"{name} must have a mean of shape {(*lead, m)} and a scale_tril of shape "
            f"{(*lead, m, m)}, got {mean.shape} and {tril.shape}"
        )
    return WhitenedNormal(checked_finite(f"{name}.mean", mean), tril)


def num_latents(q: WhitenedNormal) -> int:
    """The number of functions that the distribution is of."""
    return 1 if q.mean.ndim == 1 else len(q.mean)


def of_latent(q: WhitenedNormal, latent: int | None) -> WhitenedNormal:
    """The distribution of one latent function."""
    if q.mean.ndim == 1:
        if latent not in (None, 0):
            raise ValueError(f"posterior: there is one latent function, latent={latent} is not")
        return q
    if latent is None or not 0 <= latent < len(q.mean):
        raise ValueError(
            f"posterior: latent must name one of {len(q.mean)} functions, got {latent}"
        )
    return WhitenedNormal(q.mean[latent], q.scale_tril[latent])


def check_observed(prior: GP, likelihood: Any, tight: bool) -> None:
    """Refuses noise and likelihood that contradict each other.

    Raises:
        ValueError: they do not.
    """
    check_prior(prior)
    noise = prior.noise_var
    if likelihood is not None:
        if not callable(likelihood):
            raise ValueError(
                "likelihood must be a function from f to a NumPyro distribution, got "
                f"{type(likelihood).__name__}"
            )
        if isinstance(noise, ops.AbstractOperator) or _known(noise, lambda v: v != 0):
            raise ValueError("a likelihood was given: noise_var of the prior would not be used")
        if tight and not isinstance(likelihood, Gaussian):
            raise ValueError("tight: the tightened bound is known for normal noise only")
        return
    if isinstance(noise, ops.AbstractOperator) or noise.ndim:
        raise ValueError("noise_var of the prior must be a scalar, as minibatches are drawn")
    if not isinstance(noise, jax.core.Tracer):
        refuse_where(
            noise, lambda v: ~(v > 0), "noise_var of the prior must be positive, or pass likelihood"
        )


def _known(value: Any, bad: Any) -> bool:
    return not isinstance(value, jax.core.Tracer) and bool(np.any(bad(np.asarray(value))))


def _noise(likelihood: Any) -> jax.Array:
    return likelihood.noise_var
