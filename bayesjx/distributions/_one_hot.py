"""A categorical distribution over one-hot vectors."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from numpyro.distributions import constraints, Distribution
from numpyro.util import not_jax_tracer as is_concrete


class _LogProbabilities(constraints.ParameterFreeConstraint):
    """Vectors of log probabilities: -inf is one, NaN is what bad parameters become."""

    event_dim = 1

    def __call__(self, x: Any) -> jax.Array:
        return jnp.all(~jnp.isnan(x), axis=-1)

    def feasible_like(self, prototype: jax.Array) -> jax.Array:
        return jnp.zeros_like(prototype)

    def tree_flatten(self) -> Any:
        return (), ((), {})


class OneHotCategorical(Distribution):
    r"""Categorical distribution whose values are one-hot vectors of length $k$.

    The density $\sum_j v_j \log p_j$ extends to points inside the simplex, which relaxed
    gradient estimators need; at the corners it is the categorical log probability.

    Args:
        probs: probabilities, shape `(..., k)`, normalised along the last axis.
        logits: unnormalised log probabilities, shape `(..., k)`. Give exactly one of the two.

    Raises:
        ValueError: both or none of `probs` and `logits`, a scalar, or `probs` that are known to
            be negative; see `log_prob`.
    """

    arg_constraints = {"logits": _LogProbabilities()}
    pytree_data_fields = ("logits",)
    support = constraints.simplex
    has_enumerate_support = True

    def __init__(self, probs: Any = None, logits: Any = None, *, validate_args: bool | None = None):
        if (probs is None) == (logits is None):
            raise ValueError("OneHotCategorical takes exactly one of probs and logits")
        name = "logits" if probs is None else "probs"
        if jnp.ndim(logits if probs is None else probs) < 1:
            raise ValueError(f"OneHotCategorical: {name} must have shape (..., k), got a scalar")
        if probs is not None and is_concrete(probs) and np.any(np.asarray(probs) < 0):
            raise ValueError("OneHotCategorical: probs must not be negative")
        given = jnp.asarray(logits if probs is None else jnp.log(jnp.asarray(probs)))
        self.logits = jax.nn.log_softmax(given, axis=-1)
        super().__init__(given.shape[:-1], given.shape[-1:], validate_args=validate_args)

    @property
    def probs(self) -> jax.Array:
        """Normalised probabilities, shape `(..., k)`."""
        return jnp.exp(self.logits)

    @property
    def mean(self) -> jax.Array:
        return jnp.broadcast_to(self.probs, self.shape())

    @property
    def variance(self) -> jax.Array:
        return self.mean * (1 - self.mean)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        index = random.categorical(key, self.logits, shape=sample_shape + self.batch_shape)
        return jax.nn.one_hot(index, self.event_shape[0], dtype=self.logits.dtype)

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        """Log probability of one-hot vectors, or of points between them, shape `batch_shape`.

        Raises:
            ValueError: `value` has another length, or is known not to lie in the simplex (two
                ones, say); under `jit` its log probability is then -inf.
        """
        if jnp.shape(value)[-1:] != self.event_shape:
            raise ValueError(
                f"value must hold one-hot vectors of length {self.event_shape[0]}, got shape "
                f"{jnp.shape(value)}; jax.nn.one_hot makes them from indices"
            )
        log_prob = self._log_prob(value)
        if not self._validate_args:
            return log_prob
        valid = self._in_simplex(value)
        if is_concrete(valid) and not np.asarray(valid).all():
            raise ValueError(
                f"value must hold one-hot vectors, whose elements sum to one and are not negative; "
                f"got {np.asarray(value)[~np.asarray(valid)].tolist()[:1]}"
            )
        return jnp.where(valid, log_prob, -jnp.inf)

    def _in_simplex(self, value: Any) -> jax.Array:
        slack = float(np.sqrt(jnp.finfo(self.logits.dtype).eps))
        total = jnp.sum(value, axis=-1, dtype=self.logits.dtype)
        return (jnp.abs(total - 1) <= slack) & jnp.all(jnp.asarray(value) >= -slack, axis=-1)

    def _log_prob(self, value: Any) -> jax.Array:
        # A category of probability zero contributes nothing unless it is drawn; at all others the
        # product keeps its derivative in the value, which relaxed estimators follow.
        possible = self.logits > -jnp.inf
        terms = value * jnp.where(possible, self.logits, 0.0)
        return jnp.sum(jnp.where(possible | (value == 0), terms, -jnp.inf), axis=-1)

    def enumerate_support(self, expand: bool = True) -> jax.Array:
        k = self.event_shape[0]
        corners = jnp.eye(k, dtype=self.logits.dtype)
        values = corners.reshape((k,) + (1,) * len(self.batch_shape) + (k,))
        return jnp.broadcast_to(values, (k,) + self.shape()) if expand else values

    def entropy(self) -> jax.Array:
        """Entropy in nats, shape `batch_shape`."""
        return -jnp.sum(jnp.where(self.probs > 0, self.probs * self.logits, 0.0), axis=-1)
