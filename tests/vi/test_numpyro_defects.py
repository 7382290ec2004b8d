"""Biases of NumPyro 0.22 that our tests would miss if they compared with NumPyro.

When a release of NumPyro mends one, its test is skipped; ours must be right in any case.
"""

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
import pytest

from bayesjx.distributions import BernoulliLogits
from benchmarks.vi import cells

DRAWS = 20_000
CASES = cells.defects()


@pytest.mark.parametrize("case", CASES, ids=[case.cell.program.replace(" ", "_") for case in CASES])
def test_ours_is_right_where_numpyro_is_biased(case):
    key = jax.random.key(11)
    assert cells.measure(case.cell, key, DRAWS).worst_z < 4.5
    peer = cells.measure(case.cell, key, DRAWS, case.peer)
    if peer.worst_gradient_z < 4.5:
        pytest.skip(f"NumPyro has mended this: {case.what}")
    assert peer.worst_gradient_z > 10


def test_score_at_logits_of_zero():
    def slopes(family):
        return [
            float(jax.grad(lambda a, v=v: family(logits=a).log_prob(v))(jnp.zeros(())))
            for v in (0, 1)
        ]

    assert slopes(BernoulliLogits) == [-0.5, 0.5]
    if slopes(dist.Bernoulli) == [-0.5, 0.5]:
        pytest.skip("NumPyro has mended this")
