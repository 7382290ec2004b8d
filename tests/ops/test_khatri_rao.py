"""Row-wise Kronecker products, and what observations explain of test points, against dense."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import factors, GRID, kron, N, symmetrised, weighted

from bayesjx import ops

RNG = np.random.default_rng(0)
MASK = np.ones(N, bool)
MASK[[3, 7, 20, 41]] = False
CROSS = {
    "Kron": [jnp.asarray(RNG.normal(size=(m, n))) for m, n in zip((2, 3, 4), GRID, strict=True)],
    "KhatriRao": [jnp.asarray(RNG.normal(size=(7, n))) for n in GRID],
}
SOLVERS = {
    "full": None,
    "exact": {"solver": "schur"},
    "iterations": {"solver": "cg", "rtol": 1e-13},
}


def dense_cross(kind, parts):
    if kind == "Kron":
        return kron(parts)
    return jnp.stack([kron([part[i][None] for part in parts])[0] for i in range(len(parts[0]))])


def test_products_are_the_dense_ones(dtype, tol):
    parts = [part.astype(dtype) for part in CROSS["KhatriRao"]]
    operator = ops.KhatriRao(*parts)
    dense = dense_cross("KhatriRao", parts)
    x, z = jnp.asarray(RNG.normal(size=(N, 3)), dtype), jnp.asarray(RNG.normal(size=(7, 2)), dtype)
    found = jax.jit(lambda a: (a.dense(), a.mm(x), a.mv(x[:, 0]), a.T.mm(z), a.T.T.mm(x)))(operator)
    for f, w in zip(
        found, (dense, dense @ x, dense @ x[:, 0], dense.T @ z, dense @ x), strict=True
    ):
        assert f.dtype == dtype
        np.testing.assert_allclose(f, w, **tol)


def test_many_rows_are_made_in_chunks(monkeypatch):
    from bayesjx.ops import _khatri_rao

    parts = [jnp.asarray(RNG.normal(size=(150, n))) for n in GRID]
    x = jnp.asarray(RNG.normal(size=(N, 2)))
    want = ops.KhatriRao(*parts).mm(x)
    monkeypatch.setattr(_khatri_rao, "LARGEST", 1)
    np.testing.assert_allclose(ops.KhatriRao(*parts).mm(x), want, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", CROSS)
@pytest.mark.parametrize("solver", SOLVERS)
def test_marginal_variance_and_inverse_diagonal(kind, solver):
    """Values and gradients in the factors, the noise and the cross-covariances."""

    def structured(k, s, parts):
        op = ops.Kron(*k, tags=ops.psd) + ops.ScaledIdentity(s)
        if SOLVERS[solver] is not None:
            op = ops.Masked(op, MASK, **SOLVERS[solver])
        cross = getattr(ops, kind)(*parts)
        return op.marginal_variance(cross, jnp.zeros(cross.shape[0])), op.inverse_diag()

    def by_matrix(k, s, parts):
        seen = slice(None) if SOLVERS[solver] is None else np.flatnonzero(MASK)
        inverse = jnp.linalg.inv((kron(k) + s * jnp.eye(N))[seen][:, seen])
        cross = dense_cross(kind, parts)[:, seen]
        return -jnp.sum(cross @ inverse * cross, axis=1), jnp.diag(inverse)

    args = factors(), jnp.asarray(0.4), CROSS[kind]

    def run(function):
        return jax.jit(lambda *a: (function(*a), jax.grad(weighted(function), (0, 1, 2))(*a)))

    found, wanted = (symmetrised(run(f)(*args)) for f in (structured, by_matrix))
    for f, w in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-8, atol=1e-9)


@pytest.mark.errors
def test_factors_of_other_rows_are_named():
    with pytest.raises(ValueError, match="same number of rows"):
        ops.KhatriRao(jnp.ones((3, 2)), jnp.ones((4, 2)))
    with pytest.raises(ValueError, match="same number of rows"):
        ops.KhatriRao()
