"""The state of a running fit: where it is, what it recorded, how to go on."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bayesjx._core._algorithm import Algorithm
from bayesjx._core._batches import Batches
from bayesjx._core._failures import plain_errors
from bayesjx._core._nonfinite import BadStep, describe_bad_step, find_bad_step, make_watch
from bayesjx._core._program import Arguments, get_program, Program


class Position(NamedTuple):
    """Steps done and the state after them, set at once: an interrupt cannot come between."""

    step: int
    state: Any


class Loop:
    """Drives the program of one algorithm and keeps what it records.

    Attributes:
        position: steps done and the state after them. States are never donated and stay valid.
        thin: of how many states the last one is kept.
        told: number of steps done when the callback was last called.
        seconds: spent on steps.
        compile_seconds: spent on tracing and compiling.
        failure: message about the step that made something infinite or NaN, or None.
        arguments: of the step, at the start.
    """

    position: Position
    thin: int
    told: int
    seconds: float
    compile_seconds: float
    failure: str | None
    arguments: Arguments

    def __init__(
        self,
        key: Any,
        algorithm: Algorithm,
        state: Any,
        data: tuple,
        batches: Batches,
        check_finite: str,
        keep: Callable | None,
        thin: int,
        batch_size: int | None,
    ):
        key = jnp.asarray(key)
        self.arguments = Arguments(
            algorithm.step, key, state, data, batches.first, keep, batch_size
        )
        self.thin = thin
        self.key, state, self.data = self.arguments.key, self.arguments.state, self.arguments.data
        self.algorithm, self.batches = algorithm, batches
        self.watch = make_watch(state, check_finite)
        self.position, self.told = Position(0, state), 0
        self.seconds, self.compile_seconds, self.failure = 0.0, 0.0, None

    @property
    def step(self) -> int:
        """Number of steps done."""
        return self.position.step

    def prepare(self, capacity: int, num_steps: int) -> Program:
        """Trace the step, and make room for the records of `num_steps` steps."""
        started = time.perf_counter()
        self.program = get_program(self.arguments, capacity, self.thin, self.watch)
        self._rows, self._kept = (
            jax.tree.map(lambda x, n=n: np.empty((n, *x.shape), x.dtype), like)
            for n, like in (
                (num_steps, self.program.info),
                (num_steps // self.thin, self.program.kept),
            )
        )
        if self.program.call is None:
            self.compile_seconds = time.perf_counter() - started
        return self.program

    def compile(self) -> None:
        """Compile the program unless an earlier fit did."""
        if self.program.call is None:
            started = time.perf_counter()
            self.program.compile(self.arguments)
            self.compile_seconds += time.perf_counter() - started

    def advance(self, count: int) -> float:
        """Do `count` steps in one dispatch, or find the first that is not finite.

        Returns:
            The seconds that it took.
        """
        started, (first, state) = time.perf_counter(), self.position
        batches = self.batches.stack(first, count, self.program.capacity)
        batches = list(map(jnp.asarray, jax.tree.leaves(batches)))
        own, data = jax.tree.leaves(self.arguments.own), jax.tree.leaves(self.data)
        structure = jax.tree.structure(state)
        call = self.program.call
        if call is None:
            raise RuntimeError("compile() comes first")

        def run(begin: int, end: int, state):
            bounds = (np.int32(begin), np.int32(end), np.int32(first))
            leaves = jax.tree.leaves(state)
            new, rows, kept, ok = call(*bounds, self.key, own, leaves, data, batches)
            return jax.tree.unflatten(structure, new), (rows, kept), ok

        def run_again(begin: int, end: int, state):
            new, (rows, _), ok = run(begin, end, state)
            return new, rows, ok

        with plain_errors():
            new_state, records, ok = run(0, count, state)
            ok = bool(ok)  # waits for the device: the one synchronisation of a dispatch
        if ok:
            self._record(new_state, *records, count)
        else:
            bad = find_bad_step(run_again, first, count, state)
            self._record(bad.state, *records, bad.step - first)
            self.failure = describe_bad_step(bad, self.watch, self._diagnose(bad))
        seconds = time.perf_counter() - started
        self.seconds += seconds
        return seconds

    def history(self, start: int = 0) -> Any:
        """Views of the records of the steps from `start` on."""
        return jax.tree.map(lambda x: x[start : self.step], self._rows)

    def kept(self) -> Any:
        """Views of what was kept of states so far."""
        return jax.tree.map(lambda x: x[: self.step // self.thin], self._kept)

    def restore(self, step: int, state: Any, history: list, kept: list, told: int) -> None:
        """Continue from `step`; `history` has `step` rows, `kept` one for each whole block."""
        for rows, old in zip(jax.tree.leaves(self._rows), history, strict=True):
            rows[:step] = old
        for rows, old in zip(jax.tree.leaves(self._kept), kept, strict=True):
            rows[: step // self.thin] = old
        self.position = Position(step, jax.tree.map(_put_like, state, self.position.state))
        self.told = told

    def _record(self, state: Any, rows: Any, kept: Any, count: int) -> None:
        step = self.step
        done, whole = step // self.thin, (step + count) // self.thin
        for out, new in zip(jax.tree.leaves(self._kept), jax.tree.leaves(kept), strict=True):
            out[done:whole] = np.asarray(new)[: whole - done]
        for out, new in zip(jax.tree.leaves(self._rows), jax.tree.leaves(rows), strict=True):
            out[step : step + count] = np.asarray(new)[:count]
        self.position = Position(step + count, state)

    def _diagnose(self, bad: BadStep) -> str | None:
        if self.algorithm.diagnose is None:
            return None
        key = jax.random.fold_in(self.key, bad.step)
        batch = jax.tree.map(jnp.asarray, self.batches.at(bad.step))
        try:
            return self.algorithm.diagnose(key, bad.state, *self.data, *batch)
        except Exception as error:  # the fit's own message matters more
            return f"(diagnose failed: {type(error).__name__}: {error})"


def _put_like(x: Any, old: jax.Array) -> jax.Array:
    on_several = len(old.sharding.device_set) > 1
    return jax.device_put(x, old.sharding) if on_several else jnp.asarray(x)
