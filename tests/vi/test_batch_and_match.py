"""Batch and match: the update against its equation, and where it converges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import sqrtm

import bayesjx
from bayesjx import vi

D = 5


def target(dtype, rank=None, d=D):
    """Mean, covariance and log density of a Gaussian with correlations."""
    rng = np.random.default_rng(4)
    root = rng.normal(size=(d, rank or d))
    cov = root @ root.T + np.diag(rng.uniform(0.5, 2, size=d))
    mean = rng.normal(size=d)
    precision, loc = jnp.asarray(np.linalg.inv(cov), dtype), jnp.asarray(mean, dtype)
    return mean, cov, lambda z: -0.5 * (z - loc) @ precision @ (z - loc)


def errors(state, mean, cov):
    tril = np.linalg.cholesky(cov)
    inner = np.linalg.solve(tril, np.linalg.solve(tril, np.asarray(state.covariance, float)).T)
    loc = np.linalg.solve(tril, np.asarray(state.loc, float) - mean)
    return max(np.abs(loc).max(), np.abs(inner - np.eye(len(mean))).max())


def test_a_gaussian_is_found_to_rounding_and_geometrically(dtype):
    mean, cov, log_density = target(dtype)
    algorithm = vi.batch_and_match(log_density)
    state = algorithm.init(jnp.full(D, 3.0, dtype), jnp.full(D, 10.0, dtype))

    def step(state, key):
        state, info = algorithm.step(key, state)
        return state, (state, info)

    _, (states, info) = jax.jit(lambda s, k: jax.lax.scan(step, s, k))(
        state, jax.random.split(jax.random.key(0), 14)
    )
    gaps = [errors(jax.tree.map(lambda x: x[i], states), mean, cov) for i in range(14)]  # noqa: B023
    assert states.factor.dtype == info.objective.dtype == dtype
    # Scores of the draws are rounded by eps times the condition number of the covariance.
    assert gaps[-1] < 50 * jnp.finfo(dtype).eps * np.linalg.cond(cov)
    assert gaps[4] < 1e-2 * gaps[0] and info.divergence[-1] < 1e-6 * info.divergence[0]
    if dtype == jnp.float64:
        assert all(gaps[i + 2] < 0.3 * gaps[i] for i in range(6))


def test_one_step_is_exact_in_the_limit_of_a_large_weight():
    mean, cov, log_density = target(jnp.float64)
    algorithm = vi.batch_and_match(log_density, num_draws=D + 1, rate=1e9)
    state, _ = jax.jit(algorithm.step)(jax.random.key(1), algorithm.init(jnp.zeros(D)))
    assert errors(state, mean, cov) < 1e-3


@pytest.mark.parametrize("num_draws", [3, 11])
def test_the_update_solves_its_equation(num_draws):
    """Against the formula of the paper with dense matrices, also with fewer draws than numbers."""
    rng = np.random.default_rng(5)
    root = np.tril(rng.normal(size=(D, D))) + 2 * np.eye(D)
    loc, weight = rng.normal(size=D), 1.7

    def log_density(z):
        return -jnp.sum(jnp.cosh(z)) + z[0] * z[1]

    algorithm = vi.batch_and_match(log_density, num_draws=num_draws, rate=weight)
    state = algorithm.init(jnp.asarray(loc), jnp.asarray(root @ root.T))
    key = jax.random.key(2)
    new, info = jax.jit(algorithm.step)(key, state)
    z = np.asarray(state.draw(key, num_draws))
    g = np.asarray(jax.vmap(jax.grad(log_density))(jnp.asarray(z)))
    zbar, gbar = z.mean(0), g.mean(0)
    u = weight * np.cov(g.T, bias=True) + weight / (1 + weight) * np.outer(gbar, gbar)
    v = root @ root.T + weight * np.cov(z.T, bias=True)
    v += weight / (1 + weight) * np.outer(loc - zbar, loc - zbar)
    cov = 2 * v @ np.linalg.inv(np.eye(D) + np.real(sqrtm(np.eye(D) + 4 * u @ v)))
    np.testing.assert_allclose(new.covariance, cov, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(cov @ u @ cov + cov, v, rtol=1e-8, atol=1e-8)
    want = loc / (1 + weight) + weight / (1 + weight) * (cov @ gbar + zbar)
    np.testing.assert_allclose(new.loc, want, rtol=1e-8)
    np.testing.assert_allclose(np.triu(new.factor, 1), 0)
    gap = g + np.linalg.solve(root @ root.T, (z - loc).T).T
    divergence = np.mean(np.sum((gap @ root) ** 2, axis=1))
    np.testing.assert_allclose(info.divergence, divergence, rtol=1e-8)


def test_low_rank_finds_a_gaussian_of_low_rank():
    mean, cov, log_density = target(jnp.float64, rank=2, d=11)
    algorithm = vi.batch_and_match(log_density, rank=2)
    fit = bayesjx.fit(jax.random.key(0), algorithm, algorithm.init(jnp.zeros(11)), 150)
    assert fit.state.factor.shape == (11, 2)
    assert errors(fit.state, mean, cov) < 1e-6
    assert fit.info.divergence[-1] < 1e-10


def test_draws_where_the_density_is_not_finite_are_left_out():
    def log_density(z):  # NaN outside, where half of the first draws lie
        inside = jnp.all(jnp.abs(z) < 1.0)
        return jnp.where(inside, -50 * jnp.sum((z - 0.2) ** 2), jnp.nan)

    algorithm = vi.batch_and_match(log_density)
    step = jax.jit(algorithm.step)
    state, used = algorithm.init(jnp.zeros(2)), []
    for i in range(10):
        state, info = step(jax.random.fold_in(jax.random.key(0), i), state)
        used.append(float(info.used))
    assert 0 < used[0] < 1 and used[-1] == 1
    np.testing.assert_allclose(state.loc, 0.2, atol=1e-6)
    np.testing.assert_allclose(state.covariance, 0.01 * np.eye(2), atol=1e-6)
    nowhere = vi.batch_and_match(lambda z: jnp.nan * jnp.sum(z))
    same, info = nowhere.step(jax.random.key(0), state)
    np.testing.assert_allclose(same.loc, state.loc)
    assert info.used == 0


@pytest.mark.errors
def test_bad_input_is_named():
    def log_density(z):
        return -jnp.sum(z**2)

    for options, text in (
        ({"num_draws": 1}, "num_draws"),
        ({"rank": 0}, "rank"),
        ({"rate": -1.0}, "rate"),
    ):
        with pytest.raises(ValueError, match=text):
            vi.batch_and_match(log_density, **options)
    algorithm = vi.batch_and_match(log_density)
    for args, text in (
        ((jnp.zeros((2, 2)),), "loc must be a vector"),
        ((jnp.zeros(3), jnp.ones(2)), "covariance must be"),
        ((jnp.zeros(2), -jnp.ones(2)), "positive"),
    ):
        with pytest.raises(ValueError, match=text):
            algorithm.init(*args)
    with pytest.raises(ValueError, match="exceeds"):
        vi.batch_and_match(log_density, rank=5).init(jnp.zeros(3))
    with pytest.raises(ValueError, match="floating-point scalar"):
        vi.batch_and_match(lambda z: z).step(jax.random.key(0), algorithm.init(jnp.zeros(2)))
