"""What every posterior of a Gaussian process answers."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro import distributions as dist

from .. import ops
from ..distributions import StructuredNormal
from ..ops._dense import left_of
from ._arguments import check_draws
from ._process import GP
from ._structure import as_points


class AbstractPosterior(eqx.Module):
    """The law of the function after data; made by `condition` or by a sparse approximation.

    It holds factorisations, so questions cost products and triangular solves only. `x` stands for
    points of shape `(m, d)` or `(m,)`, or a `Grid` where the posterior keeps its structure.
    """

    prior: eqx.AbstractVar[GP]

    @abc.abstractmethod
    def moments(self, x: Any) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of the function at each point, shape `(m,)` both."""

    @abc.abstractmethod
    def covariance(self, x: Any) -> jax.Array:
        """Covariances of the function between the points, shape `(m, m)`."""

    def mean(self, x: Any) -> jax.Array:
        """Means of the function, shape `(m,)`."""
        return self.moments(x)[0]

    def variance(self, x: Any) -> jax.Array:
        """Variances of the function, shape `(m,)`."""
        return self.moments(x)[1]

    def marginal(self, x: Any) -> dist.Normal:
        """The law of the function at each point, a normal of shape `(m,)`."""
        mean, variance = self.moments(x)
        return dist.Normal(mean, jnp.sqrt(variance))

    def predict(self, x: Any) -> Any:
        """The law of a new noisy observation at each point, a normal of shape `(m,)`.

        Raises:
            ValueError: the noise differs between observations, so that of new ones is not known.
        """
        noise = self.prior.noise
        if isinstance(noise, ops.AbstractOperator) or noise.ndim:
            raise ValueError(
                "predict: the noise differs between observations; add that of the new ones to "
                "variance(x)"
            )
        mean, variance = self.moments(x)
        return dist.Normal(mean, jnp.sqrt(variance + noise.astype(mean.dtype)))

    def __call__(self, x: Any) -> StructuredNormal:
        """The joint law of the function at the points, with a dense covariance.

        Where data leave no more of the function than rounding, as at noise-free observations, the
        covariance is singular: a jitter relative to the prior's variance, from some roundings of it
        on, gives it a Cholesky factor. `posterior(x).covariance.jitter` says how much.
        """
        points = as_points(x)
        prior = jnp.mean(self.prior.kernel.diag(points))
        return StructuredNormal(self.mean(points), left_of(self.covariance(points), prior))

    def sample(self, key: jax.Array, x: Any, shape: tuple[int, ...] = ()) -> jax.Array:
        """Joint draws of the function at the points, shape `(*shape, m)`.

        Where the covariance is singular a jitter is added, see `__call__`, which is noise of the
        draws. Takes $O(m^3)$; `pathwise` gives draws as functions, in $O(m)$.
        """
        check_draws(key, shape)
        return self(x).sample(key, shape)

    def pathwise(self, key: jax.Array, num: int, features: int = 2000) -> Any:
        """Draws of the posterior as functions, see `bayesjx.gp.pathwise`."""
        from ._pathwise import pathwise  # which knows the kinds of posteriors

        return pathwise(key, self, num, features)


def clipped(prior_variance: jax.Array, explained: jax.Array) -> jax.Array:
    """The difference, which rounding may have made negative, at least a rounding above 0."""
    smallest = jnp.finfo(prior_variance.dtype).eps * prior_variance
    return jnp.maximum(prior_variance - explained, smallest)
