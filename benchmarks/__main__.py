"""`python -m benchmarks`: list the benchmarks, run one, draw the docs page."""

from __future__ import annotations

import argparse
import difflib
import importlib
import importlib.util
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

from benchmarks import Benchmark, MODULES, Report
from benchmarks._declare import holds, judge, last_line
from benchmarks._environment import environment, summary
from benchmarks._report import record, scrub_text, verdict_rows, write_json
from benchmarks._table import aligned

QUICK_SECONDS = 60


def main(argv: Sequence[str] | None = None) -> int:
    """Exit status: 0 ok, 1 short, 2 wrong usage."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "list":
        return list_benchmarks()
    if arguments.command == "page":
        from benchmarks._page import write_page

        print(write_page(arguments.to))
        return 0
    try:
        benchmark = load(arguments.name)
    except KeyError:
        near = difflib.get_close_matches(arguments.name, MODULES, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(MODULES)}"
        print(f"no benchmark is called {arguments.name!r}; {hint}", file=sys.stderr)
        return 2
    return run(benchmark, arguments.quick, arguments.json)


def load(name: str) -> Benchmark:
    """The benchmark of that name, or the one declared in a Python file given by its path.

    Raises:
        KeyError: there is no such name or file.
    """
    if not name.endswith(".py"):
        return importlib.import_module(MODULES[name]).BENCHMARK
    path = Path(name)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise KeyError(name)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.BENCHMARK


def list_benchmarks() -> int:
    """Print every benchmark's claim and targets; 1 if one of them cannot be loaded."""
    status = 0
    for name in MODULES:
        try:
            benchmark = load(name)
        except Exception as error:
            print(f"{name}\n    cannot be loaded: {error!r}\n")
            status = 1
            continue
        print(f"{name}\n    {benchmark.claim}\n    from: {benchmark.source}")
        rows = []
        for target in benchmark.targets:
            bounds = [
                "-" if target.bound(quick) is None else target.describe(quick)
                for quick in (False, True)
            ]
            rows.append([target.figure, *bounds, target.unit, target.meaning])
            rows[-1][-1] += " (optional)" * target.optional
        table = aligned(["figure", "full", "quick", "unit", "what it is"], rows)
        print("    " + table.replace("\n", "\n    ") + "\n")
    return status


def run(benchmark: Benchmark, quick: bool, json_path: Path | None) -> int:
    """Measure, print, keep; the last line printed is the verdict."""
    print(f"{benchmark.name}{' (quick)' * quick}: {benchmark.claim}")
    begun, before = time.perf_counter(), environment()
    report = Report()
    error, lines = "", []
    try:
        lines = judge(benchmark, benchmark.run(quick, report), quick)
        final = last_line(benchmark.name, lines, quick)
    except Exception as problem:
        traceback.print_exc()
        sys.stderr.flush()
        error = scrub_text(" ".join(f"{type(problem).__name__}: {problem}".split()))[:300]
        final = f"{benchmark.name}: short error={error}"
    seconds = time.perf_counter() - begun
    # Measured again because jax is imported by now; the load before our own work is what tells.
    after = environment()
    after["machine"]["load_average"] = before["machine"]["load_average"]
    after["seconds"] = round(seconds, 1)
    if lines:
        print("\n" + aligned(*verdict_rows(lines, quick)))
    print(f"\n{summary(after)}; took {seconds:.0f} s")
    if quick and seconds > QUICK_SECONDS:
        print(f"the quick run should take at most {QUICK_SECONDS} s; this machine took longer")
    if json_path is not None:
        write_json(json_path, record(benchmark, lines, report, quick, after, error))
        print(f"kept in {json_path}")
    print(final, flush=True)
    return 0 if lines and holds(lines) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="claims and targets of all benchmarks")
    one = commands.add_parser("run", help="run one benchmark; exit status 1 if it is short")
    one.add_argument("name", help="its name, or the path of a .py file that declares BENCHMARK")
    one.add_argument("--quick", action="store_true", help="smaller, a verdict within 60 seconds")
    one.add_argument("--json", type=Path, metavar="FILE", help="keep figures and machine in FILE")
    page = commands.add_parser("page", help="draw the docs page from the kept results")
    page.add_argument("--to", type=Path, default=None, metavar="DIR", help="default docs")
    return parser


if __name__ == "__main__":
    sys.exit(main())
