"""What a benchmark prints and keeps: notes, tables, charts; and the verdict table."""

from __future__ import annotations

import json
import math
import os
import re
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TYPE_CHECKING

from benchmarks._declare import Benchmark, Figure, holds, Line, show_value
from benchmarks._stats import quartiles
from benchmarks._table import aligned

if TYPE_CHECKING:
    from benchmarks._timing import Comparison

SCHEMA = 1


class Report:
    """Collects what a benchmark has to say beside its figures; prints it as it comes.

    All of it is kept in the JSON, and the docs page is drawn from there.
    """

    def __init__(self, echo: bool = True) -> None:
        self.entries: list[dict[str, Any]] = []
        self._echo = echo

    def note(self, text: str) -> None:
        """A line of prose."""
        self._add({"kind": "note", "text": text}, text)

    def table(self, title: str, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table; numbers are shown with four digits."""
        shown = [[_cell(cell) for cell in row] for row in rows]
        entry = {"kind": "table", "title": title, "header": list(header), "rows": shown}
        self._add(entry, f"\n{title}\n{aligned(header, shown)}")

    def times(self, title: str, comparison: Comparison, against: str) -> None:
        """Table and bar chart of a comparison: median, quartiles and ratio to `against`."""
        scale, unit = _time_unit(min(comparison.median(n).value for n in comparison.samples))
        rows, bars = [], {}
        for name, samples in comparison.samples.items():
            low, high = quartiles(samples)
            middle, ratio = comparison.median(name), comparison.ratio(name, against)
            bars[name] = Figure(middle.value * scale, low * scale, high * scale)
            spreads = _spread(bars[name]), _spread(ratio)
            rows.append([name, bars[name], spreads[0], ratio, spreads[1], len(samples)])
        header = ["", f"median {unit}", "quartiles", "ratio", "95 %", "rounds"]
        self.table(f"{title} (ratio to {against})", header, rows)
        self.bars(title, unit, bars)

    def bars(self, title: str, unit: str, values: Mapping[str, Any]) -> None:
        """A bar chart for the docs page, one bar per name; nothing is printed."""
        bars = {name: _figure(Figure.of(value)) for name, value in values.items()}
        self._add({"kind": "bars", "title": title, "unit": unit, "bars": bars}, None)

    def lines(
        self,
        title: str,
        x: str,
        y: str,
        series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
        log: str = "",
    ) -> None:
        """A line chart for the docs page; nothing is printed.

        Args:
            title: above the chart.
            x: label of the horizontal axis, with its unit.
            y: label of the vertical axis, with its unit.
            series: x and y values by the name of the line.
            log: `"x"`, `"y"` or `"xy"` for logarithmic axes.
        """
        kept = {name: [list(map(float, v)) for v in pair] for name, pair in series.items()}
        entry = {"kind": "lines", "title": title, "x": x, "y": y, "series": kept, "log": log}
        self._add(entry, None)

    def _add(self, entry: dict[str, Any], text: str | None) -> None:
        self.entries.append(entry)
        if self._echo and text is not None:
            print(text, flush=True)


def verdict_rows(lines: Sequence[Line], quick: bool) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of figures beside what must hold."""
    rows = []
    for line in lines:
        figure, target = line.figure, line.target
        spread = _spread(figure) if figure else ""
        must = target.describe(quick) if target else "-"
        meaning = [target.meaning if target else "", figure.note if figure else ""]
        meaning += [figure.missing_because if figure else "not among what was measured"]
        value = show_value(line, quick)
        words = "; ".join(filter(None, meaning))
        rows.append([line.name, value, spread, line.unit, must, line.verdict, words])
    return ["figure", "value", "spread", "unit", "must hold", "verdict", "what it is"], rows


def record(
    benchmark: Benchmark,
    lines: Sequence[Line],
    report: Report,
    quick: bool,
    environment: Mapping[str, Any],
    error: str = "",
) -> dict[str, Any]:
    """All that is kept of a run, ready for JSON and free of host names and paths."""
    kept = {
        "schema": SCHEMA,
        "name": benchmark.name,
        "claim": benchmark.claim,
        "source": benchmark.source,
        "quick": quick,
        "verdict": "ok" if not error and holds(list(lines)) else "short",
        "error": error,
        "figures": [
            {
                "name": line.name,
                **_figure(line.figure),
                "unit": line.unit,
                "target": line.target.describe(quick) if line.target else None,
                "optional": bool(line.target and line.target.optional),
                "meaning": line.target.meaning if line.target else "",
                "verdict": line.verdict,
            }
            for line in lines
        ],
        "report": report.entries,
        "environment": dict(environment),
    }
    return scrub(kept)


def write_json(path: Path, kept: Mapping[str, Any]) -> None:
    """Write the record; the file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    text = json.dumps(kept, indent=1, ensure_ascii=False, allow_nan=False)
    part.write_text(text + "\n", encoding="utf-8")
    part.replace(path)


def scrub(value: Any) -> Any:
    """Plain JSON data without this machine's name and with only the last part of absolute paths.

    Numbers that JSON does not have (NaN, infinities) become null.
    """
    if isinstance(value, Mapping):
        return {str(key): scrub(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [scrub(item) for item in value]
    if isinstance(value, str):
        return scrub_text(value)
    if value is None or isinstance(value, bool | int):
        return value
    return float(value) if math.isfinite(value) else None


def scrub_text(text: str) -> str:
    """The text without this machine's name and with only the last part of absolute paths."""
    text = re.sub(r"(?<![\w./:])/(?:[\w.+@-]+/)+([\w.+@-]*)", r"…/\1", text)
    host = socket.gethostname()
    return re.sub(rf"\b{re.escape(host)}\b", "(this machine)", text) if host else text


def _spread(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"{figure.low:.4g} – {figure.high:.4g}"


def _figure(figure: Figure | None) -> dict[str, Any]:
    if figure is None:
        return {"value": None, "low": None, "high": None, "note": "missing"}
    note = figure.missing_because or figure.note
    return {"value": figure.value, "low": figure.low, "high": figure.high, "note": note}


def _cell(cell: Any) -> str:
    if isinstance(cell, str | int | None):
        return "" if cell is None else str(cell)
    if isinstance(cell, Figure):
        return cell.missing_because and "not measured" or f"{cell.value:.4g}"
    return f"{float(cell):.4g}"


def _time_unit(seconds: float) -> tuple[float, str]:
    for scale, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * scale >= 1:
            return scale, unit
    return 1e6, "µs"
