"""Pictures of a calibration report, and the report with labels."""

from __future__ import annotations

import math
from typing import Any, TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ._report import CalibrationReport

_GOOD, _BAD, _GREY = "#2b6cb0", "#dd6b20", "#a0aec0"


def plot_report(report: CalibrationReport, max_quantities: int) -> Any:
    """One panel for each quantity, and one of the expected coverage of all together."""
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "plot needs Matplotlib, which is optional: pip install bayesjx[plots]"
        ) from error
    tests, names = report.sbc.uniformity, report.sbc.names
    shown = np.argsort(np.asarray(tests.p_value), kind="stable")[: max(1, max_quantities)]
    panels = len(shown) + (report.tarp is not None)
    columns = min(panels, 4)
    rows = math.ceil(panels / columns)
    size = (2.6 * columns, 2.3 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    points = np.asarray(tests.points)
    band = [np.asarray(end) - points for end in (tests.lower, tests.upper)]
    for axis, i in zip(axes.flat, np.sort(shown), strict=False):
        fine = report.findings[names[i]] == "fine"
        axis.fill_between(points, *band, color=_GREY, alpha=0.4, linewidth=0)
        axis.step(points, np.asarray(tests.ecdf[i]) - points, color=_GOOD if fine else _BAD)
        axis.set_title(f"{names[i]}: {report.findings[names[i]].split(',')[0].split(':')[0]}")
        axis.set(xlabel="rank of the truth", ylabel="ECDF − uniform")
    if report.tarp is not None:
        _plot_coverage(axes.flat[len(shown)], report)
    for axis in axes.flat[panels:]:
        axis.set_visible(False)
    for axis in axes.flat:
        axis.title.set_fontsize("small")
    return figure


def _plot_coverage(axis: Any, report: CalibrationReport) -> None:
    joint = report.tarp
    assert joint is not None
    levels, ends = np.asarray(joint.levels), (np.asarray(joint.lower), np.asarray(joint.upper))
    colour = _GOOD if report.joint == "fine" else _BAD
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.8)
    axis.fill_between(levels, *ends, color=colour, alpha=0.25, linewidth=0)
    axis.plot(levels, np.asarray(joint.coverage), color=colour)
    axis.set(xlabel="credibility level", ylabel="expected coverage")
    axis.set_title("together: " + ("fine" if report.joint == "fine" else "wrong"))


def report_tree(report: CalibrationReport) -> Any:
    """Groups `prior_sbc`, `tests`, `coverage` and, of several quantities, `tarp`."""
    try:
        import xarray
    except ImportError as error:
        raise ImportError(
            "to_datatree needs xarray, which is optional: pip install bayesjx[xarray]"
        ) from error
    sbc, tests, inside = report.sbc, report.sbc.uniformity, report.coverage
    names = {"quantity": list(sbc.names)}
    ranks = np.asarray(sbc.ranks)
    groups = {
        "/": xarray.Dataset(
            attrs={
                "verdict": report.verdict,
                "calibrated": int(report.calibrated),
                "num_draws": sbc.num_draws,
                "level": report.level,
            }
        ),
        # as ArviZ has them: data sets are its draws
        "prior_sbc": xarray.Dataset(
            {n: (("chain", "draw"), r[None]) for n, r in zip(sbc.names, ranks, strict=True)},
            coords={"chain": [0], "draw": np.arange(report.num_datasets)},
        ),
        "tests": xarray.Dataset(
            {
                name: ("quantity", np.asarray(getattr(tests, name)))
                for name in (
                    "score_mean", "score_scale", "p_value", "p_mean", "p_scale", "p_ecdf", "p_ks",
                    "p_chi2",
                )
            }
            | {
                "crps": ("quantity", report.crps),
                "finding": ("quantity", list(report.findings.values())),
                "ecdf": (("quantity", "point"), np.asarray(tests.ecdf)),
                "lower": ("point", np.asarray(tests.lower)),
                "upper": ("point", np.asarray(tests.upper)),
            },
            coords=names | {"point": np.asarray(tests.points)},
        ),
        "coverage": xarray.Dataset(
            {
                "coverage": (("quantity", "level"), np.asarray(inside.coverage)),
                "width": (("quantity", "level"), np.asarray(inside.width)),
            },
            coords=names | {"level": np.asarray(inside.levels)},
        ),
    }  # fmt: skip
    if report.tarp is not None:
        groups["tarp"] = xarray.Dataset(
            {
                name: ("level", np.asarray(getattr(report.tarp, name)))
                for name in ("coverage", "lower", "upper")
            },
            coords={"level": np.asarray(report.tarp.levels)},
            attrs={"p_value": float(report.tarp.p_value), "finding": report.joint},
        )
    return xarray.DataTree.from_dict(groups)
