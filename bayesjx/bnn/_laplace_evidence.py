"""What the evidence of Laplace's approximation has of the prior and the noise."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._core import constrained_field
from ..likelihoods import Gaussian


class Hyper(eqx.Module):
    """Prior precisions, and the variance of normal noise, on the scale of their logarithms."""

    prior_precision: Float[Array, " L"] = constrained_field(constraints.positive)
    noise_var: Float[Array, ""] | None = constrained_field(constraints.positive)


def noise_of(likelihood: Any) -> jax.Array | None:
    """The variance of normal noise, or None of another likelihood."""
    return likelihood.noise_var if isinstance(likelihood, Gaussian) else None


def log_joint(hyper: Hyper, fit: Any, squares: Any, sizes: Any, count: Any) -> jax.Array:
    """Log density of data and weights, up to what cancels in the evidence."""
    if hyper.noise_var is not None:
        noise_var = hyper.noise_var.astype(fit.dtype)
        fit = -0.5 * (fit / noise_var + count * jnp.log(2 * jnp.pi * noise_var))
    precision = hyper.prior_precision
    return fit + 0.5 * (sizes @ jnp.log(precision) - squares @ precision)
