"""Noise that varies: the bound against brute force and limits, and what it predicts."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist
from scipy import integrate

from bayesjx import gp, kernels, ops

N = 7
X = jnp.linspace(0.0, 3.0, N)
Y = jnp.sin(2 * X) + 0.3 * jax.random.normal(jax.random.key(1), (N,))
LOG_LAMBDA = jnp.log(0.5) + 0.4 * jax.random.normal(jax.random.key(2), (N,))


def priors(dtype=jnp.float64):
    found = (
        gp.GP(kernels.RBF(0.7, 1.2), mean=0.2),
        gp.GP(kernels.RBF(1.1, 0.8), mean=-1.5),
    )
    return jax.tree.map(lambda v: v.astype(dtype) if eqx.is_inexact_array(v) else v, found)


def test_bound_is_below_the_log_evidence():
    """By quadrature over the log variances of two observations; at its best it is not far."""
    x, y = X[1:3], Y[1:3]
    prior_f, prior_g = priors()
    k_f = np.asarray(prior_f.kernel.gram(x))
    root = np.linalg.cholesky(prior_g.kernel.gram(x))

    def integrand(b, a):
        noise = np.diag(np.exp(-1.5 + root @ np.array([a, b])))
        total, residual = k_f + noise, np.asarray(y) - 0.2
        log_density = -0.5 * residual @ np.linalg.solve(total, residual)
        log_density -= 0.5 * np.linalg.slogdet(total)[1] + np.log(2 * np.pi)
        return np.exp(log_density - (a**2 + b**2) / 2) / (2 * np.pi)

    evidence = np.log(integrate.dblquad(integrand, -7, 7, -7, 7, epsabs=1e-9)[0])
    bound = jax.jit(lambda v: gp.heteroscedastic_bound(prior_f, prior_g, v, x, y))
    starts = [jnp.full(2, jnp.log(0.5)), LOG_LAMBDA[:2], jnp.array([-3.0, 1.0])]
    assert all(bound(start) < evidence for start in starts)
    best = gp.minimise(lambda v: -gp.heteroscedastic_bound(prior_f, prior_g, v, x, y), starts[0])
    assert evidence - 0.3 < -best.objective < evidence
    # The optimum of the distribution of g is that of the form with any mean and covariance.
    distribution = _free_bound(prior_f, prior_g, x, y)
    free = gp.minimise(lambda p: -distribution(*p), (jnp.full(2, -1.5), jnp.asarray(root)))
    np.testing.assert_allclose(best.objective, free.objective, rtol=1e-4)


def _free_bound(prior_f, prior_g, x, y):
    k_f, k_g = prior_f.kernel.gram(x), prior_g.kernel.gram(x)

    def bound(mean, tril):
        covariance = jnp.tril(tril) @ jnp.tril(tril).T
        noise = jnp.exp(mean - jnp.diag(covariance) / 2)
        fit = dist.MultivariateNormal(0.2 * jnp.ones(len(y)), k_f + jnp.diag(noise)).log_prob(y)
        ratio = jnp.linalg.solve(k_g, covariance)
        shift = (mean + 1.5) @ jnp.linalg.solve(k_g, mean + 1.5)
        divergence = jnp.trace(ratio) + shift - len(y) - jnp.linalg.slogdet(ratio)[1]
        return fit - 0.25 * jnp.trace(covariance) - 0.5 * divergence

    return bound


def test_constant_noise_is_the_exact_process():
    prior_f = gp.GP(kernels.RBF(0.7, 1.2), mean=0.2)
    prior_g = gp.GP(kernels.RBF(1.1, 1e-10), mean=jnp.log(0.1))
    start = jnp.full(N, jnp.log(0.5))
    new = X[:3] + 0.2

    @jax.jit
    def varying(prior_f):
        posterior = gp.heteroscedastic_posterior(prior_f, prior_g, start, X, Y)
        predicted = posterior.predict(new).log_prob(Y[:3])
        bound = gp.heteroscedastic_bound(prior_f, prior_g, start, X, Y)
        return bound, posterior.noise_variance(new), (*posterior.moments(new), predicted)

    @jax.jit
    def exact(prior):
        posterior = gp.condition(prior, X, Y)
        predicted = posterior.predict(new).log_prob(Y[:3])
        return prior(X).log_prob(Y), (*posterior.moments(new), predicted)

    # A constant noise of the first process adds to that of the second.
    for own, both in ((0.0, 0.1), (0.3, 0.4)):
        bound, noise, found = varying(gp.GP(prior_f.kernel, 0.2, noise_var=own))
        evidence, wanted = exact(gp.GP(prior_f.kernel, 0.2, noise_var=both))
        np.testing.assert_allclose(bound, evidence, rtol=1e-7)
        np.testing.assert_allclose(noise, both, rtol=1e-6)
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6)


def test_gradients_are_those_of_differences():
    params, static = eqx.partition((*priors(), LOG_LAMBDA), eqx.is_inexact_array)
    params = eqx.tree_at(lambda p: (p[0].noise_var, p[1].noise_var), params, (None, None))
    static = eqx.tree_at(
        lambda s: (s[0].noise_var, s[1].noise_var), static, (0.05, 0.0), is_leaf=lambda v: v is None
    )
    static = jax.tree.map(lambda v: jnp.asarray(v) if isinstance(v, float) else v, static)

    @jax.jit
    def value(params, x, y):
        return gp.heteroscedastic_bound(*eqx.combine(params, static), x, y)

    gradient = jax.jit(jax.grad(value, (0, 1, 2)))(params, X, Y)
    along = jax.tree.map(lambda v: jnp.cos(1 + jnp.arange(v.size)).reshape(v.shape), (params, X, Y))
    step = 1e-5
    up, down = (
        value(*jax.tree.map(lambda v, a: v + move * a, (params, X, Y), along))  # noqa: B023
        for move in (step, -step)
    )
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(along), strict=True)
    found = sum(jnp.sum(g * a) for g, a in pairs)
    np.testing.assert_allclose(found, (up - down) / (2 * step), rtol=1e-6)


def test_vmap_over_responses():
    prior_f, prior_g = priors()
    bound = jax.jit(
        jax.vmap(lambda y: gp.heteroscedastic_bound(prior_f, prior_g, LOG_LAMBDA, X, y))
    )
    found = bound(jnp.stack([Y, 2 * Y]))
    one = jax.jit(lambda y: gp.heteroscedastic_bound(prior_f, prior_g, LOG_LAMBDA, X, y))(2 * Y)
    np.testing.assert_allclose(found[1], one, rtol=1e-10)


def test_a_fit_finds_where_the_noise_is():
    x = jnp.linspace(0.0, 4.0, 40)
    scale = jnp.where(x < 2, 0.05, 0.5)
    y = jnp.sin(3 * x) + scale * jax.random.normal(jax.random.key(4), x.shape)
    start = (gp.GP(kernels.RBF(0.7)), gp.GP(kernels.RBF(1.0), -2.0), jnp.full(40, jnp.log(0.5)))

    def loss(params, x, y):
        return -gp.heteroscedastic_bound(*params, x, y)

    def learned(params):
        prior_f, prior_g, log_lambda = params
        kernel_f, kernel_g = prior_f.kernel, prior_g.kernel
        return [
            kernel_f.lengthscale,
            kernel_f.variance,
            kernel_g.lengthscale,
            kernel_g.variance,
            prior_g.mean,
            log_lambda,
        ]

    found = gp.minimise(loss, start, x, y, trainable=learned, max_steps=40)
    constant = gp.minimise(
        lambda prior, x, y: -prior(x).log_prob(y), gp.GP(kernels.RBF(0.7), noise_var=0.1), x, y
    )
    assert found.objective < constant.objective - 10  # nats

    @eqx.filter_jit
    def about(params, key):
        posterior = gp.heteroscedastic_posterior(*params, x, y)
        draws = gp.pathwise(key, posterior, 500, num_features=500)(x[::13])
        variance = posterior.noise_variance(jnp.array([0.5, 1.0, 3.0, 3.5]))
        return jnp.sqrt(variance), draws, posterior.moments(x[::13])

    noise, draws, (mean, variance) = about(found.params, jax.random.key(5))
    assert np.all(noise[:2] < 0.12) and np.all(noise[2:] > 0.3)
    assert np.all(np.abs(draws.mean(0) - mean) < 5 * draws.std(0) / 500**0.5)
    np.testing.assert_allclose(draws.var(0), variance, rtol=0.35)


@pytest.mark.errors
def test_bad_input_is_named():
    prior_f, prior_g = priors()
    with pytest.raises(ValueError, match=r"log_lambda must have shape \(7,\), got \(3,\)"):
        gp.heteroscedastic_bound(prior_f, prior_g, LOG_LAMBDA[:3], X, Y)
    noisy = gp.GP(prior_g.kernel, noise_var=0.1)
    with pytest.raises(ValueError, match="prior_g is the process of the log variance"):
        gp.heteroscedastic_bound(prior_f, noisy, LOG_LAMBDA, X, Y)
    correlated = gp.GP(prior_f.kernel, noise_var=ops.Dense(jnp.eye(N), ops.psd))
    with pytest.raises(ValueError, match="must be a scalar or"):
        gp.heteroscedastic_bound(correlated, prior_g, LOG_LAMBDA, X, Y)
    each = gp.GP(prior_f.kernel, noise_var=jnp.ones(N))
    with pytest.raises(ValueError, match="noise_var of prior_f must be a scalar"):
        gp.heteroscedastic_posterior(each, prior_g, LOG_LAMBDA, X, Y)
    with pytest.raises(ValueError, match="y must have shape"):
        gp.heteroscedastic_bound(prior_f, prior_g, LOG_LAMBDA, X, Y[:3])
