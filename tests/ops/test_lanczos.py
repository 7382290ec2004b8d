"""Stochastic Lanczos quadrature against exact log-determinants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dense_twin import jit, peak_bytes

from bayesjx.ops import Dense, Diag, LowRankPlusDiag, psd, stochastic_logdet

N = 7
NUM_PROBES = 500


def problem(dtype=jnp.float64):
    rng = np.random.default_rng(0)
    half = rng.standard_normal((N, N))
    return jnp.asarray(half @ half.T / N + np.eye(N), dtype)


def near(matrix):
    """A preconditioner without a square root that can be solved with."""
    return LowRankPlusDiag(0.3 * matrix[:, :2], 0.8 * jnp.diag(matrix))


PRECONDITIONED = pytest.mark.parametrize("preconditioned", [False, True])


@PRECONDITIONED
def test_value_and_derivatives_within_their_standard_errors(preconditioned):
    matrix = problem()

    @jit
    def all_of(matrix):
        def estimate(matrix, key):
            preconditioner = near(matrix) if preconditioned else None
            return stochastic_logdet(key, Dense(matrix, psd), 2, N, preconditioner).value

        def one(key):
            fn = lambda m: estimate(m, key)  # noqa: E731
            return fn(matrix), jax.jvp(jax.grad(fn), (matrix,), (matrix @ matrix,))

        keys = jax.random.split(jax.random.key(0), NUM_PROBES // 2)
        exact_fn = lambda m: jnp.linalg.slogdet(m)[1]  # noqa: E731
        exact = exact_fn(matrix), jax.jvp(jax.grad(exact_fn), (matrix,), (matrix @ matrix,))
        single = stochastic_logdet(
            jax.random.key(3),
            Dense(matrix, psd),
            NUM_PROBES,
            N,
            near(matrix) if preconditioned else None,
        )
        return jax.vmap(one)(keys), exact, single

    got, want, single = all_of(matrix)
    for sample, exact in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        error = sample.std(0) / np.sqrt(len(sample))
        assert np.all(np.abs(sample.mean(0) - exact) <= 5 * error + 1e-9)
    assert abs(single.value - want[0]) < 5 * single.standard_error
    # The reported error is that of the spread: of NUM_PROBES probes, against pairs of probes.
    spread = np.std(got[0]) / np.sqrt(NUM_PROBES / 2)
    np.testing.assert_allclose(single.standard_error, spread, rtol=0.2)


def test_few_steps_suffice_and_more_than_needed_do_no_harm(dtype):
    # Three distinct eigenvalues: the iteration is complete after three steps.
    values = jnp.asarray([1, 1, 1, 3, 3, 10, 10], dtype)
    vectors = jnp.linalg.qr(problem(dtype))[0]

    @jit
    def all_of(matrix, values):
        run = lambda steps, op: stochastic_logdet(jax.random.key(0), op, 50, steps)  # noqa: E731
        operator = Dense(matrix, psd)
        # Signs change nothing in a diagonal matrix: every probe gives the exact answer.
        exact = run(30, Diag(values, psd))
        return run(3, operator), run(7, operator), exact

    three, seven, exact = all_of(vectors @ jnp.diag(values) @ vectors.T, values)
    assert three.value.dtype == three.standard_error.dtype == dtype
    tol = 1e-4 if dtype == jnp.float32 else 1e-10
    np.testing.assert_allclose(three, seven, rtol=tol)
    np.testing.assert_allclose(exact.value, np.sum(np.log(values)), rtol=tol)
    assert exact.standard_error < tol


def test_perfect_preconditioner_leaves_nothing_to_estimate():
    operator = near(problem())
    got = jax.jit(lambda op: stochastic_logdet(jax.random.key(0), op, 3, 5, op))(operator)
    np.testing.assert_allclose(got.value, operator.logdet(), rtol=1e-10)
    assert got.standard_error < 1e-10

    @jax.jit
    @jax.grad
    def of_a_factor(factor):
        scaled = Dense(factor * problem(), psd)
        known = Dense(problem(), psd)
        return stochastic_logdet(jax.random.key(0), scaled, 3, 5, known).value

    np.testing.assert_allclose(of_a_factor(1.0), N, rtol=1e-10)


def test_large_problem_is_not_made_dense():
    n = 20_000
    rng = np.random.default_rng(0)
    operator = LowRankPlusDiag(jnp.asarray(rng.standard_normal((n, 3))), jnp.linspace(1, 9, n))

    def value_and_gradient(operator):
        fn = lambda op: stochastic_logdet(jax.random.key(0), op, 4, 20).value  # noqa: E731
        return jax.value_and_grad(fn)(operator)

    got, gradient = jax.jit(value_and_gradient)(operator)
    np.testing.assert_allclose(got, operator.logdet(), rtol=0.01)
    want = jax.grad(lambda op: op.logdet())(operator)
    total = lambda op: jnp.sum(op.diagonal * jnp.linspace(1, 9, n))  # noqa: E731
    np.testing.assert_allclose(total(gradient), total(want), rtol=0.01)
    assert peak_bytes(value_and_gradient, operator) < 8 * n * 4 * 20 * 8


@pytest.mark.errors
def test_bad_input_is_named():
    matrix, key = problem(), jax.random.key(0)
    with pytest.raises(ValueError, match="stochastic_logdet needs a positive semi-definite Dense"):
        stochastic_logdet(key, Dense(matrix))
    with pytest.raises(ValueError, match="at least 2 and num_steps at least 1, got 1 and 30"):
        stochastic_logdet(key, Dense(matrix, psd), 1)
    with pytest.raises(ValueError, match=r"preconditioner must have shape \(7, 7\), got \(3, 3\)"):
        stochastic_logdet(key, Dense(matrix, psd), preconditioner=Diag(jnp.ones(3), psd))
    with pytest.raises(ValueError, match="preconditioner needs a positive semi-definite"):
        stochastic_logdet(key, Dense(matrix, psd), preconditioner=Diag(jnp.ones(7)))
    with pytest.raises(RuntimeError, match="stochastic_logdet: the operator is not positive"):
        jax.jit(lambda m: stochastic_logdet(key, Dense(-m, psd)))(matrix)
