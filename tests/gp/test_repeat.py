"""Calls outside of `jit` with other data of the same shapes: nothing is compiled again."""

import equinox as eqx
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

from bayesjx import gp, kernels

N = 7
COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: COMPILED.append(event) if event.endswith("compile_duration") else None
)

PRIOR = gp.GP(kernels.RBF(1.0), noise_var=0.1)
GRID = gp.Grid(np.arange(3.0), np.arange(2.0))
SEEN = np.array([[True, True], [False, True], [True, True]])


def data(i):
    rng = np.random.default_rng(i)
    return np.sort(rng.normal(size=N)), rng.normal(size=N)


def exact(i):
    posterior = gp.condition(PRIOR, *data(i))
    key = jax.random.key(i)
    return posterior.sample(key, data(i)[0]), posterior.pathwise(key, 2, num_features=6).updates


def masked(i):
    prior = gp.GP(kernels.RBF(jnp.ones(2)), noise_var=0.1)
    posterior = gp.condition(prior, GRID, np.random.default_rng(i).normal(size=(3, 2)), mask=SEEN)
    return posterior.moments(GRID)


def laplace(i):
    """With another likelihood every time, which closes over data."""
    exposure = 1.3 + i
    prior = gp.GP(kernels.RBF(1.0))
    return gp.laplace(
        prior, lambda f: dist.Poisson(exposure * jnp.exp(f)), data(i)[0], np.arange(N)
    )


def sparse(i):
    svgp = gp.SVGP(PRIOR, inducing_points=np.arange(3.0))
    return svgp.elbo(*data(i)), svgp.posterior().mean(data(i)[0])


HELD = {}


def held(prior):
    return -prior(HELD["x"]).log_prob(HELD["y"])


def minimise(i):
    """By an objective that reads the data from elsewhere."""
    HELD["x"], HELD["y"] = map(jnp.asarray, data(i))
    found = gp.minimise(held, PRIOR, max_steps=2)
    np.testing.assert_allclose(found.objective, held(found.params), rtol=1e-9)
    return found.objective


@pytest.mark.parametrize("call", [exact, masked, laplace, sparse, minimise])
def test_other_data_compile_nothing(call):
    for i in (0, 1):
        jax.block_until_ready(jax.tree.leaves(call(i)))
    COMPILED.clear()
    for i in (2, 3):
        jax.block_until_ready(jax.tree.leaves(call(i)))
    assert not COMPILED


def test_laplace_sees_what_its_likelihood_reads_now():
    """The mode where the likelihood is that of f plus a number: the curvature is e^(f + number)."""
    shift = {"is": 0.0}
    likelihood = lambda f: dist.Poisson(jnp.exp(f + shift["is"]))  # noqa: E731
    prior, x, y = gp.GP(kernels.RBF(1.0)), data(0)[0], np.arange(N)
    for value in (0.0, 1.0):
        shift["is"] = value
        found = gp.laplace(prior, likelihood, x, y)
        weight = np.exp(found.mode + value)
        np.testing.assert_allclose(found.curvature.half**2, weight, rtol=1e-10)
        np.testing.assert_allclose(kernels.RBF(1.0).gram(x) @ (y - weight), found.mode, atol=1e-8)


def test_an_objective_in_single_precision():
    """Of a class, which cannot be hashed, so that nothing tells it from others."""

    class Loss(eqx.Module):
        y: jax.Array

        def __call__(self, prior):
            return -prior(jnp.arange(3, dtype=jnp.float32)).log_prob(self.y)

    prior = gp.GP(kernels.RBF(jnp.float32(1.0)), noise_var=jnp.float32(0.1))
    loss = Loss(jnp.ones(3, jnp.float32))
    found = gp.minimise(loss, prior, max_steps=2)
    assert found.params.noise_var.dtype == found.objective.dtype == jnp.float32
    np.testing.assert_allclose(found.objective, loss(found.params), rtol=1e-4)
