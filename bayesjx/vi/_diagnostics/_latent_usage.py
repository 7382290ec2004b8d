"""What a trained guide does with its latents: active units, divergences, information."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import random
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float, Int
from numpyro import handlers
from numpyro.distributions import Distribution
from numpyro.distributions.kl import kl_divergence

from ..._core import check_key, checked_finite, whole_number
from .._estimator import (
    check_number,
    check_programs,
    draw,
    elementwise,
    elementwise_family,
    split,
    unmasked,
)
from ._table import (
    aligned,
)


class LatentUsage(NamedTuple):
    r"""Result of `latent_usage`, one entry per latent dimension unless said otherwise.

    Attributes:
        variance: variance over the data of the posterior mean.
        kl: divergence of posterior from prior, mean over the data.
        collapse_rate: share of the data whose divergence is below epsilon.
        active: whether the variance is above the threshold.
        collapsed: whether the divergence is below epsilon for a share of at least 1 - delta of
            the data.
        mutual_information: between data point and latent under the guide, scalar, in nats; it
            cannot exceed $\log n$ of the $n$ data points given.
    """

    variance: Float[Array, " k"]
    kl: Float[Array, " k"]
    collapse_rate: Float[Array, " k"]
    active: Bool[Array, " k"]
    collapsed: Bool[Array, " k"]
    mutual_information: Float[Array, ""]

    @property
    def num_active(self) -> Int[Array, ""]:
        """How many dimensions are active."""
        return jnp.sum(self.active)

    def __str__(self) -> str:
        rows = [["", "variance of mean", "KL", "share below", "state"]]
        for i, variance in enumerate(self.variance):
            state = "active" if self.active[i] else "idle"
            row = [str(i), f"{variance:.4g}", "", "", state]
            if len(self.kl) == len(self.variance):
                row[2:4] = f"{self.kl[i]:.4g}", f"{self.collapse_rate[i]:.3f}"
                row[4] += ", collapsed" if self.collapsed[i] else ""
            rows.append(row)
        text = aligned(rows)
        summary = f"{int(self.num_active)} of {len(self.variance)} active"
        return f"{text}\n{summary}, mutual information {self.mutual_information:.3f} nats"


def active_units(means: jax.Array, threshold: float = 0.01) -> Int[Array, ""]:
    r"""The number of latent dimensions whose posterior mean varies with the data.

    Args:
        means: $E_q[z|x]$, shape `(n, k)`.
        threshold: least variance of an active dimension.

    Returns:
        an integer scalar.

    Raises:
        ValueError: `means` has another shape, no rows, or NaN.

    References:
        Burda, Grosse and Salakhutdinov (2016), "Importance weighted autoencoders", section 5.2.
    """
    _check_thresholds(threshold=threshold)
    try:
        means = jnp.asarray(means)
    except TypeError:
        raise TypeError(f"means must be an array, got {type(means).__name__}") from None
    if means.ndim != 2 or means.shape[0] == 0:
        raise ValueError(f"means must have shape (n, k) with n >= 1, got {means.shape}")
    means = checked_finite("means", means)
    return jnp.sum(jnp.var(means, axis=0) > threshold)


def latent_usage(
    key: jax.Array,
    model: Callable[..., Any],
    guide: Callable[..., Any],
    *args: Any,
    site: str | None = None,
    threshold: float = 0.01,
    epsilon: float = 0.05,
    delta: float = 0.05,
    num_draws: int = 16,
    **kwargs: Any,
) -> LatentUsage:
    r"""Usage of each dimension of a latent by a trained guide, on the data that it is given.

    Where the posterior has collapsed, $q(z|x)$ is the prior whatever the data. The prior may
    itself be conditional, and depend on earlier latents, which are drawn once.

    Args:
        key: randomness.
        model: NumPyro model.
        guide: NumPyro guide with trained parameters; takes the same arguments.
        *args: passed to both, as are **kwargs**. A minibatch will do; one of $n$ points can show
            a mutual information of $\log n$ at most.
        site: the latent, whose first axis is that of the data; by default the only one.
        threshold: least variance of the posterior mean of an active dimension.
        epsilon: divergence below which the posterior counts as the prior.
        delta: a dimension has collapsed if that is so for a share of $1 - \delta$ of the data.
        num_draws: draws of the posterior for what has no closed form.

    Returns:
        a `LatentUsage`; prints as a table. Dimensions that the posterior correlates within one
        distribution, as `MultivariateNormal` does, share one entry of `kl` and `collapsed`.

    Raises:
        ValueError: there is no such site, it has no axis for the data, or it is an index that
            has no mean.

    References:
        Burda, Grosse and Salakhutdinov (2016), section 5.2 (active units); Dang, Tran, Nguyen
        and Ho (2024) (collapse rate); Hoffman and Johnson (2016), "ELBO surgery" (information).
    """
    check_key(key)
    check_programs(model=model, guide=guide)
    whole_number("num_draws", num_draws)
    _check_thresholds(threshold=threshold, epsilon=epsilon, delta=delta)
    if delta > 1:
        raise ValueError(f"delta is a share of the data, in [0, 1], got {delta}")
    keys = random.split(key, 3)
    guide_trace = handlers.trace(handlers.seed(guide, keys[0])).get_trace(*args, **kwargs)
    replayed = handlers.replay(handlers.seed(model, keys[1]), guide_trace)
    model_trace = handlers.trace(replayed).get_trace(*args, **kwargs)
    site = _find_site(guide_trace, model_trace, site)
    distribution, prior = _elements(guide_trace[site]), _elements(model_trace[site])
    if not distribution.batch_shape:
        raise ValueError(
            f"site {site!r} has a scalar value; latent_usage needs one whose first axis is the "
            "data's, as in a plate over data points"
        )
    values = jax.vmap(lambda k: draw(distribution, k)[0])(random.split(keys[2], num_draws))
    shape = distribution.batch_shape
    mean = _mean(distribution, values, site).reshape(shape[0], -1)
    kl = _divergence(distribution, prior, values).astype(mean.dtype)
    kl = jnp.broadcast_to(kl, shape).reshape(shape[0], -1)
    rate = jnp.mean(kl < epsilon, axis=0)
    variance = jnp.var(mean, axis=0)
    return LatentUsage(
        variance,
        jnp.mean(kl, axis=0),
        rate,
        variance > threshold,
        rate >= 1 - delta,
        _information(distribution, values[0]),
    )


def _check_thresholds(**values: Any) -> None:
    for name, value in values.items():
        check_number(name, value)
        if not isinstance(value, jax.core.Tracer) and value < 0:
            raise ValueError(f"{name} must not be negative, got {value}")


def _find_site(guide_trace: Any, model_trace: Any, site: str | None) -> str:
    latents = [
        name
        for name, message in guide_trace.items()
        if message["type"] == "sample" and not message["is_observed"] and name in model_trace
    ]
    if site is None and len(latents) == 1:
        return latents[0]
    if site is None or site not in latents:
        asked = "choose one with site=" if site is None else f"there is no {site!r}"
        raise ValueError(f"site: model and guide share the latent sites {latents}; {asked}")
    return site


def _elements(message: Any) -> Distribution:
    return elementwise(unmasked(split(message["fn"], message["infer"])[0]))


def _mean(distribution: Distribution, values: jax.Array, site: str) -> jax.Array:
    family = elementwise_family(distribution)
    if isinstance(family, (dist.CategoricalProbs, dist.CategoricalLogits)):
        raise ValueError(
            f"site {site!r} is categorical, and an index has no mean; use "
            "bayesjx.distributions.OneHotCategorical"
        )
    try:
        mean = jnp.asarray(distribution.mean)
    except NotImplementedError:
        mean = jnp.mean(values, axis=0)
    return jnp.broadcast_to(mean, distribution.shape())


def _divergence(distribution: Distribution, prior: Distribution, values: jax.Array) -> jax.Array:
    try:
        return jnp.asarray(kl_divergence(distribution, prior))
    except NotImplementedError:
        ratio = jax.vmap(
            lambda z: jnp.asarray(distribution.log_prob(z)) - jnp.asarray(prior.log_prob(z))
        )
        return jnp.mean(ratio(values), axis=0)


def _information(distribution: Distribution, values: jax.Array) -> jax.Array:
    """Mean of the log of the posterior over the aggregate posterior, at one draw per point."""
    size = distribution.batch_shape[0]

    def ratio(i: jax.Array) -> jax.Array:
        log_prob = jnp.broadcast_to(distribution.log_prob(values[i]), distribution.batch_shape)
        joint = jnp.sum(log_prob.reshape(size, -1), axis=1)
        return joint[i] - logsumexp(joint) + jnp.log(size).astype(joint.dtype)

    return jnp.mean(jax.lax.map(ratio, jnp.arange(size), batch_size=min(size, 64)))


__all__ = ["active_units", "latent_usage", "LatentUsage"]
