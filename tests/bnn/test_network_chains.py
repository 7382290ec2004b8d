"""Markov chains of networks' weights against posteriors in closed form and by quadrature."""

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats

from bayesjx import bnn, fit, interop, likelihoods

KEY = jax.random.key(5)
N, D, NOISE, SCALE = 23, 3, 0.25, 1.5
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, D))
Y = X @ [1.0, -0.5, 0.2] + 0.5 + 0.5 * RNG.normal(size=N)
DESIGN = np.hstack([X, np.ones((N, 1))])


class Level(eqx.Module):
    """A network whose value is the same at all inputs."""

    level: jax.Array

    def __call__(self, x):
        return self.level + 0 * x[0]


def as_type(tree, dtype):
    return jax.tree.map(lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a, tree)


def linear(dtype=float, **options):
    network = as_type(eqx.nn.Linear(D, "scalar", key=KEY), dtype)
    noise = likelihoods.Gaussian(jnp.asarray(NOISE, dtype))
    return bnn.network_chains(KEY, network, noise, prior=SCALE, **options)


def level(**options):
    options = {"prior": SCALE, "num_chains": 64} | options
    return bnn.network_chains(KEY, Level(jnp.zeros(())), likelihoods.Gaussian(NOISE), **options)


def level_posterior(y, temperature=1.0):
    """Mean and variance of the level."""
    precision = len(y) / NOISE + 1 / SCALE**2
    return np.sum(y) / NOISE / precision, temperature / precision


def run(algorithm, num_steps, x, y, *, thin=10, key=KEY, **options):
    options = {"data": (jnp.asarray(x), jnp.asarray(y)), "keep": bnn.chain_draws} | options
    return fit(key, algorithm, algorithm.init(), num_steps, thin=thin, **options)


def near(found, want, of_chains):
    """Within five standard errors, of numbers of independent chains."""
    error = np.std(of_chains, axis=0, ddof=1) / len(of_chains) ** 0.5
    assert np.all(np.abs(found - want) < 5 * error), (found, want, error)
    return error


def test_sghmc_is_bayesian_linear_regression(dtype):
    chains = linear(dtype, num_chains=100)
    algorithm = bnn.sghmc(chains, step_size=0.1, burn_in=300)
    result = run(algorithm, 1500, X.astype(dtype), Y.astype(dtype))
    covariance = np.linalg.inv(DESIGN.T @ DESIGN / NOISE + np.eye(D + 1) / SCALE**2)
    mean = covariance @ DESIGN.T @ Y / NOISE
    good = result.kept.sampling
    assert good.sum() == 120 and not good[:30].any()
    weight, bias = (np.asarray(a, float)[good] for a in result.kept.position.weights)
    w = np.concatenate([weight.reshape(120, 100, D), bias.reshape(120, 100, 1)], axis=2)
    near(w.mean(axis=(0, 1)), mean, w.mean(axis=0))
    products = np.einsum("sci,scj->cij", w - mean, w - mean) / len(w)
    error = near(products.mean(axis=0), covariance, products)
    assert np.all(np.diag(error) < 0.02 * np.diag(covariance))
    assert abs(result.info.temperature[300:].mean() - 1) < 0.02
    posterior = chains.posterior(result.kept)
    f = np.asarray(posterior.values(X.astype(dtype)))
    np.testing.assert_allclose(f[:120], w[:, 0] @ DESIGN.T, rtol=2e-3, atol=1e-4)
    assert posterior.num_samples == 12000 and f.dtype == dtype


@pytest.mark.parametrize("size", [5, None])
def test_noise_of_batches_does_not_heat(size):
    """More of it than what friction takes away, and none."""
    chains = level()
    algorithm = bnn.sghmc(
        chains, batch_size=size, step_size=0.12, friction=0.02, burn_in=400, temperature=2.0
    )
    result = run(algorithm, 4000, X, Y)
    w = np.asarray(result.kept.position.weights[0])[result.kept.sampling]
    mean, variance = level_posterior(Y, 2.0)
    near(w.mean(), mean, w.mean(axis=0))
    squares = np.mean((w - mean) ** 2, axis=0)
    error = np.std(squares) / 8
    assert abs(squares.mean() - variance) < 5 * error + 0.03 * variance
    assert error < 0.03 * variance
    memory = result.state.memory
    want = 0 if size is None else N**2 * np.var(Y) / NOISE**2 / size
    assert abs(np.mean(memory.noise) - want) < 0.2 * want + 2.0


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_sgld_has_the_variance_of_its_recursion(temperature):
    mean, variance = level_posterior(Y, temperature)
    step = 0.5 / (len(Y) / NOISE + 1 / SCALE**2)
    algorithm = bnn.sgld(level(), num_data=N, step_size=step, burn_in=100, temperature=temperature)
    result = run(algorithm, 1500, X, Y, thin=5)
    w = np.asarray(result.kept.position.weights[0])[result.kept.sampling]
    assert len(w) == 280
    near(w.mean(), mean, w.mean(axis=0))
    squares = np.mean((w - mean) ** 2, axis=0)
    near(squares.mean(), variance / (1 - 0.5 / 2), squares)


