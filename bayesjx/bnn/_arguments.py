"""Checks of arguments that several functions of this package share."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp

from .._core import check_key, checked_finite, number_array, refuse_where, whole_number


def check_draws(owner: str, key: Any, sample_shape: Any) -> None:
    """The arguments of draws.

    Raises:
        ValueError: no PRNG key, or no shape.
    """
    check_key(key)
    if not isinstance(sample_shape, tuple):
        raise ValueError(
            f"{owner}: sample_shape must be a tuple of integers such as (100,), got "
            f"{sample_shape!r}"
        )
    for size in sample_shape:
        whole_number(f"{owner}: each size of sample_shape", size, 0)


def positive(owner: str, name: str, value: Any, dtype: Any, *, zero: bool = False) -> jax.Array:
    """A number that is positive, as a scalar of that type.

    Args:
        owner: function whose argument it is.
        name: of the argument.
        value: what was given.
        dtype: of the result.
        zero: whether 0 is allowed.

    Raises:
        ValueError: it is known to be something else; under `jit` a `RuntimeError` when it runs.
    """
    array = number_array(f"{owner}: {name}", value)
    if jnp.ndim(array) != 0 or jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{owner}: {name} must be a number, got {value!r:.80}")
    wanted = "finite and not negative" if zero else "positive and finite"
    array = refuse_where(
        array,
        lambda v: ~((v >= 0 if zero else v > 0) & (v < jnp.inf)),
        f"{owner}: {name} must be {wanted}",
    )
    return jnp.asarray(array, dtype)


def check_optimizer(owner: str, optimizer: Any) -> None:
    """Refuses what is no gradient transformation of Optax.

    Raises:
        ValueError: it is not.
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise ValueError(
            f"{owner}: optimizer must be a gradient transformation of Optax such as "
            f"optax.adam(1e-3), got {optimizer!r:.80}"
        )


def inputs(owner: str, x: Any, dtype: Any) -> tuple[jax.Array, jax.Array]:
    """Inputs of a network, one a row: real numbers in its type, integers as they are.

    Args:
        owner: function whose argument they are.
        x: an array of shape `(n, ...)`.
        dtype: of the network's parameters.

    Returns:
        inputs and a guard: 1, which a check that can only be made at run time is tied to, so that
        inputs that are sharded over devices stay where they are.

    Raises:
        ValueError: they are none, there is none, or one is known to be NaN or infinite; under
            `jit` the last is a `RuntimeError` when it runs.
    """
    array = number_array(f"{owner}: x", x)
    if jnp.ndim(array) == 0 or jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(
            f"{owner}: x must hold real inputs of the network, one a row, shape (n, ...); got "
            f"{array.dtype} of shape {jnp.shape(array)}"
        )
    array, guard = jnp.asarray(array), jnp.ones((), dtype)
    if isinstance(array, jax.core.Tracer) and array.size:
        bad = ~jnp.all(jnp.isfinite(array))
        guard = eqx.error_if(guard, bad, f"{owner}: x holds NaN or infinite values")
    else:
        checked_finite(f"{owner}: x", array)
    return (array.astype(dtype) if jnp.issubdtype(array.dtype, jnp.floating) else array), guard


def check_single(owner: str, dtype: Any) -> None:
    """Raises `ValueError` for half precision, in which JAX factorises no matrix."""
    if jnp.finfo(dtype).bits < 32:
        raise ValueError(
            f"{owner}: network must be of float32 or float64, got {dtype}, in which no matrix can "
            "be factorised; cast it first"
        )
