"""Processes of space and time are those of the dense Kronecker product."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist

from bayesjx import kernels, ssm

S, N = 5, 12
RNG = np.random.default_rng(3)
LOCATIONS = RNG.uniform(0, 2, (S, 2))
TIMES = np.sort(RNG.uniform(0, 4, N))
Y = np.sin(TIMES)[:, None] * np.cos(LOCATIONS[:, 0]) + 0.2 * RNG.normal(size=(N, S))
MASK = RNG.random((N, S)) > 0.3
SPACE, TIME = kernels.RBF(1.1, 1.4), kernels.Matern32(0.9)
NEW_TIMES, NEW_LOCATIONS = np.array([-0.4, 1.5, 5.0]), RNG.uniform(0, 2, (2, 2))


def dense(space, times=TIMES, locations=LOCATIONS, time=TIME):
    """Covariances of all cells, times first."""
    return jnp.kron(time.gram(jnp.asarray(times)), space.gram(jnp.asarray(locations)))


def log_prob(cov, noise, y, mask):
    seen = np.flatnonzero(mask)
    cov = (cov + jnp.diag(jnp.broadcast_to(noise, (len(cov),))))[seen][:, seen]
    return dist.MultivariateNormal(jnp.zeros(len(seen)), cov).log_prob(y.reshape(-1)[seen])


@pytest.mark.parametrize("mask", [None, MASK], ids=["complete", "gaps"])
def test_density_and_gradient_are_dense(mask):
    every = np.ones((N, S), bool) if mask is None else mask
    y = np.where(every, Y, np.nan)

    def ours(space, noise, y):
        return ssm.SpaceTimeGP(space, TIME, LOCATIONS, TIMES, noise_var=noise, mask=mask).log_prob(
            y
        )

    def theirs(space, noise, y):
        return log_prob(dense(space), noise, y, every)

    value, slopes = jax.jit(jax.value_and_grad(ours, (0, 1)))(SPACE, jnp.array(0.1), y)
    want, wanted = jax.jit(jax.value_and_grad(theirs, (0, 1)))(SPACE, jnp.array(0.1), y)
    np.testing.assert_allclose(value, want, rtol=1e-10)
    for slope, expected in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-8)


@pytest.mark.parametrize(
    "last", [(1.0, 1.0), (1e-7, 0.0)], ids=["square, two equal", "two locations in one, zero"]
)
def test_gradient_of_eigenvalues_that_are_equal_or_zero(last):
    corners = jnp.array([(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), last])
    y = jnp.asarray(Y[:, :4])

    def ours(locations, y, lengthscale):
        time = kernels.Matern32(lengthscale)
        return ssm.SpaceTimeGP(SPACE, time, locations, TIMES, noise_var=0.1).log_prob(y)

    def theirs(locations, y, lengthscale):
        cov = dense(SPACE, locations=locations, time=kernels.Matern32(lengthscale))
        return log_prob(cov, 0.1, y, np.ones(y.shape, bool))

    at = corners, y, jnp.array(0.9)
    slopes, wanted = (jax.jit(jax.grad(f, (0, 1, 2)))(*at) for f in (ours, theirs))
    for slope, expected in zip(slopes, wanted, strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("mask", [None, MASK], ids=["complete", "gaps"])
@pytest.mark.compiles(600, "all questions of a posterior outside of jit")
def test_posterior_is_dense(mask, getkey):
    seen = np.flatnonzero(np.ones((N, S), bool) if mask is None else mask)
    prior = ssm.SpaceTimeGP(SPACE, TIME, LOCATIONS, TIMES, 0.4, noise_var=0.1, mask=mask)
    post = prior.condition(np.where(MASK, Y, np.nan) if mask is not None else Y)
    data = dense(SPACE)[seen][:, seen] + 0.1 * jnp.eye(len(seen))
    y = Y.reshape(-1)[seen] - 0.4
    for times, locations in [(None, None), (NEW_TIMES, NEW_LOCATIONS)]:
        x = None if times is None else (times, locations)
        at = (TIMES if times is None else times), (LOCATIONS if times is None else locations)
        across, own = (
            [
                k.gram(jnp.asarray(a), jnp.asarray(b))
                for k, a, b in zip((TIME, SPACE), at, others, strict=True)
            ]
            for others in ((TIMES, LOCATIONS), at)
        )
        cross = jnp.kron(*across)[:, seen]
        gain = jnp.linalg.solve(data, cross.T).T
        left = jnp.kron(*own) - gain @ cross.T
        np.testing.assert_allclose(post.mean(x).reshape(-1), 0.4 + gain @ y, rtol=1e-7)
        np.testing.assert_allclose(post.variance(x).reshape(-1), jnp.diag(left), rtol=1e-7)
        np.testing.assert_allclose(post.covariance(x), left, atol=1e-8)
        predicted = post.predict(x)
        np.testing.assert_allclose(predicted.variance, post.variance(x) + 0.1, rtol=1e-12)
    with pytest.raises(ValueError, match="noise_var must not be negative"):
        post.predict(x, noise_var=-0.05)
    with pytest.raises(ValueError, match=r"pair of times and locations, got ndarray .*\(2, 3\)"):
        post.mean(np.ones((2, 3)))
    want = log_prob(dense(SPACE), 0.1, Y - 0.4, np.ones((N, S), bool) if mask is None else mask)
    np.testing.assert_allclose(post.log_evidence(), want, rtol=1e-10)
    future = np.array([[0.3, -0.2]] * 3)
    density = post.predict((NEW_TIMES, NEW_LOCATIONS)).log_prob(future)
    answered = post.log_predictive_prob((NEW_TIMES, NEW_LOCATIONS), future)
    np.testing.assert_allclose(answered, density, rtol=1e-12)
    draws = post.sample(getkey(), (NEW_TIMES, NEW_LOCATIONS), (20_000,)).reshape(-1, 6)
    error = np.sqrt((np.outer(np.diag(left), np.diag(left)) + left**2) / len(draws))
    assert np.max(np.abs(np.cov(draws, rowvar=False) - left) / error) < 5


def test_bound_of_inducing_points_is_the_collapsed_one():
    anchors, options = LOCATIONS[:3] + 0.05, {"noise_var": 0.1, "mask": MASK}
    prior = ssm.SpaceTimeGP(SPACE, TIME, LOCATIONS, TIMES, inducing_points=anchors, **options)
    y = np.where(MASK, Y, np.nan)
    cross = SPACE.gram(jnp.asarray(LOCATIONS), jnp.asarray(anchors))
    low = cross @ jnp.linalg.solve(SPACE.gram(jnp.asarray(anchors)), cross.T)
    cov = jnp.kron(TIME.gram(jnp.asarray(TIMES)), low)
    lost = np.tile(SPACE.variance - np.diag(low), N)[MASK.reshape(-1)].sum() / 0.2
    want = log_prob(cov, 0.1, y, MASK) - lost
    np.testing.assert_allclose(prior.log_prob(y), want, rtol=1e-9)
    post = prior.condition(y)
    np.testing.assert_allclose(post.log_evidence(), want, rtol=1e-9)
    np.testing.assert_allclose(np.diag(post.covariance()), post.variance().reshape(-1), rtol=1e-8)
    exact = ssm.SpaceTimeGP(SPACE, TIME, LOCATIONS, TIMES, **options)
    assert prior.log_prob(y) < exact.log_prob(y)
    whole = ssm.SpaceTimeGP(SPACE, TIME, LOCATIONS, TIMES, inducing_points=LOCATIONS, **options)
    np.testing.assert_allclose(whole.log_prob(y), exact.log_prob(y), rtol=1e-7)
    x = NEW_TIMES, NEW_LOCATIONS
    want = exact.condition(y).moments(x)
    np.testing.assert_allclose(whole.condition(y).moments(x), want, rtol=1e-6)


def test_counts_in_space_and_time():
    counts = np.random.default_rng(0).poisson(np.exp(Y))
    poisson = lambda f: dist.Poisson(jnp.exp(f))  # noqa: E731

    def approximated(**options):
        prior = ssm.SpaceTimeGP(SPACE, TIME, LOCATIONS, TIMES, **options)
        return prior.condition(counts, poisson, atol=1e-10)

    post = approximated(mask=MASK)
    linear, precision = (np.asarray(a)[MASK] for a in post.inside.state.sites)
    seen = np.flatnonzero(MASK)
    every = np.asarray(dense(SPACE))
    inside = np.eye(len(seen)) + every[np.ix_(seen, seen)] * precision
    gain = np.linalg.solve(inside, every[seen]).T
    np.testing.assert_allclose(post.mean().reshape(-1), gain @ linear, rtol=1e-7, atol=1e-9)
    left = every - gain @ np.diag(precision) @ every[seen]
    np.testing.assert_allclose(post.covariance(), left, atol=1e-8)
    rate = np.exp(post.mean() + post.variance() / 2)  # in closed form
    np.testing.assert_allclose(post.predict().mean, rate, rtol=1e-6)
    sparse = approximated(mask=MASK, inducing_points=LOCATIONS[:3])
    assert sparse.inside.converged and sparse.log_evidence() < post.log_evidence()
    same = approximated(mask=MASK, inducing_points=LOCATIONS)
    np.testing.assert_allclose(same.log_evidence(), post.log_evidence(), rtol=1e-6)
    # A complete grid has a state for all locations then, too.
    complete, masked = approximated(), approximated(mask=np.ones((N, S), bool))
    np.testing.assert_allclose(complete.mean(), masked.mean(), rtol=1e-12)
    np.testing.assert_allclose(complete.log_evidence(), masked.log_evidence(), rtol=1e-12)


def test_draws_have_the_covariance(getkey):
    prior = ssm.SpaceTimeGP(SPACE, TIME, LOCATIONS[:3], TIMES[:3], 0.7, noise_var=0.1)
    draws = prior.sample(getkey(), (40_000,)).reshape(-1, 9)
    cov = np.asarray(dense(SPACE, TIMES[:3], LOCATIONS[:3])) + 0.1 * np.eye(9)
    error = np.sqrt((np.outer(np.diag(cov), np.diag(cov)) + cov**2) / len(draws))
    assert np.max(np.abs(np.cov(draws, rowvar=False) - cov) / error) < 5
    assert np.max(np.abs(draws.mean(0) - 0.7) / np.sqrt(np.diag(cov) / len(draws))) < 4.5


def test_vmap_and_single_precision():
    noisy = lambda v: ssm.SpaceTimeGP(SPACE, TIME, LOCATIONS, TIMES, noise_var=v)  # noqa: E731
    values = jax.vmap(lambda v: noisy(v).log_prob(Y))(jnp.array([0.1, 0.3]))
    for value, noise in zip(values, (0.1, 0.3), strict=True):
        np.testing.assert_allclose(value, log_prob(dense(SPACE), noise, Y, Y < 99), rtol=1e-9)
    single = jax.tree.map(lambda leaf: leaf.astype(np.float32), (SPACE, TIME))
    at = np.float32(LOCATIONS), np.float32(TIMES)
    low = ssm.SpaceTimeGP(*single, *at, noise_var=np.float32(0.1)).log_prob(np.float32(Y))
    assert low.dtype == jnp.float32
    np.testing.assert_allclose(low, values[0], rtol=1e-4)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="locations"):
        ssm.SpaceTimeGP(SPACE, TIME, np.where(LOCATIONS > 1.9, np.nan, LOCATIONS) * np.nan, TIMES)
    with pytest.raises(ValueError, match="mask must hold booleans"):
        ssm.SpaceTimeGP(SPACE, TIME, LOCATIONS, TIMES, mask=MASK.T)
    with pytest.raises(ValueError, match="value must have shape"):
        ssm.SpaceTimeGP(SPACE, TIME, LOCATIONS, TIMES, noise_var=0.1).log_prob(Y.T)
    with pytest.raises(ValueError, match="value holds NaN .* pass mask="):
        ssm.SpaceTimeGP(SPACE, TIME, LOCATIONS, TIMES, noise_var=0.1).log_prob(
            np.where(MASK, Y, np.nan)
        )
    sparse = {"noise_var": 0.1, "inducing_points": LOCATIONS[:2]}
    with pytest.raises(NotImplementedError, match="leave inducing_points out"):
        ssm.SpaceTimeGP(SPACE, TIME, LOCATIONS, TIMES, **sparse).sample(jax.random.key(0))
