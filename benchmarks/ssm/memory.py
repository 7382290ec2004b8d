"""Peak memory of a likelihood and its gradient for a million observations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

SIZE, QUICK_SIZE = 1_000_000, 100_000
FUSE = "--xla_backend_extra_options=xla_cpu_small_while_loop_byte_threshold=100000"
SETTINGS = {"default": "", "fused": FUSE}
ORDERS = ("32", "52")

TARGETS = (
    Target("peak", "<=", 2.0, unit="GB", meaning="largest peak of the whole process"),
    Target("finite", "==", 1, meaning="share of values and gradients that are finite"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Each case in a process of its own, peak resident memory, Python and libraries included."""
    from benchmarks._process import in_fresh_process

    n = QUICK_SIZE if quick else SIZE
    report.note(
        f"{n} random times, float64, value and gradient in three parameters, compilation included. "
        "Default: no options of XLA. Fused: XLA_FLAGS=" + FUSE + ". Sequential: one step after "
        "another."
    )
    rows, peaks, finite = [], [], []
    for library in ("bayesjx", "tinygp"):
        for setting, flags in SETTINGS.items():
            for order in ORDERS:
                fresh = in_fresh_process(f"{__name__}:peak", library, order, n, flags)
                gigabytes = fresh.max_rss_bytes / 1e9
                rows.append(
                    [f"{library}, {setting}", f"Matérn-{order[0]}/2", gigabytes,
                     fresh.start_rss_bytes / 1e9]
                )  # fmt: skip
                if library == "bayesjx":
                    peaks.append(gigabytes)
                    finite.append(fresh.result)
    report.table("Peak memory", ["", "kernel", "GB", "GB before"], rows)
    return {"peak": max(peaks), "finite": sum(finite) / len(finite)}


def peak(library: str, order: str, n: int, flags: str) -> bool:
    """Value and gradient, once; whether they are finite."""
    import os

    os.environ["XLA_FLAGS"] = flags
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    from benchmarks.ssm.series_worker import MAKE, series, THETA

    density = MAKE[library](order, *series(n))
    found = jax.jit(jax.value_and_grad(density))(jnp.array(THETA))
    return all(bool(jnp.all(jnp.isfinite(leaf))) for leaf in jax.tree.leaves(found))


BENCHMARK = Benchmark(
    name="ssm-memory",
    claim="a million observations fit in two gigabytes, gradient included",
    source="our bound",
    targets=TARGETS,
    run=run,
)
