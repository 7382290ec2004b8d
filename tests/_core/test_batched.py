"""Many small matrices at once, without LAPACK's own batching."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from bayesjx import gp, kernels
from bayesjx._core import (
    cho_solve,
    cholesky_each,
    each,
    eigh,
    in_turn_under_vmap,
    inverse_tril,
    solve_triangular,
    solve_tril_each,
)


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


def of_one(a, b):
    """Everything that has a rule of its own under vmap."""
    tril = cholesky_each(a)
    x = cho_solve((tril, True), b) + solve_triangular(tril.T, b)
    values, vectors = eigh(a)
    return b @ x + jnp.sum(jnp.log(jnp.diag(tril))) + jnp.sum(jnp.sqrt(values)) + vectors[0, 0] ** 2


def by_lapack(a, b):
    tril = jnp.linalg.cholesky(a)
    x = jax.scipy.linalg.cho_solve((tril, True), b)
    x += jax.scipy.linalg.solve_triangular(tril.T, b)
    values, vectors = jnp.linalg.eigh(a)
    return b @ x + jnp.sum(jnp.log(jnp.diag(tril))) + jnp.sum(jnp.sqrt(values)) + vectors[0, 0] ** 2


def symmetric(function):
    return lambda a, b: function(0.5 * (a + a.mT), b)


TRANSFORMED = {
    "one": lambda f: lambda a, b: f(a[0], b[0]),
    "vmap": lambda f: jax.vmap(f),
    "vmap of matrices": lambda f: lambda a, b: jax.vmap(f, (0, None))(a, b[0]),
    "vmap of right-hand sides": lambda f: lambda a, b: jax.vmap(f, (None, 0))(a[0], b),
    "vmap of vmap": lambda f: jax.vmap(jax.vmap(f, (None, 0)), (0, None)),
    "vmap of grad": lambda f: jax.vmap(jax.grad(f, (0, 1))),
    "grad of vmap": lambda f: jax.grad(lambda a, b: jnp.sum(jnp.sin(jax.vmap(f)(a, b))), (0, 1)),
    "vmap of hessian": lambda f: jax.vmap(lambda a, b: jax.hessian(lambda s: f(s * a, b))(1.1)),
}


@pytest.mark.parametrize("name", TRANSFORMED)
@pytest.mark.parametrize("n", [4, 12])
def test_under_transformations_all_is_as_by_lapack(name, n):
    a, b = spd((3, n, n)), jax.random.normal(jax.random.key(1), (3, n))
    transform = TRANSFORMED[name]
    found, want = (jax.jit(transform(symmetric(f)))(a, b) for f in (of_one, by_lapack))
    for x, y in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-8, atol=1e-9)


def test_no_batched_lapack_call_is_compiled_under_vmap():
    """As by the chains of a sampler, with the gradient of a Gaussian process's evidence."""
    x, y = jnp.linspace(0.0, 1.0, 20), jnp.ones(20)

    def evidence(t):
        grid = gp.Grid(x, x[:9])
        kernel = kernels.RBF(t[0]).on(0) * kernels.RBF(t[1]).on(1)
        dense = gp.GP(kernels.Matern32(t[0]), noise_var=t[1])(x).log_prob(y)
        sparse = gp.sgpr(
            gp.GP(kernels.Matern32(t[0]), noise_var=t[1]), x, inducing_points=x[:10]
        ).log_prob(y)
        return dense + sparse + gp.GP(kernel, noise_var=t[2])(grid).log_prob(jnp.ones(180))

    chains = jax.jit(jax.vmap(jax.value_and_grad(evidence)))
    compiled = chains.lower(jnp.full((37, 3), 0.5)).compile().as_text()
    calls = re.findall(r"= (\S+|\(.*?\)) custom-call\(.*?lapack", compiled)
    assert calls and not any("[37," in call for call in calls)
    values, _ = chains(jnp.full((37, 3), 0.5))
    np.testing.assert_allclose(values, evidence(jnp.full(3, 0.5)), rtol=1e-9)


@pytest.mark.parametrize("shape", [(5, 5), (150, 150), (3, 70, 70)])
def test_inverses_by_halves(shape, dtype, tol):
    tril = np.linalg.cholesky(np.asarray(spd(shape), float))
    found = jax.jit(inverse_tril)(jnp.asarray(tril, dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, np.linalg.inv(tril), rtol=10 * tol["rtol"], atol=1e-4)
    np.testing.assert_array_equal(np.triu(found, 1), 0)
    if dtype == jnp.float64 and len(shape) == 2:
        loss = lambda t: jnp.sum(jnp.sin(inverse_tril(t)))  # noqa: E731
        want = jax.grad(lambda t: jnp.sum(jnp.sin(jnp.linalg.inv(t))))(tril)
        np.testing.assert_allclose(jax.grad(loss)(tril), np.tril(want), rtol=1e-7, atol=1e-9)


def test_loops_end_by_themselves_under_vmap():
    @jax.jit
    def halvings(x, y, below):
        @in_turn_under_vmap
        def loop(state, below):
            x, y, _ = state
            go_on = lambda state: state[0] > below  # noqa: E731
            return jax.lax.while_loop(go_on, lambda s: (s[0] / 2, s[1], s[2] + y), (x, y, 0))

        return loop((x, y, 0), below)[2]

    each = jax.vmap(halvings, in_axes=(0, None, None))
    both = jax.vmap(each, in_axes=(None, 0, None))
    x = np.array([3.0, 100.0, 0.5])
    counts = np.array([2, 7, 0])
    np.testing.assert_array_equal(both(x, np.array([1, 10]), 1.0), [counts, 10 * counts])
    np.testing.assert_array_equal(jax.vmap(halvings)(x, np.ones(3, int), np.ones(3)), counts)
