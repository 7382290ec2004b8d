"""Fits in a loop: what the second one compiles, and what each leaves behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

TARGETS = (
    Target("second", "==", 0, meaning="programs compiled by the second fit, of all kinds together"),
    Target("later", "==", 0, meaning="programs compiled by further fits with other data"),
    Target("kib", "<=", 20.0, 400.0, unit="KiB", meaning="memory that a fit leaves, the worst"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Fit twice with the same objects and shapes, then many times with other data."""
    import jax

    jax.config.update("jax_enable_x64", True)
    from benchmarks import _refit_calls, _repeat

    calls = 12 if quick else 300
    counter = _repeat.Counter()
    rows, second, later, most = [], 0, 0, 0.0
    for name, call in _refit_calls.entries().items():
        jax.block_until_ready(jax.tree.leaves(call(0)))
        before = counter.count
        jax.block_until_ready(jax.tree.leaves(call(0)))
        again = counter.count - before
        found = _repeat.repeated(counter, call, calls)
        rows.append([name, again, found.first + found.later, found.kib, found.milliseconds])
        second, later = second + again, later + found.first + found.later
        most = max(most, found.kib)
    header = ["fitted", "programs of the second", "of all others", "KiB a fit", "ms a fit"]
    report.table(f"Two fits, and {calls} with other data of the same shapes", header, rows)
    return {"second": second, "later": later, "kib": most}


BENCHMARK = Benchmark(
    name="all-refit",
    claim="A second fit with the same shapes compiles nothing, and leaves no memory behind",
    source="loops over data sets, folds and starts, where each fit would compile for seconds",
    targets=TARGETS,
    run=run,
)
