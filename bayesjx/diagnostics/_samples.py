"""Draws and truths by name as arrays with one column for each number, and their checks."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import number_array, refuse_where


def as_columns(
    owner: str, draws: Any, truths: Any, *, finite: bool = False
) -> tuple[tuple[str, ...], Float[Array, "q s n"], Float[Array, "q n"]]:
    """Draws and truths of `q` quantities and their names.

    Args:
        owner: name of the function, for errors.
        draws: arrays `(s, n, ...)`, one or a pytree of them.
        truths: arrays `(n, ...)`, with the same structure.
        finite: infinite values are refused too.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(truths)
    if jax.tree.structure(draws) != structure:
        raise ValueError(
            f"{owner}: draws and truths must have the same structure, got "
            f"{jax.tree.structure(draws)} and {structure}"
        )
    if not leaves:
        raise ValueError(f"{owner}: truths is empty: it holds no array")
    names, columns, first = [], [], None
    for (path, truth), draw in zip(leaves, jax.tree.leaves(draws), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator=".")
        at = f" of {name!r}" if name else ""
        truth = _floats(f"{owner}: truths{at}", truth)
        draw = _floats(f"{owner}: draws{at}", draw)
        fits = truth.ndim > 0 and draw.shape[1:] == truth.shape and draw.size > 0
        first = first or draw.shape[:2]
        if not fits or draw.ndim != truth.ndim + 1 or draw.shape[:2] != first:
            raise ValueError(
                f"{owner}: draws{at} must have shape (s, n, ...) and truths (n, ...), with the "
                f"same s and n of at least 1 for all, got {draw.shape} and {truth.shape}"
                + ("; is the axis of draws first?" * (draw.ndim == truth.ndim + 1))
            )
        draw = refuse_where(draw, _bad(finite), f"{owner}: draws{at} {_words(finite)}")
        truth = refuse_where(truth, _bad(finite), f"{owner}: truths{at} {_words(finite)}")
        names += [_label(name, index) for index in np.ndindex(truth.shape[1:])]
        columns.append((jnp.asarray(draw), jnp.asarray(truth)))
    dtype = jnp.result_type(*{draw.dtype for draw, _ in columns})
    draws = [_last_first(draw.astype(dtype), 2) for draw, _ in columns]
    truths = [_last_first(truth.astype(dtype), 1) for _, truth in columns]
    return tuple(names), jnp.concatenate(draws), jnp.concatenate(truths)


def _last_first(array: jax.Array, kept: int) -> jax.Array:
    """From `(*kept, ...)` to `(q, *kept)`."""
    return jnp.moveaxis(array.reshape(*array.shape[:kept], -1), -1, 0)


def _floats(name: str, value: Any) -> Any:
    array = number_array(name, value)
    if jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(f"{name} must hold real numbers, got {array.dtype}")
    if jnp.issubdtype(array.dtype, jnp.floating):
        return array
    return array.astype(jnp.result_type(float))


def _bad(finite: bool) -> Any:
    if finite:
        return lambda a: ~((a > -np.inf) & (a < np.inf))
    return lambda a: a != a


def _words(finite: bool) -> str:
    return "must be finite" if finite else "must not be NaN"


def _label(name: str, index: tuple[int, ...]) -> str:
    inside = f"[{', '.join(map(str, index))}]" if index else ""
    return name + inside or "value"
