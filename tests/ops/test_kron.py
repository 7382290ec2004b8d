"""Kronecker products and sums, alone and with noise, against the dense matrices."""

import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import pytest
from jax.test_util import check_grads
from oracle import (
    assert_covariance,
    assert_trees_close,
    both,
    factors,
    GRID,
    kron,
    kron_sum,
    memory,
    N,
    spd,
    symmetrised,
    weighted,
)

from bayesjx import ops

Y = jax.random.normal(jax.random.key(9), (N,))


def product(params):
    return ops.Kron(*params["k"], tags=ops.psd)


def total(params):
    return ops.KronSum(*params["k"], tags=ops.psd)


def identity(params):
    return params["s"] * jnp.eye(N, dtype=params["s"].dtype)


CASES = {
    "product": (product, lambda p: kron(p["k"])),
    "product + noise": (
        lambda p: product(p) + ops.ScaledIdentity(p["s"]),
        lambda p: kron(p["k"]) + identity(p),
    ),
    "product + product": (
        lambda p: product(p) + ops.Kron(*p["noise"], tags=ops.psd),
        lambda p: kron(p["k"]) + kron(p["noise"]),
    ),
    "sum": (total, lambda p: kron_sum(p["k"])),
    "sum + noise": (
        lambda p: total(p) + ops.ScaledIdentity(p["s"]),
        lambda p: kron_sum(p["k"]) + identity(p),
    ),
    "scaled": (lambda p: product(p) * 2.0 + ops.ScaledIdentity(p["s"]),
               lambda p: 2 * kron(p["k"]) + identity(p)),
}  # fmt: skip


def params(dtype):
    return {
        "k": factors(dtype),
        "noise": factors(dtype, start=10),
        "s": jnp.asarray(0.4, dtype),
    }


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_those_of_the_dense_matrix(name, dtype):
    structured, dense = both(*CASES[name], Y)
    args = (params(dtype), Y.astype(dtype))
    exact = (params(jnp.float64), Y)
    tol = dict(rtol=1e-3, atol=2e-3) if dtype == jnp.float32 else dict(rtol=1e-9, atol=1e-9)
    run = jax.jit(lambda *a: (structured(*a), jax.grad(weighted(structured), (0, 1))(*a)))
    wanted = jax.jit(lambda *a: (dense(*a), jax.grad(weighted(dense), (0, 1))(*a)))
    found = symmetrised(run(*args))
    cast = jax.tree.map(lambda x: x.astype(dtype), symmetrised(wanted(*exact)))
    assert_trees_close(found, cast, **tol)


