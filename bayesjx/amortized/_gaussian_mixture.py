"""Mixtures of Gaussians as arrays, and their exact linear-Gaussian update and prediction."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from .._core import (
    checked_finite,
    cholesky_each,
    inverse_tril,
    number_array,
    refuse_where,
    solve_tril_each,
)
from ._mixture_supports import MapTo, normal_log_prob, Normals, OnSupport, scalar_map, Support


class GaussianMixture(eqx.Module):
    """A mixture of multivariate Gaussians, or a batch of them, as arrays.

    What `jax.vmap`, `jax.lax.scan` and networks pass on; `distribution` makes it one of NumPyro.

    Args:
        log_weights: logarithms of the weights, up to a constant, shape `(*batch, k)`; -inf is a
            weight of 0.
        loc: means, shape `(*batch, k, s)`.
        scale_tril: lower Cholesky factors of the covariances, shape `(*batch, k, s, s)`.

    Raises:
        ValueError: shapes that do not fit; values that are known to be NaN, weights that are all 0,
            or a diagonal that is not positive.
    """

    log_weights: Float[Array, "*batch k"]
    loc: Float[Array, "*batch k s"]
    scale_tril: Float[Array, "*batch k s s"]

    def __init__(self, log_weights: Any, loc: Any, scale_tril: Any):
        log_weights, loc, scale_tril = (
            number_array(f"GaussianMixture: {name}", value)
            for name, value in (
                ("log_weights", log_weights),
                ("loc", loc),
                ("scale_tril", scale_tril),
            )
        )
        lead = np.shape(log_weights)
        if not lead or np.shape(loc)[:-1] != lead or np.ndim(loc) != len(lead) + 1:
            raise ValueError(
                "GaussianMixture: loc must have shape (*batch, k, s) for log_weights of shape "
                f"(*batch, k), got {np.shape(loc)} and {lead}"
            )
        if np.shape(scale_tril) != (*np.shape(loc), np.shape(loc)[-1]):
            raise ValueError(
                f"GaussianMixture: scale_tril must have shape (*batch, k, s, s) for loc of shape "
                f"{np.shape(loc)}, got {np.shape(scale_tril)}"
            )
        loc = checked_finite("GaussianMixture: loc", jnp.asarray(loc))
        refuse_where_known(
            log_weights,
            lambda w: np.isnan(w) | (w == np.inf) | np.all(w == -np.inf, axis=-1, keepdims=True),
            "GaussianMixture: log_weights must not be NaN or infinite, and not all -inf",
        )
        refuse_where_known(
            scale_tril,
            lambda t: ~(np.diagonal(t, axis1=-2, axis2=-1) > 0).all() | ~np.isfinite(t),
            "GaussianMixture: scale_tril must be finite with a positive diagonal",
        )
        dtype = jnp.result_type(loc, scale_tril, log_weights, jnp.float32)
        self.log_weights = jax.nn.log_softmax(jnp.asarray(log_weights, dtype), axis=-1)
        self.loc = jnp.asarray(loc, dtype)
        self.scale_tril = jnp.tril(jnp.asarray(scale_tril, dtype))

    @staticmethod
    def of(prior: Any, support: Support | None = None) -> GaussianMixture:
        """The mixture that a NumPyro distribution is, on the unconstrained scale.

        Args:
            prior: a `GaussianMixture`; a `MultivariateNormal`; a `Normal` of one latent variable or
                with `to_event(1)`; a `MixtureSameFamily` of these; or one of them mapped by `exp`
                or a sigmoid, as `support` says.
            support: smallest and largest value of each latent variable; None for any.

        Raises:
            ValueError: it is another distribution.
        """
        if isinstance(prior, GaussianMixture):
            return prior
        inner = prior.base_dist if isinstance(prior, dist.Independent) else prior
        if isinstance(inner, dist.TransformedDistribution):
            base = _unmapped(inner, prior.event_shape, support)
            prior = base if inner is prior else base.to_event(len(prior.event_shape))
        elif support is not None and any(bounds != (-math.inf, math.inf) for bounds in support):
            raise ValueError(
                "prior must lie on the support of the latent variables, such as a mixture of "
                "Gaussians with numpyro's ExpTransform; a GaussianMixture is on the unconstrained "
                f"scale always. Got {type(prior).__name__}"
            )
        if isinstance(prior, dist.MixtureSameFamily):
            loc, tril = _gaussian(prior.component_distribution, prior.event_dim)
            log_weights = jnp.broadcast_to(prior.mixing_distribution.logits, loc.shape[:-1])
        else:
            loc, tril = _gaussian(
                prior, prior.event_dim if isinstance(prior, dist.Distribution) else 0
            )
            loc, tril = loc[..., None, :], tril[..., None, :, :]
            log_weights = jnp.zeros(loc.shape[:-1], loc.dtype)
        return GaussianMixture(log_weights, loc, tril)

    @property
    def num_components(self) -> int:
        """Number of components, `k`."""
        return self.loc.shape[-2]

    @property
    def num_latents(self) -> int:
        """Number of coordinates, `s`."""
        return self.loc.shape[-1]

    @property
    def mean(self) -> Float[Array, "*batch s"]:
        """Mean."""
        return jnp.sum(jnp.exp(self.log_weights)[..., None] * self.loc, axis=-2)

    @property
    def covariance(self) -> Float[Array, "*batch s s"]:
        """Covariance."""
        rest = self.loc - self.mean[..., None, :]
        parts = self.scale_tril @ self.scale_tril.mT + rest[..., None] * rest[..., None, :]
        return jnp.sum(jnp.exp(self.log_weights)[..., None, None] * parts, axis=-3)

    def log_prob(self, x: Any) -> Float[Array, "*batch"]:
        """Log density of points on the unconstrained scale, shape `(*batch, s)`."""
        x = jnp.asarray(x)
        parts = normal_log_prob(x[..., None, :], self.loc, self.scale_tril)
        return logsumexp(self.log_weights + parts, axis=-1)

    def sample(self, key: jax.Array) -> Float[Array, "*batch s"]:
        """One draw of each mixture of the batch."""
        key_which, key_noise = jax.random.split(key)
        lead, dtype = self.loc.shape[:-2], self.loc.dtype
        which = jax.random.categorical(key_which, self.log_weights)[..., None, None]
        noise = jax.random.normal(key_noise, (*lead, self.num_latents), dtype)
        loc = jnp.take_along_axis(self.loc, which, axis=-2)[..., 0, :]
        tril = jnp.take_along_axis(self.scale_tril, which[..., None], axis=-3)[..., 0, :, :]
        return loc + jnp.einsum("...ij,...j->...i", tril, noise)

    def distribution(self, support: Support | None = None) -> dist.Distribution:
        """The mixture as a NumPyro distribution, mapped to a support if one is given.

        Args:
            support: smallest and largest value of each coordinate.
        """
        mixture = dist.MixtureSameFamily(
            dist.Categorical(logits=self.log_weights),
            Normals(self.loc, scale_tril=self.scale_tril),
        )
        if support is None or all(bounds == (-math.inf, math.inf) for bounds in support):
            return mixture
        return OnSupport(mixture, [MapTo(support)])


def condition_mixture(
    mixture: GaussianMixture, z: Any, design: Any, noise_cov: Any
) -> tuple[GaussianMixture, Float[Array, "*batch"]]:
    r"""Exact posterior of a mixture of Gaussians given a linear observation with Gaussian noise.

    Of $z = H x + \epsilon$ with $\epsilon \sim N(0, R)$: each component is updated as by a Kalman
    filter, and its weight is multiplied by its evidence $N(z; H \mu_j, H \Sigma_j H^\top + R)$.
    Covariances are updated as factors, so that none loses its positive diagonal.

    Args:
        mixture: the prior, batch shape `(*batch,)`.
        z: observation, shape `(*batch, p)`.
        design: $H$, shape `(*batch, p, s)`.
        noise_cov: $R$, shape `(*batch, p, p)`.

    Returns:
        The posterior, and the log evidence $\log p(z)$, shape `(*batch,)`.

    Raises:
        ValueError: shapes that do not fit, or values that are NaN.

    References:
        Alspach and Sorenson (1972), "Nonlinear Bayesian estimation using Gaussian sum
        approximations", IEEE Transactions on Automatic Control 17.
    """
    mixture = _checked_mixture("condition_mixture", mixture)
    s, p = mixture.num_latents, np.shape(z)[-1] if np.ndim(z) else 0
    z = _checked("condition_mixture: z", z, (p,))
    design = _checked("condition_mixture: design", design, (p, s))
    noise_cov = _checked("condition_mixture: noise_cov", noise_cov, (p, p))
    noise_tril = cholesky_each(noise_cov)[..., None, :, :]
    # In coordinates in which noise and components are standard, M = 1 + W' W is the precision.
    white = solve_tril_each(*_alike(noise_tril, design[..., None, :, :] @ mixture.scale_tril))
    rest = z[..., None, :] - jnp.einsum("...ps,...ks->...kp", design, mixture.loc)
    rest = solve_tril_each(*_alike(noise_tril, rest[..., None]))
    eye = jnp.eye(s, dtype=white.dtype)
    upper = jnp.flip(cholesky_each(jnp.flip(eye + white.mT @ white, (-1, -2))), (-1, -2))
    tril = inverse_tril(upper.mT)  # T with T T' the inverse of M
    shift = tril @ (tril.mT @ (white.mT @ rest))
    evidence_tril = cholesky_each(jnp.eye(p, dtype=white.dtype) + white @ white.mT)
    residual = solve_tril_each(evidence_tril, rest)[..., 0]
    log_evidence = (
        -0.5 * jnp.sum(residual**2, axis=-1)
        - _log_diagonal(evidence_tril)
        - _log_diagonal(noise_tril)
        - 0.5 * p * math.log(2 * math.pi)
    )
    log_weights = mixture.log_weights + log_evidence
    posterior = GaussianMixture(
        log_weights,
        mixture.loc + (mixture.scale_tril @ shift)[..., 0],
        mixture.scale_tril @ tril,
    )
    return posterior, logsumexp(log_weights, axis=-1)


def propagate_mixture(mixture: GaussianMixture, transition: Any, noise_cov: Any) -> GaussianMixture:
    r"""Exact prediction of a mixture of Gaussians through linear dynamics with Gaussian noise.

    Of $x' = F x + \epsilon$ with $\epsilon \sim N(0, Q)$.

    Args:
        mixture: of `x`, batch shape `(*batch,)`.
        transition: $F$, shape `(*batch, s, s)`.
        noise_cov: $Q$, shape `(*batch, s, s)`, positive semi-definite.

    Returns:
        That of `x'`.

    Raises:
        ValueError: shapes that do not fit, or values that are NaN.
    """
    mixture = _checked_mixture("propagate_mixture", mixture)
    s = mixture.num_latents
    transition = _checked("propagate_mixture: transition", transition, (s, s))[..., None, :, :]
    noise_cov = _checked("propagate_mixture: noise_cov", noise_cov, (s, s))[..., None, :, :]
    half = transition @ mixture.scale_tril
    loc = (transition @ mixture.loc[..., None])[..., 0]
    return GaussianMixture(mixture.log_weights, loc, cholesky_each(half @ half.mT + noise_cov))


def refuse_where_known(array: Any, bad: Any, message: str) -> None:
    """`refuse_where` of what is known; tracers pass."""
    if not isinstance(array, jax.core.Tracer):
        refuse_where(array, bad, message)


def _log_diagonal(tril: jax.Array) -> jax.Array:
    return jnp.sum(jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1)), axis=-1)


def _alike(tril: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both with the same leading axes."""
    lead = jnp.broadcast_shapes(tril.shape[:-2], b.shape[:-2])
    return tuple(jnp.broadcast_to(a, (*lead, *a.shape[-2:])) for a in (tril, b))  # ty: ignore


