"""The gradient report: exact variances, what it tries, what it recommends."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bayesjx import vi

N = 5
Y = jnp.array([-1.3, -0.4, 0.3, 1.1, 1.8])
PARAMS = {"logit": jnp.array(0.3), "loc": jnp.array(0.2)}


def model(params):
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    flag = numpyro.sample("flag", dist.Bernoulli(0.4))
    with numpyro.plate("data", N):
        numpyro.sample("y", dist.Normal(mu + 4.0 * flag, 1.0), obs=Y)


def guide(params):
    numpyro.sample("mu", dist.Normal(params["loc"], 0.3))
    numpyro.sample("flag", dist.Bernoulli(logits=params["logit"]))


ELBO = vi.elbo(model, guide)


@pytest.fixture(scope="module")
def report():
    alternatives = (vi.enum(), vi.mvd(), vi.reparam(), vi.reinforce())
    return vi.gradient_report(
        jax.random.key(0), ELBO, PARAMS, num_draws=2000, alternatives=alternatives
    )


def row_of(report, site, strategy):
    (row,) = [row for row in report.rows if (row.site, row.strategy) == (site, strategy)]
    return row


def test_variance_is_that_of_the_gradient(report):
    keys = jax.random.split(jax.random.key(0), 2000)
    gradients = jax.vmap(lambda key: jax.grad(ELBO.surrogate, argnums=1)(key, PARAMS))(keys)
    present = report.rows[0]
    assert present.site == "" and list(present.leaves) == ["params['loc']", "params['logit']"]
    for name, leaf in gradients.items():
        np.testing.assert_allclose(present.leaves[f"params['{name}']"], leaf.var(ddof=1), rtol=1e-9)
        noise = leaf.var(ddof=1) / 2000
        np.testing.assert_allclose(
            present.signal[f"params['{name}']"], max(0, leaf.mean() ** 2 - noise), rtol=1e-6
        )
    np.testing.assert_allclose(present.variance, sum(present.leaves.values()))
    assert present.product == present.variance * present.seconds > 0


def test_each_site_gets_what_it_can_have(report):
    tried = {(row.site, row.strategy) for row in report.rows}
    assert {("mu", "mvd"), ("mu", "reinforce"), ("flag", "enum"), ("flag", "mvd")} <= tried
    assert ("mu", "enum") not in tried and ("flag", "reparam") not in tried
    assert ("mu", "reparam") not in tried  # what it has already
    assert all(row.unbiased for row in report.rows)


def test_enumeration_has_less_variance_and_is_recommended(report):
    enum = row_of(report, "flag", "enum")
    assert enum.leaves["params['logit']"] < 0.1 * report.rows[0].leaves["params['logit']"]
    assert "0/flag" in report.best and "vi." in report.recommendation
    assert "enum" in str(report) and "params['logit']" in str(report)
    lines = str(report).split("\n\n")[0].splitlines()
    assert len(lines) == len(report.rows) + 1


def test_nothing_is_recommended_where_nothing_is_better():
    def only(params):
        numpyro.sample("mu", dist.Normal(params["loc"], 0.3))

    def exact(params):
        mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mu, 1.0), obs=1.0)

    report = vi.gradient_report(
        jax.random.key(0),
        vi.elbo(exact, only),
        {"loc": jnp.array(0.5)},
        num_draws=100,
        alternatives=(vi.reinforce(),),
    )
    assert report.best == {} and "keep" in report.recommendation


class Refuses(vi.AbstractReplay):
    def why_not(self, distribution):
        return None

    def combine(self, site, key, rest):
        raise site.explain("it never serves", "Use another")


@pytest.mark.filterwarnings("ignore::bayesjx.vi.BiasedGradientWarning")
def test_coupled_elements_are_tried_in_lanes_and_reasons_are_given():
    def coupled(params):
        flags = numpyro.sample("flags", dist.Bernoulli(logits=params["logit"]).to_event(1))
        numpyro.sample("y", dist.Normal(jnp.sum(flags) ** 2, 1.0), obs=1.0)

    def coupled_guide(params):
        logits = params["logit"]
        numpyro.sample("flags", vi.straight_through(dist.Bernoulli(logits=logits)).to_event(1))

    report = vi.gradient_report(
        jax.random.key(0),
        vi.elbo(coupled, coupled_guide),
        {"logit": jnp.array([0.3, -0.2, 0.1])},
        num_draws=10,
        alternatives=(vi.enum(), Refuses()),
    )
    refused = row_of(report, "flags", "Refuses")
    assert refused.problem == "it never serves" and np.isnan(refused.variance)
    assert refused.problem in str(report)
    assert not report.rows[0].unbiased
    assert "has a biased gradient (straight_through)" in report.recommendation
    assert np.isfinite(row_of(report, "flags", "enum(lanes=True)").variance)


def test_chosen_sites_of_particles_can_be_swapped():
    report = vi.gradient_report(
        jax.random.key(0),
        vi.iwelbo(model, guide, 3),
        PARAMS,
        num_draws=10,
        alternatives=(vi.rloo(), vi.reinforce()),
        sites=["flag"],
    )
    (row,) = report.rows[1:]
    assert row.site == "flag" and row.strategy == "rloo"


@pytest.mark.errors
def test_bad_input_is_named():
    key = jax.random.key(0)
    with pytest.raises(TypeError, match="Objective"):
        vi.gradient_report(key, model, PARAMS)
    with pytest.raises(ValueError, match="num_draws must be at least 2, got 1"):
        vi.gradient_report(key, ELBO, PARAMS, num_draws=1)
    with pytest.raises(ValueError, match="no site is called nu; there are"):
        vi.gradient_report(key, ELBO, PARAMS, sites=["nu"])
    with pytest.raises(ValueError, match="no floating-point array"):
        vi.gradient_report(key, vi.elbo(lambda n: model(PARAMS), lambda n: guide(PARAMS)), 3)
