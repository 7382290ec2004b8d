"""What a benchmark declares, and how its figures are judged."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, Literal, TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks._report import Report

Bound = float | tuple[float, float]
Verdict = Literal["ok", "short", "not measured", "-"]

_COMPARISONS: dict[str, Callable[[float, Any], bool]] = {
    "<=": lambda value, bound: value <= bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    ">": lambda value, bound: value > bound,
    "==": lambda value, bound: value == bound,
    "between": lambda value, bound: bound[0] <= value <= bound[1],
}


@dataclasses.dataclass(frozen=True)
class Figure:
    """A measured number with its spread.

    Attributes:
        value: the number that is judged.
        low: lower end of the spread (a 95 % interval unless `note` says otherwise).
        high: upper end of the spread.
        unit: shown after the value; a target's own unit takes precedence.
        note: a few words on how it was measured.
        missing_because: set when the figure could not be measured, see `not_measured`.
    """

    value: float
    low: float | None = None
    high: float | None = None
    unit: str = ""
    note: str = ""
    missing_because: str = ""

    @staticmethod
    def of(value: Any) -> Figure:
        """The figure itself, or a plain number (Python, NumPy or JAX scalar) as a figure."""
        return value if isinstance(value, Figure) else Figure(float(value))

    @staticmethod
    def not_measured(reason: str) -> Figure:
        """A figure that this machine cannot give, for example for want of a peer's Python.

        A target on it is short unless the target is `optional`.
        """
        return Figure(math.nan, missing_because=reason)


@dataclasses.dataclass(frozen=True)
class Target:
    """What must hold of one figure, in the full run and in the quick one.

    Attributes:
        figure: name of the figure in what `run` returns.
        comparison: one of `<=`, `>=`, `<`, `>`, `==`, `between`.
        full: the bound of the full run; a pair for `between`; None if only the quick run has it.
        quick: the bound of the quick run: `"same"`, its own bound, or None if the quick run does
            not measure it.
        unit: unit of figure and bound, `"×"` for a ratio.
        meaning: what the figure is, in a few words.
        optional: the figure may be `Figure.not_measured` without the benchmark being short. Once
            measured it must hold all the same, and NaN or a forgotten figure is short.
    """

    figure: str
    comparison: str
    full: Bound | None
    quick: Bound | None | Literal["same"] = "same"
    unit: str = ""
    meaning: str = ""
    optional: bool = False

    def __post_init__(self) -> None:
        if self.comparison not in _COMPARISONS:
            raise ValueError(
                f"target {self.figure!r}: comparison must be one of {', '.join(_COMPARISONS)}; "
                f"got {self.comparison!r}"
            )
        if not self.figure or any(c.isspace() or c in "=()" for c in self.figure):
            raise ValueError(
                f"target {self.figure!r}: a figure's name goes into `name=value` on the last line, "
                "so it must be one word without spaces, brackets or '='"
            )
        for bound in (self.full, self.quick):
            if isinstance(bound, str) or bound is None:
                continue
            if (self.comparison == "between") != isinstance(bound, tuple):
                raise ValueError(
                    f"target {self.figure!r}: 'between' takes a pair (low, high) and every other "
                    f"comparison one number; got {bound!r} for {self.comparison!r}"
                )

    def bound(self, quick: bool) -> Bound | None:
        """The bound that holds for the quick or the full run; None if it has none."""
        return self.full if not quick or self.quick == "same" else self.quick  # type: ignore[return-value]

    def describe(self, quick: bool) -> str:
        """The condition as text without spaces, as `<=1.05`."""
        bound = self.bound(quick)
        if isinstance(bound, tuple):
            return f"{bound[0]:g}..{bound[1]:g}"
        return f"{self.comparison}{bound:g}"

    def judge(self, figure: Figure | None, quick: bool) -> Verdict:
        """Whether the figure meets the bound; a figure that is absent or NaN does not."""
        if figure is None:
            return "short"
        if figure.missing_because:
            return "not measured"
        if math.isnan(figure.value):
            return "short"
        return "ok" if _COMPARISONS[self.comparison](figure.value, self.bound(quick)) else "short"


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """One claim and how it is measured.

    Attributes:
        name: what is typed after `python -m benchmarks run`.
        claim: one line that says what holds if the benchmark is `ok`.
        source: paper and section, or document, that the claim or the set-up comes from.
        targets: what must hold; the only place where bounds are stated.
        run: `run(quick, report)` measures and returns the figures by name: all that the targets
            name, and any others that are worth printing.
    """

    name: str
    claim: str
    source: str
    targets: tuple[Target, ...]
    run: Callable[[bool, Report], Mapping[str, Any]]

    def __post_init__(self) -> None:
        names = [target.figure for target in self.targets]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"benchmark {self.name!r}: two targets on {repeated}; use 'between'")
        for quick in (False, True):
            if not self.active(quick):
                kind = "quick" if quick else "full"
                raise ValueError(f"benchmark {self.name!r} has no target for the {kind} run")

    def active(self, quick: bool) -> tuple[Target, ...]:
        """The targets that the quick or the full run must meet."""
        return tuple(target for target in self.targets if target.bound(quick) is not None)


@dataclasses.dataclass(frozen=True)
class Line:
    """One figure beside what must hold of it; `target` is None for mere information."""

    name: str
    figure: Figure | None
    target: Target | None
    verdict: Verdict

    @property
    def excused(self) -> bool:
        """Not measured, and allowed not to be."""
        return self.verdict == "not measured" and self.target is not None and self.target.optional

    @property
    def unit(self) -> str:
        """The target's unit, or else the figure's."""
        target, figure = self.target, self.figure
        return (target.unit if target else "") or (figure.unit if figure else "")


def judge(benchmark: Benchmark, figures: Mapping[str, Any], quick: bool) -> list[Line]:
    """Every target with its figure, in the order declared, then the figures without a target."""
    measured = {name: Figure.of(value) for name, value in figures.items()}
    lines = []
    for target in benchmark.active(quick):
        figure = measured.pop(target.figure, None)
        lines.append(Line(target.figure, figure, target, target.judge(figure, quick)))
    lines.extend(Line(name, figure, None, "-") for name, figure in measured.items())
    return lines


def holds(lines: list[Line]) -> bool:
    """Whether the benchmark as a whole is ok.

    Every target must be met; an optional one may be unmeasured, but not all of them.
    """
    judged = [line for line in lines if line.target is not None]
    met = [line.verdict == "ok" for line in judged]
    return any(met) and all(ok or line.excused for ok, line in zip(met, judged, strict=True))


def last_line(name: str, lines: list[Line], quick: bool) -> str:
    """`NAME: ok fig=value …`, or `NAME: short …` with the missed targets in brackets."""
    words = [f"{name}:", "ok" if holds(lines) else "short"]
    for line in lines:
        if line.target is None:
            continue
        text = show_value(line, quick).replace(" ", "-")
        missed = line.verdict != "ok" and not line.excused
        words.append(f"{line.name}={text}" + f"({line.target.describe(quick)})" * missed)
    return " ".join(words)


def show_value(line: Line, quick: bool) -> str:
    """The value with as many digits as it takes for the rounded one to give the same verdict."""
    if line.figure is None:
        return "missing"
    if line.figure.missing_because:
        return "not measured"
    value = line.figure.value
    for digits in range(4, 18):
        text = f"{value:.{digits}g}"
        if line.target is None or math.isnan(value):
            return text
        if line.target.judge(Figure(float(text)), quick) == line.verdict:
            return text
    return repr(value)
