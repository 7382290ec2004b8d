"""Nodes that find a likelihood wherever it is, against dense grids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist
from scipy.special import logsumexp

from bayesjx.likelihoods import adaptive_nodes, log_predictive_prob

MEAN, VARIANCE = np.array([0.0, 0.3, -2.0, 1.0, 0.0]), np.array([2.0, 1e-4, 9.0, 0.5, 25.0])
# From values of the function to a distribution, and observations; the last ones far from its mass.
CASES = {
    "normal": (lambda f: dist.Normal(f, 0.01), np.array([1.0, 0.31, 5.0, 1.0, 40.0]), 1e-7),
    "narrower": (lambda f: dist.Normal(f, 1e-3), np.array([1.0, 0.31, 5.0, 1.0, 40.0]), 1e-5),
    "student": (lambda f: dist.StudentT(3.0, f, 0.02), np.array([1.0, 0.4, 9.0, -1.5, 20.0]), 1e-4),
    "laplace": (lambda f: dist.Laplace(f, 0.05), np.array([1.0, 0.31, 5.0, 1.0, -3.0]), 2e-2),
    "poisson": (lambda f: dist.Poisson(jnp.exp(f)), np.array([0, 2, 5, 400, 3]), 1e-7),
    "bernoulli": (lambda f: dist.Bernoulli(logits=9 * f), np.array([0, 1, 1, 0, 1]), 1e-5),
    "binomial": (lambda f: dist.Binomial(1000, logits=f), np.array([0, 700, 5, 999, 3]), 1e-7),
}


def dense(log_prob, mean, variance):
    """Log of the mean density, and tilted mean and variance, on grids fine at every scale."""
    fine = np.concatenate([[0.0], np.logspace(-9, 2, 40_000)])
    coarse = mean + np.sqrt(variance) * np.linspace(-40, 40, 200_001)
    peak = coarse[np.argmax(log_prob(coarse) - 0.5 * (coarse - mean) ** 2 / variance)]
    f = np.unique(np.concatenate([peak - fine, peak + fine, coarse]))
    value = log_prob(f) - 0.5 * (f - mean) ** 2 / variance - 0.5 * np.log(2 * np.pi * variance)
    weights = np.exp(value - value.max())
    total = np.trapezoid(weights, f)
    first = np.trapezoid(weights * f, f) / total
    return value.max() + np.log(total), first, np.trapezoid(weights * (f - first) ** 2, f) / total


@pytest.mark.parametrize("name", CASES)
def test_moments_are_those_of_a_dense_grid(name):
    likelihood, y, exact = CASES[name]

    @jax.jit
    def ours(y, mean, variance):
        x, log_weights = adaptive_nodes(lambda f: likelihood(f).log_prob(y), mean, variance)
        f = mean + jnp.sqrt(variance) * x
        return f, jax.vmap(lambda f: likelihood(f).log_prob(y))(f) + log_weights

    f, total = ours(jnp.asarray(y), jnp.asarray(MEAN), jnp.asarray(VARIANCE))
    weights = np.exp(total - logsumexp(total, axis=0))
    first = np.sum(weights * f, axis=0)
    second = np.sum(weights * (f - first) ** 2, axis=0)
    for i in range(len(y)):
        want = dense(lambda f, i=i: np.asarray(likelihood(f).log_prob(y[i])), MEAN[i], VARIANCE[i])
        spread = np.sqrt(want[2])
        assert abs(logsumexp(total[:, i]) - want[0]) < exact
        assert abs(first[i] - want[1]) < exact * spread
        assert abs(second[i] / want[2] - 1) < 2 * exact


def test_predictive_density_of_a_narrow_likelihood_is_exact():
    def found(scale, y):
        args = (y, jnp.asarray(MEAN), jnp.asarray(VARIANCE))
        return log_predictive_prob(lambda f: dist.Normal(f, scale), *args)

    y = jnp.asarray(MEAN + 0.4)
    both = jax.jit(lambda scale: (found(scale, y), jax.jacfwd(found)(scale, y)))(0.02)

    def exact(scale):
        return dist.Normal(MEAN, jnp.sqrt(VARIANCE + scale**2)).log_prob(y)

    np.testing.assert_allclose(both[0], exact(0.02), rtol=1e-7)
    np.testing.assert_allclose(both[1], jax.jacfwd(exact)(0.02), rtol=1e-5, atol=1e-7)
