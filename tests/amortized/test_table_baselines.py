"""Gaussian-process regressions of tables: the dense formulas, and each row left out in turn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax.test_util import check_grads
from scipy.special import logsumexp, softmax

from bayesjx.amortized import _table_baselines as baselines

RNG = np.random.default_rng(3)
N, M, D, T = 7, 3, 4, 2
SHARES = np.array(baselines.NOISES)
Z, Z_NEW = RNG.normal(size=(N + 2, D)), RNG.normal(size=(M, D))
RANK, RANK_NEW = np.tanh(Z), np.tanh(Z_NEW)
USED = np.array([True, True, False, True])
for table in (Z, Z_NEW, RANK, RANK_NEW):
    table[:, 2] = 0
MASK = np.arange(N + 2) < N
Y = np.sin(2 * Z[:, :2]) + 0.3 * RNG.normal(size=(N + 2, T))
Y = Y - Y[:N].mean(axis=0)


def gram(a, b, rank_a, rank_b):
    """Kernels of the columns 0, 1 and 3, one entry at a time."""
    made = np.zeros((6, len(a), len(b)))
    for i, j in np.ndindex(len(a), len(b)):
        u, v = a[i, USED], b[j, USED]
        apart = np.sum((u - v) ** 2) / 3
        linear, near = (1 + u @ v / 3) / 2, np.exp(-apart / 2 / 0.5**2)
        far = np.exp(-apart / 2 / 1.2**2)
        additive = np.mean(np.exp(-((rank_a[i, USED] - rank_b[j, USED]) ** 2) / 2 / 0.7**2))
        sums = (linear + far) / 2, (linear + additive) / 2
        made[:, i, j] = (linear, near, far, additive, *sums)
    return made


def oracle():
    """Evidence, predictions, and those of the rows of the context given the others."""
    z, rank, y, p = Z[:N], RANK[:N], Y[:N], 2
    k = gram(z, z, rank, rank)
    cross, own = gram(Z_NEW, z, RANK_NEW, rank), gram(Z_NEW, Z_NEW, RANK_NEW, RANK_NEW)
    evidence, mean, var = (np.zeros((6, 5, *s)) for s in ((), (M, T), (M,)))
    loo_mean, loo_var = np.zeros((6, 5, N, T)), np.zeros((6, 5, N))
    for f, r in np.ndindex(6, 5):
        s = SHARES[r]
        a = (1 - s) * k[f] + s * np.eye(N)
        size = np.sum(y**2) / (p * N)
        v = (np.sum(y * np.linalg.solve(a, y)) / p + 2 * size) / (N + 2)
        evidence[f, r] = -0.5 * p * ((N + 2) * np.log(v) + np.linalg.slogdet(a)[1])
        v *= (N + 4) / (N + 2)
        c = (1 - s) * cross[f]
        mean[f, r] = c @ np.linalg.solve(a, y)
        explained = np.sum(c * np.linalg.solve(a, c.T).T, axis=1)
        var[f, r] = v * ((1 - s) * np.diag(own[f]) + s - explained)
        for i in range(N):
            rest = np.arange(N) != i
            b = np.linalg.solve(a[np.ix_(rest, rest)], np.column_stack([y[rest], a[rest, i]]))
            loo_mean[f, r, i] = a[i, rest] @ b[:, :T]
            loo_var[f, r, i] = v * (a[i, i] - a[i, rest] @ b[:, T])
    w = softmax(evidence, axis=1)
    log_evidence = logsumexp(evidence, axis=1)
    average = [np.einsum("fr,fr...->f...", w, q) for q in (mean, var, loo_mean, loo_var)]
    return log_evidence - logsumexp(log_evidence), *average


def run(z=Z, rank=RANK, used=USED, y=Y, mask=MASK, z_new=Z_NEW, rank_new=RANK_NEW):
    arrays = map(jnp.asarray, (z, rank, used, y, mask))
    fitted = baselines.table_baselines(*arrays, 2)
    return fitted, *fitted.predict(jnp.asarray(z_new), jnp.asarray(rank_new))


@functools.lru_cache(2)
def compiled(dtype):
    arrays = [jnp.asarray(a, dtype if a.dtype == float else bool) for a in
              (Z, RANK, USED, Y, MASK, Z_NEW, RANK_NEW)]  # fmt: skip
    return jax.jit(run)(*arrays)


def test_predictions_are_those_of_the_dense_formulas(dtype, tol):
    fitted, mean, scale = compiled(dtype)
    assert mean.dtype == dtype
    log_evidence, want, var, loo_mean, loo_var = oracle()
    tol = {"rtol": 20 * tol["rtol"], "atol": 20 * tol["atol"]}  # as the shares of the noise
    np.testing.assert_allclose(fitted.log_evidence, log_evidence, **tol)
    np.testing.assert_allclose(mean, np.moveaxis(want, 0, 1), **tol)
    np.testing.assert_allclose(scale**2, var.T, **tol)
    np.testing.assert_allclose(fitted.loo_mean[:N], np.moveaxis(loo_mean, 0, 1), **tol)
    np.testing.assert_allclose(fitted.loo_scale[:N] ** 2, loo_var.T, **tol)
    normal = scipy.stats.norm(loo_mean, np.sqrt(loo_var)[..., None]).logpdf(Y[:N])
    score = normal.sum(axis=-1).mean(axis=1) / 2 + 0.5 * np.log(2 * np.pi)
    np.testing.assert_allclose(fitted.score, score, **tol)
    features = fitted.features(mean, scale)
    assert features.shape == (M, baselines.num_features(T))


def test_tables_side_by_side_are_each_table():
    fitted, mean, scale = compiled(jnp.float64)
    other = Z[::-1], RANK[::-1], USED, Y[::-1], MASK[::-1], Z_NEW, RANK_NEW
    own = Z, RANK, USED, Y, MASK, Z_NEW, RANK_NEW
    both = jax.jit(run)(*(jnp.stack([a, b]) for a, b in zip(own, other, strict=True)))
    for i in (0, 1):  # the order of the rows makes no difference
        np.testing.assert_allclose(both[1][i], mean, rtol=1e-9)
        np.testing.assert_allclose(both[2][i], scale, rtol=1e-9)
    np.testing.assert_allclose(both[0].score, [fitted.score] * 2, rtol=1e-9)


def test_without_rows_or_columns_nothing_is_known():
    both = jax.jit(run)
    for used, mask in ((USED, np.zeros_like(MASK)), (np.zeros(D, bool), np.zeros_like(MASK))):
        z, z_new = np.where(used, Z, 0), np.where(used, 0.0 * Z_NEW, 0)
        fitted, mean, scale = both(z, z, used, Y, mask, z_new, z_new)
        np.testing.assert_allclose(mean, 0, atol=1e-12)
        assert np.all(np.isfinite(fitted.loo_scale))
        # a variance of 1, and the uncertainty of two rows about it; half of a linear one is unused
        np.testing.assert_allclose(scale[:, 1] ** 2, 2, rtol=1e-9)


def test_gradients():
    def loss(y, z_new):
        _, mean, scale = run(y=y, z_new=z_new)
        return jnp.sum(mean**2) + jnp.sum(jnp.log(scale))

    with jax.enable_x64(True):
        check_grads(jax.jit(loss), (jnp.asarray(Y), jnp.asarray(Z_NEW)), 1, ("rev",), 1e-5, 1e-5)


def test_masses_of_bars_are_those_of_a_mixture_of_normals(dtype):
    borders = np.array([-9.0, -1.0, -0.2, 0.4, 2.0, 9.0])
    mean, scale = RNG.normal(size=(M, 2)), np.exp(RNG.normal(size=(M, 2)))
    weights = np.array([0.3, 0.7])
    args = [jnp.asarray(a, dtype) for a in (borders, mean, scale, np.log(weights))]
    got = jax.jit(baselines.log_masses)(*args)
    edges = np.array([-np.inf, *borders[1:-1], np.inf])
    below = scipy.stats.norm(mean[..., None], scale[..., None]).cdf(edges)
    want = np.diff(np.einsum("f,mfk->mk", weights, below))
    np.testing.assert_allclose(np.exp(got), want + 1e-6, atol=1e-6 if dtype == jnp.float32 else 0)


@pytest.mark.parametrize("offset", [0.0, 30.0])
def test_float32_holds_far_rows(offset):
    """Rows on a line far out, whose Gram matrices are as good as singular."""
    z = (offset + np.linspace(0, 1e-3, 60))[:, None].astype(np.float32)
    y = np.sign(np.sin(np.arange(60.0)))[:, None].astype(np.float32)
    used, mask = np.array([True]), np.ones(60, bool)
    _, mean, scale = jax.jit(run)(z, z, used, y - y.mean(), mask, z[:5], z[:5])
    assert np.all(np.isfinite(mean)) and np.all(np.isfinite(scale)) and np.all(scale > 0.5)
