"""What compiled programs are known by, without keeping alive what they were made of."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import inspect
import os
import types
import weakref
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jaxtyping
import numpy as np
import numpyro
import optax
from jax.tree_util import default_registry

# Functions of these packages do what their code and closures say: no user redefines their globals.
_LIBRARIES = tuple(
    f"{folder}{os.sep}"
    for folder in (
        *(Path(module.__file__).parent for module in (jax, numpyro, optax, eqx)),
        Path(__file__).parents[1],
    )
)
_CHECKS = f"{Path(jaxtyping.__file__).parent}{os.sep}"  # which wrap functions, under test
_VALUES = (type(None), bool, int, complex, str, bytes, np.dtype, type(Ellipsis), types.CodeType)


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """Shape, type and sharding of an array that a program takes as an argument."""

    shape: tuple[int, ...]
    dtype: Any
    weak: bool
    sharding: Any

    @staticmethod
    def of(array: Any) -> ArraySpec:
        """That of an array of JAX or NumPy."""
        weak, sharding = (getattr(array, name, None) for name in ("weak_type", "sharding"))
        return ArraySpec(array.shape, array.dtype, bool(weak), sharding)


@dataclasses.dataclass(frozen=True)
class ByValue:
    """Something hashable that is told from others by its own equality."""

    value: Any


class Identity:
    """A hashable stand-in for values, equal to another where these are the same.

    Numbers, texts and NumPy arrays are compared by their content; pytrees, tuples, partial
    functions and functions of the libraries, such as what `optax.adam(0.1)` returns, part by part;
    all else, functions of users and arrays of JAX among it, by which object it is. Such objects are
    not kept alive, and an identity of one that is gone is equal to no other.

    Args:
        values: to be told from others.
    """

    __slots__ = ("__weakref__", "_hash", "_value", "_watches", "objects")

    def __init__(self, *values: Any):
        self.objects: list[_Same] = []
        self._value = _described(values, self.objects, {})
        self._hash = hash(self._value)
        self._watches: list[Any] = []

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Identity) and self._value == other._value)

    def watch(self, forget: Any) -> None:
        """Call `forget(self)` once an object that it stands for is gone."""
        own = weakref.ref(self)

        def gone(_: Any) -> None:
            identity = own()
            if identity is not None:
                forget(identity)

        values = (same.ref() for same in self.objects)
        self._watches = [weakref.ref(value, gone) for value in values if value is not None]


_CACHES: list[WeakCache] = []


def forget_programs() -> None:
    """Empties the caches of compiled programs that `jax.clear_caches` does not know of."""
    for cache in _CACHES:
        cache.clear()


class WeakCache:
    """Values by `Identity`: a bounded number, each dropped when an object of its key is gone.

    Args:
        most: how many are kept; of more, those that were used longest ago go.
    """

    def __init__(self, most: int):
        _CACHES.append(self)
        self._most = most
        self._entries: collections.OrderedDict[Identity, Any] = collections.OrderedDict()

    def get(self, key: Identity) -> Any:
        """The value of a key, or None."""
        value = self._entries.get(key)
        if value is not None:
            self._entries.move_to_end(key)
        return value

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()

    def put(self, key: Identity, value: Any) -> None:
        """Keep a value; it must not refer to the objects of its key."""
        self._entries[key] = value
        key.watch(lambda identity: self._entries.pop(identity, None))
        while len(self._entries) > self._most:
            self._entries.popitem(last=False)


_BY_VALUE = ArraySpec | ByValue | jax.sharding.Sharding | jax.tree_util.PyTreeDef


class _Same:
    """Which object a value is, held weakly."""

    __slots__ = ("_number", "ref")

    def __init__(self, value: Any):
        self._number, self.ref = id(value), weakref.ref(value)

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, _Same) or self._number != other._number:
            return False
        value = self.ref()
        return value is not None and value is other.ref()


def _described(value: Any, objects: list[_Same], seen: dict[int, int]) -> Any:
    if type(value) in _VALUES or isinstance(value, np.dtype | _BY_VALUE):
        return type(value), value
    if isinstance(value, Identity):
        objects += value.objects
        return value
    if isinstance(value, float):  # 0.0 and -0.0 are equal, and NaN is not
        return type(value), value.hex()
    if isinstance(value, np.ndarray | np.generic) and value.dtype != object:
        content = np.ascontiguousarray(value).tobytes()
        return "array", value.dtype, value.shape, hashlib.sha256(content).digest()
    if id(value) in seen:  # within itself
        return "again", seen[id(value)]
    seen = {**seen, id(value): len(seen)}
    parts = _parts(value)
    if parts is None:
        return _same(value, objects)
    return _same(type(value), objects), tuple(_described(x, objects, seen) for x in parts)


def _parts(value: Any) -> tuple[Any, ...] | None:
    """What a value is made of; None where that does not say what it does."""
    if isinstance(value, functools.partial):
        return value.func, value.args, tuple(sorted(value.keywords.items()))
    if isinstance(value, types.MethodType):
        return value.__func__, value.__self__
    if isinstance(value, types.FunctionType):
        return _parts_of_function(value)
    if isinstance(value, dict):
        return tuple(value.items())
    node = default_registry.flatten_one_level(value)
    return None if node is None else (*node[0], node[1])


def _parts_of_function(function: types.FunctionType) -> tuple[Any, ...] | None:
    if function.__code__.co_filename.startswith(_CHECKS):
        function = inspect.unwrap(function)
    code = function.__code__
    if not code.co_filename.startswith(_LIBRARIES):
        return None
    try:
        cells = tuple(cell.cell_contents for cell in function.__closure__ or ())
    except ValueError:  # a variable that has no value yet
        return None
    return code.co_filename, code, function.__defaults__, function.__kwdefaults__, cells


def _same(value: Any, objects: list[_Same]) -> Any:
    try:
        same = _Same(value)
    except TypeError:  # it cannot be told from others: equal to nothing
        return object()
    objects.append(same)
    return same
