"""Which lines and branches of the library the tests run, for `coverage report`.

A trace function, with which coverage.py measures before Python 3.14, slows every function that it
sees, of JAX too, and with it the tests by a third. Here only the library pays, and little: as its
modules are imported, each statement gets one before it that notes from which line it was reached.
These pairs of lines are coverage.py's arcs; its report has the same numbers as if it had traced.
"""

import ast
import importlib.abc
import importlib.machinery
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import beartype
import jaxtyping
from coverage import CoverageData

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "bayesjx"
# Names that what is added uses.
ARCS, LINE, STEP, CHECKED = "_arcs_", "_line_", "_step_", "_checked_"
Arcs = dict[tuple[int, int], int]  # from line, to line; of a function's start and end the negative


class Marked(ast.NodeTransformer):
    """A module with a statement before each of its own that notes where it came from.

    In a function a local variable holds the line before. The bodies of modules and of classes,
    whose variables others can see, call a function for it.
    """

    def __init__(self, decorator: str | None = None) -> None:
        self.decorator = (
            decorator  # of all functions and classes, as jaxtyping's import hook has it
        )
        self.scopes: list[
            int | None
        ] = []  # its first line, of a module or class; None in functions
        self.loops: list[int] = []  # lines of the loops around

    def mark(self, line: int, where: ast.AST) -> ast.stmt:
        """The statement that notes a step to a line."""
        scope = self.scopes[-1]
        if scope is None:
            source = f"{ARCS}[{LINE}, {line}] = {LINE} = {line}"
        else:
            source = f"{STEP}({scope}, {line})"
        statement = ast.parse(source).body[0]
        for node in ast.walk(statement):
            ast.copy_location(node, where)
        return statement

    def block(self, statements: Sequence[ast.stmt], *before: ast.stmt) -> list[ast.stmt]:
        """Statements, each after its mark."""
        marked = list(before)
        for statement in statements:
            marked += [self.mark(line, statement) for line in _lines(statement, self.scopes[-1])]
            if isinstance(statement, ast.Continue):
                marked.append(self.mark(self.loops[-1], statement))
            marked.append(self.visit(statement))
        return marked

    def scope(self, node, first: int, inside: int | None) -> None:
        """Marks a body with variables of its own, from its entry to its end."""
        outer, self.loops = self.loops, []
        self.scopes.append(inside)
        head = 0
        while head < len(node.body) and _comes_first(node.body[head], head):
            head += 1
        if inside is None:
            enter = ast.parse(f"{LINE} = {-first}").body[0]
        else:
            enter = ast.parse(f"{STEP}({inside}, None)").body[0]
        for part in ast.walk(enter):
            ast.copy_location(part, node.body[0])
        passed = [s.lineno for s in node.body[:head] if isinstance(s, ast.ImportFrom)]
        before = [enter, *(self.mark(line, node.body[0]) for line in passed)]
        leave = self.mark(-first, node.body[-1])
        node.body = [*node.body[:head], *self.block(node.body[head:], *before), leave]
        self.scopes.pop()
        self.loops = outer

    def visit_Module(self, node: ast.Module) -> ast.Module:
        if node.body:
            self.scope(node, 1, 1)
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        self.scope(node, _first_line(node), None)
        if self.decorator:
            node.decorator_list.append(self.name(node))
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        first = _first_line(node)
        self.scope(node, first, first)
        if self.decorator:
            node.decorator_list.insert(0, self.name(node))
        return node

    def name(self, where: ast.AST) -> ast.expr:
        return ast.copy_location(ast.Name(self.decorator, ast.Load()), where)

    def visit_If(self, node: ast.If) -> ast.If:
        node.body, node.orelse = self.block(node.body), self.block(node.orelse)
        return node

    def visit_For(self, node: ast.For) -> ast.For:
        self.loops.append(node.lineno)
        node.body = [*self.block(node.body), self.mark(node.lineno, node.body[-1])]
        self.loops.pop()
        node.orelse = self.block(node.orelse)
        return node

    visit_While = visit_For

    def visit_With(self, node: ast.With) -> ast.With:
        node.body = self.block(node.body)
        return node

    def visit_Try(self, node: ast.Try) -> ast.Try:
        node.body, node.orelse = self.block(node.body), self.block(node.orelse)
        node.finalbody = self.block(node.finalbody)
        for number, handler in enumerate(node.handlers, 1):  # those before it did not fit
            lines = [tried.lineno for tried in node.handlers[:number]]
            handler.body = self.block(handler.body, *(self.mark(n, handler) for n in lines))
        return node

    def visit_Match(self, node: ast.Match) -> ast.Match:
        for number, case in enumerate(node.cases, 1):
            lines = [tried.pattern.lineno for tried in node.cases[:number]]
            case.body = self.block(case.body, *(self.mark(n, case.pattern) for n in lines))
        return node

    def generic_visit(self, node: ast.AST) -> ast.AST:
        return node  # no statements in it


