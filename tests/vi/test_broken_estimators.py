"""The comparison with exact answers finds planted mistakes."""

import jax
import pytest

from benchmarks.vi import cells

CASES = cells.broken()


@pytest.mark.parametrize("case", CASES, ids=[case.mistake.replace(" ", "_") for case in CASES])
def test_a_planted_mistake_is_found(case):
    with case.plant():
        measured = cells.measure(case.cell, jax.random.key(4), 10_000)
    assert measured.worst_z > 10
