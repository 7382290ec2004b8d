"""The checkpoint file: arrays with a header that says what they are.

Layout: the line `bayesjx checkpoint`, the length of the header (8 bytes, little-endian), the
SHA-256 of the header (32 bytes), the header (JSON, UTF-8), then the leaves of the state, of the
recorded history and of what was kept of states, in the order of the header, each as its bytes in C
order, little-endian.
"""

import hashlib
import json
import os
import sys
import uuid
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesjx._core._header import check_header
from bayesjx._core._tree import is_key, path_name, shape_text

FORMAT = 2
_MAGIC = b"bayesjx checkpoint\n"


class CheckpointError(ValueError):
    """A checkpoint cannot be used; the message says why."""


class CheckpointWriteError(CheckpointError, OSError):
    """A checkpoint cannot be written; the message says why.

    Attributes:
        result: the `FitResult` of the fit whose last checkpoint it is; None where no step was made.
    """

    result: Any

    def __init__(self, message: str, result: Any = None):
        super().__init__(message)
        self.result = result


def describe_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Header of a checkpoint: steps, versions, names, shapes and dtypes of its arrays.

    The arrays themselves are neither read nor verified.

    Raises:
        CheckpointError: `path` is not a checkpoint, or its header is damaged or of a newer format.
    """
    with open(path, "rb") as file:
        return _read_header(file, path)


def load_checkpoint(path: str | os.PathLike, like: Any) -> tuple[Any, dict[str, np.ndarray], int]:
    """Load the state and the history of a fit.

    Args:
        path: file that `fit(..., checkpoint=path)` wrote.
        like: pytree with the structure, shapes and dtypes of the state: an initial state, or
            `jax.eval_shape(algorithm.init, ...)`.
    Returns:
        The state; the recorded `Info` as a dictionary from the name of a field to an array with a
        leading axis over steps; the number of steps.
    Raises:
        CheckpointError: the file is not a checkpoint, truncated, corrupted, of a newer format, or
            holds a state of another structure, shape or dtype; names the first leaf that differs.
        FileNotFoundError: there is no such file.
    """
    header, leaves = read_checkpoint(path)
    check_leaves(header["state"], like, path)
    count = len(header["state"])
    state = jax.tree.unflatten(jax.tree.structure(like), leaves[:count])
    names = [leaf["path"] for leaf in header["history"]]
    history = dict(zip(names, leaves[count : count + len(names)], strict=True))
    return jax.tree.map(jnp.asarray, state), history, header["step"]


def write_checkpoint(path: Path, header: dict, state: Any, history: Any, kept: Any) -> None:
    """Write a checkpoint so that at any moment `path` holds the old or the new one, whole."""
    state_leaves, state_blobs = _pack(state, "state")
    history_leaves, history_blobs = _pack(history, "info")
    kept_leaves, kept_blobs = _pack(kept, "kept")
    blobs = [*state_blobs, *history_blobs, *kept_blobs]
    digest = hashlib.sha256()
    for blob in blobs:
        digest.update(blob)
    text = json.dumps(
        {
            "format": FORMAT,
            **header,
            "versions": versions(),
            "structure": str(jax.tree.structure(state)),
            "state": state_leaves,
            "history": history_leaves,
            "kept": kept_leaves,
            "payload_bytes": sum(blob.nbytes for blob in blobs),
            "payload_sha256": digest.hexdigest(),
        }
    ).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(path)
    try:
        with open(temporary, "xb") as file:
            file.write(_MAGIC + len(text).to_bytes(8, "little"))
            file.write(hashlib.sha256(text).digest() + text)
            for blob in blobs:
                file.write(blob)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(path.parent)


def temporary_name(path: Path) -> Path:
    """A name beside `path` that no other writer has."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex}.tmp")


def check_writable(path: Path) -> None:
    """Write a file beside `path`, as `write_checkpoint` does, and remove it again.

    Raises:
        CheckpointWriteError: `path` is a folder, or nothing can be written there.
    """
    if os.path.isdir(path):
        raise CheckpointWriteError(f"checkpoint {path} is a folder; pass the name of a file.")
    temporary = temporary_name(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "xb") as file:
            file.write(_MAGIC)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise CheckpointWriteError(f"checkpoint {path} cannot be written: {error}.") from error
    finally:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:
            pass  # a parent that is no folder, or one that is read-only: said above


