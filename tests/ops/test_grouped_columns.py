"""The operator of grouped columns, and mean and variance in one pass."""

import functools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from sparse_layouts import MODES, problem, SIZES, tolerance, wide

from bayesjx.ops import grouped_moments, grouped_product, GroupedColumns

SHAPE = (16, 32)
P = problem("grouped")
INDEX = np.asarray(P.index[0])


def operator():
    return GroupedColumns.from_indices(SHAPE, INDEX, P.values)


def test_is_its_matrix():
    op, dense = operator(), P.dense(P.values, *P.index)
    assert op.shape == SHAPE and op.T.shape == SHAPE[::-1] and op.dtype == P.values.dtype
    np.testing.assert_array_equal(op.as_matrix(), dense)
    np.testing.assert_array_equal(op.T.as_matrix(), dense.T)
    np.testing.assert_allclose(op.mm(P.y), dense @ P.y, rtol=1e-12)
    np.testing.assert_allclose(P.x.T @ op, P.x.T @ dense, rtol=1e-12)


def test_all_rows_active_is_the_dense_matrix():
    matrix = jnp.asarray(np.random.default_rng(0).normal(size=(16, 6)))
    index, values = np.tile(np.arange(16), (2, 1)), matrix.reshape(16, 2, 3).transpose(1, 0, 2)
    op = GroupedColumns.from_indices((16, 6), index, values)
    np.testing.assert_array_equal(op.as_matrix(), matrix)
    np.testing.assert_allclose(P.x.T @ op, P.x.T @ matrix, rtol=1e-12)


def test_diagonal():
    rng = np.random.default_rng(0)
    index = np.stack([rng.choice(6, 4, replace=False) for _ in range(2)])
    op = GroupedColumns.from_indices((6, 6), index, jnp.asarray(rng.normal(size=(2, 4, 3))))
    np.testing.assert_array_equal(op.diag(), jnp.diag(op.as_matrix()))


@pytest.mark.parametrize("kernels", MODES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_moments_and_gradients(size, kernels, dtype):
    if dtype == jnp.bfloat16 and size not in (128, 257):
        return
    p = problem("grouped", size, dtype)
    variances = p.values**2

    def run(moments, *args):
        out, pull = jax.vjp(moments, *args)
        return out, pull((p.y.astype(out[0].dtype), 2 * p.y.astype(out[0].dtype)))

    ours = lambda m, v, x: grouped_moments(m, v, *p.index, x, kernels=kernels)  # noqa: E731
    twin = lambda m, v, x: (p.dense(m, *p.index).T @ x, p.dense(v, *p.index).T @ x**2)  # noqa: E731
    args = (p.values, variances, p.x)
    got = jax.jit(functools.partial(run, ours))(*args)
    want = jax.jit(functools.partial(run, twin))(*wide(args))
    tol = {name: 4 * t for name, t in tolerance(dtype).items()}
    for g, w in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert g.dtype == dtype
        np.testing.assert_allclose(np.asarray(g, np.float64), w, **tol)


def moments(m, v, x):
    return grouped_moments(m, v, *P.index, x)


def dense_moments(m, v, x):
    return P.dense(m, *P.index).T @ x, P.dense(v, *P.index).T @ x**2


ARGS = (P.values, P.values**2, P.x)


def test_higher_derivatives_of_moments():
    def second(moments):
        loss = lambda *a: sum(jnp.sum(jnp.sin(y)) for y in moments(*a))  # noqa: E731
        gradient = jax.grad(loss, (0, 1, 2))
        squared = lambda *a: sum(jnp.sum(jnp.cos(g)) for g in gradient(*a))  # noqa: E731

        def run(*args):
            return jax.grad(squared, (0, 1, 2))(*args), jax.jvp(gradient, args, args)[1]

        return jax.jit(run)(*ARGS)

    check = lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-10)  # noqa: E731
    jax.tree.map(check, second(moments), second(dense_moments))
    loss = jax.jit(lambda *a: sum(jnp.sum(jnp.sin(y)) for y in moments(*a)))
    check_grads(loss, ARGS, order=1, eps=1e-6, rtol=1e-6)


