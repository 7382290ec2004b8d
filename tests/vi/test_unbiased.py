"""Mean values and gradients against exact ones: the tables of strategies and programs."""

import jax
import pytest

from benchmarks.vi import cells

DRAWS = 5_000

ROWS = [
    *cells.chain.cells()[:7],
    *(cell for cell in cells.plates.cells() if cell.program in ("plate of 8", "2 of 8")),
]


def names(rows):
    return [f"{row.program}-{row.strategies}".replace(" ", "_") for row in rows]


@pytest.mark.parametrize("cell", ROWS, ids=names(ROWS))
def test_mean_is_exact_and_variance_finite(cell):
    measured = cells.measure(cell, jax.random.key(1), DRAWS)
    assert measured.worst_z < 4.5
    assert 0 < measured.variance < 1e4