def _checked_mixture(owner: str, mixture: Any) -> GaussianMixture:
    if not isinstance(mixture, GaussianMixture):
        raise ValueError(
            f"{owner}: mixture must be a GaussianMixture, got {type(mixture).__name__}"
        )
    return mixture


def _checked(name: str, value: Any, shape: tuple[int, ...]) -> jax.Array:
    value = checked_finite(name, jnp.asarray(number_array(name, value)))
    if np.shape(value)[-len(shape) :] != shape or np.ndim(value) < len(shape):
        raise ValueError(f"{name} must have shape (*batch, {str(shape)[1:]}, got {np.shape(value)}")
    return value


def _unmapped(prior: Any, event_shape: tuple[int, ...], support: Support | None) -> Any:
    """The distribution before its transform, which must lead to the support."""
    maps = prior.transforms
    if isinstance(maps[0], MapTo):
        found = maps[0].support
    else:
        found = (scalar_map(maps[0]),) * (event_shape[0] if event_shape else 1)
    if len(maps) > 1 or None in found or (support is not None and found != support):
        raise ValueError(
            "prior must be a mixture of Gaussians that is mapped to the support of the latent "
            f"variables, {support}, by exp or a sigmoid; got transforms {maps!r:.80}"
        )
    return prior.base_dist


def _gaussian(d: Any, event_dim: int) -> tuple[jax.Array, jax.Array]:
    """Mean and factor of a NumPyro distribution that is Gaussian."""
    while isinstance(d, dist.Independent):
        d = d.base_dist
    if isinstance(d, dist.MultivariateNormal):
        loc = jnp.broadcast_to(d.loc, (*d.batch_shape, *d.event_shape))
        return loc, jnp.broadcast_to(d.scale_tril, (*loc.shape, loc.shape[-1]))
    if isinstance(d, dist.Normal) and event_dim <= 1:
        loc, scale = jnp.broadcast_arrays(jnp.asarray(d.loc), jnp.asarray(d.scale))
        if event_dim == 0:
            loc, scale = loc[..., None], scale[..., None]
        return loc, scale[..., None] * jnp.eye(loc.shape[-1], dtype=loc.dtype)
    raise ValueError(
        "prior must be a GaussianMixture or a numpyro Normal, MultivariateNormal or "
        f"MixtureSameFamily of these, got {type(d).__name__}"
    )
