"""Densities, posteriors and draws are those of the dense normal law."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import distributions as dist
from numpyro.infer import MCMC, NUTS

from bayesjx import kernels, ssm
from bayesjx.ssm import _engine, _passes, _process

pytestmark = pytest.mark.filterwarnings("ignore:filtering one step after another is slow")
N = 90
SMALL_SUM = kernels.Matern12(0.7, 1.3) + kernels.Linear(0.3, -1.0)
KERNELS = {
    "matern12": kernels.Matern12(0.7, 1.3),
    "matern32": kernels.Matern32(0.7, 1.3),
    "matern52": kernels.Matern52(0.7, 1.3),
    "matern72": kernels.Matern72(0.9, 1.3),
    "sum": kernels.Matern32(0.7) + kernels.Cosine(0.9, 0.5),
    "product": kernels.SHO(0.8, 3.0) * kernels.Matern12(2.0) + kernels.Constant(0.4),
    "spline": kernels.IntegratedWiener(0.5, -1.0) + kernels.Linear(0.3, -1.0),
}


def problem(n=N, seed=0):
    """Irregular times, two of which coincide, and some missing values, NaN."""
    rng = np.random.default_rng(seed)
    times = np.sort(rng.uniform(0, 6, n))
    times[10] = times[9]
    y = np.sin(2 * times) + 0.3 * rng.normal(size=n)
    mask = rng.random(n) > 0.15
    mask[[9, 10]] = True
    return times, np.where(mask, y, np.nan), mask


def dense(kernel, times, y, noise, mask):
    """The density by a Cholesky factor, of values that are there."""
    seen = np.flatnonzero(mask)
    x = jnp.asarray(times)[seen]
    noise = jnp.broadcast_to(noise, (len(mask),))[seen]
    cov = kernel.gram(x) + jnp.diag(noise)
    return dist.MultivariateNormal(jnp.zeros(len(x)), cov).log_prob(jnp.asarray(y)[seen])


# Parts side by side know nothing of the kernel, so there is one of each number of states.
PARTS = [("matern12", "chunked"), ("matern32", "chunked"), ("product", "chunked")]


@pytest.mark.parametrize(("name", "backend"), [*((name, "sequential") for name in KERNELS), *PARTS])
def test_density_and_gradient_are_dense(name, backend):
    times, y, mask = problem()

    def ours(kernel, noise, mean):
        law = ssm.MarkovGP(kernel, times, noise, mean, mask, backend=backend)
        return law.log_prob(y)

    def theirs(kernel, noise, mean):
        return dense(kernel, times, y - mean, noise, mask)

    at = (KERNELS[name], jnp.linspace(0.05, 0.2, N), jnp.array(0.1))
    value, slopes = jax.jit(jax.value_and_grad(ours, (0, 1, 2)))(*at)
    want, wanted = jax.jit(jax.value_and_grad(theirs, (0, 1, 2)))(*at)
    np.testing.assert_allclose(value, want, rtol=1e-11)
    for slope, expected in zip(jax.tree.leaves(slopes), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=2e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["matern12", "matern32", "product"])
def test_density_by_blocks_is_dense(name, monkeypatch, dtype):
    monkeypatch.setattr(_passes, "BLOCK", 27)  # three of them, and 9 observations
    times, y, mask = problem()
    kernel, times, y = jax.tree.map(lambda a: jnp.asarray(a, dtype), (KERNELS[name], times, y))
    law = ssm.MarkovGP(kernel, times, jnp.linspace(0.05, 0.2, N), 0.1, mask, backend="sequential")
    want = dense(KERNELS[name], times, y - 0.1, jnp.linspace(0.05, 0.2, N), mask)
    series = law.series(y)
    # Not the program of `_process`, which an earlier test may have compiled with other blocks.
    found = jax.jit(
        lambda y: _engine.log_density(
            law.plan, *_process._model(law.plan, law.space, series._replace(y=y), None)
        )
    )(series.y)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, want, rtol=2e-4 if dtype == jnp.float32 else 1e-9)


@pytest.mark.parametrize("backend", ["sequential", "chunked"])
def test_gradient_in_times_and_observations_is_dense(backend):
    times, y, mask = problem()
    times[10] += 0.01  # where times coincide a Matérn-3/2 kernel has no second derivative

    def ours(times, y):
        law = ssm.MarkovGP(KERNELS["matern32"], times, 0.1, mask=mask, backend=backend)
        return law.log_prob(y)

    def theirs(times, y):
        return dense(KERNELS["matern32"], times, y, 0.1, mask)

    y = np.where(mask, y, 0.0)
    found = jax.jit(jax.grad(ours, (0, 1)))(jnp.asarray(times), jnp.asarray(y))
    want = jax.jit(jax.grad(theirs, (0, 1)))(jnp.asarray(times), jnp.asarray(y))
    for slope, expected in zip(found, want, strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-8, atol=1e-8)
    assert np.all(np.asarray(found[1])[~mask] == 0)


@pytest.mark.parametrize("backend", ["sequential", "chunked"])
def test_posterior_is_dense(backend):
    times, y, mask = problem()
    kernel, noise, mean = SMALL_SUM, 0.1, 0.2
    at = np.array([5.0, -0.5, 2.2, 7.5, times[3], 2.2])
    post = ssm.MarkovGP(kernel, times, noise, mean, mask, backend=backend).condition(y)

    def conditional(where, kernel_of_f):
        seen = np.flatnonzero(mask)
        cov = kernel.gram(times[seen]) + noise * np.eye(len(seen))
        cross = kernel_of_f.gram(where, times[seen])
        weights = np.linalg.solve(cov, cross.T)
        variance = kernel_of_f.diag(where) - np.sum(cross.T * weights, axis=0)
        return weights.T @ (y[seen] - mean), variance

    questions = [(at, None), (None, None), (at, 1)]
    answers = jax.jit(lambda post: [post.moments(*question) for question in questions])(post)
    for (where, term), found in zip(questions, answers, strict=True):
        part = kernel if term is None else kernel.terms[term]
        want = conditional(times if where is None else where, part)
        np.testing.assert_allclose(found[0], want[0], rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(found[1], want[1], rtol=1e-8, atol=1e-10)
    law = post.predict(at, noise, mean)
    centre, variance = conditional(at, kernel)
    np.testing.assert_allclose(law.mean, mean + centre, rtol=1e-8)
    np.testing.assert_allclose(law.variance, variance + noise, rtol=1e-8)
    np.testing.assert_allclose(
        post.log_evidence(), dense(kernel, times, y - mean, noise, mask), rtol=1e-10
    )


def test_leave_one_out_is_refitting():
    times, y, mask = problem(40)
    kernel, mean = KERNELS["matern52"], 0.3
    noise = np.linspace(0.05, 0.2, 40)
    found = ssm.MarkovGP(kernel, times, noise, mean, mask).condition(y).leave_one_out()

    @jax.jit
    def without(i, others):
        law = ssm.MarkovGP(kernel, times, noise, mean, others).condition(y)
        centre, variance = law.moments()
        return mean + centre[i], variance[i] + jnp.asarray(noise)[i]

    for i in range(40):
        others = mask.copy()
        others[i] = False
        want = without(i, others)
        np.testing.assert_allclose([found.mean[i], found.variance[i]], want, rtol=1e-8)


@pytest.mark.filterwarnings("ignore:times are not in order")
def test_order_of_the_times_does_not_matter(getkey):
    times, y, mask = problem()
    noise, mean = np.linspace(0.05, 0.2, N), np.linspace(-1, 1, N)
    mixed = np.random.default_rng(3).permutation(N)
    kernel = KERNELS["matern32"]
    straight = ssm.MarkovGP(kernel, times, noise, mean, mask)
    crooked = ssm.MarkovGP(kernel, times[mixed], noise[mixed], mean[mixed], mask[mixed])
    np.testing.assert_allclose(crooked.log_prob(y[mixed]), straight.log_prob(y), rtol=1e-13)
    for question in ("leave_one_out", "marginal"):
        want = getattr(straight.condition(y), question)()
        got = getattr(crooked.condition(y[mixed]), question)()
        np.testing.assert_allclose(got.mean, want.mean[mixed], rtol=1e-10)
        np.testing.assert_allclose(got.variance, want.variance[mixed], rtol=1e-10)
    np.testing.assert_allclose(crooked.variance, straight.variance[mixed])
    draws = crooked.sample(getkey(), (20_000,))
    want = kernel.gram(times[mixed][:5]) + np.diag(noise[mixed][:5])
    _check_moments(draws[:, :5], mean[mixed][:5], want)


def _check_moments(draws, mean, cov):
    """Means and covariances of draws against exact ones, by their standard errors."""
    n = len(draws)
    off = (np.mean(draws, axis=0) - mean) / np.sqrt(np.diag(cov) / n)
    assert np.max(np.abs(off)) < 4.5
    se = np.sqrt((cov**2 + np.outer(np.diag(cov), np.diag(cov))) / n)
    assert np.max(np.abs(np.cov(draws.T) - cov) / se) < 4.5


@pytest.mark.parametrize("name", ["matern52", "sum", "product"])
def test_draws_of_the_prior_have_its_law(name, getkey):
    times = np.array([0.0, 0.0, 0.4, 1.5, 1.5003])
    law = ssm.MarkovGP(KERNELS[name], times, 0.05, 0.7)
    cov = KERNELS[name].gram(times) + 0.05 * np.eye(5)
    _check_moments(law.sample(getkey(), (20_000,)), np.full(5, 0.7), np.asarray(cov))


def test_draws_of_the_posterior_have_its_law(getkey):
    times, y, mask = problem(30)
    kernel, noise = SMALL_SUM, 0.1
    at = np.array([2.0, 7.0, -1.0, 2.1])
    post = ssm.MarkovGP(kernel, times, noise, mask=mask).condition(y)
    draws = jax.jit(lambda key: post.sample(key, at, (20_000,)))(getkey())
    seen = np.flatnonzero(mask)
    cov = kernel.gram(times[seen]) + noise * np.eye(len(seen))
    cross = kernel.gram(at, times[seen])
    mean = cross @ np.linalg.solve(cov, y[seen])
    _check_moments(draws, mean, kernel.gram(at) - cross @ np.linalg.solve(cov, cross.T))


@pytest.mark.parametrize("backend", ["sequential", "chunked"])
def test_single_precision_at_any_scale(backend):
    """Value and gradient at lengthscales far below and above the steps."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.exponential(size=400))
    y = np.sin(times / 20) + 0.3 * rng.normal(size=400)

    def density(params, dtype):
        kernel = kernels.Matern52(params[0], params[1])
        x = times if dtype == jnp.float64 else (times - times[0]).astype(np.float32)
        law = ssm.MarkovGP(kernel, x, params[2], backend=backend)
        return law.log_prob(jnp.asarray(y, dtype))

    both = {
        dtype: jax.jit(jax.value_and_grad(lambda p, dtype=dtype: density(p, dtype)))
        for dtype in (jnp.float32, jnp.float64)
    }
    for lengthscale in (1e-3, 0.1, 3.0, 100.0, 1e4):
        params = [lengthscale, 1.3, 0.1]
        value, slopes = both[jnp.float32](jnp.array(params, jnp.float32))
        want, wanted = both[jnp.float64](jnp.array(params))
        assert value.dtype == jnp.float32
        np.testing.assert_allclose(value, want, rtol=1e-4)
        np.testing.assert_allclose(
            slopes * np.array(params), wanted * np.array(params), rtol=5e-3, atol=0.02
        )


