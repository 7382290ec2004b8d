"""Compares structured operators with the dense matrices that they stand for."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

GRID = (4, 3, 5)
N = 60


def spd(seed, n, dtype=jnp.float64):
    """A well-conditioned positive definite matrix."""
    a = jax.random.normal(jax.random.key(seed), (n, n), jnp.float64)  # the same in any precision
    return (a @ a.T / n + 0.3 * jnp.eye(n)).astype(dtype)


def factors(dtype=jnp.float64, start=0):
    """One positive definite matrix for each axis of `GRID`."""
    return tuple(spd(start + d, n, dtype) for d, n in enumerate(GRID))


def kron(matrices):
    """The dense Kronecker product."""
    return functools.reduce(jnp.kron, matrices)


def kron_sum(matrices):
    """The dense Kronecker sum."""
    eyes = [jnp.eye(len(k), dtype=k.dtype) for k in matrices]
    terms = [kron([*eyes[:d], k, *eyes[d + 1 :]]) for d, k in enumerate(matrices)]
    return functools.reduce(jnp.add, terms)


def both(build, dense, y):
    """Functions of parameters: all that is compared, by structure and by dense algebra."""

    def structured(params, y):
        op = build(params)
        quad, logdet = op.inv_quad_logdet(y)
        return dict(mv=op.mv(y), solve=op.solve(y), quad=quad, logdet=logdet, diag=op.diag())

    def by_matrix(params, y):
        a = dense(params)
        solved = jnp.linalg.solve(a, y)
        logdet = jnp.linalg.slogdet(a)[1]
        return dict(mv=a @ y, solve=solved, quad=y @ solved, logdet=logdet, diag=jnp.diag(a))

    return structured, by_matrix


def weighted(function):
    """A scalar that depends on every output of `function` in its own way."""

    def scalar(*args):
        leaves = jax.tree.leaves(function(*args))
        return sum(jnp.vdot(jnp.cos(jnp.arange(x.size) + i), x) for i, x in enumerate(leaves))

    return scalar


def symmetrised(tree):
    """Gradients in symmetric matrices, of which only the symmetric part is determined."""

    def square(x):
        return x.ndim == 2 and x.shape[0] == x.shape[1]

    return jax.tree.map(lambda x: (x + x.T) / 2 if square(x) else x, tree)


def assert_trees_close(found, wanted, **tol):
    """Leaf by leaf, types included."""
    for f, w in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert f.dtype == w.dtype
        np.testing.assert_allclose(f, w, **tol)


def assert_covariance(draws, covariance):
    """Mean zero and the covariance within 5 standard errors of normal draws `(s, n)`."""
    s = len(draws)
    found = np.asarray(draws.T @ draws) / s
    var = np.diag(covariance)
    error = np.sqrt((np.outer(var, var) + covariance**2) / s)
    assert np.max(np.abs(found - covariance) / error) < 5.2  # of 1830 distinct elements
    assert np.max(np.abs(np.mean(draws, axis=0)) / np.sqrt(var / s)) < 5


def memory(function, *args):
    """Bytes that the compiled function holds at most, arguments and results included."""
    analysis = jax.jit(function).lower(*args).compile().memory_analysis()
    sizes = (
        analysis.temp_size_in_bytes,
        analysis.argument_size_in_bytes,
        analysis.output_size_in_bytes,
    )
    return sum(sizes)


def size(shape):
    """Number of elements."""
    return math.prod(shape)
