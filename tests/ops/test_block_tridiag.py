"""Block-tridiagonal matrices against dense ones, by loops and by associative scans."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_twin import (
    assert_derivatives,
    assert_draws,
    assert_values,
    assert_vmap,
    columns,
    jit,
    peak_bytes,
)
from jax.scipy.linalg import block_diag

from bayesjx.ops import BlockBidiag, BlockTridiag

T, B = 5, 3
parallel_block_tridiag = functools.partial(BlockTridiag, parallel=True)
make = pytest.mark.parametrize(
    "make", [BlockTridiag, parallel_block_tridiag], ids=["loop", "parallel"]
)
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def problem(dtype=jnp.float64):
    rng = np.random.default_rng(0)
    half = rng.standard_normal((T, B, B))
    diagonal = half @ half.transpose(0, 2, 1) + 4 * np.eye(B)
    lower = rng.standard_normal((T - 1, B, B))
    return jnp.asarray(diagonal, dtype), jnp.asarray(lower, dtype)


def dense(diagonal, lower):
    number, size, _ = diagonal.shape
    matrix = block_diag(*diagonal)
    below = jnp.pad(block_diag(*lower), ((size, 0), (0, size))) if number > 1 else 0
    return matrix + below + (below.T if number > 1 else 0)


def symmetric(fn):
    """`fn` of the symmetric part of the diagonal blocks, which is all that gradients agree on."""
    return lambda diagonal, lower: fn(0.5 * (diagonal + diagonal.mT), lower)


def test_methods_are_those_of_the_dense_matrix(dtype, tol):
    assert_values(BlockTridiag, dense, problem(dtype), **tol)


def test_parallel_methods_are_those_of_the_dense_matrix():
    assert_values(parallel_block_tridiag, dense, problem(), **TIGHT)


def test_derivatives_are_those_of_the_dense_matrix():
    assert_derivatives(symmetric(BlockTridiag), symmetric(dense), problem())


def test_parallel_gradients_are_those_of_the_loop():
    arrays = problem()

    @jit
    def both(arrays):
        def value(arrays, make):
            operator = symmetric(make)(*arrays)
            x = columns(operator, 1)
            quad, logdet = operator.inv_quad_logdet(x)
            inverse = operator.selected_inverse()
            draw = operator.root() @ x + operator.sample_inverse(jax.random.key(0))[:, None]
            squares = jnp.sum(inverse.diagonal**2) + jnp.sum(inverse.lower**2)
            return logdet * jnp.sum(quad) + squares + jnp.sum(jnp.sin(draw))

        return [jax.grad(value)(arrays, make) for make in (parallel_block_tridiag, BlockTridiag)]

    got, want = both(arrays)
    for a, b in zip(got, want, strict=True):
        np.testing.assert_allclose(a, b, **TIGHT)


@make
def test_draws_have_the_right_covariance(make):
    assert_draws(make, dense, problem())


def test_vmap():
    assert_vmap(BlockTridiag, problem())


def test_selected_inverse_and_its_derivative():
    def blocks_of(matrix):
        grid = matrix.reshape(T, B, T, B).transpose(0, 2, 1, 3)
        index = jnp.arange(T)
        return grid[index, index], grid[index[1:], index[:-1]]

    def weighted(pair):
        return sum(jnp.sum(columns_like(x) * x**2) for x in pair)

    @jit
    def both(arrays):
        got = BlockTridiag(*arrays).selected_inverse()
        want = blocks_of(jnp.linalg.inv(dense(*arrays)))
        ours = jax.grad(lambda a: weighted(BlockTridiag(*a).selected_inverse()))(arrays)
        theirs = jax.grad(lambda a: weighted(blocks_of(jnp.linalg.inv(dense(*a)))))(arrays)
        # Only the symmetric part of a gradient in the diagonal blocks means anything.
        sym = lambda g: (0.5 * (g[0] + g[0].mT), g[1])  # noqa: E731
        return (*got, *sym(ours)), (*want, *sym(theirs))

    for got, want in zip(*both(problem()), strict=True):
        np.testing.assert_allclose(got, want, **TIGHT)


def columns_like(x):
    return jnp.cos(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape)


@make
def test_factor_solves_and_transposes(make):
    @jit
    def both(arrays):
        factor = make(*arrays).root()
        tril = jnp.linalg.cholesky(dense(*arrays))
        x = columns(factor, 2)
        upper = factor.transpose()
        got = (factor @ x, upper @ x, factor.solve(x), upper.solve(x), factor.logdet())
        inverse = jnp.linalg.inv(tril)
        logdet = jnp.sum(jnp.log(jnp.diag(tril)))
        return got, (tril @ x, tril.T @ x, inverse @ x, inverse.T @ x, logdet)

    for got, want in zip(*both(problem()), strict=True):
        np.testing.assert_allclose(got, want, **TIGHT)


@make
def test_one_block(make):
    diagonal, lower = problem()
    operator = make(diagonal[:1], lower[:0])
    np.testing.assert_allclose(
        operator.solve(jnp.ones(3)), jnp.linalg.solve(diagonal[0], jnp.ones(3))
    )
    assert operator.selected_inverse().lower.shape == (0, 3, 3)


@make
def test_long_chain_stays_small_and_agrees_with_the_stationary_limit(make):
    # A stationary autoregression of order one: precision tridiagonal, everything known.
    number, rho = 2000, 0.9
    diagonal = jnp.full((number, 1, 1), 1 + rho**2).at[jnp.asarray([0, -1])].set(1.0)
    lower = jnp.full((number - 1, 1, 1), -rho)

    def all_of(diagonal, lower, y):
        def fn(diagonal, lower, y):
            quad, logdet = make(diagonal, lower).inv_quad_logdet(y)
            return quad + logdet, logdet

        (_, logdet), grads = jax.value_and_grad(fn, (0, 1, 2), has_aux=True)(diagonal, lower, y)
        return logdet, make(diagonal, lower).inverse_diag(), grads

    args = (diagonal, lower, jnp.ones(number))
    logdet, variances, _ = jax.jit(all_of)(*args)
    np.testing.assert_allclose(logdet, np.log(1 - rho**2), rtol=1e-9)
    np.testing.assert_allclose(variances, 1 / (1 - rho**2), rtol=1e-9)
    assert peak_bytes(all_of, *args) < number**2 * 8 / 20


@pytest.mark.errors
def test_bad_input_is_named():
    diagonal, lower = problem()
    with pytest.raises(ValueError, match=r"diagonal must have shape \(T, b, b\).*got \(5, 3, 3\)"):
        BlockTridiag(diagonal, lower[:3])
    with pytest.raises(ValueError, match=r"got \(5, 3\) and"):
        BlockTridiag(diagonal[:, 0], lower)
    with pytest.raises(ValueError, match="diagonal float64, lower float32"):
        BlockTridiag(diagonal, lower.astype(jnp.float32))
    too_long = [jax.ShapeDtypeStruct((2**30 - k, 3, 3), jnp.float64) for k in (0, 1)]
    with pytest.raises(ValueError, match="BlockTridiag: vectors of 3221225472 elements"):
        jax.eval_shape(BlockTridiag, *too_long)
    indefinite = diagonal.at[3].multiply(-1)
    for parallel in (False, True):
        with pytest.raises(RuntimeError, match="with block 3"):
            BlockTridiag(indefinite, lower, parallel=parallel)
    with pytest.raises(RuntimeError, match="with block 3"):
        jax.jit(lambda d: BlockTridiag(d, lower).logdet())(indefinite)
    with pytest.raises(ValueError, match="needs a positive semi-definite BlockBidiag"):
        BlockBidiag(diagonal, lower).root()
