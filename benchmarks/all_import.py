"""What `import bayesjx` costs beside the libraries that it stands on."""

from __future__ import annotations

import collections
import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._environment import ROOT
from benchmarks._process import child_environment, tail
from benchmarks._report import Report
from benchmarks._timing import Comparison, in_turn

OURS = "import bayesjx"
VI = "from bayesjx import vi"
EVERYTHING = "from bayesjx import *"
PEERS = "import jax, numpyro, equinox, optax"
STATEMENTS = (OURS, VI, EVERYTHING, "import jax", PEERS)

TARGETS = (
    Target("wall", "<=", 1.15, unit="×", meaning=f"wall time, {OURS}, over {PEERS}"),
    Target("cpu", "<=", 1.15, unit="×", meaning=f"processor time, {OURS}, over the same"),
)

_TIMED = """
import json, time
wall, cpu = time.perf_counter(), time.process_time()
{statement}
print(json.dumps([time.perf_counter() - wall, time.process_time() - cpu]))
"""


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Import in fresh processes, one of each statement per round."""
    for statement in (EVERYTHING, PEERS):
        _time_import(statement)  # writes bytecode and brings the files into memory
    samples = in_turn(
        {statement: _sampler(statement) for statement in STATEMENTS},
        rounds=6 if quick else 25,
        min_rounds=3,
        seconds=25.0 if quick else 300.0,
    )
    wall = Comparison({name: [wall for wall, _ in pairs] for name, pairs in samples.items()})
    cpu = Comparison({name: [cpu for _, cpu in pairs] for name, pairs in samples.items()})
    report.times("Wall time of an import in a fresh process", wall, PEERS)
    report.times("Processor time of the same", cpu, PEERS)
    for statement in (OURS, VI, EVERYTHING):
        _slowest_packages(statement, report)
    # No target, but the first use loads what the lazy import does not: to be read beside 1.15.
    information = {"vi": VI, "everything": EVERYTHING}
    return {
        "wall": wall.ratio(OURS, PEERS),
        "cpu": cpu.ratio(OURS, PEERS),
        **{
            f"{name}_{kind}": times.ratio(statement, PEERS, f"{kind} time, {statement}")
            for name, statement in information.items()
            for kind, times in (("wall", wall), ("cpu", cpu))
        },
    }


def _sampler(statement: str) -> Callable[[], tuple[float, float]]:
    return lambda: _time_import(statement)


def _time_import(statement: str) -> tuple[float, float]:
    """Wall and processor seconds of the statement, without Python's own start."""
    wall, cpu = json.loads(_python("-c", _TIMED.format(statement=statement)).stdout)
    return wall, cpu


def _slowest_packages(statement: str, report: Report, count: int = 8) -> None:
    """Table of the packages whose own modules take longest to import."""
    own: dict[str, int] = collections.defaultdict(int)
    modules: dict[str, int] = collections.defaultdict(int)
    for line in _python("-X", "importtime", "-c", statement).stderr.splitlines():
        fields = line.removeprefix("import time:").split("|")
        if len(fields) != 3 or not fields[0].strip().isdigit():
            continue  # the header, or a warning
        package = fields[2].strip().partition(".")[0]
        own[package] += int(fields[0])
        modules[package] += 1
    slowest = sorted(own, key=lambda name: -own[name])[:count]
    rows = [[name, own[name] / 1e3, modules[name]] for name in slowest]
    rows.append(["all", sum(own.values()) / 1e3, sum(modules.values())])
    title = f"Where the time of `{statement}` goes (python -X importtime, own time)"
    report.table(title, ["package", "ms", "modules"], rows)


def _python(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=child_environment(),
        timeout=120,
    )
    if done.returncode:
        raise RuntimeError(f"an import failed:\n{tail(done.stderr)}")
    return done


BENCHMARK = Benchmark(
    name="all-import",
    claim="`import bayesjx` costs little over importing the libraries that it stands on",
    source="python -X importtime; sub-packages load when first used",
    targets=TARGETS,
    run=run,
)
