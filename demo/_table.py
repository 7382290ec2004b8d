"""The table on the terminal, and a `DataTree` in two lines."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._study import Report, Row, Study

HEAD = ["objective", "strategy", "bound", "mean error", "sd error", "gradient var."]
TIMES = ["steps (s)", "compile (s)"]


def table(report: Report) -> str:
    """Title, one line per row, and the part's remarks."""
    extra = list(dict.fromkeys(name for row in report.rows for name in row.extra))
    head = [*HEAD[:-1], *extra, HEAD[-1], *TIMES]
    body = [_cells(row, extra) for row in report.rows]
    widths = [max(len(line[i]) for line in (head, *body)) for i in range(len(head))]
    lines = [_join(head, widths), "  ".join("-" * width for width in widths)]
    lines += [_join(line, widths) for line in body]
    lines += [f"  {remark}" for remark in report.remarks]
    return "\n".join([report.problem.title, "", *lines, *_trees(report)])


def legend(study: Study) -> str:
    """What the columns are, and how many draws stand behind them."""
    return (
        f"bound: the row's own objective at its last parameters, {study.measure} x "
        f"{study.draws_per_step} draws, ± standard error.\n"
        "mean, sd error: of the posterior means and standard deviations against NUTS, in its "
        "standard\n"
        "  deviations: root mean square over all continuous latents, the worst in brackets; "
        f"{study.posterior_draws} draws of the guide.\n"
        "gradient var.: of the gradient of one draw, summed over the parameters; a draw of rloo "
        "takes 4\n"
        "  samples, of disarm 2, of IWELBO-8 and Rényi-8 8 particles.\n"
        f"Every fit: {study.steps} Adam steps of {study.draws_per_step} draws. "
        "NUTS, SVI, Pathfinder: their seconds include compiling."
    )


def describe(tree: Any) -> str:
    """One line per group of a `DataTree`: dimensions, then variables."""
    lines = []
    for name, group in tree.children.items():
        sizes = ", ".join(f"{dim} {size}" for dim, size in group.sizes.items())
        variables = ", ".join(str(variable) for variable in group.data_vars)
        lines.append(f"  /{name}: {variables}  [{sizes}]")
    return "\n".join(lines)


def _trees(report: Report) -> list[str]:
    fitted = (row for row in report.rows if row.compile_seconds is not None)
    last = next(fitted, report.rows[-1])
    return [f"  Each posterior is a labelled DataTree; {last.label}:", describe(last.tree)]


def _cells(row: Row, extra: list[str]) -> list[str]:
    variance = row.gradient_variance
    return [
        row.objective,
        row.strategy,
        "" if row.bound is None else f"{row.bound[0]:.2f} ± {row.bound[1]:.2f}",
        _errors(row.mean_errors),
        _errors(row.sd_errors),
        *(f"{row.extra[name]:.3f}" if name in row.extra else "" for name in extra),
        "" if variance is None else f"{variance:.3g}",
        f"{row.seconds:.1f}",
        "" if row.compile_seconds is None else f"{row.compile_seconds:.1f}",
    ]


def _errors(errors: np.ndarray | None) -> str:
    if errors is None:
        return ""
    return f"{np.sqrt(np.mean(errors**2)):.3f} ({np.max(np.abs(errors)):.2f})"


def _join(cells: list[str], widths: list[int]) -> str:
    padded = (
        cell.ljust(width) if i < 2 else cell.rjust(width)
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()
