"""Functions whose derivatives are computed together with their values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero


def with_derivatives(value: Callable[..., jax.Array], derivatives: Callable[..., Any]) -> Any:
    """A scalar function that takes its derivative from another one, in both modes and any order.

    The rule is the product of derivatives and tangents, so reverse mode only transposes that
    product, and higher orders differentiate the derivatives.

    Args:
        value: `value(static, *args)`, scalar, of pytrees of floating-point arrays.
        derivatives: `derivatives(static, *args)`, the value and its derivatives, a tuple like the
            arguments.
    """
    function = jax.custom_jvp(value, nondiff_argnums=(0,))

    def rule(static: Any, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
        total, gradient = derivatives(static, *primals)
        pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(tangents), strict=True)
        change = jnp.zeros_like(total)
        for slope, tangent in pairs:
            if not isinstance(tangent, SymbolicZero):  # what nobody asks for is not computed
                change = change + jnp.sum(slope * tangent)
        return total, change

    function.defjvp(rule, symbolic_zeros=True)
    return function
