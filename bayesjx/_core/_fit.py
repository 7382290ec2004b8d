"""The loop that drives every algorithm."""

import contextlib
import os
import warnings
from collections.abc import Callable
from typing import Any, Literal, SupportsFloat

import jax
import numpy as np

from bayesjx._core._algorithm import Algorithm
from bayesjx._core._batches import Batches
from bayesjx._core._callbacks import CallbackInfo
from bayesjx._core._checks import check_flag
from bayesjx._core._loop import Loop
from bayesjx._core._progress import ProgressBar
from bayesjx._core._result import FitResult, NonFiniteError
from bayesjx._core._resume import Saver
from bayesjx._core._tree import as_arrays, check_key, path_name

_BAR_SECONDS = 1.0  # between two movements of the progress bar, about
_MOST_STEPS = 2**31 - 1  # steps are counted in int32 on the device


def fit(
    key: Any,
    algorithm: Algorithm,
    state: Any,
    num_steps: int,
    *,
    data: tuple = (),
    batches: Callable[[int], tuple] | None = None,
    progress: bool = False,
    callback: Callable[[CallbackInfo], bool | str | None] | None = None,
    chunk_size: int | None = None,
    batch_size: int | None = None,
    keep: Callable[[Any], Any] | None = None,
    thin: int = 1,
    checkpoint: str | os.PathLike | None = None,
    checkpoint_every: float = 60.0,
    check_finite: Literal["state", "objective", "none"] = "state",
    throw: bool = True,
) -> FitResult:
    """Run `algorithm.step` for `num_steps` steps, many of them per dispatch.

    Step `i` (from 0) gets the key `jax.random.fold_in(key, i)` and the arguments
    `step(key, state, *data, *batches(i))`, so the outcome does not depend on how the steps are
    cut into chunks. One program with a dynamic number of steps is compiled per call, and
    reused by later calls with the same `step` function and shapes.

    Args:
        key: one PRNG key, typed or raw.
        algorithm: its `init` is not called.
        state: pytree of arrays, from `algorithm.init`. It is left untouched.
        num_steps: how many steps, at least 1.
        data: pytrees of arrays that every step gets. They are arguments of the compiled
            program, not constants in it, so other data of the same shapes do not recompile it.
        batches: `batches(step) -> tuple` of (pytrees of) NumPy arrays that this step gets
            besides, of the same shapes for all steps; a pure function of the step number. The
            batches of a dispatch are moved to the device together.
        progress: show a bar with the mean objective of the last tenth of the steps and the time
            left. It moves between dispatches and costs nothing within them.
        callback: called after every chunk; a true value or a text ends the fit, the text
            goes into the message. See `stop_when_flat`.
        chunk_size: steps from one callback to the next, and most steps in one dispatch. By
            default a 20th of `num_steps`, or less where the batches of a chunk exceed 64 MiB.
        batch_size: each step gets this many random rows of the arrays in `data`, drawn on the
            device with replacement, the same of all arrays, in place of all rows.
        keep: from a state to a pytree of arrays, such as `lambda state: state.position` of a
            sampler, which is kept of every `thin`-th state; see `FitResult.kept`.
        thin: of how many states the last one is kept.
        checkpoint: file for the state and the records. It is replaced atomically every
            `checkpoint_every` seconds, at the end, and when an exception or Ctrl-C ends the fit.
            If it exists, the fit goes on from it and ends with the same bits as if it had never
            been interrupted; a finished fit returns at once, a larger `num_steps` continues it.
            Pass the arguments of the first call, the initial state included: they are compared.
            A file is written beside it before the first step, so that a folder that cannot be
            written to is known at once. The file is locked (`file.lock` beside it) while the fit
            runs.
        checkpoint_every: seconds between two checkpoints.
        check_finite: what ends the fit when it is infinite or not a number: the objective and
            every leaf of the state that is finite at the start, the objective only, or nothing.
            Looked at once per dispatch; the step is then found by repeating the dispatch.
        throw: whether such an end is an exception, or a result with `ok=False`; and whether a last
            checkpoint that cannot be written is one, or a warning.
    Returns:
        State, recorded `Info` and timings.
    Raises:
        NonFiniteError: a step made something non-finite; `error.result` has the last good state,
            the message names the step, the leaf and what `algorithm.diagnose` says.
        ValueError: bad options; a state leaf that is not an array; a step that changes the
            shapes or dtypes of its state; an `objective` that is not a scalar; empty data;
            batches of different shapes. The leaf or step is named.
        CheckpointError: the file is truncated, corrupted, of a newer format, or of a fit with
            another key, initial state, data, first batch or program (what `step` computes, as a
            jaxpr with its constants), or another fit is writing to it. A `ValueError` too. Another
            version of JAX, another device or another layout of the data only warns that the last
            bits may differ; a raw key and the typed one of the same bits are the same.
        CheckpointWriteError: nothing can be written there, found before the first step; or the last
            checkpoint could not be written, and `error.result` has the result. An `OSError` too. A
            checkpoint in between that cannot be written only warns.
    """
    _check_options(num_steps, chunk_size, data, check_finite, checkpoint_every)
    _check_functions(algorithm, batches, callback, keep)
    check_flag("throw", throw)
    check_key(key)
    data, state = as_arrays(data, "data"), as_arrays(state, "state")
    _check_not_empty(data)
    _check_kept(keep, thin, num_steps)
    _check_rows(data, batch_size)
    loop = Loop(key, algorithm, state, data, Batches(batches), check_finite, keep, thin, batch_size)
    chunk_size = chunk_size or min(-(-num_steps // 20), loop.batches.default_limit())
    loop.prepare(_capacity(chunk_size, batches), num_steps)
    saver = None
    if checkpoint is not None:
        saver = Saver(checkpoint, checkpoint_every, loop, num_steps)
    with saver or contextlib.nullcontext():
        stopped = saver.resume() if saver else None
        resumed_from = loop.step
        if stopped is None:
            if loop.step < num_steps:
                loop.compile()  # before the bar, whose rate and time left are those of the steps
            pace = _Pace(progress, checkpoint_every if saver else np.inf)
            bar = ProgressBar(progress, num_steps, loop.step)
            stopped = _run(loop, num_steps, chunk_size, callback, pace, bar, saver)
        result = FitResult(
            state=loop.position.state,
            info=loop.history(),
            num_steps=loop.step,
            ok=loop.failure is None,
            message=loop.failure or stopped or f"completed {loop.step} steps",
            seconds=loop.seconds,
            compile_seconds=loop.compile_seconds,
            resumed_from=resumed_from,
            kept=loop.kept(),
        )
        unsaved = saver.finish(stopped, result) if saver else None
    if throw and not result.ok:
        raise NonFiniteError(result) from unsaved
    if throw and unsaved:
        raise unsaved
    if unsaved:
        warnings.warn(str(unsaved), stacklevel=2)
    return result


def _run(loop, num_steps, chunk_size, callback, pace, bar, saver) -> str | None:
    """Dispatch until the end, a stop or a failure; returns the message of a stop."""
    try:
        while loop.failure is None:
            stopped = _tell(loop, num_steps, chunk_size, callback)
            if stopped or loop.step == num_steps:
                return stopped
            if saver:
                saver.save_if_due()
            start = loop.step
            end = min(start - start % chunk_size + chunk_size, num_steps)
            loop.compile()
            seconds = loop.advance(min(end - start, pace.limit))
            pace.measure(loop.step - start, seconds)
            bar.update(loop.step - start, loop.history())
        return None
    except BaseException:  # also when the callback, the step or the user interrupts
        if saver:
            saver.save_or_warn()
        raise
    finally:
        bar.close()


def _tell(loop: Loop, num_steps: int, chunk_size: int, callback) -> str | None:
    """Call the callback if a chunk has just ended; returns a message if it stops the fit."""
    step = loop.step
    if callback is None or step == loop.told or (step % chunk_size and step < num_steps):
        return None
    history = loop.history((step - 1) // chunk_size * chunk_size), loop.history()
    stop = callback(CallbackInfo(step, num_steps, loop.position.state, *history, loop.seconds))
    loop.told = step
    if not stop:
        return None
    reason = stop if isinstance(stop, str) else "the callback asked for it"
    return f"stopped after {step} steps: {reason}"


class _Pace:
    """How many steps a dispatch may have, so that the bar moves and checkpoints come in time.

    Attributes:
        limit: number of steps for the next dispatch, at least 1.
    """

    limit: int

    def __init__(self, progress: bool, checkpoint_every: float):
        self._seconds = max(min(_BAR_SECONDS if progress else np.inf, checkpoint_every), 0.1)
        self.limit = 1 if self._seconds < np.inf else _MOST_STEPS

    def measure(self, count: int, seconds: float) -> None:
        """Learn from a dispatch of `count` steps."""
        if self._seconds < np.inf and count:
            self.limit = int(np.clip(self._seconds * count / max(seconds, 1e-9), 1, _MOST_STEPS))


def _capacity(chunk_size: int, batches) -> int:
    """Length of the record buffers: rounded up, so that nearby lengths share a program."""
    return chunk_size if batches is not None else 1 << (chunk_size - 1).bit_length()


def _check_options(num_steps, chunk_size, data, check_finite, checkpoint_every) -> None:
    _check_positive("num_steps", num_steps)
    if chunk_size is not None:
        _check_positive("chunk_size", chunk_size)
    if not isinstance(data, tuple) or hasattr(data, "_fields"):
        raise ValueError(
            "data must be a tuple, one entry per argument of step after the state; "
            f"got {type(data).__name__}. For one argument write data=(x,)."
        )
    if not (isinstance(checkpoint_every, SupportsFloat) and float(checkpoint_every) >= 0):
        raise ValueError(f"checkpoint_every must be at least 0 seconds; got {checkpoint_every!r}.")
    if check_finite not in ("state", "objective", "none"):
        raise ValueError(
            f"check_finite must be 'state', 'objective' or 'none'; got {check_finite!r}."
        )


def _check_positive(name, value) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise ValueError(f"{name} must be an int; got {type(value).__name__} {value!r:.40}.")
    if not 1 <= value <= _MOST_STEPS:
        raise ValueError(f"{name} must be from 1 to {_MOST_STEPS}; got {value}.")


def _check_functions(algorithm, batches, callback, keep) -> None:
    if not isinstance(algorithm, Algorithm):
        raise ValueError(
            f"algorithm must be an Algorithm(init, step); got {type(algorithm).__name__}."
        )
    what = {"batches": "a function of the step number", "keep": "a function of the state"}
    for name, value in (("batches", batches), ("callback", callback), ("keep", keep)):
        if value is not None and not callable(value):
            wanted = what.get(name, "callable")
            raise ValueError(f"{name} must be {wanted}; got {type(value).__name__}.")


def _check_kept(keep, thin, num_steps) -> None:
    _check_positive("thin", thin)
    if thin > 1 and keep is None:
        raise ValueError(f"thin={thin} says which states are kept; pass keep, what of them.")
    if thin > num_steps:
        raise ValueError(f"thin={thin} keeps no state of num_steps={num_steps}.")


def _check_rows(data, batch_size) -> None:
    if batch_size is None:
        return
    _check_positive("batch_size", batch_size)
    shapes = {path_name(p, "data"): x.shape for p, x in jax.tree_util.tree_leaves_with_path(data)}
    if not shapes or any(not shape for shape in shapes.values()):
        raise ValueError(f"batch_size draws rows of data, which must be arrays; got {shapes}.")
    if len({shape[0] for shape in shapes.values()}) > 1:
        raise ValueError(f"batch_size draws rows of data, which differ in number: {shapes}.")


def _check_not_empty(data: tuple) -> None:
    for path, x in jax.tree_util.tree_leaves_with_path(data):
        if x.ndim and x.shape[0] == 0:  # no rows; rows without columns are no features
            raise ValueError(f"{path_name(path, 'data')} is empty: its shape is {x.shape}.")
