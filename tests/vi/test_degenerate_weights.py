"""Weights that are all zero, some zero, or infinite: documented values, and never NaN."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from monte_carlo import draws

from bayesjx import vi
from bayesjx.vi._estimator._log_weights import log_mean, log_sum, shares, weighted_sum

POINT = jnp.array([0.3, -0.2])
INF = jnp.inf


def model(threshold):
    def program(p):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.factor("allowed", jnp.where(z > threshold, p[1] * z, -INF))

    return program


def guide(p):
    numpyro.sample("z", dist.Normal(p[0], jnp.exp(p[1])))


def score_guide(p):
    numpyro.sample("z", vi.reinforce(dist.Normal(p[0], jnp.exp(p[1]))))


NEVER, SOMETIMES = 1e6, 0.0
IMPOSSIBLE = model(NEVER)

BOUNDS = {
    "elbo": lambda m, g: vi.elbo(m, g),
    "iwelbo1": lambda m, g: vi.iwelbo(m, g, 1),
    "iwelbo": lambda m, g: vi.iwelbo(m, g, 3),
    "renyi": lambda m, g: vi.renyi(m, g, 0.5, 3),
    "renyi_above_1": lambda m, g: vi.renyi(m, g, 2.0, 3),
    "chi_square": lambda m, g: vi.chi_square(m, g, 2.0, 3),
    "thermodynamic": lambda m, g: vi.thermodynamic(m, g, 3),
    "thermodynamic_upper": lambda m, g: vi.thermodynamic(m, g, 3, upper=True),
    "wake_guide": lambda m, g: vi.wake_guide(m, g, 3),
    "wake_posterior": lambda m, g: vi.wake_posterior(m, g, 3),
    "forward_kl": lambda m, g: vi.forward_kl(m, g, 3),
    "symmetric_kl": lambda m, g: vi.symmetric_kl(m, g, 3),
}
VALUES = {"wake_guide": 0.0, "forward_kl": INF, "symmetric_kl": INF}


@pytest.mark.parametrize("which", [guide, score_guide], ids=["reparam", "reinforce"])
@pytest.mark.parametrize("name", [*BOUNDS, "dreg"])
def test_values_are_documented_and_gradients_finite(name, which):
    if name == "dreg":
        if which is score_guide:
            pytest.skip("refused")
        make = lambda m, g: vi.iwelbo(m, g, 3, gradient="dreg")  # noqa: E731
    else:
        make = BOUNDS[name]

    def both(key):
        found = lambda threshold: make(model(threshold), which).value_and_grad(key, POINT)  # noqa: E731
        return jax.vmap(found)(jnp.array([NEVER, SOMETIMES]))

    value, gradient = draws(both, 200)
    np.testing.assert_array_equal(value[:, 0], VALUES.get(name, -INF))
    assert not np.any(np.isnan(value)) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("engine", [vi.sir(3), vi.sir(1), vi.smc(3)], ids=["sir", "sir1", "smc"])
def test_a_normalised_program_without_hope(engine):
    q = vi.normalize(IMPOSSIBLE, engine)

    @vi.expectation
    def sampled(p):
        return vi.simulate(lambda: numpyro.sample("z", q(p)))[1]

    @vi.expectation
    def evaluated(p):
        return vi.log_density(lambda: numpyro.sample("z", q(p)), {"z": 0.3})

    for objective, value in ((sampled, INF), (evaluated, -INF)):
        found, gradient = objective.value_and_grad(jax.random.key(0), POINT)
        assert found == value and np.all(np.isfinite(gradient))
    bound = vi.elbo(IMPOSSIBLE, lambda p: numpyro.sample("z", q(p)))
    found, gradient = bound.value_and_grad(jax.random.key(0), POINT)
    assert found == -INF and np.all(np.isfinite(gradient))


def test_a_draw_outside_the_proposal_has_an_infinite_density():
    # The proposal's support misses the target's, but only its density tells.
    def program(p):
        u = numpyro.sample("u", dist.Categorical(probs=jnp.array([0.5, 0.5])))
        numpyro.sample("z", dist.Normal(p[0] + u, jnp.exp(p[1])))

    def narrow(given, p):
        numpyro.sample("u", dist.Categorical(probs=jnp.array([0.0, 1.0])))

    marginal = vi.marginal_guide(program, "z", vi.sir(2, narrow))
    bound = vi.elbo(lambda p: numpyro.sample("z", dist.Normal(0.0, 1.0)), marginal)
    value, gradient = draws(lambda key: bound.value_and_grad(key, POINT), 50)
    assert np.any(value == -INF) and np.any(np.isfinite(value))
    assert not np.any(np.isnan(value)) and np.all(np.isfinite(gradient))


@pytest.mark.parametrize("resampling", ["drop", "reinforce"])
def test_a_filter_that_loses_all_particles(resampling):
    def step(p, x, y):
        x = numpyro.sample("x", vi.reinforce(dist.Normal(x + p[0], 1.0)))
        numpyro.factor("allowed", jnp.where(x > y, p[1] * x, -INF))
        return x

    objective = vi.fivo(step, None, 4, resampling)
    series = jnp.array([[-9.0, 1e6, -9.0], [1e6, 1e6, 1e6], [-0.5, 0.0, 0.2]])

    def every(key):
        return jax.vmap(lambda ys: objective.value_and_grad(key, POINT, 0.0, ys))(series)

    value, gradient = draws(every, 20)
    assert not np.any(np.isnan(value)) and np.all(np.isfinite(gradient))
    assert np.all(value[:, :2] == -INF) and np.any(np.isfinite(value[:, 2]))


def test_log_weights_by_themselves():
    for weights, total in (
        ([-INF, -INF], -INF),
        ([0.0, -INF], 0.0),
        ([INF, 0.0], INF),
        ([1.0, 1.0], 1 + np.log(2)),
    ):
        weights = jnp.array(weights)
        np.testing.assert_allclose(log_sum(weights), total)
        np.testing.assert_allclose(log_mean(weights), total - np.log(2))
        assert np.all(np.isfinite(jax.grad(log_sum)(weights)))
        np.testing.assert_allclose(shares(weights).sum(), 0.0 if total == -INF else 1.0)
        assert np.isfinite(weighted_sum(shares(weights), jnp.where(weights == -INF, -INF, 1.0)))
    assert np.isnan(log_sum(jnp.array([jnp.nan, 0.0])))  # what is wrong stays visible
    rows = jnp.array([[0.0, -INF], [-INF, -INF]])
    np.testing.assert_array_equal(log_sum(rows, axis=1), [0.0, -INF])
    assert log_sum(rows, axis=1, keepdims=True).shape == (2, 1)
