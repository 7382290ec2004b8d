"""Checks of parameters and points of kernels."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import nan_unless_valid


def real_points(name: str, x: Any) -> Float[Array, "n d"]:
    """Points as `(n, d)`, floating-point.

    Raises:
        ValueError: not one or two axes, or no real numbers.
    """
    x = numbers(name, x)
    if x.ndim not in (1, 2):
        raise ValueError(f"{name} must have shape (n, d) or (n,), got {x.shape}")
    return x[:, None] if x.ndim == 1 else x


def point(name: str, x: Any) -> Float[Array, "1 d"]:
    """One point as `(1, d)`; a number has one coordinate.

    Raises:
        ValueError: it has more than one axis, or holds no real numbers.
    """
    x = numbers(name, x)
    if x.ndim > 1:
        raise ValueError(f"{name}: a point must be a number or have shape (d,), got {x.shape}")
    return x.reshape(1, -1)


def numbers(name: str, value: Any) -> jax.Array:
    """Real numbers as an array, floating-point.

    Raises:
        ValueError: they are something else.
    """
    try:
        dtype = jnp.result_type(value if hasattr(value, "dtype") else jnp.asarray(value))
        if jnp.issubdtype(dtype, jnp.floating):  # named: plain numbers shall be no weak types
            return jnp.asarray(value, dtype)
        if jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_):
            return jnp.asarray(value).astype(float)
    except (TypeError, ValueError):  # strings, None, ragged lists
        pass
    raise ValueError(f"{name} must be a real number or an array of them, got {value!r:.80}")


def scalar(name: str, value: Any) -> jax.Array:
    """A parameter that is one number.

    Raises:
        ValueError: it is not a scalar.
    """
    return _one(name, numbers(name, value))


def finite(name: str, value: Any) -> jax.Array:
    """A parameter of either sign.

    Raises:
        ValueError: a value that is known is NaN or infinite.
    """
    return _refuse(name, numbers(name, value), lambda v: ~np.isfinite(v), "be finite")


def finite_scalar(name: str, value: Any) -> jax.Array:
    """A parameter that is one number of either sign.

    Raises:
        ValueError: it is not a scalar, or known and NaN or infinite.
    """
    return _one(name, finite(name, value))


def of_coordinates(name: str, value: Any) -> jax.Array:
    """A parameter, one for all coordinates or one for each, scalar or shape `(d,)`.

    Raises:
        ValueError: it has more axes or no values.
    """
    return one_or_each(name, numbers(name, value))


def one_or_each(name: str, value: jax.Array) -> jax.Array:
    """A parameter, checked to be scalar or of shape `(d,)`.

    Raises:
        ValueError: it has more axes, or no values.
    """
    if value.ndim > 1 or not value.size:
        raise ValueError(f"{name} must be a scalar or have shape (d,), got shape {value.shape}")
    return value


def along(kernel: Any, name: str, x: jax.Array) -> jax.Array:
    """A kernel's parameter of coordinates, for the points `(n, d)` and in their precision.

    Raises:
        ValueError: it has another number of values than points have coordinates.
    """
    check_coordinates(kernel, name, x.shape[1])
    return jnp.asarray(getattr(kernel, name), x.dtype)


def check_coordinates(kernel: Any, name: str, dim: int) -> None:
    """Refuses a parameter with a value for each coordinate, of another number of coordinates.

    Raises:
        ValueError: its shape is neither `()` nor `(dim,)`.
    """
    shape = jnp.shape(getattr(kernel, name))
    if shape not in ((), (dim,)):
        raise ValueError(
            f"{type(kernel).__name__}: {name} has shape {shape}, a value for each coordinate, and "
            f"points have {dim}; points of one coordinate more or less, or .on(...) left out?"
        )


def valid_variance(kernel: Any, dtype: Any) -> jax.Array:
    """The kernel's variance, NaN if it or another parameter of it breaks its constraint.

    Kernels hold the others in squares, even functions or products, which would hide the sign from
    a density.
    """
    return nan_unless_valid(kernel, kernel.variance).astype(dtype)


def _refuse(name: str, value: jax.Array, bad: Any, wanted: str) -> jax.Array:
    if not isinstance(value, jax.core.Tracer):  # traced: a density refuses it, `valid_variance`
        if np.any(bad(np.asarray(value))):
            raise ValueError(f"{name} must {wanted}, got {value}")
    return value


def _one(name: str, value: jax.Array) -> jax.Array:
    if value.ndim:
        raise ValueError(f"{name} must be a scalar, got shape {value.shape}")
    return value
