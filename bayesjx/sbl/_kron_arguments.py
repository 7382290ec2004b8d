"""Checks of problems with a design for each axis."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from .. import ops
from .._core import checked_finite, number_array, refuse_where


def kron_problem(
    owner: str, factors: Any, y: Any, zero: bool = False
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """The designs and the measurements, of one type; with a last axis for snapshots.

    Args:
        owner: function whose name errors carry.
        factors: matrices, one matrix, or an `ops.Kron`.
        y: their grid of measurements, with or without an axis of snapshots behind.
        zero: whether `y` may be zero everywhere.

    Raises:
        ValueError: it is no such problem.
    """
    matrices, y = _matrices(owner, factors), number_array(f"{owner}: y", y)
    grid = tuple(m.shape[0] for m in matrices)
    if y.shape[: len(grid)] != grid or y.ndim > len(grid) + 1:
        hint = f"; make it y.reshape({grid})" if y.shape == (math.prod(grid),) else ""
        raise ValueError(
            f"{owner}: y must have shape {grid}, the rows of the factors, or {(*grid, 'L')} with L "
            f"snapshots; got {y.shape}{hint}"
        )
    *arrays, y = of_one_type(owner, {**_named(matrices), "y": y})
    y = checked_finite(f"{owner}: y", y)
    if not zero:
        text = f"{owner}: y is zero everywhere, so there is nothing to recover"
        y = refuse_where(y, _all_zero, text)
    return _checked(owner, arrays), y if y.ndim > len(grid) else y[..., None]


def kron_factors(owner: str, factors: Any) -> tuple[jax.Array, ...]:
    """The matrices of a Kronecker product, of one type.

    Raises:
        ValueError: something else, empty, without an element that is not zero, or not finite.
    """
    return _checked(owner, of_one_type(owner, _named(_matrices(owner, factors))))


def _matrices(owner: str, factors: Any) -> list[Any]:
    if isinstance(factors, ops.Kron):
        factors = factors.factors
    if not isinstance(factors, tuple | list):
        factors = (factors,)
    if not factors:
        raise ValueError(f"{owner}: factors is empty; at least one matrix is needed")
    arrays = []
    for d, factor in enumerate(factors):
        name = f"{owner}: factors[{d}]"
        factor = number_array(name, factor)
        if factor.ndim != 2:
            raise ValueError(
                f"{name} must be a matrix, got shape {factor.shape}; several factors are a tuple "
                "of matrices"
            )
        arrays.append(factor)
    return arrays


def _checked(owner: str, arrays: list[jax.Array]) -> tuple[jax.Array, ...]:
    checked = []
    for name, array in _named(arrays).items():
        array = checked_finite(f"{owner}: {name}", array)
        checked.append(refuse_where(array, _all_zero, f"{owner}: {name} is zero everywhere"))
    return tuple(checked)


def of_one_type(owner: str, arrays: dict[str, Any]) -> list[jax.Array]:
    """Floating-point arrays of one precision, all complex if one of them is.

    Integers are taken as floating-point numbers of the others' precision.

    Raises:
        ValueError: precisions are mixed.
    """
    kinds = {n: jax.dtypes.canonicalize_dtype(a.dtype) for n, a in arrays.items()}
    inexact = [kind for kind in kinds.values() if jnp.issubdtype(kind, jnp.inexact)]
    if len({jnp.finfo(kind).bits for kind in inexact}) > 1:
        listed = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        raise ValueError(f"{owner}: all arrays must have one precision, got {listed}")
    dtype = jnp.result_type(*inexact) if inexact else jnp.result_type(float)
    return [jnp.asarray(array, dtype) for array in arrays.values()]


def _named(arrays: Any) -> dict[str, Any]:
    return {f"factors[{d}]": array for d, array in enumerate(arrays)}


def _all_zero(array: Any) -> Any:
    return (array == 0).all()
