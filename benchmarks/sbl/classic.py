"""Classic sparse Bayesian learning beside scikit-learn's ARDRegression, LassoCV and OMP."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

SMALL, LARGE, QUICK_LARGE = (100, 256, 20), (2000, 5000, 100), (400, 1000, 20)
SEEDS, QUICK_SEEDS = 20, 5
SPLITS, QUICK_SPLITS = 5, 2
BATCH = 64
ROUNDS, QUICK_ROUNDS = 5, 2
PATIENCE = 8.0  # in units of our time, after which ARDRegression is stopped on the large problem

TARGETS = (
    Target("nmse", "<=", 1.0, unit="×", meaning="drawn problems: NMSE ÷ ARDRegression's, medians"),
    Target("real", "<=", 1.0, unit="×", meaning="real sets: test NMSE ÷ ARDRegression's, median"),
    Target("evidence", ">=", 0.0, meaning="drawn problems: least log evidence over ARD's"),
    Target("evidence_real", ">=", 0.0, meaning="real data: least log evidence over ARD's"),
    Target("sooner", ">=", 1.0, unit="×", meaning="least of its time ÷ ours in those fits"),
    Target("large", ">=", 5.0, quick=2.0, unit="×", meaning="one large problem: its time ÷ ours"),
    Target("batch", ">=", 20.0, quick=10.0, unit="×", meaning="64 problems: its time ÷ ours, vmap"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Evidence and errors in float64; times in the default float32 of JAX, and in float64."""
    import jax

    try:
        import sklearn  # noqa: F401
    except ImportError:
        return {t.figure: Figure.not_measured("scikit-learn is not installed") for t in TARGETS}
    n, m, k = SMALL
    large = QUICK_LARGE if quick else LARGE
    report.note(
        "One recipe for all: `sbl.sbl(design, y)` without options, and ARDRegression and LassoCV "
        "as they come; OMP is told the number of weights. Drawn problems: Gaussian designs of "
        f"{n} × {m} with {k} normal weights at 20 dB. Real sets: 150 rows in 200 random cosines, "
        "of which there are more than rows; errors on all other rows. The evidence is that of each "
        "fit's variances, computed alike; ours takes less time in each fit, so it is compared "
        f"after no more than equal time. Large: {large[0]} × {large[1]} with {large[2]} weights. "
        "Where scikit-learn computes in two precisions it has the time of the faster one, in one "
        "thread but for the large problem, where it is stopped after "
        f"{PATIENCE:.0f} times our time, which then bounds the ratio from below."
    )
    with jax.enable_x64(True):
        figures = _quality(quick, report)
    figures |= _batch(quick, report)
    figures |= _large(large, report)
    return figures


def _quality(quick: bool, report: Report) -> dict[str, Any]:
    from benchmarks.sbl import _linear

    seeds = QUICK_SEEDS if quick else SEEDS
    problems = {"drawn": [_linear.drawn(seed, *SMALL) for seed in range(seeds)]}
    splits = QUICK_SPLITS if quick else SPLITS
    sets = _linear.real_sets()
    for name in list(sets)[:2] if quick else sets:
        problems[name] = [_linear.expanded(*sets[name], seed) for seed in range(splits)]
    rows, sooner, ratios, least = [], [], {}, {}
    for name, each in problems.items():
        errors: dict[str, list[float]] = {}
        margins = []
        for problem in each:
            fits = {"sbl": _linear.ours(problem), "ARDRegression": _linear.ard(problem)}
            mine, theirs = fits["sbl"], fits["ARDRegression"]
            margins.append(_linear.evidence(problem, mine) - _linear.evidence(problem, theirs))
            sooner.append(theirs.seconds / mine.seconds)
            fits |= _linear.others(problem, SMALL[2])
            for method, fit in fits.items():
                errors.setdefault(method, []).append(problem.error(fit.weights))
        middle = {method: float(np.median(values)) for method, values in errors.items()}
        ratios[name] = middle["sbl"] / middle["ARDRegression"]
        least[name] = min(margins)
        rows.append([name, len(each), *middle.values(), least[name], float(np.median(margins))])
    header = ["problems", "number", *middle, "evidence over ARD's, least", "median"]
    report.table("Median NMSE", header, rows)
    real = [ratio for name, ratio in ratios.items() if name != "drawn"]
    return {
        "nmse": ratios["drawn"],
        "real": float(np.median(real)),
        "real_worst": max(real),
        "evidence": least["drawn"],
        "evidence_real": min(least[name] for name in least if name != "drawn"),
        "sooner": min(sooner),
    }


