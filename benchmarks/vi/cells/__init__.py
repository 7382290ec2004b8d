"""Programs, strategies at their sites, and exact answers: the cells of the table.

Shared by the benchmark `vi-unbiased` and the tests of `bayesjx.vi`.
"""

from . import (
    _chain as chain,
    _lanes as lanes,
    _loops as loops,
    _particles as particles,
    _plates as plates,
    _scalars as scalars,
)
from ._broken import Broken as Broken, broken as broken
from ._cell import (
    Cell as Cell,
    compare_with as compare_with,
    draws_of as draws_of,
    exact_of as exact_of,
    finish as finish,
    measure as measure,
    Measured as Measured,
    start as start,
    STRATEGIES as STRATEGIES,
    z_score as z_score,
)
from ._numpyro import Defect as Defect, defects as defects


def all_cells() -> list[Cell]:
    """Every cell, in the order of the table. Needs float64."""
    modules = (chain, plates, scalars, lanes, loops, particles)
    return [cell for module in modules for cell in module.cells()]
