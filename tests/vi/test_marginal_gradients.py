"""Strategies inside marginals and normalised programs, against enumeration and quadrature."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logsumexp
from monte_carlo import assert_mean, draws

from bayesjx import vi

POINT = jnp.array([0.4, -0.5, 1.3, -0.2])
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(60)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def model(p):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z * (1 + 0.1 * p[0]), 0.7), obs=1.2)


def guide_with(strategy):
    def guide(p):
        a = numpyro.sample("a", strategy(dist.Bernoulli(logits=p[0])))
        numpyro.sample("z", dist.Normal(p[1] + p[2] * a, jnp.exp(p[3])))

    return guide


def log_model(p, z):
    log_p = dist.Normal(0.0, 1.0).log_prob(z)
    return log_p + dist.Normal(z * (1 + 0.1 * p[0]), 0.7).log_prob(1.2)


def exact_bound(p, count):
    """The hierarchical bound with `count` auxiliary draws; 0 stands for the exact marginal."""
    log_prob = jax.nn.log_sigmoid(jnp.array([-1, 1]) * p[0])
    total = 0.0
    for draws_of_a in itertools.product((0, 1), repeat=max(count, 1)):
        first, scale = draws_of_a[0], jnp.exp(p[3])
        z = p[1] + p[2] * first + scale * NODES
        by_a = [dist.Normal(p[1] + p[2] * a, scale).log_prob(z) for a in (0, 1)]
        if count:
            log_q = logsumexp(jnp.stack([by_a[a] for a in draws_of_a]), axis=0) - jnp.log(count)
            weight = jnp.exp(sum(log_prob[a] for a in draws_of_a))
        else:
            log_q = jnp.logaddexp(log_prob[0] + by_a[0], log_prob[1] + by_a[1])
            weight = jnp.exp(log_prob[first])
        total += weight * jnp.sum(WEIGHTS * (log_model(p, z) - log_q))
    return total


ROWS = [
    *(
        (name, getattr(vi, name), vi.sir(2), 2)
        for name in ("reinforce", "enum", "leg", "mvd", "rloo", "disarm")
    ),
    ("reinforce1", vi.reinforce, vi.sir(1), 1),
    ("reinforce4", vi.reinforce, vi.sir(4), 4),
    ("reinforce_exact", vi.reinforce, vi.exact(), 0),
    ("enum_exact", vi.enum, vi.exact(), 0),
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_discrete_auxiliary_site_takes_part(row):
    _, strategy, algorithm, count = row
    objective = vi.elbo(model, vi.marginal_guide(guide_with(strategy), "z", algorithm))
    value, gradient = draws(lambda key: objective.value_and_grad(key, POINT), 10_000)
    assert_mean(value, exact_bound(POINT, count), relative_error=0.03)
    assert_mean(gradient, np.asarray(jax.grad(exact_bound)(POINT, count)))
    assert np.all(gradient.std(0) / np.sqrt(10_000) < 0.05)


def test_float32_stays_float32():
    guide = vi.marginal_guide(guide_with(vi.reinforce), "z", vi.sir(3))
    p = POINT.astype(jnp.float32)
    value, gradient = vi.elbo(model, guide).value_and_grad(jax.random.key(0), p)
    assert value.dtype == gradient.dtype == jnp.float32


def test_the_gradient_reaches_a_marginal_in_the_model():
    # y given the evaluated marginal of a latent: E log p̂ with two draws, by quadrature.
    def likelihood(p):
        u = numpyro.sample("u", dist.Normal(p[0], jnp.exp(p[1])))
        numpyro.sample("x", dist.Normal(u, 0.8))

    @vi.expectation
    def objective(p):
        observed = lambda: numpyro.sample("x", vi.marginal(likelihood, "x", vi.sir(2))(p), obs=0.9)  # noqa: E731
        return vi.log_density(observed, {})

    def exact(p):
        log_w = dist.Normal(p[0] + jnp.exp(p[1]) * NODES, 0.8).log_prob(0.9)
        pairs = jnp.logaddexp(log_w[:, None], log_w[None]) - jnp.log(2)
        return jnp.sum(WEIGHTS[:, None] * WEIGHTS * pairs)

    value, gradient = draws(lambda key: objective.value_and_grad(key, POINT), 4_000)
    assert_mean(value, exact(POINT), relative_error=0.03)
    assert_mean(gradient, np.asarray(jax.grad(exact)(POINT)))


# the index of resampling

REWARD = np.array([0.3, -1.0, 2.0])


def index_objective(strategy, index_strategy):
    def proposal(p):
        numpyro.sample("z", strategy(dist.Categorical(logits=p[:3])))

    def program(p):
        z = numpyro.sample("z", dist.Categorical(probs=jnp.array([0.5, 0.2, 0.3])))
        numpyro.sample("y", dist.Normal(z * p[3], 1.0), obs=1.5)

    engine = vi.sir(2, proposal, index_strategy)

    @vi.expectation
    def objective(p):
        def guide():
            numpyro.sample("z", vi.normalize(program, engine)(p))

        trace, log_q = vi.simulate(guide)
        return jnp.asarray(REWARD)[trace["z"]] - log_q

    return objective


def index_exact(p):
    log_r = jax.nn.log_softmax(p[:3])
    log_p = jnp.log(jnp.array([0.5, 0.2, 0.3]))
    log_p += dist.Normal(jnp.arange(3) * p[3], 1.0).log_prob(1.5)
    total = 0.0
    for pair in itertools.product(range(3), repeat=2):
        pair = jnp.array(pair)
        log_w = (log_p - log_r)[pair]
        log_z = logsumexp(log_w) - jnp.log(2)
        inner = jax.nn.softmax(log_w) @ (jnp.asarray(REWARD)[pair] - log_p[pair] + log_z)
        total += jnp.exp(log_r[pair].sum()) * inner
    return total


@pytest.mark.parametrize("index", [vi.reinforce(), vi.enum(), vi.leg()], ids=lambda s: s.name)
def test_the_index_of_resampling_has_a_gradient(index):
    objective = index_objective(vi.reinforce, index)
    value, gradient = draws(lambda key: objective.value_and_grad(key, POINT), 20_000)
    assert_mean(value, index_exact(POINT), relative_error=0.03)
    assert_mean(gradient, np.asarray(jax.grad(index_exact)(POINT)))
    assert np.all(gradient.std(0) / np.sqrt(20_000) < 0.03)
