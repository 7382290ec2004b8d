"""Observed and predicted derivatives are those of the dense normal distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist

from bayesjx import kernels, ssm

N = 40
RNG = np.random.default_rng(0)
TIMES = np.sort(RNG.uniform(0, 5, N))
SLOPES = RNG.random(N) < 0.4
Y = np.where(SLOPES, 2 * np.cos(2 * TIMES), np.sin(2 * TIMES)) + 0.1 * RNG.normal(size=N)
NEW = np.array([-0.3, 1.1, 5.5])
KERNELS = {
    "matern52": kernels.Matern52(0.9, 1.3),
    "sum": kernels.Matern72(0.8) + kernels.Linear(0.3, -0.5) + kernels.Constant(0.5),
    "product": kernels.Matern32(1.5) * kernels.Cosine(2.0),
    "oscillator": 0.7 * kernels.SHO(1.7, 2.5) + kernels.IntegratedWiener(0.4, -1.0),
}


def cov(kernel, s, of_s, t, of_t):
    """Covariances of values and derivatives, by differentiating the kernel."""

    def one(s, of_s, t, of_t):
        # Kernels have no derivatives where times coincide; a neighbour has nearly the same.
        t = jnp.where(s == t, t + 1e-7, t)
        value = lambda s, t: kernel.pairwise(s[None, None], t[None, None])[0, 0]  # noqa: E731
        first, second = jax.grad(value, 0)(s, t), jax.grad(value, 1)(s, t)
        both = jax.grad(jax.grad(value, 0), 1)(s, t)
        by_t = jnp.where(of_t, second, value(s, t))
        return jnp.where(of_s, jnp.where(of_t, both, first), by_t)

    rows = jax.vmap(jax.vmap(one, (None, None, 0, 0)), (0, 0, None, None))
    return rows(*map(jnp.asarray, (s, of_s, t, of_t)))


@pytest.mark.parametrize("name", KERNELS)
def test_density_gradient_and_posterior_are_dense(name):
    @jax.jit
    def everything(kernel):
        def ours(kernel):
            return ssm.MarkovGP(kernel, TIMES, noise_var=0.1, slopes=SLOPES).log_prob(Y)

        def theirs(kernel):
            total = cov(kernel, TIMES, SLOPES, TIMES, SLOPES) + 0.1 * jnp.eye(N)
            total = 0.5 * (total + total.T)
            return dist.MultivariateNormal(jnp.zeros(N), total).log_prob(Y), total

        (want, data), wanted = jax.value_and_grad(theirs, has_aux=True)(kernel)
        post = ssm.MarkovGP(kernel, TIMES, noise_var=0.1, slopes=SLOPES).condition(Y)
        answers = [post.moments(NEW, slope=slope) for slope in (False, True)]
        dense = [
            (cov(kernel, NEW, of, TIMES, SLOPES), jnp.diag(cov(kernel, NEW, of, NEW, of)))
            for of in (np.full(3, False), np.full(3, True))
        ]
        values = np.full(3, False)
        between = post.covariance(NEW), cov(kernel, NEW, values, NEW, values)
        return jax.value_and_grad(ours)(kernel), (want, wanted), answers, data, dense, between

    (value, slopes), (want, wanted), answers, data, dense, between = everything(KERNELS[name])
    np.testing.assert_allclose(value, want, rtol=1e-5)
    for slope, expected in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-4, atol=1e-4)
    for (mean, variance), (cross, prior) in zip(answers, dense, strict=True):
        gain = np.linalg.solve(data, cross.T).T
        np.testing.assert_allclose(mean, gain @ Y, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(variance, prior - np.sum(gain * cross, 1), rtol=1e-3, atol=1e-6)
    (covariance, prior), (cross, _) = between, dense[0]
    left = prior - cross @ np.linalg.solve(data, cross.T)
    np.testing.assert_allclose(covariance, left, rtol=1e-3, atol=1e-6)


def test_draws_and_leave_one_out(getkey):
    kernel, few = KERNELS["matern52"], slice(None, None, 8)
    prior = ssm.MarkovGP(kernel, TIMES[few], noise_var=0.1, slopes=SLOPES[few])
    draws = prior.sample(getkey(), (40_000,))
    want = np.asarray(
        jax.jit(lambda k: cov(k, TIMES[few], SLOPES[few], TIMES[few], SLOPES[few]))(kernel)
    ) + 0.1 * np.eye(5)
    error = np.sqrt((np.outer(np.diag(want), np.diag(want)) + want**2) / len(draws))
    assert np.max(np.abs(np.cov(draws, rowvar=False) - want) / error) < 5
    np.testing.assert_allclose(prior.variance, np.diag(want), rtol=1e-5)
    post = prior.condition(Y[few])
    paths = post.sample(getkey(), NEW, (20_000,))
    mean, variance = post.moments(NEW)
    assert np.max(np.abs(paths.mean(0) - mean) / np.sqrt(variance / len(paths))) < 4.5
    assert np.max(np.abs(paths.var(0) / variance - 1)) < 5 * np.sqrt(2 / len(paths))
    others = np.arange(5) != 2
    gain = np.linalg.solve(want[others][:, others], want[others, 2])
    one = post.leave_one_out()
    np.testing.assert_allclose(one.mean[2], gain @ Y[few][others], rtol=1e-5)
    np.testing.assert_allclose(one.variance[2], want[2, 2] - gain @ want[others, 2], rtol=1e-5)


@pytest.mark.parametrize("backend", ["chunked", "associative", "square-root"])
def test_back_ends_orders_and_single_precision_agree(backend):
    kernel, at = KERNELS["matern52"], RNG.permutation(N)
    want = ssm.MarkovGP(kernel, TIMES, noise_var=0.1, slopes=SLOPES, backend="sequential").log_prob(
        Y
    )
    with pytest.warns(UserWarning, match="not in order"):
        prior = ssm.MarkovGP(kernel, TIMES[at], noise_var=0.1, slopes=SLOPES[at], backend=backend)
    np.testing.assert_allclose(prior.log_prob(Y[at]), want, rtol=1e-10)
    single = jax.tree.map(jnp.float32, kernel)
    options = {"noise_var": 0.1, "slopes": SLOPES, "backend": backend}
    value = ssm.MarkovGP(single, np.float32(TIMES), **options).log_prob(jnp.float32(Y))
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, want, rtol=1e-4)


def test_slopes_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match="Matern12 has no derivative"):
        ssm.MarkovGP(kernels.Matern12(), TIMES, slopes=SLOPES)
    with pytest.raises(ValueError, match="Wiener has no derivative"):
        ssm.MarkovGP(kernels.Wiener(), TIMES, slopes=SLOPES)
    with pytest.raises(ValueError, match="slopes must hold booleans"):
        ssm.MarkovGP(kernels.Matern32(), TIMES, slopes=SLOPES[1:])
    with pytest.raises(ValueError, match="without mixing"):
        pair = (kernels.Matern32(), kernels.Matern32())
        ssm.MarkovGP(pair, TIMES, slopes=SLOPES, mixing=np.eye(2))
    prior = ssm.MarkovGP(kernels.Matern32(), TIMES, slopes=SLOPES)
    with pytest.raises(ValueError, match="not of slopes"):
        ssm.approximate(prior, Y, lambda f: dist.Normal(f, 1.0))


def test_the_prior_mean_has_a_derivative():
    """A function as mean is one of values and slopes; a constant has none."""
    kernel, mean = KERNELS["matern52"], lambda t: 0.3 * t**2
    shift = np.where(SLOPES, 0.6 * TIMES, 0.3 * TIMES**2)
    prior = ssm.MarkovGP(kernel, TIMES, mean, noise_var=0.1, slopes=SLOPES)
    plain = ssm.MarkovGP(kernel, TIMES, 0.0, noise_var=0.1, slopes=SLOPES).condition(Y)
    np.testing.assert_allclose(prior.mean, shift, rtol=1e-12)
    post = prior.condition(Y + shift)
    for slope, added in ((False, 0.3 * NEW**2), (True, 0.6 * NEW)):
        want = plain.moments(NEW, slope=slope)[0] + added
        np.testing.assert_allclose(post.moments(NEW, slope=slope)[0], want, rtol=1e-10)
    constant = ssm.MarkovGP(kernel, TIMES, 2.0, slopes=SLOPES)
    np.testing.assert_array_equal(constant.mean, np.where(SLOPES, 0.0, 2.0))
