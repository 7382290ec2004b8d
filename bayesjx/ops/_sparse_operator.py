"""Abstract base class of sparse layouts, and checks of their indices."""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax.core import Tracer

from ._checks import checked_size
from ._operator import AbstractOperator, unknown
from ._primitive import kernel_mode
from ._sparse_products import Products

_Sparse = TypeVar("_Sparse", bound="AbstractSparse")


class AbstractSparse(AbstractOperator):
    """Abstract base class of sparse `K × N` matrices: zero, without gradient, off the active set.

    `x @ W` for `x` of shape `(..., K)` is what a layer computes and costs as much as the active set
    is large; `W @ y`, transposes and products of any derivative do too. The dense matrix is never
    made, so `K N` may be beyond what memory or 32-bit indices can hold: only `K` and `N` may not.
    """

    values: eqx.AbstractVar[jax.Array]
    size: eqx.AbstractVar[tuple[int, int]]
    transposed: eqx.AbstractVar[bool]

    @abc.abstractmethod
    def _products(self) -> Products:
        """The primitives of the layout."""

    @abc.abstractmethod
    def _operands(self) -> tuple[jax.Array, ...]:
        """Values and indices."""

    @property
    @abc.abstractmethod
    def block(self) -> tuple[int, int]:
        """Rows and columns that are active or not as one."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.size[::-1] if self.transposed else self.size

    @property
    def dtype(self) -> Any:
        """Type of the entries."""
        return self.values.dtype

    @property
    def density(self) -> float:
        """Share of the entries of the matrix that are held."""
        return self.values.size / (self.size[0] * self.size[1])

    def transpose(self: _Sparse) -> _Sparse:
        """The transpose, which shares the arrays."""
        tags = frozenset(lx.transpose_tags(self.tags))
        return self.replaced(transposed=not self.transposed, tags=tags)

    def replaced(self: _Sparse, **changes: Any) -> _Sparse:
        """The same with other fields, without checks, as JAX makes it from leaves."""
        new = object.__new__(type(self))
        for field in dataclasses.fields(self):
            value = changes.get(field.name, getattr(self, field.name))
            object.__setattr__(new, field.name, value)
        return new

    def _mm(self, x: jax.Array) -> jax.Array:
        products = self._products()
        prim = products.forward if self.transposed else products.backward
        params = {"shape": self.size, "block": self.block, "mode": kernel_mode()}
        return prim.bind(*self._operands(), x, **params)

    _solve, _logdet, _root = map(unknown, ("solve", "logdet", "root"))


def checked_shape(owner: str, shape: Any) -> tuple[int, int]:
    """The shape of the matrix, two positive integers below 2³¹.

    Raises:
        ValueError: it is not.
    """
    pair = isinstance(shape, (tuple, list)) and len(shape) == 2
    if not pair or not all(isinstance(s, (int, np.integer)) and s > 0 for s in shape):
        raise ValueError(f"{owner}: shape must be two positive integers (K, N), got {shape!r}")
    checked_size(owner, max(shape))
    return int(shape[0]), int(shape[1])


def known_index(owner: str, name: str, index: Any, limit: int) -> jax.Array:
    """The indices as 32-bit integers, checked to lie in `[0, limit)` if they are known.

    Raises:
        ValueError: they are not integers, or known and out of range.
    """
    if isinstance(index, Tracer) and jnp.issubdtype(index.dtype, jnp.integer):
        return index.astype(jnp.int32)
    return jnp.asarray(checked_index(owner, name, index, limit))


def listed(index: Any) -> Any:
    """An array of the indices; what is known stays NumPy's, also while a function is traced."""
    return index if isinstance(index, jax.Array) else np.asarray(index)


def checked_index(owner: str, name: str, index: Any, limit: int) -> Any:
    """The indices as 32-bit integers in `[0, limit)`; NumPy's if they are known.

    Raises:
        ValueError: they are not integers, or known and out of range.
        RuntimeError: they are out of range, raised when a jitted function runs.
    """
    if not jnp.issubdtype(jnp.result_type(index), jnp.integer):
        raise ValueError(f"{owner}: {name} must hold integers, got {jnp.result_type(index)}")
    text = f"{owner}: {name} must lie in [0, {limit})"
    if not isinstance(index, Tracer):
        known = np.asarray(index)  # before the cast, which would wrap what is too large
        if known.size and (known.min() < 0 or known.max() >= limit):
            raise ValueError(f"{text}, got values from {known.min()} to {known.max()}")
        return known.astype(np.int32)
    outside = jnp.any((index < 0) | (index >= limit))
    return eqx.error_if(index, outside, text).astype(jnp.int32)


def checked_distinct(owner: str, what: str, keys: tuple[Any, ...]) -> tuple[jax.Array, ...]:
    """The keys, if no two positions along the last axis have the same ones.

    Raises:
        ValueError: some have, and the keys are known.
        RuntimeError: some have, raised when a jitted function runs.
    """
    known = not any(isinstance(key, Tracer) for key in keys)
    xp: Any = np if known else jnp
    order = xp.lexsort([xp.asarray(key) for key in keys], axis=-1)
    in_order = [xp.take_along_axis(xp.asarray(key), order, axis=-1) for key in keys]
    same = xp.stack([key[..., 1:] == key[..., :-1] for key in in_order]).all(0)
    text = f"{owner}: {what}; add up their values beforehand, or leave all but one out"
    if known:
        if same.any():
            at = tuple(int(i) for i in np.argwhere(same)[0])
            first = tuple(int(key[at]) for key in in_order)
            raise ValueError(f"{text} (the first repeated one is {first})")
        return tuple(jnp.asarray(key) for key in keys)
    return (eqx.error_if(keys[0], jnp.any(same), text), *keys[1:])
