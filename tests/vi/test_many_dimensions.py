"""What fits in many dimensions are made of, against Gaussians of known moments."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest

from bayesjx import vi
from bayesjx.vi._posterior._hierarchy import advice
from bayesjx.vi._posterior._many_dimensions import dense_at, krylov_at
from bayesjx.vi._posterior._moves import look, moved_draws
from bayesjx.vi._posterior._normal_mixture import DenseNormal, KrylovNormal
from bayesjx.vi._posterior._unconstrained import unconstrained

D = 11
RNG = np.random.default_rng(4)
ROOT = RNG.normal(size=(D, D)) * 10.0 ** RNG.uniform(-2, 2, size=(D, 1))
COVARIANCE = ROOT @ ROOT.T + np.diag(np.diag(ROOT @ ROOT.T)) * 0.1
MEAN = RNG.normal(size=D)
SD = np.sqrt(np.diag(COVARIANCE))


class Target:
    """The log density of a Gaussian, by its precision."""

    def __init__(self):
        self.precision = jnp.asarray(np.linalg.inv(COVARIANCE))

    def __call__(self, z):
        return -0.5 * (z - MEAN) @ self.precision @ (z - MEAN)


TARGET = Target()
TRIL = np.linalg.cholesky(COVARIANCE)


def test_products_with_the_hessian_give_the_covariance_and_its_queries():
    normal = krylov_at(jax.random.key(0), TARGET, jnp.asarray(MEAN)[None])
    scaled = np.asarray(normal.times_covariance(jnp.diag(1 / SD))) / SD
    np.testing.assert_allclose(scaled, COVARIANCE / SD / SD[:, None], atol=1e-6)
    np.testing.assert_allclose(normal.sd, SD, rtol=1e-6)
    # The same questions, the same answers, of the dense Gaussian.
    dense = DenseNormal(jnp.asarray(MEAN), jnp.asarray(TRIL))
    points = jnp.asarray(MEAN + RNG.normal(size=(3, D)) @ TRIL.T)
    np.testing.assert_allclose(normal.log_prob(points), dense.log_prob(points), rtol=1e-5)
    np.testing.assert_allclose(dense.times_covariance(points), points @ COVARIANCE, rtol=1e-9)
    draws = jnp.concatenate([points, 2 * MEAN - points])
    refitted = dense_at(jax.random.key(1), TARGET, draws)
    np.testing.assert_allclose(refitted.loc, MEAN, rtol=1e-9)
    np.testing.assert_allclose(refitted.tril / SD[:, None], TRIL / SD[:, None], atol=1e-7)


def test_a_subspace_that_is_complete_ends_the_iteration():
    scale = 10.0 ** RNG.uniform(-3, 3, size=D)
    normal = krylov_at(
        jax.random.key(0), lambda z: -0.5 * jnp.sum((z / scale) ** 2), jnp.zeros((1, D))
    )
    assert isinstance(normal, KrylovNormal)
    np.testing.assert_allclose(normal.sd, scale, rtol=1e-4)
    want = dist.Normal(0.0, scale).log_prob(scale).sum()
    np.testing.assert_allclose(normal.log_prob(jnp.asarray(scale)[None])[0], want, rtol=1e-4)


def test_transitions_tell_right_moments_from_wrong_ones_and_mend_them():
    right = DenseNormal(jnp.asarray(MEAN), jnp.asarray(TRIL))
    moved, change = look(jax.random.key(0), TARGET, right)
    assert change.reliable and change.mean < 0.05 and change.sd < 0.05 and moved.accepted > 0.8
    wrong = DenseNormal(jnp.asarray(MEAN + 0.4 * SD), jnp.asarray(0.7 * TRIL))
    moved, change = look(jax.random.key(1), TARGET, wrong)
    assert not change.reliable and change.mean > 0.3 and change.sd > 0.2
    for draws in (
        moved.draws,
        moved_draws(jax.random.key(2), TARGET, wrong, moved.step_size, 500),
    ):
        z = np.linalg.solve(TRIL, np.asarray(draws - MEAN).T)
        assert np.abs(z.mean(axis=1)).max() < 5 / 500**0.5
        assert np.abs(np.cov(z) - np.eye(D)).max() < 8 / 500**0.5


@pytest.mark.slow
@pytest.mark.parametrize("d", [353, pytest.param(1009, marks=pytest.mark.nightly)])
def test_weights_condemn_what_transitions_find_right(d):
    counts = np.random.default_rng(0).poisson(3.0, size=d)

    def model():
        with numpyro.plate("cells", d):
            rate = numpyro.sample("rate", dist.Gamma(2.0, 1.0))
            numpyro.sample("count", dist.Poisson(rate), obs=jnp.asarray(counts))

    fit = vi.fit_posterior(jax.random.key(0), model)
    # Each marginal of the logarithm is skewed, which hundreds of them add up.
    assert fit.k_hat > 0.7 and fit.reliable and "transitions" in fit.verdict
    assert np.isnan(fit.log_evidence)
    rate = np.asarray(fit.sample(jax.random.key(1), 1000)["rate"])
    mean, sd = (2 + counts) / 2, np.sqrt(2 + counts) / 2
    shift = (rate.mean(axis=0) - mean) / sd
    assert np.sqrt(np.mean(shift**2)) < 0.1 and np.abs(shift).max() < 0.1 + 5 / 1000**0.5
    assert np.abs(rate.std(axis=0) / sd - 1).max() < 0.15 + 5 * (1.5 / 1000) ** 0.5


def test_sites_drawn_with_a_latent_scale_are_named():
    def model():
        mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
        width = numpyro.sample("width", dist.HalfCauchy(5.0))
        with numpyro.plate("school", 3):
            effect = numpyro.sample("effect", dist.Normal(mean, width))
            numpyro.sample("y", dist.Normal(effect, 1.0), obs=jnp.zeros(3))

    text = advice(unconstrained("test", model, (), {})[0])
    assert text is not None and text.startswith("write 'effect' (drawn with the scale 'width')")
    assert "'mean'" not in text

    def centred():
        mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=0.3)

    assert advice(unconstrained("test", centred, (), {})[0]) is None
