"""The pictures of each part, and the overview of the whole demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from . import (
    _plots,
    cycles as spots,
    families as kinds,
    grids as weeks,
    hierarchical as firms,
    networks as homes,
    outliers as states,
    processes as river,
    sparse as patients,
)
from ._plots import BAND, draws, GREY, INK, PALE
from ._study import Report


def hierarchical(report: Report, folder: Path) -> list[Path]:
    """The pictures of `demo.hierarchical`: fits, posterior and progress."""
    with plt.rc_context(_plots.STYLE):
        paths = [_firms(report, folder), _slopes(report, folder)]
    return [*paths, _plots.progress(report, folder / "hierarchical_progress.png")]


def outliers(report: Report, folder: Path) -> list[Path]:
    """The pictures of `demo.outliers`: fits, posterior and progress."""
    with plt.rc_context(_plots.STYLE):
        paths = [_states(report, folder), _line(report, folder)]
    return [*paths, _plots.progress(report, folder / "outliers_progress.png")]


def families(report: Report, folder: Path) -> list[Path]:
    """The picture of `demo.families`: two latents, and how well each family covers all."""
    with plt.rc_context(_plots.STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(11, 3.6), layout="constrained")
        rows = report.rows[1:]
        _plots.density_panel(
            axes[0], report, rows, "mean", "mean level of the firms", effect="level"
        )
        _plots.density_panel(
            axes[1], report, rows, "log_spread", "log spread of the slopes", effect="slope"
        )
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=len(names))
        for i, row in enumerate(rows):
            value, colour = row.extra[kinds.K_HAT], _plots.look(report, row)["color"]
            axes[2].barh(i, value, 0.6, color=colour)
            axes[2].annotate(
                f"{value:.2f}",
                (value, i),
                (-4, 0),
                textcoords="offset points",
                ha="right",
                va="center",
                color="white",
            )
        axes[2].axvline(0.7, color=INK, ls="--", lw=1)
        axes[2].set_yticks(range(len(rows)), [_short(row) for row in rows])
        axes[2].set_ylim(len(rows) - 0.5, -0.5)
        axes[2].set_xlim(0, max(1.0, 1.2 * max(row.extra[kinds.K_HAT] for row in rows)))
        axes[2].grid(axis="y", visible=False)
        axes[2].set_xlabel("Pareto k-hat (right of the line: not covered)")
        figure.suptitle(report.problem.title, fontsize=11)
        return [_plots.save(figure, folder / "families.png")]


def grids(report: Report, folder: Path) -> list[Path]:
    """The picture of `demo.grids`: the grid, a gap and what fills it, and two parameters."""
    grid, fit = weeks.load(), report.rows[1]
    with plt.rc_context(_plots.STYLE):
        figure, axes = plt.subplot_mosaic(
            [["grid", "gap", "gap"], ["grid", "season", "noise"]],
            figsize=(11, 5.4),
            width_ratios=[1.4, 1, 1],
            height_ratios=[1.5, 1],
            layout="constrained",
        )
        last = weeks.FIRST + weeks.NUM_YEARS
        image = axes["grid"].imshow(
            np.where(grid.given, grid.y, np.nan),
            cmap="RdBu_r",
            vmin=-5,
            vmax=5,
            aspect="auto",
            extent=(0, weeks.NUM_WEEKS, last, weeks.FIRST),
        )
        axes["grid"].set(facecolor=INK, xlabel="week", ylabel="year")
        axes["grid"].set_title("Weeks given (gaps are black)")
        axes["grid"].grid(visible=False)
        figure.colorbar(image, ax=axes["grid"], label="ppm above the trend", pad=0.01)
        _gap(axes["gap"], fit)
        titles = {"season": "log size of the season", "noise": "log noise"}
        for panel, title in titles.items():
            _plots.density_panel(axes[panel], report, report.rows[1:], f"log_{panel}", title)
        handles, names = axes["season"].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower right", ncols=len(names))
        figure.suptitle(report.problem.title, fontsize=11)
        return [_plots.save(figure, folder / "grids.png")]


def _gap(ax: Any, fit: Any) -> None:
    """The year with the most hidden weeks and its neighbours."""
    grid, colour = weeks.load(), _plots.COLOURS[0]
    year = int(grid.hidden.sum(axis=1).argmax())
    near = slice(max(year - 1, 0), year + 2)
    mean, again = (values[:, near].reshape(len(values), -1) for values in weeks.fill(fit))
    at = grid.when[near].reshape(-1)
    low, high = np.quantile(again, BAND, axis=0)
    ax.fill_between(at, low, high, color=colour, alpha=0.2, lw=0, label="90 % interval of a week")
    ax.plot(at, mean.mean(axis=0), color=colour, lw=1.6, label=fit.label)
    for cells, style, label in (
        (grid.given, {"color": GREY}, "given"),
        (grid.hidden, {"color": _plots.COLOURS[1], "marker": "D"}, "hidden"),
    ):
        values = np.where(cells, grid.y, np.nan)[near].reshape(-1)
        ax.plot(at, values, **{"ls": "", "marker": "o", "ms": 3} | style, label=label)
    ax.set(xlabel="year", ylabel="ppm above the trend")
    ax.set_title("Around a gap")
    ax.legend(loc="upper right", ncols=2)


def _short(row: Any) -> str:
    return row.objective if row.objective == "Pathfinder" else row.strategy


def processes(report: Report, folder: Path) -> list[Path]:
    """The picture of `demo.processes`: the river, and two parameters."""
    labels = ("flow, standardised", "90 % interval of a year's flow")
    return _series(report, folder / "processes.png", river, labels, ("lengthscale", "noise"))


def cycles(report: Report, folder: Path) -> list[Path]:
    """The picture of `demo.cycles`: the spots and their forecast, and two parameters."""
    labels = ("root of the number, standardised", "90 % interval of a year's spots")
    return _series(report, folder / "cycles.png", spots, labels, ("period", "quality"))


def sparse(report: Report, folder: Path) -> list[Path]:
    """The picture of `demo.sparse`: the largest weights, probabilities, and two variances."""
    people, fit, colour = patients.load(), report.rows[1], _plots.COLOURS[0]
    mean, scale = patients.weights(fit)
    middle = mean.mean(axis=0)
    spread = 1.645 * np.sqrt((scale**2).mean(axis=0) + mean.var(axis=0))
    order = np.argsort(-np.abs(middle))[:16]
    with plt.rc_context(_plots.STYLE):
        figure, axes = plt.subplot_mosaic(
            [["weights", "prob", "log_covariates"], ["weights", "prob", "log_products"]],
            figsize=(11, 4.8),
            width_ratios=[1.6, 0.7, 1],
            layout="constrained",
        )
        at, names = np.arange(len(order)), [people.names[j] for j in order]
        panel = axes["weights"]
        panel.errorbar(middle[order], at, xerr=spread[order], fmt="o", color=colour, ms=4)
        panel.axvline(0, color=INK, lw=0.8)
        panel.set_yticks(at, names)
        panel.invert_yaxis()
        panel.set_title("The largest of 36 weights, 90 % intervals")
        axes["prob"].barh(at, patients.inclusion().inclusion_prob[order], color=_plots.COLOURS[1])
        axes["prob"].set(yticks=[], xlim=(0, 1), ylim=panel.get_ylim())
        axes["prob"].set_title("P(not zero)")
        for name in ("log_covariates", "log_products"):
            title = name.replace("log_", "log variance of ")
            _plots.density_panel(axes[name], report, report.rows[1:], name, title)
        handles, labels = axes[name].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower right", ncols=len(labels))
        figure.suptitle(report.problem.title, fontsize=11)
        return [_plots.save(figure, folder / "sparse.png")]


def networks(report: Report, folder: Path) -> list[Path]:
    """The picture of `demo.networks`: intervals of expenditure, and scatter over income."""
    data = homes.load()
    with plt.rc_context(_plots.STYLE):
        figure, axes = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
        for panel, row in zip(axes, (report.rows[0], report.rows[-1]), strict=False):
            mean, scale = homes.predict(row)
            middle = mean.mean(axis=0)
            spread = 1.645 * np.sqrt((scale**2).mean(axis=0) + mean.var(axis=0))
            colour = INK if row is report.rows[0] else _plots.look(report, row)["color"]
            low, high = middle - spread, middle + spread
            panel.fill_between(data.x, low, high, color=colour, alpha=0.15, lw=0)
            panel.plot(data.x, middle, color=colour, lw=1.6)
            for chosen, shade in ((data.given, GREY), (~data.given, INK)):
                panel.plot(data.x[chosen], data.y[chosen], "o", ms=2.5, color=shade)
            panel.set(xlabel="income, standardised", title=f"{row.label}: 90 % interval")
        axes[0].set_ylabel("expenditure on food, standardised")
        for row in report.rows:
            scatter = np.exp(homes.functions(row)[..., 1])
            low, high = np.quantile(scatter, BAND, axis=0)
            style = (
                {"color": INK, "linestyle": ":"}
                if row is report.rows[0]
                else _plots.look(report, row)
            )
            axes[2].plot(data.x, np.median(scatter, axis=0), label=row.label, **style)
            axes[2].fill_between(data.x, low, high, color=style["color"], alpha=0.12, lw=0)
        axes[2].set(xlabel="income, standardised", yscale="log", title="Scatter of expenditure")
        axes[2].legend()
        figure.suptitle(report.problem.title, fontsize=11)
        return [_plots.save(figure, folder / "networks.png")]


def _series(
    report: Report, path: Path, part: Any, labels: tuple[str, str], parameters: tuple[str, str]
) -> list[Path]:
    series, fit, colour = part.load(), report.rows[1], _plots.COLOURS[0]
    with plt.rc_context(_plots.STYLE):
        figure, axes = plt.subplot_mosaic(
            [["series", parameters[0]], ["series", parameters[1]]],
            figsize=(11, 4.6),
            width_ratios=[2, 1],
            layout="constrained",
        )
        mean, scale = part.predict(fit)
        middle = mean.mean(axis=0)
        spread = 1.645 * np.sqrt((scale**2).mean(axis=0) + mean.var(axis=0))
        panel = axes["series"]
        panel.fill_between(
            series.year, middle - spread, middle + spread, color=colour, alpha=0.2, lw=0
        )
        panel.plot(series.year, middle, color=colour, lw=1.6, label=fit.label)
        kinds_of_year = ((series.given, GREY, "given"), (~series.given, INK, "kept back"))
        for chosen, shade, label in kinds_of_year:
            panel.plot(series.year[chosen], series.y[chosen], "o", ms=3, label=label, color=shade)
        panel.set(xlabel="year", ylabel=labels[0], title=labels[1])
        panel.legend()
        for name in parameters:
            _plots.density_panel(axes[name], report, report.rows[1:], f"log_{name}", f"log {name}")
        handles, names = axes[name].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower right", ncols=len(names))
        figure.suptitle(report.problem.title, fontsize=11)
        return [_plots.save(figure, path)]


def overview(reports: list[Report], folder: Path) -> Path:
    """One picture of the first two parts, for the README."""
    panel, regression = reports[0], reports[1]
    with plt.rc_context(_plots.STYLE):
        figure, axes = plt.subplots(2, 2, figsize=(11, 8), layout="constrained")
        colours = _scatter(axes[0, 0], regression)
        figure.colorbar(colours, ax=axes[0, 0], label="P(outlier)", pad=0.01)
        axes[0, 0].set_title("Robust regression, a binary latent per state")
        _slope_intervals(axes[0, 1], panel)
        axes[0, 1].set_title("Hierarchical regression: slopes of 11 firms")
        _plots.objective_panel(axes[1, 0], regression)
        axes[1, 0].set_title("Robust regression: objective")
        _plots.variance_panel(axes[1, 1], regression)
        axes[1, 1].set_title("Robust regression: gradient variance")
        return _plots.save(figure, folder / "overview.png")


def _firms(report: Report, folder: Path) -> Path:
    names, capital, invest = firms.load()
    figure, axes = plt.subplots(3, 4, figsize=(11, 7.5), layout="constrained")
    fit = report.rows[1]
    for i, (name, ax) in enumerate(zip(names, axes.flat, strict=False)):
        x, centre = np.log(capital[i]), np.log(capital[i]).mean()
        grid = np.linspace(x.min(), x.max(), 50)
        low, middle, high = _band(fit, grid - centre, name)
        colour = _plots.COLOURS[0]
        ax.fill_between(np.exp(grid), low, high, color=colour, alpha=0.2, lw=0)
        ax.plot(np.exp(grid), middle, color=colour, lw=1.8)
        ax.plot(np.exp(grid), _band(report.rows[0], grid - centre, name)[1], "--", color=INK, lw=1)
        alone = np.polynomial.Polynomial.fit(x, np.log(invest[i]), 1)
        ax.plot(np.exp(grid), np.exp(alone(grid)), ":", color=_plots.COLOURS[1], lw=1.6)
        ax.plot(capital[i], invest[i], "o", ms=3, color=GREY)
        ax.set(xscale="log", yscale="log")
        ax.set_title(name)
        _plain_ticks(ax)
    key = axes.flat[-1]
    key.axis("off")
    key.plot([], [], "o", ms=3, color=GREY, label="a year")
    key.plot([], [], color=_plots.COLOURS[0], lw=1.8, label=f"hierarchical, {fit.label}")
    key.fill_between([], [], color=_plots.COLOURS[0], alpha=0.2, lw=0, label="its 90 % interval")
    key.plot([], [], "--", color=INK, lw=1, label="hierarchical, NUTS")
    key.plot([], [], ":", color=_plots.COLOURS[1], lw=1.6, label="each firm alone")
    key.legend(loc="center")
    figure.supxlabel("capital stock (millions of dollars)", fontsize=9)
    figure.supylabel("investment (millions of dollars)", fontsize=9)
    figure.suptitle(report.problem.title, fontsize=11)
    return _plots.save(figure, folder / "hierarchical_fits.png")


def _band(row: Any, x: np.ndarray, firm: str) -> np.ndarray:
    """Quantiles of the expected investment at log capital `x`, centred."""
    coef = draws(row, "coef", firm=firm)
    line = np.exp(coef[:, :1] + coef[:, 1:] * x)
    return np.quantile(line, [BAND[0], 0.5, BAND[1]], axis=0)


def _plain_ticks(ax: Any) -> None:
    """Two to four round numbers on each logarithmic axis."""
    for axis, (low, high) in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
        ticks: list[float] = []
        for steps in ((1, 2, 5), (1, 2, 3, 4, 5, 6, 8), np.arange(1, 10, 0.5)):
            if len(ticks) < 2:
                ticks = [m * 10.0**e for e in range(-1, 5) for m in steps]
                ticks = [tick for tick in ticks if low <= tick <= high]
        while len(ticks) > 4:
            ticks = ticks[::2]
        axis.set_ticks(ticks, [f"{t:g}" for t in ticks])
        axis.set_ticks([], minor=True)


def _slope_intervals(ax: Any, report: Report) -> None:
    rows = _plots.one_per_objective(report)
    _plots.interval_panel(ax, report, rows, "coef", "firm", effect="slope")
    ax.set_xlabel("% investment per % capital (medians, 90 % intervals)")
    ax.legend(loc="upper right")


def _slopes(report: Report, folder: Path) -> Path:
    figure = plt.figure(figsize=(11, 6), layout="constrained")
    grid = figure.add_gridspec(3, 3, width_ratios=[1.9, 1, 1])
    _slope_intervals(figure.add_subplot(grid[:, 0]), report)
    rows = _plots.one_per_objective(report)
    latents = [
        ("mean", {"effect": "level"}, "mean level of the firms"),
        ("mean", {"effect": "slope"}, "mean slope of the firms"),
        ("log_spread", {"effect": "level"}, "log spread of the levels"),
        ("log_spread", {"effect": "slope"}, "log spread of the slopes"),
        ("log_noise", {}, "log noise"),
    ]
    for i, (name, labels, title) in enumerate(latents):
        ax = figure.add_subplot(grid[i // 2, 1 + i % 2])
        _plots.density_panel(ax, report, rows, name, title, **labels)
    key = figure.add_subplot(grid[2, 2])
    key.axis("off")
    handles, names = ax.get_legend_handles_labels()
    key.legend(handles, names, loc="center")
    figure.suptitle(f"{report.problem.title}: posterior against NUTS", fontsize=11)
    return _plots.save(figure, folder / "hierarchical_posterior.png")


def _scatter(ax: Any, report: Report) -> Any:
    """States coloured by their probability of being an outlier, and the fitted line."""
    names, single, murder = states.load()
    fit = report.rows[1]
    grid = np.linspace(single.min() - 1, single.max() + 1, 60)
    lines = draws(fit, "intercept")[:, None] + draws(fit, "slope")[:, None] * (
        (grid - states.CENTRE) / states.UNIT
    )
    low, middle, high = np.quantile(lines, [BAND[0], 0.5, BAND[1]], axis=0)
    colour = _plots.COLOURS[0]
    ax.fill_between(grid, low, high, color=colour, alpha=0.2, lw=0)
    ax.plot(grid, middle, color=colour, lw=1.8, label=f"{fit.label}, 90 % interval")
    squares = np.polynomial.Polynomial.fit(single, murder, 1)
    ax.plot(grid, squares(grid), ":", color=_plots.COLOURS[1], lw=1.8, label="least squares")
    probability = states.probabilities(fit).values
    points = ax.scatter(
        single, murder, 26, probability, cmap="cividis_r", vmin=0, vmax=1, ec=INK, lw=0.5, zorder=3
    )
    for i in np.argsort(-probability)[:5]:
        left = murder[i] > squares(single[i])  # where there is room
        ax.annotate(
            names[i],
            (single[i], murder[i]),
            (-7 if left else 7, 0),
            textcoords="offset points",
            ha="right" if left else "left",
            va="center",
            fontsize=8,
        )
    ax.set(xlabel="households of single parents (%)", ylabel="murders per 100,000 inhabitants")
    ax.legend(loc="upper left")
    return points


def _states(report: Report, folder: Path) -> Path:
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 4.8), width_ratios=[1.5, 1], layout="constrained"
    )
    colours = _scatter(left, report)
    figure.colorbar(colours, ax=left, label=f"P(outlier), {report.rows[1].label}", pad=0.01)
    truth = states.probabilities(report.rows[0])
    top = truth.sortby(-truth).state.values[:10]
    middle = np.arange(len(top))
    right.barh(middle, truth.sel(state=top).values, 0.8, color=PALE, label="NUTS")
    rows = _plots.one_per_objective(report)
    for row, offset in zip(rows, np.linspace(-0.25, 0.25, len(rows)), strict=True):
        values = states.probabilities(row).sel(state=top).values
        colour = _plots.look(report, row)["color"]
        right.plot(values, middle + offset, "o", ms=4.5, color=colour, label=row.label)
    right.set_yticks(middle, top)
    right.set_ylim(len(top) - 0.5, -0.5)
    right.set_xlim(0, 1)
    right.grid(axis="y", visible=False)
    right.set_xlabel("P(outlier)")
    right.legend(loc="lower right")
    figure.suptitle(report.problem.title, fontsize=11)
    return _plots.save(figure, folder / "outliers_fits.png")


def _line(report: Report, folder: Path) -> Path:
    figure, axes = plt.subplots(1, 4, figsize=(11, 3.2), layout="constrained")
    rows = _plots.one_per_objective(report)
    titles = ["intercept", "slope per 5 %", "log noise", "log odds of an outlier"]
    for ax, name, title in zip(axes, states.LATENTS, titles, strict=True):
        _plots.density_panel(ax, report, rows, name, title)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=len(names))
    figure.suptitle(f"{report.problem.title}: posterior against NUTS", fontsize=11)
    return _plots.save(figure, folder / "outliers_posterior.png")
