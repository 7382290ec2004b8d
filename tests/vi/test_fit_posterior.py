"""A posterior by one call: against closed forms, and what it says where it cannot be good."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax._src.test_util import count_jit_compilation_cache_miss
from scipy.stats import norm

import bayesjx
from bayesjx import vi

N = 41
RNG = np.random.default_rng(6)
# A column of 1e4, one of 1e-3, and one that is nearly constant.
DESIGN = np.stack(
    [1e4 * RNG.normal(size=N), 1e-3 * RNG.normal(size=N), 300 + RNG.normal(size=N)], axis=1
)
Y = DESIGN @ [1e-4, 500.0, 0.01] + 0.5 * RNG.normal(size=N)
PRIOR = np.array([1.0, 1e4, 1.0])


def regression(design, y):
    """A Gaussian posterior with known moments and evidence."""
    with numpyro.plate("columns", 3):
        slope = numpyro.sample("slope", dist.Normal(0.0, PRIOR))
    mean = numpyro.deterministic("mean", design @ slope)
    numpyro.sample("y", dist.Normal(mean, 0.5).to_event(1), obs=y)


@pytest.fixture(scope="module")
def fit():
    jax.config.update("jax_enable_x64", True)
    return vi.fit_posterior(jax.random.key(0), regression, jnp.asarray(DESIGN), jnp.asarray(Y))


def posterior():
    precision = np.diag(PRIOR**-2.0) + DESIGN.T @ DESIGN / 0.25
    cov = np.linalg.inv(precision)
    return cov @ DESIGN.T @ Y / 0.25, cov


def highest(cov):
    """Log density of a Gaussian at its mean, by its scaled covariance: raw units are no trouble."""
    scale = np.sqrt(np.diag(cov))
    log_det = np.linalg.slogdet(cov / scale / scale[:, None])[1] + 2 * np.log(scale).sum()
    return -0.5 * (len(cov) * np.log(2 * np.pi) + log_det)


def test_raw_columns_of_any_scale_are_no_trouble(fit):
    mean, cov = posterior()
    assert fit.reliable and fit.k_hat < 0.5 and fit.ess > 3000 and not fit.notes
    draws = fit.sample(jax.random.key(1), 2000)
    assert draws["slope"].shape == (2000, 3) and draws["mean"].shape == (2000, N)
    np.testing.assert_allclose(draws["mean"], draws["slope"] @ DESIGN.T, rtol=1e-9)
    z = np.linalg.solve(np.linalg.cholesky(cov), np.asarray(draws["slope"] - mean).T)
    assert np.abs(z.mean(axis=1)).max() < 5 / 2000**0.5
    assert np.abs(np.cov(z) - np.eye(3)).max() < 8 / 2000**0.5
    # log p(y) = log p(y | m) + log p(m) - log p(m | y) at the posterior mean m
    evidence = norm.logpdf(Y, DESIGN @ mean, 0.5).sum() + norm.logpdf(mean, 0, PRIOR).sum()
    assert abs(fit.log_evidence - evidence + highest(cov)) < 0.05


def test_its_density_is_normalised_over_the_constrained_values(fit):
    # At the mean the wider components of the proposal matter little: 0.8 of the Gaussian and more.
    mean, cov = posterior()
    got = fit.log_density({"slope": jnp.asarray(mean)})
    assert np.log(0.8) - 0.1 < got - highest(cov) < np.log(0.9)


def test_it_prints_a_verdict_and_labels_its_draws(fit):
    text = repr(fit)
    assert text.startswith("PosteriorFit can be trusted (k-hat") and "slope[0]" in text
    tree = bayesjx.to_datatree(fit, dims={"slope": ["column"]})
    assert tree["posterior"]["slope"].dims == ("chain", "draw", "column")
    assert tree.attrs["reliable"] == 1 and tree.attrs["k_hat"] == fit.k_hat


def test_the_same_model_and_shapes_compile_once(fit):
    with count_jit_compilation_cache_miss() as count:
        other = vi.fit_posterior(
            jax.random.key(5), regression, jnp.asarray(DESIGN), jnp.asarray(2 * Y)
        )
    assert count() == 0
    assert abs(other.log_evidence - fit.log_evidence) > 0.1


def test_modes_are_weighted_by_their_evidence():
    def model():
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
        narrow = jnp.log(0.3) + dist.Normal(-2, 0.2).log_prob(x)
        numpyro.factor("f", jnp.logaddexp(narrow, jnp.log(0.7) + dist.Normal(3, 0.5).log_prob(x)))

    fit = vi.fit_posterior(jax.random.key(0), model)
    assert fit.reliable and "2 modes were found, and 2 of them used" in fit.notes
    x = fit.sample(jax.random.key(1), 2000)["x"]
    assert abs(jnp.mean(x < 0) - 0.3) < 5 * (0.3 * 0.7 / 2000) ** 0.5
    assert abs(fit.log_evidence) < 0.05


@pytest.mark.slow
def test_minibatches_are_fitted_and_said():
    y = jnp.asarray(3.0 + np.random.default_rng(0).normal(size=200))

    def model(y):
        mean = numpyro.sample("mean", dist.Normal(0.0, 10.0))
        scale = numpyro.sample("scale", dist.HalfNormal(3.0))
        with numpyro.plate("data", 200, subsample_size=50) as index:
            numpyro.sample("y", dist.Normal(mean, scale), obs=y[index])

    fit = vi.fit_posterior(jax.random.key(0), model, y)
    assert np.isnan(fit.k_hat) and not fit.reliable
    assert "minibatches of plate 'data'" in fit.notes[0] and "not checked" in repr(fit)
    draws = fit.sample(jax.random.key(1), 2000)
    sd = np.std(y) / 200**0.5
    assert abs(draws["mean"].mean() - y.mean()) < 0.3 * sd
    assert abs(draws["mean"].std() / sd - 1) < 0.15
    assert abs(draws["scale"].std() / (sd / 2**0.5) - 1) < 0.15


@pytest.mark.errors
def test_what_it_cannot_fit_is_named():
    key = jax.random.key(0)

    def redundant():
        flat = dist.constraints.real
        a, b = (numpyro.sample(s, dist.ImproperUniform(flat, (), ())) for s in "ab")
        numpyro.sample("c", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(a + b, 1.0), obs=0.3)

    def local():
        with numpyro.plate("data", 5, subsample_size=2):
            numpyro.sample("z", dist.Normal(0.0, 1.0))

    with pytest.raises(ValueError, match=r"flat along \['a', 'b'\]"):
        vi.fit_posterior(key, redundant)
    with pytest.raises(ValueError, match="'z' lies in the subsampled plate 'data'"):
        vi.fit_posterior(key, local)
    with pytest.raises(ValueError, match="no latent site"):
        vi.fit_posterior(key, lambda: numpyro.sample("y", dist.Normal(0.0, 1.0), obs=0.0))
