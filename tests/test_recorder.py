"""What the recorder notes is what coverage.py sees when it traces."""

import runpy
import sys
import types

import coverage
import pytest
import recorder

SOURCE = '''"""A text."""

from __future__ import annotations

import contextlib
import dataclasses
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

for number in (1, 2):
    if number == 1:
        continue
    last = number
else:
    rest = 3


def decorated(function):
    def inner(*args, **options):
        return function(*args, **options)

    return inner


@dataclasses.dataclass(
    frozen=True,
)
class Point:
    """A text."""

    x: int
    y: int = 3
    if y == 3:
        z: int = 4

    @property
    def total(self):
        """A text."""
        return self.x + self.y


class Pair(NamedTuple):
    one: int
    two: int


@decorated
@decorated
def falls_off(a, *, b=2):
    c: int
    if a:
        c = sum(
            k
            for k in range(
                3
            )
        )
    elif b == 2:
        a = 1
    elif b == 3:
        a = 2
    else:
        pass


def loops(n):
    total = 0
    for k in range(n):
        if k == 1:
            continue
        if k > 3:
            break
        total += k
    else:
        total = -1
    while n > 0:
        n -= 1
        if n == 2:
            continue
    for _ in range(total): pass
    while True:
        if n == 0:
            return total
        n += 1


def fails(kind):
    try:
        if kind:
            raise kind("no")
    except (KeyError, TypeError) as error:
        kind = error
    except ValueError:
        with contextlib.suppress(ValueError):
            raise ValueError
    else:
        return None
    finally:
        kind = str(kind)
    return kind


def writes(flag):
    with contextlib.nullcontext() as a, contextlib.nullcontext():
        if flag:
            return a
    return [
        (lambda q: q + 1)(p) if p else -1
        for p in (0, 1)
        if flag or True
    ]


def counts(n):
    def count():
        nonlocal n
        for k in range(n):
            if k:
                yield k

    def never():
        return 1

    assert n, never()
    return list(count())


def ends_in_a_loop(n):
    for k in range(n):
        if k == 5:
            n = 3


def matches(n):
    match n:
        case 1:
            return "one"
        case [a, b]:
            return a + b
        case _:
            return "many"


Point(1).total
falls_off(1)
'''
CALLS = {
    "nothing": "",
    "one way": "falls_off(0); loops(3); fails(None); writes(True); counts(2); matches(1)",
    "another": "falls_off(0, b=3); loops(7); fails(KeyError); writes(False); ends_in_a_loop(9)",
    "the rest": "falls_off(0, b=4); loops(0); fails(ValueError); counts(1); ends_in_a_loop(0); "
    "matches((1, 2)); matches(3)",
}


@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_lines_and_branches_are_those_of_a_trace(calls, tmp_path, monkeypatch):
    path = tmp_path / "bayesjx" / "sample.py"
    path.parent.mkdir()
    path.write_text(SOURCE + calls)
    outer = sys.gettrace()  # of a debugger, or of coverage itself
    traced = coverage.Coverage(data_file=None, branch=True, include=[str(path)], config_file=False)
    traced.start()
    try:
        runpy.run_path(str(path))
    finally:
        traced.stop()
        sys.settrace(outer)

    monkeypatch.setattr(recorder, "LIBRARY", path.parent)
    record = recorder.Recorder()
    module = types.ModuleType("bayesjx.sample")
    spec = record.find_spec("bayesjx.sample", [str(path.parent)])
    module.__spec__ = spec
    monkeypatch.setitem(sys.modules, module.__name__, module)
    spec.loader.exec_module(module)
    record.save(tmp_path / "data")
    (kept,) = tmp_path.glob("data.*")
    ours = coverage.Coverage(data_file=kept, branch=True, config_file=False)
    ours.load()

    def told(cov):
        found = cov._analyze(str(path))
        branches = {line: sorted(to) for line, to in found.missing_branch_arcs().items()}
        return sorted(found.missing), branches, found.numbers

    assert told(ours) == told(traced)
    assert "_line_" not in vars(module) and "_arcs_" in vars(module)
    assert not list(path.parent.glob("__pycache__/*"))
