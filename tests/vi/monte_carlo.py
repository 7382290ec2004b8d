"""Means of many draws beside exact values."""

import jax
import numpy as np

LIMIT = 4.5  # standard errors that a mean may be off

# Each program runs once, for moments: what it costs is its compilation.
COMPILER_OPTIONS: dict[str, str | bool] = {"xla_backend_optimization_level": "0"}


def draws(fn, num_draws, seed=0):
    """`fn(key)` for many keys, in one program; a pytree of NumPy arrays."""
    keys = jax.random.split(jax.random.key(seed), num_draws)
    run = jax.jit(jax.vmap(fn), compiler_options=COMPILER_OPTIONS)
    return jax.tree.map(np.asarray, run(keys))


def z_score(sample, exact):
    """Distance of the mean of `sample` to `exact`, in standard errors."""
    error = sample.std(axis=0) / np.sqrt(len(sample))
    scale = 1e-9 * (1 + np.abs(exact))
    return (sample.mean(axis=0) - exact) / np.maximum(error, scale)


def assert_mean(sample, exact, relative_error=None):
    """The mean is `exact` within `LIMIT` standard errors, which are small enough to mean something.

    Args:
        sample: draws along the leading axis.
        exact: what their mean should be.
        relative_error: largest standard error allowed, relative to `exact`.
    """
    assert np.all(np.isfinite(sample))
    assert np.all(np.abs(z_score(sample, exact)) < LIMIT), z_score(sample, exact)
    error = sample.std(axis=0) / np.sqrt(len(sample))
    assert relative_error is None or np.all(error <= relative_error * np.abs(exact)), error
