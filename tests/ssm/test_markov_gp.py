"""Densities and posteriors are those of the dense normal distribution: one program a row."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from dense_series import conditional, covariance, log_prob
from numpyro import distributions as dist
from numpyro.infer import MCMC, NUTS

from bayesjx import kernels, likelihoods, ssm
from bayesjx.ssm import _backend, _passes

pytestmark = pytest.mark.filterwarnings("ignore:filtering one step after another is slow")
N, P = 31, 3
RNG = np.random.default_rng(0)
TIMES = np.sort(RNG.uniform(0, 6, N))
APART = TIMES.copy()  # where times coincide a Matérn kernel has no second derivative
TIMES[10] = TIMES[9]
MASK = RNG.random((N, P)) > 0.2
MASK[[9, 10]] = True
Y = np.where(
    MASK, np.sin(2 * TIMES[:, None] + np.arange(P)) + 0.3 * RNG.normal(size=(N, P)), np.nan
)
NOISE = RNG.uniform(0.05, 0.2, (N, P))
NEW = np.array([5.0, -0.5, 2.2, 7.5, TIMES[3], 2.2])
Y3 = np.array([0.1, 0.5, -0.2])
MIXING = np.array([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.1]])

MATERN = kernels.Matern32(0.7, 1.3)
TREND = kernels.Matern12(0.7, 1.3) + kernels.Linear(0.3, -1.0)
SPLINE = kernels.IntegratedWiener(0.5, -1.0) + kernels.Linear(0.3, -1.0)
FOUR = kernels.SHO(0.8, 3.0) * kernels.Matern12(2.0)
SEASON = kernels.Matern52(3.0, 1.5) + kernels.Matern12(2.0) * kernels.Periodic(4.0, 1.5, 0.8)
PAIR = (MATERN, kernels.Matern12(1.5) * kernels.Cosine(0.9))
ROWS = {  # kernel, mixing, backend
    "one state": (kernels.Matern12(0.7, 1.3), None, "sequential"),
    "one state, chunked": (kernels.Matern12(0.7, 1.3), None, "chunked"),
    "three states": (kernels.Matern52(0.7, 1.3), None, "sequential"),
    "two states, chunked": (MATERN, None, "chunked"),
    "two states, associative": (MATERN, None, "associative"),
    "two states, square-root": (MATERN, None, "square-root"),
    "not stationary": (SPLINE, None, "sequential"),
    "four states, chunked": (FOUR, None, "chunked"),
    "many states": (SEASON, None, "sequential"),
    "many states, chunked": (SEASON, None, "chunked"),
    "many states, square-root": (SEASON, None, "square-root"),
    "outputs": (PAIR, MIXING, "sequential"),
    "outputs, chunked": (PAIR, MIXING, "chunked"),
}


@pytest.fixture(autouse=True)
def few_observations_in_several_parts(monkeypatch):
    monkeypatch.setattr(_backend, "FEW", 5)
    monkeypatch.setattr(_backend, "LANES", {"cpu": (4, 1024)})  # of 8 times, the last one of 7
    monkeypatch.setattr(_backend, "ARRAY_LANES", 4)


def data(mixing):
    return (a if mixing is not None else a[:, 0] for a in (Y, MASK, NOISE))


@pytest.mark.parametrize("row", ROWS)
def test_density_and_gradient_are_dense(row):
    """Value and gradient in kernel, noise, mean, data, times or mixing; value in single."""
    kernel, mixing, backend = ROWS[row]
    y, mask, noise = data(mixing)
    options = {"mask": mask, "backend": backend, "harmonics": 5}

    def ours(kernel, noise_var, mean, y, times, mixing):
        prior = ssm.MarkovGP(kernel, times, mean, noise_var=noise_var, mixing=mixing, **options)
        return prior.log_prob(y)

    def theirs(kernel, noise_var, mean, y, times, mixing):
        return log_prob(covariance(kernel, mixing, times), noise_var, y - mean, mask)

    at = kernel, noise, jnp.array(0.1), np.where(mask, y, 0.0), APART, mixing
    at = jax.tree.map(jnp.asarray, at)
    wanted = tuple(range(6 if mixing is not None else 5))

    @jax.jit
    def both(at):
        single = jax.tree.map(jnp.float32, at)
        values = [jax.value_and_grad(f, wanted)(*at) for f in (ours, theirs)]
        return *values, ours(*single)

    (value, slopes), (want, right), single = both(at)
    np.testing.assert_allclose(value, want, rtol=1e-10)
    for slope, expected in zip(jax.tree.leaves(slopes), jax.tree.leaves(right), strict=True):
        np.testing.assert_allclose(slope, expected, rtol=1e-7, atol=1e-7)
    assert np.all(np.asarray(slopes[3])[~mask] == 0)
    assert single.dtype == jnp.float32
    np.testing.assert_allclose(single, want, rtol=2e-4)


@pytest.mark.parametrize("kernel", [MATERN, FOUR], ids=["two", "four"])
def test_density_by_blocks_is_dense(kernel, monkeypatch):
    monkeypatch.setattr(_passes, "BLOCK", 11)  # two of them, and 9 observations
    y, mask, noise = data(None)
    # Of a length that no other test has, as the program is kept with the blocks that it had.
    y, mask, noise, times = (a[:-1] for a in (y, mask, noise, TIMES))
    prior = ssm.MarkovGP(kernel, times, 0.1, noise_var=noise, mask=mask, backend="sequential")
    want = log_prob(covariance(kernel, None, times), noise, y - 0.1, mask)
    np.testing.assert_allclose(prior.log_prob(y), want, rtol=1e-10)


POSTERIORS = {  # kernel, mixing, backend, mean
    "sequential": (TREND, None, "sequential", lambda t: 0.2 + 0.1 * t),
    "chunked": (TREND, None, "chunked", 0.2),
    "many states": (SEASON, None, "sequential", 0.2),
    "outputs": (PAIR, MIXING, "chunked", np.array([0.1, 0.2, 0.3])),
}


@pytest.mark.parametrize("row", POSTERIORS)
def test_posterior_is_dense(row):
    """All questions, at other times and at those of the data, in one program."""
    kernel, mixing, backend, mean = POSTERIORS[row]
    y, mask, _ = data(mixing)
    outputs = () if mixing is None else (P,)
    noise = 0.1 if mixing is None else np.array([0.05, 0.1, 0.2])
    options = {"mask": mask, "mixing": mixing, "backend": backend, "harmonics": 5}
    future = np.linspace(-1, 1, NEW.size * (P if outputs else 1)).reshape(len(NEW), *outputs)

    @jax.jit
    def answers(y):
        post = ssm.MarkovGP(kernel, TIMES, mean, noise_var=noise, **options).condition(y)
        new = post.predict(NEW)
        one = post.leave_one_out()
        return {
            "mean": post.mean(NEW),
            "variance": post.variance(NEW),
            "covariance": post.covariance(NEW),
            "marginal": post.marginal(NEW).mean,
            "predict": (new.mean, new.variance),
            "log_predictive_prob": post.log_predictive_prob(NEW, future),
            "log_evidence": post.log_evidence(),
            "at the data": post.moments(),
            "between the data": post.covariance(),
            "term": post.moments(NEW, term=1),
            "leave_one_out": (one.mean, one.variance),
        }

    answered = answers(y)
    every = np.concatenate([TIMES, NEW])
    flat = len(mask.reshape(-1))
    seen, wanted = np.flatnonzero(mask), flat + np.arange(future.size)
    prior_mean = np.stack([mean(t) if callable(mean) else mean + np.zeros(outputs) for t in every])
    centred = (y - prior_mean[:N]).reshape(-1)[seen]
    noises = np.broadcast_to(noise, mask.shape).reshape(-1)
    cov = covariance(kernel, mixing, every)
    close = {"rtol": 1e-6, "atol": 1e-8}  # Periodic lacks 1e-11 of its variance
    centre, left = conditional(cov, noises[seen], centred, seen, wanted)
    centre = prior_mean[N:] + centre.reshape(future.shape)
    variance = np.diag(left).reshape(future.shape)
    new_var = variance + noise
    np.testing.assert_allclose(answered["mean"], centre, **close)
    np.testing.assert_allclose(answered["marginal"], centre, **close)
    np.testing.assert_allclose(answered["variance"], variance, **close)
    np.testing.assert_allclose(answered["covariance"], left, **close)
    np.testing.assert_allclose(answered["predict"][0], centre, **close)
    np.testing.assert_allclose(answered["predict"][1], new_var, **close)
    log_density = -0.5 * ((future - centre) ** 2 / new_var + np.log(2 * np.pi * new_var))
    np.testing.assert_allclose(answered["log_predictive_prob"], log_density, **close)
    centre, left = conditional(cov, noises[seen], centred, seen, np.arange(flat))
    at_data = prior_mean[:N] + centre.reshape(mask.shape)
    np.testing.assert_allclose(answered["at the data"][0], at_data, **close)
    np.testing.assert_allclose(answered["at the data"][1].reshape(-1), np.diag(left), **close)
    np.testing.assert_allclose(answered["between the data"], left, **close)
    total = np.asarray(cov)[np.ix_(seen, seen)] + np.diag(noises[seen])
    quadratic = centred @ np.linalg.solve(total, centred)
    evidence = -0.5 * (quadratic + np.linalg.slogdet(total)[1] + len(seen) * np.log(2 * np.pi))
    np.testing.assert_allclose(answered["log_evidence"], evidence, rtol=1e-9)
    for k in (0, 5, len(seen) - 1):
        others = np.delete(seen, k)
        centre, left = conditional(cov, noises[others], np.delete(centred, k), others, seen[[k]])
        i = np.unravel_index(seen[k], mask.shape)
        np.testing.assert_allclose(
            answered["leave_one_out"][0][i], prior_mean[:N][i] + centre[0], **close
        )
        np.testing.assert_allclose(
            answered["leave_one_out"][1][i], left[0, 0] + noises[seen[k]], **close
        )
    if mixing is None:  # of which term 1 is a part, uncorrelated with the others
        alone = np.asarray(kernel.terms[1].gram(jnp.asarray(every)))
        cross = alone[np.ix_(np.arange(N, len(every)), seen)]
        gain = np.linalg.solve(total, cross.T).T
        np.testing.assert_allclose(answered["term"][0], gain @ centred, **close)
        left = np.diag(alone)[N:] - np.sum(gain * cross, axis=1)
        np.testing.assert_allclose(answered["term"][1], left, **close)


@pytest.mark.filterwarnings("ignore:times are not in order")
def test_order_of_the_times_does_not_matter(getkey):
    (y, mask, noise), times, mean = data(None), TIMES, np.linspace(-1, 1, N)
    mixed, kernel = np.random.default_rng(3).permutation(N), MATERN
    straight = ssm.MarkovGP(kernel, times, mean, noise_var=noise, mask=mask)
    crooked = ssm.MarkovGP(
        kernel, times[mixed], mean[mixed], noise_var=noise[mixed], mask=mask[mixed]
    )
    np.testing.assert_allclose(crooked.log_prob(y[mixed]), straight.log_prob(y), rtol=1e-13)
    for question in ("leave_one_out", "marginal"):
        want = getattr(straight.condition(y), question)()
        got = getattr(crooked.condition(y[mixed]), question)()
        np.testing.assert_allclose(got.mean, want.mean[mixed], rtol=1e-9)
        np.testing.assert_allclose(got.variance, want.variance[mixed], rtol=1e-9)
    want = straight.condition(y).covariance()[mixed][:, mixed]
    np.testing.assert_allclose(crooked.condition(y[mixed]).covariance(), want, atol=1e-10)
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


@pytest.mark.parametrize(
    "kernel",
    [kernels.Matern52(0.7, 1.3), kernels.Matern32(0.7) + kernels.Cosine(0.9, 0.5), FOUR + TREND],
    ids=["three", "four", "many"],
)
def test_draws_of_the_prior_have_its_moments(kernel, getkey):
    times = np.array([0.0, 0.0, 0.4, 1.5, 1.5003])
    prior = ssm.MarkovGP(kernel, times, 0.7, noise_var=0.05)
    cov = kernel.gram(times) + 0.05 * np.eye(5)
    _check_moments(prior.sample(getkey(), (20_000,)), np.full(5, 0.7), np.asarray(cov))


def test_draws_of_the_posterior_have_its_moments(getkey):
    """Of which those of the exact answers are checked above."""
    (y, mask, _), at = data(None), np.array([2.0, 7.0, -1.0, 2.1])
    post = ssm.MarkovGP(TREND, TIMES, lambda t: t, noise_var=0.1, mask=mask).condition(y)
    draws = jax.jit(lambda key: post.sample(key, at, (20_000,)))(getkey())
    _check_moments(draws, post.mean(at), post.covariance(at))


@pytest.mark.parametrize("backend", ["sequential", "chunked"])
def test_single_precision_at_any_scale(backend):
    """Value and gradient at lengthscales far below and above the steps."""
    rng = np.random.default_rng(1)
    times = np.cumsum(rng.exponential(size=400))
    y = np.sin(times / 20) + 0.3 * rng.normal(size=400)

    def density(params, dtype):
        kernel = kernels.Matern52(params[0], params[1])
        x = times if dtype == jnp.float64 else (times - times[0]).astype(np.float32)
        prior = ssm.MarkovGP(kernel, x, noise_var=params[2], backend=backend)
        return prior.log_prob(jnp.asarray(y, dtype))

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
    want = ssm.MarkovGP(kernel, times, noise_var=0.1)
    with jax.enable_x64(False):
        kernel = kernels.Matern32(0.7) + kernels.Linear(0.3, 2_000_001.0)
        prior = ssm.MarkovGP(kernel, times, noise_var=0.1)
        value, post = prior.log_prob(jnp.asarray(y)), prior.condition(jnp.asarray(y))
        assert value.dtype == jnp.float32
        moments = post.moments(at)
    np.testing.assert_allclose(value, want.log_prob(y), rtol=1e-4)
    np.testing.assert_allclose(moments, want.condition(y).moments(at), rtol=1e-3)


def test_vmap_over_parameters_and_series():
    (y, mask, _), lengthscales = data(None), jnp.array([0.3, 0.7, 1.5])
    series = np.stack([np.where(mask, y, 0.0), np.where(mask, -y, 0.0)])

    def value(lengthscale, y):
        kernel = kernels.Matern32(lengthscale)
        return ssm.MarkovGP(kernel, TIMES, noise_var=0.1, mask=mask).log_prob(y)

    one = jax.jit(jax.value_and_grad(value))
    many = jax.jit(jax.vmap(jax.value_and_grad(value), (0, None)))(lengthscales, series[0])
    each = [one(lengthscale, series[0]) for lengthscale in lengthscales]
    np.testing.assert_allclose(many[0], [v for v, _ in each], rtol=1e-12)
    np.testing.assert_allclose(many[1], [g for _, g in each], rtol=1e-10)
    want = [one(0.7, series[0])[0], one(0.7, series[1])[0]]
    np.testing.assert_allclose(value(0.7, series), want, rtol=1e-12)


def test_no_observation_is_no_evidence():
    prior = ssm.MarkovGP(MATERN, np.arange(5.0), noise_var=0.1, mask=np.zeros(5, bool))
    assert prior.log_prob(np.full(5, np.nan)) == 0
    mean, variance = prior.condition(np.full(5, np.nan)).moments(np.array([2.5]))
    np.testing.assert_allclose([mean[0], variance[0]], [0, 1.3], rtol=1e-12)


def test_condition_takes_masks_and_likelihoods():
    """A normal likelihood is exact, and its noise is that of new observations."""
    y, mask, _ = data(None)
    want = ssm.MarkovGP(MATERN, TIMES, 0.1, noise_var=0.2, mask=mask).condition(y)
    post = ssm.MarkovGP(MATERN, TIMES, 0.1).condition(y, likelihoods.Gaussian(0.2), mask=mask)
    for ours, theirs in zip(jax.tree.leaves(post), jax.tree.leaves(want), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_what_is_not_known_at_other_times_is_named():
    y = np.zeros(N)
    post = ssm.MarkovGP(MATERN, TIMES, np.ones(N), noise_var=np.ones(N)).condition(y)
    np.testing.assert_allclose(post.mean() - 1, post.moments(term=0)[0], atol=1e-12)
    with pytest.raises(ValueError, match="prior mean is known at the observations only"):
        post.mean(NEW)
    post = ssm.MarkovGP(MATERN, TIMES, noise_var=np.ones(N)).condition(y)
    with pytest.raises(ValueError, match="noise_var differs between observations"):
        post.predict(NEW)
    want = post.variance(NEW) + 0.5
    np.testing.assert_allclose(post.predict(NEW, noise_var=0.5).variance, want, rtol=1e-12)


@pytest.mark.nightly
@pytest.mark.optimised
def test_nuts_finds_the_posterior_of_a_dense_density():
    y, mask, _ = data(None)
    y = np.where(mask, y, 0.0)

    def model(density):
        lengthscale = numpyro.sample("lengthscale", dist.LogNormal(0.0, 0.7))
        variance = numpyro.sample("variance", dist.LogNormal(0.0, 1.0))
        noise_var = numpyro.sample("noise_var", dist.LogNormal(-2.0, 1.0))
        density(kernels.Matern32(lengthscale, variance), noise_var)

    def ours(kernel, noise_var):
        prior = ssm.MarkovGP(kernel, TIMES, noise_var=noise_var, mask=mask)
        numpyro.sample("y", prior, obs=y)

    def theirs(kernel, noise_var):
        numpyro.factor("y", log_prob(covariance(kernel, None, TIMES), noise_var, y, mask))

    chains = []
    for seed, density in enumerate((ours, theirs)):
        sampler = NUTS(model)
        mcmc = MCMC(sampler, num_warmup=300, num_samples=1500, progress_bar=False)
        mcmc.run(jax.random.key(seed), density)
        chains.append({k: np.log(v) for k, v in mcmc.get_samples().items()})
    for site in ("lengthscale", "variance", "noise_var"):
        ess = [numpyro.diagnostics.effective_sample_size(f[site][None]) for f in chains]
        width = [np.std(f[site]) for f in chains]
        error = np.sqrt(sum(s**2 / e for s, e in zip(width, ess, strict=True)))
        assert abs(np.mean(chains[0][site]) - np.mean(chains[1][site])) < 4 * error
        assert abs(np.log(width[0] / width[1])) < 4 * np.sqrt(sum(0.5 / e for e in ess))


@pytest.mark.errors
def test_bad_input_is_named():
    y, mask, _ = data(None)
    prior = lambda times=TIMES, mean=0.0, noise_var=0.1, **options: ssm.MarkovGP(  # noqa: E731
        MATERN, times, mean, noise_var=noise_var, **options
    )
    cases = {
        "times must have shape": lambda: prior(TIMES[:, None]),
        "times is empty": lambda: prior(np.zeros(0)),
        "times holds NaN": lambda: prior(np.array([0.0, np.nan])),
        "times must be real numbers, got datetime64": lambda: prior(
            np.arange("2020-01-01", "2020-01-09", dtype="datetime64[D]")
        ),
        "noise_var must not be negative": lambda: prior(noise_var=-0.1),
        "noise_var must be a scalar or have shape": lambda: prior(noise_var=np.ones(3)),
        "mean must be a scalar or have shape": lambda: prior(mean=np.ones(3)),
        "mean must be a function from a time to a number": lambda: prior(
            mean=lambda t: jnp.ones(2)
        ),
        "mask must hold booleans": lambda: prior(mask=np.ones(N)),
        "backend must be one of": lambda: prior(backend="fast"),
        "value must have shape": lambda: prior().log_prob(y[:-1]),
        "value holds NaN": lambda: prior().condition(y),
        "value holds NaN .* pass mask=": lambda: prior().log_prob(y),
        "float32, which is exact to": lambda: prior(
            np.float32(2e6) + np.arange(50, dtype=np.float32) / 4
        ),
        "term must be one of the 1": lambda: prior(mask=mask).condition(y).moments(term=1),
        "times of shape .m,., not empty": lambda: prior(mask=mask).condition(y).mean(np.zeros(0)),
        "rate is for a likelihood": lambda: prior(mask=mask).condition(y, rate=0.5),
    }
    for message, make in cases.items():
        with pytest.raises(ValueError, match=message):
            make()


@pytest.mark.errors
def test_gaps_without_a_mask_are_named_before_a_chain_starts():
    y, _, _ = data(None)

    def model(y):
        noise_var = numpyro.sample("noise_var", dist.LogNormal(0.0, 1.0))
        numpyro.sample("y", ssm.MarkovGP(MATERN, TIMES, noise_var=noise_var), obs=y)

    with pytest.raises(ValueError, match="value holds NaN .* pass mask="):
        MCMC(NUTS(model), num_warmup=1, num_samples=1).run(jax.random.key(0), y)


@pytest.mark.errors
def test_times_out_of_order_are_said_or_refused():
    kernel, times = MATERN, np.array([0.0, 2.0, 1.0])
    with pytest.warns(UserWarning, match="times are not in order; they are sorted here"):
        ssm.MarkovGP(kernel, times, noise_var=0.1)
    density = jax.jit(lambda t: ssm.MarkovGP(kernel, t, noise_var=0.1).log_prob(jnp.zeros(3)))
    with pytest.raises(Exception, match="must be finite and in order"):
        density(times).block_until_ready()


def test_negative_parameters_at_run_time_have_no_density():
    density = jax.jit(
        lambda ell, s, r: ssm.MarkovGP(
            kernels.Matern32(ell, s), np.arange(3.0), noise_var=r
        ).log_prob(Y3)
    )
    assert np.isfinite(density(0.5, 1.0, 0.1))
    for params in ((-0.5, 1.0, 0.1), (0.5, -1.0, 0.1), (0.5, 1.0, -0.5), (0.5, 1.0, -1e-3)):
        assert np.isnan(density(*params)), params
    made = (
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
    )
    spaces = jax.jit(lambda s: [ssm.state_space(kernel(s)) for kernel in made])
    for good, bad in zip(spaces(0.7), spaces(-0.7), strict=True):
        assert np.all(np.isfinite(jax.tree.leaves(good)))
        assert np.any(np.isnan(jax.tree.leaves(bad)))


AT_BOTH_SIDES = np.array([-1.5, 0.4, 0.0, 3.0, -0.2])


@pytest.mark.parametrize("order", [0, 1])
def test_a_process_that_begins_at_its_origin(order):
    """Times before it are NaN, and do not reach those after it; in sums and products too."""
    kernel = (kernels.Wiener, kernels.IntegratedWiener)[order](0.8, 0.0)
    kernel = kernel + kernels.Matern12(2.0) * kernel
    times = np.array([0.5, 1.0, 2.5])
    after = AT_BOTH_SIDES >= 0
    for backend in ("sequential", "square-root"):
        post = ssm.MarkovGP(kernel, times, noise_var=0.1, backend=backend).condition(Y3)
        mean, variance = post.moments(AT_BOTH_SIDES)
        assert np.all(np.isnan(mean[~after])) and np.all(np.isnan(variance[~after]))
        cross = kernel.gram(AT_BOTH_SIDES[after], times)
        gain = np.linalg.solve(kernel.gram(times) + 0.1 * np.eye(3), cross.T).T
        np.testing.assert_allclose(mean[after], gain @ Y3, rtol=1e-9, atol=1e-12)
        left = kernel.diag(AT_BOTH_SIDES[after]) - np.sum(gain * cross, axis=1)
        np.testing.assert_allclose(variance[after], left, rtol=1e-9, atol=1e-12)
    draws = post.sample(jax.random.key(0), AT_BOTH_SIDES)
    np.testing.assert_array_equal(np.isnan(draws), ~after)
    mask = np.array([False, True, True])
    early = ssm.MarkovGP(kernel, AT_BOTH_SIDES[[0, 1, 3]], noise_var=0.1, mask=mask)
    late = ssm.MarkovGP(kernel, AT_BOTH_SIDES[[1, 3]], noise_var=0.1)
    np.testing.assert_allclose(early.log_prob(Y3), late.log_prob(Y3[1:]), rtol=1e-10)
    np.testing.assert_array_equal(np.isnan(early.variance), [True, False, False])
    seen = ssm.MarkovGP(kernel, AT_BOTH_SIDES[[0, 1, 3]], noise_var=0.1)
    assert np.isnan(seen.log_prob(Y3))


WAYS = [
    ("sequential", None),
    ("chunked", None),
    ("sequential", 1.0),
    pytest.param("associative", None, marks=pytest.mark.nightly),
]


@pytest.mark.parametrize(("backend", "slow"), WAYS)
def test_forward_mode_and_second_derivatives(backend, slow):
    """Of what is written out, in parts and at once, and of arrays."""
    times = np.arange(67.0)
    y = np.sin(times)
    wide = kernels.Matern52(9.0) * kernels.Cosine(7.0)  # of six states

    def density(at):
        kernel = kernels.Matern32(at[0], at[1])
        kernel = kernel if slow is None else kernel + wide
        return ssm.MarkovGP(kernel, times, noise_var=at[2], backend=backend).log_prob(y)

    @jax.jit
    def both(at, direction):
        return jax.jvp(jax.value_and_grad(density), (at,), (direction,))

    at, step, direction = np.array([0.7, 1.3, 0.1]), 1e-5, np.array([1.0, -0.5, 0.1])
    (_, slopes), (along, second) = both(at, direction)
    np.testing.assert_allclose(along, slopes @ direction, rtol=1e-9)
    up, down = (both(at + sign * step * direction, direction)[0] for sign in (1, -1))
    np.testing.assert_allclose(along, (up[0] - down[0]) / (2 * step), rtol=1e-6)
    np.testing.assert_allclose(second, (up[1] - down[1]) / (2 * step), rtol=1e-6, atol=1e-4)
