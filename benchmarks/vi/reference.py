"""Ten posteriors with reference draws: one recipe for all, with families beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

MEAN_WITHIN, SD_WITHIN = 0.2, 0.3
SLACK = 0.1  # of a score, for the Monte Carlo error of comparing two fits
UNRELIABLE = 0.7  # k-hat

TARGETS = (
    Target("close", ">=", 8, quick=1, meaning="posteriors with means within 0.2, sds within 30 %"),
    Target("worse", "==", 0, meaning="posteriors where NumPyro's full-rank guide is closer"),
    Target("unflagged", "==", 0, meaning="posteriors that are not close, with k-hat below 0.7"),
)
QUICK = ("kidiq-kidscore_momhsiq",)
FAMILIES, QUICK_FAMILIES = ("mean-field", "full-rank", "flow"), ("full-rank",)
SECONDS, QUICK_SECONDS = 4.0, 1.0  # of a fit
DRAWS, QUICK_DRAWS = 20_000, 5_000


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """The recipe is that of the page, `vi.fit_posterior(key, model)`; families are beside it."""
    import jax

    from benchmarks.vi.posteriordb import load, MODELS

    names = QUICK if quick else tuple(MODELS)
    try:
        posteriors = [load(name) for name in names]
    except FileNotFoundError as error:
        return {target.figure: Figure.not_measured(str(error)) for target in TARGETS}
    with jax.enable_x64(True):
        return _run(quick, posteriors, report)


def _run(quick: bool, posteriors: list[Any], report: Report) -> Mapping[str, Any]:
    from benchmarks.vi.fits import by_default, fit_all

    families = QUICK_FAMILIES if quick else FAMILIES
    budget, draws = (QUICK_SECONDS, QUICK_DRAWS) if quick else (SECONDS, DRAWS)
    report.note(
        "Judged is vi.fit_posterior(key, model), one call without options for every model; its "
        "seconds are of a second call. For comparison NumPyro (AutoMultivariateNormal, Trace_ELBO, "
        f"{budget:g} s of Adam, rate from 1e-2 to 1e-4) and our families from Pathfinder, with the "
        "same optimiser and wall time, compilation excluded on all sides; a structured guide for "
        f"the model that has a plate. Errors over {draws} draws, the worst parameter; a score of "
        "at most 1 is means within 0.2 reference sd and sds within 30 %."
    )
    rows, close, worse, unflagged = [], 0, [], []
    for posterior in posteriors:
        theirs, ours = fit_all(posterior, _families_for(posterior.name, families), budget, draws)
        best = by_default(posterior, draws)
        for fit in (theirs, *ours, best):
            marked = fit.family + (" *" if fit is best else "")
            rows.append([posterior.name, marked, *_cells(fit)])
        is_close = best.score <= 1
        close += is_close
        if best.score > theirs.score + SLACK:
            worse.append(posterior.name)
        if not is_close and best.k_hat < UNRELIABLE:
            unflagged.append(posterior.name)
    header = ["posterior", "guide", "bound", "k-hat", "mean error", "sd error", "score"]
    report.table("Fits (*: the one that is judged)", [*header, "steps", "seconds"], rows)
    return {
        "close": close,
        "worse": Figure(len(worse), note=", ".join(worse)),
        "unflagged": Figure(len(unflagged), note=", ".join(unflagged)),
    }


def _families_for(name: str, families: tuple[str, ...]) -> tuple[str, ...]:
    return (*families, "structured") if "schools" in name else families  # the one with a plate


def _cells(fit: Any) -> list[Any]:
    errors = [fit.mean_error, fit.sd_error, fit.score]
    return [fit.bound, fit.k_hat, *errors, fit.steps, fit.seconds]


BENCHMARK = Benchmark(
    name="vi-reference",
    claim="guides are as close to reference posteriors as variational inference gets, or flagged",
    source="posteriordb; Zhang et al. (2022) for Pathfinder; Vehtari et al. (2024) for k-hat",
    targets=TARGETS,
    run=run,
)
