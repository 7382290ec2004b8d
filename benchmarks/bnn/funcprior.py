"""Networks whose prior is matched to a Gaussian process, beside fixed priors and ensembles."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report
from benchmarks.bnn._funcprior_runs import (
    BATCH,
    CHAINS,
    matched,
    MEMBERS,
    Score,
    scores,
    Size,
    THIN,
    WIDTH,
)
from benchmarks.gp._uci import load

SETS = ("yacht", "housing", "energy", "concrete", "airfoil")  # the five smallest
FOLDS, QUICK_FOLDS = (1, 2, 3), (1,)  # of the same sizes in each set, which saves programs
FULL = Size(matching=200, burn_in=2000, steps=8000, training=2000)
QUICK = Size(matching=100, burn_in=1000, steps=3000, training=1000)
OURS, FIXED = "matched prior", "N(0, 1)"
ENSEMBLES = ("deep ensemble", "deep ensemble, N(0, 1 / inputs)")

TARGETS = (
    *(
        Target(
            f"gain_{name}",
            ">",
            0.0,
            quick="same" if name == SETS[0] else None,
            unit="nats",
            meaning=f"test NLL of N(0, 1) − matched prior, {name}",
        )  # fmt: skip
        for name in SETS
    ),
    Target("ensembles", ">=", 3, quick=None, meaning="sets where it beats the better ensemble"),
    Target("distance", ">=", 3.0, unit="×", meaning="least W1 of N(0, 1) ÷ of the matched prior"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Prior distances of each set, then predictions of each split."""
    sets, folds = (SETS[:1], QUICK_FOLDS) if quick else (SETS, FOLDS)
    size = QUICK if quick else FULL
    report.note(
        f"Networks 1×{WIDTH} tanh on standardised data, {len(folds)} splits each, one recipe. "
        "Target process: squared exponential, lengthscale √(2D), variance 1. Normal prior, a "
        "scale for each leaf, matched on training inputs of the first split by sliced Wasserstein "
        f"distances in {size.matching} steps; the responses "
        "are not used. Noise variance: that of largest evidence under the target process, found on "
        "the training rows of each split and the same for all methods. Posteriors: sghmc, "
        f"{CHAINS} chains, {size.steps} steps, {size.burn_in} of burn-in, batches of {BATCH}, "
        f"each {THIN}th state. Ensembles: {MEMBERS} networks, {size.training} steps of Adam, by "
        "the likelihood alone and with the prior N(0, 1 / inputs); the better one counts."
    )
    distances, found = {}, {}
    for name in sets:
        first = load(name, folds[0])
        prior, *distances[name] = matched(name, first.train_x, first.test_x, size)
        found[name] = [scores(load(name, fold), fold, prior, size) for fold in folds]
        _table(name, found[name], report)
    ratios = {name: before / after for name, (before, after, _) in distances.items()}
    report.table(
        "Sliced Wasserstein distance to the process, at test inputs and with new functions",
        ["", "N(0, 1)", "matched", "two halves of the process", "N(0, 1) ÷ matched"],
        [[name, *each, ratios[name]] for name, each in distances.items()],
    )
    figures: dict[str, Any] = {"distance": min(ratios.values())}
    wins = 0
    for name, runs in found.items():
        nll = {m: np.array([s[m].nll for s, *_ in runs]) for m in runs[0][0]}
        figures[f"gain_{name}"] = _difference(nll[FIXED] - nll[OURS])
        other = min((nll[m] for m in ENSEMBLES), key=np.mean)
        figures[f"over_ensemble_{name}"] = _difference(other - nll[OURS])
        wins += float(np.mean(other - nll[OURS])) > 0
    return figures | {"ensembles": wins}


def _table(name: str, runs: Sequence[Any], report: Report) -> None:
    rows = []
    for method in runs[0][0]:
        each = np.array([found[method] for found, *_ in runs])
        mean, error = Score(*each.mean(axis=0)), _error(each)
        rows.append([method, mean.nll, error[0], mean.rmse, error[1]])
    r_hat, noise = (np.mean([run[i] for run in runs]) for i in (1, 2))
    title = f"{name}: noise variance {noise:.3g}, R̂ of nine tenths of predictions ≤ {r_hat:.3f}"
    report.table(title, ["", "test NLL", "± s.e.", "RMSE", "± s.e."], rows)


def _error(each: np.ndarray) -> np.ndarray:
    """Standard errors of means over splits."""
    if len(each) < 2:
        return np.full(each.shape[1:], math.nan)
    return np.std(each, axis=0, ddof=1) / math.sqrt(len(each))


def _difference(each: np.ndarray) -> Figure:
    """Mean over splits with two standard errors."""
    middle, error = float(np.mean(each)), 2 * float(_error(each[:, None])[0])
    return Figure(middle) if math.isnan(error) else Figure(middle, middle - error, middle + error)


BENCHMARK = Benchmark(
    name="bnn-funcprior",
    claim="a prior matched to a Gaussian process predicts better than N(0, 1) and than ensembles",
    source="Tran, Rossi, Milios and Filippone 2022, section 5 (UCI regression)",
    targets=TARGETS,
    run=run,
)
