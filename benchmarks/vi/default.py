"""One call without options on ten posteriors with reference draws, beside what else there is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks._declare import Benchmark, Figure, Target
from benchmarks._report import Report

MEAN_WITHIN, SD_WITHIN = 0.1, 0.15

TARGETS = (
    Target("close", "==", 14, quick=1, meaning="means within 0.1 and sds within 15 %"),
    Target(
        "unflagged", "==", 0, meaning="fits that are not close and say that they can be trusted"
    ),
    Target("impossible", "==", 0, meaning="trusted fits whose evidence other draws contradict"),
    Target("time", "<=", 1.0, quick=None, unit="×", meaning="worst of ours ÷ fastest close peer"),
)
QUICK = ("kidiq-kidscore_momhsiq",)
DRAWS = 4000
UNITS = (1e3, 1e-3)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """The same call for all; peers run to the same accuracy or to their limit."""
    import jax

    from benchmarks.vi.posteriordb import load, MODELS, REGRESSIONS

    try:
        posteriors = [(name, load(name)) for name in (QUICK if quick else tuple(MODELS))]
        if not quick:
            posteriors += [
                (f"{name}, columns × 1e3, 1e-3", load(name, UNITS)) for name in REGRESSIONS
            ]
    except FileNotFoundError as error:
        return {target.figure: Figure.not_measured(str(error)) for target in TARGETS}
    with jax.enable_x64(True):
        return _run(quick, posteriors, report)


def _run(quick: bool, posteriors: list[tuple[str, Any]], report: Report) -> Mapping[str, Any]:
    from benchmarks.vi._default_peers import PEERS, run_ours

    report.note(
        f"ours: vi.fit_posterior(key, model) and {DRAWS} draws of fit.sample, no option for any "
        "model. Errors: the worst parameter, means in reference sds, sds relative. Seconds without "
        "compilation (a second call); compilation of the first call beside them. Peers: "
        "AutoMultivariateNormal with Adam 1e-2 to 1e-4, as many steps as the errors need (judged "
        "with the reference, up to 20 000); NUTS, 500 + 1000 draws; BlackJAX multi-path "
        "Pathfinder, 4 paths, its weights; gsmvi where it is installed (5 000 steps of 2 draws)."
    )
    rows, close, unflagged, impossible, ratios = [], 0, [], [], {}
    for name, posterior in posteriors:
        ours = run_ours(posterior, DRAWS)
        is_close = ours.close(MEAN_WITHIN, SD_WITHIN)
        close += is_close
        unflagged += [name] if ours.reliable and not is_close else []
        impossible += [name] if ours.reliable and ours.impossible else []
        rows.append([name, "ours", *ours.cells()])
        peers = [] if quick else [peer(posterior, MEAN_WITHIN, SD_WITHIN) for peer in PEERS]
        for peer in peers:
            rows.append([name, peer.name, *peer.cells()])
        reached = [peer.seconds for peer in peers if peer.close(MEAN_WITHIN, SD_WITHIN)]
        if reached:
            ratios[name] = ours.seconds / min(reached)
    header = ["posterior", "method", "mean error", "sd error", "k-hat", "seconds", "compile"]
    report.table("One call without options", header, rows)
    figures: dict[str, Any] = {
        "close": close,
        "unflagged": Figure(len(unflagged), note=", ".join(unflagged)),
        "impossible": Figure(len(impossible), note=", ".join(impossible)),
    }
    if not quick:
        worst = max(ratios, key=lambda name: ratios[name]) if ratios else ""
        figures["time"] = Figure(ratios.get(worst, 0.0), note=worst)
    return figures


BENCHMARK = Benchmark(
    name="vi-default",
    claim="one call without options fits, or says that it does not",
    source="posteriordb; Cai et al. (2024), batch and match; Vehtari et al. (2024), k-hat",
    targets=TARGETS,
    run=run,
)
