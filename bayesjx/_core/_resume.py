"""Save a running fit now and then, and go on from what was saved."""

import glob
import hashlib
import os
import re
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bayesjx._core._checkpoint import (
    check_leaves,
    check_writable,
    CheckpointError,
    CheckpointWriteError,
    leaf_bytes,
    read_checkpoint,
    versions,
    write_checkpoint,
)
from bayesjx._core._lock import FileLock
from bayesjx._core._loop import Loop
from bayesjx._core._program import is_sharded
from bayesjx._core._tree import is_array, is_key, path_name, shape_text


class Saver:
    """Writes the checkpoints of one fit, and resumes from one of the very same fit.

    The file is locked until `close`, and a file is written beside it before the first step. A
    symbolic link is followed: the file that it names is replaced.

    Args:
        path: of the file; the directory is made where it is missing.
        every: seconds between two checkpoints.
        loop: prepared, at step 0.
        num_steps: steps asked for.
    Raises:
        CheckpointWriteError: nothing can be written there.
        CheckpointError: another fit is writing to the file.
    """

    def __init__(self, path: Any, every: float, loop: Loop, num_steps: int):
        if not isinstance(path, str | os.PathLike):
            raise ValueError(f"checkpoint must be the name of a file; got {type(path).__name__}.")
        self._path, self._every = Path(path), every
        self._target = Path(os.path.realpath(path))  # also where the working directory changes
        self._loop, self._num_steps = loop, num_steps
        check_writable(self._target)
        self._identity = _identity(loop)
        self._saved_at, self._saved = time.monotonic(), None
        self._lock = _locked(self._target)
        for left in glob.glob(f"{glob.escape(str(self._target))}.*.tmp"):
            Path(left).unlink(missing_ok=True)  # by a fit that was killed while it wrote

    def __enter__(self) -> "Saver":
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()

    def resume(self) -> str | None:
        """Restore the loop from the file, if there is one.

        Returns:
            The message of a fit that a callback stopped, if that is how it ended.
        Raises:
            CheckpointError: the file is damaged or belongs to another fit.
        """
        if not self._path.exists():
            return None
        header, leaves = read_checkpoint(self._path)
        self._check(header)
        position, step, count = self._loop.position, header["step"], len(header["state"])
        state = jax.tree.unflatten(jax.tree.structure(position.state), leaves[:count])
        middle = count + len(header["history"])
        self._loop.restore(step, state, leaves[count:middle], leaves[middle:], header["told"])
        stopped = header["stopped"] if header["num_steps"] >= self._num_steps else None
        self._saved = (step, header["told"], stopped)
        return stopped

    def save_if_due(self) -> None:
        """Save unless the last time is recent; a failure is a warning, as the next may succeed."""
        if time.monotonic() - self._saved_at >= self._every:
            self.save_or_warn()

    def save_or_warn(self) -> None:
        """Save, or warn why that failed."""
        try:
            self.save()
        except OSError as error:
            self._saved_at = time.monotonic()
            warnings.warn(
                f"the checkpoint {self._path} could not be written at step {self._loop.step}: "
                f"{error}. The file holds an earlier step, if any.",
                stacklevel=5,
            )

    def finish(self, stopped: str | None, result: Any) -> CheckpointWriteError | None:
        """Save the end of a fit.

        Returns:
            The error, which holds the result, if it could not be saved.
        """
        try:
            self.save(stopped)
        except OSError as error:
            failed = CheckpointWriteError(
                f"the fit ended ({result.message}), but its checkpoint {self._path} could not be "
                f"written: {error}. The result is the attribute `result` of this error.",
                result,
            )
            failed.__cause__ = error
            return failed
        return None

    def save(self, stopped: str | None = None) -> None:
        """Save unless nothing was done yet or the file holds the same already."""
        loop = self._loop
        now = (loop.step, loop.told, stopped)
        if loop.step and now != self._saved:
            header = {
                "step": loop.step,
                "num_steps": self._num_steps,
                "told": loop.told,
                "stopped": stopped,
                "thin": loop.thin,
                "fit": self._identity,
            }
            parts = loop.position.state, loop.history(), loop.kept()
            write_checkpoint(self._target, header, *parts)
            self._saved = now
        self._saved_at = time.monotonic()

    def _check(self, header: dict) -> None:
        path, loop, saved = self._path, self._loop, header.get("fit")
        if saved is None:
            raise CheckpointError(f"{path} was not written by fit.")
        check_leaves(header["state"], loop.position.state, path)
        if saved["key"] != self._identity["key"]:
            raise CheckpointError(f"{path} belongs to a fit with another key.")
        for part, what in (
            ("algorithm", "another algorithm"),
            ("initial", "another initial state"),
            ("data", "other data"),
            ("batch", "other batches"),
        ):
            _check_contents(saved.get(part, []), self._identity[part], what, path)
        self._check_program(header["versions"], saved)
        rows = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((header["step"], *x.shape), x.dtype), loop.program.info
        )
        check_leaves(header["history"], rows, path, root="info")
        if header.get("thin", 1) != loop.thin:
            raise CheckpointError(
                f"{path} belongs to a fit with thin={header.get('thin', 1)}; with thin={loop.thin} "
                "other states would be kept."
            )
        if header["step"] > self._num_steps:
            raise CheckpointError(
                f"{path} holds {header['step']} steps already; num_steps={self._num_steps} is less."
            )

    def _check_program(self, saved_versions: dict, saved: dict) -> None:
        now = versions()
        changed = [
            f"{name} {saved_versions.get(name)} -> {now[name]}"
            for name in now
            if saved_versions.get(name) != now[name]
        ]
        differences = f" Versions changed: {', '.join(changed)}." if changed else ""
        if saved_versions.get("jax") != now["jax"]:
            warnings.warn(
                f"{self._path} was written with jax {saved_versions.get('jax')}, this is "
                f"{now['jax']}: whether it is the same program was not checked, and the last bits "
                "may differ from an uninterrupted fit.",
                stacklevel=5,
            )
        elif saved["program"] != self._identity["program"]:
            raise CheckpointError(
                f"{self._path} belongs to another program: the step function computes something "
                f"else than when it was written.{differences} Options such as a learning rate and "
                "arrays that step closes over are part of the program."
            )
        for part in ("platform", "layout"):
            if saved.get(part) != self._identity[part]:
                warnings.warn(
                    f"{self._path} was written on {saved.get(part)}, this is "
                    f"{self._identity[part]}: the last bits may differ.",
                    stacklevel=5,
                )


