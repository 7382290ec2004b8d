"""What each device buys: the variances of estimators of one gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bayesjx import vi
from benchmarks.vi import cells

DRAWS = 4_000
KEY = jax.random.key(5)


def variance(objective, point):
    cell = cells.Cell("", "", objective, lambda p: 0.0 * p.sum(), jnp.asarray(point))
    return cells.measure(cell, KEY, DRAWS).variance


@pytest.fixture(scope="module")
def plate_variances():
    named = {name: cells.STRATEGIES[name] for name in ("enum", "mvd", "disarm", "rloo")}
    variances = {
        name: variance(cells.plates.objective(strategy), cells.plates.POINT)
        for name, strategy in named.items()
    }
    for total in (False, True):
        objective = cells.plates.objective(vi.reinforce(), total=total)
        variances["scalar" if total else "local"] = variance(objective, cells.plates.POINT)
    return variances


def test_order_of_strategies_in_a_plate(plate_variances):
    v = plate_variances
    assert v["enum"] < 0.9 * min(v["mvd"], v["disarm"])
    assert max(v["mvd"], v["disarm"]) < 0.5 * v["local"]
    assert v["rloo"] < v["local"]


def test_plates_and_provenance_lower_the_variance(plate_variances):
    """A scalar cost multiplies each score with the costs of all elements."""
    assert 5 * plate_variances["local"] < plate_variances["scalar"]


def test_dropping_log_q_lowers_the_variance_and_keeps_the_mean():
    """A traced weight of one keeps the gradient of log q, whose mean is zero."""

    @vi.expectation
    def kept(p):
        trace, log_q = vi.simulate(cells.plates.guide, p, vi.reinforce())
        return vi.log_density(cells.plates.model, trace, p) - log_q * jnp.ones(())

    dropped = cells.plates.objective(vi.reinforce())
    rows = [
        cells.Cell("", "", e, cells.plates.exact, jnp.array(cells.plates.POINT))
        for e in (kept, dropped)
    ]
    with_q, without_q = (cells.measure(row, KEY, DRAWS) for row in rows)
    assert max(with_q.worst_z, without_q.worst_z) < 4.5
    assert without_q.variance < 0.95 * with_q.variance


def test_baselines_of_particles_lower_the_variance():
    point = cells.particles.POINT
    plain = variance(cells.particles.plain_objective(vi.reinforce(), 3), point)
    vimco = variance(cells.particles.bound_objective(vi.reinforce(), 3), point)
    assert vimco < 0.1 * plain


def test_baselines_and_structure_lower_the_variance():
    def far_from_zero(baseline, structured=False):
        @vi.expectation
        def objective(p):
            distribution = vi.reinforce(dist.Bernoulli(logits=p[0]), baseline)
            flag = 1.0 * vi.simulate(lambda: numpyro.sample("b", distribution))[0]["b"]
            return vi.Cost() + 10.0 + flag if structured else 10.0 + flag

        return objective

    plain = variance(far_from_zero(None), [0.3])
    assert variance(far_from_zero(10.5), [0.3]) < 0.01 * plain
    # A separate term that does not depend on the site is left out of what multiplies its score.
    assert variance(far_from_zero(None, structured=True), [0.3]) < 0.01 * plain


def test_a_moving_average_is_taken_from_the_costs_and_then_follows_them():
    strategy, plates = vi.reinforce(baseline=vi.EMA(0.9)), frozenset()
    costs = {plates: jnp.asarray(2.0)}
    first, record, _ = strategy.signal(costs, plates, None)
    np.testing.assert_allclose([first[plates], record], [2.0, 2.0])
    later, record, loss = strategy.signal(costs, plates, jnp.asarray(1.0))
    np.testing.assert_allclose([later[plates], record], [2.0 - 1.0, 0.9 * 1.0 + 0.1 * 2.0])
    assert loss is None
