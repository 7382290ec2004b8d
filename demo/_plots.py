"""What the pictures of all parts share: colours, and panels that draw a report on given axes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from PIL import Image
from scipy.stats import gaussian_kde

from ._study import Report, Row

INK, GREY, PALE = "#222222", "#8a8a8a", "#d4d4d4"
# Okabe and Ito's palette, which stays distinct under colour blindness; then line styles.
COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#6a4c93", INK]
DASHES = ["-", "--", "-.", (0, (1, 1))]
STYLE = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "font.size": 9,
    "grid.color": "#ececec",
    "legend.fontsize": 8,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "xtick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.color": GREY,
    "ytick.labelcolor": INK,
}
BAND = (0.05, 0.95)  # quantiles of every interval that is drawn


def save(figure: Any, path: Path) -> Path:
    """Write the picture and forget the figure."""
    figure.savefig(path)
    plt.close(figure)
    return path


def shrink(picture: Path, path: Path) -> Path:
    """A copy with 256 colours, small enough for a repository."""
    with Image.open(picture) as image:
        colours = image.convert("RGB").quantize(
            256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE
        )
        colours.save(path, optimize=True)
    return path


def draws(row: Row, name: str, **labels: Any) -> np.ndarray:
    """Draws of a latent, chains joined: shape `(draws, ...)`."""
    values = row.tree["posterior"][name].sel(labels).values
    return values.reshape(-1, *values.shape[2:])


def reference(report: Report) -> Row:
    """The row of NUTS."""
    return report.rows[0]


def one_per_objective(report: Report) -> list[Row]:
    """The first row of every objective, and those that carry no gradient variance."""
    seen: dict[str, Row] = {}
    for row in report.rows[1:]:
        seen.setdefault(row.objective if row.gradient_variance else row.label, row)
    return list(seen.values())


def look(report: Report, row: Row) -> dict[str, Any]:
    """The colour and line style of a row, the same in every panel of its part."""
    index = next(i for i, other in enumerate(report.rows[1:]) if other is row)
    return {"color": COLOURS[index % len(COLOURS)], "linestyle": DASHES[index % len(DASHES)]}


def objective_panel(axes: Any, report: Report) -> None:
    """Objectives over the seconds that their steps took, smoothed, without compilation."""
    fits = [row for row in report.rows if row.compile_seconds is not None]
    finals = []
    for row in fits:
        history = np.asarray(row.history)
        width = max(1, len(history) // 50)
        smooth = np.convolve(history, np.full(width, 1 / width), mode="valid")
        steps = np.arange(width, len(history) + 1)
        axes.plot(steps * row.seconds / len(history), smooth, lw=1.6, **look(report, row))
        finals.append(smooth[-1])
    spread = max(finals) - min(finals)
    axes.set_ylim(min(finals) - max(6.0, 2 * spread), max(finals) + max(1.0, 0.4 * spread))
    axes.set_xscale("log")
    axes.set(xlabel="seconds (compilation left out)", ylabel="objective (nats)")
    axes.set_title("Objective while fitting")


def variance_panel(axes: Any, report: Report) -> None:
    """The variance of one gradient draw at the end of each fit."""
    pairs = [(row, row.gradient_variance) for row in report.rows]
    fits = [row for row, value in pairs if value is not None]
    values = [value for _, value in pairs if value is not None]
    low = min(values) / 3
    for i, row in enumerate(fits):
        style = look(report, row)
        axes.plot([low, values[i]], [i, i], lw=2, **style)
        axes.plot(values[i], i, "o", ms=7, color=style["color"])
        axes.annotate(
            f"{values[i]:.3g}", (values[i], i), (7, 0), textcoords="offset points", va="center"
        )
    axes.set_xscale("log")
    axes.set_xlim(low, max(values) * 6)
    axes.set_ylim(len(fits) - 0.5, -0.5)
    axes.set_yticks(range(len(fits)), [row.label for row in fits])
    axes.grid(axis="y", visible=False)
    axes.set_xlabel("variance of one draw's gradient, summed over parameters")
    axes.set_title("Gradient variance where the fit ended")


def progress(report: Report, path: Path) -> Path:
    """The picture of objectives over time beside gradient variances; colours are shared."""
    with plt.rc_context(STYLE):
        figure, (left, right) = plt.subplots(
            1, 2, figsize=(11, 0.32 * len(report.rows) + 2), layout="constrained"
        )
        objective_panel(left, report)
        variance_panel(right, report)
        figure.suptitle(report.problem.title, fontsize=11)
        return save(figure, path)


def density_panel(
    axes: Any, report: Report, rows: Sequence[Row], name: str, title: str, **labels: Any
) -> None:
    """Density of one scalar latent: NUTS filled, fits as lines."""
    truth = draws(reference(report), name, **labels)
    middle, width = truth.mean(), 4 * truth.std()
    grid = np.linspace(middle - width, middle + width, 200)
    axes.fill_between(grid, gaussian_kde(truth)(grid), color=PALE, label="NUTS")
    for row in rows:
        density = gaussian_kde(draws(row, name, **labels))(grid)
        axes.plot(grid, density, lw=1.6, label=row.label, **look(report, row))
    axes.set_ylim(bottom=0)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel(title)


def interval_panel(
    axes: Any, report: Report, rows: Sequence[Row], name: str, dim: str, **labels: Any
) -> None:
    """Medians and 90 % intervals along `dim`, sorted: NUTS as wide bars, fits as lines."""
    posterior = reference(report).tree["posterior"]
    order = np.argsort(np.median(draws(reference(report), name, **labels), axis=0))
    names = posterior[dim].values[order]
    labels = {**labels, dim: names}
    middle = np.arange(len(names))
    offsets = np.linspace(-0.27, 0.27, len(rows)) if len(rows) > 1 else [0.0]
    low, high = np.quantile(draws(reference(report), name, **labels), BAND, axis=0)
    median = np.median(draws(reference(report), name, **labels), axis=0)
    axes.barh(middle, high - low, 0.8, left=low, color=PALE, label="NUTS")
    axes.vlines(median, middle - 0.4, middle + 0.4, color=GREY, lw=1.5)
    for row, offset in zip(rows, offsets, strict=True):
        values = draws(row, name, **labels)
        low, high = np.quantile(values, BAND, axis=0)
        colour = look(report, row)["color"]
        axes.hlines(middle + offset, low, high, color=colour, lw=1.8)
        axes.plot(np.median(values, axis=0), middle + offset, "o", ms=3.5, color=colour)
        axes.plot([], [], "o-", ms=3.5, lw=1.8, color=colour, label=row.label)
    axes.set_yticks(middle, names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.use_sticky_edges = False
    axes.margins(x=0.03)
    axes.grid(axis="y", visible=False)
