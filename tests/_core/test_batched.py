"""Many small matrices at once, without LAPACK's own batching."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from bayesjx._core import cholesky_each, each, solve_tril_each


def spd(shape, dtype=jnp.float64):
    a = jax.random.normal(jax.random.key(0), shape, jnp.float64)
    return (a @ a.mT / shape[-1] + 0.5 * jnp.eye(shape[-1])).astype(dtype)


@pytest.mark.parametrize("shape", [(4, 4), (7, 1, 1), (3, 2, 5, 5), (5, 12, 12)])
def test_factors_and_solves_are_lapacks(shape, dtype, tol):
    a = spd(shape, dtype)
    b = jax.random.normal(jax.random.key(1), (*shape[:-1], 3), dtype)

    def ours(a, b):
        tril = cholesky_each(a)
        return tril, solve_tril_each(tril, b), solve_tril_each(tril, b, transposed=True)

    tril = np.linalg.cholesky(np.asarray(a, float))
    upper = np.swapaxes(tril, -1, -2)
    wanted = (tril, np.linalg.solve(tril, b), np.linalg.solve(upper, b))
    for found, want in zip(jax.jit(ours)(a, b), wanted, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, want, **tol)


@pytest.mark.parametrize("shape", [(3, 4, 4), (3, 10, 10)])
def test_derivatives(shape):
    b = jax.random.normal(jax.random.key(1), (*shape[:-1], 2))

    def total(a, b):
        tril = cholesky_each(a)
        x = solve_tril_each(tril, b) + solve_tril_each(tril, b, transposed=True)
        return jnp.sum(jnp.sin(tril)) + jnp.sum(x**2)

    check_grads(jax.jit(total), (spd(shape), b), order=2, modes=("rev",), rtol=1e-5)

    def lapack(a, b):
        tril = jnp.linalg.cholesky(a, symmetrize_input=False)
        x = jnp.linalg.solve(tril, b) + jnp.linalg.solve(tril.mT, b)
        return jnp.sum(jnp.sin(tril)) + jnp.sum(x**2)

    found, want = (jax.jit(jax.grad(f))(spd(shape), b) for f in (total, lapack))
    np.testing.assert_allclose(found + found.mT, want + want.mT, rtol=1e-8, atol=1e-9)


def test_what_is_not_definite_gives_nan_there_only():
    a = spd((4, 3, 3)).at[2, 1, 1].set(-1.0)
    bad = jnp.isnan(jax.jit(cholesky_each)(a)).any((1, 2))
    np.testing.assert_array_equal(bad, [False, False, True, False])


@pytest.mark.parametrize("n", [3, 20])
def test_no_batched_lapack_call_is_compiled_for_cpus(n):
    """Two at a time can wait for each other for ever on two cores."""

    def evidence(a, b):
        tril = cholesky_each(a)
        x, y = solve_tril_each(tril, b), solve_tril_each(tril, 2 * b, transposed=True)
        return jnp.sum(x * y)

    text = jax.jit(jax.value_and_grad(evidence)).lower(spd((50, n, n)), jnp.ones((50, n, 2)))
    calls = re.findall(r"= (\S+) custom-call\(.*lapack", text.compile().as_text())
    assert all("[50," not in call for call in calls)
    assert (n == 3) == (not calls)


def test_each_takes_tuples_and_functions_of_any_result():
    a = spd((6, 9, 9))
    found = jax.jit(lambda a: each(lambda x: jnp.linalg.slogdet(x)[1], a))(a)
    np.testing.assert_allclose(found, np.linalg.slogdet(a)[1])
    mapped = jax.jit(jax.vmap(lambda a: solve_tril_each(cholesky_each(a), a)))(spd((4, 2, 3, 3)))
    assert mapped.shape == (4, 2, 3, 3)
