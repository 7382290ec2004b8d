"""Kronecker products with missing cells or a noise for every cell, against dense submatrices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import (
    assert_covariance,
    assert_trees_close,
    both,
    factors,
    GRID,
    kron,
    memory,
    N,
    symmetrised,
    weighted,
)

from bayesjx import ops

Y = jax.random.normal(jax.random.key(9), (N,))
RNG = np.random.default_rng(0)
MASKS = {share: np.sort(RNG.permutation(N)[: int(share * N)]) for share in (0.9, 0.5, 0.1)}


def mask_of(share):
    mask = np.zeros(N, bool)
    mask[MASKS[share]] = True
    return mask


def full(p):
    return ops.Kron(*p["k"], tags=ops.psd) + ops.ScaledIdentity(p["s"])


def dense(p, index=slice(None)):
    return (kron(p["k"]) + p["s"] * jnp.eye(N, dtype=p["s"].dtype))[index][:, index]


def params(dtype=jnp.float64):
    return {"k": factors(dtype), "s": jnp.asarray(0.4, dtype)}


@pytest.mark.parametrize("share", MASKS)
def test_exact_solver_is_the_dense_submatrix(share, dtype):
    index = MASKS[share]
    structured, by_matrix = both(
        lambda p: ops.Masked(full(p), mask_of(share)), lambda p: dense(p, index), None
    )
    y = Y[index]
    tol = dict(rtol=1e-3, atol=2e-3) if dtype == jnp.float32 else dict(rtol=1e-9, atol=1e-9)
    run = jax.jit(lambda *a: (structured(*a), jax.grad(weighted(structured), (0, 1))(*a)))
    wanted = jax.jit(lambda *a: (by_matrix(*a), jax.grad(weighted(by_matrix), (0, 1))(*a)))
    found = symmetrised(run(params(dtype), y.astype(dtype)))
    cast = jax.tree.map(lambda x: x.astype(dtype), symmetrised(wanted(params(), y)))
    assert_trees_close(found, cast, **tol)


@pytest.mark.parametrize("share", MASKS)
def test_conjugate_gradients_solve_and_differentiate(share):
    index = MASKS[share]

    def solve(p, y):
        return ops.Masked(full(p), mask_of(share), solver="cg", rtol=1e-12).solve(y)

    def by_matrix(p, y):
        return jnp.linalg.solve(dense(p, index), y)

    y = jnp.stack([Y[index], jnp.zeros(len(index)).at[0].set(1.0)], 1)  # zeros do not stall it
    both_of = [jax.jit(jax.value_and_grad(weighted(f), (0, 1))) for f in (solve, by_matrix)]
    found, wanted = (symmetrised(f(params(), y)) for f in both_of)
    assert_trees_close(found, wanted, rtol=1e-8, atol=1e-8)


def test_few_missing_cells_take_few_steps():
    """P_oo A_oo differs from the identity in as many directions as cells are missing."""
    for missing in (1, 3):
        mask = np.ones(GRID, bool)
        mask.reshape(-1)[[7, 20, 41][:missing]] = False
        op = ops.Masked(full(params()), mask, solver="cg", rtol=1e-10)
        solve = jax.jit(lambda op, y: op.solve_cg(y[:, None]))(op, Y[mask.reshape(-1)])
        assert bool(solve.converged.all())
        assert int(solve.num_steps[0]) <= missing + 2  # the last step sees that it has converged


def test_no_missing_cell_is_the_full_grid():
    op = ops.Masked(full(params()), np.ones(GRID, bool))
    want = full(params())
    np.testing.assert_allclose(op.solve(Y), want.solve(Y), rtol=1e-12)
    np.testing.assert_allclose(op.logdet(), want.logdet(), rtol=1e-12)


def test_kronecker_noise_and_mask():
    noise = ops.Kron(*factors(start=10), tags=ops.psd)
    op = ops.Masked(ops.Kron(*factors(), tags=ops.psd) + noise, mask_of(0.5))
    index = MASKS[0.5]
    want = (kron(factors()) + kron(factors(start=10)))[index][:, index]
    found = jax.jit(lambda op, y: (op.solve(y), op.logdet()))(op, Y[index])
    wanted = (jnp.linalg.solve(want, Y[index]), jnp.linalg.slogdet(want)[1])
    assert_trees_close(found, wanted, rtol=1e-9)


def test_scaled_eigenvalues_are_those_of_the_formula():
    share, p = 0.9, params()
    op = ops.Masked(full(p), mask_of(share), solver="cg", logdet="scaled")
    eigenvalues = jnp.sort(jnp.linalg.eigvalsh(kron(p["k"])))[::-1][: len(MASKS[share])]
    want = jnp.sum(jnp.log(len(MASKS[share]) / N * eigenvalues + p["s"]))
    np.testing.assert_allclose(op.logdet(), want, rtol=1e-10)

    def logdet(s):
        return ops.Masked(full(p | {"s": s}), mask_of(share), solver="cg", logdet="scaled").logdet()

    step = 1e-5
    slope = (logdet(p["s"] + step) - logdet(p["s"] - step)) / (2 * step)
    np.testing.assert_allclose(jax.grad(logdet)(p["s"]), slope, rtol=1e-6)


def test_draws_have_the_covariance_of_the_observed():
    op = ops.Masked(full(params()), mask_of(0.5))
    draws = jax.jit(lambda op: op.sample(jax.random.key(4), (4000,)))(op)
    assert_covariance(draws, np.asarray(dense(params(), MASKS[0.5])))


def test_noise_of_every_cell():
    noise = jnp.exp(jax.random.normal(jax.random.key(3), (N,)))

    def solve(k, noise, y):
        return (ops.Kron(*k, tags=ops.psd) + ops.Diag(noise)).solve(y)

    def by_matrix(k, noise, y):
        return jnp.linalg.solve(kron(k) + jnp.diag(noise), y)

    both_of = [jax.jit(jax.value_and_grad(weighted(f), (0, 1, 2))) for f in (solve, by_matrix)]
    found, wanted = (symmetrised(f(factors(), noise, Y)) for f in both_of)
    assert_trees_close(found, wanted, rtol=1e-6, atol=1e-6)
    op = ops.Kron(*factors(), tags=ops.psd) + ops.Diag(noise)
    draws = jax.jit(lambda op: op.sample(jax.random.key(4), (4000,)))(op)
    assert_covariance(draws, np.asarray(kron(factors()) + jnp.diag(noise)))


def test_memory_stays_far_below_the_dense_matrix():
    k = tuple(jnp.eye(30) for _ in range(3))  # n = 27 000: dense 5.8 GB
    mask = np.ones(30**3, bool)
    mask[::300] = False
    y = jnp.zeros(mask.sum())

    def evidence(k, y):
        op = ops.Kron(*k, tags=ops.psd) + ops.ScaledIdentity(0.1)
        return sum(ops.Masked(op, mask).inv_quad_logdet(y))

    assert memory(jax.value_and_grad(evidence), k, y) < 1000 * y.nbytes  # chunks of 64 columns


@pytest.mark.errors
def test_bad_input_is_named():
    op = full(params())
    with pytest.raises(ValueError, match=r"booleans of shape \(4, 3, 5\) or \(60,\)"):
        ops.Masked(op, np.ones((3, 4, 5), bool))
    with pytest.raises(ValueError, match="got int64"):
        ops.Masked(op, np.ones(GRID, int))
    with pytest.raises(ValueError, match="all false"):
        ops.Masked(op, np.zeros(GRID, bool))
    with pytest.raises(ValueError, match="known when traced"):
        jax.jit(lambda mask: ops.Masked(op, mask).logdet())(jnp.ones(GRID, bool))
    with pytest.raises(ValueError, match="solver must be"):
        ops.Masked(op, np.ones(GRID, bool), solver="lu")
    with pytest.raises(ValueError, match="needs a key"):
        ops.Masked(op, np.ones(GRID, bool), logdet="lanczos")
    with pytest.raises(ValueError, match='logdet="lanczos" or "scaled"'):
        ops.Masked(op, mask_of(0.5), solver="cg").logdet()
    with pytest.raises(ValueError, match="must be a Kron plus noise"):
        ops.Masked(ops.Kron(*factors(), tags=ops.psd), np.ones(GRID, bool))
    with pytest.raises(ValueError, match=r"shape \(60,\), got \(59,\)"):
        ops.KronPlusDiag(ops.Kron(*factors(), tags=ops.psd), jnp.ones(59))
    with pytest.raises(Exception, match="variances must be positive"):
        ops.Kron(*factors(), tags=ops.psd) + ops.Diag(jnp.zeros(N))
    with pytest.raises(Exception, match="did not converge"):
        stuck = ops.Masked(op, mask_of(0.5), solver="cg", rtol=1e-12, max_steps=2)
        jax.block_until_ready(stuck.solve(Y[MASKS[0.5]]))
