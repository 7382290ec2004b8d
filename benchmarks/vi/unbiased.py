"""Gradients of every strategy beside exact ones, on every kind of program."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TYPE_CHECKING

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

if TYPE_CHECKING:
    from benchmarks.vi.cells import Broken, Cell, Defect, Measured

DRAWS, QUICK_DRAWS = 20_000, 5_000
CAUGHT = 10.0  # a planted mistake counts as found beyond this many standard errors

TARGETS = (
    Target("worst_z", "<", 4.5, meaning="largest |z| of a mean value or gradient entry"),
    Target("cells", ">=", 40, quick=20, meaning="programs × strategies compared"),
    Target("strategies", ">=", 8, meaning="different strategies among them"),
    Target("broken_caught", "==", 1.0, meaning=f"share of planted mistakes with |z| > {CAUGHT:g}"),
    Target("broken", ">=", 12, quick=4, meaning="planted mistakes"),
    Target("peer_worst_z", "<", 4.5, meaning="largest |z| of ours where NumPyro is biased"),
)
QUICK_BROKEN, QUICK_PEERS = 4, 2
THREADS = 2  # compiling is most of the time, and leaves the interpreter free


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Means over draws against enumeration and quadrature, in float64."""
    import jax

    with jax.enable_x64(True):
        return _run(quick, report)


def _run(quick: bool, report: Report) -> Mapping[str, Any]:
    import jax

    from benchmarks.vi.cells import all_cells, broken, defects

    num_draws = QUICK_DRAWS if quick else DRAWS
    report.note(
        f"{num_draws} draws per cell ({DRAWS} in the second and third table), in float64. z is the "
        "distance between the mean and the exact answer in standard errors, the worst over the "
        "value and all entries of the gradient (in the third table over the gradient); "
        "exact answers by enumeration, 60-point Gauss-Hermite quadrature or a formula."
    )
    chosen = [cell for cell in all_cells() if cell.quick or not quick]
    planted = broken()[: QUICK_BROKEN if quick else None]
    keys = jax.random.split(jax.random.key(0), 3)
    results = _measure_cells(chosen, keys[0], num_draws, report)
    caught = _measure_broken(planted, keys[1], report)
    ours, peers = _measure_peer(defects()[: QUICK_PEERS if quick else None], keys[2], report)
    names = {row.strategy for cell in chosen for row in cell.objective.describe(cell.point)}
    return {
        "worst_z": max(result.worst_z for result in results),
        "cells": len(chosen),
        "strategies": len(names),
        "broken_caught": caught,
        "broken": len(planted),
        "peer_worst_z": ours,
        "numpyro_smallest_z": peers,
    }


def _measure_cells(cells: list[Cell], key: Any, num_draws: int, report: Report) -> list[Measured]:
    import jax

    from benchmarks.vi.cells import finish, start

    keys = jax.random.split(key, len(cells))
    with ThreadPoolExecutor(THREADS) as pool:
        started = [start(cell, num_draws, pool) for cell in cells]
        results = [
            finish(cell, k, num_draws, compiled)
            for cell, k, compiled in zip(cells, keys, started, strict=True)
        ]
    rows = [
        [cell.program, cell.strategies, result.worst_z, result.value_z, result.variance]
        for cell, result in zip(cells, results, strict=True)
    ]
    header = ["program", "strategies", "worst |z|", "z of the value", "gradient variance"]
    report.table("Every program under every strategy", header, rows)
    return results


def _measure_broken(planted: list[Broken], key: Any, report: Report) -> float:
    """The share of planted mistakes that were found."""
    import jax

    from benchmarks.vi.cells import finish, start

    keys = jax.random.split(key, len(planted))
    with ThreadPoolExecutor(THREADS) as pool:
        started = []
        for case in planted:
            with case.plant():
                started.append(start(case.cell, DRAWS, pool))
        results = [
            finish(case.cell, k, DRAWS, compiled)
            for case, k, compiled in zip(planted, keys, started, strict=True)
        ]
    scores = [result.worst_z for result in results]
    rows = [[c.mistake, c.cell.program, z] for c, z in zip(planted, scores, strict=True)]
    report.table("Estimators with a planted mistake", ["mistake", "program", "worst |z|"], rows)
    return sum(z > CAUGHT for z in scores) / len(scores)


def _measure_peer(known: list[Defect], key: Any, report: Report) -> Any:
    """The worst |z| of ours, and the smallest of NumPyro's (information, not judged)."""
    import jax

    from benchmarks.vi.cells import finish, start

    keys = jax.random.split(key, len(known))
    ours, peers = [], []
    with ThreadPoolExecutor(THREADS) as pool:
        for draw_of, results in ((lambda d: None, ours), (lambda d: d.peer, peers)):
            started = [start(d.cell, DRAWS, pool, draw_of(d)) for d in known]
            for defect, k, compiled in zip(known, keys, started, strict=True):
                results.append(finish(defect.cell, k, DRAWS, compiled).worst_gradient_z)
    rows = [
        [d.cell.program, d.what, z, peer] for d, z, peer in zip(known, ours, peers, strict=True)
    ]
    header = ["program", "what NumPyro 0.22 does", "ours |z|", "NumPyro |z|"]
    report.table("Where NumPyro's gradients are biased", header, rows)
    return max(ours), min(peers)


BENCHMARK = Benchmark(
    name="vi-unbiased",
    claim="every strategy gives the exact gradient in the mean, on every kind of program",
    source="Becker et al. 2024 (PLDI), Lew et al. 2023 (ADEV); exact answers by enumeration",
    targets=TARGETS,
    run=run,
)
