"""Aligned text tables."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Text table with a rule below the header; columns of numbers are flush right."""
    table = [list(map(str, header)), *(list(map(str, row)) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(header))]
    right = [bool(rows) and all(_numeric(row[i]) for row in table[1:]) for i in range(len(header))]

    def line(row: list[str]) -> str:
        cells = zip(row, widths, right, strict=True)
        return "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in cells).rstrip()

    return "\n".join([line(table[0]), "  ".join("-" * w for w in widths), *map(line, table[1:])])


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table; a vertical bar within a cell is escaped."""
    table = [header, ["---"] * len(header), *rows]
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in table]
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def _numeric(cell: str) -> bool:
    return not cell or cell[0].isdigit() or (cell[0] in "-.<>+" and cell[1:2].isdigit())
