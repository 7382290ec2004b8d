"""Calls outside of `jit` with other data of the same shapes: nothing is compiled again."""

import gc
import weakref

import equinox as eqx
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

import bayesjx
from bayesjx import gp, kernels
from bayesjx._core import _eager, _traced

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


def poisson(f):
    return dist.Poisson(jnp.exp(f))


def trained_sparse(i):
    """Of a prior and points that are made anew, with other values."""
    svgp = gp.SVGP(gp.GP(kernels.RBF(1.0 + i)), poisson, inducing_points=np.arange(3.0) + 0.1 * i)
    ends = []
    for make, options in ((gp.svgp_adam, ()), (gp.svgp_natgrad, (0.1,))):
        algorithm = make(svgp, optax.adam(0.01), *options, num_data=N)
        data = data_of_counts(i)
        result = bayesjx.fit(jax.random.key(i), algorithm, algorithm.init(), 3, data=data)
        ends.append(svgp.trained(result.state))
    assert ends[0].prior.noise_var == 0 and ends[0].prior.kernel.variance != 1
    return eqx.filter(ends, eqx.is_array)


def data_of_counts(i):
    return data(i)[0], np.random.default_rng(i).poisson(2.0, N)


def trained_on_grid(i):
    q = gp.KronVariational(gp.GP(kernels.RBF(jnp.ones(2) + i)), poisson, GRID)
    algorithm = gp.kron_vi(q, optax.adam(0.01))
    cells, y = np.arange(6), np.random.default_rng(i).poisson(2.0, 6)
    result = bayesjx.fit(jax.random.key(i), algorithm, algorithm.init(), 3, data=(cells, y))
    return q.trained(result.state).whitened_mean


CALLS = [exact, masked, laplace, sparse, minimise, trained_sparse, trained_on_grid]


@pytest.mark.parametrize("call", CALLS)
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


def test_objectives_that_are_made_anew_are_forgotten():
    """With checks of their arguments, of which it cannot be told whether they are equal."""

    def run(i):
        x, y = map(jnp.asarray, data(i))
        objective = lambda p, x, y: -p(x).log_prob(y)  # noqa: E731
        gp.minimise(objective, PRIOR, x, y, max_steps=2)
        COMPILED.clear()
        gp.minimise(objective, PRIOR, y, x, max_steps=2)
        assert not COMPILED
        return weakref.ref(objective)

    caches = _eager._PROGRAMS, _traced._OF_SOURCES
    before = [len(cache._entries) for cache in caches]
    dead = [run(i) for i in range(2)]
    gc.collect()
    assert [ref() for ref in dead] == [None, None]
    assert [len(cache._entries) for cache in caches] == before


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
