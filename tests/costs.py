"""What the tests cost: CPU seconds and compilations, by package and by test, and their limits.

Nearly all that a test costs is tracing, lowering and compiling, so each test has a number of
programs that it may compile, and each package of tests a budget of CPU seconds (`budget.toml`).
`python tests/costs.py` says which packages of the run kept in `.cache` exceed theirs.
"""

import argparse
import dataclasses
import json
import resource
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

EVENT = "/jax/core/compile/backend_compile_duration"  # also where the disk cache has the program
MAY_COMPILE = 400  # programs, by one test; `@pytest.mark.compiles(number, reason)` allows more
BUDGET = Path(__file__).with_name("budget.toml")
KEPT = ("test-costs.json",)  # in `.cache`, by `make test`
DEAREST = 20


@dataclasses.dataclass(frozen=True)
class Cost:
    """CPU seconds (of this process and of the ones it waited for), programs compiled."""

    cpu: float = 0.0
    compilations: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.cpu + other.cpu, self.compilations + other.compilations)

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.cpu - other.cpu, self.compilations - other.compilations)


class Meter:
    """Measures each test in the process that runs it, and tells the report."""

    def __init__(self) -> None:
        import jax.monitoring

        self.compilations = 0
        self.start = Cost()
        jax.monitoring.register_event_duration_secs_listener(self._heard)

    def _heard(self, event: str, duration_secs: float, **_: object) -> None:
        self.compilations += event == EVENT

    def now(self) -> Cost:
        """What this process has cost until now."""
        used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
        return Cost(sum(u.ru_utime + u.ru_stime for u in used), self.compilations)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self) -> None:
        self.start = self.now()

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem):
        result = yield
        compiled = (self.now() - self.start).compilations
        marked = pyfuncitem.get_closest_marker("compiles")
        limit = marked.args[0] if marked else MAY_COMPILE
        if compiled > limit:
            pytest.fail(
                f"compiles {compiled} programs, more than {limit}: jit one function that returns "
                "all that the test compares, and make inputs with NumPy; if it must be, mark it "
                "with @pytest.mark.compiles(number, reason)",
                pytrace=False,
            )
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_makereport(self, item, call):
        if call.when == "teardown":  # the report copies what its test says
            item.user_properties.append(("cost", dataclasses.astuple(self.now() - self.start)))

    def pytest_collection_finish(self, session) -> None:
        workeroutput = getattr(session.config, "workeroutput", None)
        if workeroutput is not None:
            workeroutput["collection"] = dataclasses.astuple(self.now())
        else:
            session.config.stash[COLLECTION] = [self.now()]


COLLECTION = pytest.StashKey[list[Cost]]()


class Ledger:
    """Adds up what the tests of a run cost, in the process that reports."""

    def __init__(self, config) -> None:
        self.config = config
        self.tests: dict[str, Cost] = {}
        config.stash[COLLECTION] = []

    def pytest_runtest_logreport(self, report) -> None:
        for name, cost in report.user_properties:
            if report.when == "teardown" and name == "cost":
                self.tests[report.nodeid] = Cost(*cost)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node) -> None:
        if collection := getattr(node, "workeroutput", {}).get("collection"):
            self.config.stash[COLLECTION].append(Cost(*collection))

    def pytest_terminal_summary(self, terminalreporter) -> None:
        if not self.tests:
            return
        collection = sum(self.config.stash[COLLECTION], Cost())
        if file := self.config.getoption("--costs"):
            file = Path(file)
            file.parent.mkdir(parents=True, exist_ok=True)
            rows = {name: dataclasses.astuple(cost) for name, cost in self.tests.items()}
            kept = {"collection": dataclasses.astuple(collection), "tests": rows}
            file.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        if len(self.tests) > DEAREST or self.config.getoption("--costs"):
            terminalreporter.section("costs")
            terminalreporter.write_line("\n".join(table(self.tests, collection)))


def package(nodeid: str) -> str:
    """The folder below `tests/` that holds a test; `tests` for the files in it itself."""
    folders = nodeid.split("::")[0].split("/")[:-1]
    return folders[1] if len(folders) > 1 else "tests"


def by_package(tests: dict[str, Cost]) -> dict[str, Cost]:
    """What each package of tests costs, the dearest first."""
    totals: dict[str, Cost] = {}
    for name, cost in tests.items():
        totals[package(name)] = totals.get(package(name), Cost()) + cost
    return dict(sorted(totals.items(), key=lambda item: -item[1].cpu))


def table(tests: dict[str, Cost], collection: Cost) -> list[str]:
    """Lines: the packages with their budgets, and the dearest tests."""
    budget = budgets()
    lines = [f"{'CPU s':>8} {'budget':>7} {'compiled':>9} {'tests':>6}  package"]
    counts = {name: sum(package(test) == name for test in tests) for name in by_package(tests)}
    for name, cost in by_package(tests).items():
        may = budget.get(name)
        mark = "  EXCEEDS ITS BUDGET" if may is not None and cost.cpu > may else ""
        lines.append(
            f"{cost.cpu:8.1f} {'-' if may is None else may:>7} {cost.compilations:9d} "
            f"{counts[name]:6d}  {name}{mark}"
        )
    whole = sum(tests.values(), Cost())
    lines.append(f"{collection.cpu:8.1f} {'-':>7} {collection.compilations:9d}         collection")
    lines.append(f"{whole.cpu:8.1f} {'-':>7} {whole.compilations:9d} {len(tests):6d}  all tests")
    lines += ["", f"the {DEAREST} dearest tests", f"{'CPU s':>8} {'compiled':>9}"]
    for name, cost in sorted(tests.items(), key=lambda item: -item[1].cpu)[:DEAREST]:
        lines.append(f"{cost.cpu:8.1f} {cost.compilations:9d}  {name}")
    return lines


def budgets() -> dict[str, float]:
    """CPU seconds that each package of tests may cost."""
    return tomllib.loads(BUDGET.read_text(encoding="utf-8"))["cpu_seconds"]


def read(files: Iterable[Path]) -> tuple[dict[str, Cost], Cost]:
    """What the tests of several runs cost, and their collection; a file may be missing."""
    tests: dict[str, Cost] = {}
    collection = Cost()
    for file in files:
        if file.is_file():
            kept = json.loads(file.read_text(encoding="utf-8"))
            collection += Cost(*kept["collection"])
            for name, cost in kept["tests"].items():
                tests[name] = tests.get(name, Cost()) + Cost(*cost)
    return tests, collection


def main() -> int:
    """Print the costs of the run that was kept; 1 if a package exceeds its budget or has none."""
    parser = argparse.ArgumentParser(prog="python tests/costs.py", description=__doc__)
    parser.add_argument("files", nargs="*", type=Path, help="what --costs has written")
    cache = Path(__file__).resolve().parents[1] / ".cache"
    tests, collection = read(parser.parse_args().files or [cache / name for name in KEPT])
    if not tests:
        print("no run is kept; `make test SLOW=1` keeps one", file=sys.stderr)
        return 2
    print("\n".join(table(tests, collection)))
    budget, exceeds = budgets(), []
    for name, cost in by_package(tests).items():
        if name not in budget:
            exceeds.append(f"{name} has no budget in tests/budget.toml")
        elif cost.cpu > budget[name]:
            exceeds.append(f"{name}: {cost.cpu:.0f} CPU s, budget {budget[name]}")
    print("", *(exceeds or ["every package keeps to its budget"]), sep="\n")
    return bool(exceeds)


if __name__ == "__main__":
    sys.exit(main())
