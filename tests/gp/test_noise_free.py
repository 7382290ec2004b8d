"""Posteriors of noise-free data, whose covariances are singular; distributions of latent values."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import potential_energy
from scipy.stats import multivariate_normal, norm

from bayesjx import gp, kernels, ops
from bayesjx.distributions import StructuredNormal

N = 13
X = np.linspace(0, 3, N)
Y = np.sin(2 * X)
GRID = gp.Grid(np.linspace(0, 1, 5), np.linspace(0, 1, 4))
CELLS = np.sin(GRID.points()[:, 0]) * np.cos(GRID.points()[:, 1])
KEY = jax.random.key(0)


@pytest.mark.parametrize("noise, dtype", [(1e-12, jnp.float64), (0.0, jnp.float32)])
def test_draws_at_noise_free_data_are_the_data(noise, dtype):
    """Up to the jitter that is reported, relative to the prior's variance whatever its scale."""
    x = jnp.linspace(0, 4, 31, dtype=dtype)  # close enough for a posterior of rounding alone
    y, scaled = jnp.sin(2 * x), []
    for scale in (1.0, 2.0**20):
        prior = gp.GP(scale**2 * kernels.RBF(jnp.asarray(1.0, dtype)), noise_var=noise * scale**2)
        posterior = gp.condition(prior, x, scale * y)
        distribution = posterior(x)
        jitter = (posterior.jitter + distribution.covariance.jitter) / scale**2
        assert distribution.covariance.jitter > 0
        assert jitter < (1e-10 if dtype == jnp.float64 else 1e-3)
        draws = posterior.sample(KEY, x, (3,)) / scale
        assert draws.dtype == dtype
        np.testing.assert_allclose(draws, np.tile(y, (3, 1)), atol=6 * float(jitter + noise) ** 0.5)
        assert np.all(np.isfinite(distribution.log_prob(scale * draws)))
        scaled.append(draws)
    np.testing.assert_array_equal(*scaled)  # powers of two scale exactly


def test_noise_free_grids_are_interpolated():
    process = gp.GP(kernels.RBF(jnp.ones(2)))
    posterior = gp.condition(process, GRID, CELLS)
    assert 0 < posterior.jitter < 1e-9
    atol = 10 * float(posterior.jitter) ** 0.5
    np.testing.assert_allclose(posterior.mean(GRID), CELLS, atol=atol)
    np.testing.assert_allclose(posterior.sample(KEY, GRID), CELLS, atol=atol)
    np.testing.assert_allclose(posterior.sample(KEY, GRID.points()[:7]), CELLS[:7], atol=atol)
    assert gp.condition(gp.GP(process.kernel, noise_var=0.1), GRID, CELLS).jitter == 0


def test_the_rest_of_a_singular_normal_can_be_drawn():
    """Given values that are a combination of kernels, whose mean elsewhere is that combination."""
    gram = np.asarray(kernels.RBF(3.0).gram(X)) + 1e-13 * np.eye(N)
    combination = np.cos(np.arange(7))
    joint = StructuredNormal(jnp.zeros(N), ops.Dense(gram, ops.psd))
    rest = joint.condition(np.arange(0, N, 2), jnp.asarray(gram[::2, ::2] @ combination))
    spread = np.sqrt(np.maximum(rest.variance, 0) + 1e-12)
    assert rest.covariance.jitter < 1e-9 and np.all(spread < 1e-3)
    off = rest.sample(KEY) - gram[1::2, ::2] @ combination
    assert np.all(np.abs(off) < 6 * spread)


def test_latent_values_have_a_density_with_a_jitter(dtype):
    x = jnp.asarray(X, dtype)
    distribution = gp.GP(kernels.RBF(jnp.asarray(1.0, dtype), 1.5), 0.3).latent(x)
    jitter = 1e-6 if dtype == jnp.float64 else 1e-4
    np.testing.assert_allclose(distribution.covariance.jitter, 1.5 * jitter, rtol=1e-6)
    plain = 1.5 * np.exp(-((X[:, None] - X) ** 2) / 2)
    want = multivariate_normal(np.full(N, 0.3), plain + 1.5 * jitter * np.eye(N)).logpdf(Y)
    # A rounding of the matrix moves the quadratic form by its size times the squared weights.
    weights = np.linalg.solve(plain + 1.5 * jitter * np.eye(N), Y - 0.3)
    atol = 10 * N * float(jnp.finfo(dtype).eps) * (weights @ weights + 1 / jitter)
    np.testing.assert_allclose(distribution.log_prob(jnp.asarray(Y, dtype)), want, atol=atol)
    exact = gp.GP(kernels.Matern12(1.0)).latent(x, jitter=0.0)
    want = multivariate_normal(None, np.exp(-np.abs(X[:, None] - X))).logpdf(Y)
    np.testing.assert_allclose(exact.log_prob(jnp.asarray(Y, dtype)), want, rtol=1e-4)


def test_latent_values_are_sites_of_models():
    """The energy that NUTS sees, on points and on a grid beside a lengthscale, against SciPy."""

    def model():
        lengthscale = numpyro.sample("lengthscale", dist.LogNormal(0.0, 0.5))
        for name, kernel, x in (
            ("f", kernels.RBF(lengthscale), X),
            ("g", kernels.RBF(lengthscale * jnp.ones(2)), GRID),
        ):
            numpyro.sample(name, gp.GP(kernel).latent(x))

    values = {"lengthscale": jnp.zeros(()), "f": jnp.asarray(Y), "g": jnp.asarray(CELLS)}
    energy = jax.jit(jax.value_and_grad(lambda v: potential_energy(model, (), {}, v)))
    value, gradient = energy(values)
    want = norm(0, 0.5).logpdf(0)
    for points, y in ((X[:, None], Y), (np.asarray(GRID.points()), CELLS)):
        square = np.sum((points[:, None] - points) ** 2, axis=-1)
        cov = np.exp(-square / 2) + 1e-6 * np.eye(len(y))
        want += multivariate_normal(None, cov).logpdf(y)
    np.testing.assert_allclose(value, -want, rtol=1e-6)
    assert all(np.all(np.isfinite(g)) for g in gradient.values())


@pytest.mark.errors
def test_a_negative_jitter_is_named():
    with pytest.raises(ValueError, match="jitter must be a number, 0 or more"):
        gp.GP(kernels.RBF()).latent(X, jitter=-1.0)
