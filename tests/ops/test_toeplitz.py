"""Toeplitz matrices against dense ones."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from dense_twin import (
    assert_derivatives,
    assert_draws,
    assert_values,
    assert_vmap,
    columns,
    jit,
)
from jax.scipy.linalg import cho_solve, solve_triangular

from bayesjx.ops import symmetric, Toeplitz

N = 7


def problem(dtype=jnp.float64):
    lags = np.arange(N)
    return (jnp.asarray(0.7**lags * np.cos(lags) + 0.3 * (lags == 0), dtype),)


def dense(column):
    lags = jnp.arange(column.size)
    return column[jnp.abs(lags[:, None] - lags)]


def test_methods_are_those_of_the_dense_matrix(dtype, tol):
    assert_values(Toeplitz, dense, problem(dtype), **tol)


def test_derivatives_are_those_of_the_dense_matrix():
    assert_derivatives(Toeplitz, dense, problem())


def test_draws_have_the_right_covariance():
    assert_draws(Toeplitz, dense, problem())


def test_vmap():
    assert_vmap(Toeplitz, problem())


def test_root_is_the_cholesky_factor(dtype, tol):
    @jit
    def both(column):
        root, tril = Toeplitz(column).root(), jnp.linalg.cholesky(dense(column))
        upper, x = root.transpose(), columns(root, 2)
        got = (root @ x, upper @ x, root.solve(x), upper.solve(x), root.logdet(), root.diag())
        inverse = jnp.linalg.inv(tril)
        diag = jnp.diag(tril)
        want = (tril @ x, tril.T @ x, inverse @ x, inverse.T @ x, jnp.sum(jnp.log(diag)), diag)
        return got, want

    for got, want in zip(*both(*problem(dtype)), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, **tol)


def test_smallest_sizes():
    @jit
    def both(column):
        got, want = [], []
        for size in (1, 2):
            part = column[:size]
            operator, matrix = Toeplitz(part), dense(part)
            x = columns(operator, 1)[:, 0]
            root, tril = operator.root(), jnp.linalg.cholesky(matrix)
            got += [operator @ x, operator.solve(x), root @ x]
            got += [jax.grad(lambda c: Toeplitz(c).logdet())(part)]
            want += [matrix @ x, jnp.linalg.inv(matrix) @ x, tril @ x]
            want += [jax.grad(lambda c: jnp.linalg.slogdet(dense(c))[1])(part)]
        return got, want

    for got, want in zip(*both(*problem()), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9)


def test_ill_conditioned_covariance_is_solved_as_well_as_by_cholesky():
    lags = jnp.arange(211.0)
    column = jnp.exp(-0.5 * (lags / 10) ** 2) + 1e-10 * (lags == 0)  # condition number 2e11

    @jit
    def errors(column):
        matrix = dense(column)
        truth = jnp.sin(lags)
        b = matrix @ truth
        tril = jnp.linalg.cholesky(matrix)
        operator = Toeplitz(column)
        logdet = 2 * jnp.sum(jnp.log(jnp.diag(tril)))
        solutions = operator.solve(b), cho_solve((tril, True), b)
        forward = [jnp.abs(x - truth).max() for x in solutions]
        backward = [jnp.abs(matrix @ x - b).max() for x in solutions]
        return forward, backward, operator.logdet() - logdet

    forward, backward, logdet = errors(column)
    assert forward[0] < 10 * forward[1]
    assert backward[0] < 2 * backward[1]  # this takes the refinements
    assert abs(logdet) < 1e-2


def test_products_without_positive_definiteness():
    column = jnp.asarray([0.0, 1.0, 2.0, 0.5, 0.1, 0.0, 3.0])
    operator = Toeplitz(column, symmetric)
    assert lx.is_symmetric(operator) and not lx.is_positive_semidefinite(operator)
    x = columns(operator, 2)
    np.testing.assert_allclose(operator @ x, dense(column) @ x, rtol=1e-12, atol=1e-14)


def test_single_column_made_inside_a_program():
    # What is compiled around the transforms may give them a layout that they refuse on CPU.
    def explained(column):
        unit = jnp.zeros((N, 1)).at[3, 0].set(1.0)
        operator = Toeplitz(column)
        both = operator.mm(unit), operator.solve(unit)
        halves = [solve_triangular(jnp.linalg.cholesky(x[3:4]), x.T, lower=True) for x in both]
        return jnp.sum(halves[0] ** 2) + jnp.sum(halves[1] ** 2)

    def dense_explained(column):
        matrix = dense(column)
        columns = matrix[:, 3], jnp.linalg.inv(matrix)[:, 3]
        return sum(jnp.sum(x**2) / x[3] for x in columns)

    @jit
    def both(column):
        batch = jnp.stack([column, 1.1 * column])
        return [jax.vmap(jax.value_and_grad(fn))(batch) for fn in (explained, dense_explained)]

    got, want = both(*problem())
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_long_grid_stays_small_and_agrees_with_the_autoregression():
    n, rho = 4096, 0.9
    column = rho ** jnp.arange(n)

    def all_of(column, y):
        def fn(column, y):
            quad, logdet = Toeplitz(column).inv_quad_logdet(y)
            return quad + logdet, (quad, logdet)

        (_, parts), grads = jax.value_and_grad(fn, (0, 1), has_aux=True)(column, y)
        draw = jax.grad(lambda c: jnp.sum(Toeplitz(c).sample(jax.random.key(0))))(column)
        return parts, grads, draw

    y = jnp.ones(n)
    compiled = jax.jit(all_of).lower(column, y).compile()
    (quad, logdet), grads, draw = compiled(column, y)
    np.testing.assert_allclose(logdet, (n - 1) * np.log(1 - rho**2), rtol=1e-9)
    np.testing.assert_allclose(quad, 1 + (n - 1) * (1 - rho) / (1 + rho), rtol=1e-9)
    # The quadratic form scales as the inverse, the log-determinant as n log.
    np.testing.assert_allclose(grads[0] @ column, n - quad, rtol=1e-8)
    assert np.all(np.isfinite(draw))
    memory = compiled.memory_analysis()
    assert memory.temp_size_in_bytes + memory.output_size_in_bytes < n**2 * 8 / 5


@pytest.mark.errors
def test_bad_input_is_named():
    (column,) = problem()
    with pytest.raises(ValueError, match=r"column must have shape \(n,\).*got shape \(7, 1\)"):
        Toeplitz(column[:, None])
    with pytest.raises(ValueError, match=r"got shape \(0,\)"):
        Toeplitz(column[:0])
    with pytest.raises(ValueError, match="must hold floating-point numbers, got int"):
        Toeplitz(jnp.arange(3))
    not_definite = jnp.asarray([1.0, 0.5, -0.9, 0.1])
    with pytest.raises(RuntimeError, match="its first 2 rows and columns are, one more"):
        Toeplitz(not_definite)
    with pytest.raises(RuntimeError, match="its first 2 rows and columns are, one more"):
        jax.jit(lambda c: Toeplitz(c).logdet())(not_definite)
    for method in ("logdet", "solve"):
        operator = Toeplitz(not_definite, symmetric)
        with pytest.raises(ValueError, match=f"Toeplitz has no {method} of its own; tag it"):
            operator.logdet() if method == "logdet" else operator.solve(not_definite)
    with pytest.raises(ValueError, match="beyond 32-bit indexing"):
        jax.eval_shape(Toeplitz, jax.ShapeDtypeStruct((2**30,), jnp.float64))
    with pytest.raises(ValueError, match="sample needs a positive semi-definite Toeplitz"):
        Toeplitz(not_definite, symmetric).sample(jax.random.key(0))
