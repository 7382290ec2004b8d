"""Block-diagonal matrices, as one array of blocks and as a tuple of operators."""

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
    peak_bytes,
)
from jax.scipy.linalg import block_diag

from bayesjx.ops import BlockDiag, Dense, Diag, LowRankPlusDiag, psd

T, B = 5, 3


def problem(dtype=jnp.float64):
    rng = np.random.default_rng(0)
    half = rng.standard_normal((T, B, B))
    return (jnp.asarray(half @ half.transpose(0, 2, 1) + np.eye(B), dtype),)


def make(blocks):
    blocks = 0.5 * (blocks + blocks.mT)  # gradients agree on the symmetric part only
    return BlockDiag(blocks, psd)


def dense(blocks):
    return block_diag(*(0.5 * (blocks + blocks.mT)))


def make_mixed(blocks):
    """Three operators of different kinds and sizes in a row."""
    first = blocks[0] @ blocks[0].T + jnp.eye(B, dtype=blocks.dtype)
    low_rank = LowRankPlusDiag(blocks[1][:, :2], jnp.diag(blocks[1]))
    return BlockDiag((Dense(first, psd), low_rank, Diag(jnp.diag(blocks[2])[:2], psd)))


def dense_mixed(blocks):
    return block_diag(*(block.as_matrix() for block in make_mixed(blocks).blocks))


CASES = pytest.mark.parametrize(
    "make, dense", [(make, dense), (make_mixed, dense_mixed)], ids=["array", "operators"]
)


@CASES
def test_methods_are_those_of_the_dense_matrix(make, dense, dtype, tol):
    assert_values(make, dense, problem(dtype), **tol)


@CASES
def test_derivatives_are_those_of_the_dense_matrix(make, dense):
    assert_derivatives(make, dense, problem())


@CASES
def test_draws_have_the_right_covariance(make, dense):
    assert_draws(make, dense, problem())


def test_vmap():
    assert_vmap(make, problem())


def test_blocks_that_are_not_positive_definite():
    (blocks,) = problem()

    @jit
    def both(blocks):
        x = columns(BlockDiag(blocks), 2)
        got, want = [], []
        for tags, part in (
            ((), (blocks + jnp.triu(blocks)).at[0].multiply(-1)),
            (lx.lower_triangular_tag, jnp.tril(blocks)),
            (lx.upper_triangular_tag, jnp.triu(blocks)),
        ):
            operator, matrix = BlockDiag(part, tags), block_diag(*part)
            inverse, logdet = jnp.linalg.inv(matrix), jnp.linalg.slogdet(matrix)[1]
            got += [operator.solve(x), operator.logdet(), operator.transpose().solve(x)]
            got += [operator.inverse_diag()]
            want += [inverse @ x, logdet, inverse.T @ x, jnp.diag(inverse)]
        return got, want

    for got, want in zip(*both(blocks), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)


def test_rectangular_blocks():
    blocks = problem()[0][:, :2]

    @jit
    def both(blocks):
        operator, matrix = BlockDiag(blocks), block_diag(*blocks)
        x = columns(operator, 2)
        mixed = BlockDiag((Dense(blocks[0]), Dense(blocks[1].T)))
        dense_mixed = block_diag(blocks[0], blocks[1].T)
        got = (operator @ x, operator.transpose() @ x[:10], mixed.transpose() @ x[:5])
        return got, (matrix @ x, matrix.T @ x[:10], dense_mixed.T @ x[:5])

    for got, want in zip(*both(blocks), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-12)


def test_tags_of_the_whole_are_those_of_all_blocks():
    eye = jnp.eye(3)
    tril = Dense(eye, lx.lower_triangular_tag)
    assert lx.is_lower_triangular(BlockDiag((tril, Diag(jnp.ones(2)))))
    assert not lx.is_symmetric(BlockDiag((tril, Dense(eye, psd))))
    assert lx.is_symmetric(BlockDiag((Dense(eye, lx.symmetric_tag), Dense(eye, psd))))


def test_many_blocks_stay_blocks():
    blocks = jnp.broadcast_to(2 * jnp.eye(B), (2000, B, B))

    def value_and_gradient(blocks, y):
        def fn(blocks, y):
            quad, logdet = BlockDiag(blocks, psd).inv_quad_logdet(y)
            return quad + logdet

        return jax.value_and_grad(fn, (0, 1))(blocks, y)

    assert peak_bytes(value_and_gradient, blocks, jnp.ones(2000 * B)) < 30 * blocks.nbytes


@pytest.mark.errors
def test_bad_input_is_named():
    (blocks,) = problem()
    with pytest.raises(ValueError, match=r"blocks must have shape \(T, m, n\).*got shape \(3, 3\)"):
        BlockDiag(blocks[0])
    with pytest.raises(ValueError, match=r"got shape \(0, 3, 3\)"):
        BlockDiag(blocks[:0])
    with pytest.raises(ValueError, match="must hold floating-point numbers, got int"):
        BlockDiag(blocks.astype(int))
    with pytest.raises(ValueError, match="jnp.stack"):
        BlockDiag(tuple(blocks))
    with pytest.raises(ValueError, match="or operators, got \\[\\]"):
        BlockDiag(())
    with pytest.raises(ValueError, match="tag the operators themselves"):
        BlockDiag((Dense(blocks[0]),), psd)
    with pytest.raises(ValueError, match=r"one type, got \['float64', 'float32'\]"):
        BlockDiag((Dense(blocks[0]), Dense(blocks[0].astype(jnp.float32))))
    with pytest.raises(ValueError, match="BlockDiag: vectors of 3221225472 elements"):
        jax.eval_shape(BlockDiag, jax.ShapeDtypeStruct((2**30, 3, 3), jnp.float64))
    bad = BlockDiag(blocks.at[3].multiply(-1), psd)
    for method in ("logdet", "inverse_diag", "root"):
        with pytest.raises(RuntimeError, match=f"{method}: block 3 of BlockDiag is not positive"):
            jax.jit(lambda bad, method=method: getattr(bad, method)())(bad)
    with pytest.raises(RuntimeError, match="solve: block 3 of BlockDiag is not positive"):
        bad.solve(jnp.ones(15))
    rectangular = BlockDiag((Dense(blocks[0][:2]), Dense(blocks[0][:2].T)))
    for compute in (rectangular.logdet, rectangular.diag, rectangular.inverse_diag):
        with pytest.raises(ValueError, match=r"square blocks in BlockDiag, they are \[\(2, 3\)"):
            compute()
    with pytest.raises(ValueError, match="solve needs a square operator, this one is"):
        BlockDiag(blocks[:, :2]).solve(jnp.ones(10))