def test_cycles_ascend_and_then_sample():
    chains = level(num_chains=2)
    steps, cycles, top = 23, 3, 0.004
    algorithm = bnn.cyclical_sgld(
        chains, num_steps=steps, step_size=top, num_cycles=cycles, exploration=0.6
    )
    result = run(algorithm, steps, X, Y, thin=1)
    length = -(-steps // cycles)
    phase = np.arange(steps) % length / length
    sizes = top / 2 * (np.cos(np.pi * phase) + 1)
    np.testing.assert_allclose(result.info.step_size, sizes, rtol=1e-12)
    np.testing.assert_array_equal(result.info.sampling, phase >= 0.6)
    np.testing.assert_array_equal(result.kept.sampling, phase >= 0.6)
    path = np.concatenate([chains.start.weights[0][None], result.kept.position.weights[0]])
    slopes = np.sum(Y - path[..., None], axis=-1) / NOISE - path / SCALE**2
    noise = np.diff(path, axis=0) - sizes[:, None] * slopes[:-1]
    exploring = phase < 0.6
    np.testing.assert_allclose(noise[exploring], 0, atol=1e-12)
    z = (noise / np.sqrt(2 * sizes)[:, None])[~exploring]
    assert 0.3 < np.mean(z**2) < 2.5
    assert chains.posterior(result.kept).num_samples == 2 * np.sum(~exploring)


def test_noise_variance_is_sampled_too():
    """By Hamiltonian Monte Carlo of BlackJAX, against quadrature."""
    a, b = 3.0, 0.5
    chains = level(num_chains=16, likelihood_prior=dist.InverseGamma(a, b))
    one = jax.tree.map(lambda leaf: leaf[0], chains.start)
    free = eqx.tree_at(lambda p: p.likelihood.noise_var, one, jnp.log(0.4))
    found = chains.log_joint(free, X, Y)
    wanted = stats.norm(one.weights[0], np.sqrt(0.4)).logpdf(Y).sum()
    wanted += stats.norm(0, SCALE).logpdf(one.weights[0])
    wanted += stats.invgamma(a, scale=b).logpdf(0.4) + np.log(0.4)
    np.testing.assert_allclose(found, wanted, rtol=1e-10)
    sampler = blackjax.hmc(chains.log_density(X, Y), 0.15, jnp.array([0.1, 1.0]), 10)
    draws = interop.sample(KEY, sampler, chains.start, 400, num_chains=16)
    noise = np.asarray(draws.draws.likelihood.noise_var)[:, 50:]
    grid = np.linspace(-4, 3, 2000)
    variance = np.exp(grid)
    marginal = 1 / (N / variance + 1 / SCALE**2)
    quad = np.sum(Y**2) / variance - marginal * (np.sum(Y) / variance) ** 2
    log_prob = -0.5 * (N * grid - np.log(marginal) + quad) + grid
    log_prob += stats.invgamma(a, scale=b).logpdf(variance)
    weights = special.softmax(log_prob)
    near(noise.mean(), weights @ grid, noise.mean(axis=1))
    near(np.exp(noise).mean(), weights @ variance, np.exp(noise).mean(axis=1))
    posterior = chains.posterior(draws.draws, chain_axis=0)
    assert posterior.likelihood_each and posterior.num_samples == 16 * 400
    tree = chains.to_datatree(draws.draws, X[:5], chain_axis=0, weights=True)
    np.testing.assert_allclose(tree["posterior/noise_var"][:, 50:], np.exp(noise), rtol=1e-10)
    assert tree["posterior/f"].dims == ("chain", "draw", "input")
    assert tree["posterior/level"].shape == (16, 400)
    assert tree["constant_data/r_hat"].shape == (5,)


def test_diagnostics_are_those_of_values():
    chains = linear(num_chains=3)
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(11, 3, 1, D)), rng.normal(size=(11, 3, 1))
    position = bnn.ChainPosition((jnp.asarray(weight), jnp.asarray(bias)), None)
    sampling = np.arange(11) >= 3
    draws = bnn.ChainDraws(position, None, sampling)
    f = np.einsum("scd,md->scm", weight[:, :, 0], X[:5]) + bias
    f = f[3:].swapaxes(0, 1)
    found = chains.diagnostics(draws, X[:5])
    halves = f.reshape(6, 4, 5)
    within = halves.var(axis=1, ddof=1).mean(axis=0)
    between = halves.mean(axis=1).var(axis=0, ddof=1)
    np.testing.assert_allclose(found.r_hat, np.sqrt(0.75 + between / within), rtol=1e-10)
    assert found.effective_sample_size.shape == (5,)
    np.testing.assert_allclose(chains.posterior(draws).values(X[:5]), f.reshape(24, 5), rtol=1e-12)
    tree = chains.to_datatree(draws, X[:5])
    np.testing.assert_allclose(tree["posterior/f"], f, rtol=1e-12)
    np.testing.assert_allclose(tree["constant_data/r_hat"], found.r_hat)


