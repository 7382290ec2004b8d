"""Densities and draws of our distributions against NumPyro's or a formula."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from distribution_cases import case, TABLE

from bayesjx import vi
from bayesjx.distributions import BernoulliLogits, OneHotCategorical


@pytest.mark.parametrize("name", TABLE)
def test_log_prob_and_gradient_are_those_of_the_twin(name, dtype, tol):
    build, twin, value, p = case(name, dtype)

    def log_prob(family):
        total = lambda p: jnp.sum(family(p).log_prob(value))  # noqa: E731
        return jax.jit(lambda p: (family(p).log_prob(value), jax.grad(total)(p)))(p)

    (got, slope), (want, wanted_slope) = log_prob(build), log_prob(twin)
    np.testing.assert_allclose(got, want, **tol)
    np.testing.assert_allclose(slope, wanted_slope, **tol)
    assert slope.dtype == dtype


@pytest.mark.parametrize("name", TABLE)
def test_draws_have_the_right_shape_dtype_and_mean(name, dtype):
    build, twin, _, p = case(name, dtype)
    d = build(p)
    draws = jax.jit(lambda k, p: build(p).sample(k, (500,)))(jax.random.key(0), p)
    assert draws.shape == (500, *d.batch_shape, *d.event_shape)
    # The repaired families keep NumPyro's sampler, which widens under x64.
    if jnp.issubdtype(draws.dtype, jnp.floating) and "repaired" not in name:
        assert draws.dtype == dtype
    draws = np.asarray(draws, float)
    error = draws.std(axis=0) / np.sqrt(500)
    assert np.all(np.abs(draws.mean(axis=0) - twin(p).mean) < 5 * error)
    np.testing.assert_allclose(d.mean, twin(p).mean, rtol=1e-4)


@pytest.mark.parametrize("name", ["enum Bernoulli", "mvd Poisson", "enum one-hot"])
def test_gradients_stop_at_draws_of_score_and_replay_strategies(name):
    build, _, _, p = case(name, jnp.float64)
    slope = jax.jit(jax.grad(lambda p: jnp.sum(1.0 * build(p).sample(jax.random.key(0)))))(p)
    np.testing.assert_array_equal(slope, 0.0)


def test_one_hot_agrees_with_categorical():
    probs = jnp.array([0.2, 0.5, 0.3])
    one_hot, index = OneHotCategorical(probs=probs), dist.Categorical(probs=probs)
    support = one_hot.enumerate_support()
    np.testing.assert_allclose(one_hot.log_prob(support), index.log_prob(jnp.arange(3)), rtol=1e-9)
    np.testing.assert_allclose(one_hot.mean, probs, rtol=1e-12)
    np.testing.assert_allclose(one_hot.variance, probs * (1 - probs), rtol=1e-12)
    np.testing.assert_allclose(one_hot.entropy(), -jnp.sum(probs * jnp.log(probs)), rtol=1e-12)
    wide = OneHotCategorical(probs=jnp.stack([probs] * 4))
    assert wide.enumerate_support().shape == (3, 4, 3)
    assert wide.enumerate_support(expand=False).shape == (3, 1, 3)


def test_one_hot_with_an_impossible_category():
    d = OneHotCategorical(probs=jnp.array([0.0, 0.4, 0.6]))
    np.testing.assert_allclose(d.log_prob(jnp.eye(3)), [-np.inf, np.log(0.4), np.log(0.6)])
    assert np.all(np.isfinite(jax.grad(d.log_prob)(jnp.array([0.0, 1.0, 0.0]))))


@pytest.mark.parametrize("value", [0, 1])
def test_repaired_bernoulli_at_the_extremes(value):
    logits = jnp.array([-jnp.inf, -800.0, 0.0, 800.0, jnp.inf])
    certain = (np.asarray(logits) > 0) == value
    want = np.where(certain, 0.0, -np.abs(logits))
    want[2] = np.log(0.5)
    log_prob = jax.jit(lambda a: BernoulliLogits(a).log_prob(value))
    np.testing.assert_allclose(log_prob(logits), want, rtol=1e-12)
    slopes = jax.vmap(jax.grad(log_prob))(logits)
    np.testing.assert_allclose(slopes, value - jax.nn.sigmoid(logits), atol=1e-12)


def test_repaired_bernoulli_differentiates_in_its_value_too():
    slope = jax.grad(lambda v: BernoulliLogits(jnp.asarray(1.3), validate_args=False).log_prob(v))(
        0.4
    )
    np.testing.assert_allclose(slope, 1.3, rtol=1e-12)


@pytest.mark.errors
def test_bad_parameters_are_named():
    with pytest.raises(ValueError, match="exactly one of probs and logits"):
        OneHotCategorical(probs=jnp.ones(3) / 3, logits=jnp.zeros(3))
    with pytest.raises(ValueError, match="exactly one"):
        OneHotCategorical()
    with pytest.raises(ValueError, match=r"shape \(\.\.\., k\), got a scalar"):
        OneHotCategorical(probs=0.3)
    # With run-time type checks it is they that complain.
    with pytest.raises(TypeError, match=r"expected a NumPyro distribution, got float|Actual.*0\.3"):
        vi.with_strategy(0.3, vi.enum())
