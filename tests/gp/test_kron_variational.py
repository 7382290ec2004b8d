"""Variational posteriors with Kronecker covariance: dense formulas, Laplace and long NUTS."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
import pytest
from numpyro import distributions as dist
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS

import bayesjx
from bayesjx import gp, kernels, likelihoods

RNG = np.random.default_rng(2)
AXES = (np.linspace(0, 1, 4), np.linspace(0, 1, 3), np.linspace(-1, 1, 2))
N = 24
MASK = RNG.random(N) < 0.75
SEEN = np.flatnonzero(MASK)
COUNTS = RNG.poisson(6.0, size=N)
TEST = RNG.uniform(size=(5, 3))
ELL = np.array([0.5, 0.8, 1.5])


def make(dtype=jnp.float64, likelihood=None, seed=3):
    """A distribution with means and factors at random, and where it is used."""
    grid = gp.Grid(*(jnp.asarray(axis, dtype) for axis in AXES))
    prior = gp.GP(kernels.RBF(jnp.asarray(ELL, dtype), 0.7), mean=jnp.asarray(1.5, dtype))
    q = gp.KronVariational(prior, likelihood or likelihoods.PoissonExp(), grid)
    rng = np.random.default_rng(seed)
    mean = jnp.asarray(rng.normal(size=N), dtype)
    factors = [rng.uniform(-0.5, 0.5, (n, n)) + np.eye(n) for n in grid.shape]
    factors = tuple(jnp.asarray(f, dtype) for f in factors)
    return eqx.tree_at(lambda q: (q.whitened_mean, q.factors), q, (mean, factors))


@jax.jit
def elbo(q, cells, y):
    return q.elbo(cells, y)


def kron(matrices):
    return functools.reduce(np.kron, matrices)


def dense_distribution(q):
    """Mean and covariance of q at the cells, and of the prior, by dense algebra."""
    jitter = 1e-6
    factors = []
    for axis, ell, scale in zip(AXES, ELL, (0.7, 1.0, 1.0), strict=True):
        k = scale * np.exp(-0.5 * ((axis[:, None] - axis) / ell) ** 2)
        factors.append(k + jitter * scale * np.eye(len(axis)))
    root = kron([np.linalg.cholesky(k) for k in factors])
    spread = kron([np.tril(f) for f in q.factors])
    mean = 1.5 + root @ np.asarray(q.whitened_mean)
    return mean, root @ spread @ spread.T @ root.T, kron(factors)


def test_divergence_and_moments_are_the_dense_ones():
    q = make()
    mean, covariance, prior = dense_distribution(q)
    off = mean - 1.5
    inverse = np.linalg.inv(prior)
    logdets = np.linalg.slogdet(prior)[1] - np.linalg.slogdet(covariance)[1]
    wanted = 0.5 * (np.trace(inverse @ covariance) + off @ inverse @ off - N + logdets)
    divergence, found = jax.jit(lambda q: (q.divergence(), q.cell_moments()))(q)
    np.testing.assert_allclose(divergence, wanted, rtol=1e-6)
    np.testing.assert_allclose(found[0], mean, rtol=1e-9)
    np.testing.assert_allclose(found[1], np.diag(covariance), rtol=1e-9)


def test_divergence_of_the_prior_is_zero():
    grid = make().grid
    q = gp.KronVariational(gp.GP(kernels.RBF(0.5)), likelihoods.PoissonExp(), grid)
    assert q.divergence() == 0
    np.testing.assert_allclose(q.posterior().variance(grid), 1, rtol=1e-9)
    assert float(make().divergence()) > 0


def test_elbo_is_the_dense_one(dtype):
    """The likelihood is that of observed cells only; expectations of counts in closed form."""
    q = make(dtype)
    cells, y = gp.observed_cells(q.grid, COUNTS, MASK)
    mean, covariance, _ = dense_distribution(q)
    var = np.diag(covariance)
    log_factorial = np.array([np.sum(np.log(np.arange(1, n + 1))) for n in COUNTS])
    terms = COUNTS * mean - np.exp(mean + var / 2) - log_factorial
    found = elbo(q, cells, y)
    assert found.dtype == dtype
    wanted = terms[SEEN].sum() - float(make().divergence())
    rtol = 1e-3 if dtype == jnp.float32 else 1e-8  # the smaller jitter is not the same there
    np.testing.assert_allclose(found, wanted, rtol=rtol)


def test_quadrature_is_the_closed_form():
    closed = make()
    by_nodes = make(likelihood=lambda f: dist.Poisson(jnp.exp(f)))
    cells, y = gp.observed_cells(closed.grid, COUNTS, MASK)
    found = jax.jit(lambda mean: elbo_at(by_nodes, mean, cells, y))(by_nodes.whitened_mean)
    np.testing.assert_allclose(found, elbo(closed, cells, y), rtol=1e-6)


def test_minibatches_are_unbiased():
    q = make()
    cells, y = gp.observed_cells(q.grid, COUNTS, MASK)
    of_batch = jax.jit(lambda cells, y: q.elbo(cells, y, SEEN.size))
    pairs = np.asarray(cells)[:, None], np.asarray(y)[:, None]
    found = np.mean([of_batch(*pair) for pair in zip(*pairs, strict=True)])
    np.testing.assert_allclose(found, q.elbo(cells, y), rtol=1e-9)


def test_posterior_is_the_dense_conditional():
    """Anywhere: through that of the cells, with the prior's variance of what they leave."""
    q = make()
    posterior = q.posterior()
    mean, covariance, prior = dense_distribution(q)
    points = q.grid.points()
    tests = jnp.asarray(TEST), gp.Grid(*(jnp.asarray([0.3, 0.9]) for _ in AXES)), q.grid
    run = jax.jit(lambda p: [(p.moments(x), p.covariance(x)) for x in tests])
    gram = jax.jit(lambda x, z: q.prior.kernel.gram(x, z))
    for x, found in zip(tests, run(posterior), strict=True):
        where = x.points() if isinstance(x, gp.Grid) else x
        cross = np.asarray(gram(where, points))
        gain = np.linalg.solve(prior, cross.T).T
        wanted = np.asarray(gram(where, where)) - gain @ (prior - covariance) @ gain.T
        np.testing.assert_allclose(found[0][0], 1.5 + gain @ (mean - 1.5), rtol=1e-6)
        np.testing.assert_allclose(found[0][1], np.diag(wanted), rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(found[1], wanted, rtol=1e-5, atol=1e-8)


def test_draws_have_the_distribution():
    q = make()
    posterior = q.posterior()
    tests = q.grid, gp.Grid(*(jnp.asarray([0.3, 0.9]) for _ in AXES))

    @jax.jit
    def run(p, key):
        return [(p.sample(key, x, (4000,)), p.mean(x), p.covariance(x)) for x in tests]

    for draws, mean, covariance in run(posterior, jax.random.key(1)):
        var, s = np.diag(covariance), len(draws)
        off = np.asarray(draws - mean)
        assert np.max(np.abs(off.mean(axis=0)) / np.sqrt(var / s)) < 5
        error = np.sqrt((np.outer(var, var) + covariance**2) / s)
        assert np.max(np.abs(off.T @ off / s - covariance) / error) < 5.2


def distribution_only(q):
    return [q.whitened_mean, *q.factors]


@functools.cache
def best():
    start = make()
    grid = start.grid
    cells, y = gp.observed_cells(grid, COUNTS, MASK)
    q = gp.KronVariational(start.prior, likelihoods.PoissonExp(), grid)
    return gp.minimise(lambda q: -q.elbo(cells, y), q, trainable=distribution_only)


def test_optimum_is_near_laplace_and_below_the_evidence():
    found = best()
    assert bool(found.converged)

    @jax.jit
    def both(q):
        peer = gp.laplace(q.prior, likelihoods.PoissonExp(), q.grid, COUNTS, MASK)
        return q.posterior().moments(q.grid), peer.moments(q.grid), peer.log_evidence()

    (mean, variance), (peer_mean, peer_variance), evidence = both(found.params)
    # Laplace's mode is below the mean, by less than half the variance times the skewness.
    assert np.max(np.abs(mean - peer_mean)) < 0.1
    ratio = variance / peer_variance
    assert np.all((ratio > 0.5) & (ratio < 1.5))
    assert -found.objective < evidence + 0.05


def test_fit_of_batches_gets_there():
    start = gp.KronVariational(make().prior, likelihoods.PoissonExp(), make().grid)
    cells, y = gp.observed_cells(start.grid, COUNTS, MASK)
    algorithm = gp.kron_vi(
        start, optax.adam(2e-2), num_data=len(cells), trainable=distribution_only
    )
    keys = np.random.default_rng(0)
    half = len(cells) // 2

    def batches(step):
        chosen = keys.choice(len(cells), half, replace=False)
        return cells[chosen], np.asarray(y)[chosen]

    result = bayesjx.fit(jax.random.key(0), algorithm, algorithm.init(), 1500, batches=batches)
    q = start.trained(result.state)
    assert float(elbo(q, cells, y)) > -float(best().objective) - 0.5
    np.testing.assert_array_equal(q.prior.kernel.lengthscale, start.prior.kernel.lengthscale)


def test_hyper_parameters_are_trained_and_the_grid_is_not():
    start = gp.KronVariational(make().prior, likelihoods.PoissonExp(), make().grid)
    cells, y = gp.observed_cells(start.grid, COUNTS, MASK)
    algorithm = gp.kron_vi(start, optax.adam(2e-2))
    state = algorithm.init()
    step = jax.jit(algorithm.step)
    values = []
    for _ in range(50):
        state, info = step(jax.random.key(0), state, cells, y)
        values.append(float(info.objective))
    q = start.trained(state)
    assert values[-1] > values[0] and np.all(np.isfinite(values))
    assert not np.allclose(q.prior.kernel.lengthscale, start.prior.kernel.lengthscale)
    assert q.prior.noise_var == 0
    jax.tree.map(np.testing.assert_array_equal, q.grid, start.grid)


def test_vmap_of_gradients():
    q = make()
    cells, y = gp.observed_cells(q.grid, COUNTS, MASK)
    batch = jnp.stack([y, y + 1])
    gradient = jax.jit(jax.grad(lambda mean, y: elbo_at(q, mean, cells, y)))
    found = jax.jit(jax.vmap(gradient, (None, 0)))(q.whitened_mean, batch)
    wanted = jnp.stack([gradient(q.whitened_mean, row) for row in batch])
    np.testing.assert_allclose(found, wanted, rtol=1e-9)


def elbo_at(q, mean, cells, y):
    return eqx.tree_at(lambda q: q.whitened_mean, q, mean).elbo(cells, y)


@pytest.mark.slow
def test_means_are_those_of_long_nuts():
    """Of the same latent model; a mean-field-like distribution is off by less than the skewness."""
    q = best().params
    root = jnp.linalg.cholesky(q.prior.kernel.gram(q.grid.points()) + 1e-6 * jnp.eye(N))

    def model():
        z = numpyro.sample("z", dist.Normal(jnp.zeros(N), 1.0).to_event(1))
        f = numpyro.deterministic("f", 1.5 + root @ z)
        numpyro.sample("y", dist.Poisson(jnp.exp(f[SEEN])).to_event(1), obs=COUNTS[SEEN])

    @jax.jit  # one program, where NumPyro's setting up is many small ones
    def sample(key):
        mcmc = MCMC(NUTS(model), num_warmup=500, num_samples=3000, progress_bar=False)
        mcmc.run(key)
        return mcmc.get_samples()["f"]

    draws = np.asarray(sample(jax.random.key(0)))
    error = draws.std(axis=0) / np.sqrt(effective_sample_size(draws[None]))
    found = np.asarray(q.posterior().mean(q.grid))
    assert np.all(np.abs(found - draws.mean(axis=0)) < 5 * error + 0.03)


@pytest.mark.errors
def test_bad_problems_are_named():
    q = make()
    cells, y = gp.observed_cells(q.grid, COUNTS, MASK)
    with pytest.raises(ValueError, match="a Grid is needed"):
        gp.KronVariational(q.prior, likelihoods.PoissonExp(), TEST)
    with pytest.raises(ValueError, match="no product of kernels"):
        gp.KronVariational(gp.GP(kernels.Matern32(1.0)), likelihoods.PoissonExp(), q.grid)
    with pytest.raises(ValueError, match="noise_var of the prior"):
        gp.KronVariational(gp.GP(kernels.RBF(1.0), noise_var=0.1), likelihoods.PoissonExp(), q.grid)
    with pytest.raises(ValueError, match="integers of shape"):
        q.elbo(MASK, COUNTS)
    with pytest.raises(ValueError, match="cells must be in 0, ..., 23"):
        q.elbo(cells + N, y)
    with pytest.raises(ValueError, match="less than the"):
        q.elbo(cells, y, 3)
    with pytest.raises(ValueError, match="outside of the support"):
        q.elbo(cells, -1.0 - y)
    with pytest.raises(ValueError, match="one for each"):
        q.elbo(cells, y[:-1])
    with pytest.raises(ValueError, match="y must have the grid's shape"):
        gp.observed_cells(q.grid, COUNTS[:-1])