def test_starts_come_from_prior_or_networks():
    chains = linear(num_chains=2000)
    starts = np.asarray(chains.start.weights[0]).reshape(2000, D)
    assert np.all(np.abs(starts.mean(axis=0)) < 5 * SCALE / 2000**0.5)
    assert np.all(np.abs(starts.std(axis=0) / SCALE - 1) < 5 / 4000**0.5)
    ensemble = bnn.deep_ensemble(
        KEY, lambda key: eqx.nn.Linear(D, "scalar", key=key), likelihoods.Gaussian(NOISE)
    )
    chains = linear(num_chains=5, start=ensemble.networks)
    np.testing.assert_array_equal(chains.start.weights[0], ensemble.networks.weight)


def test_adaptation_ends_with_the_burn_in():
    algorithm = bnn.sghmc(level(num_chains=2), burn_in=10)
    keep = lambda state: (state.memory.square, state.sampling)  # noqa: E731
    square, sampling = run(algorithm, 20, X, Y, thin=1, keep=keep).kept
    assert np.all(square[9:] == square[9]) and np.all(np.diff(square[:10], axis=0) != 0)
    np.testing.assert_array_equal(sampling, np.arange(20) >= 10)


def test_chains_resume_to_the_same_bits(tmp_path):
    algorithm = bnn.sghmc(level(num_chains=2), num_data=N, burn_in=10)
    file = tmp_path / "chains"
    run(algorithm, 10, X, Y, thin=5, batch_size=5, checkpoint=file)
    resumed = run(algorithm, 20, X, Y, thin=5, batch_size=5, checkpoint=file)
    whole = run(algorithm, 20, X, Y, thin=5, batch_size=5)
    assert resumed.resumed_from == 10
    assert eqx.tree_equal(resumed.kept, whole.kept)
    assert not eqx.tree_equal(whole.kept.position.weights[0][0], whole.kept.position.weights[0][1])


def hierarchical(num_chains):
    network = eqx.nn.Linear(D, "scalar", use_bias=False, key=KEY)
    prior = bnn.hierarchical_prior(network, 2.0, 1.5)
    return bnn.network_chains(
        KEY, network, likelihoods.Gaussian(NOISE), prior=prior, num_chains=num_chains
    )


def mixture_over_scales(x, y):
    """Moments of log precision and weights by quadrature over the precision."""
    grid = np.linspace(-6, 5, 1500)
    gram = x @ x.T / D
    log_prob = np.array(
        [
            stats.multivariate_normal(
                np.zeros(len(x)), NOISE * np.eye(len(x)) + gram / np.exp(g)
            ).logpdf(y)
            for g in grid
        ]
    )
    weights = special.softmax(
        log_prob + stats.gamma(2.0, scale=1 / 1.5).logpdf(np.exp(grid)) + grid
    )
    means, seconds = [], []
    for g in grid:
        covariance = np.linalg.inv(x.T @ x / NOISE + D * np.exp(g) * np.eye(D))
        means.append(covariance @ x.T @ y / NOISE)
        seconds.append(np.diag(covariance) + means[-1] ** 2)
    return weights @ grid, weights @ np.array(means), weights @ np.array(seconds)


