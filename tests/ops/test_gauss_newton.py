"""Jacobians and Gauss-Newton matrices of functions of parameters against dense algebra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import block_diag

from bayesjx import ops

RNG = np.random.default_rng(0)
N, D, P = 7, 2, 3
M = P * D + P
X = RNG.normal(size=(N, D))
PARAMS = {"b": RNG.normal(size=P), "w": RNG.normal(size=(P, D))}  # flattened in this order
VECTORS = RNG.normal(size=(M, 2))
ROWS = RNG.normal(size=(N * P, 2))
PROBS = RNG.dirichlet(np.ones(P), size=N)
ROOTS = RNG.normal(size=(N, P, 2))  # so that blocks are singular
BLOCKS = ROOTS @ ROOTS.transpose(0, 2, 1)
ENTRIES = RNG.uniform(0.2, 2, size=N * P)


def function(params, x):
    return jnp.sin(params["w"] @ x + params["b"])


def dense():
    """The Jacobian, by hand."""
    inside = X @ PARAMS["w"].T + PARAMS["b"]
    rows = np.zeros((N, P, M))
    for k in range(P):
        rows[:, k, k] = np.cos(inside[:, k])
        rows[:, k, P + k * D : P + (k + 1) * D] = np.cos(inside[:, k])[:, None] * X
    return np.sin(inside).reshape(-1), rows.reshape(-1, M)


WEIGHTS = {
    "identity": (lambda d: None, np.eye(N * P)),
    "scaled": (lambda d: ops.ScaledIdentity(jnp.asarray(2.0, d), N * P), 2 * np.eye(N * P)),
    "diag": (lambda d: ops.Diag(jnp.asarray(ENTRIES, d)), np.diag(ENTRIES)),
    "blocks": (lambda d: ops.BlockDiag(jnp.asarray(BLOCKS, d)), block_diag(*BLOCKS)),
    "categorical": (
        lambda d: ops.CategoricalCovariance(jnp.asarray(PROBS, d)),
        block_diag(*(np.diag(p) - np.outer(p, p) for p in PROBS)),
    ),
}


def typed(tree, dtype):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)


@pytest.mark.parametrize("name, chunk", [(w, 3) for w in WEIGHTS] + [("categorical", None)])
def test_it_is_the_dense_matrix(name, chunk):
    make, weight = WEIGHTS[name]
    value, jacobian = dense()
    want = jacobian.T @ weight @ jacobian
    for dtype, rtol in ((jnp.float64, 1e-10), (jnp.float32, 1e-4)):

        @jax.jit
        def run(params, x, vectors, rows, dtype=dtype):
            j = ops.Jacobian(function, params, x, chunk=chunk)
            g = ops.gauss_newton(function, params, make(dtype), x, chunk=chunk)
            quad = lambda v: v @ g.mv(v)  # noqa: E731
            return (
                (j.value(), j @ vectors, j.T @ rows, j.as_matrix(), j.T.as_matrix()),
                (g @ vectors, g.mv(vectors[:, 0]), g.as_matrix(), g.diag(), g.root().as_matrix()),
                (jax.grad(quad)(vectors[:, 0]), jax.vmap(g.mv, 1, 1)(vectors)),
            )

        data = typed((PARAMS, X, VECTORS, ROWS), dtype)
        (f, pushed, pulled, whole, turned), matrix, (slope, many) = run(*data)
        np.testing.assert_allclose(f, value, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(pushed, jacobian @ VECTORS, rtol=rtol, atol=10 * rtol)
        np.testing.assert_allclose(pulled, jacobian.T @ ROWS, rtol=rtol, atol=10 * rtol)
        np.testing.assert_allclose(whole, jacobian, rtol=rtol, atol=rtol)
        np.testing.assert_allclose(turned, jacobian.T, rtol=rtol, atol=rtol)
        tol = dict(rtol=rtol, atol=rtol * np.abs(want).max() * M)
        product, single, found, diagonal, root = matrix
        np.testing.assert_allclose(product, want @ VECTORS, **tol)
        np.testing.assert_allclose(single, want @ VECTORS[:, 0], **tol)
        np.testing.assert_allclose(found, want, **tol)
        np.testing.assert_allclose(diagonal, np.diag(want), **tol)
        np.testing.assert_allclose(root @ root.T, want, **tol)
        np.testing.assert_allclose(slope, 2 * want @ VECTORS[:, 0], **tol)
        np.testing.assert_allclose(many, want @ VECTORS, **tol)
        assert found.dtype == product.dtype == dtype


def test_derivatives_reach_parameters_and_what_the_function_reads():
    def quad(scale, shift):
        params = {"w": jnp.asarray(PARAMS["w"]), "b": PARAMS["b"] + shift}
        g = ops.gauss_newton(lambda p, x: scale * function(p, x), params, data=jnp.asarray(X))
        return VECTORS[:, 0] @ g.mv(jnp.asarray(VECTORS[:, 0]))

    value, slope = jax.jit(jax.value_and_grad(quad, (0, 1)))(1.3, 0.2)
    np.testing.assert_allclose(slope[0], 2 * value / 1.3, rtol=1e-10)
    ends = [jax.jit(quad)(1.3, 0.2 + s) for s in (1e-6, -1e-6)]
    np.testing.assert_allclose(slope[1], (ends[0] - ends[1]) / 2e-6, rtol=1e-6)


def test_one_function_with_any_weight():
    _, jacobian = dense()
    jacobian, weight = jacobian[:P], BLOCKS[0] + np.eye(P)
    of = lambda params: function(params, jnp.asarray(X[0])).reshape(P, 1)  # noqa: E731
    g = ops.gauss_newton(of, typed(PARAMS, jnp.float64), ops.Dense(weight, ops.psd))
    want = jacobian.T @ weight @ jacobian
    np.testing.assert_allclose(g @ jnp.asarray(VECTORS), want @ VECTORS, atol=1e-12)
    np.testing.assert_allclose(g.as_matrix(), want, atol=1e-12)
    np.testing.assert_allclose(g.diag(), np.diag(want), atol=1e-12)


def test_random_estimates_of_the_diagonal_and_draws():
    weight = WEIGHTS["categorical"][0](jnp.float64)
    g = ops.gauss_newton(function, typed(PARAMS, jnp.float64), weight, X, chunk=4)
    found = g.diag_estimate(jax.random.key(0), 400)
    off = (found.value - g.diag()) / found.standard_error
    assert np.abs(off).max() < 5
    draws = np.asarray(g.sample(jax.random.key(1), (4000,)))
    error = np.sqrt(2 / 4000) * np.asarray(g.diag())
    assert np.all(np.abs(draws.var(axis=0) - g.diag()) < 5 * error)


@pytest.mark.errors
def test_bad_input_is_named():
    params, x = typed(PARAMS, jnp.float64), jnp.asarray(X)
    with pytest.raises(ValueError, match="params holds no array"):
        ops.Jacobian(function, {}, x)
    with pytest.raises(ValueError, match="params.*must hold real floating-point"):
        ops.Jacobian(function, {"w": jnp.ones((P, D), int), "b": params["b"]}, x)
    with pytest.raises(ValueError, match="must have one type, got float32, float64"):
        ops.Jacobian(function, params | {"b": jnp.ones(P, jnp.float32)}, x)
    with pytest.raises(ValueError, match="one leading axis for all"):
        ops.Jacobian(function, params, (x, x[:3]))
    with pytest.raises(ValueError, match="data is empty"):
        ops.Jacobian(function, params, x[:0])
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        ops.Jacobian(function, params, x, chunk=0)
    with pytest.raises(ValueError, match="must return one array, got tuple"):
        ops.Jacobian(lambda p: (p["b"], p["b"]), params)
    with pytest.raises(ValueError, match="must return the type of params, float64, got float32"):
        ops.Jacobian(lambda p: p["b"].astype(jnp.float32), params)
    with pytest.raises(ValueError, match=r"weight must have shape \(21, 21\)"):
        ops.gauss_newton(function, params, ops.Diag(jnp.ones(3)), x)
    with pytest.raises(ValueError, match="Dense is not known as a weight of data"):
        ops.gauss_newton(function, params, ops.Dense(jnp.eye(N * P), ops.psd), x)
    with pytest.raises(ValueError, match="weight holds float32 and params float64"):
        ops.gauss_newton(function, params, ops.Diag(jnp.ones(N * P, jnp.float32)), x)
    with pytest.raises(ValueError, match="num_probes must be at least 2"):
        ops.gauss_newton(function, params, data=x).diag_estimate(jax.random.key(0), 1)
    with pytest.raises(ValueError, match=r"a permutation of 0, \.\.\., 2"):
        ops.Reordered(ops.Dense(jnp.eye(3)), [0, 1, 1])
    with pytest.raises(ValueError, match=r"probs must be real, of shape \(n, C\)"):
        ops.CategoricalCovariance(jnp.ones(3))
