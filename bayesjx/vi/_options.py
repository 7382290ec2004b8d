"""Checks of what users hand in: programs, keys, counts and strategies."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._strategy import AbstractStrategy


def check_program(name: str, value: Any) -> None:
    """Raises `TypeError` unless `value` can be called."""
    if not callable(value):
        raise TypeError(
            f"{name} must be callable, a function with NumPyro primitives; got "
            f"{type(value).__name__}"
        )


def check_count(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def check_positive(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is a positive number."""
    try:
        good = float(value) > 0
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ValueError(f"{name} must be positive, got {value!r}")


def check_key(key: Any) -> None:
    """Raises `ValueError` unless `key` is one PRNG key, typed or raw."""
    dtype = getattr(key, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.ndim == 0:
        return
    if dtype == jnp.uint32 and jnp.ndim(key) == 1:
        return
    got = type(key).__name__ if dtype is None else f"an array of shape {key.shape} of {dtype}"
    raise ValueError(
        f"key must be one PRNG key, such as jax.random.key(0), got {got}; use jax.vmap for several"
    )


def check_strategy(name: str, value: Any) -> None:
    """Raises `TypeError` unless `value` is None or the instance of a strategy."""
    if value is not None and not isinstance(value, AbstractStrategy):
        raise TypeError(
            f"{name} must be the instance of a strategy, such as vi.Reinforce(), got {value!r}"
        )


def check_argnums(argnums: Any, args: tuple) -> None:
    """Raises `ValueError` unless `argnums` are positions of arguments."""
    chosen = argnums if isinstance(argnums, tuple) else (argnums,)
    if not all(isinstance(i, int | np.integer) and -len(args) <= i < len(args) for i in chosen):
        raise ValueError(f"argnums must be positions of the {len(args)} arguments, got {argnums!r}")
