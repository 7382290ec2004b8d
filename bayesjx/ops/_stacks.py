"""Operators side by side and on top of each other."""

from __future__ import annotations

import functools
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from . import _general as general
from ._operator import AbstractOperator, unknown


class HStack(AbstractOperator):
    r"""Operators side by side, $[A_1, \dots, A_k]$; a root of $\sum_i A_i A_i^\top$.

    Args:
        *parts: operators with the same number of rows.

    Raises:
        ValueError: no parts, one that is no operator, or numbers of rows or types differ.
    """

    parts: tuple[AbstractOperator, ...]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, *parts: AbstractOperator):
        self.parts = checked_parts("HStack", parts, 0)
        self.tags = frozenset()

    @property
    def shape(self) -> tuple[int, int]:
        return (self.parts[0].shape[0], sum(part.shape[1] for part in self.parts))

    @property
    def dtype(self) -> Any:
        return self.parts[0].dtype

    def transpose(self) -> VStack:
        return VStack(*(part.transpose() for part in self.parts))

    def _mm(self, x: jax.Array) -> jax.Array:
        ends = list(itertools.accumulate(part.shape[1] for part in self.parts))
        pieces = jnp.split(x, ends[:-1])
        return functools.reduce(
            jnp.add, [p._mm(x) for p, x in zip(self.parts, pieces, strict=True)]
        )

    _solve, _logdet, _diag, _root = map(unknown, ("solve", "logdet", "diag", "root"))


class VStack(AbstractOperator):
    """Operators on top of each other, the transpose of `HStack`.

    Args:
        *parts: operators with the same number of columns.

    Raises:
        ValueError: no parts, one that is no operator, or numbers of columns or types differ.
    """

    parts: tuple[AbstractOperator, ...]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, *parts: AbstractOperator):
        self.parts = checked_parts("VStack", parts, 1)
        self.tags = frozenset()

    @property
    def shape(self) -> tuple[int, int]:
        return (sum(part.shape[0] for part in self.parts), self.parts[0].shape[1])

    @property
    def dtype(self) -> Any:
        return self.parts[0].dtype

    def transpose(self) -> HStack:
        return HStack(*(part.transpose() for part in self.parts))

    def _mm(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([part._mm(x) for part in self.parts])

    _solve, _logdet, _diag, _root = map(unknown, ("solve", "logdet", "diag", "root"))


def checked_parts(owner: str, parts: tuple[Any, ...], axis: int | None) -> tuple[Any, ...]:
    """Operators that can stand side by side.

    Args:
        owner: whose parts they are.
        parts: the operators.
        axis: the axis along which all must be equally long, if any.

    Raises:
        ValueError: none, one that is no operator of ours or has no size, or sizes or types differ.
    """
    if not parts or not all(isinstance(part, AbstractOperator) for part in parts):
        kinds = [type(part).__name__ for part in parts]
        raise ValueError(
            f"{owner}: parts must be at least one operator of bayesjx.ops, got {kinds}; a matrix "
            "is ops.Dense(matrix)"
        )
    for part in parts:
        general.check_size(part, owner)
    if axis is not None:
        sizes = [part.shape[axis] for part in parts]
        if len(set(sizes)) != 1:
            what = ("rows", "columns")[axis]
            raise ValueError(f"{owner}: parts must have the same number of {what}, got {sizes}")
    types = [str(np.dtype(part.dtype)) for part in parts]
    if len(set(types)) > 1:
        raise ValueError(
            f"{owner}: all parts must have one type, got {types}; nothing is converted silently"
        )
    return parts
