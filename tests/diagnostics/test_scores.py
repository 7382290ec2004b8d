"""Proper scores against quadrature and plain sums."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.test_util import check_grads
from scipy import stats

from bayesjx import diagnostics

S, N, D = 7, 5, 3


def data(dtype):
    rng = np.random.default_rng(0)
    arrays = rng.normal(size=(S, N, D)), rng.normal(size=(N, D)), rng.uniform(0.5, 2.0, size=N)
    return [jnp.asarray(a, dtype) for a in arrays]


def test_scores_are_their_definitions(dtype, tol):
    draws, y, scale = data(dtype)

    @jax.jit
    def answers(draws, y, scale):
        first = y[:, 0]
        normal = lambda loc, scale: jnp.sum(diagnostics.crps(dist.Normal(loc, scale), first))  # noqa: E731
        return (
            diagnostics.crps(dist.Normal(0.3, scale), first),
            jax.grad(normal, (0, 1))(y[:, 1], scale),
            diagnostics.crps(draws, y),
            diagnostics.crps(dist.Uniform(jnp.zeros(N, dtype), 1.0), first, num_quantiles=2000),
            jax.vmap(diagnostics.energy_score, in_axes=(1, 0))(draws, y),
            diagnostics.energy_score(draws[..., :1], y[:, :1]),
            diagnostics.variogram_score(draws, y, order=1.5),
            jax.grad(lambda x: jnp.sum(diagnostics.energy_score(x, y)))(draws),
            diagnostics.compare_scores(first, scale),
        )

    normal, slopes, sample, uniform, energy, one, variogram, slope, gap = answers(draws, y, scale)
    assert {leaf.dtype for leaf in (normal, sample, uniform, energy, variogram)} == {
        np.dtype(dtype)
    }
    x, at, width = (np.asarray(a, float) for a in (draws, y, scale))
    grid = np.linspace(-20, 20, 400001)
    for i in range(N):
        gaps = (stats.norm.cdf(grid, 0.3, width[i]) - (grid >= at[i, 0])) ** 2
        np.testing.assert_allclose(normal[i], np.trapezoid(gaps, grid), atol=1e-4)
    z = (at[:, 0] - at[:, 1]) / width
    np.testing.assert_allclose(slopes[0], 1 - 2 * stats.norm.cdf(z), **tol)
    np.testing.assert_allclose(slopes[1], 2 * stats.norm.pdf(z) - np.pi**-0.5, **tol)
    pairs = np.abs(x[:, None] - x).sum(axis=(0, 1)) / (2 * S * (S - 1))
    np.testing.assert_allclose(sample, np.abs(x - at).mean(axis=0) - pairs, **tol)
    first = np.clip(at[:, 0], 0, 1)
    want = first**2 - first + 1 / 3 + np.abs(at[:, 0] - first)
    np.testing.assert_allclose(uniform, want, atol=1e-5)
    norms = np.linalg.norm(x[:, None] - x, axis=-1).sum(axis=(0, 1)) / (2 * S * (S - 1))
    np.testing.assert_allclose(energy, np.linalg.norm(x - at, axis=-1).mean(axis=0) - norms, **tol)
    np.testing.assert_allclose(one, sample[:, 0], **tol)
    roughness = lambda a: np.abs(a[..., :, None] - a[..., None, :]) ** 1.5  # noqa: E731
    gaps = (roughness(at) - roughness(x).mean(axis=0)) ** 2
    np.testing.assert_allclose(variogram, gaps.sum(axis=(1, 2)), **{**tol, "rtol": 2e-4})
    unit = lambda a: a / np.maximum(np.linalg.norm(a, axis=-1, keepdims=True), 1e-30)  # noqa: E731
    want = unit(x - at) / S - unit(x[:, None] - x).sum(axis=1) / (S * (S - 1))
    np.testing.assert_allclose(slope, want, atol=10 * tol["atol"])
    differences = at[:, 0] - width
    np.testing.assert_allclose(gap.mean, differences.mean(), **tol)
    np.testing.assert_allclose(gap.standard_error, stats.sem(differences), **tol)


def test_fair_score_is_unbiased_for_few_draws():
    rng = np.random.default_rng(1)
    y = jnp.full(20000, 0.7)
    scores = np.asarray(diagnostics.crps(rng.normal(size=(2, 20000)), y))
    want = diagnostics.crps(dist.Normal(0.0, 1.0), y[0])
    assert abs(scores.mean() - want) < 5 * stats.sem(scores)


def test_weights_and_derivatives_of_the_variogram():
    draws, y, _ = data(jnp.float64)
    weights = np.abs(np.random.default_rng(2).normal(size=(D, D)))
    each = diagnostics.variogram_score(draws, y, weights=weights)
    spread = lambda a: np.abs(a[..., :, None] - a[..., None, :]) ** 0.5  # noqa: E731
    gaps = (spread(np.asarray(y)) - spread(np.asarray(draws)).mean(axis=0)) ** 2
    np.testing.assert_allclose(each, (weights * gaps).sum(axis=(1, 2)), rtol=1e-9)
    score = lambda a: jnp.sum(diagnostics.variogram_score(a, y, weights=weights))  # noqa: E731
    check_grads(jax.jit(score), (draws,), order=1, modes="rev", rtol=1e-4)


@pytest.mark.errors
def test_bad_scores_are_named():
    y = np.zeros(N)
    with pytest.raises(ValueError, match="predictive must be draws of shape"):
        diagnostics.crps(np.zeros((N, S)), y)
    with pytest.raises(ValueError, match="must have quantiles, which Poisson"):
        diagnostics.crps(dist.Poisson(np.ones(N)), y)
    with pytest.raises(ValueError, match="batch shape"):
        diagnostics.crps(dist.Normal(np.zeros(3), 1.0), y)
    with pytest.raises(ValueError, match="draws must not be NaN"):
        diagnostics.energy_score(np.full((S, N), np.nan), y)
    with pytest.raises(ValueError, match="order must be a positive number"):
        diagnostics.variogram_score(np.zeros((S, N)), y, order=0)
    with pytest.raises(ValueError, match="n of at least 2"):
        diagnostics.compare_scores(np.zeros(1), np.zeros(1))
