"""What the posteriors of Gaussian processes have in common."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro import distributions as dist

from .. import ops
from ..distributions import StructuredNormal
from ..likelihoods import AbstractPosterior
from ..ops import residual_covariance
from ._arguments import check_draws
from ._inputs import as_points
from ._process import GP


class AbstractGPPosterior(AbstractPosterior):
    """Abstract base class of posteriors of a Gaussian process.

    They are made by `condition`, `laplace`, or a sparse or variational approximation, and hold
    factorisations, so queries cost products and triangular solves only. `x` stands for points of
    shape `(m, d)` or `(m,)`, or a `Grid` where the posterior keeps its structure.
    """

    prior: eqx.AbstractVar[GP]

    def __call__(self, x: Any) -> StructuredNormal:
        """The joint distribution of the function at the points, with a dense covariance.

        Where data leave no more of the function than rounding, as at noise-free observations, the
        covariance is singular: a jitter relative to the prior's variance, from some roundings of it
        on, gives it a Cholesky factor. `posterior(x).covariance.jitter` says how much.
        """
        points = as_points(x)
        prior = jnp.mean(self.prior.kernel.diag(points))
        return StructuredNormal(
            self.mean(points), residual_covariance(self.covariance(points), prior)
        )

    def pathwise(self, key: jax.Array, num_samples: int, *, num_features: int = 2000) -> Any:
        """Draws of the posterior as functions, see `bayesjx.gp.pathwise`."""
        return pathwise_draws(self, key, num_samples, num_features)


@functools.singledispatch
def pathwise_draws(posterior: Any, key: jax.Array, num_samples: int, num_features: int) -> Any:
    """Draws as functions, registered in `_pathwise`, which imports the kinds of posteriors."""
    raise NotImplementedError(f"pathwise draws of a {type(posterior).__name__}")


def dense_draws(
    posterior: AbstractGPPosterior, key: jax.Array, x: Any, sample_shape: tuple[int, ...]
) -> Float[Array, "*sample m"]:
    """Joint draws of the function by a factor of its covariance, shape `(*sample_shape, m)`.

    Where that is singular a jitter is added, which is noise of the draws; see
    `AbstractGPPosterior.__call__`. It takes $O(m^3)$; `pathwise` gives functions, in $O(m)$.
    """
    check_draws(key, sample_shape)
    return posterior(x).sample(key, sample_shape)


def with_noise(prior: GP, mean: Float[Array, " m"], variance: Float[Array, " m"]) -> dist.Normal:
    """The predictive distribution where the noise is that of the prior.

    Raises:
        ValueError: the noise differs between observations, so that of new ones is not known.
    """
    noise = prior.noise_var
    if isinstance(noise, ops.AbstractOperator) or noise.ndim:
        raise ValueError(
            "predict: noise_var differs between observations; add that of the new ones to "
            "variance(x)"
        )
    return dist.Normal(mean, jnp.sqrt(variance + noise.astype(mean.dtype)))


def clipped(
    prior_variance: Float[Array, " m"], explained: Float[Array, " m"]
) -> Float[Array, " m"]:
    """The difference, which rounding may have made negative, at least a rounding above 0."""
    smallest = jnp.finfo(prior_variance.dtype).eps * prior_variance
    return jnp.maximum(prior_variance - explained, smallest)
