"""Constraints of module fields, and the change of variables to and from unconstrained ones."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.tree_util import GetAttrKey
from numpyro.distributions import biject_to, constraints

from bayesjx._core._tree import path_name


def constrained_field(
    constraint: Any, *, known: Callable[[Any], bool] | None = None, **options: Any
) -> Any:
    """A field of an Equinox module whose arrays fulfil a constraint.

    Optimisers move it on the real line, where NumPyro's `biject_to` leads.

    Args:
        constraint: of `numpyro.distributions.constraints`, such as `positive` or `simplex`.
        known: from the field's value to whether it is data, such as the variance of each
            measurement, and not a parameter; see `learnable`.
        options: of `equinox.field`.
    """
    return eqx.field(metadata={"constraint": constraint, "known": known}, **options)


def known_field(**options: Any) -> Any:
    """A field of an Equinox module that holds data and no parameters.

    Args:
        options: of `equinox.field`.
    """
    return constrained_field(constraints.real, known=lambda _: True, **options)


def is_valid(module: Any) -> jax.Array:
    """Whether a module's own arrays fulfil the constraints of their fields, a boolean.

    NaN fulfils none. Modules within are not looked at.

    Args:
        module: of Equinox, its arrays known or traced.
    """
    good = jnp.ones((), bool)
    for _, constraint, value in _constrained(module):
        good &= jnp.all(constraint(value))
    return good


def check_known(module: Any) -> None:
    """Whether a module's own arrays fulfil the constraints of their fields, as far as is known.

    Raises:
        ValueError: they do not; names the field.
    """
    for name, constraint, value in _constrained(module):
        if not isinstance(value, jax.core.Tracer) and not np.all(constraint(np.asarray(value))):
            raise ValueError(f"{name} must {_in_words(constraint)}, got {value}")


def _in_words(constraint: Any) -> str:
    if constraint is constraints.positive:
        return "be positive"
    if constraint is constraints.nonnegative:
        return "not be negative"
    return f"fulfil the constraint {constraint}"


def _constrained(module: Any) -> Iterator[tuple[str, Any, Any]]:
    """Name, constraint and value of each own field that has a constraint and holds an array."""
    for field in dataclasses.fields(module):
        constraint, value = field.metadata.get("constraint"), getattr(module, field.name)
        if constraint is not None and isinstance(value, float | np.ndarray | jax.Array):
            yield field.name, constraint, value


def nan_unless_valid(module: Any, value: jax.Array) -> jax.Array:
    """An array, all of it NaN where `module` breaks a constraint; samplers avoid such densities."""
    return jnp.where(is_valid(module), value, jnp.nan)


def learnable(
    tree: Any,
    chosen: Callable[[Any], Any] | None = None,
    *,
    argument: str = "trainable",
    root: str = "params",
) -> Any:
    """A tree of booleans: which leaves an optimiser moves.

    Args:
        tree: modules, in any pytree.
        chosen: which, from the tree to a node of it or a list of them; by default all but those
            that their fields declare to be known. Only floating-point arrays are ever moved.
        argument: what errors call `chosen`.
        root: what they call the tree.

    Raises:
        ValueError: `chosen` is no such function.
    """
    if chosen is None:
        leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
        free = [
            eqx.is_inexact_array(leaf) and not any(_is_known(*step) for step in _fields(tree, path))
            for path, leaf in leaves
        ]
        return jax.tree.unflatten(structure, free)
    if not callable(chosen):
        raise ValueError(f"{argument} must be a function of {root}, got {chosen!r:.80}")
    nothing = jax.tree.map(lambda _: False, tree)
    floats = jax.tree.map(eqx.is_inexact_array, tree)
    try:
        return eqx.tree_at(chosen, nothing, chosen(floats))
    except (AttributeError, KeyError, IndexError, TypeError, ValueError) as error:
        raise ValueError(
            f"{argument} must return a node of {root} or a list of them ({error})"
        ) from error


def unconstrained(tree: Any, trainable: Any = None) -> Any:
    """Parameters that an optimiser moves, on the real line, None elsewhere; `from_real` inverts it.

    An array on the boundary of its constraint, such as a variance of 0, is at infinity there: it
    is known, and stays.

    Args:
        tree: modules, in any pytree.
        trainable: see `learnable`, or what that returns.

    Raises:
        ValueError: there is nothing to move; values that are known to break their constraint, or
            some of an array on its boundary; names the leaf.
    """
    if trainable is None or callable(trainable):
        trainable = learnable(tree, trainable)
    elif not all(isinstance(leaf, bool) for leaf in jax.tree.leaves(trainable)):
        raise ValueError(f"trainable must be a function of params, got {trainable!r:.80}")
    leaves, structure = jax.tree_util.tree_flatten_with_path(eqx.filter(tree, trainable))
    free = [_free(leaf, _constraint(tree, path), path) for path, leaf in leaves]
    if all(x is None for x in free):
        raise ValueError(
            "there is nothing to train: params holds no floating-point array that is not known, or "
            "trainable chose none"
        )
    return jax.tree.unflatten(structure, free)


def known(tree: Any, free: Any) -> Any:
    """The rest of `tree` beside what `unconstrained` gave, None in the place of that."""
    return jax.tree.map(lambda x, moved: x if moved is None else None, tree, free)


def to_real(tree: Any) -> Any:
    """The same tree with all fields that have a constraint moved to the real line.

    What optimisers work on; `from_real` goes back. Other arrays are as they are.

    Args:
        tree: modules, in any pytree; leaves may be None.
    """
    return _mapped(tree, _to_real)


def from_real(tree: Any) -> Any:
    """The inverse of `to_real`."""
    return _mapped(tree, lambda leaf, constraint: _applied(biject_to(constraint), leaf))


def _to_real(leaf: Any, constraint: Any) -> Any:
    return _applied(biject_to(constraint).inv, leaf)


def _applied(transform: Any, leaf: Any) -> Any:
    # Those to vectors and matrices mix single precision with the default, which may be double.
    if transform.domain.event_dim == transform.codomain.event_dim == 0:
        return transform(leaf)
    return transform(jnp.asarray(leaf, float)).astype(leaf.dtype)


def _free(leaf: Any, constraint: Any, path: Any) -> Any:
    if constraint is None:
        return leaf
    real = _to_real(leaf, constraint)
    if isinstance(real, jax.core.Tracer):
        return real
    bad = ~np.isfinite(np.asarray(real))
    if not bad.any():
        return jnp.asarray(real, leaf.dtype)
    name = path_name(path, "params")
    if np.isnan(np.asarray(real)).any():
        raise ValueError(
            f"in params {name} holds NaN, or values that break its constraint, {constraint}"
        )
    if bad.all():
        return None
    raise ValueError(
        f"in params {name} holds zeros beside other values, or others on the boundary of its "
        f"constraint, {constraint}: move them inside, or leave the array out by trainable"
    )


def _mapped(tree: Any, function: Any) -> Any:
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    changed = []
    for path, leaf in leaves:
        constraint = _constraint(tree, path) if eqx.is_inexact_array(leaf) else None
        changed.append(leaf if constraint is None else function(leaf, constraint))
    return jax.tree.unflatten(structure, changed)


def _constraint(tree: Any, path: Any) -> Any:
    """That of the innermost module field on the way to a leaf; None if it has none."""
    fields = list(_fields(tree, path))
    constraint = fields[-1][0].get("constraint") if fields else None
    return None if constraint is constraints.real else constraint


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