def _batch(quick: bool, report: Report) -> dict[str, Any]:
    """Time of 64 problems at once, and of scikit-learn's loop over them."""
    import jax
    import jax.numpy as jnp

    from bayesjx import sbl
    from benchmarks import median, paired_ratio
    from benchmarks.sbl import _linear

    problems = [_linear.drawn(seed, *SMALL) for seed in range(BATCH)]
    designs, ys = (np.stack([p[i] for p in problems]) for i in (0, 1))
    programs = {}
    for bits in (32, 64):
        with jax.enable_x64(bits == 64):
            arguments = jnp.asarray(designs), jnp.asarray(ys)
            learn = jax.jit(jax.vmap(lambda design, y: sbl.sbl(design, y).mean))
            programs[bits] = learn.lower(*arguments).compile(), arguments
    times: dict[Any, list[float]] = {32: [], 64: [], "scikit-learn": []}
    for _ in range(QUICK_ROUNDS if quick else ROUNDS):
        for bits, (program, arguments) in programs.items():
            jax.block_until_ready(program(*arguments))
            begun = time.perf_counter()
            jax.block_until_ready(program(*arguments))
            times[bits].append(time.perf_counter() - begun)
        times["scikit-learn"].append(_faster(problems)[0])
    rows = [[str(name), median(values, "s")] for name, values in times.items()]
    report.table(f"Seconds for {BATCH} problems", ["float, or", "seconds"], rows)
    return {
        "batch": paired_ratio(np.array(times["scikit-learn"]), np.array(times[32])),
        "batch_float64": paired_ratio(np.array(times["scikit-learn"]), np.array(times[64])),
    }


def _large(size: tuple[int, int, int], report: Report) -> dict[str, Any]:
    """Time of one problem with more columns than rows, after compilation."""
    import jax

    from benchmarks.sbl import _linear

    problem = _linear.drawn(0, *size)
    fits = {"sbl, float32": _linear.ours(problem)}
    with jax.enable_x64(True):
        fits["sbl, float64"] = _linear.ours(problem)
    limit = PATIENCE * fits["sbl, float32"].seconds
    theirs, kind, fit = _faster([problem], limit)
    if fit is not None:
        fits[f"ARDRegression, {kind}"] = fit
    rows = [
        [name, fit.seconds, problem.error(fit.weights), _linear.evidence(problem, fit)]
        for name, fit in fits.items()
    ]
    if fit is None:
        rows.append(["ARDRegression, stopped", theirs, "—", "—"])
    report.table("One large problem", ["", "seconds", "NMSE", "log evidence"], rows)
    return {
        "large": theirs / fits["sbl, float32"].seconds,
        "large_float64": theirs / fits["sbl, float64"].seconds,
    }


def _faster(problems: list[Any], limit: float = np.inf) -> tuple[float, str, Any]:
    """Seconds of ARDRegression in the faster precision, its name, and the last fit.

    A precision is stopped at the limit, and single precision, in which it often does all its steps,
    where double was done; the fit is None if both were stopped.
    """
    from benchmarks.sbl import _linear

    best: tuple[float, str, Any] = (limit, "", None)
    for dtype in ("float64", "float32"):
        spent = 0.0
        try:
            for problem in problems:
                fit = _linear.ard(problem, dtype, max(best[0] - spent, 1e-3))
                spent += fit.seconds
        except TimeoutError:
            continue
        if spent < best[0]:
            best = spent, dtype, fit
    return best


BENCHMARK = Benchmark(
    name="sbl-classic",
    claim="sparse Bayesian learning has no larger error and no lower evidence than scikit-learn's, "
    "in a fraction of the time",
    source="Tipping 2001; Wipf and Nagarajan 2008; MacKay 1992",
    targets=TARGETS,
    run=run,
)
