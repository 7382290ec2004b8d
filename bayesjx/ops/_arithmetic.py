"""Sums, products and multiples of operators: what they must have in common, and their dispatch.

The rules for each kind of operator, which say what structure survives, are in `_rules`.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import lineax as lx
import numpy as np

SIGNS = {
    "+": "added to",
    "-": "subtracted from",
    "@": "multiplied with",
}


@functools.singledispatch
def plus(left: Any, right: Any) -> Any:
    """The sum with an operator of the same shape and type, or None where it has no structure."""


@functools.singledispatch
def times(left: Any, right: Any) -> Any:
    """The product with an operator that fits, or None where it has no structure."""


@functools.singledispatch
def multiple(operator: Any, factor: jax.Array, sign: int) -> Any:
    """The multiple, of the same kind where it can be; the sign is 0 if it is not known."""
    raise NotImplementedError(f"multiples of a {_name(operator)}")


@functools.singledispatch
def sized(operator: Any, size: int, dtype: Any) -> Any:
    """The operator beside one of this size and type, which some leave open."""
    del size, dtype
    return operator


def fitted(left: Any, right: Any, sign: str) -> tuple[Any, Any]:
    """Both operands, checked to fit; one that leaves its size or type open takes the other's.

    Raises:
        ValueError: `right` is no operator, or sizes or types differ.
    """
    if not isinstance(right, lx.AbstractLinearOperator):
        raise ValueError(
            f"{_name(left)} {sign} {_name(right)}: only an operator can be {SIGNS[sign]} an "
            "operator; a matrix is ops.Dense(matrix), a diagonal is ops.Diag(entries), noise is "
            "ops.ScaledIdentity(variance)"
        )
    right = sized(right, left.shape[1], left.dtype)
    rows, columns = _structures(right)
    if len(rows) == 1 and len(rows[0].shape) == 1:
        left = sized(left, rows[0].shape[0], rows[0].dtype)
    own = jax.ShapeDtypeStruct((left.shape[0],), left.dtype), left.in_structure()
    pairs = [(own[1], rows)] if sign == "@" else [(own[0], rows), (own[1], columns)]
    if any(len(given) != 1 or given[0].shape != wanted.shape for wanted, given in pairs):
        rule = "columns and rows differ" if sign == "@" else "the sizes differ"
        raise ValueError(f"{_described(left)} {sign} {_described(right)}: {rule}")
    if any(np.dtype(given[0].dtype) != np.dtype(wanted.dtype) for wanted, given in pairs):
        raise ValueError(
            f"{_name(left)} {sign} {_name(right)}: the types differ, {np.dtype(left.dtype)} and "
            f"{np.dtype(rows[0].dtype)}; convert one of them, nothing is converted silently"
        )
    return left, right


def checked_scalar(operator: Any, scalar: Any, sign: str) -> tuple[jax.Array, int]:
    """A scalar in the operator's type and its sign; 0 if that is not known while tracing.

    An operator that is tagged as definite has it taken for positive; a negative one becomes NaN.

    Raises:
        ValueError: it is no real scalar, is an array of another type, or divides by zero.
    """
    where = f"{_name(operator)} {sign} scalar"
    if isinstance(scalar, lx.AbstractLinearOperator):
        raise ValueError(f"{where}: got an operator; the product of operators is A @ B")
    try:
        array = jnp.asarray(scalar)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: must be a number, got {type(scalar).__name__}") from None
    if array.ndim or not (jnp.issubdtype(array.dtype, jnp.floating) or array.weak_type):
        raise ValueError(
            f"{where}: must be a real number or a floating-point array of shape (), got "
            f"{array.dtype} of shape {array.shape}"
        )
    if jnp.issubdtype(array.dtype, jnp.complexfloating) or array.dtype == bool:
        raise ValueError(f"{where}: must be a real number, got {array.dtype}")
    if not array.weak_type and array.dtype != operator.dtype:
        raise ValueError(
            f"{where}: the types differ, {np.dtype(operator.dtype)} and {array.dtype}; convert "
            "one of them, nothing is converted silently"
        )
    factor = 1.0 * array  # of a number it stays weakly typed, so that it takes any type
    if not isinstance(scalar, jax.core.Tracer):
        value = float(np.asarray(scalar))
        if sign == "/" and value == 0:
            raise ValueError(f"{where}: division by zero")
        return factor, -1 if value < 0 else 1
    definite = operator.tags & {lx.positive_semidefinite_tag, lx.negative_semidefinite_tag}
    return (jnp.where(factor < 0, jnp.nan, factor), 1) if definite else (factor, 0)


def _structures(operator: Any) -> tuple[list[Any], list[Any]]:
    """Leaves of what the operator returns and of what it takes."""
    return jax.tree.leaves(operator.out_structure()), jax.tree.leaves(operator.in_structure())


def _name(operator: Any) -> str:
    return type(operator).__name__


def _described(operator: Any) -> str:
    rows, columns = _structures(operator)
    count = lambda leaves: sum(int(np.prod(leaf.shape)) for leaf in leaves)  # noqa: E731
    return f"{_name(operator)} {(count(rows), count(columns))}"
