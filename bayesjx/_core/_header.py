"""The header of a checkpoint: which fields it has, and of which types."""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def check_header(header: Any) -> None:
    """Check a header against what `write_checkpoint` writes: a checksum vouches for no content.

    Raises:
        ValueError: a field is missing, of another type, or at odds with another; names it.
        TypeError, KeyError: as above, where a field is not even what it can be compared with.
    """
    _check_type("format", header["format"], int)
    _check_count("step", header["step"], 1)
    _check_count("num_steps", header.get("num_steps", header["step"]), header["step"])
    told = header.get("told", 0)
    _check_count("told", told, 0)
    if told > header["step"]:
        raise ValueError(f"told is {told}, later than step {header['step']}")
    _check_type("stopped", header.get("stopped"), str | None)
    _check_texts("versions", header["versions"])
    _check_type("structure", header["structure"], str)
    _check_type("payload_sha256", header["payload_sha256"], str)
    leaves = {part: header[part] for part in ("state", "history")}
    leaves["kept"] = header.get("kept", [])  # there is none in files of format 1
    for part, described in leaves.items():
        _check_type(part, described, list)
        for leaf in described:
            _check_leaf(leaf)
    for leaf in header["history"]:
        if leaf["shape"][:1] != [header["step"]]:
            raise ValueError(f"{leaf['path']} of shape {leaf['shape']} has not one row per step")
    _check_count("thin", header.get("thin", 1), 1)
    for leaf in leaves["kept"]:
        if leaf["shape"][:1] != [header["step"] // header.get("thin", 1)]:
            raise ValueError(f"{leaf['path']} of shape {leaf['shape']} is not of every state kept")
    size = sum(leaf["bytes"] for described in leaves.values() for leaf in described)
    if header["payload_bytes"] != size:
        raise ValueError(f"payload_bytes is {header['payload_bytes']!r}; the leaves have {size}")
    if header.get("fit") is not None:
        _check_identity(header["fit"])


def _check_leaf(leaf: Any) -> None:
    _check_type("path", leaf["path"], str)
    _check_type("dtype", leaf["dtype"], str)
    _check_type("shape", leaf["shape"], list)
    for length in leaf["shape"]:
        _check_count(f"the shape of {leaf['path']}", length, 0)
    expected = math.prod(leaf["shape"]) * _item_bytes(leaf)
    if leaf["bytes"] != expected or isinstance(leaf["bytes"], bool | float):
        raise ValueError(f"{leaf['path']} has {leaf['bytes']!r} bytes instead of {expected}")


def _item_bytes(leaf: Mapping[str, Any]) -> int:
    if "impl" in leaf:
        key = jax.eval_shape(lambda: jax.random.key(0, impl=leaf["impl"]))
        if str(key.dtype) != leaf["dtype"]:
            raise ValueError(f"{leaf['path']} is {leaf['dtype']} with keys of {leaf['impl']}")
        return math.prod(jax.eval_shape(jax.random.key_data, key).shape) * 4
    dtype = np.dtype(jnp.dtype(leaf["dtype"]))
    if dtype.kind != "b" and not jnp.issubdtype(dtype, jnp.number):
        raise ValueError(f"{leaf['path']} has dtype {leaf['dtype']}")
    return dtype.itemsize


def _check_identity(identity: Any) -> None:
    """Fields of `fit` that a resumed fit compares."""
    for name in ("program", "platform"):
        _check_type(f"fit.{name}", identity[name], str)
    _check_pair("fit.key", identity["key"])
    for name in ("algorithm", "initial", "data", "batch"):
        pairs = identity.get(name, []) if name == "algorithm" else identity[name]
        _check_type(f"fit.{name}", pairs, list)
        for pair in pairs:
            _check_pair(f"fit.{name}", pair)
    _check_type("fit.layout", identity.get("layout", ""), str)


def _check_pair(name: str, pair: Any) -> None:
    _check_type(name, pair, list)
    if len(pair) != 2 or not all(isinstance(text, str) and text for text in pair):
        raise ValueError(f"{name} must have pairs of two texts; got {pair!r:.60}")


def _check_texts(name: str, texts: Any) -> None:
    _check_type(name, texts, dict)
    for key, value in texts.items():
        _check_type(f"{name}[{key!r}]", value, str)


def _check_count(name: str, value: Any, least: int) -> None:
    _check_type(name, value, int)
    if value < least:
        raise ValueError(f"{name} must be at least {least}; got {value}")


def _check_type(name: str, value: Any, kind: Any) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise ValueError(f"{name} must not be {type(value).__name__} {value!r:.60}")
