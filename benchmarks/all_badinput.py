"""Whether every mistake of the catalogue is answered by an error that says what was wrong."""

from __future__ import annotations

import collections
import importlib
import inspect
import pkgutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks._declare import Benchmark, Target
from benchmarks._report import Report

TARGETS = (
    Target("cases", ">=", 300, quick=60, meaning="different mistakes"),
    Target("clear", "==", 1.0, meaning="share of them with a clear error of the library"),
)
QUICK_EVERY = 5


def run(quick: bool, report: Report) -> Mapping[str, Any]:
    """Make every mistake, as a user would: double precision, no run-time type checks."""
    import jax

    from benchmarks.bad_input import fault

    jax.config.update("jax_enable_x64", True)
    counts, faults = collections.Counter(), []
    functions: dict[str, set[str]] = {}
    for area, cases in catalogue():
        functions[area] = {case.function for case in cases}
        for case in cases[::QUICK_EVERY] if quick else cases:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                wrong = fault(case)
            counts[area] += 1
            if wrong:
                faults.append([area, case.function, case.argument, wrong])
        jax.clear_caches()  # errors under jit compile a program each
    rows = [[area, len(functions[area]), counts[area]] for area in counts]
    report.table("The catalogue", ["area", "functions", "mistakes"], rows)
    if faults:
        report.table("Not clear", ["area", "function", "argument", "what came"], faults)
    named = set().union(*functions.values())
    missing = [name for name in public_functions() if not _is_named(name, named)]
    report.note(f"public functions without a case ({len(missing)}): {', '.join(missing) or '-'}")
    total = sum(counts.values())
    return {"cases": total, "clear": 1 - len(faults) / total, "without_case": len(missing)}


def catalogue() -> Iterator[tuple[str, Sequence[Any]]]:
    """The mistakes of each area, by the name of its file."""
    import benchmarks.bad_input as package

    for module in pkgutil.iter_modules(package.__path__):
        if not module.name.startswith("_"):
            yield module.name, importlib.import_module(f"{package.__name__}.{module.name}").CASES


def public_functions() -> list[str]:
    """Functions and classes that users call, as `gp.condition`; results and states left out."""
    import bayesjx

    found = [name for name in bayesjx.__all__ if inspect.isfunction(getattr(bayesjx, name))]
    for package in bayesjx._SUBPACKAGES:
        module = importlib.import_module(f"bayesjx.{package}")
        for name, value in vars(module).items():
            ours = (getattr(value, "__module__", None) or "").startswith("bayesjx")
            called = inspect.isfunction(value) or (
                inspect.isclass(value) and not issubclass(value, tuple | BaseException)
            )
            if ours and called and not name.startswith(("_", "Abstract")):
                found.append(f"{package}.{name}")
    return sorted(found)


def _is_named(function: str, named: set[str]) -> bool:
    """Whether a case is of the function, or of a method of the class."""
    return any(name == function or name.startswith(f"{function}.") for name in named)


BENCHMARK = Benchmark(
    name="all-badinput",
    claim="a mistake in an argument gives an error that names the argument and what was expected",
    source="catalogue in benchmarks/bad_input",
    targets=TARGETS,
    run=run,
)
