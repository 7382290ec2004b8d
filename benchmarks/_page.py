"""The docs page, drawn from the kept results."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import MODULES
from benchmarks._declare import Benchmark
from benchmarks._environment import ROOT, summary
from benchmarks._report import SCHEMA
from benchmarks._table import markdown

RESULTS = ROOT / "benchmarks" / "results"
INTRODUCTION = ROOT / "benchmarks" / "page.md"
PICTURES = "_generated"


def write_page(to: Path | None = None, results: Path = RESULTS) -> Path:
    """Write `benchmarks.md`, and its pictures to `_generated/` beside it.

    The same results give the same files. A benchmark without kept result is named as such.

    Args:
        to: folder to write to, `docs` by default.
        results: folder of the kept results.
    """
    from benchmarks.__main__ import load

    to = ROOT / "docs" if to is None else to
    pictures = to / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    for stale in pictures.glob("benchmarks-*.svg"):
        stale.unlink()
    overview, sections = [], []
    for name in MODULES:
        benchmark = load(name)
        path = results / f"{name}.json"
        if not path.exists():
            overview.append([f"`{name}`", benchmark.claim, "no result kept", ""])
            continue
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["schema"] != SCHEMA:
            raise ValueError(
                f"{path.name} has schema {kept['schema']}, this harness writes {SCHEMA}: run "
                f"python -m benchmarks run {name} --json benchmarks/results/{path.name}"
            )
        date = kept["environment"]["date"].split()[0]
        overview.append([f"[`{name}`](#{name})", benchmark.claim, kept["verdict"], date])
        sections.append(_section(benchmark, kept, pictures))
    table = markdown(["name", "claim", "verdict", "measured"], overview)
    introduction = INTRODUCTION.read_text(encoding="utf-8").strip()
    page = to / "benchmarks.md"
    page.write_text("\n\n".join([introduction, table, *sections]) + "\n", encoding="utf-8")
    return page


def _section(benchmark: Benchmark, kept: Mapping[str, Any], pictures: Path) -> str:
    quick = kept["quick"]
    parts = [f"## {kept['name']}", f"{kept['claim']}. From: {kept['source']}."]
    if quick:
        parts.append("**Only a quick run is kept.**")
    if kept["error"]:
        parts.append(f"The run failed: {kept['error']}")
    was = {line["name"]: line["target"] for line in kept["figures"] if line["target"]}
    if was != {target.figure: target.describe(quick) for target in benchmark.active(quick)}:
        parts.append("**The targets have changed since this was measured.**")
    header = ["figure", "value", "spread", "must hold", "verdict", "what it is"]
    parts.append(markdown(header, [_figure_row(line) for line in kept["figures"]]))
    charts = [entry for entry in kept["report"] if entry["kind"] in ("bars", "lines")]
    for i, entry in enumerate(charts or _margins(kept["figures"]), start=1):
        picture = pictures / f"benchmarks-{kept['name']}-{i}.svg"
        _draw(entry, picture)
        parts.append(f"![{entry['title']}]({PICTURES}/{picture.name})")
    tables = [entry for entry in kept["report"] if entry["kind"] in ("table", "note")]
    if tables:
        parts.append("<details><summary>Everything measured</summary>")
        for entry in tables:
            if entry["kind"] == "note":
                parts.append(entry["text"])
            else:
                parts.append(f"*{entry['title']}*")
                parts.append(markdown(entry["header"], entry["rows"]))
        parts.append("</details>")
    environment = kept["environment"]
    commit = f", commit {environment['commit']}" if environment.get("commit") else ""
    parts.append(f"<small>{environment['date']}{commit}: {summary(environment)}</small>")
    return "\n\n".join(parts)


def _figure_row(line: Mapping[str, Any]) -> list[str]:
    unit = line["unit"] or ""
    value = "-" if line["value"] is None else f"{line['value']:.4g} {unit}".strip()
    spread = "" if line["low"] is None else f"{line['low']:.4g} – {line['high']:.4g}"
    meaning = "; ".join(filter(None, [line["meaning"], line["note"]]))
    must = f"`{line['target']}`" if line["target"] else ""
    return [f"`{line['name']}`", value, spread, must, line["verdict"].strip("-"), meaning]


def _margins(figures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A bar chart of how much of its bound each figure uses, for want of a better picture."""
    bars = {}
    for line in figures:
        target = line["target"] or ""
        if line["value"] is None or target[:1] not in "<>" or not target:
            continue
        bound, value = float(target.lstrip("<=>")), line["value"]
        used = (value, bound) if target[0] == "<" else (bound, value)
        if min(used) > 0:
            bars[line["name"]] = {"value": used[0] / used[1], "low": None, "high": None}
    title = "Share of the allowance used (at most 1 must hold)"
    return [{"kind": "bars", "title": title, "unit": "", "bars": bars}] if bars else []


def _draw(entry: Mapping[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    style = {"svg.hashsalt": "bayesjx", "font.size": 9, "axes.spines.top": False}
    style |= {"axes.spines.right": False, "svg.fonttype": "path"}
    with matplotlib.rc_context(style):
        rows = len(entry.get("bars", ()))
        height = 0.9 + 0.32 * rows if entry["kind"] == "bars" else 3.2
        figure, axes = plt.subplots(figsize=(6.4, height), layout="constrained")
        if entry["kind"] == "bars":
            _draw_bars(axes, entry)
        else:
            _draw_lines(axes, entry)
        axes.set_title(entry["title"].replace("`", ""), loc="left", fontsize=9)
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def _draw_bars(axes: Any, entry: Mapping[str, Any]) -> None:
    names = list(entry["bars"])
    bars = list(entry["bars"].values())
    values = [math.nan if bar["value"] is None else bar["value"] for bar in bars]
    axes.barh(names, values, height=0.6, color="#4477aa")
    for i, bar in enumerate(bars):
        if bar["low"] is not None:
            axes.plot([bar["low"], bar["high"]], [i, i], color="#222222", linewidth=1.5)
        if bar["value"] is not None:
            at = max(bar["value"], bar["high"] or bar["value"])
            label = f"{bar['value']:.4g}"
            axes.annotate(label, (at, i), xytext=(4, 0), textcoords="offset points", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.set_xlabel(entry["unit"])


def _draw_lines(axes: Any, entry: Mapping[str, Any]) -> None:
    for name, (x, y) in entry["series"].items():
        axes.plot(x, y, marker="o", markersize=3, linewidth=1.5, label=name)
    if "x" in entry["log"]:
        axes.set_xscale("log")
    if "y" in entry["log"]:
        axes.set_yscale("log")
    axes.set_xlabel(entry["x"])
    axes.set_ylabel(entry["y"])
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
