"""What calls outside of `jit` compile and keep, when only their data change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

TARGETS = (
    Target("compiled", "==", 0, meaning="programs compiled after the first calls, of all entries"),
    Target("kib", "<=", 20.0, 400.0, unit="KiB", meaning="memory that a call leaves, the worst"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Call each entry point many times; the quick run has those that used to compile most."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from benchmarks import _repeat, _repeat_amortized, _repeat_calls

    calls = 12 if quick else 300
    counter = _repeat.Counter()
    rows, later, most = [], 0, 0.0
    for name, call, in_quick in [*_repeat_calls.entries(), *_repeat_amortized.entries()]:
        if quick and not in_quick:
            continue
        found = _repeat.repeated(counter, call, calls)
        rows.append([name, *found])
        later, most = later + found.later, max(most, found.kib)
    header = ["called", "programs at first", "later", "KiB a call", "in the first block", "blocks"]
    header.append("ms a call")
    report.note(
        f"Memory is that of the last block of {calls} calls; a further block follows one that "
        f"leaves more than {_repeat.FLAT:g} KiB a call, up to {_repeat.BLOCKS}: a leak goes on, "
        "while the caches that JAX bounds (of traces and of operations outside of jit) fill."
    )
    report.table(f"{calls} calls with other data of the same shapes", header, rows)
    return {"compiled": later, "kib": most, "entries": len(rows)}


BENCHMARK = Benchmark(
    name="all-repeat",
    claim="Calls outside of `jit` compile once for each shape, and leave no memory behind",
    source="closures over data in `lax.scan` and the like, which JAX compiles at every call",
    targets=TARGETS,
    run=run,
)
