"""Functions of many data, of some of them at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

AT_ONCE = 2**22  # probabilities of states that are held at a time, if the caller does not say


def mapped(function: Callable[[Any], Any], rows: Any, size: int) -> Any:
    """A function of rows, applied to at most `size` of them at a time.

    Chunks are of every so many rows, not of neighbours: rows that are sharded over devices stay
    there.

    Args:
        function: from a pytree of arrays `(k, ...)` to another, row by row.
        rows: pytree of arrays `(n, ...)`.
        size: how many at a time.
    """
    n, number = _chunks(rows, size)
    if number == 1:
        return function(rows)
    out = jax.lax.map(function, jax.tree.map(lambda x: _split(x, number), rows))
    return jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1).reshape(-1, *x.shape[2:])[:n], out)


def summed(function: Callable[[Any], Any], rows: Any, size: int) -> Any:
    """The sum of a function of rows over chunks of at most `size`; see `mapped`.

    Args:
        function: from a pytree of arrays `(k, ...)` to a pytree of sums over the rows, to which
            rows of zeros, that fill the last chunk, add nothing.
        rows: pytree of arrays `(n, ...)`.
        size: how many at a time.
    """
    number = _chunks(rows, size)[1]
    if number == 1:
        return function(rows)

    def add(total: Any, chunk: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(chunk)), None

    chunks = jax.tree.map(lambda x: _split(x, number), rows)
    first = jax.eval_shape(function, jax.tree.map(lambda x: x[0], chunks))
    zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), first)
    return jax.lax.scan(add, zero, chunks)[0]


def _chunks(rows: Any, size: int) -> tuple[int, int]:
    n = len(jax.tree.leaves(rows)[0])
    return n, max(1, -(-n // size))


def _split(x: jax.Array, number: int) -> jax.Array:
    padding = [(0, -len(x) % number)] + [(0, 0)] * (x.ndim - 1)
    return jnp.moveaxis(jnp.pad(x, padding).reshape(-1, number, *x.shape[1:]), 1, 0)
