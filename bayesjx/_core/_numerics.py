"""Functions whose values or derivatives are safe at the edge of their domain."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def nan_if_negative(value: Any) -> jax.Array:
    """The value, NaN where it is negative: what follows is then NaN, which samplers avoid."""
    return jnp.where(value >= 0, value, jnp.nan)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0.

    Not the usual pair of `where`: XLA may compute a distance of 0 twice, once with rounding and
    once without, and then the two conditions differ and the value is wrong.
    """
    return jnp.sqrt(jnp.maximum(x, 1e-36))
