"""Simulators of linear problems: their arrays fit together, and have the moments they say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import datasets


@functools.cache
def many():
    make = lambda key: datasets.kron_sparse(  # noqa: E731
        key, rows=(2, 3), columns=(5, 4), num_active=(2, 3), snr_db=10.0, dtype=jnp.complex64
    )
    return jax.jit(jax.vmap(make))(jax.random.split(jax.random.key(0), 500))


def test_kron_sparse_is_a_noisy_product():
    p = many()
    assert p.y.dtype == p.coefficients.dtype == jnp.complex64 and p.noise_var.dtype == jnp.float32
    for mask, k in zip(p.support, (2, 3), strict=True):
        assert np.all(mask.sum(axis=1) == k)
        share, error = mask.mean(axis=0), np.sqrt(0.25 / 500)
        assert np.all(np.abs(share - k / mask.shape[1]) < 5 * error)
    signal = np.einsum("tai,tbj,tij->tab", *p.factors, p.coefficients)
    noise = np.asarray(p.y - signal)
    ratio = np.mean(np.abs(noise) ** 2, axis=(1, 2)) / p.noise_var
    assert abs(ratio.mean() - 1) < 5 * np.sqrt(1 / 3000)
    power = np.mean(np.abs(signal) ** 2, axis=(1, 2))
    np.testing.assert_allclose(power / p.noise_var, 10.0, rtol=1e-4)
    grid = np.asarray(p.support[0])[:, :, None] & np.asarray(p.support[1])[:, None]
    np.testing.assert_array_equal(p.coefficients != 0, grid)
    small = np.linalg.svd(p.coefficients, compute_uv=False)
    assert np.all(small[:, 1] < 1e-5 * small[:, 0])  # a product of two vectors


def test_irs_mimo_is_the_channel_of_two_links():
    """The physical channel lies in the span of the factors; pilots are what it makes of them."""
    make = lambda key: datasets.irs_mimo(key, snr_db=200.0)  # noqa: E731
    p = jax.jit(jax.vmap(make))(jax.random.split(jax.random.key(3), 5))
    assert p.y.shape == (5, 6, 3, 16) and p.channel.shape == (5, 6, 6, 16)
    assert [f.shape[1:] for f in p.factors] == [(6, 18), (3, 18), (16, 18)]
    for trial in range(5):
        one = jax.tree.map(lambda x, t=trial: np.asarray(x[t]), p)
        counts = [int(mask.sum()) for mask in one.support]
        assert counts == [3, 1, 3] and np.count_nonzero(one.coefficients) == 9
        product = "kc,pj,bi,cji->kpb"
        np.testing.assert_allclose(
            np.einsum(product, *one.channel_factors, one.coefficients), one.channel, atol=1e-12
        )
        off = np.einsum(product, *one.factors, one.coefficients) - one.y
        assert np.abs(off).max() < 1e-8 * np.abs(one.y).max()


def test_keys_and_precisions():
    for make in (datasets.kron_sparse, datasets.irs_mimo):
        first, again, other = (make(jax.random.key(k)) for k in (0, 0, 1))
        jax.tree.map(np.testing.assert_array_equal, first, again)
        assert not np.allclose(first.y, other.y)
    assert datasets.irs_mimo(jax.random.key(0), dtype=jnp.complex64).y.dtype == jnp.complex64
    independent = datasets.kron_sparse(
        jax.random.key(0), rank_one=False, rows=(2, 3), columns=(4, 5)
    )
    assert np.linalg.matrix_rank(independent.coefficients) > 1


@pytest.mark.errors
def test_bad_sizes_are_named():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"num_active \(6, 6\) is more than columns"):
        datasets.kron_sparse(key, rows=(2, 3), columns=(5, 4), num_active=6)
    with pytest.raises(ValueError, match="one element for each axis"):
        datasets.kron_sparse(key, rows=(2, 3), columns=(5, 4, 3))
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        datasets.kron_sparse(key, rows=(2, 0), columns=(5, 4))
    with pytest.raises(ValueError, match="dtype must be complex"):
        datasets.irs_mimo(key, dtype=float)
    with pytest.raises(ValueError, match="angular_spread 19 is more than num_angles"):
        datasets.irs_mimo(key, angular_spread=19)
    with pytest.raises(ValueError, match="key must be one PRNG key"):
        datasets.irs_mimo(jax.random.split(key))
