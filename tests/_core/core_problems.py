"""Small programs for the tests of the fit loop, and for the subprocesses that they start."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesjx._core import Algorithm


class State(NamedTuple):
    params: dict
    opt_state: tuple


class Info(NamedTuple):
    objective: jax.Array
    slope: jax.Array


def make_regression(learning_rate=0.05, scale=1.0, diagnose=None):
    """Least squares by Adam; each step draws 5 rows of its data with its key."""
    optimizer = optax.adam(learning_rate)

    def loss(params, key, x, y):
        rows = jax.random.randint(key, (5,), 0, x.shape[0])
        residual = x[rows] @ params["slope"] + params["offset"] - y[rows]
        return scale * jnp.mean(residual**2)

    def init(params):
        return State(params, optimizer.init(params))

    def step(key, state, x, y):
        value, grad = jax.value_and_grad(loss)(state.params, key, x, y)
        updates, opt_state = optimizer.update(grad, state.opt_state)
        params = optax.apply_updates(state.params, updates)
        return State(params, opt_state), Info(value, params["slope"])

    return Algorithm(init, step, diagnose)


@functools.cache
def regression():
    """One algorithm for all tests, so that they share its compiled programs."""
    return make_regression()


def start(dtype, algorithm=None):
    params = {"offset": jnp.zeros((), dtype), "slope": jnp.zeros(3, dtype)}
    return (algorithm or regression()).init(params)


def rows(dtype, n=17):
    rng = np.random.default_rng(5)
    x = rng.normal(size=(n, 3))
    y = x @ [1.0, -2.0, 0.5] + 0.3 + 0.1 * rng.normal(size=n)
    return x.astype(dtype), y.astype(dtype)


def batch(dtype, step):
    """A pure function of the step number, as `fit` wants it."""
    rng = np.random.default_rng([7, step])
    x = rng.normal(size=(5, 3))
    return x.astype(dtype), (x @ [1.0, -2.0, 0.5]).astype(dtype)


def assert_same(first, second):
    """Two pytrees of arrays are equal to the last bit, dtypes included."""
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for x, y in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        assert x.dtype == y.dtype
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))
