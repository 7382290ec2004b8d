"""Which outputs of a computation depend on which tagged values: one abstract trace, no run time."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name
from jax.extend.core import ClosedJaxpr, Jaxpr, jaxpr_as_fun, Literal

_TAG = "bayesjx.vi:"
_LOOPS = frozenset({"scan", "while", "cond"})


def tag(value: jax.Array, address: str) -> jax.Array:
    """Marks `value` so that `Staged.depends` can tell what is computed from it."""
    return checkpoint_name(value, _TAG + address)


class Staged:
    """A function traced once: evaluate it at will and ask what its outputs depend on.

    Args:
        fn: function of arrays that returns a pytree of arrays.
        example: one array per argument; only shapes and dtypes matter.
    """

    def __init__(self, fn: Callable[..., Any], *example: Any):
        closed, shape = jax.make_jaxpr(fn, return_shape=True)(*example)
        self._jaxpr: ClosedJaxpr = closed
        self._num_inputs = len(jax.tree.leaves(example))
        self.shape = shape

    def __call__(self, *args: Any) -> Any:
        """The function's value at `args`."""
        flat = jaxpr_as_fun(self._jaxpr)(*jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(self.shape), flat)

    def without_gradient(self) -> Staged:
        """The same function, constant in everything that it closes over."""
        consts = [jax.lax.stop_gradient(const) for const in self._jaxpr.consts]
        frozen = copy.copy(self)
        frozen._jaxpr = ClosedJaxpr(self._jaxpr.jaxpr, consts)
        return frozen

    def depends(self) -> Any:
        """A pytree like the output: per array, the set of tagged addresses it depends on.

        The function's own arguments count as the address `"argument"`.
        """
        sources = [frozenset({"argument"})] * self._num_inputs
        sources_of_outputs = _walk(self._jaxpr.jaxpr, sources)
        return jax.tree.unflatten(jax.tree.structure(self.shape), sources_of_outputs)


def _walk(jaxpr: Jaxpr, sources: list[frozenset[str]]) -> list[frozenset[str]]:
    known: dict[Any, frozenset[str]] = dict(zip(jaxpr.invars, sources, strict=True))

    def read(atom: Any) -> frozenset[str]:
        return frozenset() if isinstance(atom, Literal) else known.get(atom, frozenset())

    for eqn in jaxpr.eqns:
        inputs = [read(atom) for atom in eqn.invars]
        inner = _inner_jaxpr(eqn)
        if inner is not None:
            outputs = _walk(inner, inputs)
        else:
            # Loops and unknown primitives: every output depends on every input. That can only
            # keep a term too many, which costs variance and never bias.
            union = frozenset().union(*inputs, *_nested_tags(eqn))
            if eqn.primitive.name == "name" and eqn.params["name"].startswith(_TAG):
                union |= {eqn.params["name"][len(_TAG) :]}
            outputs = [union] * len(eqn.outvars)
        known.update(zip(eqn.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _inner_jaxpr(eqn: Any) -> Jaxpr | None:
    """The body of a call-like equation (jit, remat, custom derivatives), else None."""
    if eqn.primitive.name in _LOOPS:
        return None
    bodies = _bodies(eqn)
    if len(bodies) != 1:
        return None
    body = bodies[0]
    matches = len(body.invars) == len(eqn.invars) and len(body.outvars) == len(eqn.outvars)
    return body if matches else None


def _nested_tags(eqn: Any) -> list[frozenset[str]]:
    return [out for body in _bodies(eqn) for out in _walk(body, [frozenset()] * len(body.invars))]


def _bodies(eqn: Any) -> list[Jaxpr]:
    bodies: list[Jaxpr] = []
    for value in eqn.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, ClosedJaxpr):
                bodies.append(item.jaxpr)
            elif isinstance(item, Jaxpr):
                bodies.append(item)
    return bodies
