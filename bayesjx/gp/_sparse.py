"""What sparse approximations ask of their arguments."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from .. import ops
from .._core import refuse_where
from ._inducing_features import inducing_features, InducingFeatures
from ._process import check_prior, GP
from ._structure import all_points


def features_at(
    prior: GP, points: Any, x: jax.Array, jitter: float | None
) -> tuple[InducingFeatures, jax.Array]:
    """The features of inducing points, and what they are at the data, shape `(m, n)`.

    Raises:
        ValueError: points of the wrong rank or dimension, none, NaN, or more of them than data.
    """
    points = all_points(points, "points").astype(x.dtype)
    if points.shape[1] != x.shape[1]:
        raise ValueError(
            f"points and x must have the same dimension, got {points.shape[1]} and {x.shape[1]}"
        )
    if len(points) > len(x):
        raise ValueError(
            f"points: {len(points)} inducing points are more than {len(x)} data; the exact "
            "posterior, from condition, costs less"
        )
    features = inducing_features(prior.kernel, points, jitter)
    return features, features(x)


def diagonal_noise(prior: GP, x: jax.Array) -> jax.Array:
    """The variances of the noise, shape `(n,)`; NaN where known only at run time and not positive.

    Raises:
        ValueError: it is correlated, of another number of observations, or known and not positive.
    """
    check_prior(prior)
    operator = prior.noise_operator(x)
    if not isinstance(operator, ops.Diag | ops.ScaledIdentity):
        raise ValueError(
            "noise must be a scalar or (n,) for a sparse approximation, got "
            f"{type(operator).__name__}"
        )
    if not isinstance(prior.noise, jax.core.Tracer | ops.AbstractOperator):
        refuse_where(prior.noise, lambda v: ~(v > 0), f"noise must be positive, got {prior.noise}")
    noise = operator.diag().astype(x.dtype)
    return jnp.where(noise > 0, noise, jnp.nan)  # densities are then NaN, which samplers avoid
