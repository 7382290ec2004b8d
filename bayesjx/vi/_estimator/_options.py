"""Checks of what users hand in: programs, counts, numbers and strategies."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.core
import numpy as np
from numpyro.distributions import Distribution


def check_number(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is a finite real number, or traced."""
    if isinstance(value, jax.core.Tracer):
        return
    try:
        finite = not isinstance(value, str | bool | complex) and math.isfinite(value)
    except TypeError:
        finite = False
    if not finite:
        raise ValueError(f"{name} must be a finite number, got {value!r}")


def check_argnums(argnums: Any, args: tuple) -> tuple[int, ...]:
    """`argnums` as a tuple of positions in `args`.

    Raises:
        ValueError: they are no integers, out of range, or one is named twice.
    """
    chosen = argnums if isinstance(argnums, tuple | list) else (argnums,)
    count = len(args)
    valid = [isinstance(n, int | np.integer) and not isinstance(n, bool) for n in chosen]
    if not chosen or not all(valid) or any(not -count <= n < count for n in chosen):
        raise ValueError(
            f"argnums must be positions of the {count} positional arguments of the objective, "
            f"an integer or several; got {argnums!r}"
        )
    positions = tuple(int(n) % count for n in chosen)
    if len(set(positions)) < len(positions):
        raise ValueError(f"argnums names an argument twice: {argnums!r}")
    return positions


def check_programs(optional: bool = False, **values: Any) -> None:
    """Raises `TypeError` unless every value is a function, or None where that is allowed."""
    for name, value in values.items():
        function = callable(value) and not isinstance(value, Distribution)
        if not function and not (optional and value is None):
            raise TypeError(
                f"{name} must be a function with NumPyro statements (callable), got "
                f"{type(value).__name__}"
            )


def check_positive(name: str, value: Any) -> None:
    """Raises `ValueError` unless `value` is a positive number."""
    check_number(name, value)
    if not isinstance(value, jax.core.Tracer) and not value > 0:
        raise ValueError(f"{name} must be positive, got {value!r}")
