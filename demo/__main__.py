"""`python -m demo [PART ...] [--all]`: fit real data, print a table, draw pictures.

Without a part it is a tour of a few minutes: one part for each pillar of the library, in which the
shortest way to its result is compared with NUTS. Parts that are named, and `--all` of them, run in
full, with every objective, strategy and family.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from . import (
    _pictures,
    _plots,
    _table,
    cycles,
    families,
    grids,
    hierarchical,
    martingale,
    networks,
    outliers,
    processes,
    sparse,
    tables,
)
from ._study import Report, Study

# A part is a module with `run(study) -> Report`, and a function that draws it.
PARTS = {
    "hierarchical": (hierarchical.run, _pictures.hierarchical),
    "outliers": (outliers.run, _pictures.outliers),
    "families": (families.run, _pictures.families),
    "grids": (grids.run, _pictures.grids),
    "processes": (processes.run, _pictures.processes),
    "cycles": (cycles.run, _pictures.cycles),
    "sparse": (sparse.run, _pictures.sparse),
    "networks": (networks.run, _pictures.networks),
    "tables": (tables.run, tables.picture),
    "martingale": (martingale.run, martingale.picture),
}

# One part for each of `bayesjx.vi`, `ops`, `gp` and `ssm`.
TOUR = ("outliers", "grids", "processes", "cycles")


def main(arguments: Sequence[str] | None = None) -> list[Report]:
    """Run the parts that the command line names; by default the tour."""
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}, in full")
    parser.add_argument("--all", action="store_true", help="all parts in full")
    folder = Path(__file__).parent
    parser.add_argument("--out", type=Path, default=folder, help="folder of the pictures")
    parser.add_argument("--small", type=Path, help="file for a small copy of the overview")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.parts) - set(PARTS)):
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    study = Study() if options.parts or options.all else Study.tour()
    names = list(PARTS) if options.all else options.parts or list(TOUR)
    start = time.perf_counter()
    options.out.mkdir(parents=True, exist_ok=True)
    reports, pictures = [], []
    for number, name in enumerate(names, 1):
        print(f"{name}, part {number} of {len(names)}", file=sys.stderr, flush=True)
        run, draw = PARTS[name]
        report = run(study)
        print(f"\n{_table.table(report)}\n", flush=True)
        pictures += draw(report, options.out)
        reports.append(report)
    if options.all:
        pictures.append(_pictures.overview(reports, options.out))
        if options.small:
            pictures.append(_plots.shrink(pictures[-1], options.small))
    print(_table.legend(study))
    print("\nPictures:", *(f"  {_short(path)}" for path in pictures), sep="\n")
    print(f"Total: {time.perf_counter() - start:.0f} s")
    if not (options.parts or options.all):
        others = ", ".join(PARTS)
        print(
            f"More: make demo PART=NAME for one part in full, of {others}; make demo ALL=1 for all"
        )
    return reports


def _short(path: Path) -> Path:
    """Relative to where the demo was started, if that is possible."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path


if __name__ == "__main__":
    main()
