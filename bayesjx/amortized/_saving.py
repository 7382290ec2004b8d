"""Networks in files, and those that come with the package."""

from __future__ import annotations

import hashlib
import io
import json
import os
from importlib import resources
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ._bootstrap_process import BANP, BNP
from ._conditional_process import CANP, CNP
from ._conv_process import ConvCNP
from ._heads import make_head
from ._latent_process import ANP, NP
from ._martingale_process import MPANP, MPNP
from ._network import AbstractPFN
from ._neural_process import AbstractNeuralProcess
from ._pfn import PFN
from ._table_network import TablePFN
from ._transformer_process import TNPA, TNPD, TNPND

FORMAT = "bayesjx network 1"
PROCESSES = (CNP, CANP, ConvCNP, NP, ANP, BNP, BANP, MPNP, MPANP, TNPD, TNPA, TNPND)
NETWORKS: dict[str, Any] = {made.__name__: made for made in (PFN, TablePFN, *PROCESSES)}
Network = AbstractPFN | AbstractNeuralProcess


class NetworkError(ValueError):
    """A file that holds no network, another one, or a damaged one."""


def save_network(path: str | os.PathLike, network: Network, about: Any = None) -> None:
    """Writes a network to one file: a line of JSON, then the arrays as Equinox serialises them.

    Args:
        path: of the file.
        network: a `PFN` or `TablePFN`, or a neural process such as a `CANP`.
        about: anything that JSON takes, such as how it was trained.

    Raises:
        ValueError: `network` is none, or `about` is not for JSON.
    """
    kind = type(network).__name__
    if NETWORKS.get(kind) is not type(network):
        raise ValueError(f"save_network: network must be one of {', '.join(NETWORKS)}, got {kind}")
    buffer = io.BytesIO()
    eqx.tree_serialise_leaves(buffer, network)
    payload = buffer.getvalue()
    header = {
        "format": FORMAT,
        "kind": kind,
        "architecture": network.architecture(),
        "dtype": str(network.dtype),
        "sha256": hashlib.sha256(payload).hexdigest(),
        "about": about,
    }
    try:
        line = json.dumps(header).encode()
    except TypeError as error:
        raise ValueError(f"save_network: about must be plain data for JSON: {error}") from error
    path = Path(path)
    part = path.with_name(path.name + ".part")
    part.write_bytes(line + b"\n" + payload)
    part.replace(path)


def load_network(path: str | os.PathLike, like: Network | None = None) -> Any:
    """Reads a network that `save_network` wrote.

    Args:
        path: of the file.
        like: a network whose architecture it must have, or None.

    Raises:
        NetworkError: no such file, other contents, another architecture, or arrays that are not
            those that were written.
    """
    return _parse(_bytes(Path(path)), str(path), like)


def about_network(path: str | os.PathLike) -> dict[str, Any]:
    """What a file says of its network: kind, architecture, checksum, and how it was trained.

    Args:
        path: of the file, or the name of a network of `pretrained`.

    Raises:
        NetworkError: no such file, or other contents.
    """
    if str(path) in pretrained_names():
        return _header(_packaged(str(path)), str(path))[0]
    return _header(_bytes(Path(path)), str(path))[0]


def pretrained(name: str) -> AbstractPFN:
    """A network that comes with the package; nothing is downloaded.

    What each was trained for, and where it fails, stands on the page on amortised posteriors;
    `about_network(name)` gives its training and figures.

    Args:
        name: one of `pretrained_names()`.

    Raises:
        ValueError: no network has that name.
        NetworkError: its file is damaged.
    """
    names = pretrained_names()
    if name not in names:
        raise ValueError(f"pretrained: name must be one of {', '.join(names)}, got {name!r}")
    return _parse(_packaged(name), name, None)


def pretrained_names() -> tuple[str, ...]:
    """Names of the networks that come with the package."""
    files = (resources.files("bayesjx.amortized") / "networks").iterdir()
    names = sorted(Path(file.name) for file in files)
    return tuple(path.stem for path in names if path.suffix == ".network")


def _packaged(name: str) -> bytes:
    return (resources.files("bayesjx.amortized") / "networks" / f"{name}.network").read_bytes()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NetworkError(f"load_network: cannot read {path}: {error.strerror}") from error


def _header(data: bytes, name: str) -> tuple[dict[str, Any], bytes]:
    line, _, payload = data.partition(b"\n")
    try:
        header = json.loads(line)
        known = isinstance(header, dict) and header.get("format") == FORMAT
    except ValueError:
        known = False
    if not known:
        raise NetworkError(f"load_network: {name} is no network that save_network wrote")
    return header, payload


def _parse(data: bytes, name: str, like: Network | None) -> Any:
    header, payload = _header(data, name)
    if header["kind"] not in NETWORKS:
        raise NetworkError(f"load_network: {name} holds a {header['kind']}, which is not known")
    if hashlib.sha256(payload).hexdigest() != header["sha256"]:
        raise NetworkError(
            f"load_network: the arrays of {name} have another checksum than when they were "
            "written; the file is damaged"
        )
    if like is not None and (
        type(like).__name__ != header["kind"] or like.architecture() != header["architecture"]
    ):
        raise NetworkError(
            f"load_network: {name} holds a {header['kind']} of {header['architecture']}, and not "
            f"a {type(like).__name__} of {like.architecture()}"
        )
    options = dict(header["architecture"])
    if "head" in options:
        options["head"] = make_head(options["head"])
    made = NETWORKS[header["kind"]]
    shapes = eqx.filter_eval_shape(lambda: made(**options, key=jax.random.key(0)))
    dtype = jnp.dtype(header["dtype"])
    empty = jax.tree.map(lambda s: _zeros(s, dtype), shapes)
    try:
        return eqx.tree_deserialise_leaves(io.BytesIO(payload), empty)
    except (RuntimeError, ValueError, TypeError, EOFError) as error:
        raise NetworkError(f"load_network: {name} does not fit its header: {error}") from error


def _zeros(leaf: Any, dtype: Any) -> Any:
    if not isinstance(leaf, jax.ShapeDtypeStruct):
        return leaf
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jnp.zeros(leaf.shape, dtype if floating else leaf.dtype)
