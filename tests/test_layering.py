"""Imports between the packages of bayesjx point down only."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1] / "bayesjx"

# A package may import itself and what stands before its line; never its neighbours on that line.
LEVELS = (
    ("_core",),
    ("ops", "diagnostics"),
    ("distributions", "kernels"),
    ("likelihoods",),
    ("vi", "ssm"),
    ("gp", "sbl"),
    ("bnn", "amortized"),
    ("inverse", "bo"),
    ("interop",),
)
CORE_ONLY = ("datasets",)

ALLOWED = {name: {"_core"} for name in CORE_ONLY}
_below: set[str] = set()
for _level in LEVELS:
    ALLOWED |= {name: set(_below) for name in _level}
    _below |= set(_level)


def imported_packages(source: str, package: list[str]) -> set[str]:
    """Packages of bayesjx that `source` imports anywhere, also inside functions.

    `package` is the dotted package of the module, from which relative imports are resolved;
    `{"bayesjx"}` stands for a name that the top level has (which resolves lazily to anything).
    """
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            targets = [alias.name.split(".") for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            targets = [[*base, alias.name] for alias in node.names]
        else:
            continue
        for target in targets:
            if target[0] == "bayesjx":
                known = len(target) > 1 and target[1] in ALLOWED
                found.add(target[1] if known else "bayesjx")
    return found


def bad_edges(owner: str, source: str, package: list[str]) -> set[str]:
    return imported_packages(source, package) - ALLOWED[owner] - {owner}


def modules() -> list[Path]:
    return sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT)


def test_every_package_has_a_level():
    packages = {path.relative_to(ROOT).parts[0] for path in modules()}
    assert packages <= set(ALLOWED), f"give these a level: {sorted(packages - set(ALLOWED))}"
    files = {path.name for path in ROOT.glob("*.py")}
    assert files == {"__init__.py"}, "modules live in packages"


def test_imports_point_down():
    wrong = []
    for path in modules():
        inside = path.relative_to(ROOT)
        package = ["bayesjx", *inside.parent.parts]
        edges = bad_edges(inside.parts[0], path.read_text(encoding="utf-8"), package)
        wrong += [f"{inside} imports {edge}" for edge in sorted(edges)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    "source",
    [
        "from ..gp import Posterior",
        "from .. import gp",
        "import bayesjx.gp",
        "import bayesjx.gp._posterior as posterior",
        "from bayesjx import gp",
        "from bayesjx.gp._posterior import Posterior",
        "def f():\n    from ..ssm import kalman_filter",  # same level, and inside a function
        "from bayesjx import fit",  # the lazy top level sees everything
        "import bayesjx",
    ],
)
def test_a_planted_upward_edge_is_caught(source):
    assert bad_edges("vi", source, ["bayesjx", "vi"])


@pytest.mark.parametrize(
    "source",
    [
        "from .._core import Algorithm",
        "from .. import distributions",
        "import bayesjx.ops._banded",
        "from ._cost import cost",
        "from . import _cost",
        "import numpyro.infer",
    ],
)
def test_a_downward_edge_is_not(source):
    assert not bad_edges("vi", source, ["bayesjx", "vi"])


def test_relative_imports_of_nested_packages_are_resolved():
    nested = ["bayesjx", "ops", "_pallas"]
    assert not bad_edges("ops", "from .._scan import scan", nested)
    assert bad_edges("ops", "from ...vi import elbo", nested) == {"vi"}


def test_side_packages_see_the_core_only():
    for owner in ("diagnostics", *CORE_ONLY):
        assert bad_edges(owner, "from ..ops import scan", ["bayesjx", owner]) == {"ops"}
        assert not bad_edges(owner, "from .._core import Algorithm", ["bayesjx", owner])
