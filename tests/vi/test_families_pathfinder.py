"""Pathfinder: where it lands, and how guides start from it."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from family_problems import covariance, gaussian, hierarchy, MEAN, READINGS, SCALES
from scipy import optimize

from bayesjx import vi
from bayesjx.vi._guides._pathfinder import pathfinder

pytest.importorskip("blackjax")


def dense(posterior):
    if hasattr(posterior, "covariance_matrix"):
        return posterior.covariance_matrix
    return jnp.diag(posterior.variance)


@pytest.mark.parametrize("scale", SCALES)
def test_guides_start_near_a_gaussian_posterior(scale):
    guide = vi.GaussianGuide(gaussian, scale=scale)
    params = vi.init_from_pathfinder(jax.random.key(1), guide, num_paths=3)
    posterior = guide.get_posterior(params)
    spread = jnp.sqrt(jnp.diag(covariance()))
    assert jnp.abs((posterior.mean - MEAN) / spread).max() < 0.1
    want = covariance()
    if scale == "meanfield":
        want = jnp.diag(1 / jnp.diag(jnp.linalg.inv(want)))
    divergence = dist.kl_divergence(
        dist.MultivariateNormal(posterior.mean, dense(posterior)),
        dist.MultivariateNormal(MEAN, want),
    )
    assert divergence < 0.5
    problem = vi.functional(jax.random.key(0), gaussian, guide, init_params=params)
    np.testing.assert_allclose(problem.constrain(problem.params)["auto_loc"], posterior.mean)


# The density of a centred hierarchy has no mode: it grows without end as the scale falls.
@pytest.mark.filterwarnings("ignore::bayesjx.vi.PathfinderWarning")
@pytest.mark.compiles(1000, "paths of BlackJAX, outside of jit as users call them")
def test_pathfinder_guides_are_guides():
    guide = vi.PathfinderGuide(hierarchy, num_paths=2)
    result = guide.prepare(jax.random.key(0), READINGS)
    assert result.bounds.shape == (2,)
    bound = vi.elbo(hierarchy, guide)
    run = jax.jit(jax.vmap(lambda key: bound.estimate(key, READINGS)))
    values = run(jax.random.split(jax.random.key(1), 2000))
    # The winner of a noisy comparison looks a little better than it is.
    gap = values.mean() - result.bound
    assert abs(gap) < 5 * values.std() * np.sqrt(1 / 200 + 1 / 2000)
    tighter = vi.iwelbo(hierarchy, guide, 16).estimate(jax.random.key(2), READINGS)
    assert jnp.isfinite(tighter)
    draws = guide.sample_posterior(jax.random.key(3), {}, sample_shape=(7,))
    assert draws["c"].shape == (7, 3, 1, 3)
    assert guide.median()["tau"] > 0
    resampled, k_hat = guide.resample(jax.random.key(4), 50, READINGS)
    assert resampled["b"].shape == (50, 3, 2)
    assert jnp.isfinite(k_hat)


def test_paths_leave_a_start_where_the_density_explodes():
    noise = np.random.default_rng(2).normal(size=61)
    y = jnp.asarray(noise[1:] + 0.4 * noise[:-1])

    def log_density(params):
        def step(error, value):
            error = value - params[0] * error
            return error, error

        errors = jax.lax.scan(step, jnp.zeros(()), y)[1]
        return -0.5 * jnp.sum(errors**2) * jnp.exp(-2 * params[1]) - y.size * params[1]

    starts = jnp.array([[3.9, -1.5], [0.0, 0.0]])  # the first one has a density of -1e69
    found = pathfinder(jax.random.key(0), log_density, starts, num_samples=20)
    mode = optimize.minimize(lambda x: -float(log_density(jnp.asarray(x))), [0.0, 0.0])
    assert found.converged.all()
    np.testing.assert_allclose(found.log_densities, -mode.fun, atol=0.01)
    np.testing.assert_allclose(found.normals.loc, [mode.x, mode.x], atol=0.05)


def test_paths_that_disagree_are_said():
    def two_modes():
        x = numpyro.sample("x", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.factor("f", jnp.logaddexp(-50 * (x - 1) ** 2, -50 * (x + 1) ** 2 - 3))

    guide = vi.PathfinderGuide(two_modes, num_paths=6, num_samples=5, max_steps=10)
    with pytest.warns(vi.PathfinderWarning, match="modes of different heights"):
        result = guide.prepare(jax.random.key(0))
    assert abs(float(result.normal.loc[0]) - 1) < 0.01


@pytest.mark.errors
def test_a_gaussian_that_numbers_do_not_resolve_is_refused():
    def narrow():
        numpyro.sample("x", dist.Normal(1.0, 1e-25))

    with pytest.raises(ValueError, match="collapsed to a point"):
        vi.PathfinderGuide(narrow, num_paths=1, max_steps=5).prepare(jax.random.key(0))


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="num_paths must be at least 1"):
        vi.PathfinderGuide(gaussian, num_paths=0)
    with pytest.raises(ValueError, match="prepare"):
        vi.PathfinderGuide(gaussian).resample(jax.random.key(0), 3)
    guide = vi.PathfinderGuide(gaussian)
    with pytest.raises(ValueError, match="while it is traced"):
        jax.jit(vi.elbo(gaussian, guide).estimate)(jax.random.key(0))

    def hopeless():
        x = numpyro.sample("x", dist.Normal(0, 1))
        numpyro.factor("never", jnp.where(jnp.abs(x) < 1e-3, 0.0, -jnp.inf))

    with pytest.raises((ValueError, RuntimeError), match="finite|initial"):
        vi.init_from_pathfinder(jax.random.key(0), vi.GaussianGuide(hopeless), num_paths=1)


def test_no_two_batches_of_factorisations_can_run_at_a_time():
    """On two cores jaxlib's batched LAPACK calls can wait for each other for ever."""

    def target(x):
        return -0.5 * jnp.sum((x - 1) ** 2 * jnp.arange(1.0, 8.0))

    def run(key, starts):
        return pathfinder(key, target, starts, num_samples=5)

    text = jax.jit(run).lower(jax.random.key(0), jnp.zeros((4, 7))).compile().as_text()
    calls = re.findall(r'= (.*?) custom-call\(.*?custom_call_target="lapack_(\w+)_ffi"', text)
    batched = [name for shape, name in calls if "[101," in shape]
    # BlackJAX inverts a batch, in a chain of calls that each need the one before.
    assert batched == ["dgetrf", "dtrsm", "dtrsm"]
    assert {name for _, name in calls} >= {"dgeqrf", "dorgqr", "dpotrf"}
