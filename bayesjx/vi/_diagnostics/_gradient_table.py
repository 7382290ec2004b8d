"""What a report on gradients holds and how it prints."""

from __future__ import annotations

import dataclasses

from .._estimator import (
    AbstractStrategy,
)
from ._table import (
    aligned,
)


@dataclasses.dataclass(frozen=True)
class GradientRow:
    """Gradient of an objective with the strategy of one site replaced.

    Attributes:
        site: name of the site; empty for the objective as it is written.
        strategy: what the site was given.
        unbiased: whether that strategy is.
        variance: summed over all elements of the gradient of one draw.
        seconds: of one draw of value and gradient, compiled.
        leaves: the variance by parameter leaf.
        signal: the squared norm of the mean gradient by parameter leaf.
        problem: why the strategy does not serve here, or empty; then nothing was measured.
    """

    site: str
    strategy: str
    unbiased: bool = True
    variance: float = float("nan")
    seconds: float = float("nan")
    leaves: dict[str, float] = dataclasses.field(default_factory=dict)
    signal: dict[str, float] = dataclasses.field(default_factory=dict)
    problem: str = ""

    @property
    def product(self) -> float:
        """Variance times seconds: what a given accuracy costs."""
        return self.variance * self.seconds


@dataclasses.dataclass(frozen=True)
class GradientReport:
    """Result of `gradient_report`; prints as a table with a recommendation.

    Attributes:
        rows: the first is the objective as written, then one per site and strategy, and last
            the best ones of several sites together if there are several.
        recommendation: which strategies to change, in words.
        best: strategy by site address that is recommended; empty if none is.
        num_draws: draws behind each variance.
    """

    rows: tuple[GradientRow, ...]
    recommendation: str
    best: dict[str, AbstractStrategy]
    num_draws: int

    def __str__(self) -> str:
        present = self.rows[0]
        table = [["site", "strategy", "variance", "µs", "variance × time"]]
        for row in self.rows:
            cells = [row.site or "as written", row.strategy + ("" if row.unbiased else " (biased)")]
            if row.problem:
                cells += ["-", "-", row.problem]
            else:
                ratio = row.product / present.product if present.product else float("nan")
                cells += [f"{row.variance:.4g}", f"{1e6 * row.seconds:.1f}", f"× {ratio:.3g}"]
            table.append(cells)
        leaves = [["parameter", "variance", "share", "mean²"]]
        for name, variance in present.leaves.items():
            share = variance / present.variance if present.variance else 0.0
            leaves.append([name, f"{variance:.4g}", f"{share:.0%}", f"{present.signal[name]:.4g}"])
        return "\n\n".join([_table(table), aligned(leaves), self.recommendation])


def _table(rows: list[list[str]]) -> str:
    """Like `aligned`, with two columns to the left, and reasons in the last column."""
    width = max(len(row[0]) for row in rows)
    return aligned([[f"{row[0].ljust(width)}  {row[1]}", *row[2:]] for row in rows])


__all__ = ["GradientReport", "GradientRow"]
