"""The state of a running fit: where it is, what it recorded, how to go on."""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesjx._core._algorithm import Algorithm
from bayesjx._core._batches import Batches
from bayesjx._core._nonfinite import BadStep, describe_bad_step, find_bad_step, finite_at_start
from bayesjx._core._program import Program, get_program, place
from bayesjx._core._tree import is_inexact


class Loop:
    """Drives the compiled program of one algorithm and keeps what it records.

    Attributes:
        step: number of steps done.
        state: after `step` steps; never donated, so it stays valid.
        seconds: spent on steps.
        compile_seconds: spent on tracing and compiling.
        failure: message about the step that went bad, or None.
    """

    step: int
    state: Any
    seconds: float
    compile_seconds: float
    failure: str | None

    def __init__(
        self, key, algorithm: Algorithm, state, data: tuple, batches: Batches, check_finite: str
    ):
        self.key, self.state, self.data = place(jnp.asarray(key), state, data)
        self.algorithm, self.batches = algorithm, batches
        finite = finite_at_start(self.state) if check_finite == "state" else None
        silent = (False,) * len(jax.tree.leaves(state))
        self.watched = None if check_finite == "none" else finite or silent
        self.step, self.seconds, self.compile_seconds, self.failure = 0, 0.0, 0.0, None

    def compile(self, capacity: int, num_steps: int) -> Program:
        """Get the program ready, and room for the records of `num_steps` steps."""
        self.program, self.compile_seconds = get_program(
            self.algorithm.step,
            self.key,
            self.state,
            self.data,
            self.batches.first,
            capacity,
            self.watched,
        )
        self._rows = jax.tree.map(
            lambda x: np.empty((num_steps, *x.shape), x.dtype), self.program.info
        )
        return self.program

    def advance(self, count: int) -> float:
        """Do `count` steps in one dispatch, or find the one among them that goes bad.

        Returns:
            The seconds that it took.
        """
        started, first, state = time.perf_counter(), self.step, self.state
        batches = self.batches.stack(first, count, self.program.capacity)
        batches = jax.tree.map(jnp.asarray, batches)

        def run(begin: int, end: int, state):
            bounds = (np.int32(begin), np.int32(end), np.int32(first))
            return self.program.call(*bounds, self.key, state, self.data, batches)

        new_state, rows, ok = run(0, count, state)
        if ok:  # waits for the device: the one synchronisation of a dispatch
            self._record(new_state, rows, count)
        else:
            bad = find_bad_step(run, first, count, state)
            self._record(bad.state, rows, bad.step - first)
            self.failure = describe_bad_step(bad, self.watched, self._diagnose(bad))
        seconds = time.perf_counter() - started
        self.seconds += seconds
        return seconds

    def history(self, start: int = 0) -> Any:
        """Views of the records of the steps from `start` on."""
        return jax.tree.map(lambda x: x[start : self.step], self._rows)

    def restore(self, step: int, state: Any, history: Any) -> None:
        """Continue from `step`; `history` has `step` rows."""
        jax.tree.map(lambda rows, old: np.copyto(rows[:step], old), self._rows, history)
        self.step, self.state = step, jax.tree.map(_like, state, self.state)

    def _record(self, state, rows, count: int) -> None:
        for out, new in zip(jax.tree.leaves(self._rows), jax.tree.leaves(rows), strict=True):
            out[self.step : self.step + count] = np.asarray(new)[:count]
        self.state, self.step = state, self.step + count

    def _diagnose(self, bad: BadStep) -> str | None:
        if self.algorithm.diagnose is None:
            return None
        key = jax.random.fold_in(self.key, bad.step)
        batch = jax.tree.map(jnp.asarray, self.batches.at(bad.step))
        try:
            return self.algorithm.diagnose(key, bad.state, *self.data, *batch)
        except Exception as error:  # the fit's own message matters more
            return f"(diagnose itself failed: {type(error).__name__}: {error})"


def _like(x, old):
    return jax.device_put(x, old.sharding) if len(old.sharding.device_set) > 1 else jnp.asarray(x)
