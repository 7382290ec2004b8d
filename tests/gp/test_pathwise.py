"""Draws as functions against the posteriors that they are drawn from."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import gp, kernels, ops
from bayesjx.gp._grid_posterior import grid_posterior

N, M, DRAWS = 7, 5, 2000
X = jnp.sort(jax.random.uniform(jax.random.key(0), (N,), maxval=3.0))
Y = jnp.sin(2 * X) + 0.1 * jax.random.normal(jax.random.key(1), (N,))
NEW = jnp.linspace(-0.5, 3.5, M)
A = jax.random.normal(jax.random.key(2), (N, N))
# Kernels whose features are exact, so that draws have exactly the posterior's distribution.
FINITE = {
    "waves": 0.8 * kernels.Cosine(1.7) + kernels.Linear(0.5, 1.0) + 0.3,
    "periodic": kernels.Periodic(0.9, 2.5, 1.2),
}
NOISES = {
    "scalar": jnp.array(0.1),
    "vector": jnp.linspace(0.05, 0.3, N),
    "operator": ops.Dense(0.05 * A @ A.T + 0.05 * jnp.eye(N), ops.psd),
}


def check_moments(draws, mean, covariance):
    """Means and covariances of draws `(s, m)`, within 5 standard errors of the sample."""
    draws, size = np.asarray(draws, float), len(draws)
    assert np.all(np.abs(draws.mean(0) - mean) < 5 * draws.std(0) / size**0.5 + 1e-8)
    centred = draws - np.asarray(mean)
    products = centred[:, :, None] * centred[:, None, :]
    error = products.std(0) / size**0.5
    assert np.all(np.abs(products.mean(0) - covariance) < 5 * error + 1e-8)


@eqx.filter_jit
def drawn(key, posterior, new, features):
    """Draws, and mean and covariance of what they are drawn from, as one program."""
    draws = gp.pathwise(key, posterior, DRAWS, num_features=features)(new)
    return draws, posterior.mean(new), posterior.covariance(new)


condition = eqx.filter_jit(gp.condition)


def line(point):
    return 0.5 - 0.2 * point[0]


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("name", FINITE)
def test_draws_have_the_distribution_of_the_exact_posterior(name, noise):
    posterior = condition(gp.GP(FINITE[name], 0.7, noise_var=NOISES[noise]), X, Y)
    draws, *moments = drawn(jax.random.key(3), posterior, NEW, 600)
    assert draws.shape == (DRAWS, M)
    check_moments(draws, *moments)


@pytest.mark.parametrize(
    "kernel", [kernels.RBF(0.8, 1.3), kernels.Matern32(0.8)], ids=["rbf", "m32"]
)
def test_draws_of_other_kernels_have_the_distribution_that_their_features_give(kernel):
    """Without the error of the prior's features, which all draws of one call share."""
    prior = gp.GP(kernel, line, noise_var=0.05)
    posterior = condition(prior, X, Y)

    @eqx.filter_jit
    def run(key, posterior):
        samples = gp.pathwise(key, posterior, DRAWS, num_features=2000)
        phi = samples.features(jnp.concatenate([NEW, X]))
        return samples(NEW), posterior.mean(NEW), posterior.covariance(NEW), phi

    draws, mean, wanted, phi = run(jax.random.key(4), posterior)
    gain = np.linalg.solve(kernel.gram(X) + 0.05 * np.eye(N), kernel.gram(X, NEW)).T
    # f(new) = f₀(new) - gain (f₀(x) + ε) and a constant.
    rows = np.concatenate([np.eye(M), -gain], axis=1)
    covariance = rows @ np.asarray(phi @ phi.T) @ rows.T + 0.05 * gain @ gain.T
    check_moments(draws, mean, covariance)
    # And that distribution is close to the posterior.
    np.testing.assert_allclose(covariance, wanted, atol=0.1)


def test_draws_interpolate_where_there_is_no_noise(dtype):
    x, y = X.astype(dtype)[::2], Y.astype(dtype)[::2]
    kernel = kernels.Matern32(jnp.asarray(0.5, dtype), jnp.asarray(1.3, dtype))
    posterior = condition(gp.GP(kernel), x, y)
    key = jax.random.key(5)
    found = jax.jit(lambda p, x: gp.pathwise(key, p, 3, num_features=100)(x))(posterior, x)
    assert found.dtype == dtype
    np.testing.assert_allclose(
        found, jnp.broadcast_to(y, (3, y.size)), atol=1e-3 if dtype == jnp.float32 else 1e-10
    )


def test_jitter_of_the_factor_is_noise_of_the_draws():
    """Repeated points without noise: what was added to factorise them is noise of the draws."""
    x, y = jnp.concatenate([X, X[:2]]), jnp.concatenate([Y, Y[:2]])
    posterior = condition(gp.GP(FINITE["periodic"]), x, y)
    assert posterior.jitter > 0
    draws = np.asarray(drawn(jax.random.key(6), posterior, x, 600)[0])
    variance = posterior.variance(x)
    error = draws.var(0) * (2 / DRAWS) ** 0.5
    # Far below the kernel's variance and still that of the posterior.
    assert np.all(np.abs(draws.var(0) - variance) < 5 * error + 1e-9)


@pytest.mark.parametrize("name", FINITE)
def test_draws_have_the_distribution_of_the_sparse_posterior(name):
    points = jnp.linspace(0.0, 3.0, 4)
    prior = gp.GP(FINITE[name], line, noise_var=0.1)
    posterior = eqx.filter_jit(gp.sparse_posterior)(prior, X, Y, inducing_points=points)
    samples = eqx.filter_eval_shape(
        gp.pathwise, jax.random.key(7), posterior, DRAWS, num_features=600
    )
    assert samples.updates.shape == (DRAWS, 4)
    check_moments(*drawn(jax.random.key(7), posterior, NEW, 600))