@pytest.mark.parametrize("name", ["product + noise", "product + product", "sum + noise"])
def test_derivatives_of_first_and_second_order(name):
    build, _ = CASES[name]

    def evidence(k, s, noise, y):
        k, noise = (tuple((x + x.T) / 2 for x in each) for each in (k, noise))
        return sum(build({"k": k, "s": s, "noise": noise}).inv_quad_logdet(y))

    p = params(jnp.float64)
    args = (p["k"], p["s"], p["noise"], Y)
    check_grads(jax.jit(evidence), args, order=1, modes=("fwd", "rev"), rtol=1e-6)
    once_more = jax.jit(lambda s, y: evidence(p["k"], s, p["noise"], y))
    check_grads(once_more, (p["s"], Y), order=2, modes=("rev",), rtol=1e-5)
    first = jax.jit(lambda k: evidence((k, *p["k"][1:]), p["s"], p["noise"], Y))
    check_grads(first, (p["k"][0],), order=2, modes=("rev",), rtol=1e-4)
    hessian = jax.jit(lambda y: jax.hessian(lambda y: evidence(p["k"], p["s"], p["noise"], y))(y))
    dense = CASES[name][1](p)
    np.testing.assert_allclose(hessian(Y), 2 * jnp.linalg.inv(dense), rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("name", ["product + noise", "product + product", "sum + noise"])
def test_equal_eigenvalues_have_finite_and_right_gradients(name):
    p = params(jnp.float64) | {"k": tuple(jnp.eye(n) for n in GRID)}
    structured, dense = both(*CASES[name], Y)
    found = jax.jit(jax.grad(weighted(structured)))(p, Y)
    wanted = jax.jit(jax.grad(weighted(dense)))(p, Y)
    assert_trees_close(symmetrised(found), symmetrised(wanted), rtol=1e-9, atol=1e-9)


def test_several_right_hand_sides_at_once():
    ys = jnp.stack([Y, jnp.cos(3 * Y), Y**2], 1)
    for name in ("product + noise", "product + product"):
        build, dense = CASES[name]

        def quads(p, ys, build=build):
            return build(p).inv_quad_logdet(ys).inv_quad

        def by_matrix(p, ys, dense=dense):
            return jnp.sum(ys * jnp.linalg.solve(dense(p), ys), axis=0)

        args = (params(jnp.float64), ys)
        both_of = [jax.jit(lambda *a, f=f: (f(*a), jax.grad(weighted(f), (0, 1))(*a)))
                   for f in (quads, by_matrix)]  # fmt: skip
        found, wanted = (symmetrised(f(*args)) for f in both_of)
        assert_trees_close(found, wanted, rtol=1e-9, atol=1e-9)


def test_vmap_over_factors_is_a_loop():
    structured, _ = both(*CASES["product + noise"], Y)
    each = [{"k": factors(start=3 * i), "s": jnp.asarray(0.1 + i)} for i in range(3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *each)
    run = jax.jit(structured)
    found = jax.jit(jax.vmap(structured, (0, None)))(stacked, Y)
    wanted = jax.tree.map(lambda *x: jnp.stack(x), *[run(p, Y) for p in each])
    assert_trees_close(found, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("shapes", [((2, 4), (3, 3), (6, 5)), ((7, 4), (1, 3)), ((5, 5),)])
def test_factors_of_any_shape_in_c_order(shapes, dtype, tol):
    matrices = tuple(
        jax.random.normal(jax.random.key(i), shape, dtype) for i, shape in enumerate(shapes)
    )
    op = ops.Kron(*matrices)
    x = jax.random.normal(jax.random.key(8), (op.shape[1], 3), dtype)
    want = np.asarray(kron(matrices))
    assert op.shape == want.shape
    run = jax.jit(lambda op, x: (op @ x, op.T @ (op @ x), (x.T @ op.T), op.mv(x[:, 0])))
    wanted = (want @ x, want.T @ want @ x, x.T @ want.T, want @ x[:, 0])
    assert_trees_close(run(op, x), jax.tree.map(jnp.asarray, wanted), rtol=tol["rtol"], atol=1e-4)
    np.testing.assert_allclose(op.as_matrix(), want, **tol)


def test_products_of_products_stay_structured():
    a, b = ops.Kron(*factors()), ops.Kron(*factors(start=5))
    assert isinstance(a @ b, ops.Kron)
    np.testing.assert_allclose((a @ b).as_matrix(), a.as_matrix() @ b.as_matrix(), rtol=1e-10)
    np.testing.assert_allclose((3.0 * a).as_matrix(), 3 * a.as_matrix(), rtol=1e-12)
    assert ops.psd not in (product({"k": factors()}) * -1.0).tags
    np.testing.assert_allclose(a.trace(), jnp.trace(a.as_matrix()), rtol=1e-12)


def test_eigenvectors_and_eigenvalues():
    op = product({"k": factors()})
    vectors, values = op.eigh()
    q = vectors.as_matrix()
    assert values.shape == GRID
    np.testing.assert_allclose((q * values.reshape(-1)) @ q.T, op.as_matrix(), atol=1e-12)


@pytest.mark.parametrize("name", CASES)
def test_roots_and_draws_have_the_covariance(name, dtype):
    build, dense = CASES[name]
    p = params(dtype)
    want = np.asarray(dense(params(jnp.float64)))
    op = build(p)
    root = jax.jit(lambda op: op.root().as_matrix())(op)
    np.testing.assert_allclose(root @ root.T, want, atol=1e-4 if dtype == jnp.float32 else 1e-11)
    draw = jax.jit(lambda op, key: (op.sample(key, (4000,)), op.sample_inverse(key, (4000,))))
    draws, inverse_draws = draw(op, jax.random.key(4))
    assert draws.dtype == dtype and draws.shape == (4000, N)
    assert_covariance(draws, want)
    assert_covariance(inverse_draws, np.linalg.inv(want))


def test_draws_are_differentiable_at_equal_eigenvalues():
    def one(k, s):
        op = ops.Kron(*k, tags=ops.psd) + ops.ScaledIdentity(s)
        return jnp.sum(op.sample(jax.random.key(0)) ** 3) + jnp.sum(
            op.sample_inverse(jax.random.key(1)) ** 3
        )

    eyes = tuple(jnp.eye(n) for n in GRID)
    check_grads(
        jax.jit(lambda a, s: one(tuple(a * k for k in eyes), s)),
        (jnp.asarray(1.3), jnp.asarray(0.2)),
        order=1,
        modes=("rev",),
    )
    assert all(jnp.isfinite(g).all() for g in jax.jit(jax.grad(one))(eyes, 0.2))


def test_posterior_variance_on_a_test_grid():
    p = params(jnp.float64)
    cross = tuple(jax.random.normal(jax.random.key(20 + d), (2, n)) for d, n in enumerate(GRID))
    op = product(p) + ops.ScaledIdentity(p["s"])
    prior = jnp.linspace(50.0, 60.0, 8)
    found = jax.jit(lambda op: op.marginal_variance(ops.Kron(*cross), prior))(op)
    rows = kron(cross)
    want = prior - jnp.diag(rows @ jnp.linalg.solve(CASES["product + noise"][1](p), rows.T))
    np.testing.assert_allclose(found, want, rtol=1e-10)


def test_lineax_solves_with_it_and_reads_its_tags():
    op = product({"k": factors()})
    found = lx.linear_solve(op, Y, lx.CG(rtol=1e-10, atol=1e-10)).value
    np.testing.assert_allclose(found, op.solve(Y), rtol=1e-6)
    np.testing.assert_allclose(op.solve(Y, solver=lx.CG(1e-10, 1e-10)), op.solve(Y), rtol=1e-6)
    with pytest.raises(ValueError, match="definite"):
        lx.linear_solve(ops.Kron(*factors()), Y, lx.CG(rtol=1e-6, atol=1e-6))


def test_a_factor_may_be_an_operator():
    op = ops.Kron(ops.Dense(spd(0, 3), ops.psd), ops.Diag(jnp.arange(1.0, 5.0), ops.psd))
    assert ops.psd in op.tags
    np.testing.assert_allclose(op.diag(), jnp.kron(jnp.diag(spd(0, 3)), jnp.arange(1.0, 5.0)))


def test_memory_stays_far_below_the_dense_matrix():
    k = tuple(jnp.eye(40) for _ in range(3))  # N = 64 000: dense 32 GB
    y = jnp.zeros(40**3)

    def evidence(k, y):
        return sum((ops.Kron(*k, tags=ops.psd) + ops.ScaledIdentity(0.1)).inv_quad_logdet(y))

    assert memory(jax.value_and_grad(evidence), k, y) < 60 * y.nbytes


@pytest.mark.errors
def test_bad_input_is_named():
    k = factors()
    with pytest.raises(ValueError, match="at least one factor"):
        ops.Kron()
    with pytest.raises(ValueError, match=r"factor 1 must be a matrix.*\(3,\)"):
        ops.Kron(k[0], jnp.ones(3))
    with pytest.raises(ValueError, match="factor 0 must hold floating-point"):
        ops.Kron(jnp.ones((2, 2), int))
    with pytest.raises(ValueError, match="factor 0 float64, factor 1 float32"):
        ops.Kron(k[0], k[1].astype(jnp.float32))
    with pytest.raises(ValueError, match=r"square factors, factor 1 has shape \(3, 2\)"):
        ops.Kron(k[0], jnp.ones((3, 2)), tags=ops.psd)
    with pytest.raises(ValueError, match="beyond 32-bit"):
        ops.Kron(*[jnp.ones((1291, 1))] * 3)
    with pytest.raises(ValueError, match="tags=ops.psd"):
        ops.Kron(*k) + ops.ScaledIdentity(0.1)
    with pytest.raises(ValueError, match="tags=ops.psd"):
        ops.Kron(*k).root()
    op = product({"k": k})
    with pytest.raises(ValueError, match=r"vector must have shape \(60,\), got \(59,\)"):
        op.mv(jnp.ones(59))
    with pytest.raises(ValueError, match="holds float64 and vector is float32"):
        op.mv(jnp.ones(60, jnp.float32))
    with pytest.raises(ValueError, match="the sizes differ"):
        op + ops.ScaledIdentity(0.1, 7)
    with pytest.raises(ValueError, match=r"\(4, 3, 5\) and \(5, 3, 4\) rows"):
        op + ops.Kron(k[2], k[1], k[0], tags=ops.psd)
    with pytest.raises(ValueError, match="needs a square operator"):
        ops.Kron(jnp.ones((2, 3))).solve(jnp.ones(2))
    with pytest.raises(ValueError, match="needs a symmetric Kron"):
        ops.Kron(*k).eigh()


@pytest.mark.errors
def test_bad_values_are_named_under_jit():
    bad = (jnp.diag(jnp.array([1.0, -1.0])), jnp.eye(3))
    make = jax.jit(lambda k: (ops.Kron(*k, tags=ops.psd) + ops.ScaledIdentity(3.0)).logdet())
    with pytest.raises(Exception, match="factor 0 has a negative eigenvalue"):
        jax.block_until_ready(make(bad))
    with pytest.raises(Exception, match="not positive definite"):
        jax.block_until_ready(jax.jit(lambda k: ops.Kron(*k, tags=ops.psd).logdet())(bad))
    lost = (jnp.full((2, 2), jnp.nan), jnp.eye(3))
    assert jnp.isnan(make(lost))
