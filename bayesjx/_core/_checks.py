"""Checks of values, also of those that are known only when a compiled program runs."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np


def refuse_where(array: Any, bad: Callable[[Any], Any], message: str) -> Any:
    """The array, if no element of it is bad.

    Args:
        array: numbers, an array, or a tracer.
        bad: from an array, of NumPy or JAX, to booleans.
        message: what the error says, which names the argument.

    Raises:
        ValueError: an element is known to be bad; under `jit` a `RuntimeError` when it runs.
    """
    if isinstance(array, jax.core.Tracer):
        return eqx.error_if(array, bad(array), message)
    if np.any(bad(np.asarray(array))):
        raise ValueError(message)
    return array


def checked_finite(name: str, array: jax.Array, hint: str = "") -> jax.Array:
    """The array, if it has elements and all of them are finite.

    Raises:
        ValueError: it is empty, or an element is known to be NaN or infinite; under `jit` a
            `RuntimeError` when it runs.
    """
    if np.size(array) == 0:
        raise ValueError(f"{name} is empty: its shape is {np.shape(array)}")
    return refuse_where(array, _not_finite, f"{name} holds NaN or infinite values{hint}")


def number_array(name: str, value: Any) -> Any:
    """An array of numbers or booleans, of JAX or NumPy, or what can be made one.

    Raises:
        ValueError: it holds something else.
    """
    if not isinstance(value, jax.Array | np.ndarray):
        try:
            value = np.asarray(value)
        except ValueError as error:  # rows of different lengths
            raise ValueError(f"{name} must be an array of numbers: {error}") from error
    if not jnp.issubdtype(value.dtype, np.number) and value.dtype != bool:
        raise ValueError(f"{name} must be an array of numbers, got {value.dtype}")
    return value


def whole_number(name: str, value: Any, least: int | float = 1, most: int | None = None) -> int:
    """An integer, as Python's.

    Args:
        name: of the argument, with the function's where that helps.
        value: what was given.
        least: the smallest that is allowed; `-math.inf` for any.
        most: the largest that is allowed, or None.

    Raises:
        ValueError: it is none, or out of range.
    """
    try:
        number = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        number = None
    if number is None:
        raise ValueError(f"{name} must be an integer, got {value!r:.60}")
    if number < least or (most is not None and number > most):
        wanted = f"at least {least}" if most is None else f"in {least}, ..., {most}"
        raise ValueError(f"{name} must be {wanted}, got {number}")
    return number


def check_flag(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is a boolean that is known at trace time."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {value!r:.80}")


def _not_finite(array: Any) -> Any:
    return ~(jnp if isinstance(array, jax.core.Tracer) else np).isfinite(array)
