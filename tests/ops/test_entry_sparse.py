"""The operator of single entries."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sparse_layouts import problem

from bayesjx.ops import entry_product, EntrySparse

SHAPE = (7, 5)
RNG = np.random.default_rng(0)
# columns with 3, 0, 1, 2 and 1 entries, in no order
ROWS, COLS = np.array([6, 0, 3, 2, 5, 1, 4]), np.array([0, 3, 0, 0, 3, 2, 4])
VALUES = jnp.asarray(RNG.normal(size=7))
MATRIX = jnp.zeros(SHAPE).at[ROWS, COLS].set(VALUES)
X, Y = jnp.asarray(RNG.normal(size=(7, 3))), jnp.asarray(RNG.normal(size=(5, 3)))


def operator(values=VALUES):
    return EntrySparse.from_indices(SHAPE, ROWS, COLS, values)


def test_is_its_matrix():
    op = operator()
    assert op.shape == SHAPE and op.values.shape == (3, 5) and op.active.sum() == 7
    np.testing.assert_array_equal(op.as_matrix(), MATRIX)
    np.testing.assert_array_equal(op.T.as_matrix(), MATRIX.T)
    np.testing.assert_allclose(op.mm(Y), MATRIX @ Y, rtol=1e-12)
    np.testing.assert_allclose(X.T @ op, X.T @ MATRIX, rtol=1e-12)
    square = EntrySparse.from_indices((7, 7), ROWS, ROWS[[0, 2, 1, 3, 4, 5, 6]], VALUES)
    np.testing.assert_array_equal(square.diag(), jnp.diag(square.as_matrix()))


def test_padding_has_no_gradient():
    """Else an optimiser would move it, and entries would appear that nobody asked for."""
    filled = jax.tree.map(lambda a: jnp.ones_like(a) if a.dtype == VALUES.dtype else a, operator())
    np.testing.assert_array_equal(filled.as_matrix(), MATRIX != 0)
    loss = lambda op: jnp.sum(jnp.sin(X.T @ op))  # noqa: E731
    gradient = jax.grad(loss, allow_int=True)(operator()).values
    np.testing.assert_array_equal(gradient[~operator().active], 0)
    assert jnp.all(gradient[operator().active] != 0)


def test_gradient_goes_to_the_list_of_values():
    got = jax.jit(jax.grad(lambda v: jnp.sum(jnp.sin(X.T @ operator(v)))))(VALUES)
    dense = lambda v: jnp.sum(jnp.sin(X.T @ MATRIX.at[ROWS, COLS].set(v)))  # noqa: E731
    np.testing.assert_allclose(got, jax.grad(dense)(VALUES), rtol=1e-12)


def test_columns_of_equal_length():
    p = problem("entries")
    op = EntrySparse.from_columns((16, 32), p.index[0], p.values)
    assert op.active is None
    np.testing.assert_array_equal(op.as_matrix(), p.dense(p.values, *p.index))
    run = eqx.filter_jit(lambda i, v: EntrySparse.from_columns((16, 32), i, v).as_matrix())
    np.testing.assert_array_equal(run(*p.index, p.values), op.as_matrix())
    with pytest.raises(RuntimeError, match="a column has a row twice"):
        run(p.index[0] // 8, p.values).block_until_ready()


@pytest.mark.errors
def test_bad_input_is_named():
    make = EntrySparse.from_indices
    with pytest.raises(ValueError, match=r"same row and column; .*\(6, 0\)"):
        make(SHAPE, np.append(ROWS, 6), np.append(COLS, 0), jnp.append(VALUES, 1.0))
    with pytest.raises(ValueError, match=r"rows must lie in \[0, 7\), got values from 1 to 7"):
        make(SHAPE, ROWS + 1, COLS, VALUES)
    with pytest.raises(ValueError, match=r"cols must lie in \[0, 5\), got values from -1 to 3"):
        make(SHAPE, ROWS, COLS - 1, VALUES)
    with pytest.raises(ValueError, match=r"one shape \(nnz,\)"):
        make(SHAPE, ROWS[1:], COLS, VALUES)
    with pytest.raises(ValueError, match="at least one entry"):
        make(SHAPE, ROWS[:0], COLS[:0], VALUES[:0])
    with pytest.raises(ValueError, match="floating-point"):
        make(SHAPE, ROWS, COLS, VALUES.astype(jnp.int32))
    with pytest.raises(ValueError, match="cannot be traced"):
        jax.jit(lambda r: make(SHAPE, r, COLS, VALUES).as_matrix())(ROWS)
    with pytest.raises(ValueError, match="a column has a row twice"):
        EntrySparse.from_columns(SHAPE, np.zeros((2, 5), int), jnp.ones((2, 5)))
    with pytest.raises(ValueError, match=r"shape \(E, 5\)"):
        EntrySparse.from_columns(SHAPE, np.zeros((2, 4), int), jnp.ones((2, 4)))
    with pytest.raises(ValueError, match=r"takes values \(E, N\)"):
        entry_product(operator().values, operator().index[1:], X)