def test_late_times_keep_their_digits():
    """Known times are taken in double precision, whatever that of the computation is."""
    times = 2_000_000 + np.sort(np.random.default_rng(0).uniform(0, 5, 100))
    kernel = kernels.Matern32(0.7) + kernels.Linear(0.3, 2_000_001.0)
    y, at = np.sin(times), np.array([2_000_001.25])
    want = ssm.MarkovGP(kernel, times, 0.1)
    with jax.enable_x64(False):
        kernel = kernels.Matern32(0.7) + kernels.Linear(0.3, 2_000_001.0)
        found = ssm.MarkovGP(kernel, times, 0.1)
        value, post = found.log_prob(jnp.asarray(y)), found.condition(jnp.asarray(y))
        assert value.dtype == jnp.float32
        moments = post.moments(at)
    np.testing.assert_allclose(value, want.log_prob(y), rtol=1e-4)
    np.testing.assert_allclose(moments, want.condition(y).moments(at), rtol=1e-3)


def test_vmap_over_parameters_and_series():
    times, y, mask = problem()
    lengthscales = jnp.array([0.3, 0.7, 1.5])
    series = np.stack([np.where(mask, y, 0.0), np.where(mask, -y, 0.0)])

    def value(lengthscale, y):
        return ssm.MarkovGP(kernels.Matern32(lengthscale), times, 0.1, mask=mask).log_prob(y)

    found = jax.jit(jax.vmap(jax.value_and_grad(value), (0, None)))(lengthscales, series[0])
    each = [jax.jit(jax.value_and_grad(value))(ls, series[0]) for ls in lengthscales]
    np.testing.assert_allclose(found[0], [v for v, _ in each], rtol=1e-12)
    np.testing.assert_allclose(found[1], [g for _, g in each], rtol=1e-10)
    np.testing.assert_allclose(
        value(0.7, series), [value(0.7, series[0]), value(0.7, series[1])], rtol=1e-12
    )


