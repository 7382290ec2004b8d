"""Discrete latents summed out: against all joint values, and against quadrature over the rest."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax._src.test_util import count_jit_compilation_cache_miss
from numpyro.contrib.control_flow import scan
from scipy.special import expit, logsumexp
from scipy.stats import norm

from bayesjx import vi
from bayesjx.vi._posterior._summed_out import log_density_of

RNG = np.random.default_rng(3)
Y = RNG.normal(size=(2, 3))
GROUP = np.array([0.2, 0.3, 0.5])


def plated(y):
    """A site of the whole, one for each row, one for each cell."""
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    group = numpyro.sample("group", dist.Categorical(GROUP))
    rows, columns = numpyro.plate("rows", 2, dim=-2), numpyro.plate("columns", 3, dim=-1)
    with rows:
        row = numpyro.sample("row", dist.Bernoulli(jax.nn.sigmoid(a + group)))
    with rows, columns:
        cell = numpyro.sample("cell", dist.Bernoulli(0.3 + 0.2 * row))
        numpyro.sample("y", dist.Normal(a * cell + row - group, 1.0), obs=y)
    numpyro.deterministic("count", jnp.sum(row) + 0.1 * jnp.sum(cell))


def by_hand():
    """Over a grid of `a` and all joint values: log joint density, and what is to be compared."""
    a = np.linspace(-6, 6, 201)[:, None]
    joint, stats = [], []
    for bits in itertools.product(range(2), repeat=2):
        row = np.array(bits)[:, None]
        for cells in itertools.product(range(2), repeat=6):
            cell = np.array(cells).reshape(2, 3)
            for group in range(3):
                p = expit(a + group)
                log_p = norm.logpdf(a[:, 0]) + np.log(GROUP[group])
                log_p += np.sum(np.log(np.where(row[:, 0], p, 1 - p)), axis=1)
                log_p += np.sum(np.log(np.where(cell, 0.3 + 0.2 * row, 0.7 - 0.2 * row)))
                mean = a[:, :, None] * cell + row - group
                joint.append(log_p + np.sum(norm.logpdf(Y, mean, 1.0), axis=(1, 2)))
                stats.append([group, *bits, *cells, row.sum() + 0.1 * cell.sum()])
    return a[:, 0], np.array(joint), np.array(stats)


def test_density_and_conditional_draws_are_those_of_enumeration():
    grid, joint, stats = by_hand()
    density = log_density_of("test", plated, (jnp.asarray(Y),), {})

    @eqx.filter_jit
    def run(density, key):
        keys = jax.random.split(key, 4000)
        draws = jax.vmap(lambda k: density.draw(jnp.array([grid[120]]), k))(keys)
        return jax.vmap(density)(jnp.asarray(grid)[:, None]), draws

    got, draws = run(density, jax.random.key(1))
    np.testing.assert_allclose(got, logsumexp(joint, axis=0), rtol=1e-12)
    share = np.exp(joint[:, 120] - logsumexp(joint[:, 120]))
    parts = [np.asarray(draws[name]).reshape(4000, -1) for name in ("group", "row", "cell")]
    drawn = with_pairs(np.concatenate(parts, axis=1))
    assert_means(drawn, share, with_pairs(stats[:, :-1]), 4000)


def with_pairs(x):
    """Also products of values whose sites stand in terms together."""
    return np.concatenate([x, x[:, :1] * x[:, 1:3], x[:, 1:2] * x[:, 3:6]], axis=1)


def assert_means(draws, share, stats, effective):
    mean = share @ stats
    error = np.sqrt(share @ (stats - mean) ** 2 / effective)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * error)


@pytest.mark.slow
def test_draws_are_those_of_quadrature_times_enumeration():
    grid, joint, stats = by_hand()
    log_evidence = logsumexp(joint) + np.log(grid[1] - grid[0])
    weights = np.exp(joint - logsumexp(joint))
    fit = vi.fit_posterior(jax.random.key(0), plated, jnp.asarray(Y))
    assert fit.reliable and abs(fit.log_evidence - log_evidence) < 0.05
    with count_jit_compilation_cache_miss() as count:
        other = vi.fit_posterior(jax.random.key(0), plated, jnp.asarray(Y + 0.1))
    assert count() == 0 and other.log_evidence != fit.log_evidence
    draws = fit.sample(jax.random.key(1), 4000)
    a = np.asarray(draws["a"])
    mean = weights.sum(axis=0) @ grid
    sd = np.sqrt(weights.sum(axis=0) @ (grid - mean) ** 2)
    assert abs(a.mean() - mean) < 5 * sd / 3000**0.5 and abs(a.std() / sd - 1) < 5 / 6000**0.5
    group, row, cell = (np.asarray(draws[name]) for name in ("group", "row", "cell"))
    assert row.shape == (4000, 2, 1) and cell.shape == (4000, 2, 3) and group.dtype == np.int64
    got = np.concatenate([group[:, None], row[..., 0], cell.reshape(4000, 6)], axis=1)
    np.testing.assert_allclose(draws["count"], got[:, 1:3].sum(1) + 0.1 * got[:, 3:].sum(1))
    got = np.concatenate([got, np.asarray(draws["count"])[:, None]], axis=1)
    share = weights.sum(axis=1)
    assert_means(with_pairs(got), share, with_pairs(stats), 3000)  # effective draws
    # The exact conditional of the discrete sites belongs to the density of values.
    at = int(np.argmax(share))
    values = {
        "a": jnp.asarray(grid[100]),
        "group": jnp.asarray(int(stats[at, 0])),
        "row": jnp.asarray(stats[at, 1:3].reshape(2, 1).astype(int)),
        "cell": jnp.asarray(stats[at, 3:9].reshape(2, 3).astype(int)),
    }
    conditional = joint[at, 100] - logsumexp(joint[:, 100])
    alone = fit.proposal.log_prob(jnp.asarray(grid[100]).reshape(1, 1))[0]
    np.testing.assert_allclose(fit.log_density(values) - alone, conditional, rtol=1e-9)


CHAIN = np.array([[0.8, 0.1, 0.1], [0.2, 0.6, 0.2], [0.1, 0.3, 0.6]])
SERIES = RNG.normal(size=4)


def coupled(y):
    """A chain, a scan, plates that cross, and a term outside of the plate of its sites."""
    s = numpyro.sample("s", dist.Normal(0.0, 1.0))
    state = 0
    for time in range(4):
        state = numpyro.sample(f"state {time}", dist.Categorical(jnp.asarray(CHAIN)[state]))
        numpyro.sample(f"y {time}", dist.Normal(s * state, 1.0), obs=SERIES[time])

    def step(on, y):
        on = numpyro.sample("on", dist.Bernoulli(0.2 + 0.6 * on))
        numpyro.sample("seen", dist.Normal(s + on, 1.0), obs=y)
        return on, None

    scan(step, 0, SERIES)
    with numpyro.plate("rows", 2, dim=-2):
        u = numpyro.sample("u", dist.Bernoulli(0.4))
    with numpyro.plate("columns", 3, dim=-1):
        v = numpyro.sample("v", dist.DiscreteUniform(3, 4))
    with numpyro.plate("rows", 2, dim=-2), numpyro.plate("columns", 3, dim=-1):
        numpyro.sample("y", dist.Normal(s * u + v, 1.0), obs=y)
    with numpyro.plate("items", 3):
        w = numpyro.sample("w", dist.Bernoulli(0.3))
    numpyro.sample("sum", dist.Normal(s + w.sum(), 1.0), obs=0.7)


def test_chains_loops_and_plates_that_cross_are_summed():
    s = 0.6
    want = norm.logpdf(s)
    bits = lambda n: itertools.product(range(2), repeat=n)  # noqa: E731
    forward = np.eye(3)[0]
    for y in SERIES:
        forward = forward @ CHAIN * norm.pdf(y, s * np.arange(3), 1.0)
    want += np.log(forward.sum())
    transition, forward = np.array([[0.8, 0.2], [0.2, 0.8]]), np.eye(2)[0]
    for y in SERIES:
        forward = forward @ transition * norm.pdf(y, s + np.arange(2), 1.0)
    want += np.log(forward.sum())
    crossed = []
    for u, v in itertools.product(bits(2), bits(3)):
        u, v = np.array(u)[:, None], np.array(v)
        prior = np.log(np.where(u, 0.4, 0.6)).sum() + 3 * np.log(0.5)
        crossed.append(prior + norm.logpdf(Y, s * u + 3 + v, 1.0).sum())
    want += logsumexp(crossed)
    total = [np.log(np.where(w, 0.3, 0.7)).sum() + norm.logpdf(0.7, s + sum(w)) for w in bits(3)]
    want += logsumexp(total)
    density = log_density_of("test", coupled, (jnp.asarray(Y),), {})
    got = eqx.filter_jit(density)(jnp.array([s]))
    np.testing.assert_allclose(got, want, rtol=1e-12)


def test_a_local_site_of_minibatches_is_summed_within_its_scale():
    y = jnp.asarray(RNG.normal(size=10))

    def model(y, size=None):
        s = numpyro.sample("s", dist.Normal(0.0, 1.0))
        with numpyro.plate("data", 10, subsample_size=size) as index:
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.deterministic("local", z + s)
            numpyro.sample("y", dist.Normal(s + 2.0 * z, 1.0), obs=y[index])

    small = log_density_of("test", model, (y, 2), {})
    assert small.local == ("local", "z")
    at, number = jnp.array([0.6]), 4000
    key = jax.random.split(jax.random.key(0), number)
    got = eqx.filter_jit(lambda d: jax.vmap(lambda k: d(at, k))(key))(small)
    mixed = 0.7 * norm.pdf(y, 0.6, 1.0) + 0.3 * norm.pdf(y, 2.6, 1.0)
    want = norm.logpdf(0.6) + np.log(mixed).sum()
    assert abs(got.mean() - want) < 5 * got.std() / number**0.5


@pytest.mark.errors
def test_what_cannot_be_summed_is_named():
    def leaking():
        s = numpyro.sample("s", dist.Normal(0.0, 1.0))
        with numpyro.plate("items", 4):
            z = numpyro.sample("z", dist.Bernoulli(0.4))
            numpyro.sample("y", dist.Normal(s + z.sum(), 1.0), obs=jnp.zeros(4))

    def many():
        numpyro.sample("s", dist.Normal(0.0, 1.0))
        numpyro.sample("z", dist.Bernoulli(0.4).expand([30]))

    def counts():
        rate = numpyro.sample("rate", dist.Gamma(1.0, 1.0))
        numpyro.sample("n", dist.Poisson(rate))

    def bound():
        z = numpyro.sample("z", dist.Bernoulli(0.4))
        numpyro.sample("s", dist.Uniform(0.0, 1.0 + z))

    for model, text in (
        (leaking, r"'z'.*plates \['items'\].*computed from other elements"),
        (many, r"'z' has 2\^30 joint values.*numpyro.plate"),
        (counts, r"'n' \(Poisson\) has no finite support.*NegativeBinomial"),
        (bound, r"support of a continuous site depends on the discrete sites \['z'\]"),
    ):
        with pytest.raises(ValueError, match=text):
            vi.fit_posterior(jax.random.key(0), model)
