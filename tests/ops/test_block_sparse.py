"""The operator of dense blocks."""

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from sparse_layouts import problem

from bayesjx.ops import block_product, BlockSparse

SHAPE = (16, 32)
P = problem("blocks")
ROWS, COLS = (np.asarray(i) for i in P.index)


def operator():
    return BlockSparse.from_indices(SHAPE, ROWS, COLS, P.values)


def test_is_its_matrix():
    op, dense = operator(), P.dense(P.values, *P.index)
    assert op.shape == SHAPE and op.T.shape == SHAPE[::-1] and op.dtype == P.values.dtype
    assert op.density == P.values.size / (16 * 32)
    np.testing.assert_array_equal(op.as_matrix(), dense)
    np.testing.assert_array_equal(op.T.as_matrix(), dense.T)
    np.testing.assert_allclose(op.mv(P.y[:, 0]), dense @ P.y[:, 0], rtol=1e-12)
    np.testing.assert_allclose(op.T.mm(P.x), dense.T @ P.x, rtol=1e-12)
    np.testing.assert_allclose(P.x.T @ op, P.x.T @ dense, rtol=1e-12)


def test_diagonal_of_blocks_that_are_not_square():
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.normal(size=(5, 2, 3)))
    rows, cols = np.array([0, 1, 1, 2, 5]), np.array([0, 0, 1, 1, 3])
    op = BlockSparse.from_indices((12, 12), rows, cols, values)
    np.testing.assert_array_equal(op.diag(), jnp.diag(op.as_matrix()))


def test_transposed_tags():
    values = jnp.asarray(np.tril(np.ones((1, 4, 4))))
    op = BlockSparse.from_indices((4, 4), [0], [0], values, lx.lower_triangular_tag)
    assert lx.is_lower_triangular(op) and lx.is_upper_triangular(op.T)


def test_repeated_blocks_are_summed_where_they_are_not_checked():
    rows, cols = jnp.array([0, 0, 1]), jnp.array([1, 1, 0])
    for kernels in ("xla", "interpret-tpu", "interpret-cuda"):
        product = lambda v, x, kernels=kernels: block_product(v, rows, cols, x, 32, kernels=kernels)  # noqa: E731
        want = P.dense(P.values, rows, cols).T @ P.x
        np.testing.assert_allclose(jax.jit(product)(P.values, P.x), want, rtol=1e-10, atol=1e-12)


def test_size_beyond_int32_is_held():
    """The dense matrix would have 2⁴⁰ entries."""
    size, values = 2**20, jnp.ones((2, 2, 2), jnp.float32)
    op = BlockSparse.from_indices((size, size), [0, size // 2 - 1], [size // 2 - 1, 1], values)
    y = op.T.mv(jnp.ones(size, jnp.float32))
    np.testing.assert_array_equal(jnp.nonzero(y)[0], [2, 3, size - 2, size - 1])


def test_works_under_jit_with_traced_places():
    run = eqx.filter_jit(lambda r, c, v, x: x.T @ BlockSparse.from_indices(SHAPE, r, c, v))
    want = P.x.T @ P.dense(P.values, *P.index)
    np.testing.assert_allclose(run(*P.index, P.values, P.x), want, rtol=1e-12)
    with pytest.raises(RuntimeError, match=r"rows must lie in \[0, 2\)"):
        run(P.index[0] + 2, P.index[1], P.values, P.x).block_until_ready()
    with pytest.raises(RuntimeError, match="same row and column"):
        run(P.index[0] * 0, P.index[1] * 0, P.values, P.x).block_until_ready()


@pytest.mark.errors
def test_bad_input_is_named():
    make = BlockSparse.from_indices
    with pytest.raises(ValueError, match=r"same row and column; .*\(1, 0\)"):
        make(SHAPE, [1, 0, 1], [0, 0, 0], P.values)
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 2\), got values from 0 to 2"):
        make(SHAPE, [0, 1, 2], [0, 0, 0], P.values)
    with pytest.raises(ValueError, match=r"cols must lie in \[0, 2\), got values from -1"):
        make(SHAPE, [0, 1, 0], [0, 0, -1], P.values)
    with pytest.raises(ValueError, match="at least one block"):
        make(SHAPE, np.zeros(0, int), np.zeros(0, int), jnp.zeros((0, 8, 16)))
    with pytest.raises(ValueError, match=r"values \(S, bk, bn\)"):
        make(SHAPE, [0, 1], [0, 0], P.values)
    with pytest.raises(ValueError, match="floating-point"):
        make(SHAPE, ROWS, COLS, P.values.astype(jnp.int32))
    with pytest.raises(ValueError, match="rows must hold integers"):
        make(SHAPE, ROWS + 0.0, COLS, P.values)
    with pytest.raises(ValueError, match="whole number of blocks"):
        make((17, 32), ROWS, COLS, P.values)
    with pytest.raises(ValueError, match="two positive integers"):
        make((0, 32), ROWS, COLS, P.values)
    with pytest.raises(ValueError, match="beyond 32-bit indexing"):
        make((2**31, 32), ROWS, COLS, P.values)
    with pytest.raises(ValueError, match="holds float64 and x is float32"):
        operator().mm(P.y.astype(jnp.float32))
    with pytest.raises(ValueError, match=r"x must have shape \(K, M\)"):
        block_product(P.values, ROWS, COLS, P.x[0], 32)
    with pytest.raises(ValueError, match="all arrays must have one type"):
        block_product(P.values, ROWS, COLS, P.x.astype(jnp.float32), 32)
    with pytest.raises(ValueError, match="solve needs a square operator"):
        operator().solve(P.x)


@pytest.mark.errors
def test_vmap_beyond_int32_is_named():
    """Not by any operand's size: 2¹² matrices with 2²⁰ rows each are one with 2³² rows."""
    values = jax.ShapeDtypeStruct((2**12, 1, 1, 1), jnp.float32)
    x = jax.ShapeDtypeStruct((2**12, 2**20, 1), jnp.float32)
    product = lambda v, x: block_product(v, np.array([0]), np.array([0]), x, 1)  # noqa: E731
    with pytest.raises(ValueError, match="vmap over 4096 sparse matrices of 1048576 rows"):
        jax.eval_shape(jax.vmap(product), values, x)
