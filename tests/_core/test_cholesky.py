"""Cholesky factors with as little jitter as will do."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from bayesjx._core import safe_cholesky


def smooth(n, dtype):
    """A kernel matrix that rounding makes indefinite."""
    t = jnp.linspace(0, 1, n, dtype=dtype)
    return jnp.exp(-((t[:, None] - t) ** 2) / 0.5)


def test_a_definite_matrix_is_left_alone(dtype, tol):
    matrix = smooth(5, dtype) + jnp.eye(5, dtype=dtype)
    factor = jax.jit(safe_cholesky)(matrix)
    assert factor.tril.dtype == dtype and factor.jitter.dtype == dtype
    assert factor.jitter == 0
    np.testing.assert_allclose(factor.tril, jnp.linalg.cholesky(matrix), **tol)


def test_jitter_is_relative_and_reported(dtype):
    step = 1e-6 if dtype == jnp.float64 else 1e-4
    for scale in (1.0, 100.0):
        matrix = scale * smooth(40, dtype)
        factor = jax.jit(safe_cholesky)(matrix)
        assert not jnp.isfinite(jnp.linalg.cholesky(matrix)).all()
        np.testing.assert_allclose(factor.jitter, step * scale, rtol=1e-5)
        found = factor.tril @ factor.tril.T
        np.testing.assert_allclose(found, matrix + factor.jitter * jnp.eye(40), atol=1e-5 * scale)


def test_it_climbs_and_gives_up():
    for least, times in ((-3e-6, 10), (-3e-5, 100)):
        diagonal = np.array([1.0, 1.0, least])
        found = safe_cholesky(jnp.asarray(np.diag(diagonal))).jitter
        np.testing.assert_allclose(found, times * 1e-6 * diagonal.mean(), rtol=1e-9)
    hopeless = safe_cholesky(jnp.diag(jnp.array([1.0, -1.0])) + jnp.eye(2) * 0.5)
    assert jnp.isnan(hopeless.tril).any()


def test_matrices_of_a_batch_get_their_own():
    batch = jnp.stack([smooth(20, jnp.float64), smooth(20, jnp.float64) + jnp.eye(20)])
    factor = jax.jit(safe_cholesky)(batch)
    assert factor.jitter[0] > 0 and factor.jitter[1] == 0
    each = [safe_cholesky(matrix) for matrix in batch]
    np.testing.assert_allclose(factor.tril, jnp.stack([f.tril for f in each]), atol=1e-14)
    mapped = jax.jit(jax.vmap(safe_cholesky))(batch)
    np.testing.assert_allclose(factor.tril, mapped.tril, atol=1e-14)


def test_gradients_take_the_jitter_as_constant():
    matrix = smooth(5, jnp.float64) + 0.1 * jnp.eye(5)

    def total(scale):
        return jnp.sum(jnp.sin(safe_cholesky(scale * matrix).tril))

    check_grads(jax.jit(total), (jnp.asarray(1.3),), order=2, modes=("rev",), rtol=1e-6)