def test_no_observation_is_no_evidence():
    law = ssm.MarkovGP(KERNELS["matern32"], np.arange(5.0), 0.1, mask=np.zeros(5, bool))
    assert law.log_prob(np.full(5, np.nan)) == 0
    mean, variance = law.condition(np.full(5, np.nan)).moments(np.array([2.5]))
    np.testing.assert_allclose([mean[0], variance[0]], [0, 1.3], rtol=1e-12)


@pytest.mark.slow
@pytest.mark.optimised
def test_nuts_finds_the_posterior_of_a_dense_density():
    times, y, mask = problem(60)
    y = np.where(mask, y, 0.0)

    def model(density):
        lengthscale = numpyro.sample("lengthscale", dist.LogNormal(0.0, 0.7))
        variance = numpyro.sample("variance", dist.LogNormal(0.0, 1.0))
        noise = numpyro.sample("noise", dist.LogNormal(-2.0, 1.0))
        density(kernels.Matern32(lengthscale, variance), noise)

    def ours(kernel, noise):
        numpyro.sample("y", ssm.MarkovGP(kernel, times, noise, mask=mask), obs=y)

    def theirs(kernel, noise):
        numpyro.factor("y", dense(kernel, times, y, noise, mask))

    found = []
    for seed, density in enumerate((ours, theirs)):
        sampler = NUTS(model)
        mcmc = MCMC(sampler, num_warmup=300, num_samples=1500, progress_bar=False)
        mcmc.run(jax.random.key(seed), density)
        found.append({k: np.log(v) for k, v in mcmc.get_samples().items()})
    for site in ("lengthscale", "variance", "noise"):
        ess = [numpyro.diagnostics.effective_sample_size(f[site][None]) for f in found]
        spread = [np.std(f[site]) for f in found]
        error = np.sqrt(sum(s**2 / e for s, e in zip(spread, ess, strict=True)))
        assert abs(np.mean(found[0][site]) - np.mean(found[1][site])) < 4 * error
        assert abs(np.log(spread[0] / spread[1])) < 4 * np.sqrt(sum(0.5 / e for e in ess))


