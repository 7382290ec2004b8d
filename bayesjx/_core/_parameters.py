"""Constraints of module fields, and the change of variables to and from unconstrained ones."""

from __future__ import annotations

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.tree_util import GetAttrKey


def positive_field(**options: Any) -> Any:
    """A field of an Equinox module whose arrays are positive."""
    return eqx.field(metadata={"constraint": "positive"}, **options)


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


def _is_positive(node: Any, path: Any) -> bool:
    """Whether the innermost module field on the way to a leaf is declared positive."""
    found = False
    for entry in path:
        if isinstance(entry, GetAttrKey) and dataclasses.is_dataclass(node):
            fields = {field.name: field for field in dataclasses.fields(node)}
            found = fields[entry.name].metadata.get("constraint") == "positive"
            node = getattr(node, entry.name)
        elif hasattr(entry, "key"):
            node = node[entry.key]
        elif hasattr(entry, "idx"):
            node = node[entry.idx]
        else:  # a named tuple
            node = getattr(node, entry.name)
    return found
