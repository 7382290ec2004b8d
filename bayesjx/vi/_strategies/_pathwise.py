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
    """The reparameterisation (pathwise) gradient, the default where a distribution has one.

    The draw is a differentiable function of noise and parameters; Gamma, Beta, Dirichlet and
    Student's t use JAX's implicit derivatives. Unbiased if the cost is differentiable almost
    everywhere and has no jumps: comparing a reparameterised value with a threshold silently
    loses the gradient of the jump.

    References:
        Kingma and Welling (2014), "Auto-encoding variational Bayes"; Figurnov, Mohamed and Mnih
        (2018), "Implicit reparameterization gradients".
    """

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
    """Hard draws forward, the gradient of the probabilities backward. Biased.

    For Bernoulli and `bayesjx.distributions.OneHotCategorical` sites. Cheap, low variance, and
    the expected gradient is not that of the objective unless the cost is linear in the value.

    References:
        Bengio, Léonard and Courville (2013), "Estimating or propagating gradients through
        stochastic neurons for conditional computation".
    """

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
    """A softened draw at a temperature (Concrete relaxation). Biased.

    For Bernoulli and `bayesjx.distributions.OneHotCategorical` sites; values are then real
    numbers in (0, 1), and model and guide score them with the discrete formulas.

    Args:
        temperature: positive; the bias vanishes and the variance grows as it falls.
        hard: round the draw forward and keep the soft gradient backward.

    References:
        Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax";
        Maddison, Mnih and Teh (2017), "The Concrete distribution".
    """

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