@pytest.mark.errors
def test_bad_input_is_named():
    times, y, mask = problem()
    kernel = KERNELS["matern32"]
    cases = {
        "times must have shape": lambda: ssm.MarkovGP(kernel, times[:, None], 0.1),
        "times is empty": lambda: ssm.MarkovGP(kernel, np.zeros(0), 0.1),
        "times holds NaN": lambda: ssm.MarkovGP(kernel, np.array([0.0, np.nan]), 0.1),
        "times must be real numbers, got datetime64": lambda: ssm.MarkovGP(
            kernel, np.arange("2020-01-01", "2020-01-09", dtype="datetime64[D]"), 0.1
        ),
        "noise must not be negative": lambda: ssm.MarkovGP(kernel, times, -0.1),
        "noise must be a scalar or have shape": lambda: ssm.MarkovGP(kernel, times, np.ones(3)),
        "mean must be a scalar or have shape": lambda: ssm.MarkovGP(kernel, times, 0.1, np.ones(3)),
        "mask must hold booleans": lambda: ssm.MarkovGP(kernel, times, 0.1, mask=np.ones(N)),
        "backend must be one of": lambda: ssm.MarkovGP(kernel, times, 0.1, backend="fast"),
        "value must have shape": lambda: ssm.MarkovGP(kernel, times, 0.1).log_prob(y[:-1]),
        "value holds NaN": lambda: ssm.MarkovGP(kernel, times, 0.1).condition(y),
        "value holds NaN .* pass mask=": lambda: ssm.MarkovGP(kernel, times, 0.1).log_prob(y),
        "float32, which is exact to": lambda: ssm.MarkovGP(
            kernel, np.float32(2e6) + np.arange(50, dtype=np.float32) / 4, 0.1
        ),
        "term must be one of the 1": lambda: (
            ssm.MarkovGP(kernel, times, 0.1, mask=mask).condition(y).moments(term=1)
        ),
        "times must have shape .m,., not empty": lambda: (
            ssm.MarkovGP(kernel, times, 0.1, mask=mask).condition(y).moments(np.zeros(0))
        ),
    }
    for message, make in cases.items():
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.errors
def test_gaps_without_a_mask_are_named_before_a_chain_starts():
    times, y, _ = problem()

    def model(y):
        noise = numpyro.sample("noise", dist.LogNormal(0.0, 1.0))
        numpyro.sample("y", ssm.MarkovGP(KERNELS["matern32"], times, noise), obs=y)

    with pytest.raises(ValueError, match="value holds NaN .* pass mask="):
        MCMC(NUTS(model), num_warmup=1, num_samples=1).run(jax.random.key(0), y)


