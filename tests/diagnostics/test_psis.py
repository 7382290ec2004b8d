"""Pareto smoothed importance sampling against NumPy, ArviZ and known tails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp
from scipy.stats import norm

from bayesjx.diagnostics import psis

UNIFORM = (np.arange(1, 501) - 0.5) / 500

# log weights -> k-hat, largest and tenth largest smoothed log weight, effective sample size, all
# from arviz-stats 0.8.0
ARVIZ = {
    "bounded": (
        3 * np.sin(np.arange(1.0, 501.0) ** 1.3),
        (-1.4543424936627154, -6.521187293096681, -6.841250094961556, 181.58461408432527),
    ),
    "light": (
        -0.3 * np.log1p(-UNIFORM),
        (0.33179640327898363, -4.498480983843216, -5.370348874952335, 418.66779814817704),
    ),
    "heavy": (
        -0.7 * np.log1p(-UNIFORM),
        (0.660228639526947, -2.603266112973847, -4.565189459844966, 91.14064690290556),
    ),
    "no mean": (
        -1.5 * np.log1p(-UNIFORM),
        (1.3175197030821568, -0.6959207820214166, -4.588642202070311, 3.7063853570282714),
    ),
    "log-normal": (
        3 * norm.ppf(UNIFORM),
        (1.0790739538383296, -0.9740713731787918, -4.202823747951541, 5.984402210090832),
    ),
    "few": (
        -0.5 * np.log1p(-UNIFORM[4::5]),
        (0.6429838919706162, -2.382252276758417, -4.12357829480949, 48.1154001322188),
    ),
}


def reference(log_weights):
    """The method for one row without degenerate cases, written from the papers."""
    size = len(log_weights)
    tail = int(3 * size**0.5) if size > 225 else size // 5
    log_weights = log_weights - log_weights.max()
    order = np.argsort(log_weights)
    cutoff = np.exp(log_weights[order[-tail - 1]])
    x = np.exp(log_weights[order[-tail:]]) - cutoff
    scale, k = reference_fit(x)
    p = (np.arange(tail) + 0.5) / tail
    smooth = cutoff + scale * ((1 - p) ** -k - 1) / k
    log_weights[order[-tail:]] = np.minimum(np.log(smooth), 0)
    return log_weights - logsumexp(log_weights), k


def reference_fit(x):
    """Scale and shape of a generalised Pareto distribution for ascending excesses."""
    tail = len(x)
    points = 30 + int(tail**0.5)
    theta = 1 / x[-1] + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (
        3 * x[int(tail / 4 + 0.5) - 1]
    )
    k = np.array([np.mean(np.log1p(-t * x)) for t in theta])
    profile = tail * (np.log(-theta / k) - k - 1)
    weight = np.exp(profile - logsumexp(profile))
    weight[weight < 10 * np.finfo(float).eps] = 0
    theta = np.sum(theta * weight) / np.sum(weight)
    k = np.mean(np.log1p(-theta * x))
    return -k / theta, (tail * k + 5) / (tail + 10)


@pytest.mark.parametrize("name", ARVIZ)
def test_agrees_with_arviz(name, dtype):
    log_weights, (k_hat, largest, tenth, ess) = ARVIZ[name]
    got = jax.jit(psis)(jnp.asarray(log_weights, dtype))
    tol = {"rtol": 1e-4} if dtype == jnp.float32 else {"rtol": 1e-10}
    np.testing.assert_allclose(got.k_hat, k_hat, **tol)
    np.testing.assert_allclose(got.ess, ess, **tol)
    np.testing.assert_allclose(got.log_weights[-1], largest, **tol)
    np.testing.assert_allclose(got.log_weights[-10], tenth, **tol)
    assert got.k_hat.dtype == got.ess.dtype == got.log_weights.dtype == dtype


def test_rows_agree_with_numpy(getkey):
    scale = jnp.array([0.3, 1.0, 3.0])[:, None, None]
    log_weights = 50 + scale * jax.random.normal(getkey(), (3, 2, 400))
    got = jax.jit(psis)(log_weights)
    mapped = jax.vmap(jax.vmap(psis))(log_weights)
    np.testing.assert_allclose(got.k_hat, mapped.k_hat, rtol=1e-12)
    for index in np.ndindex(3, 2):
        want, k_hat = reference(np.array(log_weights[index]))
        np.testing.assert_allclose(got.log_weights[index], want, rtol=1e-9)
        np.testing.assert_allclose(got.k_hat[index], k_hat, rtol=1e-9)
        np.testing.assert_allclose(got.ess[index], 1 / np.sum(np.exp(2 * want)), rtol=1e-9)


@pytest.mark.parametrize("shape", [0.2, 0.5, 0.9])
def test_finds_the_shape_of_a_pareto_tail(shape, getkey):
    draws = 20_000
    tail = 3 * draws**0.5
    k_hat = psis(shape * jax.random.exponential(getkey(), (20, draws))).k_hat
    standard_error = (1 + shape) / tail**0.5 / 20**0.5
    prior = (5 - 10 * shape) / (tail + 10)  # the pull towards one half
    assert abs(k_hat.mean() - shape - prior) < 5 * standard_error


def test_mean_of_heavy_weights_is_steadier_after_smoothing(getkey):
    log_weights = 0.8 * jax.random.exponential(getkey(), (500, 400))
    value = jnp.arange(400) == jnp.argmax(log_weights, axis=1, keepdims=True)
    smooth = jnp.sum(jnp.exp(psis(log_weights).log_weights) * value, axis=1)
    raw = jnp.sum(jax.nn.softmax(log_weights) * value, axis=1)
    assert jnp.std(smooth) < 0.8 * jnp.std(raw)


@pytest.mark.parametrize(("step", "bias", "noise"), [(0.1, 0.01, 0.06), (0.01, 0.005, 0.03)])
@pytest.mark.parametrize("efficiency", [1.0, 0.7, 0.3])
def test_rounded_weights_have_the_shape_of_the_exact_ones(step, bias, noise, efficiency):
    # Ties are all over; the reference is the same fit of the weights before they were rounded.
    exact = np.random.default_rng(0).normal(size=(100, 1000))
    rounded = step * np.round(exact / step)
    run = jax.jit(lambda x: psis(x, efficiency).k_hat)
    error = np.asarray(run(jnp.asarray(rounded)) - run(jnp.asarray(exact)))
    assert abs(error.mean()) < bias + 5 * error.std() / len(error) ** 0.5
    assert error.std() < noise


def test_repeated_draws_at_the_cutoff_do_not_count_as_excesses():
    # Eight of each, as of a chain that stays where it is: more than a quarter of the tail is tied.
    distinct = np.sort(np.random.default_rng(1).normal(size=60))
    repeated = psis(jnp.asarray(np.repeat(distinct, 8)))
    above = np.exp(distinct[-(65 // 8) :])  # the tail has 65 draws, of which one is at the cutoff
    cutoff = (above[0] + np.exp(distinct[-(65 // 8) - 1])) / 2
    _, want = reference_fit(np.repeat(above, 8) - cutoff)
    np.testing.assert_allclose(repeated.k_hat, want, rtol=1e-9)


INF = np.inf


@pytest.mark.parametrize(
    ("log_weights", "k_hat", "ess"),
    [
        ([-INF] * 100, INF, 0),
        ([np.nan] + [0.0] * 99, INF, 0),
        ([INF] + [0.0] * 99, INF, 1),
        ([INF] * 50 + [0.0] * 50, INF, 50),
        ([0.0] + [-INF] * 99, INF, 1),
        ([3.0] * 100, -INF, 100),
        ([0.0] * 50 + [-INF] * 50, -INF, 50),
        ([7.0], INF, 1),
        ([0.0] * 24, INF, 24),
        (list(np.linspace(0, -1e6, 100)), INF, 1),
    ],
)
def test_degenerate_weights_give_the_documented_values(log_weights, k_hat, ess, dtype):
    got = jax.jit(psis)(jnp.array(log_weights, dtype))
    assert got.k_hat == k_hat
    np.testing.assert_allclose(got.ess, ess, rtol=1e-5)
    assert not np.isnan(got.log_weights).any()
    total = jnp.sum(jnp.exp(got.log_weights))
    np.testing.assert_allclose(total, 1.0 if ess else 0.0, rtol=1e-5)


def test_rounding_noise_on_equal_weights_is_no_alarm(getkey, dtype):
    noise = 1e-6 * jax.random.normal(getkey(), (1000,), dtype)
    assert psis(noise).reliable


def test_some_zero_weights_are_ignored_by_the_fit():
    heavy = ARVIZ["heavy"][0]
    with_zeros = psis(jnp.concatenate([jnp.array(heavy), jnp.full(100, -INF)]))
    np.testing.assert_allclose(with_zeros.log_weights[500:], -INF)
    assert 0.5 < with_zeros.k_hat < 0.9


def test_threshold_depends_on_the_number_of_draws():
    assert psis(jnp.zeros(100)).threshold == 0.5
    assert psis(jnp.zeros(10_000)).threshold == 0.7
    assert psis(jnp.zeros(10)).threshold == 0.0


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"\(\.\.\., s\)"):
        psis(jnp.zeros((3, 0)))
    with pytest.raises(ValueError, match="weights, not their logarithms"):
        psis(jnp.ones(10, int))
    with pytest.raises(ValueError, match="relative_efficiency"):
        psis(jnp.zeros(10), relative_efficiency=0.0)
