"""The same comparison for scans, particles, coupled elements, masks, baselines and more."""

import jax
import pytest

from benchmarks.vi import cells

DRAWS = 5_000

MODULES = (cells.plates, cells.scalars, cells.lanes, cells.loops, cells.particles)
ROWS = [
    cell
    for module in MODULES
    for cell in module.cells()
    if cell.quick and cell.program not in ("plate of 8", "2 of 8")
]


@pytest.mark.parametrize("cell", ROWS, ids=[row.name.replace(" ", "_") for row in ROWS])
def test_mean_is_exact(cell):
    assert cells.measure(cell, jax.random.key(2), DRAWS).worst_z < 4.5


def test_float32_keeps_its_dtype_and_mean():
    cell = cells.plates.cells()[5]  # enumeration in a plate
    assert cell.strategies == "enum"
    point = cell.point.astype("float32")
    values, gradients = jax.jit(jax.vmap(cells.draws_of(cell), (0, None)))(
        jax.random.split(jax.random.key(3), DRAWS), point
    )
    assert values.dtype == gradients.dtype == "float32"
    assert cells.compare_with(values, gradients, *cells.exact_of(cell)).worst_z < 4.5
