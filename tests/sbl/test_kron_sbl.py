"""KroSBL against the same model by dense algebra in NumPy: steps, moments, evidence and draws."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from bayesjx import datasets, sbl
from bayesjx._core import RESULTS
from bayesjx.sbl import _kron_updates as updates

STEPS = 12
ROWS = {
    # update, rows and columns of the factors, complex, snapshots, coupling
    "am": ("am", ((3, 5), (4, 3), (2, 4)), False, 0, None),
    "svd": ("svd", ((3, 5), (4, 7)), True, 2, None),
    "convex": ("convex", ((7, 3), (3, 5)), True, 0, None),
    "ksbl": ("ksbl", ((5, 3), (3, 7)), False, 0, None),
    "classic": ("am", ((7, 11),), False, 3, None),
    "coupled": ("am", ((5, 7), (3, 5)), False, 0, (0.8, None)),
}


def normal(rng, shape, is_complex):
    draw = rng.normal(size=shape)
    return (draw + 1j * rng.normal(size=shape)) / np.sqrt(2) if is_complex else draw


def problem(sizes, is_complex, snapshots):
    """Two blocks of a Kronecker-structured support, in units far from 1."""
    rng = np.random.default_rng(3)
    factors = tuple(3.0 * normal(rng, size, is_complex) for size in sizes)
    truth = np.zeros([n for _, n in sizes] + [snapshots or 1], factors[0].dtype)
    active = (*(slice(1, 3) for _ in sizes), slice(None))
    truth[active] = normal(rng, truth[active].shape, is_complex)
    signal = kron(factors) @ truth.reshape(-1, truth.shape[-1])
    y = signal + 0.2 * np.std(signal) * normal(rng, signal.shape, is_complex)
    y = 40 * y.reshape([m for m, _ in sizes] + [-1])
    return factors, y if snapshots else y[..., 0]


def kron(matrices):
    return functools.reduce(np.kron, matrices)


def dense(factors, y, variances, noise_var):
    """Mean `(n, L)`, variance, evidence and effective degrees of freedom."""
    design, prior = kron(factors), kron(variances)
    flat = np.reshape(y, (len(design), -1))
    cov = (design * prior) @ design.conj().T + noise_var * np.eye(len(design))
    gain = np.linalg.solve(cov, design).conj().T * prior[:, None]
    variance = prior - np.sum(gain * design.T, axis=1).real * prior
    quad = np.sum(flat.conj() * np.linalg.solve(cov, flat)).real
    half = 1.0 if np.iscomplexobj(design) else 0.5
    logdet = np.linalg.slogdet(np.pi / half * cov)[1]
    dof = np.sum(1 - variance / np.where(prior > 0, prior, 1))
    return gain @ flat, variance, -half * (flat.shape[1] * logdet + quad), dof


def naive(update, factors, y, coupling):
    """The iteration with the dictionary and all covariances, in units of its own."""
    norms = [np.linalg.norm(f, axis=0) for f in factors]
    unit = np.sqrt(np.mean(np.abs(y) ** 2))
    factors, y = [f / n for f, n in zip(factors, norms, strict=True)], y / unit
    variances, noise_var, evidences = [np.ones(f.shape[1]) for f in factors], 0.1, []
    design, grid = kron(factors), [f.shape[1] for f in factors]
    for _ in range(STEPS):
        mean, variance, evidence, dof = dense(factors, y, variances, noise_var)
        evidences.append(evidence)
        flat = y.reshape(len(design), -1)
        rest = np.sum(np.abs(flat - design @ mean) ** 2) / flat.shape[1]
        mean_sq = np.mean(np.abs(mean) ** 2, axis=1).reshape(grid)
        second = mean_sq + variance.reshape(grid)
        cov = (design * kron(variances)) @ design.conj().T + noise_var * np.eye(len(design))
        inverse = np.linalg.inv(cov)
        leverage = np.sum(design.conj() * (inverse @ design), axis=0).real.reshape(grid)
        if update == "svd":
            variances = naive_svd(second)
        elif update == "convex":
            variances = naive_sweeps(variances, coupling, 400, mean_sq, leverage)
        else:
            sweeps = 1 if update == "ksbl" else 400
            variances = naive_sweeps(variances, coupling, sweeps, second)
        if update == "convex":
            noise_var = np.sqrt(rest / np.trace(inverse).real)
        else:
            noise_var = (rest + noise_var * dof) / len(design)
    variances = [g / n**2 for g, n in zip(variances, norms, strict=True)]
    scale = y.size * np.log(unit) * (2 if np.iscomplexobj(y) else 1)
    return kron(variances) * unit**2, noise_var * unit**2, np.array(evidences) - scale


def naive_sweeps(variances, coupling, sweeps, above, below=None):
    variances = [g.copy() for g in variances]
    grid = np.indices(above.shape)
    for _ in range(sweeps):
        for i, g in enumerate(variances):
            others = np.ones(above.shape)
            for j, other in enumerate(variances):
                if j != i:
                    others = others * other[grid[j]]
            target = np.array([np.sum((above / others)[grid[i] == k]) for k in range(len(g))])
            if below is None:
                target = target / (above.size / len(g))
            else:
                slopes = [np.sum((below * others)[grid[i] == k]) for k in range(len(g))]
                target = np.sqrt(target / np.array(slopes))
            if coupling and coupling[i]:
                n, beta = len(g), coupling[i]
                matrix = np.eye(n) + beta * (np.eye(n, k=1) + np.eye(n, k=-1))
                target = matrix @ nnls(matrix, target)[0]
            variances[i] = target
    return variances


def naive_svd(second):
    found, rest = [], second
    for n in second.shape[:-1]:
        u, s, v = np.linalg.svd(rest.reshape(n, -1))
        found.append(np.abs(u[:, 0]))
        rest = s[0] * np.abs(v[0])
    return [*found, rest]


@functools.cache
def run(update, coupling):
    options = {
        "update": update,
        "coupling": coupling,
        "max_steps": STEPS,
        "rtol": 0.0,
        "prune": 0.0,
    }
    options["restarts"] = 1
    return jax.jit(lambda factors, y: sbl.kron_sbl(factors, y, **options))


@pytest.mark.parametrize("name", ROWS)
def test_steps_and_moments_are_the_dense_ones(name):
    update, sizes, is_complex, snapshots, coupling = ROWS[name]
    factors, y = problem(sizes, is_complex, snapshots)
    found = run(update, coupling)(factors, y)
    prior, noise_var, evidences = naive(update, factors, y, coupling)
    rtol = 1e-4 if coupling else 1e-6  # of non-negative least squares by projected gradients
    largest = prior.max()
    np.testing.assert_allclose(np.ravel(found.prior_var), prior, rtol=rtol, atol=rtol * largest)
    np.testing.assert_allclose(found.noise_var, noise_var, rtol=rtol)
    np.testing.assert_allclose(found.evidence_trace[:-1], evidences, rtol=rtol, atol=10 * rtol)
    if update in ("am", "convex", "ksbl") and not coupling:
        assert np.all(np.diff(found.evidence_trace) > -1e-9)
    assert np.all(found.active) and found.num_steps == STEPS and not found.converged
    for g in found.prior_factors[:-1]:
        np.testing.assert_allclose(np.linalg.norm(g), 1, rtol=1e-12)
    # At the variances found, everything to rounding.
    variances = [np.asarray(g) for g in found.prior_factors]
    mean, variance, evidence, dof = dense(factors, y, variances, float(found.noise_var))
    assert found.mean.shape == (*(n for _, n in sizes), *((snapshots,) if snapshots else ()))
    scale = np.abs(mean).max()
    np.testing.assert_allclose(np.ravel(found.mean), mean.ravel(), rtol=1e-9, atol=1e-10 * scale)
    np.testing.assert_allclose(np.ravel(found.variance), variance, atol=1e-10 * largest)
    np.testing.assert_allclose(found.log_evidence(), evidence, rtol=1e-10)
    np.testing.assert_allclose(found.effective_dof, dof, rtol=1e-9)
    assert found.evidence_trace[-1] == found.log_evidence()


def test_single_precision_is_near_double():
    factors, y = problem(*ROWS["svd"][1:4])
    double = run("svd", None)(factors, y)
    single = run("svd", None)(*jax.tree.map(lambda a: jnp.asarray(a, jnp.complex64), (factors, y)))
    assert single.mean.dtype == jnp.complex64 and single.variance.dtype == jnp.float32
    error = np.linalg.norm(single.mean - double.mean) / np.linalg.norm(double.mean)
    assert error < 1e-3


def test_units_of_columns_and_measurements_change_nothing():
    """Powers of 2, so that nothing is rounded anew but what is on both sides of a factor."""
    update, sizes, is_complex, snapshots, coupling = ROWS["am"]
    factors, y = problem(sizes, is_complex, snapshots)
    plain = run(update, coupling)(factors, y)
    for power in (-40, 40):
        columns = 2.0 ** (np.arange(sizes[0][1]) - 2 - power)
        other = run(update, coupling)((factors[0] * columns, *factors[1:]), y * 2.0**power)
        scale = columns[:, None, None] * 2.0**-power
        np.testing.assert_allclose(other.mean * scale, plain.mean, rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(other.variance * scale**2, plain.variance, rtol=1e-6)


def test_noise_that_is_known_stays():
    factors, y = problem(*ROWS["ksbl"][1:4])
    fit = lambda noise: sbl.kron_sbl(factors, y, update="svd", noise_var=noise, restarts=2)  # noqa: E731
    low, high = jax.jit(jax.vmap(fit))(jnp.asarray([1e2, 1e6])).noise_var
    np.testing.assert_allclose([low, high], [1e2, 1e6], rtol=1e-12)


def test_order_of_the_factors_does_not_matter():
    update, sizes, is_complex, snapshots, coupling = ROWS["convex"]
    factors, y = problem(sizes, is_complex, snapshots)
    found = run(update, coupling)(factors, y)
    turned = run(update, coupling)(factors[::-1], y.T)
    np.testing.assert_allclose(turned.mean.T, found.mean, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(turned.prior_var.T, found.prior_var, rtol=1e-7)


@functools.cache
def recovered():
    keys = jax.random.split(jax.random.key(5), 8)
    sizes = {"rows": (5, 6), "columns": (8, 7), "num_active": 2}

    @jax.jit
    def trial(keys):
        p = jax.vmap(lambda key: datasets.kron_sparse(key, snr_db=25.0, **sizes))(keys)
        return p, jax.vmap(lambda p: sbl.kron_sbl(p.factors, p.y))(p)

    return trial(keys)


def test_sparse_coefficients_are_recovered_in_a_batch():
    p, found = recovered()
    assert np.all(found.converged)
    energy = lambda x: np.sum(np.asarray(x) ** 2, axis=(1, 2))  # noqa: E731
    error = energy(found.mean - p.coefficients) / energy(p.coefficients)
    assert np.median(error) < 0.01  # measurements have errors of 0.3 %
    truth = np.asarray(p.support[0])[:, :, None] & np.asarray(p.support[1])[:, None]
    assert np.median(np.sum(found.active & ~truth, axis=(1, 2))) <= 2
    ratio = np.asarray(found.noise_var / p.noise_var)
    assert np.all(np.abs(ratio - 1) < 5 * np.sqrt(2 / 30) + 4 / 30)
    # The best of the starts went on, by steps that lower the evidence only where they prune.
    assert found.ends.shape == (8, 8)
    assert np.all(found.log_evidence() > found.ends.max(axis=1) - 1)
    steps = np.asarray(found.num_steps)
    for trace, last, num in zip(found.evidence_trace, found.log_evidence(), steps, strict=True):
        assert np.all(np.isfinite(trace[: num + 1])) and np.all(np.isnan(trace[num + 1 :]))
        assert trace[num] == last
    with pytest.raises(ValueError, match=r"this is a batch of \(8,\) posteriors; call it under"):
        found.moments()


def test_draws_and_predictions_are_the_dense_conditional():
    update, sizes, is_complex, snapshots, coupling = ROWS["am"]
    factors, y = problem(sizes, is_complex, snapshots)
    found = run(update, coupling)(factors, y)
    rng = np.random.default_rng(0)
    new = tuple(rng.normal(size=(2 + d, n)) for d, (_, n) in enumerate(sizes))

    @jax.jit
    def answers(found, key):
        return found.sample(key, (4000,)), found.predict(new), found.moments()

    draws, predicted, (fit, fit_var) = answers(found, jax.random.key(1))
    variances = [np.asarray(g) for g in found.prior_factors]
    design, prior = kron(factors), kron(variances)
    cov = (design * prior) @ design.T + float(found.noise_var) * np.eye(len(design))
    posterior = np.diag(prior) - (prior[:, None] * design.T) @ np.linalg.solve(cov, design * prior)
    rows = kron(new)
    np.testing.assert_allclose(np.ravel(predicted.mean), rows @ np.ravel(found.mean), rtol=1e-8)
    wanted = np.diag(rows @ posterior @ rows.T) + float(found.noise_var)
    np.testing.assert_allclose(np.ravel(predicted.variance), wanted, rtol=1e-8)
    assert fit.shape == y.shape
    wanted = np.diag(design @ posterior @ design.T)
    np.testing.assert_allclose(np.ravel(fit_var), wanted, rtol=1e-6, atol=1e-9 * wanted.max())
    off = np.asarray(draws - found.mean).reshape(4000, -1)
    var = np.diag(posterior)
    assert np.max(np.abs(off.mean(axis=0)) / np.sqrt(var / 4000)) < 5
    error = np.sqrt((np.outer(var, var) + posterior**2) / 4000)
    assert np.max(np.abs(off.T @ off / 4000 - posterior) / error) < 5.5


def test_svd_of_a_product_is_its_factors():
    rng = np.random.default_rng(0)
    factors = [rng.uniform(0.1, 2, n) for n in (3, 5, 2)]
    product, start = kron(factors).reshape(3, 5, 2), tuple(jnp.ones(n) for n in (3, 5, 2))
    found = jax.jit(updates.svd_update, static_argnums=2)(product, start, (None,) * 3)
    for got, want in zip(found[:-1], factors[:-1], strict=True):
        np.testing.assert_allclose(got, want / np.linalg.norm(want), rtol=1e-12)
    np.testing.assert_allclose(kron(found).reshape(3, 5, 2), product, rtol=1e-12)


@pytest.mark.parametrize("strength", [0.3, 0.5, 0.8])
def test_shares_are_non_negative_least_squares(strength):
    matrix = np.eye(11) + strength * (np.eye(11, k=1) + np.eye(11, k=-1))
    targets = np.random.default_rng(0).uniform(0, 1, (7, 11)) ** 3
    mask = np.arange(11) != 4
    shares = functools.partial(updates.nearest_shares, mask=jnp.asarray(mask), strength=strength)
    found = np.asarray(jax.jit(jax.vmap(shares))(jnp.asarray(targets)))
    assert np.all(found >= 0) and np.all(found[:, 4] == 0)
    kept = matrix[np.ix_(mask, mask)]
    for got, target in zip(found[:, mask], targets[:, mask], strict=True):
        off = np.linalg.norm(kept @ got - target)
        assert off <= nnls(kept, target)[1] * (1 + 1e-4) + 1e-3


def test_columns_of_zeros_are_not_active_and_equal_ones_share():
    factors, y = problem(*ROWS["am"][1:4])
    first = factors[0].copy()
    first[:, 0], first[:, 4] = 0, first[:, 1]
    found = run("am", None)((first, *factors[1:]), y)
    assert not np.any(found.active[0]) and not np.any(found.mean[0])
    np.testing.assert_allclose(found.mean[4], found.mean[1], rtol=1e-8)
    assert np.all(np.isfinite(found.mean)) and np.all(found.active[1:])


@pytest.mark.errors
def test_bad_problems_are_named():
    factors, y = problem(*ROWS["am"][1:4])
    fit = sbl.kron_sbl
    with pytest.raises(ValueError, match=r"y must have shape \(3, 4, 2\).*make it y.reshape"):
        fit(factors, y.ravel())
    with pytest.raises(ValueError, match=r"factors\[1\] must be a matrix"):
        fit((factors[0], y, factors[2]), y)
    with pytest.raises(ValueError, match="y is zero everywhere"):
        fit(factors, 0 * y)
    with pytest.raises(RuntimeError, match="y is zero everywhere"):
        jax.block_until_ready(jax.jit(lambda y: fit(factors, y, max_steps=0).mean)(0 * y))
    with pytest.raises(ValueError, match="y holds NaN"):
        fit(factors, np.where(y > 0, y, np.nan))
    with pytest.raises(ValueError, match=r"factors\[2\] is zero"):
        fit((*factors[:2], 0 * factors[2]), y)
    with pytest.raises(ValueError, match="y must be an array of numbers"):
        fit(factors, np.full((3, 4, 2), "a"))
    with pytest.raises(ValueError, match="one precision"):
        fit(factors, y.astype(np.float32))
    with pytest.raises(ValueError, match="update must be one of"):
        fit(factors, y, update="em")
    with pytest.raises(ValueError, match="noise_var must be finite and positive"):
        fit(factors, y, noise_var=0.0)
    with pytest.raises(ValueError, match="coupling must have 3 elements"):
        fit(factors, y, coupling=(0.8, None))
    with pytest.raises(ValueError, match=r"each coupling must be a number in \[0, 1\)"):
        fit(factors, y, coupling=1.5)
    with pytest.raises(ValueError, match="max_steps must be at least 0"):
        fit(factors, y, max_steps=-1)
    with pytest.raises(ValueError, match=r"prune must be a number in \[0, 1\)"):
        fit(factors, y, prune=1.0)
    found = run("am", None)(factors, y)
    assert found.result == RESULTS.max_steps_reached
    with pytest.raises(ValueError, match=r"must have \[5, 3, 4\] columns"):
        found.predict(factors[:2])
    with pytest.raises(ValueError, match="no derivatives in factors, prior variances and noise"):
        jax.jvp(lambda y: fit(factors, y, max_steps=1).mean, (y,), (y,))
    with pytest.raises(RuntimeError, match="kron_sbl: not converged"):
        fit(factors, y, max_steps=0, throw=True)
    with pytest.raises(ValueError, match="none in float64: rescale"):
        fit(factors, y * 1e-200, max_steps=0)
