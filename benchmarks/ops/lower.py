"""Our kernels are in the modules for their platforms, under every transformation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

TARGETS = (
    Target("share", "==", 1.0, meaning="combinations lowered and with all their kernels"),
    Target("lowered", ">=", 100, quick=40, meaning="combinations of the three"),
    Target("exported", "==", 10, quick=5, meaning="modules for CPU, TPU and GPU at once"),
    Target("off", "<=", 1e-4, meaning="largest error of an exported module, run on the CPU"),
)
QUICK = ("value", "grad", "vmap of grad", "grad of grad")


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Lower every primitive for every platform under every transformation, without hardware."""
    import jax
    import numpy as np

    from benchmarks.ops._lowered import CALLS, cases, exported, lowered_calls, transformed

    rows, complete, total, modules, off = [], 0, 0, 0, 0.0
    for name, case in cases().items():
        for how, (function, args, least) in transformed(case).items():
            if quick and how not in QUICK:
                continue
            counts = {}
            for platform in CALLS:
                try:
                    counts[platform] = lowered_calls(function, args, platform)
                except Exception as error:  # one that does not lower is a result
                    counts[platform] = f"{type(error).__name__}"
                total += 1
                found = counts[platform]
                complete += isinstance(found, int) and found >= least
            rows.append([name, how, least, *counts.values()])
        for how in ("value",) if quick else ("value", "grad"):
            function, args, _ = transformed(case)[how]
            module = exported(function, args)
            if all(call in module.mlir_module() for call in CALLS.values()):
                modules += 1
            got, want = (jax.tree.leaves(f(*args)) for f in (module.call, jax.jit(function)))
            for g, w in zip(got, want, strict=True):
                off = max(off, float(np.abs(g - w).max() / np.abs(w).max()))
    header = ["primitive", "transformation", "kernels at least", *CALLS]
    report.table("Kernels called in the lowered module", header, rows)
    return {
        "share": Figure(complete / total, note=f"{complete} of {total}"),
        "lowered": total,
        "exported": modules,
        "off": off,
    }


BENCHMARK = Benchmark(
    name="ops-lower",
    claim="every primitive lowers for TPU and GPU, with its kernels, under every transformation",
    source="jax's lowering for platforms that are not there",
    targets=TARGETS,
    run=run,
)
