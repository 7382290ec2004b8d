"""Kronecker-OMP and the oracle against NumPy, and what they report."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayesjx import datasets, sbl
from bayesjx._core import RESULTS

ROWS, COLUMNS = (5, 6, 4), (7, 5, 5)


@functools.cache
def problems():
    make = lambda key: datasets.kron_sparse(  # noqa: E731
        key, rows=ROWS, columns=COLUMNS, num_active=(2, 1, 2), snr_db=30.0, dtype=complex
    )
    return jax.jit(jax.vmap(make))(jax.random.split(jax.random.key(2), 3))


@jax.jit
def answers(p):
    found = sbl.kron_orthogonal_matching_pursuit(p.factors, p.y, noise_var=p.noise_var)
    return found, sbl.oracle_least_squares(p.factors, p.y, p.support)


def dense(factors):
    return functools.reduce(np.kron, [np.asarray(f) for f in factors])


def naive_pursuit(factors, y, noise_var):
    """Sets of columns, and coefficients by least squares with the dense dictionary."""
    norms = [np.linalg.norm(f, axis=0) for f in factors]
    unit = dense([f / n for f, n in zip(factors, norms, strict=True)])
    flat, sets, coefficients = y.ravel(), [set(), set(), set()], np.zeros(unit.shape[1], complex)
    residual, steps = flat, 0
    while np.sum(np.abs(residual) ** 2) > noise_var * flat.size:
        best = np.unravel_index(np.argmax(np.abs(unit.conj().T @ residual)), COLUMNS)
        for chosen, i, room in zip(sets, best, ROWS, strict=True):
            if len(chosen) < room:
                chosen.add(i)
        coefficients = on_support(factors, y, sets)
        residual, steps = flat - dense(factors) @ coefficients, steps + 1
    return coefficients, sets, steps


def on_support(factors, y, sets):
    masks = [np.isin(np.arange(n), list(s)) for n, s in zip(COLUMNS, sets, strict=True)]
    at = np.flatnonzero(dense(masks))
    coefficients = np.zeros(np.prod(COLUMNS), complex)
    coefficients[at] = np.linalg.lstsq(dense(factors)[:, at], y.ravel())[0]
    return coefficients


def test_pursuit_and_oracle_are_numpys_in_a_batch():
    p = problems()
    found, oracle = jax.jit(jax.vmap(answers))(p)
    assert np.all(found.converged)
    for i in range(3):
        one = jax.tree.map(lambda x, i=i: np.asarray(x[i]), p)
        mean, sets, steps = naive_pursuit(one.factors, one.y, one.noise_var)
        np.testing.assert_allclose(found.mean[i].ravel(), mean, rtol=1e-8, atol=1e-10)
        assert found.num_steps[i] == steps
        for mask, chosen in zip(found.active_factors, sets, strict=True):
            assert set(np.flatnonzero(mask[i])) == chosen
        truth = [np.flatnonzero(mask) for mask in one.support]
        want = on_support(one.factors, one.y, truth)
        np.testing.assert_allclose(oracle[i].ravel(), want, rtol=1e-8, atol=1e-10)
        off = np.linalg.norm(one.y.ravel() - dense(one.factors) @ mean)
        np.testing.assert_allclose(found.residual_norm[i], off, rtol=1e-8)


def test_oracle_of_a_tall_design_with_snapshots_and_equal_columns(dtype):
    rng = np.random.default_rng(0)
    design, y = rng.normal(size=(17, 5)), rng.normal(size=(17, 3))
    design[:, 4] = design[:, 1]
    mask = np.array([True, True, False, True, True])
    found = sbl.oracle_least_squares(jnp.asarray(design, dtype), jnp.asarray(y, dtype), mask)
    want = np.linalg.pinv(design * mask) @ y
    assert found.dtype == dtype and found.shape == (5, 3)
    tol = 1e-5 if dtype == jnp.float32 else 1e-10
    np.testing.assert_allclose(found, want, rtol=tol, atol=tol)
    assert not np.any(sbl.oracle_least_squares(design, 0 * y, mask))


def test_pursuit_reports_what_it_could_not_fit():
    factors, y = (np.eye(3)[:, :2], np.eye(2)), np.ones((3, 2))
    found = sbl.kron_orthogonal_matching_pursuit(factors, y, noise_var=0.1)
    assert found.result == RESULTS.max_steps_reached or found.result == RESULTS.stagnation
    np.testing.assert_allclose(found.residual_norm, np.sqrt(2), rtol=1e-12)
    np.testing.assert_allclose(found.mean, np.ones((2, 2)), rtol=1e-12)
    at_once = sbl.kron_orthogonal_matching_pursuit(factors, y, noise_var=10.0)
    assert at_once.num_steps == 0 and at_once.converged and not np.any(at_once.active)


@pytest.mark.errors
def test_bad_arguments_are_named():
    p = jax.tree.map(lambda x: x[0], problems())
    with pytest.raises(ValueError, match="support must hold booleans"):
        sbl.oracle_least_squares(p.factors, p.y, p.support[:2])
    with pytest.raises(ValueError, match="support must hold booleans"):
        sbl.oracle_least_squares(p.factors, p.y, tuple(np.flatnonzero(m) for m in p.support))
    with pytest.raises(ValueError, match="noise_var must be finite and positive"):
        sbl.kron_orthogonal_matching_pursuit(p.factors, p.y, noise_var=-1.0)
    with pytest.raises(ValueError, match="y is zero everywhere"):
        sbl.kron_orthogonal_matching_pursuit(p.factors, 0 * p.y, noise_var=1.0)
    with pytest.raises(RuntimeError, match="not converged in as many steps"):
        sbl.kron_orthogonal_matching_pursuit(
            p.factors, p.y, noise_var=p.noise_var, max_steps=1, throw=True
        )
