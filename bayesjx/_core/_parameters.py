"""Constraints of module fields, and the change of variables to and from unconstrained ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey


def positive_field(known: Callable[[Any], bool] | None = None, **options: Any) -> Any:
    """A field of an Equinox module whose arrays are positive.

    Args:
        known: from the field's value to whether it is data, such as the variance of each
            measurement, and not a parameter; see `learnable`.
        options: of `equinox.field`.
    """
    return eqx.field(metadata={"constraint": "positive", "known": known}, **options)


def learnable(tree: Any, chosen: Callable[[Any], Any] | None = None) -> Any:
    """A tree of booleans: which leaves an optimiser moves.

    Args:
        tree: modules, in any pytree.
        chosen: which, from the tree to a node of it or a list of them; by default all, but what
            `positive_field` declares to be known. Only floating-point arrays are ever moved.
    """
    if chosen is None:
        leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
        free = [
            eqx.is_inexact_array(leaf) and not any(_is_known(*step) for step in _fields(tree, path))
            for path, leaf in leaves
        ]
        return jax.tree.unflatten(structure, free)
    nothing = jax.tree.map(lambda _: False, tree)
    floats = jax.tree.map(eqx.is_inexact_array, tree)
    return eqx.tree_at(chosen, nothing, chosen(floats))


def to_real(tree: Any) -> Any:
    """The same tree with the logarithms of all fields declared positive.

    What optimisers work on; `from_real` goes back. Other arrays are as they are.

    Args:
        tree: modules, in any pytree.
    """
    return _mapped(tree, jnp.log)


def from_real(tree: Any) -> Any:
    """The inverse of `to_real`."""
    return _mapped(tree, jnp.exp)


def _mapped(tree: Any, function: Any) -> Any:
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    changed = [
        function(leaf) if eqx.is_inexact_array(leaf) and _is_positive(tree, path) else leaf
        for path, leaf in leaves
    ]
    return jax.tree.unflatten(structure, changed)


def _is_positive(tree: Any, path: Any) -> bool:
    """Whether the innermost module field on the way to a leaf is declared positive."""
    fields = list(_fields(tree, path))
    return bool(fields) and fields[-1][0].get("constraint") == "positive"


def _is_known(metadata: Any, value: Any) -> bool:
    known = metadata.get("known")
    return known is not None and bool(known(value))


def _fields(node: Any, path: Any) -> Iterator[tuple[Any, Any]]:
    """Metadata and value of each module field on the way to a leaf."""
    for entry in path:
        if isinstance(entry, GetAttrKey) and dataclasses.is_dataclass(node):
            fields = {field.name: field for field in dataclasses.fields(node)}
            metadata = fields[entry.name].metadata
            node = getattr(node, entry.name)
            yield metadata, node
        elif hasattr(entry, "key"):
            node = node[entry.key]
        elif hasattr(entry, "idx"):
            node = node[entry.idx]
        else:  # a named tuple
            node = getattr(node, entry.name)
