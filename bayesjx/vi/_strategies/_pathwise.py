"""Strategies whose gradient flows through the sampled value."""

from __future__ import annotations

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import random
from numpyro.distributions import Distribution

from ...distributions import OneHotCategorical
from .._estimator import (
    AbstractPathwise,
    elementwise_family,
    is_bernoulli,
    match_dtype,
)


class Reparam(AbstractPathwise):
    """The strategy of `reparam`."""

    label: ClassVar[str] = "reparam"

    def why_not(self, distribution: Distribution) -> str | None:
        if distribution.has_rsample:
            return None
        return (
            f"{type(elementwise_family(distribution)).__name__} has no reparameterised sampler. "
            "Use vi.reinforce, or vi.enum for a small finite support"
        )

    def sample(
        self, distribution: Distribution, key: jax.Array, sample_shape: tuple[int, ...]
    ) -> tuple[Any, list[Any]]:
        return match_dtype(distribution.sample_with_intermediates(key, sample_shape), distribution)


class StraightThrough(AbstractPathwise):
    """The strategy of `straight_through`."""

    label: ClassVar[str] = "straight_through"

    unbiased: ClassVar[bool] = False

    def why_not(self, distribution: Distribution) -> str | None:
        return _needs_relaxation(distribution)

    def sample(
        self, distribution: Distribution, key: jax.Array, sample_shape: tuple[int, ...]
    ) -> tuple[Any, list[Any]]:
        probs = jnp.asarray(
            distribution.mean
        )  # of Bernoulli and OneHotCategorical: the probabilities
        hard = jnp.asarray(
            jax.lax.stop_gradient(distribution.sample(key, sample_shape)), probs.dtype
        )
        return hard + probs - jax.lax.stop_gradient(probs), []


class GumbelSoftmax(AbstractPathwise):
    """The strategy of `gumbel_softmax`."""

    label: ClassVar[str] = "gumbel_softmax"

    temperature: Any = 0.5
    hard: bool = eqx.field(static=True, default=False)
    unbiased: ClassVar[bool] = False

    def __check_init__(self):
        if isinstance(self.temperature, (int, float)) and not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def why_not(self, distribution: Distribution) -> str | None:
        return _needs_relaxation(distribution)

    def sample(
        self, distribution: Distribution, key: jax.Array, sample_shape: tuple[int, ...]
    ) -> tuple[Any, list[Any]]:
        logits = _logits(distribution)
        shape = distribution.shape(sample_shape)
        if is_bernoulli(distribution):
            noise = random.logistic(key, shape, logits.dtype)
            soft = jax.nn.sigmoid((logits + noise) / self.temperature)
            hard = (soft > 0.5).astype(soft.dtype)
        else:
            noise = random.gumbel(key, shape, logits.dtype)
            soft = jax.nn.softmax((logits + noise) / self.temperature, axis=-1)
            hard = jax.nn.one_hot(jnp.argmax(soft, axis=-1), shape[-1], dtype=soft.dtype)
        if self.hard:
            soft = soft + jax.lax.stop_gradient(hard - soft)
        return soft, []


def _logits(distribution: Distribution) -> jax.Array:
    """Logits of a Bernoulli or one-hot distribution, with the distribution's full shape."""
    family: Any = elementwise_family(distribution)
    return jnp.broadcast_to(family.logits, distribution.shape())


def _needs_relaxation(distribution: Distribution) -> str | None:
    family = elementwise_family(distribution)
    if is_bernoulli(distribution) or isinstance(family, OneHotCategorical):
        return None
    if isinstance(family, (dist.CategoricalProbs, dist.CategoricalLogits)):
        return (
            "a Categorical value is an index, which has no gradient. "
            "Use bayesjx.distributions.OneHotCategorical"
        )
    return f"{type(family).__name__} has no relaxation. Use vi.reinforce, or vi.enum"


__all__ = ["GumbelSoftmax", "Reparam", "StraightThrough"]
