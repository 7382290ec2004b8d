"""Turbo variational inference beside four other ways to make a network small."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report
from benchmarks.bnn._turbo_runs import (
    BATCH,
    DENSITY,
    FINE_RATE,
    GROUP_LASSO,
    group_lasso,
    KL_WEIGHT,
    lenet,
    magnitude,
    RATE,
    RUN,
    Score,
    score,
    SPARSE_RATE,
    Steps,
    tuned,
    turbo,
    variational_dropout,
    weights,
)

STEPS = Steps(dense=1000, sparse=2000, fine=600)
SEEDS, QUICK_SEEDS = 5, 1
DENSE, CHAIN, ALONE = "dense", "turbo, chains", "turbo, independent"

TARGETS = (
    Target("drop_digits", "<=", 0.01, meaning="accuracy of dense − turbo, digits"),
    Target("drop_mnist", "<=", 0.01, quick=None, meaning="accuracy of dense − turbo, MNIST"),
    Target("weights_digits", ">=", 10.0, unit="×", meaning="fewer weights, digits"),
    Target("weights_mnist", ">=", 10.0, quick=None, unit="×", meaning="fewer weights, MNIST"),
    Target("runs_digits", ">=", 2.0, unit="×", meaning="runs of chains ÷ independent, digits"),
    Target(
        "runs_mnist", ">=", 2.0, quick=None, unit="×", meaning="runs of chains ÷ independent, MNIST"
    ),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Accuracy, sizes and runs of each way, on both sets of digits."""
    from bayesjx import datasets

    report.note(
        "Perceptron of 300 and 100 hidden units, four fifths of the images to train on. One recipe "
        f"for both sets: {STEPS.dense} steps of Adam for the dense network, {STEPS.sparse} with "
        f"each way from there on, {STEPS.fine} for the weights that are left; {BATCH} images a "
        f"step, rates {RATE:g}, {SPARSE_RATE:g} and {FINE_RATE:g} that fall as cosines. Dense "
        f"goes on as many steps. Supports: density {DENSITY:g}, runs of {RUN:g}; divergences times "
        f"{KL_WEIGHT:g}, those of variational dropout too; magnitude keeps as many "
        "weights of each layer as turbo; "
        f"norms of groups times {GROUP_LASSO:g} and the root of their size. "
        "FLOPs are those of the dense layers that are left."
    )
    figures = _both(datasets.digits, "digits", quick, report)
    if not quick:
        figures |= _both(datasets.mnist, "mnist", quick, report)
    return figures


def _both(load: Any, name: str, quick: bool, report: Report) -> dict[str, Any]:
    import jax

    scores: dict[str, list[Score]] = {}
    seconds: dict[str, list[float]] = {}
    for seed in range(QUICK_SEEDS if quick else SEEDS):
        of = load(jax.random.key(seed))
        for way, (one, took) in _ways(seed, of, quick).items():
            scores.setdefault(way, []).append(one)
            seconds.setdefault(way, []).append(took)
    rows = []
    for way, each in scores.items():
        accuracy = np.array([s.accuracy for s in each])
        error = accuracy.std(ddof=1) / len(each) ** 0.5 if len(each) > 1 else float("nan")
        middle = [float(np.mean([s[i] for s in each])) for i in (1, 2, 3)]
        units = "-".join(str(round(n)) for n in np.mean([s.units for s in each], axis=0))
        rows.append([way, accuracy.mean(), error, *middle, units, np.median(seconds[way])])
    header = ["", "accuracy", "± s.e.", "weights ÷", "FLOPs ÷", "run length", "units", "s"]
    report.table(f"{name}, {len(scores[DENSE])} seeds", header, rows)
    accuracy = {way: np.array([s.accuracy for s in each]) for way, each in scores.items()}
    runs = {way: np.mean([s.run_length for s in each]) for way, each in scores.items()}
    return {
        f"drop_{name}": _mean(accuracy[DENSE] - accuracy[CHAIN]),
        f"weights_{name}": float(np.mean([s.compression for s in scores[CHAIN]])),
        f"flops_{name}": Figure(float(np.mean([s.flops for s in scores[CHAIN]])), unit="×"),
        f"runs_{name}": runs[CHAIN] / runs[ALONE],
        f"over_magnitude_{name}": _mean(accuracy[CHAIN] - accuracy["magnitude"]),
    }


def _ways(seed: int, of: Any, quick: bool) -> dict[str, tuple[Score, float]]:
    """Scores and seconds, of compilation too, of ways from the same dense network."""
    import jax

    keys = iter(jax.random.split(jax.random.key(100 + seed), 13))
    dense = tuned(next(keys), lenet(seed, of), of, STEPS.dense, RATE)
    found: dict[str, tuple[Score, float]] = {}

    def ended(way: str, make: Any, num_steps: int = STEPS.fine, rate: float = FINE_RATE) -> Any:
        start = time.perf_counter()
        pruned = make(next(keys))
        network = tuned(next(keys), pruned, of, num_steps, rate)
        found[way] = score(network, of), time.perf_counter() - start
        return network

    ended(DENSE, lambda _: dense, STEPS.sparse + STEPS.fine)
    small = ended(CHAIN, lambda key: turbo(key, dense, of, STEPS.sparse, chain=True))
    ended(ALONE, lambda key: turbo(key, dense, of, STEPS.sparse, chain=False))
    counts = [int(np.count_nonzero(w)) for w in weights(small)]
    longer = STEPS.sparse + STEPS.fine
    ended("magnitude", lambda _: magnitude(dense, counts), longer, RATE)
    if quick:
        return found
    ended("group lasso", lambda key: group_lasso(key, dense, of, STEPS.sparse))
    ended("variational dropout", lambda key: variational_dropout(key, dense, of, STEPS.sparse))
    return found


def _mean(differences: np.ndarray) -> Figure:
    """Their mean with two standard errors."""
    middle, count = float(np.mean(differences)), len(differences)
    if count < 2:
        return Figure(middle)
    error = 2 * float(np.std(differences, ddof=1)) / count**0.5
    return Figure(middle, middle - error, middle + error)


BENCHMARK = Benchmark(
    name="bnn-turbo",
    claim="weights in runs, a tenth of them or fewer, predict as well as the dense network",
    source="Xia, Tsang and Lau 2023 (structured Bayesian compression by turbo-VBI)",
    targets=TARGETS,
    run=run,
)
