"""Abstract base class of multivariate normal distributions: batches and NumPyro's protocol."""

from __future__ import annotations

import abc
import copy
import math
from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints, Distribution
from numpyro.distributions.batch_util import promote_batch_shape


class AbstractVectorNormal(Distribution):
    """Abstract base class of multivariate normal distributions.

    Subclasses say what holds for one distribution. `jax.vmap` over functions that return a
    distribution, and NumPyro's `scan`, make leading axes of all its arrays: these are a batch.
    """

    support = constraints.real_vector
    has_rsample = True
    loc: jax.Array

    @property
    @abc.abstractmethod
    def _mapped_ndim(self) -> int:
        """Number of leading axes that all arrays have."""

    @abc.abstractmethod
    def _log_prob(self, value: jax.Array) -> jax.Array:
        """The log density of values of shape `(..., n)`."""

    @abc.abstractmethod
    def _sample(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Draws of shape `(*shape, n)`."""

    @abc.abstractmethod
    def _entropy(self) -> jax.Array: ...

    @abc.abstractmethod
    def _variance(self) -> jax.Array: ...

    @abc.abstractmethod
    def _covariance_matrix(self) -> jax.Array: ...

    def _each(self, method: str, *args: Any) -> jax.Array:
        """The method for every distribution of the batch, whose axes lead those of `args`."""
        function = getattr(type(self), method)
        for _ in range(self._mapped_ndim):
            function = jax.vmap(function)
        return function(self, *args)

    def _batched_log_prob(self, value: Any) -> jax.Array:
        """`log_prob` for a batch of distributions, with NumPyro's checks."""
        value, size = jnp.asarray(value), self.loc.shape[-1]
        name = type(self).__name__
        if value.shape[-1:] != (size,):
            raise ValueError(f"{name}: value must have shape (..., {size}), got {value.shape}")
        batch = self.loc.shape[:-1]
        try:
            shape = jnp.broadcast_shapes(value.shape[:-1], batch)
        except ValueError:
            raise ValueError(
                f"{name}: value must have a shape that broadcasts with {(*batch, size)}, got "
                f"{value.shape}"
            ) from None
        if self._mapped_ndim:
            at, front = self._axes(len(shape) - len(batch))
            value = jnp.moveaxis(jnp.broadcast_to(value, (*shape, size)), at, front)
            log_prob = jnp.moveaxis(self._each("_log_prob", value), front, at)
        else:
            log_prob = self._log_prob(value)
        if self._validate_args:
            log_prob = jnp.where(self._validate_sample(value), log_prob, -jnp.inf)
        return log_prob

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        if not self._mapped_ndim:
            return self._sample(key, sample_shape)
        mapped = self.loc.shape[: self._mapped_ndim]
        function = lambda d, key: d._sample(key, sample_shape)  # noqa: E731
        for _ in mapped:
            function = jax.vmap(function)
        at, front = self._axes(len(sample_shape))
        return jnp.moveaxis(function(self, jax.random.split(key, mapped)), front, at)

    def _axes(self, start: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Positions of the batch axes behind `start` others, and in front of all."""
        return tuple(range(start, start + self._mapped_ndim)), tuple(range(self._mapped_ndim))

    def entropy(self) -> jax.Array:
        """Entropy in nats, of the batch's shape."""
        return self._each("_entropy")

    @property
    def mean(self) -> jax.Array:
        return self.loc

    @property
    def variance(self) -> jax.Array:
        return self._each("_variance")

    @property
    def covariance_matrix(self) -> jax.Array:
        """The dense covariance, shape `(..., n, n)`: for small sizes."""
        return self._each("_covariance_matrix")


@promote_batch_shape.register
def _promote_batch_shape(d: AbstractVectorNormal):
    promoted = copy.copy(d)
    promoted._batch_shape = jnp.shape(d.loc)[:-1]
    return promoted


def log_two_pi(dtype: Any) -> jax.Array:
    r"""$\log 2 \pi$ in a precision."""
    return jnp.asarray(math.log(2 * math.pi), dtype)