@pytest.mark.parametrize("gibbs_every", [3, None])
def test_scales_of_hierarchical_priors(gibbs_every):
    """Drawn in turn with the weights, or integrated out, against quadrature; with few data."""
    x, y = X[:4], Y[:4]
    chains = hierarchical(100)
    algorithm = bnn.sghmc(chains, step_size=0.3, burn_in=300, friction=0.2, gibbs_every=gibbs_every)
    result = run(algorithm, 3000, x, y)
    log_precision, mean, second = mixture_over_scales(x, y)
    good = result.kept.sampling
    w = np.asarray(result.kept.position.weights[0])[good].reshape(-1, 100, D)
    near(w.mean(axis=(0, 1)), mean, w.mean(axis=0))
    error = near((w**2).mean(axis=(0, 1)), second, (w**2).mean(axis=0))
    assert np.all(error < 0.05 * second)
    if gibbs_every is None:
        assert result.kept.precisions is None
        return
    (precision,) = result.kept.precisions
    logs = np.log(np.asarray(precision)[good])
    near(logs.mean(), log_precision, logs.mean(axis=0))
    same = np.mean(np.diff(result.kept.precisions[0][:, 0]) == 0)
    assert same == 0  # each tenth state has seen three draws


def test_scales_are_drawn_when_it_is_time():
    chains = hierarchical(2)
    algorithm = bnn.sghmc(chains, burn_in=5, gibbs_every=4)
    result = run(algorithm, 12, X, Y, thin=1)
    changed = np.flatnonzero(np.any(np.diff(result.kept.precisions[0], axis=0) != 0, axis=1)) + 1
    np.testing.assert_array_equal(changed, [4, 8])


@pytest.mark.errors
def test_bad_chains_are_named():
    raises = lambda match: pytest.raises(ValueError, match=match)  # noqa: E731
    network, noise = eqx.nn.Linear(D, "scalar", key=KEY), likelihoods.Gaussian(NOISE)
    with raises("num_chains must be at least 1, got 0"):
        bnn.network_chains(KEY, network, noise, num_chains=0)
    with raises("likelihood must be a function"):
        bnn.network_chains(KEY, network, None)
    with raises("network must be a callable"):
        bnn.network_chains(KEY, X, noise)
    with raises("prior must be a standard deviation"):
        bnn.network_chains(KEY, network, noise, prior="normal")
    with raises("likelihood_prior must be a NumPyro distribution of one number"):
        bnn.network_chains(KEY, network, noise, likelihood_prior=2.0)
    with raises("no parameters that could be sampled"):
        flags = lambda f: dist.Bernoulli(logits=f)  # noqa: E731
        bnn.network_chains(KEY, network, flags, likelihood_prior=dist.Gamma(1.0, 1.0))
    with raises("start must be networks in one, with weight of shape .4, 1, 3."):
        bnn.network_chains(KEY, network, noise, start=network)
    chains = level(num_chains=2)
    with raises("chains must be what network_chains"):
        bnn.sghmc(network, num_data=N)
    with raises("friction must be in .0, 1."):
        bnn.sghmc(chains, num_data=N, friction=1.0)
    with raises("step_size must be positive"):
        bnn.sghmc(chains, num_data=N, step_size=0.0)
    with raises("batch_size must be at least 1"):
        bnn.sghmc(chains, batch_size=0)
    with raises("burn_in must be at least 1"):
        bnn.sghmc(chains, num_data=N, burn_in=0)
    with raises("temperature must be positive"):
        bnn.sgld(chains, num_data=N, step_size=0.1, temperature=-1.0)
    with raises("gibbs_every is for hierarchical priors"):
        bnn.sghmc(chains, num_data=N, gibbs_every=5)
    with raises("gibbs_every needs temperature=1"):
        bnn.sghmc(hierarchical(2), num_data=N, gibbs_every=5, temperature=0.5)
    cycles = {"num_data": N, "step_size": 0.1}
    with raises("num_cycles must be at most num_steps=3"):
        bnn.cyclical_sgld(chains, num_steps=3, num_cycles=4, **cycles)
    with raises("exploration must be in .0, 1."):
        bnn.cyclical_sgld(chains, num_steps=30, exploration=1.0, **cycles)
    algorithm = bnn.sghmc(chains, num_data=3)
    with raises("num_data is 3, less than the 23"):
        run(algorithm, 2, X, Y, thin=1)
    draws = bnn.ChainDraws(jax.tree.map(lambda a: a[None], chains.start), None, np.zeros(1, bool))
    with raises("none of the 1 draws was kept after burn-in"):
        chains.posterior(draws)
    with raises("draws must be what bayesjx.fit"):
        chains.posterior(chains.start)
    with raises("chain_axis must be 0 or 1"):
        chains.posterior(draws, chain_axis=2)
    with raises("draws must have at least 4 after burn-in of each chain"):
        chains.diagnostics(draws._replace(sampling=np.ones(1, bool)), X)
