"""Loops in functions that users call outside of `jit`: compiled once, or run in Python.

JAX compiles the body of `lax.scan`, `map`, `while_loop` and `cond` anew at every call outside of
`jit` where the body is made anew, as a closure over the data is, and keeps each program. What the
library calls there is `compiled`, with all data as arguments. A user's function may read anything
from anywhere: it is an argument as `traced` makes it, or a loop of Python calls it, `in_chunks`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp

from ._failures import on_failure
from ._identity import ByValue, Identity, WeakCache
from ._tree import is_array


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of a module, compiled once for each structure and shapes of its arguments.

    Arrays within its arguments, also those of operators and kernels, are data of the program; all
    else must be hashable and is part of it. Derivatives, `vmap` and tracing go through it. Of a
    function of a user, what it read beside its arguments would be kept: pass what `traced` made.

    Args:
        function: defined in a module or decorated there, never within a function.
    """

    @eqx.filter_jit
    def run(failures: str, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        del failures  # what `error_if` does in the program is part of what it is known by
        return function(*args, **options)

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        return run(on_failure(), args, options)

    return call


_PROGRAMS = WeakCache(16)


def compiled_for(identity: Identity, function: Callable[..., Any]) -> Callable[..., Any]:
    """What `compiled` made, for arguments that hold a `TracedFunction` with an identity.

    A program is kept as long as what that function was made of, so that a loop over functions that
    are defined anew in each turn does not fill the memory.

    Args:
        identity: of the traced function.
        function: made by `compiled`.
    """

    def call(*args: Any) -> Any:
        arrays, static = eqx.partition(args, is_array)
        structure = ByValue(jax.tree.structure(arrays))
        key = Identity(identity, ByValue(function), static, structure, on_failure())
        program = _PROGRAMS.get(key)
        if program is None:
            plain = inspect.unwrap(function)
            program = jax.jit(lambda arrays: plain(*eqx.combine(arrays, static)))
            _PROGRAMS.put(key, program)
        return program(arrays)

    return call


def in_chunks(function: Callable[[jax.Array], jax.Array], rows: jax.Array, size: int) -> jax.Array:
    """A function of rows, of some rows at a time, in Python where they are known.

    Args:
        function: from `(k, ...)` to `(k, ...)`, row by row.
        rows: shape `(n, ...)`.
        size: how many at a time.
    """
    if len(rows) <= size:
        return function(rows)
    if isinstance(rows, jax.core.Tracer):
        return jax.lax.map(lambda row: function(row[None])[0], rows, batch_size=size)
    return jnp.concatenate([function(rows[i : i + size]) for i in range(0, len(rows), size)])
