"""Checks of the arguments that the learners of this package share."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .. import ops
from .._core import checked_finite, number_array, refuse_where


def checked_problem(owner: str, design: Any, y: Any) -> tuple[Any, jax.Array]:
    """The design, dense or an operator, and the measurements, of one floating-point type.

    Integers are taken as floating-point numbers of the other's precision; real and complex numbers
    of one precision give complex ones.

    Args:
        owner: function whose name errors carry.
        design: shape `(n, m)`.
        y: shape `(n,)` or `(n, L)`.

    Raises:
        ValueError: shapes that disagree, empty or NaN data, two precisions.
    """
    design = design if isinstance(design, ops.AbstractOperator) else number_array("design", design)
    y = number_array("y", y)
    shape = jnp.shape(design)
    if len(shape) != 2 or jnp.ndim(y) not in (1, 2) or shape[0] != jnp.shape(y)[0]:
        hint = "; was design transposed?" if shape[1:] == jnp.shape(y)[:1] else ""
        raise ValueError(
            f"{owner}: design must be (n, m) and y (n,), or (n, L) for L measurement vectors; got "
            f"{shape} and {jnp.shape(y)}{hint}"
        )
    if 0 in shape:
        raise ValueError(f"{owner}: design is empty: its shape is {shape}")
    dtype = common_dtype(owner, design, y)
    if isinstance(design, ops.AbstractOperator):
        if design.dtype != dtype:
            raise ValueError(
                f"{owner}: y is {jnp.result_type(y)} and the operator design holds "
                f"{np.dtype(design.dtype)}; convert one of them"
            )
        return design, checked_finite("y", jnp.asarray(y, dtype))
    design = checked_finite("design", jnp.asarray(design, dtype))
    return design, checked_finite("y", jnp.asarray(y, dtype))


def common_dtype(owner: str, design: Any, y: Any) -> Any:
    """The floating-point type of a design and measurements.

    Raises:
        ValueError: they have two precisions.
    """
    kinds = {"design": np.dtype(design.dtype), "y": np.dtype(jnp.result_type(y))}
    kinds = {name: jax.dtypes.canonicalize_dtype(kind) for name, kind in kinds.items()}
    inexact = {name: kind for name, kind in kinds.items() if jnp.issubdtype(kind, jnp.inexact)}
    if not inexact:
        return jnp.result_type(float)
    if len({jnp.finfo(kind).bits for kind in inexact.values()}) > 1:
        raise ValueError(
            f"{owner}: design is {kinds['design']} and y {kinds['y']}; convert one of them, as "
            "nothing is rounded silently"
        )
    return jnp.result_type(*inexact.values())


def real_of(dtype: Any) -> Any:
    """The real type of the same precision."""
    return jnp.finfo(dtype).dtype


def checked_variance(
    owner: str, name: str, value: Any, dtype: Any, size: int | None = None, zero: bool = False
) -> jax.Array:
    """A variance, or one for each of `size` weights.

    Args:
        owner: function whose name errors carry.
        name: of the argument.
        value: scalar, or shape `(size,)`.
        dtype: what it becomes.
        size: number of weights; None for a scalar.
        zero: whether it may be 0.

    Raises:
        ValueError: another shape, or a value that is known to be negative, infinite or NaN.
    """
    value = number_array(name, value)
    if jnp.issubdtype(value.dtype, jnp.complexfloating):
        raise ValueError(f"{owner}: {name} must be real, got {value.dtype}")
    if jnp.shape(value) not in (((),) if size is None else ((), (size,))):
        wanted = "a scalar" if size is None else f"a scalar or have shape ({size},)"
        raise ValueError(f"{owner}: {name} must be {wanted}, got shape {jnp.shape(value)}")
    wanted = "finite and not negative" if zero else "finite and positive"
    range_ = jnp.finfo(dtype)
    least, most = 0 if zero else float(range_.tiny), float(range_.max)
    value = refuse_where(
        value,
        lambda v: ~((v >= least) & (v <= most)),
        f"{owner}: {name} must be {wanted}" + _shown(value, dtype),
    )
    value = jnp.asarray(value, dtype)
    return value if size is None else jnp.broadcast_to(value, (size,))


def in_range(in_units: jax.Array, variances: jax.Array) -> jax.Array:
    """Whether variances are normal numbers of their precision in the units of the user.

    Args:
        in_units: the same in those of the problem; what is at their rounding may be lost.
        variances: in those of the user, of that shape.
    """
    limits = jnp.finfo(variances.dtype)
    large = in_units > limits.eps * jnp.max(in_units)
    return jnp.all(jnp.where(large, variances >= limits.tiny, True) & (variances <= limits.max))


def checked_units(owner: str, mean: jax.Array) -> jax.Array:
    """Posterior means, which are infinite where variances are not `in_range`.

    Raises:
        ValueError: some are infinite; under `jit` a `RuntimeError` when it runs.
    """
    return refuse_where(
        mean,
        lambda mean: abs(mean) == math.inf,
        f"{owner}: variances of weights or noise, in units of design and y, are none in "
        f"{np.dtype(real_of(mean.dtype))}: rescale columns or measurements",
    )


def fraction(owner: str, name: str, value: Any, below: float = math.inf) -> float:
    """A Python number from 0 on.

    Raises:
        ValueError: it is something else, or not less than `below`.
    """
    good = isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)
    if not good or not 0 <= value < below:
        wanted = "a number from 0 on" if below == math.inf else f"a number in [0, {below:g})"
        raise ValueError(f"{owner}: {name} must be {wanted}, got {value!r}")
    return float(value)


def one_of(owner: str, name: str, value: Any, known: tuple[str, ...]) -> str:
    """One of some words.

    Raises:
        ValueError: another.
    """
    if value not in known:
        listed = ", ".join(f'"{word}"' for word in known)
        raise ValueError(f"{owner}: {name} must be one of {listed}; got {value!r}")
    return value


def _shown(value: Any, dtype: Any) -> str:
    if isinstance(value, jax.core.Tracer) or jnp.ndim(value) != 0:
        return ""
    lost = 0 < value < math.inf  # a good number, but not in this precision
    return f", got {value}" + (f", which is none in {np.dtype(dtype)}" if lost else "")
