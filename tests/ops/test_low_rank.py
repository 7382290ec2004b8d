"""Low rank plus diagonal against the dense matrix."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from dense_twin import assert_derivatives, assert_draws, assert_values, assert_vmap, jit, peak_bytes

from bayesjx.ops import LowRank, LowRankPlusDiag

N, R = 7, 3


def problem(dtype=jnp.float64):
    rng = np.random.default_rng(0)
    factor, diagonal = rng.standard_normal((N, R)), rng.uniform(0.5, 2, N)
    return jnp.asarray(factor, dtype), jnp.asarray(diagonal, dtype)


def dense(factor, diagonal):
    return jnp.diag(diagonal) + factor @ factor.T


def test_methods_are_those_of_the_dense_matrix(dtype, tol):
    assert_values(LowRankPlusDiag, dense, problem(dtype), **tol)


def test_derivatives_are_those_of_the_dense_matrix():
    assert_derivatives(LowRankPlusDiag, dense, problem())


def test_derivatives_through_the_qr_route():
    # In float32 another factorisation is differentiated; gradients of what needs it, loosely.
    @jit
    def both(arrays):
        ours = lambda a: LowRankPlusDiag(*a).logdet() ** 2  # noqa: E731
        theirs = lambda a: jnp.linalg.slogdet(dense(*a))[1] ** 2  # noqa: E731
        return [jax.jvp(jax.grad(f), (arrays,), (arrays,)) for f in (ours, theirs)]

    got, want = both(problem(jnp.float32))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3), got, want)


def test_draws_have_the_right_covariance(dtype):
    assert_draws(LowRankPlusDiag, dense, problem(dtype))


def test_vmap():
    assert_vmap(LowRankPlusDiag, problem())


def test_small_noise_in_float32():
    # C has condition number 1e7, so its Cholesky factor is noise in float32; that of the QR is not.
    # And y is in the span of the factor, as data are: nearly all of |y|² has to cancel.
    rotation = jnp.linalg.qr(problem()[0][:3])[0]
    factor = problem()[0] @ (jnp.asarray([1.0, 0.01, 0.001])[:, None] * rotation)
    given = factor.astype(jnp.float32), jnp.full(N, 1e-6, jnp.float32)

    @jit
    def both(given):
        matrix, y = dense(*(x.astype(jnp.float64) for x in given)), given[0][:, 2]
        operator = LowRankPlusDiag(*given)
        got = *operator.inv_quad_logdet(y), operator.inverse_diag() * 1e-6
        inverse = jnp.linalg.inv(matrix)
        return got, (y @ inverse @ y, jnp.linalg.slogdet(matrix)[1], jnp.diag(inverse) * 1e-6)

    for got, want in zip(*both(given), strict=True):
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, want, rtol=5e-5, atol=5e-5)


def test_quadratic_form_is_not_negative():
    factor, _ = problem(jnp.float32)
    operator = LowRankPlusDiag(1e4 * factor, jnp.full(N, 1e-4, jnp.float32))
    quad = jax.jit(lambda op, y: op.inv_quad_logdet(y).inv_quad)(operator, 1e4 * factor)
    assert np.all(quad >= 0)


def test_nothing_of_the_dense_size_is_made():
    n, r = 20_000, 5
    arrays = (jnp.ones((n, r)), jnp.ones(n))

    def value_and_gradient(arrays, y):
        def fn(arrays, y):
            quad, logdet = LowRankPlusDiag(*arrays).inv_quad_logdet(y)
            return quad + logdet

        return jax.value_and_grad(fn, (0, 1))(arrays, y)

    assert peak_bytes(value_and_gradient, arrays, jnp.ones(n)) < 40 * n * r * 8


def test_low_rank_alone(dtype, tol):
    left, _ = problem(dtype)
    right = left[:5] + 1

    @jit
    def compute(left, right, x):
        one, two = LowRank(left), LowRank(left, right)
        assert two.shape == (7, 5) and lx.is_positive_semidefinite(one)
        square = LowRank(left[:5], right)
        got = (two @ x, two.transpose() @ left, one.root().as_matrix(), square.diag(), one @ left)
        want = (left @ right.T @ x, right @ left.T @ left, left, jnp.diag(left[:5] @ right.T))
        return got, (*want, left @ left.T @ left)

    for got, want in zip(*compute(left, right, right), strict=True):
        assert got.dtype == dtype
        np.testing.assert_allclose(got, want, **tol)


@pytest.mark.errors
def test_bad_input_is_named():
    factor, diagonal = problem()
    with pytest.raises(ValueError, match=r"factor must have shape \(n, r\) and diagonal \(n,\)"):
        LowRankPlusDiag(factor.T, diagonal)
    with pytest.raises(ValueError, match="factor float32, diagonal float64"):
        LowRankPlusDiag(factor.astype(jnp.float32), diagonal)
    with pytest.raises(ValueError, match="factor must hold floating-point numbers, got int32"):
        LowRankPlusDiag(jnp.ones((7, 3), jnp.int32), diagonal)
    with pytest.raises(RuntimeError, match=r"diagonal\[4\] is not positive"):
        LowRankPlusDiag(factor, diagonal.at[4].set(-1.0))
    with pytest.raises(RuntimeError, match=r"diagonal\[4\] is not positive"):
        jax.jit(lambda d: LowRankPlusDiag(factor, d).logdet())(diagonal.at[4].set(jnp.nan))
    too_long = [jax.ShapeDtypeStruct((2**31, *rest), jnp.float64) for rest in ((1,), ())]
    with pytest.raises(ValueError, match="LowRankPlusDiag: vectors of 2147483648 elements"):
        jax.eval_shape(LowRankPlusDiag, *too_long)
    with pytest.raises(ValueError, match=r"left must have shape \(n, r\) and right \(m, r\)"):
        LowRank(factor, diagonal)
    with pytest.raises(ValueError, match="LowRank has no solve of its own"):
        LowRank(factor).solve(diagonal)
    with pytest.raises(ValueError, match=r"x must have shape \(7, k\), got \(3, 7\)"):
        LowRankPlusDiag(factor, diagonal) @ factor.T
