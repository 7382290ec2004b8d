"""Mixtures of kernels at draws: exact moments, a density by hand, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from bayesjx.distributions import kernel_mixture

RNG = np.random.default_rng(2)
S, D = 11, 3
DRAWS = RNG.gamma(2.0, size=(S, D)) @ RNG.normal(size=(D, D)) + 5
AT = DRAWS[:2] + 0.3


def written_out(draws, at):
    """Log density of vectors, one kernel after another."""
    s, d = draws.shape
    h = (4 / ((d + 2) * s)) ** (1 / (d + 4))
    covariance = h**2 * np.atleast_2d(np.cov(draws.T, bias=True))
    places = draws.mean(axis=0) + np.sqrt(1 - h**2) * (draws - draws.mean(axis=0))
    each = [scipy.stats.multivariate_normal(place, covariance).pdf(at) for place in places]
    return np.log(np.mean(each, axis=0))


def test_the_mixture_has_the_moments_of_the_draws(dtype):
    @jax.jit
    def values(draws, at):
        vector, number = kernel_mixture(draws), kernel_mixture(draws[:, 0])
        slope = jax.grad(lambda a: vector.log_prob(a[0]))(at)
        moments = [vector.mean, vector.variance, number.mean, number.variance]
        places, tril = vector.component_distribution.loc, vector.component_distribution.scale_tril
        return moments, vector.log_prob(at), number.log_prob(at[:, 0]), slope, places, tril[0]

    rtol = 2e-4 if dtype == jnp.float32 else 1e-10
    moments, joint, first, slope, places, tril = values(DRAWS.astype(dtype), AT.astype(dtype))
    assert joint.dtype == first.dtype == dtype
    mean, variance = DRAWS.mean(axis=0), DRAWS.var(axis=0)
    for found, want in zip(moments, (mean, variance, mean[0], variance[0]), strict=True):
        np.testing.assert_allclose(found, want, rtol=rtol)
    covariance = np.cov(np.asarray(places, float).T, bias=True) + np.asarray(tril @ tril.T, float)
    np.testing.assert_allclose(covariance, np.cov(DRAWS.T, bias=True), rtol=10 * rtol)
    np.testing.assert_allclose(joint, written_out(DRAWS, AT), rtol=rtol)
    np.testing.assert_allclose(first, written_out(DRAWS[:, :1], AT[:, :1]), rtol=rtol)
    steps = 1e-5 * np.eye(D)
    want = (written_out(DRAWS, AT[0] + steps) - written_out(DRAWS, AT[0] - steps)) / 2e-5
    np.testing.assert_allclose(slope[0], want, rtol=50 * rtol, atol=50 * rtol * abs(want).max())


@pytest.mark.errors
def test_bad_input_is_named():
    for samples, words in (
        (DRAWS[None], r"must have shape \(s,\) or \(s, d\)"),
        (DRAWS[:4], "at least 5 draws, got 4"),
        (DRAWS * np.nan, "holds NaN"),
        (np.ones(S), "vary in all directions"),
        (np.stack([DRAWS[:, 0]] * 2, axis=1), "not only in some"),
    ):
        with pytest.raises(ValueError, match=words):
            kernel_mixture(samples)
