"""Time of computations, measured side by side.

A *candidate* is a function without arguments that returns JAX arrays, a pair `(function, args)`, or
a candidate that lives in a worker process (`Worker.candidate`). How they are measured:

- every call is waited for (`jax.block_until_ready`), as a loop over steps would have to;
- a sample is the mean of as many calls as take at least `sample_seconds`, so the clock's resolution
  and the loop's own cost (well under a microsecond a call) vanish;
- in each round every candidate gives one sample, in an order shuffled anew, so that all of them see
  the same machine; ratios are taken within rounds (see `_stats`);
- the garbage collector is off within a sample.

jax is imported when something is measured, not before.
"""

from __future__ import annotations

import contextlib
import gc
import random
import time
from collections.abc import Callable, Generator, Mapping
from typing import Any, Protocol, TypeVar

import numpy as np

from benchmarks._declare import Figure
from benchmarks._stats import median, paired_ratio

_Sample = TypeVar("_Sample")


class Candidate(Protocol):
    """What can be measured; `as_candidate` makes one of a function."""

    def prepare(self, sample_seconds: float) -> None:
        """Warm up and settle how many calls make a sample."""
        ...

    def sample(self) -> float:
        """Seconds per call."""
        ...

    def compile_once(self) -> Mapping[str, float]:
        """Seconds of `lower` (tracing included) and `compile`, nothing cached."""
        ...


class Local:
    """A candidate of this process: `function(*args)`."""

    def __init__(self, function: Callable[..., Any], args: tuple[Any, ...] = ()) -> None:
        self.function, self.args, self.calls = function, args, 1

    def prepare(self, sample_seconds: float) -> None:
        self._time(2)  # compiles
        self.calls = 1
        while (seconds := self._time(self.calls)) < sample_seconds:
            wanted = self.calls * 1.2 * sample_seconds / max(seconds, 1e-9)
            self.calls = max(self.calls + 1, min(10 * self.calls, int(wanted)))

    def sample(self) -> float:
        return self._time(self.calls) / self.calls

    def compile_once(self) -> Mapping[str, float]:
        function = _jitted(self.function)
        with _nothing_cached(), _no_garbage_collection():
            start = time.perf_counter()
            lowered = function.lower(*self.args)
            middle = time.perf_counter()
            lowered.compile()
            return {"lower": middle - start, "compile": time.perf_counter() - middle}

    def _time(self, calls: int) -> float:
        import jax

        function, args, wait = self.function, self.args, jax.block_until_ready
        with _no_garbage_collection():
            start = time.perf_counter()
            for _ in range(calls):
                wait(function(*args))
            return time.perf_counter() - start


def as_candidate(what: Any) -> Candidate:
    """The candidate itself, or one made of a function or a `(function, args)` pair."""
    if isinstance(what, tuple):
        function, args = what
        return Local(function, tuple(args))
    if callable(what):
        return Local(what)
    if not hasattr(what, "sample"):
        raise TypeError(
            "a candidate is a function, a (function, args) pair or a worker's candidate; "
            f"got {what!r}"
        )
    return what


class Comparison:
    """Samples of all candidates, one per round; the same rounds for all.

    Attributes:
        samples: seconds per call, an array of one number per round, by candidate.
    """

    def __init__(self, samples: Mapping[str, Any]) -> None:
        self.samples = {name: np.asarray(values, float) for name, values in samples.items()}

    def median(self, name: str) -> Figure:
        """Median seconds per call."""
        return median(self.samples[name], "s")

    def ratio(self, name: str, against: str, note: str = "") -> Figure:
        """How many times longer `name` takes than `against`: median of the rounds' ratios."""
        return paired_ratio(self.samples[name], self.samples[against], note)

    def ratio_of_ratios(
        self, ours: tuple[str, str], theirs: tuple[str, str], note: str = ""
    ) -> Figure:
        """`(ours[0] / ours[1]) / (theirs[0] / theirs[1])`, each taken within rounds.

        For peers in another process, whose times are compared through a baseline of their own.
        """
        first = self.samples[ours[0]] / self.samples[ours[1]]
        return paired_ratio(first, self.samples[theirs[0]] / self.samples[theirs[1]], note)


