"""The shipped networks of tables beside scikit-learn's estimators on small real tables."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report
from benchmarks.amortized import _tables as tables

ROWS, VALUE_ROWS = 30, 90
VALUES = "table-values"  # the network of real targets
SPLITS = {"full": (20, 5), "quick": (3, 1)}
QUICK_SETS = ("breast cancer", "moons", "iris", "diabetes")

TARGETS = (
    Target(
        "wins", ">=", 0.5, quick=0.25, meaning="share of tables with the lowest log loss, 30 rows"
    ),
    Target("ece", "<=", 1.0, quick=2.0, unit="×", meaning="mean ECE ÷ lowest of the baselines"),
    Target("seconds", "<=", 2.0, unit="s", meaning="a data set: fit and 500 predictions"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Log loss and calibration of classes; log score of real targets."""
    from bayesjx import amortized

    size = "quick" if quick else "full"
    class_splits, value_splits = SPLITS[size]
    sets = tables.class_tables()
    if quick:
        sets = {name: sets[name] for name in QUICK_SETS}
    warm = _warm_up()
    loss, error, seconds = _classes(sets, class_splits)
    names = list(next(iter(loss.values())))
    report.table(
        f"log loss with {ROWS} labelled rows, mean of {class_splits} splits",
        ["", *names, "network less best", "standard error"],
        [[name, *(each[m].mean() for m in names), *_lead(each)] for name, each in loss.items()],
    )
    report.table(
        "expected calibration error, ten bins, all splits together",
        ["", *names],
        [[name, *(each[m] for m in names)] for name, each in error.items()],
    )
    report.table("seconds of a split", ["", *names], [["", *(seconds[m] for m in names)]])
    wins = [_lead(each)[0] <= 0 for each in loss.values()]
    mean_error = {m: float(np.mean([each[m] for each in error.values()])) for m in names}
    best = min(value for name, value in mean_error.items() if name != "network")
    report.note("`tabpfn` downloads its weights, and is not compared.")
    figures = {
        "wins": Figure(float(np.mean(wins)), note=f"{sum(wins)} of {len(wins)} tables"),
        "ece": Figure(mean_error["network"] / best),
        "seconds": Figure(seconds["network"]),
        "compile": Figure(warm, unit="s"),
    }
    if VALUES in amortized.pretrained_names():
        return {**figures, **_values(report, value_splits, quick)}
    report.note("No network of real targets comes with the package.")
    return figures


def _lead(each: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The network's loss less that of the best baseline, and its standard error over splits."""
    best = min((m for m in each if m != "network"), key=lambda m: each[m].mean())
    gap = each["network"] - each[best]
    return float(gap.mean()), float(gap.std(ddof=1) / len(gap) ** 0.5) if len(gap) > 1 else 0.0


def _warm_up() -> float:
    """Seconds that it takes until the first predictions."""
    from bayesjx.interop import PFNClassifier

    started = time.perf_counter()
    rng = np.random.default_rng(0)
    x, new = rng.normal(size=(ROWS, 3)), rng.normal(size=(9, 3))
    PFNClassifier().fit(x, np.arange(ROWS) % 2).predict_proba(new)
    return time.perf_counter() - started


def _classes(sets: Mapping[str, tables.Table], count: int) -> tuple[dict, dict, dict]:
    """Log losses of splits, calibration errors, and mean seconds, of each method."""
    from bayesjx.interop import PFNClassifier

    makers = {"network": lambda _: PFNClassifier(), **tables.classifiers()}
    loss: dict[str, dict] = {}
    error: dict[str, dict] = {}
    seconds = dict.fromkeys(makers, 0.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, table in sets.items():
            parts = list(tables.splits(table, ROWS, count, True))
            loss[name], error[name] = {}, {}
            truth = np.concatenate([part[3] for part in parts])
            for method, make in makers.items():
                started = time.perf_counter()
                probs = [
                    _probs(make(np.bincount(y_in).min()).fit(x_in, y_in), x_out)
                    for x_in, y_in, x_out, _ in parts
                ]
                seconds[method] += (time.perf_counter() - started) / len(parts) / len(sets)
                each = [
                    -np.log(p[np.arange(len(y)), y]).mean()
                    for p, (_, _, _, y) in zip(probs, parts, strict=True)
                ]
                loss[name][method] = np.asarray(each)
                error[name][method] = tables.calibration_error(np.concatenate(probs), truth)
    return loss, error, seconds


def _probs(model: Any, x: np.ndarray) -> np.ndarray:
    """Probabilities, those of neighbours with one more of each class, so that none is 0."""
    probs = model.predict_proba(x)
    if hasattr(model, "best_params_"):
        k = model.best_params_["kneighborsclassifier__n_neighbors"]
        probs = (k * probs + 1 / probs.shape[1]) / (k + 1)
    probs = np.clip(probs, 1e-6, 1)
    return probs / probs.sum(axis=1, keepdims=True)


def _values(report: Report, count: int, quick: bool) -> dict[str, Any]:
    """Log scores of real targets in units of their standard deviation."""
    from scipy import stats

    from bayesjx.interop import PFNRegressor

    sets = tables.value_tables()
    if quick:
        sets = {"diabetes": sets["diabetes"]}
    peers = tables.regressors()
    rows, wins, inside = [], [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, table in sets.items():
            score: dict[str, list] = {method: [] for method in ("network", *peers)}
            for x_in, y_in, x_out, y_out in tables.splits(table, VALUE_ROWS, count, False):
                new = PFNRegressor(VALUES).fit(x_in, y_in).predict_distribution(x_out)
                score["network"].append(-float(new.log_prob(y_out.astype(np.float32)).mean()))
                inside.append(np.mean(np.abs(np.asarray(new.cdf(y_out)) - 0.5) < 0.45))
                for method, predict in peers.items():
                    mean, scale = predict(x_in, y_in, x_out)
                    scores = stats.norm(mean, np.maximum(scale, 1e-3)).logpdf(y_out)
                    score[method].append(-float(scores.mean()))
            each = {method: np.asarray(values) for method, values in score.items()}
            rows.append([name, *(each[m].mean() for m in each), *_lead(each)])
            wins.append(_lead(each)[0] <= 0)
    report.table(
        f"negative log density with {VALUE_ROWS} rows, mean of {count} splits",
        ["", "network", *peers, "network less best", "standard error"],
        rows,
    )
    return {
        "value_wins": Figure(float(np.mean(wins)), note=f"{sum(wins)} of {len(wins)} tables"),
        "coverage": Figure(float(np.mean(inside)), note="of targets, by 90 % intervals"),
    }


BENCHMARK = Benchmark(
    name="am-pfn-tabular",
    claim="on half of small tables the shipped network has the lowest log loss, and the lowest ECE",
    source="Müller et al. (2022), ICLR, table 1; Hollmann et al. (2025), Nature 637",
    targets=TARGETS,
    run=run,
)
