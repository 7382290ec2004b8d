"""All benchmarks in one table: which hold, which do not, and how long each takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import MODULES
from benchmarks._declare import Benchmark, Target
from benchmarks._environment import ROOT
from benchmarks._process import tail
from benchmarks._report import Report

NAME = "all-summary"
SECONDS = 60  # of a quick run on an idle machine
TARGETS = (
    Target("short", "==", 0, meaning="benchmarks with a figure that does not hold"),
    Target("slow", "==", None, quick=0, meaning=f"quick runs of more than {SECONDS} s"),
    Target("benchmarks", ">=", 29, meaning="benchmarks that were run"),
)


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Run each of the others in a process of its own, one after another."""
    rows, short, slow = [], 0, 0
    names = [name for name in MODULES if name != NAME]
    for name in names:
        verdict, seconds, what = measured(name, quick)
        short += verdict != "ok"
        slow += seconds > SECONDS
        rows.append([name, verdict, f"{seconds:.0f}", what])
        print(f"{name}: {verdict} {seconds:.0f} s {what}", flush=True)
    report.table("All benchmarks", ["name", "verdict", "seconds", "what does not hold"], rows)
    return {"short": short, "slow": slow, "benchmarks": len(names)}


def measured(name: str, quick: bool) -> tuple[str, float, str]:
    """Verdict, seconds and the figures that do not hold, with their targets."""
    with tempfile.TemporaryDirectory(prefix="summary-") as folder:
        kept = Path(folder) / "result.json"
        command = [sys.executable, "-m", "benchmarks", "run", name, "--json", str(kept)]
        start = time.perf_counter()
        done = subprocess.run(
            command + ["--quick"] * quick, cwd=ROOT, capture_output=True, text=True
        )
        seconds = time.perf_counter() - start
        if not kept.is_file():
            return "short", seconds, tail(done.stderr, lines=1)
        result = json.loads(kept.read_text(encoding="utf-8"))
    lines = [line for line in result["figures"] if _fails(line)]
    what = [f"{line['name']}={line['value']} ({line['target']})" for line in lines]
    return result["verdict"], seconds, result["error"] or "; ".join(what)


def _fails(line: Mapping[str, Any]) -> bool:
    if line["verdict"] == "not measured":
        return not line["optional"]
    return line["verdict"] == "short"


BENCHMARK = Benchmark(
    name=NAME,
    claim="every benchmark holds, and each quick run ends within its minute",
    source="all modules of this folder",
    targets=TARGETS,
    run=run,
)