def program_fingerprint(closed_jaxpr: Any) -> str:
    """SHA-256 of the text of a jaxpr, without memory addresses, and of its constants."""
    text = re.sub(r"0x[0-9a-fA-F]+", "0x", str(closed_jaxpr))
    digest = hashlib.sha256(text.encode())
    for constant in _constants(closed_jaxpr):
        digest.update(_content(constant).encode())
    return digest.hexdigest()


def _constants(x: Any) -> Iterator[Any]:
    """Arrays inside a jaxpr and the jaxprs in it, in the order of its text."""
    if hasattr(x, "eqns"):
        yield from getattr(x, "consts", ())
        for equation in x.eqns:
            yield from (v.val for v in equation.invars if hasattr(v, "val"))
            for name in sorted(equation.params):
                yield from _constants(equation.params[name])
    elif isinstance(x, tuple | list):
        for item in x:
            yield from _constants(item)


def _locked(path: Path) -> FileLock:
    try:
        return FileLock(path)
    except BlockingIOError:
        raise CheckpointError(
            f"checkpoint {path} is in use: another fit is writing to it. Wait for it, or pass "
            "another file."
        ) from None
    except OSError as error:
        raise CheckpointWriteError(f"checkpoint {path} cannot be locked: {error}.") from error


def _identity(loop: Loop) -> dict:
    """What makes two fits the same, as JSON."""
    device = next(iter(loop.key.devices()))
    key = _typed(loop.key)
    return {
        "key": [str(jax.random.key_impl(key)) if is_key(key) else "raw", _content(key)],
        "algorithm": _contents(loop.arguments.own, "algorithm"),
        "initial": _contents(loop.position.state, "state"),
        "data": _contents(loop.data, "data"),
        "batch": _contents(loop.batches.first, "batches(0)"),
        "program": _fingerprint(loop),
        "platform": f"{device.platform} ({device.device_kind})",
        "layout": _layout(loop),
    }


def _typed(key: Any) -> Any:
    """A raw key as the typed one of the same bits; or itself if the default generator has none."""
    if is_key(key):
        return key
    try:
        return jax.random.wrap_key_data(key)
    except (TypeError, ValueError):
        return key


def _fingerprint(loop: Loop) -> str:
    """Fingerprint of the step, whether its key is raw or typed and wherever its data lie."""
    arguments, program = loop.arguments, loop.program
    moved = any(map(is_sharded, (*arguments.fixed(), *jax.tree.leaves(arguments.state))))
    if not is_key(loop.key) or moved:
        try:
            return program_fingerprint(arguments.trace(_typed(loop.key), shapes=True).jaxpr)
        except Exception:  # a step that takes raw keys or data on a mesh only
            pass
    if program.fingerprint is None:
        jaxpr = arguments.trace().jaxpr if program.jaxpr is None else program.jaxpr
        program.fingerprint = program_fingerprint(jaxpr)
    return program.fingerprint


def _layout(loop: Loop) -> str:
    """Devices and shardings of the arrays, as text."""
    sharded = [
        f"{path_name(path, root)} by {getattr(x.sharding, 'spec', x.sharding)}"
        for tree, root in ((loop.position.state, "state"), (loop.data, "data"))
        for path, x in jax.tree_util.tree_leaves_with_path(tree)
        if is_sharded(x) and not x.sharding.is_fully_replicated
    ]
    count = len(loop.key.devices())
    return f"{count} devices ({', '.join(sharded)})" if count > 1 else "one device"


def _contents(tree: Any, root: str) -> list[list[str]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [[path_name(path, root), _content(x)] for path, x in leaves]


def _content(x: Any) -> str:
    x = x if is_array(x) else np.asarray(x)
    if x.dtype == object:
        return "object"
    return f"{shape_text(x)} {hashlib.sha256(leaf_bytes(x)).hexdigest()}"


def _check_contents(saved: list, now: list, what: str, path: Path) -> None:
    if [name for name, _ in saved] != [name for name, _ in now]:
        raise CheckpointError(f"{path} belongs to a fit with {what}: other names of leaves.")
    for (name, old), (_, new) in zip(saved, now, strict=True):
        if old == new:
            continue
        old_shape, new_shape = old.split()[0], new.split()[0]
        how = f"was {old_shape}, is {new_shape}" if old_shape != new_shape else "other values"
        raise CheckpointError(f"{path} belongs to a fit with {what}: {name} ({how}).")
