"""NumPyro distributions with a defect of their densities mended."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.distribution import (
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)
from numpyro.util import not_jax_tracer as is_concrete


class BernoulliLogits(dist.BernoulliLogits):
    """`numpyro.distributions.BernoulliLogits` with the right gradient at logits of exactly zero.

    NumPyro 0.22 computes `max(x, 0)` by a product with `x > 0`, whose derivative at zero makes
    the score 0 or 1 in place of -1/2 or 1/2; zero is where zero-initialised models start.

    Values are checked where they are known, not under `jax.jit`, where the check would be a fifth
    of the cost of a step of a variational autoencoder: values between 0 and 1 then interpolate.
    """

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        dtype = jnp.result_type(self.logits, float)
        log_prob = _bernoulli_log_prob(jnp.asarray(self.logits, dtype), jnp.asarray(value, dtype))
        if self._validate_args and is_concrete(value):
            possible = np.isin(np.asarray(value), (0, 1))
            if not possible.all():
                warnings.warn("Out-of-support values: a flag is 0 or 1", stacklevel=2)
                return jnp.where(possible, log_prob, -jnp.inf)
        return log_prob


@jax.custom_jvp
def _bernoulli_log_prob(logits: jax.Array, value: jax.Array) -> jax.Array:
    size = jnp.abs(logits)
    wrong = jnp.where(logits > 0, 1 - value, value)  # how far the value is from the likely one
    return jnp.where(wrong == 0, 0, -size * wrong) - jnp.log1p(jnp.exp(-size))


@_bernoulli_log_prob.defjvp
def _bernoulli_log_prob_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # One sigmoid is cheaper than what automatic differentiation makes of this, and right at 0.
    logits, value = primals
    slope = (value - jax.nn.sigmoid(logits)) * tangents[0]
    slope += jnp.where(jnp.isinf(logits), 0, logits) * tangents[1]
    return _bernoulli_log_prob(logits, value), slope


class Normal(dist.Normal):
    """`numpyro.distributions.Normal` whose density takes the logarithm of the scale alone.

    A scale that was computed as `exp(x)` then costs no logarithm: XLA cancels the two, which it
    cannot do in NumPyro's `log(sqrt(2 * pi) * scale)`. Values are not checked, as all are possible.
    """

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        standardised = (value - self.loc) / self.scale
        return -0.5 * standardised**2 - jnp.log(self.scale) - _HALF_LOG_TWO_PI


_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_MENDED = {dist.BernoulliLogits: BernoulliLogits, dist.Normal: Normal}


def repaired(d: Distribution) -> Distribution:
    """`d` with every plain `BernoulliLogits` and `Normal` in it mended, whatever wraps them."""
    mended_class = _MENDED.get(type(d))
    if mended_class is not None:
        mended = copy.copy(d)
        mended.__class__ = mended_class
        return mended
    if isinstance(d, (ExpandedDistribution, Independent, MaskedDistribution)):
        inner = repaired(d.base_dist)
        if inner is not d.base_dist:
            d = copy.copy(d)
            d.base_dist = inner
    return d