@pytest.mark.errors
def test_times_out_of_order_are_said_or_refused():
    kernel, times = KERNELS["matern32"], np.array([0.0, 2.0, 1.0])
    with pytest.warns(UserWarning, match="times are not in order; they are sorted here"):
        ssm.MarkovGP(kernel, times, 0.1)
    density = jax.jit(lambda t: ssm.MarkovGP(kernel, t, 0.1).log_prob(jnp.zeros(3)))
    with pytest.raises(Exception, match="must be finite and in order"):
        density(times).block_until_ready()


def test_negative_parameters_at_run_time_have_no_density():
    times, y, mask = problem()
    density = jax.jit(
        lambda ell, s, r: ssm.MarkovGP(kernels.Matern32(ell, s), times, r, mask=mask).log_prob(y)
    )
    assert np.isfinite(density(0.5, 1.0, 0.1))
    for params in ((-0.5, 1.0, 0.1), (0.5, -1.0, 0.1), (0.5, 1.0, -0.5)):
        assert np.isnan(density(*params)), params
    for kernel in (
        lambda s: kernels.SHO(s, 2.0),
        lambda s: kernels.SHO(1.0, s),
        lambda s: kernels.SHO(1.0, 2.0, s),
        lambda s: kernels.Periodic(1.0, s) + kernels.Matern12(),
        lambda s: kernels.Periodic(s, 1.0) + kernels.Matern12(),
        lambda s: kernels.Cosine(s, 1.0) + kernels.Matern12(),
        lambda s: kernels.Wiener(s, -1.0) * kernels.Constant(s),
        lambda s: kernels.IntegratedWiener(s, -1.0) + kernels.Constant(1.0),
        lambda s: kernels.Linear(s, 0.0) + kernels.Matern12(),
        lambda s: kernels.Matern12() + s * kernels.Matern12(2.0),
    ):
        space = jax.jit(lambda s, kernel=kernel: ssm.state_space(kernel(s)))
        leaves = [jax.tree.leaves(space(s)) for s in (0.7, -0.7)]
        assert np.all(np.isfinite(leaves[0])) and np.any(np.isnan(leaves[1]))