def _first_line(node) -> int:
    return node.decorator_list[0].lineno if node.decorator_list else node.lineno


def _comes_first(statement: ast.stmt, position: int) -> bool:
    """Whether it is a documentation string, or an import from the future."""
    if isinstance(statement, ast.ImportFrom):
        return statement.module == "__future__"
    return position == 0 and isinstance(statement, ast.Expr) and _is_text(statement.value)


def _is_text(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _lines(statement: ast.stmt, scope: int | None) -> Iterator[int]:
    """The lines at which Python stops for a statement; none where it leaves no code."""
    if isinstance(statement, ast.Global | ast.Nonlocal):
        return
    if isinstance(statement, ast.AnnAssign) and statement.value is None and scope is None:
        return
    yield from (decorator.lineno for decorator in getattr(statement, "decorator_list", ()))
    yield statement.lineno


class Recorder(importlib.abc.MetaPathFinder):
    """Marks the modules of the library as they are imported, and keeps what their marks note."""

    def __init__(self) -> None:
        self.arcs: dict[str, Arcs] = {str(path): {} for path in sorted(LIBRARY.rglob("*.py"))}

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] != LIBRARY.name:
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.origin in self.arcs:
            spec.loader = _Loader(fullname, spec.origin, self.arcs[spec.origin])
        return spec

    def save(self, file: Path) -> None:
        """Write what was noted until now where `coverage combine` finds it."""
        data = CoverageData(basename=str(file), suffix=str(os.getpid()))
        data.add_arcs({path: list(arcs) for path, arcs in self.arcs.items()})
        data.touch_files(self.arcs)  # also those that no test imports
        data.write()


class _Loader(importlib.machinery.SourceFileLoader):
    """Marks a module as it compiles it, and keeps no file of that."""

    def __init__(self, fullname: str, path: str, arcs: Arcs) -> None:
        super().__init__(fullname, path)
        self.arcs = arcs

    def get_code(self, fullname: str):
        path = self.get_filename(fullname)
        tree = Marked(CHECKED if typechecked() else None).visit(ast.parse(self.get_data(path)))
        return compile(ast.fix_missing_locations(tree), path, "exec", dont_inherit=True)

    def exec_module(self, module) -> None:
        before: dict[int, int] = {}

        def step(scope: int, line: int | None) -> None:
            if line is not None:
                self.arcs[before[scope], line] = line
            before[scope] = -scope if line is None else line

        vars(module).update({ARCS: self.arcs, STEP: step})
        if typechecked():
            vars(module)[CHECKED] = jaxtyping.jaxtyped(typechecker=beartype.beartype)
        super().exec_module(module)


def typechecked() -> bool:
    """Whether the tests check types and shapes as they run."""
    return os.environ.get("BAYESJX_TYPECHECK", "1") != "0"
