"""What `.ci/run` costs on a fresh clone, and whether the tests notice planted mistakes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._environment import ROOT
from benchmarks._process import tail
from benchmarks._report import Report

MINUTES = 18  # of `.ci/run`, cold, on two idle cores
TARGETS = (
    Target(
        "seconds",
        "<=",
        60 * MINUTES,
        quick=None,
        unit="s",
        meaning=".ci/run, fresh clone, no cache",
    ),
    Target("failed", "==", 0, quick=None, meaning="steps of .ci/run that failed"),
    Target("over_budget", "==", 0, quick=None, meaning="packages of tests above their CPU seconds"),
    Target("survive", "==", 0, quick=None, meaning="planted mistakes that no test notices"),
    Target("unfit", "==", 0, meaning="planted mistakes that do not fit the sources any more"),
    Target("mutants", ">=", 50, meaning="planted mistakes"),
)
STEP = re.compile(r"^== make (\w+) took (\d+) s$", re.MULTILINE)
COUNTS = re.compile(r"mutants: (\d+) found, (\d+) survive, (\d+) do not fit")


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Run everything in a clone of the last commit; the quick run only reads the table."""
    if quick:
        found, _, unfit = mutants(ROOT, sys.executable, ["--fits"])
        return {"unfit": unfit, "mutants": found + unfit}
    with tempfile.TemporaryDirectory(prefix="suite-") as folder:
        clone = Path(folder) / "bayesjx"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("JAX_", "PYTHON"))}
        start = time.perf_counter()
        done = subprocess.run(
            [".ci/run"], cwd=clone, env=environment, capture_output=True, text=True
        )
        seconds = time.perf_counter() - start
        steps = STEP.findall(done.stdout)
        report.table("Steps of .ci/run", ["step", "seconds"], [[name, int(s)] for name, s in steps])
        if done.returncode:
            report.note(tail(done.stdout))
        over = packages(clone, report)
        found, survive, unfit = mutants(clone, str(clone / ".venv" / "bin" / "python"), [])
    return {
        "seconds": seconds,
        "failed": max(done.stdout.count("== FAILED:"), int(done.returncode != 0)),
        "over_budget": over,
        "survive": survive,
        "unfit": unfit,
        "mutants": found + survive + unfit,
        **{f"{name}_seconds": float(s) for name, s in steps},
    }


def packages(clone: Path, report: Report) -> int:
    """A table of what each package of tests cost in the clone; how many exceed their budget."""
    sys.path.insert(0, str(clone / "tests"))
    import costs  # ty: ignore[import-not-found]

    tests, _ = costs.read([clone / ".cache" / name for name in costs.KEPT])
    if not tests:
        return len(costs.budgets())
    totals, budgets = costs.by_package(tests), costs.budgets()
    rows = [
        [name, _count(tests, name, costs), cost.cpu, budgets.get(name, 0), cost.compilations]
        for name, cost in totals.items()
    ]
    report.table("Tests", ["package", "tests", "CPU s", "budget", "compilations"], rows)
    return sum(cost.cpu > budgets.get(name, 0) for name, cost in totals.items())


def _count(tests: Iterable[str], package: str, costs: Any) -> int:
    return sum(costs.package(name) == package for name in tests)


def mutants(root: Path, python: str, arguments: list[str]) -> tuple[int, int, int]:
    """How many planted mistakes are found, survive, and do not fit."""
    command = [python, str(root / "tests" / "mutants"), *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    counts = COUNTS.search(done.stdout)
    if counts is None:
        raise RuntimeError(f"the mutants did not run:\n{tail(done.stderr)}")
    found, survive, unfit = map(int, counts.groups())
    return found, survive, unfit


BENCHMARK = Benchmark(
    name="all-suite",
    claim=f".ci/run takes at most {MINUTES} minutes cold, and its tests notice planted mistakes",
    source="tests/costs.py, tests/budget.toml and tests/mutants",
    targets=TARGETS,
    run=run,
)
