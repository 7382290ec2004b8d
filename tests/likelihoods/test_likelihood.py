"""Expected log densities against closed forms, dense sums and finite differences."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from numpyro import distributions as dist
from scipy import integrate, stats

from bayesjx import likelihoods

N = 7
MEAN = np.linspace(-1.5, 1.0, N)
VARIANCE = np.linspace(0.05, 0.8, N)
COUNTS = np.array([0, 1, 0, 3, 2, 5, 1])
LABELS = np.array([0, 1, 1, 0, 1, 0, 0])


def bernoulli(f):
    return dist.Bernoulli(logits=f)


def noisy(f):
    return dist.Normal(f[..., 0], jnp.exp(f[..., 1]))


def softmax(f):
    return dist.Categorical(logits=f)


CLOSED = {
    "gaussian": (likelihoods.Gaussian(0.3), lambda f: dist.Normal(f, 0.3**0.5), np.sin(MEAN)),
    "poisson": (likelihoods.PoissonExp(), lambda f: dist.Poisson(jnp.exp(f)), COUNTS),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_are_what_quadrature_finds(name, dtype, tol):
    closed, plain, y = CLOSED[name]
    mean, variance = jnp.asarray(MEAN, dtype), jnp.asarray(VARIANCE, dtype)

    def both(mean, variance):
        return [likelihoods.expected_log_prob(like, y, mean, variance) for like in (closed, plain)]

    (found, want), slopes = jax.jit(lambda m, v: (both(m, v), jax.jacrev(both, (0, 1))(m, v)))(
        mean, variance
    )
    assert found.dtype == want.dtype == dtype
    np.testing.assert_allclose(found, want, **tol)
    loose = {"rtol": 10 * tol["rtol"], "atol": 100 * tol["atol"]}
    for f, w in zip(slopes[0], slopes[1], strict=True):
        np.testing.assert_allclose(f, w, **loose)


def test_the_gaussian_is_its_formula():
    y = np.sin(MEAN)
    want = stats.norm.logpdf(y, MEAN, 0.3**0.5) - VARIANCE / 0.6
    np.testing.assert_allclose(
        likelihoods.expected_log_prob(likelihoods.Gaussian(0.3), y, MEAN, VARIANCE), want
    )


def test_quadrature_is_the_integral():
    found = likelihoods.expected_log_prob(bernoulli, LABELS, MEAN, VARIANCE)
    wider = likelihoods.log_predictive_prob(bernoulli, LABELS, MEAN, VARIANCE)
    for n in range(N):

        def log_prob(f, sign=1 - 2 * LABELS[n]):
            return -np.logaddexp(0, sign * f)

        def mean_of(function, n=n):
            normal = stats.norm(MEAN[n], VARIANCE[n] ** 0.5)
            low, high = MEAN[n] - 12 * VARIANCE[n] ** 0.5, MEAN[n] + 12 * VARIANCE[n] ** 0.5
            return integrate.quad(lambda f: function(f) * normal.pdf(f), low, high, epsabs=1e-12)[0]

        np.testing.assert_allclose(found[n], mean_of(log_prob), rtol=1e-8)
        mass = mean_of(lambda f, log_prob=log_prob: np.exp(log_prob(f)))
        np.testing.assert_allclose(wider[n], np.log(mass), rtol=1e-8)


def test_the_predictive_of_normal_noise_is_wider_by_the_variance():
    y = np.sin(MEAN)
    found = likelihoods.log_predictive_prob(likelihoods.Gaussian(0.3), y, MEAN, VARIANCE)
    np.testing.assert_allclose(found, stats.norm.logpdf(y, MEAN, np.sqrt(VARIANCE + 0.3)))


def test_two_latents_are_quadrature_over_a_grid():
    """Normal noise with an uncertain log scale, whose expectation is known."""
    y = np.sin(MEAN)
    mean = np.stack([MEAN, -0.5 + 0.1 * MEAN], axis=1)
    variance = np.stack([VARIANCE, 0.2 * VARIANCE], axis=1)
    found = likelihoods.expected_log_prob(noisy, y, mean, variance)
    precision = np.exp(-2 * mean[:, 1] + 2 * variance[:, 1])  # mean of exp(-2 f)
    square = (y - mean[:, 0]) ** 2 + variance[:, 0]
    want = -0.5 * np.log(2 * np.pi) - mean[:, 1] - 0.5 * square * precision
    np.testing.assert_allclose(found, want, rtol=1e-9)


def test_many_latents_are_unbiased_draws():
    mean = jnp.asarray(np.stack([MEAN, -MEAN, 0.3 * MEAN], axis=1))
    variance = jnp.asarray(np.stack([VARIANCE] * 3, axis=1))
    y = np.array([0, 1, 2, 0, 1, 2, 0])

    def one(key):
        return likelihoods.expected_log_prob(softmax, y, mean, variance, key=key)

    draws = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 500))
    noise = jax.random.normal(jax.random.key(1), (100_000, N, 3))
    dense = softmax(mean + jnp.sqrt(variance) * noise).log_prob(y)
    error = np.hypot(draws.std(0) / 500**0.5, dense.std(0) / 100_000**0.5)
    assert np.all(np.abs(draws.mean(0) - dense.mean(0)) < 5 * error)


def test_derivatives_are_finite_differences():
    @jax.jit
    def value(mean, variance):
        return jnp.sum(likelihoods.expected_log_prob(bernoulli, LABELS, mean, variance))

    check_grads(value, (MEAN, VARIANCE), order=2, modes=["fwd", "rev"], rtol=1e-4, atol=1e-4)
    slopes = jax.jit(jax.grad(value, (0, 1)))
    curvature = slopes(MEAN, VARIANCE)[1]
    assert np.all(curvature < 0)  # log-concave
    second = jax.jit(jax.jacfwd(jax.grad(value)))(MEAN, VARIANCE)
    np.testing.assert_allclose(curvature, 0.5 * np.diag(second), rtol=1e-8)
    at_zero = slopes(MEAN, np.zeros(N))
    assert all(np.all(np.isfinite(g)) for g in at_zero)


def test_parameters_of_a_module_are_trainable():
    class Student(eqx.Module):
        scale: jax.Array

        def __call__(self, f):
            return dist.StudentT(4.0, f, self.scale)

    @jax.jit
    def value(scale):
        return jnp.sum(likelihoods.expected_log_prob(Student(scale), np.sin(MEAN), MEAN, VARIANCE))

    check_grads(value, (jnp.asarray(0.7),), order=1, modes=["rev"])


def test_vmap_is_a_loop():
    means = jnp.asarray(np.stack([MEAN, MEAN[::-1]]))
    found = jax.vmap(lambda m: likelihoods.expected_log_prob(bernoulli, LABELS, m, VARIANCE))(means)
    want = [likelihoods.expected_log_prob(bernoulli, LABELS, m, VARIANCE) for m in means]
    np.testing.assert_allclose(found, want)


@pytest.mark.errors
@pytest.mark.parametrize(
    "likelihood, y, text",
    [
        (bernoulli, 2 * LABELS - 1, "support of BernoulliLogits, Boolean"),
        (likelihoods.PoissonExp(), COUNTS - 1, "support of Poisson"),
        (likelihoods.PoissonExp(), COUNTS + 0.5, "support of Poisson"),
        (likelihoods.Gaussian(0.3), np.where(COUNTS == 5, np.nan, 0.0), "support of Normal"),
    ],
)
def test_observations_outside_of_the_support(likelihood, y, text):
    with pytest.raises(ValueError, match=text):
        likelihoods.expected_log_prob(likelihood, y, MEAN, VARIANCE)
    with pytest.raises(ValueError, match=text):  # known while it is traced
        jax.jit(lambda m: likelihoods.expected_log_prob(likelihood, y, m, VARIANCE))(
            jnp.asarray(MEAN)
        )
    compiled = jax.jit(lambda y: likelihoods.expected_log_prob(likelihood, y, MEAN, VARIANCE))
    with pytest.raises(RuntimeError, match=text):
        jax.block_until_ready(compiled(jnp.asarray(y)))


@pytest.mark.errors
def test_shapes_are_named():
    with pytest.raises(ValueError, match="mean and variance"):
        likelihoods.expected_log_prob(bernoulli, LABELS, MEAN, VARIANCE[:3])
    with pytest.raises(ValueError, match=r"y has shape \(3,\)"):
        likelihoods.expected_log_prob(bernoulli, LABELS[:3], MEAN, VARIANCE)
    with pytest.raises(ValueError, match="one for each"):
        likelihoods.expected_log_prob(bernoulli, LABELS, np.ones((N, 2)), np.ones((N, 2)))
    with pytest.raises(ValueError, match="3 latents need a key"):
        likelihoods.expected_log_prob(softmax, LABELS, np.ones((N, 3)), np.ones((N, 3)))
    with pytest.raises(TypeError, match="must return a NumPyro distribution"):
        likelihoods.expected_log_prob(jnp.exp, LABELS, MEAN, VARIANCE)
    with pytest.raises(ValueError, match="noise_var must be positive"):
        likelihoods.Gaussian(0.0)


def test_scores_at_a_function_of_zero():
    """Where NumPyro's score of a logit is 0 or 1, and not minus or plus a half."""
    at = jnp.zeros(N)
    score = jax.grad(lambda m: likelihoods.expected_log_prob(bernoulli, LABELS, m, at).sum())(at)
    np.testing.assert_allclose(score, LABELS - 0.5, rtol=1e-12)


