"""Processes of space and time are those of the dense Kronecker product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist

from bayesjx import kernels, ssm

S, N = 5, 12
RNG = np.random.default_rng(3)
PLACES = RNG.uniform(0, 2, (S, 2))
TIMES = np.sort(RNG.uniform(0, 4, N))
Y = np.sin(TIMES)[:, None] * np.cos(PLACES[:, 0]) + 0.2 * RNG.normal(size=(N, S))
MASK = RNG.random((N, S)) > 0.3
SPACE, TIME = kernels.RBF(1.1, 1.4), kernels.Matern32(0.9)
NEW_TIMES, NEW_PLACES = np.array([-0.4, 1.5, 5.0]), RNG.uniform(0, 2, (2, 2))


def dense(space, times=TIMES, places=PLACES, time=TIME):
    """Covariances of all cells, times first."""
    return jnp.kron(time.gram(jnp.asarray(times)), space.gram(jnp.asarray(places)))


def log_prob(cov, noise, y, mask):
    seen = np.flatnonzero(mask)
    cov = (cov + jnp.diag(jnp.broadcast_to(noise, (len(cov),))))[seen][:, seen]
    return dist.MultivariateNormal(jnp.zeros(len(seen)), cov).log_prob(y.reshape(-1)[seen])


@pytest.mark.parametrize("mask", [None, MASK], ids=["complete", "gaps"])
def test_density_and_gradient_are_dense(mask):
    every = np.ones((N, S), bool) if mask is None else mask
    y = np.where(every, Y, np.nan)

    def ours(space, noise, y):
        return ssm.SpaceTimeGP(space, TIME, PLACES, TIMES, noise, mask=mask).log_prob(y)

    def theirs(space, noise, y):
        return log_prob(dense(space), noise, y, every)

    value, slopes = jax.jit(jax.value_and_grad(ours, (0, 1)))(SPACE, jnp.array(0.1), y)
    want, wanted = jax.jit(jax.value_and_grad(theirs, (0, 1)))(SPACE, jnp.array(0.1), y)
    np.testing.assert_allclose(value, want, rtol=1e-10)
    for slope, expected in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-8)


@pytest.mark.parametrize(
    "last", [(1.0, 1.0), (1e-7, 0.0)], ids=["square, two equal", "two places in one, zero"]
)
def test_gradient_of_eigenvalues_that_are_equal_or_zero(last):
    corners = jnp.array([(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), last])
    y = jnp.asarray(Y[:, :4])

    def ours(places, y, lengthscale):
        time = kernels.Matern32(lengthscale)
        return ssm.SpaceTimeGP(SPACE, time, places, TIMES, 0.1).log_prob(y)

    def theirs(places, y, lengthscale):
        cov = dense(SPACE, places=places, time=kernels.Matern32(lengthscale))
        return log_prob(cov, 0.1, y, np.ones(y.shape, bool))

    at = corners, y, jnp.array(0.9)
    slopes, wanted = (jax.jit(jax.grad(f, (0, 1, 2)))(*at) for f in (ours, theirs))
    for slope, expected in zip(slopes, wanted, strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("mask", [None, MASK], ids=["complete", "gaps"])
def test_posterior_is_dense(mask):
    seen = np.flatnonzero(np.ones((N, S), bool) if mask is None else mask)
    law = ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, 0.1, mask=mask)
    post = law.condition(np.where(MASK, Y, np.nan) if mask is not None else Y)
    data = dense(SPACE)[seen][:, seen] + 0.1 * jnp.eye(len(seen))
    for times, places in [(None, None), (NEW_TIMES, NEW_PLACES)]:
        mean, variance = post.moments(times, places)
        at = (TIMES if times is None else times), (PLACES if places is None else places)
        across = [
            k.gram(jnp.asarray(a), jnp.asarray(b))
            for k, a, b in [(TIME, at[0], TIMES), (SPACE, at[1], PLACES)]
        ]
        cross = jnp.kron(*across)[:, seen]
        gain = jnp.linalg.solve(data, cross.T).T
        np.testing.assert_allclose(mean.reshape(-1), gain @ Y.reshape(-1)[seen], rtol=1e-7)
        left = SPACE.variance * TIME.variance - jnp.sum(gain * cross, axis=1)
        np.testing.assert_allclose(variance.reshape(-1), left, rtol=1e-7)


def test_bound_of_inducing_places_is_the_collapsed_one():
    anchors = PLACES[:3] + 0.05
    law = ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, 0.1, mask=MASK, inducing=anchors)
    y = np.where(MASK, Y, np.nan)
    cross = SPACE.gram(jnp.asarray(PLACES), jnp.asarray(anchors))
    low = cross @ jnp.linalg.solve(SPACE.gram(jnp.asarray(anchors)), cross.T)
    cov = jnp.kron(TIME.gram(jnp.asarray(TIMES)), low)
    lost = np.tile(SPACE.variance - np.diag(low), N)[MASK.reshape(-1)].sum() / 0.2
    np.testing.assert_allclose(law.log_prob(y), log_prob(cov, 0.1, y, MASK) - lost, rtol=1e-9)
    exact = ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, 0.1, mask=MASK)
    assert law.log_prob(y) < exact.log_prob(y)
    whole = ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, 0.1, mask=MASK, inducing=PLACES)
    np.testing.assert_allclose(whole.log_prob(y), exact.log_prob(y), rtol=1e-7)
    np.testing.assert_allclose(
        whole.condition(y).moments(NEW_TIMES, NEW_PLACES),
        exact.condition(y).moments(NEW_TIMES, NEW_PLACES),
        rtol=1e-6,
    )


def test_counts_in_space_and_time():
    counts = np.random.default_rng(0).poisson(np.exp(Y))
    poisson = lambda f: dist.Poisson(jnp.exp(f))  # noqa: E731
    law = ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, mask=MASK)
    found = ssm.approximate(law.process, counts, poisson, tolerance=1e-10)
    linear, precision = (np.asarray(a)[MASK] for a in found.state.sites)
    seen = np.flatnonzero(MASK)
    prior = np.asarray(dense(SPACE))[seen][:, seen]
    cov = np.linalg.solve(np.eye(len(seen)) + prior * precision, prior)
    np.testing.assert_allclose(found.state.mean[MASK], cov @ linear, rtol=1e-7, atol=1e-9)
    mean, _ = law.given(found.posterior).moments()
    np.testing.assert_allclose(mean[MASK], cov @ linear, rtol=1e-7, atol=1e-9)
    few = ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, mask=MASK, inducing=PLACES[:3])
    left = few.residual * few.time_variance()[:, None]
    sparse = ssm.approximate(few.process, counts, poisson, residual=left)
    assert sparse.converged and sparse.log_evidence() < found.log_evidence()
    every = ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, mask=MASK, inducing=PLACES)
    left = every.residual * every.time_variance()[:, None]
    same = ssm.approximate(every.process, counts, poisson, residual=left)
    np.testing.assert_allclose(same.log_evidence(), found.log_evidence(), rtol=1e-6)


def test_draws_have_the_covariance(getkey):
    law = ssm.SpaceTimeGP(SPACE, TIME, PLACES[:3], TIMES[:3], 0.1, mean=0.7)
    draws = law.sample(getkey(), (40_000,)).reshape(-1, 9)
    cov = np.asarray(dense(SPACE, TIMES[:3], PLACES[:3])) + 0.1 * np.eye(9)
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / len(draws))
    assert np.max(np.abs(np.cov(draws, rowvar=False) - cov) / error) < 5
    assert np.max(np.abs(draws.mean(0) - 0.7) / np.sqrt(np.diag(cov) / len(draws))) < 4.5


def test_vmap_and_single_precision():
    many = jax.vmap(lambda noise: ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, noise).log_prob(Y))
    found = many(jnp.array([0.1, 0.3]))
    for value, noise in zip(found, (0.1, 0.3), strict=True):
        np.testing.assert_allclose(value, log_prob(dense(SPACE), noise, Y, Y < 99), rtol=1e-9)
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), (SPACE, TIME))
    law = ssm.SpaceTimeGP(*single, np.float32(PLACES), np.float32(TIMES), np.float32(0.1))
    low = law.log_prob(np.float32(Y))
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, found[0], rtol=1e-4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="places"):
        ssm.SpaceTimeGP(SPACE, TIME, np.where(PLACES > 1.9, np.nan, PLACES) * np.nan, TIMES)
    with pytest.raises(ValueError, match="mask must hold booleans"):
        ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, mask=MASK.T)
    with pytest.raises(ValueError, match="value must have shape"):
        ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, 0.1).log_prob(Y.T)
    with pytest.raises(ValueError, match="value holds NaN .* pass mask="):
        ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, 0.1).log_prob(np.where(MASK, Y, np.nan))
    law = ssm.SpaceTimeGP(SPACE, TIME, PLACES, TIMES, 0.1, inducing=PLACES[:2])
    with pytest.raises(NotImplementedError, match="leave inducing places out"):
        law.sample(jax.random.key(0))
