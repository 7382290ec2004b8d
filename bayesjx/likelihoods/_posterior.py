"""Abstract base class of posteriors of latent functions: what each of them computes."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ._likelihood import inside


class AbstractPosterior(eqx.Module):
    """Abstract base class of posteriors of a latent function given data.

    The posteriors of `bayesjx.gp` and `bayesjx.ssm` are of this class, which stands below both, as
    what is said of observations is the likelihood's. Answers about the function include its prior
    mean. `x` stands for points: an array `(m, d)` or `(m,)`, or the inputs of a package, such as a
    `gp.Grid`, whose structure a posterior keeps; None for those of the data where a posterior
    says so. They are converted to the precision of the data, which all results have.
    """

    @abc.abstractmethod
    def moments(self, x: Any) -> tuple[Float[Array, "m ..."], Float[Array, "m ..."]]:
        """Mean and variance of the function at each point, shape `(m,)` both."""

    @abc.abstractmethod
    def mean(self, x: Any) -> Float[Array, "m ..."]:
        """Means of the function, shape `(m,)`."""

    def variance(self, x: Any = None) -> Float[Array, "m ..."]:
        """Variances of the function, shape `(m,)`."""
        return self.moments(x)[1]

    @abc.abstractmethod
    def covariance(self, x: Any) -> Float[Array, "k k"]:
        """Covariances of the function between the points, shape `(m, m)`."""

    def marginal(self, x: Any = None) -> dist.Normal:
        """The distribution of the function at each point, a normal of shape `(m,)`."""
        mean, variance = self.moments(x)
        return dist.Normal(mean, jnp.sqrt(variance))

    @abc.abstractmethod
    def predict(self, x: Any) -> dist.Distribution:
        """The predictive distribution of a new observation at each point, batch shape `(m,)`.

        It is of observations as the likelihood says, never of the function: `marginal` is that.

        Raises:
            ValueError: how new observations are distributed is not known.
        """

    @abc.abstractmethod
    def sample(
        self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, ...]:
        """Joint draws of the function at the points, shape `(*sample_shape, m)`."""

    @abc.abstractmethod
    def log_evidence(self) -> Float[Array, ""]:
        """Log marginal likelihood of the data, its bound or its approximation, scalar.

        Raises:
            ValueError: the posterior does not hold it; the text says what does.
        """

    def log_predictive_prob(self, x: Any, y: Any) -> Float[Array, "m ..."]:
        """Log predictive density of each new observation by itself, batch shape `(m,)`.

        Args:
            x: points.
            y: observations, shape `(m,)`, or `(m, ...)` of vectors.

        Raises:
            ValueError: another shape, `y` outside of the likelihood's support, or how new
                observations are distributed is not known.
            RuntimeError: under `jit`, `y` outside of the support.
        """
        observed = self.predict(x)
        shape = (*observed.batch_shape, *observed.event_shape)
        if jnp.shape(y) != shape:
            raise ValueError(f"y must have shape {shape}, as x says; got {jnp.shape(y)}")
        leaves = jax.tree.leaves(eqx.filter(observed, eqx.is_inexact_array))
        dtype = jnp.result_type(*leaves)
        y, guard = inside(observed, y, dtype, jnp.ones((), dtype))
        return guard * observed.log_prob(y)
