"""The structure of bayesjx: imports point down, files form no circle, classes are final."""

import abc
import ast
import importlib
import inspect
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

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


# Files: no circles among them, and no way into a package or folder but through its `__init__`.


def runtime_imports(node: ast.AST, typing: bool = False) -> Iterator[ast.ImportFrom]:
    """Imports from ours anywhere in a module, functions included, but those for type checkers."""
    for child in ast.iter_child_nodes(node):
        checked = isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        only_types = typing or (checked and child in node.body)
        if isinstance(child, ast.ImportFrom):
            ours = child.level or (child.module or "").startswith("bayesjx.")
            if ours and not only_types:
                yield child
        else:
            yield from runtime_imports(child, only_types)


def module_file(dotted: tuple[str, ...], files: Collection[str]) -> str | None:
    """The file of a module or package, relative to the root, if it is one."""
    for name in ("/".join(dotted) + ".py", "/".join((*dotted, "__init__.py"))):
        if name in files:
            return name
    return None


class Edge(NamedTuple):
    """An import of one name by a file, from a file; all relative to the root."""

    owner: str
    target: str
    name: str


def file_edges(sources: Mapping[str, str]) -> list[Edge]:
    """All imports between files, by name."""
    edges = []
    for owner, source in sources.items():
        package = tuple(owner.split("/")[:-1])
        for node in runtime_imports(ast.parse(source)):
            named = tuple(node.module.split(".")) if node.module else ()
            base = (*package[: len(package) + 1 - node.level], *named) if node.level else named[1:]
            for alias in node.names:
                target = module_file((*base, alias.name), sources) or module_file(base, sources)
                if target is not None and target != owner:
                    edges.append(Edge(owner, target, alias.name))
    return edges


def circles(edges: Iterable[Edge]) -> list[list[str]]:
    """Sets of files that import each other, directly or through others."""
    graph: dict[str, set[str]] = {}
    for edge in edges:
        graph.setdefault(edge.owner, set()).add(edge.target)
    reached: dict[str, set[str]] = {}
    for start in graph:
        seen, stack = set(), [start]
        while stack:
            for target in graph.get(stack.pop(), set()) - seen:
                seen.add(target)
                stack.append(target)
        reached[start] = seen
    found = {
        tuple(sorted({start} | {o for o in seen if start in reached.get(o, set())}))
        for start, seen in reached.items()
        if start in seen
    }
    return [list(circle) for circle in sorted(found)]


def private_imports(edges: Iterable[Edge]) -> list[Edge]:
    """Private names of another package; files are judged by `side_doors`."""
    return [
        edge
        for edge in edges
        if edge.name.startswith("_")
        and edge.owner.split("/")[0] != edge.target.split("/")[0]
        and not edge.target.endswith(f"/{edge.name}.py")
    ]


def side_doors(edges: Iterable[Edge]) -> list[Edge]:
    """Imports from a file of a package, or of a folder in one, by a file outside of it."""
    return [
        edge
        for edge in edges
        if not edge.target.endswith("__init__.py")
        and not edge.owner.startswith(edge.target.rsplit("/", 1)[0] + "/")
    ]


def all_sources() -> dict[str, str]:
    return {str(p.relative_to(ROOT).as_posix()): p.read_text(encoding="utf-8") for p in modules()}


def test_files_form_no_circle():
    assert not circles(file_edges(all_sources()))


def test_no_private_name_crosses_a_package():
    assert not private_imports(file_edges(all_sources()))


def test_packages_and_folders_are_entered_through_their_init():
    assert not side_doors(file_edges(all_sources()))


PLANTED = {
    "ops/__init__.py": "from ._a import f as f",
    "ops/_a.py": "def f():\n    from ._b import g",  # also where a function hides it
    "ops/_b.py": "from ._c import h",
    "ops/_c.py": "from ._a import f",
    "ops/_d.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ._e import x",
    "ops/_e.py": "from ._d import y",
    "ops/_folder/__init__.py": "from ._g import k as k",
    "ops/_folder/_g.py": "from .._a import f",
    "ops/_h.py": "from ._folder import k\nfrom ._folder._g import k",
    "gp/__init__.py": "from ..ops import f, _hidden\nfrom ..ops._b import g\nfrom ..ops import _b",
}


def test_planted_circles_private_names_and_side_doors_are_caught():
    edges = file_edges(PLANTED)
    assert circles(edges) == [["ops/_a.py", "ops/_b.py", "ops/_c.py"]]
    assert [edge.name for edge in private_imports(edges)] == ["_hidden"]
    doors = {(edge.owner, edge.target, edge.name) for edge in side_doors(edges)}
    assert doors == {
        ("ops/_h.py", "ops/_folder/_g.py", "k"),
        ("gp/__init__.py", "ops/_b.py", "g"),
        ("gp/__init__.py", "ops/_b.py", "_b"),
    }


# Classes: abstract or final.


def overridden(cls: type, package: str = "bayesjx") -> list[str]:
    """Concrete methods and properties of bases in the package that a class replaces.

    Those of NumPyro's classes are its hooks, which call those of the base.
    """
    hooks = {n for b in cls.__mro__ if b.__module__.split(".")[0] == "numpyro" for n in vars(b)}
    return [
        f"{cls.__module__}.{cls.__name__}.{name} replaces that of {base.__name__}"
        for base in cls.__mro__[1:]
        if base.__module__.split(".")[0] == package
        for name, old in vars(base).items()
        if name in vars(cls)
        and name not in hooks
        and not name.startswith("__")
        and not getattr(old, "__isabstractmethod__", False)
        and (inspect.isroutine(old) or isinstance(old, property) or inspect.isfunction(old))
    ]


def test_concrete_methods_are_not_overridden():
    classes = set()
    for path in modules():
        inside = path.relative_to(ROOT).with_suffix("")
        module = importlib.import_module(".".join(("bayesjx", *inside.parts)))
        classes |= {c for c in vars(module).values() if inspect.isclass(c)}
    wrong = [text for cls in classes for text in overridden(cls)]
    assert not wrong, "\n".join(sorted(wrong))


def test_a_planted_override_is_caught():
    class Base:
        def known(self):
            return 0

        @property
        def size(self):
            return 0

        @abc.abstractmethod
        def open(self): ...

    class Final(Base):
        def open(self):
            return 1

    class Wrong(Final):
        def known(self):
            return 1

        def open(self):
            return 2

        @property
        def size(self):
            return 1

    package = __name__.split(".")[0]
    assert not overridden(Final, package)
    assert len(overridden(Wrong, package)) == 3
