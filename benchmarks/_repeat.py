"""What a call leaves behind: programs that were compiled, and memory, of many calls in a row."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

WARM_UP = 3  # calls whose compilations are not counted but reported
FLAT = 20.0  # KiB a call: more may be a cache that fills, which further blocks of calls tell
BLOCKS = 4  # of calls, at most
EVENT = "/jax/core/compile/backend_compile_duration"


class Repeated(NamedTuple):
    """Some calls of one entry point with data that change and shapes that do not.

    Attributes:
        first: programs compiled by the first calls.
        later: programs compiled by all others.
        kib: resident memory that each of the calls of the last block left, in KiB.
        kib_first: the same of the first block; JAX's bounded caches fill in it.
        blocks: of calls. A leak goes on at its pace, so that one block more tells it from a cache.
        milliseconds: median of a later call.
    """

    first: int
    later: int
    kib: float
    kib_first: float
    blocks: int
    milliseconds: float


class Counter:
    """Counts the programs that XLA compiles in this process."""

    def __init__(self) -> None:
        import jax.monitoring

        self.count = 0
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **_: Any) -> None:
        self.count += event == EVENT


def repeated(counter: Counter, call: Callable[[int], Any], calls: int) -> Repeated:
    """Call it with the numbers 0, 1, … and watch.

    Args:
        counter: of this process.
        call: makes data of that number and calls the entry point.
        calls: of a block, after those that warm up.
    """
    import jax

    def one(i: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(jax.tree.leaves(call(i)))
        return time.perf_counter() - start

    start = counter.count
    for i in range(WARM_UP):
        one(i)
    warm, done, seconds, kib = counter.count, WARM_UP, [], []
    while not kib or (kib[-1] > FLAT and len(kib) < BLOCKS):
        before = _resident()
        seconds += [one(done + i) for i in range(calls)]
        done += calls
        kib.append(max(_resident() - before, 0) / 1024 / calls)
    later = counter.count - warm
    median = 1e3 * sorted(seconds)[len(seconds) // 2]
    return Repeated(warm - start, later, kib[-1], kib[0], len(kib), median)


def _resident() -> int:
    """Resident memory in bytes, once what is free has gone back to the system."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
