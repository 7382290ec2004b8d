"""Spike-and-slab regression against sums over all sets by NumPy; its Gibbs sampler; bad input."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats

import bayesjx
from bayesjx import ops, RESULTS, sbl

N, M, K = 11, 5, 3
RNG = np.random.default_rng(0)
DESIGN = RNG.normal(size=(N, M))
DESIGN[:, 3] = DESIGN[:, 2] + 0.4 * RNG.normal(size=N)  # which of the two is open
Y = DESIGN @ np.array([1.0, 0, 0.6, 0, 0]) + 0.5 * RNG.normal(size=N)
NEW = RNG.normal(size=(K, M))
SLAB = np.array([1.3, 0.7, 1.0, 1.0, 2.0])
PROBS = np.array([0.3, 0.6, 0.5, 0.5, 1.0])
SETS = np.array(list(itertools.product([0, 1], repeat=M)))
ROWS = {
    "known": (0.2, PROBS),
    "known, one probability": (0.2, (1.0, 2.0)),
    "unknown": ((2.0, 0.5), PROBS),
    "unknown, one probability": ((2.0, 0.5), (1.0, 2.0)),
}


def arguments(name, dtype=float):
    noise, prob = ROWS[name]
    as_type = lambda x: jnp.asarray(x, dtype)  # noqa: E731
    return {
        "noise_var": dist.InverseGamma(*map(as_type, noise)) if np.ndim(noise) else noise,
        "prior_prob": dist.Beta(*map(as_type, prob)) if len(prob) == 2 else as_type(prob),
        "slab_var": as_type(SLAB),
    }


def oracle(name, design=DESIGN, y=Y, most=M):
    """Log evidence, inclusion, mean, variance, and mean and variance of new responses."""
    noise, prob = ROWS[name]
    n, known = len(y), not np.ndim(noise)
    joint, means, squares, new = [], [], [], []
    for s in SETS:
        count, prior = s.sum(), SLAB * s
        if count > most:
            joint.append(-np.inf)
        elif len(prob) == 2:
            joint.append(special.betaln(1 + count, 2 + M - count) - special.betaln(1, 2))
        else:
            joint.append(stats.bernoulli(prob).logpmf(s).sum())
        unit = noise if known else 1.0
        cov = unit * np.eye(n) + design * prior @ design.T
        gain = np.linalg.solve(cov, design * prior).T
        mean, inside = gain @ y, np.diag(prior) - gain @ design * prior
        if known:
            joint[-1] += stats.multivariate_normal(np.zeros(n), cov).logpdf(y)
            scale = 1.0
        else:
            a, b = noise
            joint[-1] += stats.multivariate_t(np.zeros(n), b / a * cov, df=2 * a).logpdf(y)
            scale = (b + y @ np.linalg.solve(cov, y) / 2) / (a + n / 2 - 1)
        means.append(mean)
        squares.append(scale * np.diag(inside) + mean**2)
        spread = scale * (unit + np.einsum("ki,ij,kj->k", NEW, inside, NEW))
        new.append([NEW @ mean, spread + (NEW @ mean) ** 2])
    evidence = special.logsumexp(joint)
    weights = np.exp(joint - evidence)
    mean, (predicted, second) = weights @ means, np.tensordot(weights, new, 1)
    variances = weights @ squares - mean**2, second - predicted**2
    return evidence, weights @ SETS, mean, variances[0], predicted, variances[1]


@pytest.mark.parametrize("name", ROWS)
def test_all_sets_are_summed_over(name, dtype, tol):
    @jax.jit
    def answers(design, y, new):
        found = sbl.spike_and_slab(design, y, **arguments(name, dtype))
        many = jax.vmap(lambda y: sbl.spike_and_slab(design, y, **arguments(name, dtype)).mean)
        distribution = found.predict(ops.Dense(new))  # as good as the array
        values = found.log_evidence, found.inclusion_prob, found.mean, found.variance
        return (
            (*values, distribution.mean, distribution.variance),
            many(jnp.stack([y, y])),
            found.result,
        )

    found, many, result = answers(*(jnp.asarray(x, dtype) for x in (DESIGN, Y, NEW)))
    for value, want in zip(found, oracle(name), strict=True):
        np.testing.assert_allclose(value, want, **tol)
        assert value.dtype == dtype
    np.testing.assert_allclose(many, [found[2]] * 2, **tol)
    assert result == RESULTS.successful


@pytest.mark.parametrize("name", ["known", "unknown, one probability"])
@pytest.mark.parametrize("rows", [N, 4], ids=["tall", "wide"])
def test_a_sweep_leaves_the_posterior_given_its_set(name, rows):
    """After all pivots of a sweep, moments are those of dense algebra for the set it ended with."""
    design, y, noise = DESIGN[:rows], Y[:rows], ROWS[name][0]
    slots = {"max_active": None if rows == N else 3}
    algorithm = sbl.spike_and_slab_gibbs(design, y, **arguments(name), **slots)
    run = jax.jit(jax.vmap(algorithm.step, (0, None)))
    states, infos = run(jax.random.split(jax.random.key(0), 7), algorithm.init(SETS[9] == 1))
    assert len(np.unique(states.active, axis=0)) > 1
    for i, s in enumerate(np.asarray(states.active)):
        unit = 1.0 if np.ndim(noise) else noise
        cov = unit * np.eye(rows) + design * (SLAB * s) @ design.T
        gain = np.linalg.solve(cov, design * (SLAB * s)).T
        scale = 1.0
        if np.ndim(noise):
            a, b = noise
            scale = (b + y @ np.linalg.solve(cov, y) / 2) / (a + rows / 2 - 1)
        np.testing.assert_allclose(infos.mean[i], gain @ y, rtol=1e-9, atol=1e-12)
        variance = SLAB * s * (1 - np.einsum("mn,nm->m", gain, design))
        np.testing.assert_allclose(infos.variance[i], scale * variance, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(infos.noise_var[i], scale * unit, rtol=1e-9)
        assert infos.num_active[i] == s.sum() <= (M if rows == N else 3)
        assert s[-1] or name != "known"  # whose prior probability is 1


@pytest.mark.parametrize("name", ["known", "unknown, one probability"])
def test_gibbs_draws_from_the_sum_over_all_sets(name):
    """Means of conditional probabilities within 5 standard errors, from 40 batches of sweeps."""
    steps, batches = 2000, 40
    algorithm = sbl.spike_and_slab_gibbs(DESIGN, Y, **arguments(name))
    found = bayesjx.fit(jax.random.key(0), algorithm, algorithm.init(), steps)
    _, inclusion, mean, *_ = oracle(name)
    states = found.info.mean != 0
    for values, want in (
        (found.info.inclusion_prob, inclusion),
        (states, inclusion),
        (found.info.mean, mean),
    ):
        each = np.asarray(values, float).reshape(batches, -1, M).mean(axis=1)
        error = each.std(axis=0, ddof=1) / np.sqrt(batches)
        # A column of prior probability 1 is always there.
        assert np.all(np.abs(each.mean(axis=0) - want) <= 5 * error + 1e-12)


def test_chains_are_summarised_and_draws_have_the_moments():
    """With at most two columns in a set, as many as most sets have, which is told."""
    options = arguments("known") | {"method": "gibbs", "key": jax.random.key(0), "max_active": 2}
    found = sbl.spike_and_slab(DESIGN, Y, **options, num_samples=300, num_warmup=20)
    _, inclusion, mean, variance, *_ = oracle("known", most=2)
    assert found.num_steps == 320 and jnp.isnan(found.log_evidence)
    assert found.rhat.shape == (M,) and found.rhat.max() < 1.05
    assert found.states.sum(1).max() == 2 and found.at_limit == np.mean(found.states.sum(1) == 2)
    assert found.result == RESULTS.breakdown and not found.converged
    # Standard errors of 1200 sweeps with an effective size of a tenth.
    np.testing.assert_allclose(found.inclusion_prob, inclusion, atol=5 * 0.5 / np.sqrt(120))
    assert np.all(np.abs(found.mean - mean) < 5 * np.sqrt(variance / 120))
    np.testing.assert_allclose(found.variance, variance, rtol=5 * np.sqrt(5 / 120))
    draws = np.asarray(found.sample(jax.random.key(1), (2, 1000))).reshape(-1, M)
    assert np.all(np.abs(draws.mean(0) - found.mean) < 5 * draws.std(0) / np.sqrt(2000) + 1e-12)
    share = (draws != 0).mean(0)
    np.testing.assert_allclose(share, found.states.mean(0), atol=5 * 0.5 / np.sqrt(2000))


def test_units_of_the_data_change_nothing_else():
    """Data in units of 1e-8 in single precision, and of 1e8; a column of zeros keeps its prior."""
    for scale in (1e-8, 1e8):
        design, y = jnp.asarray(DESIGN, jnp.float32), jnp.asarray(scale * Y, jnp.float32)
        design = design.at[:, 1].set(0)
        found = sbl.spike_and_slab(design, y, noise_var=0.2 * scale**2, slab_var=scale**2)
        np.testing.assert_allclose(found.inclusion_prob[1], 0.5, rtol=1e-5)
        want = sbl.spike_and_slab(DESIGN * (np.arange(M) != 1), Y, noise_var=0.2, slab_var=1.0)
        np.testing.assert_allclose(found.mean / scale, want.mean, rtol=1e-3, atol=1e-5)
        evidence = want.log_evidence - N * np.log(scale)
        np.testing.assert_allclose(found.log_evidence, evidence, rtol=1e-4)
    silent = sbl.spike_and_slab(DESIGN, 0 * Y, noise_var=dist.InverseGamma(2, 1), slab_var=1.0)
    assert np.all(silent.mean == 0) and np.isfinite(silent.log_evidence)


@pytest.mark.errors
def test_bad_input_is_named():
    options = {"noise_var": 0.1, "slab_var": 1.0}
    with pytest.raises(ValueError, match="transposed"):
        sbl.spike_and_slab(DESIGN.T, Y, **options)
    with pytest.raises(ValueError, match="y holds NaN"):
        sbl.spike_and_slab(DESIGN, np.where(Y > 0, Y, np.nan), **options)
    with pytest.raises(RuntimeError, match="y holds NaN"):
        jax.jit(lambda y: sbl.spike_and_slab(DESIGN, y, **options).mean)(Y * np.nan)
    with pytest.raises(ValueError, match="y must be real, of shape"):
        sbl.spike_and_slab(DESIGN + 1j, Y, **options)
    with pytest.raises(ValueError, match="noise_var must be finite and positive"):
        sbl.spike_and_slab(DESIGN, Y, noise_var=0.0, slab_var=1.0)
    with pytest.raises(ValueError, match="squares of y are out of range of float64"):
        sbl.spike_and_slab(DESIGN, 1e200 * Y, noise_var=dist.InverseGamma(2, 1), slab_var=1.0)
    with pytest.raises(ValueError, match="noise_var must be a number or"):
        sbl.spike_and_slab(DESIGN, Y, noise_var=dist.Gamma(2.0, 2.0), slab_var=1.0)
    with pytest.raises(ValueError, match=r"prior_prob must be in \[0, 1\]"):
        sbl.spike_and_slab(DESIGN, Y, prior_prob=1.2, **options)
    with pytest.raises(ValueError, match="key is needed"):
        sbl.spike_and_slab(DESIGN, Y, method="gibbs", **options)
    with pytest.raises(ValueError, match="use method='gibbs'"):
        sbl.spike_and_slab(np.ones((3, 21)), np.ones(3), method="exact", **options)
    with pytest.raises(ValueError, match="max_active must be at least 1"):
        sbl.spike_and_slab_gibbs(DESIGN, Y, max_active=0, **options)
    with pytest.raises(ValueError, match=r"design must be real, of shape \(k, 5\)"):
        sbl.spike_and_slab(DESIGN, Y, **options).predict(NEW.T)
