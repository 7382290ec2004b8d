"""Marginals as sites of plain NumPyro programs: shapes, keys, inference algorithms, parameters."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from monte_carlo import assert_mean, draws
from numpyro import handlers
from numpyro.distributions import biject_to, constraints
from numpyro.infer import HMC, MCMC, NUTS, SVI, Trace_ELBO

from bayesjx import vi

MIXTURE = dist.MixtureSameFamily(
    dist.Categorical(jnp.array([0.2, 0.8])), dist.Normal(jnp.array([-1.0, 1.0]), 0.5)
)


def mixture():
    a = numpyro.sample("a", vi.enum(dist.Bernoulli(0.8)))
    numpyro.sample("x", dist.Normal(2 * a - 1.0, 0.5))


def several(p):
    a = numpyro.sample("a", dist.Normal(p, 1.0))
    numpyro.sample("x", dist.Normal(a, 0.5).expand([2, 3]).to_event(2))
    numpyro.sample("scale", dist.LogNormal(a, 0.3))
    numpyro.sample("share", dist.Beta(2.0, 3.0))


def test_several_sites_are_one_vector_and_come_apart():
    d = vi.marginal(several, ("x", "scale", "share"))(0.3, key=jax.random.key(0))
    assert d.event_shape == (8,) and d.names == ("x", "scale", "share")
    value, (log_prob,) = d.sample_with_intermediates(jax.random.key(1), (5,))
    assert value.shape == (5, 8) and log_prob.shape == (5,)
    parts = d.unpack(value)
    assert {name: part.shape for name, part in parts.items()} == {
        "x": (5, 2, 3),
        "scale": (5,),
        "share": (5,),
    }
    one = d.unpack(value[2])
    np.testing.assert_array_equal(d.pack(one), value[2])
    transform = biject_to(d.support)
    np.testing.assert_allclose(transform(transform.inv(value)), value, rtol=1e-6)
    assert np.all(d.support(value)) and not np.any(d.support(-value))
    assert d.log_prob(value).shape == (5,)


def test_integers_survive_packing(dtype):
    def program(p):
        u = numpyro.sample("u", dist.Normal(p, 1.0))
        numpyro.sample("n", dist.Poisson(jnp.exp(u)))
        numpyro.sample("x", dist.Normal(u, 0.5))

    @vi.expectation(has_aux=True)
    def objective(p):
        d = vi.marginal(program, ("n", "x"))(p)
        trace, log_q = vi.simulate(lambda: numpyro.sample("nx", d))
        return log_q, (trace["nx"], d.unpack(trace["nx"]))

    _, (flat, parts) = objective.estimate(jax.random.key(0), jnp.asarray(0.3, dtype))
    assert flat.dtype == parts["x"].dtype == dtype
    assert jnp.issubdtype(parts["n"].dtype, jnp.integer)


def test_a_plate_holds_independent_copies():
    @vi.expectation(has_aux=True)
    def objective():
        def program():
            with numpyro.plate("rows", 3, dim=-2), numpyro.plate("columns", 2, dim=-1):
                numpyro.sample("x", vi.marginal(mixture, "x", vi.exact())())

        trace, log_q = vi.simulate(program)
        return log_q, trace["x"]

    log_q, x = draws(objective.estimate, 400)
    assert x.shape == (400, 3, 2)
    np.testing.assert_allclose(log_q, MIXTURE.log_prob(x).sum((1, 2)), rtol=1e-6)
    assert np.abs(np.corrcoef(x.reshape(400, 6).T) - np.eye(6)).max() < 0.25


def test_expand_to_event_and_mask_keep_the_sampled_estimate():
    def guide(p):
        u = numpyro.sample("u", dist.Normal(p, 1.0))
        numpyro.sample("x", dist.Normal(u, 1.5))  # wide: the ratio has a fourth moment

    def objective(wrap):
        @vi.expectation
        def difference(p):
            site = lambda: numpyro.sample("x", wrap(vi.marginal(guide, "x", vi.sir(2))(p)))  # noqa: E731
            trace, log_q = vi.simulate(site)
            return jnp.exp(dist.Normal(p, 3.25**0.5).log_prob(trace["x"]).sum() - log_q.total)

        return difference

    for wrap in (
        lambda d: d.expand([2]).to_event(1),
        lambda d: d.expand([2]),
        lambda d: d.mask(True),
    ):
        ratio = draws(lambda key: objective(wrap).estimate(key, 0.3), 4_000)  # noqa: B023
        assert_mean(ratio, 1.0, relative_error=0.05)


def test_plain_use_warns_that_strategies_are_not_applied():
    d = vi.marginal(mixture, "x", vi.sir(2))(key=jax.random.key(0))
    with pytest.warns(vi.BiasedGradientWarning, match="'a' inside a marginal"):
        d.sample(jax.random.key(1))
    with pytest.warns(vi.BiasedGradientWarning, match="SVILoss"):
        d.log_prob(jnp.array(0.3))


def test_the_key_is_frozen_and_belongs_to_the_distribution():
    def continuous():
        u = numpyro.sample("u", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(u, 0.5))

    make = vi.marginal(continuous, "x", vi.sir(2))
    d, other = make(key=jax.random.key(0)), make(key=jax.random.key(1))
    x = jnp.array([0.3, 0.3])
    np.testing.assert_array_equal(d.log_prob(x), d.log_prob(x))
    assert not np.allclose(d.log_prob(x), other.log_prob(x))
    mapped = jax.vmap(lambda key: make(key=key).log_prob(x[0]))(jax.random.split(d.key, 3))
    assert len(set(mapped.tolist())) == 3
    leaves, structure = jax.tree.flatten(d)
    assert jax.tree.unflatten(structure, leaves).log_prob(x[0]) == d.log_prob(x[0])


def model_with_marginal(y=None):
    def prior():
        u = numpyro.sample("u", dist.Normal(0.0, 1.0))
        numpyro.sample("z", dist.Normal(u, 0.5))

    def proposal(given):
        numpyro.sample("u", dist.Normal(given["z"] / 1.25, 0.2**0.5))  # the exact one

    z = numpyro.sample("z", vi.marginal(prior, "z", vi.sir(1, proposal))())
    rate = numpyro.sample("rate", vi.marginal(rates, "rate", vi.sir(3))())
    numpyro.sample("y", dist.Normal(z, 0.5), obs=y)
    numpyro.sample("n", dist.Poisson(rate), obs=2)


def rates():
    u = numpyro.sample("u", dist.Normal(0.0, 0.1))
    numpyro.sample("rate", dist.Gamma(3.0 + u**2, 1.0))


@pytest.mark.parametrize("kernel", [partial(HMC, trajectory_length=0.7), NUTS], ids=["HMC", "NUTS"])
def test_markov_chains_run_with_the_frozen_key(kernel):
    def run():
        # A quarter of the period of both latents: draws are nearly independent.
        options = {"step_size": 0.2, "adapt_step_size": False, "adapt_mass_matrix": False}
        chain = MCMC(
            kernel(model_with_marginal, **options),
            num_warmup=20,
            num_samples=400,
            progress_bar=False,
        )
        chain.run(jax.random.key(0), y=1.0)
        return chain.get_samples()

    samples = run()
    again = run()
    np.testing.assert_array_equal(samples["z"], again["z"])
    assert np.all(samples["rate"] > 0)
    # z | y is normal; chains are correlated, so the tolerance is generous.
    assert abs(samples["z"].mean() - 1.25 / 1.5) < 0.15
    assert abs(samples["z"].std() - (1.25 * 0.25 / 1.5) ** 0.5) < 0.12


def test_the_marginal_of_an_interval_that_is_computed_has_a_support():
    def program(p):
        u = numpyro.sample("u", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Uniform(p, p + 1 + u**2 * 0))

    d = vi.marginal(program, "x")(jnp.array(2.0), key=jax.random.key(0))
    assert isinstance(d.support, type(constraints.interval(0, 1)))
    np.testing.assert_allclose(biject_to(d.support)(0.0), 2.5)


# parameters


def guide_with_parameters():
    def program():
        loc = numpyro.param("loc", 0.3)
        scale = numpyro.param("scale", 0.7, constraint=constraints.positive)
        u = numpyro.sample("u", dist.Normal(loc, scale))
        numpyro.sample("z", dist.Normal(u, 0.5))

    def proposal(given):
        slope = numpyro.param("slope", lambda key: 0.5 + 0.0 * jax.random.normal(key))
        numpyro.sample("u", dist.Normal(slope * given["z"], 0.8))

    numpyro.sample("z", vi.marginal(program, "z", vi.sir(4, proposal))())


def conjugate():
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z, 0.5), obs=1.0)


@pytest.mark.parametrize("loss", [Trace_ELBO(16), vi.SVILoss()], ids=["Trace_ELBO", "SVILoss"])
def test_svi_trains_the_parameters_of_program_and_proposal(loss):
    svi = SVI(conjugate, guide_with_parameters, optax.adam(0.02), loss)
    result = svi.run(jax.random.key(0), 300, progress_bar=False)
    assert set(result.params) == {"loc", "scale", "slope"}
    assert abs(result.params["loc"] - 0.8) < 0.15
    assert result.params["scale"] < 0.5 and abs(result.params["slope"] - 0.5) > 0.02


def test_parameters_are_announced_once_and_seen_by_handlers():
    with handlers.seed(rng_seed=0), handlers.trace() as seen:
        guide_with_parameters()
    assert [name for name, site in seen.items() if site["type"] == "param"] == [
        "loc",
        "scale",
        "slope",
    ]
    data = {"loc": 100.0, "scale": 1e-3, "slope": 1.0}
    with handlers.seed(rng_seed=0), handlers.trace() as seen, handlers.substitute(data=data):
        guide_with_parameters()
    assert abs(seen["z"]["value"] - 100) < 5


# errors


@pytest.mark.errors
def test_bad_marginals_are_named():
    with pytest.raises(ValueError, match=r"cannot keep \['q'\].*\['a', 'x'\]"):
        vi.marginal(mixture, ("x", "q"))(key=jax.random.key(0))
    with pytest.raises(ValueError, match="at least one site"):
        vi.marginal(mixture, ())
    with pytest.raises(ValueError, match="needs a key"):
        vi.marginal(mixture, "x")().log_prob(0.3)
    with pytest.raises(ValueError, match="no latent site"):
        vi.normalize(lambda: numpyro.sample("y", dist.Normal(0, 1), obs=1.0), vi.sir(2))()
    observed = vi.marginal(conjugate, "z")(key=jax.random.key(0))
    with pytest.raises(ValueError, match="use normalize"):
        observed.sample(jax.random.key(0))
    simplex = vi.marginal(
        lambda: (several(0.0), numpyro.sample("s", dist.Dirichlet(jnp.ones(3)))), ("x", "s")
    )
    with pytest.raises(NotImplementedError, match="no joint support"):
        _ = simplex(key=jax.random.key(0)).support


@pytest.mark.errors
@pytest.mark.parametrize("count", [0, -1, 2.0])
def test_engines_need_particles(count):
    for make in (vi.sir, vi.smc):
        with pytest.raises((ValueError, TypeError), match="num_particles"):
            make(count)


@pytest.mark.errors
def test_a_proposal_of_narrower_support_is_refused():
    def target():
        u = numpyro.sample("u", dist.Normal(0.0, 1.0))
        numpyro.sample("x", dist.Normal(u, 1.0))

    def ask(distribution):
        proposal = lambda given: numpyro.sample("u", distribution)  # noqa: E731
        vi.marginal(target, "x", vi.sir(2, proposal))(key=jax.random.key(0)).log_prob(0.3)

    ask(dist.Cauchy(0.0, 1.0))
    for distribution in (dist.HalfNormal(1.0), dist.Uniform(-3.0, 3.0), dist.Poisson(2.0)):
        with pytest.raises(ValueError, match="support at site 'u'.*does not cover"):
            ask(distribution)
    with pytest.raises(ValueError, match="'u'"):
        vi.marginal(target, "x", vi.sir(2, lambda given: None))(key=jax.random.key(0)).log_prob(0.3)


@pytest.mark.errors
def test_engines_refuse_what_they_cannot_do():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="continuous sites only; 'a'"):
        vi.marginal(mixture, "x", vi.smc(2))(key=key).log_prob(0.3)
    with pytest.raises(ValueError, match="step_size"):
        vi.smc(2, step_size=0.0)
    with pytest.raises(ValueError, match="finite support"):
        vi.normalize(conjugate, vi.exact())(key=key).sample(key)

    def nested():
        numpyro.sample("z", vi.marginal(several, "x")(0.0).to_event(0))

    with pytest.raises(ValueError, match="smc needs exact densities"):
        vi.normalize(nested, vi.smc(2))(key=key).sample(key)
