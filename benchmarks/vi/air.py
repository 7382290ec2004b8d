"""Attend, infer, repeat on digits: which gradient strategies learn to count, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TYPE_CHECKING

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

if TYPE_CHECKING:
    from benchmarks.vi._air_training import Trainer

PEER = "TraceGraph_ELBO"
TARGETS = (
    Target("enum", ">=", 0.9, meaning="count accuracy, ELBO with enum"),
    Target("mvd", ">=", 0.9, quick=None, meaning="count accuracy, ELBO with mvd"),
    Target("reinforce", "<=", 0.6, meaning="count accuracy, ELBO with plain reinforce"),
    Target("reinforce_epoch", "<=", 1.1, quick=1.25, unit="×", meaning=f"seconds ÷ {PEER}"),
)
TRAINING, BATCH, EPOCHS = 4096, 64, 16
QUICK_EPOCHS = 14
SEEDS = (0, 1, 2)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Trains every objective and strategy alike, then times an epoch of each in turn."""
    from benchmarks.vi import _air_training as training

    epochs = QUICK_EPOCHS if quick else EPOCHS
    seeds = SEEDS[:1] if quick else SEEDS
    data = training.Data.of(TRAINING, BATCH)
    trainers = training.trainers(quick)
    report.note(
        f"16 × 16 canvases with 0, 1 or 2 digits, {TRAINING} for training and "
        f"{len(data.test.counts)} of other digits for the count accuracy (of one draw of the "
        f"guide per canvas); {epochs} epochs of {TRAINING // BATCH} steps, batches of {BATCH}, "
        f"Adam 1e-3, {len(seeds)} seeds. The same networks, prior, noise and learning rate for "
        "all; reinforce without a baseline. Particles refuse enum and mvd, whose gradients hold "
        "for linear uses only."
    )
    curves = {
        name: [training.train(trainer, data, epochs, seed) for seed in seeds]
        for name, trainer in trainers.items()
    }
    times = _time(trainers, data, quick)
    report.times(f"Seconds per epoch of {TRAINING} canvases", times, against=PEER)
    accuracies = {name: [curve.accuracy[-1] for curve in found] for name, found in curves.items()}
    rows = []
    for name, trainer in trainers.items():
        first = curves[name][0]
        ratio = times.ratio(name, PEER)
        bound = max(curve.bound[-1] for curve in curves[name])
        rows.append(
            [
                trainer.objective,
                trainer.strategies,
                _mean(accuracies[name]),
                min(accuracies[name]),
                max(accuracies[name]),
                first.accuracy[len(first.accuracy) // 4],
                bound,
                times.median(name),
                ratio,
            ]
        )
    header = ["objective", "strategies", "accuracy", "worst seed", "best seed"]
    header += ["at a quarter", "bound", "s per epoch", f"÷ {PEER}"]
    report.table("Objectives and strategies", header, rows)
    report.lines(
        "Count accuracy",
        "epoch",
        "accuracy",
        {name: (range(1, epochs + 1), found[0].accuracy) for name, found in curves.items()},
    )
    figures: dict[str, Any] = {}
    for name, found in accuracies.items():
        least, most = min(found), max(found)
        value, which = (most, "best") if name in ("reinforce", PEER) else (least, "worst")
        note = f"{which} of {len(found)} seeds, which the spread covers"
        figures["numpyro" if name == PEER else name] = Figure(value, least, most, note=note)
    for name in trainers:
        if name != PEER:
            figures[f"{name}_epoch"] = times.ratio(name, PEER)
    return figures


def _time(trainers: Mapping[str, Trainer], data: Any, quick: bool) -> Any:
    from benchmarks import compare

    candidates = {
        name: (trainer.epoch, trainer.example(data)) for name, trainer in trainers.items()
    }
    rounds, seconds = (3, 3.0) if quick else (25, 60.0)
    return compare(candidates, rounds=rounds, min_rounds=rounds // 2, seconds=seconds)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


BENCHMARK = Benchmark(
    name="vi-air",
    claim="enum and mvd learn to count objects where plain reinforce does not",
    source="Becker et al. 2024 (PLDI), table 2 and figure 7; Eslami et al. 2016",
    targets=TARGETS,
    run=run,
)
