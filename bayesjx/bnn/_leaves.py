"""Which leaves of a network are random."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._core import learnable, path_name, to_real

Where = Any  # a function of the network, a tree of booleans, or None


class Leaves(eqx.Module):
    """Which leaves of a network are random, by their places among its leaves.

    Attributes:
        places: in the order of the leaves, those that are None counted.
        names: of these leaves, such as `layers[0].weight`.
    """

    places: tuple[int, ...] = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def of(self, network: Any) -> tuple[Any, ...]:
        """The random leaves of a network, or what stands in their places in a tree like it."""
        leaves = jax.tree.leaves(network, is_leaf=_is_none)
        return tuple(leaves[place] for place in self.places)

    def put(self, network: Any, values: Any) -> Any:
        """The network with other values in the places of the random leaves."""
        leaves, structure = jax.tree.flatten(network, is_leaf=_is_none)
        for place, value in zip(self.places, values, strict=True):
            leaves[place] = value
        return jax.tree.unflatten(structure, leaves)

    def only(self, network: Any, values: Any) -> Any:
        """A tree like the network with these values in their places and None elsewhere."""
        leaves, structure = jax.tree.flatten(network, is_leaf=_is_none)
        return self.put(jax.tree.unflatten(structure, [None] * len(leaves)), values)


def random_leaves(owner: str, network: Any, where: Where = None) -> Leaves:
    """The leaves of a network that are to be random.

    Args:
        owner: function whose arguments these are.
        network: a callable Equinox module.
        where: which leaves: a function from the network to a leaf, a node of it or a list of them,
            as in `equinox.tree_at`; or a tree of booleans like the network. By default all
            floating-point arrays but what fields declare to be known.

    Raises:
        ValueError: there is no such leaf, or one of complex numbers; `where` is something else.
    """
    chosen = _chosen(network, where, owner)
    paths = jax.tree_util.tree_flatten_with_path(network, is_leaf=_is_none)[0]
    flags = jax.tree.leaves(chosen, is_leaf=_is_none)
    places = [i for i, (flag, (_, leaf)) in enumerate(zip(flags, paths, strict=True)) if flag]
    places = [i for i in places if eqx.is_inexact_array(paths[i][1])]
    if not places:
        raise ValueError(
            f"{owner}: no leaf of the {type(network).__name__} is random: where must choose "
            "floating-point arrays, of which "
            + ("it chose none" if where is not None else "network has none")
        )
    names = tuple(path_name(paths[i][0], "network") for i in places)
    for name, i in zip(names, places, strict=True):
        if jnp.issubdtype(paths[i][1].dtype, jnp.complexfloating):
            raise ValueError(
                f"{owner}: {name} of the network holds complex numbers, which have no prior here; "
                "leave it out by where"
            )
    _refuse_constrained(owner, network, places, names)
    return Leaves(tuple(places), names)


def _chosen(network: Any, where: Where, owner: str) -> Any:
    """A tree of booleans, or what counts as such, like the network."""
    structured = isinstance(where, eqx.Module | dict | list | tuple)
    if where is None or (callable(where) and not structured):
        return learnable(network, where, argument=f"{owner}: where", root="the network")
    try:
        kept = eqx.filter(network, where)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{owner}: where must be a function of the network that returns leaves of it, such as "
            "lambda network: network.layers[-1], or a tree of booleans like the network; got "
            f"{where!r:.80} ({error})"
        ) from error
    return jax.tree.map(lambda x: x is not None, kept, is_leaf=_is_none)


def _refuse_constrained(
    owner: str, network: Any, places: list[int], names: tuple[str, ...]
) -> None:
    leaves = jax.tree.leaves(network, is_leaf=_is_none)
    chosen = Leaves(tuple(places), names)
    tree = chosen.only(network, [leaves[i] for i in places])
    for name, moved, value in zip(names, chosen.of(to_real(tree)), chosen.of(tree), strict=True):
        if moved is not value:
            raise ValueError(
                f"{owner}: {name} of the network has a constraint, and random leaves range over "
                "all real numbers; leave it out by where"
            )


def _is_none(x: Any) -> bool:
    return x is None
