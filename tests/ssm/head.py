"""Densities and posteriors are those of the dense normal distribution: one program a row."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_series import conditional, covariance, log_prob

from bayesjx import kernels, ssm
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
MIXING = np.array([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.1]])

MATERN = kernels.Matern32(0.7, 1.3)
TREND = kernels.Matern12(0.7, 1.3) + kernels.Linear(0.3, -1.0)
SPLINE = kernels.IntegratedWiener(0.5, -1.0) + kernels.Linear(0.3, -1.0)
FOUR = kernels.SHO(0.8, 3.0) * kernels.Matern12(2.0)
SEASON = kernels.Matern52(3.0, 1.5) + kernels.Matern12(2.0) * kernels.Periodic(1.8, 1.5, 0.8)
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
    times = APART if mixing is None else TIMES
    options = {"mask": mask, "backend": backend, "harmonics": 5}

    def ours(kernel, noise_var, mean, y, times, mixing):
        at = times if mixing is None else TIMES
        prior = ssm.MarkovGP(kernel, at, mean, noise_var=noise_var, mixing=mixing, **options)
        return prior.log_prob(y)

    def theirs(kernel, noise_var, mean, y, times, mixing):
        at = times if mixing is None else TIMES
        return log_prob(covariance(kernel, mixing, at), noise_var, y - mean, mask)

    at = kernel, noise, jnp.array(0.1), np.where(mask, y, 0.0), times, mixing
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
    options = {"mask": mask, "mixing": mixing, "backend": backend, "harmonics": 9}
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
    close = {"rtol": 1e-6, "atol": 1e-8}  # Periodic lacks 1e-9 of its variance
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
