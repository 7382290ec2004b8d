"""Predictive distributions where a network's outputs at an input are jointly Gaussian."""

from __future__ import annotations

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist
from scipy.special import ndtri
from scipy.stats import qmc

from ..distributions import BernoulliLogits
from ..likelihoods import Gaussian
from ._mixture import network_predictive
from ._structures import joint_tril


def joint_predictive(
    likelihood: Any, mean: jax.Array, covariance: jax.Array, method: str, num_nodes: int
) -> dist.Distribution:
    """The distribution of a new observation at each input, batch shape `(m,)`.

    Args:
        likelihood: from values `(m, p)` to a distribution.
        mean: of the function, shape `(m, p)`, or `(m,)` of one output.
        covariance: of its outputs, shape `(m, p, p)`.
        method: `"nodes"` or `"probit"`.
        num_nodes: at which the likelihood is averaged.

    Raises:
        ValueError: see `LaplacePosterior.predict`.
    """
    if method == "probit":
        return _probit(likelihood, mean, covariance)
    p = covariance.shape[-1]
    if isinstance(likelihood, Gaussian):
        noise_var = likelihood.noise_var.astype(mean.dtype)
        total = 0.5 * (covariance + covariance.mT) + noise_var * jnp.eye(p, dtype=mean.dtype)
        return dist.MultivariateNormal(mean, scale_tril=joint_tril(total))
    nodes = jnp.asarray(normal_nodes(p, num_nodes), mean.dtype)
    tril = joint_tril(0.5 * (covariance + covariance.mT))
    f = mean + jnp.einsum("npq,sq->snp", tril, nodes)
    log_weights = jnp.full(num_nodes, -math.log(num_nodes), mean.dtype)
    return network_predictive(likelihood, f, log_weights)


@functools.lru_cache(32)
def normal_nodes(dim: int, num: int) -> np.ndarray:
    """Fixed nodes of equal weight for normal variables, shape `(num, dim)`.

    A Sobol sequence, moved to the middles of its cells so that each coordinate alone is
    evenly spaced, by the inverse of the normal distribution function, with a variance of one.
    """
    count = 2 ** math.ceil(math.log2(max(num, 2)))
    points = qmc.Sobol(dim, scramble=False).random(count)[:num]
    nodes = ndtri((points + 0.5 / count) % 1)
    nodes -= nodes.mean(axis=0)
    scale = nodes.std(axis=0)
    return nodes / np.where(scale > 0, scale, 1)


def _probit(likelihood: Any, mean: jax.Array, covariance: jax.Array) -> dist.Distribution:
    variance = jnp.diagonal(covariance, axis1=-2, axis2=-1).reshape(mean.shape)
    shrunk = mean / jnp.sqrt(1 + jnp.pi / 8 * jnp.maximum(variance, 0))
    observed = likelihood(shrunk)
    if isinstance(observed, dist.CategoricalLogits | dist.CategoricalProbs):
        return dist.CategoricalLogits(observed.logits)
    if isinstance(observed, dist.BernoulliLogits | dist.BernoulliProbs):
        return BernoulliLogits(observed.logits).to_event(observed.logits.ndim - 1)
    raise ValueError(
        'predict: method="probit" is for classes, Bernoulli or categorical observations; the '
        f"likelihood makes {type(observed).__name__}"
    )
