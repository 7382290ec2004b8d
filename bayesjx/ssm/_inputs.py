"""Checks of arguments that several queries share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from .._core import check_key
from ..kernels import AbstractKernel

REAL = "biuf"  # kinds of types


def numbers(name: str, value: Any) -> Any:
    """The value, a real number or an array of real numbers.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, jax.core.Tracer | jax.Array):
        kind, dtype = np.dtype(value.dtype).kind, value.dtype
    else:
        try:
            dtype = np.asarray(value).dtype
        except ValueError:
            raise ValueError(f"{name} must be an array of real numbers, its rows differ") from None
        kind = dtype.kind
        leaves = value if isinstance(value, list | tuple) else ()
        if kind == "O" and any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
            return value
    if kind in REAL or jnp.issubdtype(dtype, jnp.floating):
        return value
    raise ValueError(
        f"{name} must be a number or an array of real numbers, got {type(value).__name__} "
        f"of type {dtype}"
    )


def share(name: str, value: Any) -> None:
    """Refuse what is not in (0, 1]."""
    _in_range(name, value, lambda v: 0 < v <= 1, "be in (0, 1]")


def positive(name: str, value: Any) -> None:
    """Refuse what is not positive."""
    _in_range(name, value, lambda v: v > 0, "be positive")


def _in_range(name: str, value: Any, good: Callable[[Any], bool], text: str) -> None:
    real = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not real or not good(value):
        raise ValueError(f"{name} must {text}, got {value!r}")


def count(name: str, value: Any) -> None:
    """Refuse what is not a positive integer."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")


def draws(key: Any, name: str, shape: Any) -> None:
    """Refuse what is no random key, and a shape that is no tuple."""
    check_key(key)
    whole = lambda n: isinstance(n, int | np.integer) and not isinstance(n, bool)  # noqa: E731
    if not isinstance(shape, tuple) or any(not whole(n) or n < 0 for n in shape):
        raise ValueError(f"{name} must be a tuple of sizes, such as (100,); got {shape!r}")


def kernel(name: str, value: Any) -> None:
    """Refuse what is no kernel."""
    if not isinstance(value, AbstractKernel):
        raise ValueError(f"{name} must be a kernel, got {type(value).__name__}")


def evaluated(likelihood: Any, f: jax.Array) -> Any:
    """The distribution that a likelihood makes of values of the function.

    Raises:
        ValueError: it is no function, or fails for these.
    """
    if not callable(likelihood) or isinstance(likelihood, dist.Distribution):
        raise ValueError(
            "likelihood must be a function from values of the function to a distribution, such as "
            f"lambda f: dist.Poisson(jnp.exp(f)); got {type(likelihood).__name__}"
        )
    try:
        return likelihood(f)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"the likelihood failed at values of shape {f.shape}; if it carries data, these must "
            f"be of that shape, flat: {error}"
        ) from error