def read_checkpoint(path: str | os.PathLike) -> tuple[dict, list]:
    """Header and all leaves, the state's first; typed keys as such, all else as NumPy arrays.

    Raises:
        CheckpointError: see `load_checkpoint`.
    """
    with open(path, "rb") as file:
        header = _read_header(file, path)
        payload = file.read()
    expected = header["payload_bytes"]
    if len(payload) != expected:
        state = "truncated" if len(payload) < expected else "corrupted"
        raise CheckpointError(
            f"{path} is {state}: {len(payload)} bytes of arrays instead of {expected}."
        )
    if hashlib.sha256(payload).hexdigest() != header["payload_sha256"]:
        raise CheckpointError(f"{path} is corrupted: the checksum of its arrays does not match.")
    described = [*header["state"], *header["history"], *header.get("kept", [])]
    return header, _unpack(described, payload)


def check_leaves(saved: list[dict], like: Any, path: Any, root: str = "state") -> None:
    """Compare the leaves that a header lists with those of a tree.

    Raises:
        CheckpointError: they differ; names the first difference.
    """
    leaves = jax.tree_util.tree_leaves_with_path(like)
    names = [path_name(key_path, root) for key_path, _ in leaves]
    saved_names = [leaf["path"] for leaf in saved]
    if names != saved_names:
        extra = [name for name in saved_names if name not in names]
        missing = [name for name in names if name not in saved_names]
        first = f"it has {extra[0]}" if extra else f"it lacks {(missing or names)[0]}"
        raise CheckpointError(f"{path} holds a {root} of another structure: {first}.")
    for leaf, name, (_, x) in zip(saved, names, leaves, strict=True):
        text = f"{leaf['dtype']}[{','.join(map(str, leaf['shape']))}]"
        if text != shape_text(x):
            raise CheckpointError(f"{path} holds {name} as {text}; expected {shape_text(x)}.")


def versions() -> dict[str, str]:
    """Versions of the packages that decide what a program computes."""
    versions = {"python": ".".join(map(str, sys.version_info[:3])), "jax": jax.__version__}
    for name in ("bayesjx", "equinox", "numpyro", "optax"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "unknown"
    return versions


def leaf_bytes(x: Any) -> memoryview:
    """The content of an array in C order."""
    x = np.asarray(jax.random.key_data(x) if is_key(x) else x)
    return np.ascontiguousarray(x).reshape(-1).view(np.uint8).data


def _read_header(file, path) -> dict:
    prefix = file.read(len(_MAGIC))
    if prefix != _MAGIC:
        if _MAGIC.startswith(prefix):
            raise CheckpointError(f"{path} is truncated: it has {len(prefix)} bytes.")
        raise CheckpointError(f"{path} is not a checkpoint of bayesjx.")
    size, digest = file.read(8), file.read(32)
    length = int.from_bytes(size, "little")
    remaining = os.fstat(file.fileno()).st_size - file.tell()
    if len(digest) < 32 or remaining < length:
        raise CheckpointError(f"{path} is truncated within its header.")
    text = file.read(length)
    if hashlib.sha256(text).digest() != digest:
        raise CheckpointError(f"{path} is corrupted: the checksum of its header does not match.")
    try:
        header = json.loads(text)
        written_as, by = header["format"], header["versions"].get("bayesjx")
        if isinstance(written_as, int) and written_as > FORMAT:
            raise CheckpointError(
                f"{path} has format {written_as}, written by bayesjx {by}; "
                f"this version reads up to {FORMAT}."
            )
        check_header(header)
    except CheckpointError:
        raise
    except Exception as error:  # whatever else is in the file, it is no header
        detail = f"{type(error).__name__}: {error}"
        raise CheckpointError(f"{path} has a header that is not valid: {detail:.200}") from error
    return header


def _pack(tree: Any, root: str) -> tuple[list[dict], list[memoryview]]:
    described, blobs = [], []
    for path, x in jax.tree_util.tree_leaves_with_path(tree):
        leaf = {"path": path_name(path, root), "dtype": str(x.dtype), "shape": list(x.shape)}
        if is_key(x):
            leaf["impl"] = str(jax.random.key_impl(x))
        blob = leaf_bytes(x)
        described.append({**leaf, "bytes": blob.nbytes})
        blobs.append(blob)
    return described, blobs


def _unpack(described: list[dict], payload: bytes) -> list:
    leaves, start = [], 0
    for leaf in described:
        raw = np.frombuffer(payload, np.uint8, leaf["bytes"], start).copy()
        start += leaf["bytes"]
        shape = tuple(leaf["shape"])
        if "impl" in leaf:
            data = raw.view(np.uint32).reshape(*shape, -1)
            leaves.append(jax.random.wrap_key_data(jnp.asarray(data), impl=leaf["impl"]))
        else:
            leaves.append(raw.view(jnp.dtype(leaf["dtype"])).reshape(shape))
    return leaves


def _sync_directory(folder: Path) -> None:
    """Make the new name itself survive a power cut, where the system can."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