def compare(
    candidates: Mapping[str, Any],
    *,
    rounds: int = 100,
    min_rounds: int = 15,
    seconds: float = 30.0,
    sample_seconds: float = 4e-3,
) -> Comparison:
    """Time the candidates in turn.

    Args:
        candidates: by name, see the module's text.
        rounds: samples of each candidate.
        min_rounds: taken even if the time is up.
        seconds: after which no further round is begun (compilation and warm-up not counted).
        sample_seconds: least duration of a sample.
    """
    ready = {name: as_candidate(what) for name, what in candidates.items()}
    for candidate in ready.values():
        candidate.prepare(sample_seconds)
    samplers = {name: candidate.sample for name, candidate in ready.items()}
    return Comparison(in_turn(samplers, rounds=rounds, min_rounds=min_rounds, seconds=seconds))


def compare_compilation(candidates: Mapping[str, Any], *, rounds: int = 5) -> dict[str, Comparison]:
    """Time it takes to compile the candidates, nothing cached: neither on disk nor in the process.

    Returns:
        Comparisons by stage: `"lower"` (trace, lower to StableHLO), `"compile"` (XLA), `"total"`.
        One more round than asked for is run and the first thrown away: it pays for Python modules
        that are imported when first needed.
    """
    ready = {name: as_candidate(what) for name, what in candidates.items()}
    stages: dict[str, dict[str, list[float]]] = {
        stage: {name: [] for name in ready} for stage in ("lower", "compile", "total")
    }

    def sampler(name: str) -> Callable[[], float]:
        def once() -> float:
            seconds = ready[name].compile_once()
            stages["lower"][name].append(seconds["lower"])
            stages["compile"][name].append(seconds["compile"])
            stages["total"][name].append(seconds["lower"] + seconds["compile"])
            return stages["total"][name][-1]

        return once

    in_turn({name: sampler(name) for name in ready}, rounds=rounds + 1, min_rounds=rounds + 1)
    return {
        stage: Comparison({name: values[1:] for name, values in by_name.items()})
        for stage, by_name in stages.items()
    }


def in_turn(
    samplers: Mapping[str, Callable[[], _Sample]],
    *,
    rounds: int,
    min_rounds: int = 1,
    seconds: float = float("inf"),
) -> dict[str, list[_Sample]]:
    """Call each sampler once per round, in an order shuffled anew; gives the samples by name."""
    samples: dict[str, list[_Sample]] = {name: [] for name in samplers}
    order, shuffle = list(samplers), random.Random(0).shuffle
    begun = time.perf_counter()
    for done in range(rounds):
        if done >= min_rounds and time.perf_counter() - begun > seconds:
            break
        shuffle(order)
        for name in order:
            samples[name].append(samplers[name]())
    return samples


def compiled_memory(function: Callable[..., Any], *args: Any) -> dict[str, int]:
    """What XLA plans for the compiled function, in bytes.

    Returns:
        `temp` (working memory at its peak), `argument`, `output`, `alias` (outputs that reuse an
        argument's memory).
    """
    plan = _jitted(function).lower(*args).compile().memory_analysis()
    kinds = ("temp", "argument", "output", "alias")
    return {kind: int(getattr(plan, f"{kind}_size_in_bytes")) for kind in kinds}


def _jitted(function: Any) -> Any:
    """The function itself if it can be lowered, as jitted ones can."""
    import jax

    return function if hasattr(function, "lower") else jax.jit(function)


@contextlib.contextmanager
def _no_garbage_collection() -> Generator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@contextlib.contextmanager
def _nothing_cached() -> Generator[None]:
    """Without jax's in-process caches and without its cache on disk."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    config: Any = jax.config
    was_on = config.jax_enable_compilation_cache
    config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # it remembers having been on
    jax.clear_caches()
    try:
        yield
    finally:
        config.update("jax_enable_compilation_cache", was_on)
        compilation_cache.reset_cache()
