"""Variance of gradients: by strategy beside NumPyro's, and by family as the dimension grows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

TARGETS = (
    Target("C", "<=", 0.5, 0.7, "×", "C, variance × time of our best strategies ÷ NumPyro's"),
    Target("D", "<=", 0.5, 0.7, "×", "D, variance × time of our best strategy ÷ NumPyro's"),
    Target("meanfield_slope", "<=", 0.2, meaning="largest slope of a mean-field guide"),
    Target("lowrank_slope", "<=", 0.2, meaning="largest slope of a low-rank guide"),
    Target("fullrank_slope_low", ">=", 0.8, quick=0.7, meaning="smallest, full-rank"),
    Target("fullrank_slope_high", "<=", 1.2, meaning="largest, full-rank"),
    Target("above_bound", "<=", 1.0, meaning="largest E‖g‖² over the bound of theory"),
    Target("landing", "<=", 1e-20, meaning="variance of stl at the posterior"),
)
DIMS, QUICK_DIMS = (4, 8, 16, 32, 64, 128, 256, 512), (8, 64)
LOW_RANK_FROM = 8  # five factors need five dimensions
# Of a heavy-tailed base the kurtosis hides the growth in few dimensions: the full-rank variance
# over the squared distance is d + 9, against d + 3 for a normal one.
STUDENT_FROM = 16
DRAWS, QUICK_DRAWS = 1500, 400


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Strategies on tasks C and D in float32, then families in float64."""
    import jax

    from benchmarks.vi.variance_tasks import tasks

    figures = tasks(quick, report)
    with jax.enable_x64(True):
        return figures | slopes(quick, report)


def slopes(quick: bool, report: Report) -> dict[str, Any]:
    """Gradient variance against dimension, for families, conditioners and targets."""
    from benchmarks.vi.slopes import (
        FAMILIES,
        gaussian_moments,
        landing_variance,
        logistic,
        Moments,
        quadratic,
        slope,
        student_moments,
    )

    dims, draws = (QUICK_DIMS, QUICK_DRAWS) if quick else (DIMS, DRAWS)
    report.note(
        f"Total variance of one gradient over {draws} draws at location 1, scale 1, divided by the "
        "squared distance to the optimal parameters; the slope is fitted to the logarithms. "
        "Energy by reparameterisation, entropy in closed form."
    )
    series: dict[str, dict[int, Moments]] = {}
    conditioners = ("linear",) if quick else ("linear", "softplus", "exp")
    settings = [(1.0, name) for name in conditioners] + [(100.0, "softplus")]
    for family in FAMILIES:
        some = [d for d in dims if family != "low-rank(5)" or d >= LOW_RANK_FROM]
        for condition, name in settings:
            kind = "isotropic" if condition == 1 else f"condition {condition:g}"
            series[f"{family}, {kind}, {name}"] = {
                d: gaussian_moments(quadratic(d, condition), family, name, draws) for d in some
            }
        if quick:
            continue
        many = draws if family == "full-rank" else 10 * draws  # its variance has a heavy tail
        series[f"{family}, isotropic, Student's t base"] = {
            d: student_moments(quadratic(d, 1.0), family, many) for d in some if d >= STUDENT_FROM
        }
    report.table(
        "Variance over squared distance, and its slope",
        ["", *(f"d={d}" for d in dims), "slope", "largest E‖g‖² / bound"],
        [
            [
                label,
                *(moments[d].normalised if d in moments else "" for d in dims),
                slope(moments),
                max(m.square / m.bound for m in moments.values()),
            ]
            for label, moments in series.items()
        ],
    )
    _chart(series, report)
    regression = [] if quick else _regression(report, logistic, gaussian_moments, FAMILIES, draws)
    landing = landing_variance(8, draws)
    everything = [m for moments in series.values() for m in moments.values()] + regression
    by_family = {
        family: [slope(m) for label, m in series.items() if label.startswith(family)]
        for family in FAMILIES
    }
    return {
        "meanfield_slope": max(by_family["mean-field"]),
        "lowrank_slope": max(by_family["low-rank(5)"]),
        "fullrank_slope_low": min(by_family["full-rank"]),
        "fullrank_slope_high": max(by_family["full-rank"]),
        "above_bound": max(m.square / m.bound for m in everything),
        "landing": landing["stl"],
        "closed_form_there": landing["analytic"],
    }


def _regression(
    report: Report, logistic: Any, moments_of: Any, families: Any, draws: int
) -> list[Any]:
    dims = (10, 50)
    found = {
        (family, d): moments_of(logistic(d), family, "softplus", draws)
        for family in families
        for d in dims
    }
    report.table(
        "Variance over squared distance, logistic regression on 500 rows, mode + 1, scale 1",
        ["", *(f"d={d}" for d in dims), *(f"E‖g‖² / bound, d={d}" for d in dims)],
        [
            [
                family,
                *(found[family, d].normalised for d in dims),
                *(found[family, d].square / found[family, d].bound for d in dims),
            ]
            for family in families
        ],
    )
    return list(found.values())


def _chart(series: Mapping[str, Mapping[int, Any]], report: Report) -> None:
    lines = {
        label.partition(",")[0]: ([*moments], [m.normalised for m in moments.values()])
        for label, moments in series.items()
        if label.endswith("isotropic, linear")
    }
    report.lines(
        "Gradient variance over squared distance", "dimension", "variance", lines, log="xy"
    )


BENCHMARK = Benchmark(
    name="vi-variance",
    claim="gradients per second of half the noise; in families it grows for full-rank guides only",
    source="Becker et al. 2024 (PLDI); Kim, Wu, Oh and Gardner (2023)",
    targets=TARGETS,
    run=run,
)
