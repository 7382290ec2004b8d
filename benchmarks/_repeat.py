"""What a call leaves behind: programs that were compiled, and memory, of many calls in a row."""

from __future__ import annotations

import ctypes
import gc
import os
import time
from collections.abc import Callable
from typing import Any, NamedTuple

WARM_UP = 3  # calls whose compilations are not counted but reported
EVENT = "/jax/core/compile/backend_compile_duration"


class Repeated(NamedTuple):
    """Some calls of one entry point with data that change and shapes that do not.

    Attributes:
        first: programs compiled by the first calls.
        later: programs compiled by all others.
        kib: resident memory that each of the later calls left, in KiB.
        milliseconds: median of a later call.
    """

    first: int
    later: int
    kib: float
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
        calls: after those that warm up.
    """
    import jax

    def one(i: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(jax.tree.leaves(call(i)))
        return time.perf_counter() - start

    start = counter.count
    for i in range(WARM_UP):
        one(i)
    warm, before = counter.count, _resident()
    seconds = sorted(one(WARM_UP + i) for i in range(calls))
    grown = max(_resident() - before, 0)
    later = counter.count - warm
    return Repeated(warm - start, later, grown / 1024 / calls, 1e3 * seconds[calls // 2])


def _resident() -> int:
    """Resident memory in bytes, once what is free has gone back to the system."""
    gc.collect()
    try:
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    except (OSError, AttributeError):
        pass
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
