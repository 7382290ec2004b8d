"""The test of reparameterised gradients finds costs that jump, and no others."""

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import pytest

from bayesjx import vi

KEY = jax.random.key(0)
PARAMS = {"loc": jnp.array(0.3), "scale": jnp.array([-0.5, 0.2])}


def guide(params):
    numpyro.sample("x", dist.Normal(params["loc"], 1.0))
    with numpyro.plate("rows", 2):
        numpyro.sample("w", dist.Normal(0.0, jnp.exp(params["scale"])))
        numpyro.sample("flag", vi.reinforce(dist.Bernoulli(0.3)))


def objective(cost):
    @vi.expectation
    def bound(params):
        trace, log_q = vi.simulate(guide, params)
        return (cost(trace) - log_q).total

    return bound


def smooth(trace):
    return vi.Cost() + jnp.sum(trace["x"] ** 2) + jnp.sum(jnp.sin(trace["w"]))


def test_smooth_costs_agree():
    rows = vi.check_reparam(KEY, objective(smooth), PARAMS)
    assert [row.site for row in rows] == ["x", "w"]
    assert all(row.agrees and row.z < 4.5 for row in rows)


@pytest.mark.parametrize(
    ("site", "parameter", "jump"),
    [
        ("x", "params['loc']", lambda trace: 3.0 * (trace["x"] > 0.5)),
        ("w", "params['scale']", lambda trace: jnp.sum(jnp.round(trace["w"]) ** 2)),
    ],
)
def test_jumps_are_found(site, parameter, jump):
    rows = vi.check_reparam(KEY, objective(lambda trace: smooth(trace) + jump(trace)), PARAMS)
    wrong = {row.site: row for row in rows if not row.agrees}
    assert list(wrong) == [site]
    assert wrong[site].z > 4.5 and wrong[site].parameter == parameter


@pytest.mark.errors
def test_bad_arguments():
    bound = objective(smooth)
    with pytest.raises((TypeError, ValueError), match="Objective"):
        vi.check_reparam(KEY, smooth, PARAMS)
    with pytest.raises(ValueError, match="num_draws must be at least 2, got 1"):
        vi.check_reparam(KEY, bound, PARAMS, num_draws=1)
    with pytest.raises(ValueError, match="argument 0 holds no floating-point array"):
        vi.check_reparam(KEY, bound, {"loc": 3})
