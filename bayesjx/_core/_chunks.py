"""Functions of data, of some of them at a time, and of functions of users in compiled programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from ._eager import compiled_for
from ._traced import TracedFunction


def run_traced(function: Callable[..., Any], of: TracedFunction, *args: Any) -> Any:
    """What `compiled` made, of arguments that hold a traced function of a user.

    Args:
        function: made by `compiled`.
        of: the traced function, whose identity the program may have to be known by.
        args: of `function`.
    """
    return (function if of.identity is None else compiled_for(of.identity, function))(*args)


def num_data(data: Any) -> int:
    """Length of the leading axis of a pytree of arrays."""
    return len(jax.tree.leaves(data)[0])


def map_chunks(function: Callable[..., jax.Array], data: Any, chunk: int | None) -> jax.Array:
    """A function of data, of each chunk, one result below the other; for compiled functions.

    Args:
        function: from a pytree of arrays to an array, both with an axis of their length in front.
        data: a pytree of arrays.
        chunk: how many at a time; None for all.
    """
    if chunk is None or chunk >= num_data(data):
        return function(data)
    full, rest = divmod(num_data(data), chunk)
    done = jax.lax.map(lambda i: function(_part(data, i * chunk, chunk)), jnp.arange(full))
    done = done.reshape(-1, *done.shape[2:])
    if not rest:
        return done
    return jnp.concatenate([done, function(_part(data, full * chunk, rest))])


def sum_chunks(function: Callable[..., Any], data: Any, chunk: int | None) -> Any:
    """The sum over chunks of a function of data, in the memory of one; for compiled functions.

    Args:
        function: from a pytree of arrays with an axis of their length in front to a tree of sums.
        data: a pytree of arrays.
        chunk: how many at a time; None for all.
    """
    if chunk is None or chunk >= num_data(data):
        return function(data)
    full, rest = divmod(num_data(data), chunk)

    def add(total: Any, i: jax.Array) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, function(_part(data, i * chunk, chunk))), None

    shapes = jax.eval_shape(lambda: function(_part(data, 0, chunk)))
    zero = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
    total, _ = jax.lax.scan(add, zero, jnp.arange(full))
    if not rest:
        return total
    return jax.tree.map(jnp.add, total, function(_part(data, full * chunk, rest)))


def _part(tree: Any, start: Any, size: int) -> Any:
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, size), tree)