@pytest.mark.errors
@pytest.mark.parametrize(
    "function", [likelihoods.expected_log_prob, likelihoods.log_predictive_prob]
)
def test_moments_that_are_none(function):
    name = function.__name__
    for bad in (-1e-3, np.nan, np.inf):
        variance = np.where(np.arange(N) == 2, bad, VARIANCE)
        with pytest.raises(ValueError, match=f"{name}: variance must be finite and not negative"):
            function(bernoulli, LABELS, MEAN, variance)
        compiled = jax.jit(lambda v: function(bernoulli, LABELS, MEAN, v))
        with pytest.raises(RuntimeError, match="variance must be finite and not negative"):
            jax.block_until_ready(compiled(jnp.asarray(variance)))
    with pytest.raises(ValueError, match=f"{name}: mean must be finite"):
        function(bernoulli, LABELS, np.where(MEAN > 0, np.nan, MEAN), VARIANCE)
    three, key = np.ones((N, 3)), jax.random.key(0)
    for number in (0, -1, True):
        with pytest.raises(ValueError, match=f"{name}: num_samples must be"):
            function(softmax, LABELS, three, three, key=key, num_samples=number)
    with pytest.raises(ValueError, match="key must be one PRNG key"):
        function(softmax, LABELS, three, three, key=jax.random.split(key))


def test_labels_may_be_floating_point_numbers():
    f = jnp.asarray(np.random.default_rng(1).normal(size=(N, 2)))
    for many in (softmax, lambda f: softmax(f).to_event(0), lambda f: softmax(f).expand((N,))):
        y, _ = likelihoods.in_support(many, 1.0 * LABELS, f, jnp.ones(()))
        want = jax.nn.log_softmax(f)[np.arange(N), LABELS]
        np.testing.assert_allclose(likelihoods.log_likelihood(many, f, y), want, rtol=1e-12)
