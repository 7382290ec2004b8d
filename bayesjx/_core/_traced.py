"""Functions of users as what tracing makes of them, so that equal ones share compiled programs."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.core
import numpy as np
import numpyro
from jax.extend import core

from ._identity import ByValue, Identity, WeakCache

MOST = 256  # functions that are remembered
FIXED = (
    0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    np.inf,
    -np.inf,
)  # numbers of formulas, left where they are
_ROOTS = tuple(str(Path(module).parent) for module in (jax.__file__, numpyro.__file__, __file__))
_ROOTS = (*_ROOTS[:2], str(Path(_ROOTS[2]).parent))


class TracedFunction(eqx.Module):
    """A function of arrays of given shapes, with all that it closes over as arrays of its own.

    Two functions that do the same, as one that is defined anew in each turn of a loop, are equal
    but for these arrays, so that what is compiled for one serves the other. Derivatives reach what
    was closed over.

    Attributes:
        constants: what it closes over.
        jaxpr: what it does.
        structure: of its result.
        identity: None where `jaxpr` tells it from others, so that equal ones share programs; else
            what does, for `compiled_for`.
    """

    constants: list[Any]
    jaxpr: Any = eqx.field(static=True)
    structure: Any = eqx.field(static=True)
    identity: Identity | None = eqx.field(static=True, default=None)

    def __call__(self, *args: Any) -> Any:
        flat = jax.tree.leaves(args)
        outputs = jax.core.eval_jaxpr(self.jaxpr, self.constants, *flat)
        return jax.tree.unflatten(self.structure, outputs)


def traced(function: Callable[..., Any], *args: Any, source: Any = None) -> TracedFunction:
    """The function for arguments like these, traced once more at each call.

    So that it is seen if a variable that it refers to has changed. It must be a pure function.

    Args:
        function: of arrays or pytrees of them.
        args: arrays, or their shapes and types.
        source: what the function was made of. Functions of one source may also hold
            checks and derivatives of their own, of which it cannot be told whether they are equal,
            and are so if all else is.
    """
    closed, shape = jax.make_jaxpr(function, return_shape=True)(*args)
    jaxpr, numbers = _with_numbers_outside(closed.jaxpr)
    constants = [*numbers, *closed.consts]
    same, identity = _first_equal(jaxpr, source)
    return TracedFunction(constants, same, jax.tree.structure(shape), identity)


def _with_numbers_outside(jaxpr: Any) -> tuple[Any, list[Any]]:
    """The same with numbers as constants, since a Python number may be another one next time."""
    new, values, eqns = [], [], []
    for eqn in jaxpr.eqns:
        places = []
        for place in eqn.invars:
            if isinstance(place, core.Literal) and _may_change(place):
                values.append(np.asarray(place.val, place.aval.dtype))
                new.append(core.Var(place.aval))
                place = new[-1]
            places.append(place)
        eqns.append(eqn.replace(invars=places))
    return jaxpr.replace(constvars=[*new, *jaxpr.constvars], eqns=eqns), values


def _may_change(literal: Any) -> bool:
    return np.issubdtype(literal.aval.dtype, np.floating) and literal.val not in FIXED


_JAXPRS: collections.OrderedDict[Any, Any] = collections.OrderedDict()
_OF_SOURCES = WeakCache(MOST)


def _first_equal(jaxpr: Any, source: Any) -> tuple[Any, Identity | None]:
    """The first of those that do the same, and what else tells it from others."""
    try:
        key = _key(jaxpr)
    except _Unknown:
        return _first_of_source(jaxpr, source)
    known = _JAXPRS.setdefault(key, jaxpr)
    _JAXPRS.move_to_end(key)
    if len(_JAXPRS) > MOST:
        _JAXPRS.popitem(last=False)
    return known, None


def _first_of_source(jaxpr: Any, source: Any) -> tuple[Any, Identity]:
    """The same for one that has checks or rules of its own; without a source it is the first."""
    try:
        names = ByValue(_key(jaxpr, True))
        hash(names)
    except (_Unknown, TypeError):
        source = None
    if source is None:
        return jaxpr, Identity(jaxpr)
    identity = Identity(source, names)
    known = _OF_SOURCES.get(identity)
    if known is None:
        known = jaxpr
        _OF_SOURCES.put(identity, jaxpr)
    return known, identity


class _Unknown(Exception):
    """It cannot be told whether two functions do the same."""


def _key(jaxpr: Any, by_name: bool = False) -> tuple[Any, ...]:
    """Equal for jaxprs that do the same: operations and their options, with numbered variables.

    Args:
        jaxpr: what is to be told from others.
        by_name: whether functions within it, as rules and callbacks, are known by their names.
    """
    numbers: dict[Any, int] = {}

    def named(var: Any) -> Any:
        if isinstance(var, core.Literal):
            return "literal", _of_value(var.val, by_name), var.aval
        return numbers.setdefault(var, len(numbers)), var.aval

    first = tuple(map(named, (*jaxpr.constvars, *jaxpr.invars)))
    lines = []
    for eqn in jaxpr.eqns:
        options = (_of_rule if "jvp_jaxpr_fun" in eqn.params else _of_params)(eqn, by_name)
        places = tuple(map(named, eqn.invars)), tuple(map(named, eqn.outvars))
        lines.append((eqn.primitive, options, *places))
    return len(jaxpr.constvars), first, tuple(lines), tuple(map(named, jaxpr.outvars))


def _of_params(eqn: Any, by_name: bool) -> Any:
    return _of_value(eqn.params, by_name)


def _of_rule(eqn: Any, by_name: bool) -> tuple[Any, ...]:
    """Options of a function with its own derivative, which only packages that are known share."""
    params = dict(eqn.params)
    rule = params.pop("jvp_jaxpr_fun")
    sources = (params["call_jaxpr"].jaxpr.debug_info, rule.debug_info)
    names = tuple(str(source.func_src_info) for source in sources)
    if not by_name and not all(any(root in name for root in _ROOTS) for name in names):
        raise _Unknown
    return names, _of_value(params, by_name)


def _of_value(value: Any, by_name: bool) -> Any:
    inner = functools.partial(_of_value, by_name=by_name)
    if isinstance(value, core.ClosedJaxpr):
        return _key(value.jaxpr, by_name), tuple(map(inner, value.consts))
    if isinstance(value, core.Jaxpr):
        return _key(value, by_name)
    if isinstance(value, dict):
        return tuple((name, inner(value[name])) for name in sorted(value))
    if isinstance(value, tuple | list):
        return tuple(map(inner, value))
    if isinstance(value, jax.core.Tracer):
        raise _Unknown
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        return str(array.dtype), array.shape, array.tobytes()
    if by_name and callable(value):
        return type(value), getattr(value, "__qualname__", None)
    if isinstance(value, float):  # 0.0 and -0.0 are equal, and NaN is not
        return "float", value.hex()
    try:
        hash(value)
    except TypeError:
        raise _Unknown from None
    return type(value), value