def test_vmap_of_moments():
    axes = [(0, 0, 0), (0, 0, None), (None, None, 0), (0, None, None)]
    both = jax.tree.map(lambda a: jnp.stack([a, jnp.cos(a)]), ARGS)

    @functools.partial(jax.jit, static_argnums=0)
    def mapped(moments):
        pick = lambda choice: [a if c is None else b for a, b, c in zip(ARGS, both, choice)]  # noqa: E731, B905
        return [jax.vmap(moments, choice)(*pick(choice)) for choice in axes]

    check = lambda g, w: np.testing.assert_allclose(g, w, rtol=1e-9, atol=1e-10)  # noqa: E731
    jax.tree.map(check, mapped(moments), mapped(dense_moments))


def test_mean_and_var_of_a_layer():
    op, variances = operator(), jnp.exp(P.values)
    mean, var = op.mean_and_var(variances, P.x.T.reshape(2, 8, 16))
    assert mean.shape == var.shape == (2, 8, 32)
    np.testing.assert_allclose(mean.reshape(16, 32), P.x.T @ op.as_matrix(), rtol=1e-12)
    spread = P.x.T**2 @ P.dense(variances, *P.index)
    np.testing.assert_allclose(var.reshape(16, 32), spread, rtol=1e-12)


def test_works_under_jit_with_traced_rows():
    run = eqx.filter_jit(lambda i, v, x: x.T @ GroupedColumns.from_indices(SHAPE, i, v))
    want = P.x.T @ P.dense(P.values, *P.index)
    np.testing.assert_allclose(run(*P.index, P.values, P.x), want, rtol=1e-12)
    with pytest.raises(RuntimeError, match=r"index must lie in \[0, 16\)"):
        run(P.index[0] + 9, P.values, P.x).block_until_ready()
    with pytest.raises(RuntimeError, match="reads a row twice"):
        run(P.index[0] // 8, P.values, P.x).block_until_ready()


@pytest.mark.errors
def test_bad_input_is_named():
    make = GroupedColumns.from_indices
    with pytest.raises(ValueError, match="a group reads a row twice"):
        make(SHAPE, INDEX // 8, P.values)
    with pytest.raises(ValueError, match=r"index must lie in \[0, 16\), got values from"):
        make(SHAPE, INDEX + 9, P.values)
    with pytest.raises(ValueError, match="4 groups of 8 columns are not the 40 columns"):
        make((16, 40), INDEX, P.values)
    with pytest.raises(ValueError, match=r"takes index \(groups, k\) and values"):
        make(SHAPE, INDEX[:, :-1], P.values)
    with pytest.raises(ValueError, match="none of them 0"):
        make(SHAPE, INDEX[:, :0], P.values[:, :0])
    with pytest.raises(ValueError, match="index must hold integers"):
        make(SHAPE, INDEX + 0.5, P.values)
    with pytest.raises(ValueError, match="floating-point"):
        make(SHAPE, INDEX, P.values.astype(jnp.int32))
    with pytest.raises(ValueError, match="one type, got values float64, x float32"):
        grouped_product(P.values, INDEX, P.x.astype(jnp.float32))
    with pytest.raises(ValueError, match=r"grouped columns are values \(groups, k, g\)"):
        grouped_product(P.values, INDEX, P.x[0])
    with pytest.raises(ValueError, match=r"var must be as mean, \(4, 5, 8\)"):
        grouped_moments(P.values, P.values[1:], INDEX, P.x)
    with pytest.raises(ValueError, match="is a transpose"):
        operator().T.mean_and_var(P.values, P.x)
    with pytest.raises(ValueError, match=r"x must have shape \(\.\.\., 16\)"):
        operator().mean_and_var(P.values, P.y.T)
