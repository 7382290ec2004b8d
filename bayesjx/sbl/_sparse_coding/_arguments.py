"""Checks of arguments that the sparse coding models share."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ..._core import checked_finite, number_array


def real(name: str, value: Any, dtype: Any = None) -> jax.Array:
    """An array of floating-point numbers: integers and booleans are converted.

    Raises:
        ValueError: it holds something else.
    """
    array = jnp.asarray(number_array(name, value))
    kind = array.dtype
    if jnp.issubdtype(kind, np.complexfloating):
        raise ValueError(f"{name} must hold real numbers, got {kind}")
    if dtype is None:
        dtype = kind if jnp.issubdtype(kind, np.floating) else jnp.result_type(float)
    return array.astype(dtype)


def observations(y: Any, num_columns: int | None = None, dtype: Any = None) -> jax.Array:
    """Data of shape `(n, d)`, checked; values that are traced are checked by `finite_guard`.

    Raises:
        ValueError: another shape, no data, or values known to be NaN or infinite.
    """
    y = real("y", y, dtype)
    if y.ndim != 2 or (num_columns is not None and y.shape[1] != num_columns):
        wanted = "d" if num_columns is None else str(num_columns)
        raise ValueError(
            f"y must have shape (n, {wanted}), one row for each datum; got {y.shape}. Was an image "
            "not flattened, or y transposed?"
        )
    if y.size == 0:
        raise ValueError(f"y is empty: its shape is {y.shape}")
    return y if isinstance(y, jax.core.Tracer) else checked_finite("y", y)


def finite_guard(y: jax.Array) -> jax.Array:
    """The number 1, or a `RuntimeError` when it runs if traced data hold NaN or infinite values."""
    one = jnp.ones((), y.dtype)
    if not isinstance(y, jax.core.Tracer):
        return one
    bad = ~jnp.all(jnp.isfinite(y))
    return eqx.error_if(one, bad, "y holds NaN or infinite values")