def test_a_large_jitter_of_inducing_points_is_noise_of_the_draws():
    prior, points = gp.GP(FINITE["periodic"], noise_var=0.1), jnp.linspace(0.0, 3.0, 4)
    posterior = eqx.filter_jit(gp.sparse_posterior)(prior, X, Y, inducing_points=points, jitter=0.2)
    check_moments(*drawn(jax.random.key(8), posterior, NEW, 600))


@pytest.mark.parametrize("case", ["full", "missing", "cell by cell"])
def test_draws_have_the_distribution_of_the_posterior_on_a_grid(case):
    kernel = kernels.Cosine(1.7).on(0) * (kernels.Linear(0.5, 1.0) * 1.2).on(1)
    grid = gp.Grid(X[:4], jnp.array([0.0, 0.5, 1.2]))
    y = jax.random.normal(jax.random.key(20), grid.shape)
    mask = np.ones(grid.shape, bool)
    mask[1, 2] = mask[3, 0] = case != "missing"
    noise = jnp.linspace(0.1, 0.4, grid.size) if case == "cell by cell" else 0.2
    new = jnp.array([[0.2, 0.1], [1.4, 0.7], [2.5, -0.4]])
    test = gp.Grid(NEW[:2], jnp.array([0.2, 0.9]))

    @eqx.filter_jit
    def run(prior, y, key):
        posterior = grid_posterior(prior, grid, y, None if mask.all() else mask)
        samples = gp.pathwise(key, posterior, DRAWS, num_features=64)
        distribution = posterior.mean(new), posterior.covariance(new)
        return (samples(new), *distribution), (samples(test), samples(test.points()))

    found, on_grid = run(gp.GP(kernel, 0.3, noise_var=noise), y, jax.random.key(21))
    check_moments(*found)
    np.testing.assert_allclose(*on_grid, rtol=1e-9, atol=1e-10)


def test_draws_of_several_outputs():
    factor, own = jnp.array([[1.0], [0.7]]), jnp.array([0.1, 0.3])
    kernel = gp.icm(FINITE["waves"], factor, own)
    x, y = gp.stack_outputs([X, X[1:4]], [Y, Y[1:4]])
    posterior = condition(gp.GP(kernel, noise_var=0.1), x, y)
    check_moments(*drawn(jax.random.key(9), posterior, gp.at_output(NEW, 1), 600))


def test_draws_are_functions():
    """Points one by one, derivatives in points, and the same key again."""
    posterior = gp.condition(gp.GP(kernels.RBF(0.8), line, noise_var=0.05), X, Y)
    samples = gp.pathwise(jax.random.key(10), posterior, 3, num_features=64)
    values = eqx.filter_jit(samples)(NEW)
    one_by_one = jax.vmap(lambda point: samples(point[None])[:, 0], out_axes=1)(NEW)
    np.testing.assert_allclose(one_by_one, values, rtol=1e-9, atol=1e-11)
    slopes = jax.jit(jax.jacfwd(lambda point: samples(point[None])[:, 0]))(NEW[2])
    step = 1e-6
    rise = (samples(NEW[2:3] + step) - samples(NEW[2:3] - step))[:, 0] / (2 * step)
    np.testing.assert_allclose(slopes, rise, rtol=1e-6)
    again = jax.jit(lambda key: gp.pathwise(key, posterior, 3, num_features=64)(NEW))
    np.testing.assert_allclose(again(jax.random.key(10)), values, rtol=1e-9, atol=1e-11)


def test_gradients_in_the_parameters():
    def total(ell, noise):
        posterior = gp.condition(gp.GP(kernels.RBF(ell), noise_var=noise), X, Y)
        return jnp.sum(jnp.sin(gp.pathwise(jax.random.key(11), posterior, 3, num_features=64)(NEW)))

    total = jax.jit(total)
    found = jax.jit(jax.grad(total, (0, 1)))(0.8, 0.1)
    for i, (up, down) in enumerate([((1e-6, 0), (-1e-6, 0)), ((0, 1e-6), (0, -1e-6))]):
        rise = total(0.8 + up[0], 0.1 + up[1]) - total(0.8 + down[0], 0.1 + down[1])
        np.testing.assert_allclose(found[i], rise / 2e-6, rtol=1e-5)


def test_more_centres_than_are_evaluated_at_a_time(monkeypatch):
    posterior = gp.condition(gp.GP(kernels.RBF(0.8), noise_var=0.1), X, Y)
    want = gp.pathwise(jax.random.key(12), posterior, 3, num_features=64).updates
    monkeypatch.setattr("bayesjx.gp._pathwise.CHUNK", 3)
    found = gp.pathwise(jax.random.key(12), posterior, 3, num_features=64).updates
    np.testing.assert_allclose(found, want, rtol=1e-9, atol=1e-12)


@pytest.mark.errors
def test_bad_input_is_named():
    posterior = gp.condition(gp.GP(kernels.RBF(), noise_var=0.1), X, Y)
    with pytest.raises(ValueError, match="num_samples must be positive, got 0"):
        gp.pathwise(jax.random.key(0), posterior, 0)
    with pytest.raises(ValueError, match="num_features must be at least 2"):
        gp.pathwise(jax.random.key(0), posterior, 1, num_features=1)
    white = gp.condition(gp.GP(kernels.RBF() + kernels.White(), noise_var=0.1), X, Y)
    with pytest.raises(ValueError, match="add its variance to noise_var"):
        gp.pathwise(jax.random.key(0), white, 1)
