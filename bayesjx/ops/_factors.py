"""Factorisations that an operator keeps: their derivatives, and checks for failure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._core import on_failure


@eqx.filter_custom_jvp
def kept(arrays: Any, factor: Any, *, factorise: Any) -> Any:
    """`factor`, which is `factorise(*arrays)` computed earlier, with the derivative of that.

    An operator factorises once, when it is made, and keeps the result without derivatives; this
    restores them, at the cost of a second factorisation under differentiation only.
    """
    del arrays, factorise
    return factor


@kept.def_jvp
def _kept_jvp(primals: Any, tangents: Any, *, factorise: Any) -> tuple[Any, Any]:
    arrays, factor = primals
    d_arrays, _ = tangents
    _, d_factor = eqx.filter_jvp(factorise, arrays, d_arrays)
    return kept(arrays, factor, factorise=factorise), d_factor


def symmetric_solve(multiply: Any, solve: Any, b: jax.Array) -> jax.Array:
    """A solve whose derivative is that of `multiply`, so that `solve` may use cached factors.

    Args:
        multiply: product with the symmetric matrix, differentiable in what it closes over.
        solve: product with its inverse; no derivative goes through it.
        b: right-hand sides, shape `(n, k)`.
    """
    return jax.lax.custom_linear_solve(multiply, b, lambda _, rhs: solve(rhs), symmetric=True)


def check_each(x: Any, bad: jax.Array, template: str) -> Any:
    """`x`, or an error that names the first index where `bad` is true.

    Args:
        x: arrays that the check is tied to.
        bad: shape `(n,)`.
        template: text of the error, with `{}` where the index goes.

    Raises:
        RuntimeError: at run time, if any element of `bad` is true.
    """
    if not bad.size:
        return x
    texts = _Numbered(template, bad.size)
    return eqx.branched_error_if(x, jnp.any(bad), jnp.argmax(bad), texts, on_error=on_failure())


@dataclasses.dataclass(frozen=True)
class _Numbered(Sequence[str]):
    """A text for each index, formatted on access."""

    template: str
    size: int

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: Any) -> Any:
        return self.template.format(index)
