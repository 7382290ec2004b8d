"""The marginal distribution against NumPyro's normals, its gradient, and NUTS over variances."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.distributions import biject_to
from numpyro.infer import MCMC, NUTS

from bayesjx import sbl

RNG = np.random.default_rng(3)


def problem(n, m, kind="float64"):
    design = RNG.normal(size=(n, m))
    design = (design + 1j * RNG.normal(size=(n, m))) if kind.startswith("c") else design
    return design.astype(kind), RNG.normal(size=m), -0.7


@pytest.mark.parametrize("n,m", [(5, 7), (11, 3)])
def test_it_is_numpyros_normal_with_its_gradient(n, m):
    design, log_prior_var, log_noise_var = problem(n, m)
    y = RNG.normal(size=(2, 3, n))

    def plain(design, log_prior_var, log_noise_var):
        factor, noise = design * jnp.exp(log_prior_var / 2), jnp.exp(log_noise_var) * jnp.ones(n)
        zero = jnp.zeros(n)
        if n > m:
            return dist.LowRankMultivariateNormal(zero, factor, noise)
        return dist.MultivariateNormal(zero, factor @ factor.T + jnp.diag(noise))

    def both(make):
        def total(*arguments):
            distribution = make(*arguments)
            log_prob = distribution.log_prob(y)
            return jnp.sum(log_prob), (
                log_prob,
                distribution.mean,
                distribution.variance,
                distribution.covariance_matrix,
            )

        return jax.jit(jax.value_and_grad(total, (0, 1, 2), has_aux=True))

    at = (jnp.asarray(design), jnp.asarray(log_prior_var), jnp.asarray(log_noise_var))
    found, want = both(sbl.SBLMarginal)(*at), both(plain)(*at)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-10)


def test_complex_measurements_and_their_draws():
    design, log_prior_var, log_noise_var = problem(3, 5, "complex128")
    distribution = sbl.SBLMarginal(design, log_prior_var, log_noise_var)
    num = 4000
    draws = distribution.sample(jax.random.key(0), (num,))
    cov = np.exp(log_noise_var) * np.eye(3) + (design * np.exp(log_prior_var)) @ design.conj().T
    variance = np.real(np.diag(cov))
    error = np.sqrt(variance[:, None] * variance / num)
    assert np.all(np.abs(draws.T @ draws.conj() / num - cov) <= 5 * error)
    assert np.all(np.abs(draws.T @ draws / num) <= 8 * error)  # circular
    quad = np.real(np.sum(draws.conj() * np.linalg.solve(cov, draws.T).T, axis=1))
    want = -(3 * np.log(np.pi) + np.linalg.slogdet(cov)[1] + quad)
    np.testing.assert_allclose(distribution.log_prob(draws), want, rtol=1e-10)
    np.testing.assert_allclose(distribution.variance, variance, rtol=1e-10)
    np.testing.assert_allclose(
        distribution.entropy(), 3 * (1 + np.log(np.pi)) + np.linalg.slogdet(cov)[1]
    )


def test_a_batch_by_vmap_and_the_entropy():
    design, log_prior_var, log_noise_var = problem(5, 3)
    noises = jnp.array([log_noise_var, 0.3])
    laws = jax.vmap(lambda noise: sbl.SBLMarginal(design, log_prior_var, noise))(noises)
    value = RNG.normal(size=5)
    each = [sbl.SBLMarginal(design, log_prior_var, noise) for noise in noises]
    want = [distribution.log_prob(value) for distribution in each]
    found = jax.vmap(lambda distribution: distribution.log_prob(value))(laws)
    np.testing.assert_allclose(found, want, rtol=1e-10)
    cov = np.asarray(each[0].covariance_matrix)
    normal = dist.MultivariateNormal(jnp.zeros(5), cov)
    np.testing.assert_allclose(each[0].entropy(), normal.entropy(), rtol=1e-10)


def test_nuts_over_the_variances_finds_the_noise():
    design = RNG.normal(size=(23, 3))
    y = design @ np.array([1.0, 0.0, -2.0]) + 0.5 * RNG.normal(size=23)

    def model(y):
        log_prior_var = numpyro.sample("log_prior_var", dist.Normal(0, 2).expand([3]).to_event(1))
        log_noise_var = numpyro.sample("log_noise_var", dist.Normal(0, 2))
        numpyro.sample("y", sbl.SBLMarginal(design, log_prior_var, log_noise_var), obs=y)

    mcmc = MCMC(NUTS(model), num_warmup=150, num_samples=150, progress_bar=False)
    mcmc.run(jax.random.key(0), jnp.asarray(y))
    noise = np.exp(mcmc.get_samples()["log_noise_var"])
    # Of a chi-squared posterior with 20 degrees of freedom, its mean within 5 of its deviations.
    assert 0.25 * (1 - 5 * 0.32) < noise.mean() < 0.25 * (1 + 5 * 0.32)
    assert np.isfinite(noise).all() and noise.std() > 0.01


@pytest.mark.errors
def test_bad_shapes_are_named():
    with pytest.raises(ValueError, match=r"log_prior_var must be a scalar or have shape \(3,\)"):
        sbl.SBLMarginal(np.eye(3), np.zeros(4), 0.0)
    with pytest.raises(ValueError, match="log_noise_var must be a scalar"):
        sbl.SBLMarginal(np.eye(3), 0.0, np.zeros(3))
    with pytest.raises(ValueError, match="design must be a matrix of floating-point numbers"):
        sbl.SBLMarginal(np.eye(3, dtype=int), 0.0, 0.0)
    with pytest.raises(ValueError, match="value must be real, as the design is, got complex128"):
        sbl.SBLMarginal(np.eye(3), 0.0, 0.0).log_prob(np.ones(3) * 1j)


@pytest.mark.errors
def test_complex_measurements_are_observed_only():
    support = sbl.SBLMarginal(np.eye(3) * 1j, 0.0, 0.0).support
    with pytest.raises(NotImplementedError, match="give the measurements by obs="):
        biject_to(support)
