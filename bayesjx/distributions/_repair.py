"""NumPyro distributions with a defect of their gradients mended."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from numpyro.distributions.distribution import (
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)


class BernoulliLogits(dist.BernoulliLogits):
    """`numpyro.distributions.BernoulliLogits` with the right gradient at logits of exactly zero.

    NumPyro 0.22 computes `max(x, 0)` by a product with `x > 0`, whose derivative at zero makes
    the score 0 or 1 in place of -1/2 or 1/2; zero is where zero-initialised models start.
    """

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        given = jnp.asarray(self.logits)
        infinite = jnp.isinf(given)
        logits = jnp.where(infinite, 0.0, given)
        log_prob = value * logits - jax.nn.softplus(logits)
        certain = jnp.where(value == (given > 0), 0.0, -jnp.inf)
        return jnp.where(infinite, certain.astype(log_prob.dtype), log_prob)


def repaired(d: Distribution) -> Distribution:
    """`d` with every plain `BernoulliLogits` inside `expand`, `to_event` and `mask` mended."""
    if type(d) is dist.BernoulliLogits:
        mended = copy.copy(d)
        mended.__class__ = BernoulliLogits
        return mended
    if isinstance(d, (ExpandedDistribution, Independent, MaskedDistribution)):
        inner = repaired(d.base_dist)
        if inner is not d.base_dist:
            d = copy.copy(d)
            d.base_dist = inner
    return d