def test_little_negative_noise_at_run_time_has_no_density():
    density = jax.jit(lambda r: ssm.MarkovGP(KERNELS["matern32"], np.arange(3.0), r).log_prob(Y3))
    assert np.isfinite(density(0.1)) and np.isnan(density(-1e-3))


Y3 = np.array([0.1, 0.5, -0.2])
AT_BOTH_SIDES = np.array([-1.5, 0.4, 0.0, 3.0, -0.2])


@pytest.mark.parametrize("order", [0, 1])
def test_a_process_that_begins_at_its_origin(order):
    """Times before it are NaN, and do not reach those after it; in sums and products too."""
    kernel = (kernels.Wiener, kernels.IntegratedWiener)[order](0.8, 0.0)
    kernel = kernel + kernels.Matern12(2.0) * kernel
    times = np.array([0.5, 1.0, 2.5])
    after = AT_BOTH_SIDES >= 0
    for backend in ("sequential", "square-root"):
        post = ssm.MarkovGP(kernel, times, 0.1, backend=backend).condition(Y3)
        mean, variance = post.moments(AT_BOTH_SIDES)
        assert np.all(np.isnan(mean[~after])) and np.all(np.isnan(variance[~after]))
        cross = kernel.gram(AT_BOTH_SIDES[after], times)
        gain = np.linalg.solve(kernel.gram(times) + 0.1 * np.eye(3), cross.T).T
        np.testing.assert_allclose(mean[after], gain @ Y3, rtol=1e-9, atol=1e-12)
        left = kernel.diag(AT_BOTH_SIDES[after]) - np.sum(gain * cross, axis=1)
        np.testing.assert_allclose(variance[after], left, rtol=1e-9, atol=1e-12)
    draws = post.sample(jax.random.key(0), AT_BOTH_SIDES)
    np.testing.assert_array_equal(np.isnan(draws), ~after)
    early = ssm.MarkovGP(kernel, AT_BOTH_SIDES[[0, 1, 3]], 0.1, mask=np.array([False, True, True]))
    late = ssm.MarkovGP(kernel, AT_BOTH_SIDES[[1, 3]], 0.1)
    np.testing.assert_allclose(early.log_prob(Y3), late.log_prob(Y3[1:]), rtol=1e-10)
    np.testing.assert_array_equal(np.isnan(early.variance), [True, False, False])
    seen = ssm.MarkovGP(kernel, AT_BOTH_SIDES[[0, 1, 3]], 0.1)
    assert np.isnan(seen.log_prob(Y3))


WAYS = [("sequential", None), ("chunked", None), ("sequential", 1.0), ("associative", None)]


@pytest.mark.parametrize(("backend", "slow"), WAYS)
def test_forward_mode_and_second_derivatives(backend, slow):
    """Of what is written out, in parts and at once, and of arrays."""
    times = np.arange(67.0)
    y = np.sin(times)
    wide = kernels.Matern52(9.0) * kernels.Cosine(7.0)  # of six states

    def density(at):
        kernel = kernels.Matern32(at[0], at[1])
        kernel = kernel if slow is None else kernel + wide
        return ssm.MarkovGP(kernel, times, at[2], backend=backend).log_prob(y)

    @jax.jit
    def both(at, direction):
        return jax.jvp(jax.value_and_grad(density), (at,), (direction,))

    at, step, direction = np.array([0.7, 1.3, 0.1]), 1e-5, np.array([1.0, -0.5, 0.1])
    (_, slopes), (along, second) = both(at, direction)
    np.testing.assert_allclose(along, slopes @ direction, rtol=1e-9)
    up, down = (both(at + sign * step * direction, direction)[0] for sign in (1, -1))
    np.testing.assert_allclose(along, (up[0] - down[0]) / (2 * step), rtol=1e-6)
    np.testing.assert_allclose(second, (up[1] - down[1]) / (2 * step), rtol=1e-6, atol=1e-4)
