"""Checks of arguments that several functions of this package share."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .._core import check_key, default_jitter, number_array, whole_number
from ..kernels import AbstractKernel


def real_array(name: str, value: Any) -> jax.Array | np.ndarray:
    """An array of real numbers, or what can be made one.

    Raises:
        ValueError: it holds something else.
    """
    value = number_array(name, value)
    if jnp.issubdtype(value.dtype, np.complexfloating):
        raise ValueError(f"{name} must hold real numbers, got {value.dtype}")
    return value


def check_draws(key: Any, sample_shape: Any) -> None:
    """The arguments of draws.

    Raises:
        ValueError: no PRNG key, or no shape.
    """
    check_key(key)
    if not isinstance(sample_shape, tuple):
        raise ValueError(
            f"sample_shape must be a tuple of integers such as (100,), got {sample_shape!r}"
        )
    for size in sample_shape:
        whole_number(f"sample_shape {sample_shape}: each size", size, 0)


def checked_jitter(jitter: Any, dtype: Any) -> float:
    """A relative jitter, the default of its precision for None.

    Raises:
        ValueError: it is negative or no number.
    """
    if jitter is None:
        return default_jitter(dtype)
    if not isinstance(jitter, int | float) or not 0 <= jitter < math.inf:
        raise ValueError(f"jitter must be a number, 0 or more, got {jitter!r}")
    return float(jitter)


def check_kernel(kernel: Any) -> None:
    """Refuses what is no covariance function.

    Raises:
        ValueError: it is something else, perhaps a class of them.
    """
    if isinstance(kernel, type) and issubclass(kernel, AbstractKernel):
        name = kernel.__name__
        raise ValueError(f"kernel must be an instance, as kernels.{name}(), got the class {name}")
    if not isinstance(kernel, AbstractKernel):
        raise ValueError(
            "kernel must be a covariance function, an AbstractKernel such as kernels.RBF(), got "
            f"{type(kernel).__name__}"
        )


def check_optimizer(optimizer: Any) -> None:
    """Refuses what is no gradient transformation of Optax.

    Raises:
        ValueError: it is not.
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise ValueError(
            "optimizer must be a gradient transformation of Optax such as optax.adam(1e-2), got "
            f"{optimizer!r}"
        )
