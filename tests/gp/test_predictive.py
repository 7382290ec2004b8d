"""New observations under likelihoods that are not normal, against SciPy's integrals."""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import integrate, stats

from bayesjx import gp, kernels

PRIOR = gp.GP(kernels.RBF(1.0, 0.8), 0.3)
POINTS, NEW = np.array([-1.0, 0.0, 1.5]), np.array([-0.7, 0.4])
GRID = gp.Grid(POINTS)


def poisson(f):
    return dist.Poisson(jnp.exp(f))


def posteriors(likelihood, prior=PRIOR):
    rng = np.random.default_rng(0)
    tril = jnp.asarray(np.tril(0.2 * rng.normal(size=(3, 3))) + 0.5 * np.eye(3))
    q = gp.WhitenedNormal(jnp.asarray(rng.normal(size=3)), tril)
    yield gp.SVGP(prior, POINTS, likelihood, q=q).posterior()
    yield gp.DecoupledSVGP(prior, POINTS[:2], POINTS[2:], likelihood).posterior()
    if likelihood is not None:
        yield gp.KronVariational(prior, GRID, likelihood).posterior()


def test_predict_is_of_observations():
    for posterior in posteriors(poisson):
        mean, variance = np.asarray(posterior.moments(NEW))
        law = posterior.predict(NEW)
        np.testing.assert_allclose(law.mean, np.exp(mean + variance / 2), rtol=1e-9)
        for y in (0, 3):
            want = [_poisson_prob(y, *one) for one in zip(mean, variance**0.5, strict=True)]
            # Twenty nodes of a quadrature are exact to four digits for such variances.
            np.testing.assert_allclose(np.exp(law.log_prob(jnp.full(2, y))), want, rtol=1e-4)


def _poisson_prob(y, mean, scale):
    def weighted(f):
        return stats.poisson.pmf(y, np.exp(f)) * stats.norm.pdf(f, mean, scale)

    return integrate.quad(weighted, mean - 9 * scale, mean + 9 * scale)[0]


def test_normal_noise_is_added_whoever_holds_it():
    held = gp.GP(kernels.RBF(1.0, 0.8), 0.3, noise=0.25)
    for pair in zip(posteriors(gp.Gaussian(0.25)), posteriors(None, held), strict=False):
        for posterior in pair:
            law = posterior.predict(NEW)
            np.testing.assert_allclose(law.variance, posterior.variance(NEW) + 0.25, rtol=1e-12)


@pytest.mark.errors
def test_what_cannot_be_predicted_says_what_to_do():
    two = gp.SVGP(
        PRIOR, POINTS, lambda f: dist.Normal(f[..., 0], jnp.exp(f[..., 1])), num_latents=2
    )
    with pytest.raises(ValueError, match=r"of 2 functions.*log_predictive_prob"):
        two.posterior(0).predict(NEW)
    exposure = jnp.arange(1.0, 21.0)  # as many as the quadrature has nodes
    for posterior in posteriors(lambda f: dist.Poisson(exposure * jnp.exp(f))):
        with pytest.raises(ValueError, match="data of each observation"):
            posterior.predict(NEW)
