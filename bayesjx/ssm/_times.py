"""Times of observations: checked, sorted, and as the steps between them."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

NO_NUMBERS = "mMOSUc"  # kinds of types: dates, durations, objects, text, complex numbers
LEAST_DIGITS = 64  # of rounding errors of the latest time that an average step must have


class Times(NamedTuple):
    """Sorted times.

    Attributes:
        origin: what the others are counted from, so that they keep their digits: the first of
            times that are known, else 0.
        before: the time before each, for the first its own, shape `(n,)`.
        steps: time since then, not negative, shape `(n,)`.
        order: what sorts, and sorts back, the order in which they were given; None if they were
            sorted.
    """

    origin: float
    before: Float[Array, " n"]
    steps: Float[Array, " n"]
    order: tuple[Int[Array, " n"], Int[Array, " n"]] | None


def sorted_times(times: Any, name: str = "times") -> Times:
    """Times in their order. Steps of known times are differences in double precision.

    Args:
        times: shape `(n,)`; if not in order they are sorted, with a warning, unless traced.
        name: of the argument, for errors.

    Raises:
        ValueError: a wrong rank, no times, NaN, dates or what else is no real number, or a type
            that cannot tell neighbours apart.
        RuntimeError: under `jit`, NaN or times out of order.

    Warns:
        UserWarning: they had to be sorted.
    """
    if np.ndim(times) != 1:
        raise ValueError(f"{name} must have shape (n,), got {np.shape(times)}")
    if np.size(times) == 0:
        raise ValueError(f"{name} is empty")
    if isinstance(times, jax.core.Tracer):
        times = times if jnp.issubdtype(times.dtype, jnp.inexact) else times.astype(float)
        before = jnp.concatenate([times[:1], times[:-1]])
        message = f"{name} must be finite and in order where they are known at run time only"
        steps = eqx.error_if(times - before, ~jnp.all(times >= before), message)
        return Times(0.0, before, steps, None)
    given = np.asarray(times)
    if given.dtype.kind in NO_NUMBERS:
        raise ValueError(
            f"{name} must be real numbers, got {given.dtype}; dates as days, say: "
            "(dates - dates[0]) / np.timedelta64(1, 'D')"
        )
    exact = given.astype(np.float64)
    if not np.all(np.isfinite(exact)):
        raise ValueError(f"{name} holds NaN or infinite values")
    order = None
    if np.any(np.diff(exact) < 0):
        warnings.warn(f"{name} are not in order; they are sorted here", stacklevel=3)
        forth = np.argsort(exact, kind="stable")
        order = (jnp.asarray(forth), jnp.asarray(np.argsort(forth)))
        exact = exact[forth]
    origin = float(exact[0])
    before = np.concatenate([exact[:1], exact[:-1]])
    steps = exact - before
    _check_resolution(name, given.dtype, exact, steps)
    dtype = jnp.asarray(0.0).dtype if given.dtype.kind in "iu" else jnp.asarray(given[:1]).dtype
    return Times(origin, jnp.asarray(before - origin, dtype), jnp.asarray(steps, dtype), order)


def _check_resolution(name: str, dtype: Any, times: np.ndarray, steps: np.ndarray) -> None:
    if dtype.kind != "f" or not np.any(steps > 0):
        return
    rounding = np.finfo(dtype).eps * np.max(np.abs(times))
    typical = np.mean(steps[steps > 0])
    if typical < LEAST_DIGITS * rounding:
        raise ValueError(
            f"{name} are {dtype}, which is exact to {rounding:.1e} at {np.max(np.abs(times)):.6g}, "
            f"while their steps are {typical:.1e}: subtract the first time in float64, or pass "
            "float64"
        )
