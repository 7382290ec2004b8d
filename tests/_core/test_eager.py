"""Loops outside of `jit`: what is compiled once, and what has to see changes of the user's data."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx._core import compiled, failures_are_nan, in_chunks, on_failure

TRACES = []


class Held(eqx.Module):
    array: jax.Array
    power: int = eqx.field(static=True)


@compiled
def summed(held, start):
    TRACES.append(held.power)

    def add(total, row):
        return total + jnp.sum(row**held.power), None

    return jax.lax.scan(add, start, held.array)[0]


@compiled
def refused(x):
    return eqx.error_if(x, x < 0, "x is negative", on_error=on_failure())


def test_a_compiled_function_is_traced_once_for_other_data_and_differentiated():
    TRACES.clear()
    data = np.random.default_rng(0).normal(size=(3, 5, 2))
    for one in data:
        held = Held(jnp.asarray(one), 2)
        np.testing.assert_allclose(summed(held, jnp.zeros(())), np.sum(one**2), rtol=1e-12)
        gradient = jax.grad(lambda a: summed(Held(a, 2), jnp.zeros(())))(held.array)
        np.testing.assert_allclose(gradient, 2 * one, rtol=1e-12)
    assert len(TRACES) == 1
    cubes = jax.vmap(lambda a: summed(Held(a, 3), jnp.zeros(())))(jnp.asarray(data))
    np.testing.assert_allclose(cubes, np.sum(data**3, axis=(1, 2)), rtol=1e-10)
    assert TRACES == [2, 3]


def test_what_failures_do_is_part_of_a_compiled_function():
    bad = jnp.asarray(-1.0)
    for _ in range(2):
        with failures_are_nan():
            assert np.isnan(refused(bad))
        with pytest.raises(RuntimeError, match="x is negative"):
            jax.block_until_ready(refused(bad))


def test_functions_of_users_are_run_anew():
    """A cached program would go on with what the function read at first."""
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(7, 2)))
    scale = {"is": 2.0}
    function = lambda x: jnp.sum(scale["is"] * x, axis=1)  # noqa: E731
    for factor in (2.0, 5.0):
        scale["is"] = factor
        want = factor * np.sum(rows, axis=1)
        for size in (3, 7):
            np.testing.assert_allclose(in_chunks(function, rows, size), want, rtol=1e-12)
    traced = jax.jit(lambda rows: in_chunks(function, rows, 3))(rows)
    np.testing.assert_allclose(traced, want, rtol=1e-12)
