"""Checks of the arguments that operators are made of."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core import check_key


def checked_arrays(owner: str, arrays: dict[str, Any]) -> tuple[jax.Array, ...]:
    """The arrays, if all have one floating-point type.

    Raises:
        ValueError: an array holds integers, or types are mixed.
    """
    arrays = {name: _as_array(owner, name, array) for name, array in arrays.items()}
    types = {name: jnp.result_type(array) for name, array in arrays.items()}
    for name, dtype in types.items():
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise ValueError(f"{owner}: {name} must hold floating-point numbers, got {dtype}")
    if len(set(types.values())) > 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in types.items())
        raise ValueError(f"{owner}: all arrays must have one type, got {listed}")
    return tuple(jnp.asarray(array) for array in arrays.values())


def _as_array(owner: str, name: str, array: Any) -> Any:
    if isinstance(array, (jax.Array, np.ndarray, np.generic, float, int)):
        return array
    try:
        return jnp.asarray(array)
    except (TypeError, ValueError):
        raise ValueError(
            f"{owner}: {name} must be an array of floating-point numbers, got {array!r:.40}"
        ) from None


def checked_draws(owner: str, key: Any, shape: Any) -> None:
    """Refuses what is no key, or no shape of draws.

    Raises:
        ValueError: one of them is not.
    """
    check_key(key)
    valid = isinstance(shape, (tuple, list)) and all(
        isinstance(s, (int, np.integer)) and s >= 0 for s in shape
    )
    if not valid:
        raise ValueError(f"{owner}: shape must be a tuple of integers, 0 or more, got {shape!r}")


def checked_size(owner: str, size: int) -> None:
    """Refuses vectors that 32-bit indices cannot address.

    Raises:
        ValueError: `size` is 2³¹ or more.
    """
    if size >= 2**31:
        raise ValueError(
            f"{owner}: vectors of {size} elements are beyond 32-bit indexing (2³¹ - 1); split one "
            "axis and treat the parts one after the other"
        )
