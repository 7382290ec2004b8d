"""Predictive distributions against integrals over the function on a fine grid; bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist
from scipy import stats

from bayesjx import likelihoods

MEAN, VARIANCE = np.array([-1.2, 0.3, 1.5]), np.array([0.2, 2.0, 0.7])
CUTS = np.array([-0.7, 0.4])
NUM = 4000


def expit(f):
    return 1 / (1 + np.exp(-f))


def ordered(y, f):
    ends = np.concatenate([[0.0], expit(CUTS - f), [1.0]])
    return ends[y + 1] - ends[y]


# A likelihood, the class of its predictive distribution, its density by SciPy, mean and variance
# of an observation given the function, and observations.
CASES = {
    "normal": (
        likelihoods.Gaussian(0.3),
        dist.Normal,
        lambda y, f: stats.norm.pdf(y, f, 0.3**0.5),
        lambda f: (f, 0.3),
        np.array([0.2, -1.0, 3.0]),
    ),
    "classes": (
        lambda f: dist.Bernoulli(logits=f),
        dist.BernoulliLogits,
        lambda y, f: expit((2 * y - 1) * f),
        lambda f: (expit(f), expit(f) * expit(-f)),
        np.array([0, 1, 1]),
    ),
    "ordered classes": (
        lambda f: dist.OrderedLogistic(f, jnp.asarray(CUTS, f.dtype)),
        dist.CategoricalLogits,
        ordered,
        None,
        np.array([2, 0, 1]),
    ),
    "counts": (
        lambda f: dist.Poisson(jnp.exp(f)),
        likelihoods.Predictive,
        lambda y, f: stats.poisson.pmf(y, np.exp(f)),
        lambda f: (np.exp(f), np.exp(f)),
        np.array([0, 3, 11]),
    ),
    "heavy tails": (
        lambda f: dist.StudentT(5.0, f, 0.2),
        likelihoods.Predictive,
        lambda y, f: stats.t.pdf((y - f) / 0.2, 5.0) / 0.2,
        lambda f: (f, 0.04 * 5 / 3),
        np.array([-1.0, 4.0, 1.6]),
    ),
}


def integral(function, i):
    """The mean over the function at point `i`; the trapezoidal rule of a smooth function."""
    f = MEAN[i] + VARIANCE[i] ** 0.5 * np.linspace(-10, 10, 4001)
    weight = stats.norm.pdf(f, MEAN[i], VARIANCE[i] ** 0.5)
    return np.trapezoid(np.array([function(one) for one in f]) * weight, f)


@pytest.mark.parametrize("name", CASES)
def test_it_is_the_likelihood_averaged_over_the_function(name):
    likelihood, kind, density, moments, y = CASES[name]

    @jax.jit
    def run(mean, variance):
        made = likelihoods.predictive(likelihood, mean, variance)
        total = lambda m: likelihoods.predictive(likelihood, m, variance).log_prob(y).sum()  # noqa: E731
        draws = made.sample(jax.random.key(0), (NUM,))
        return made, made.log_prob(y), jax.grad(total)(mean), draws, made.log_prob(draws[:2])

    made, log_prob, slope, draws, several = run(jnp.asarray(MEAN), jnp.asarray(VARIANCE))
    assert isinstance(made, kind) and several.shape == (2, 3) and draws.shape == (NUM, 3)
    want = np.array([integral(lambda f, i=i: density(y[i], f), i) for i in range(3)])
    np.testing.assert_allclose(log_prob, np.log(want), rtol=1e-5)  # that of the nodes, Student-t
    # d E[p] / dμ = E[p (f - μ)] / v
    moved = [
        integral(lambda f, i=i: density(y[i], f) * (f - MEAN[i]) / VARIANCE[i], i) for i in range(3)
    ]
    np.testing.assert_allclose(slope, np.divide(moved, want), rtol=1e-3, atol=1e-6)
    if moments is None:
        frequency = np.mean(draws == y, axis=0)
        error = np.sqrt(want * (1 - want) / NUM)
        assert np.all(np.abs(frequency - want) < 5 * error)
        return
    first = [integral(lambda f: moments(f)[0], i) for i in range(3)]
    second = [integral(lambda f: moments(f)[1] + moments(f)[0] ** 2, i) for i in range(3)]
    np.testing.assert_allclose(made.mean, first, rtol=1e-6)
    np.testing.assert_allclose(made.variance, np.subtract(second, np.square(first)), rtol=1e-5)
    draws = np.asarray(draws, float)
    error = draws.std(axis=0) / NUM**0.5
    assert np.all(np.abs(draws.mean(axis=0) - first) < 5 * error)
    square = (draws - first) ** 2
    assert np.all(np.abs(square.mean(axis=0) - made.variance) < 5 * square.std(axis=0) / NUM**0.5)


@pytest.mark.errors
def test_data_of_each_observation_are_refused():
    exposure = jnp.arange(1.0, 21.0)  # as many as the quadrature has nodes
    mean = jnp.zeros(2)
    with pytest.raises(ValueError, match="data of each observation"):
        likelihoods.predictive(lambda f: dist.Poisson(exposure * jnp.exp(f)), mean, mean + 1)
    with pytest.raises(ValueError, match="data of each observation"):
        likelihoods.predictive(lambda f: dist.Poisson(exposure[:2] * jnp.exp(f)), mean, mean + 1)
