"""Matching of priors to processes: discrepancies against NumPy, and priors that are known."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.spatial.distance import cdist
from scipy.special import gammaln
from scipy.stats import norm

import bayesjx
from bayesjx import bnn, gp, kernels
from bayesjx.bnn._functional._critic import gradient_penalty

KEY = jax.random.key(3)
RNG = np.random.default_rng(4)
F, G = RNG.normal(size=(31, 5)), RNG.normal(size=(31, 5)) + 0.3
X = RNG.normal(size=(11, 3))
LINEAR = eqx.nn.Linear(3, "scalar", key=KEY)
SCALES = np.array([1.7, 1.1])  # of slopes and offset
# Slopes have a variance divided by the number of inputs.
PROCESS = gp.GP(kernels.Linear(SCALES[0] ** 2 / 3) + kernels.Constant(SCALES[1] ** 2))


def energy(f, g):
    n = len(f)
    within = (cdist(f, f).sum() + cdist(g, g).sum()) / (n * (n - 1))
    return 2 * cdist(f, g).mean() - within


def rbf(f, g):
    n, h = len(f), np.median(cdist(f, g))
    similarity = lambda a, b: np.exp(-(cdist(a, b) ** 2) / (2 * h**2))  # noqa: E731
    within = similarity(f, f).sum() + similarity(g, g).sum() - 2 * n
    return within / (n * (n - 1)) - 2 * similarity(f, g).mean()


@pytest.mark.parametrize("dtype, tol", [("float32", 1e-4), ("float64", 1e-10)])
@pytest.mark.parametrize("kernel, want", [("energy", energy), ("rbf", rbf)])
def test_mmd_is_that_of_numpy(kernel, want, dtype, tol):
    f, g = jnp.asarray(F, dtype), jnp.asarray(G, dtype)
    of = lambda f: bnn.MMD(kernel)(KEY, f, g)  # noqa: E731
    (value, slope), batch = jax.jit(
        lambda f: (jax.value_and_grad(of)(f), jax.vmap(of)(jnp.stack([f, 2 * f])))
    )(f)
    assert value.dtype == dtype
    np.testing.assert_allclose(value, want(F, G), rtol=tol)
    np.testing.assert_allclose(batch, [want(F, G), want(2 * F, G)], rtol=tol)
    assert np.all(np.isfinite(slope))
    if (
        dtype == "float64" and kernel == "energy"
    ):  # the bandwidth of the other is not differentiated
        step = np.zeros_like(F)
        step[3, 2] = 1e-6
        numeric = (want(F + step, G) - want(F - step, G)) / 2e-6
        np.testing.assert_allclose(slope[3, 2], numeric, rtol=1e-6)


@pytest.mark.parametrize("dtype, tol", [("float32", 1e-5), ("float64", 1e-10)])
def test_sliced_distance_of_one_input_is_exact(dtype, tol):
    """Of sorted values; of samples that are shifted, the shift's mean length along directions."""
    one = np.asarray(F[:, :1], dtype)
    found = jax.jit(bnn.functions_distance)(KEY, one, np.asarray(G[:, :1], dtype))
    np.testing.assert_allclose(found, np.abs(np.sort(F[:, 0]) - np.sort(G[:, 0])).mean(), rtol=tol)
    assert found.dtype == dtype
    functions = np.asarray(RNG.normal(size=(31, 4, 2)), dtype)
    shift = np.ones((4, 2), dtype)
    many = bnn.functions_distance(KEY, functions, functions + shift, 20_000)
    # The mean of |cos| of the angle to a direction in 8 dimensions, times the length sqrt(8).
    want = np.sqrt(8 / np.pi) * np.exp(gammaln(4.0) - gammaln(4.5))
    np.testing.assert_allclose(many, want, rtol=5 * 0.8 / np.sqrt(20_000))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_penalty_is_that_of_linear_critics(dtype):
    direction = jnp.asarray(RNG.normal(size=5), dtype)
    unit = direction / jnp.linalg.norm(direction)
    f, g = jnp.asarray(F, dtype), jnp.asarray(G, dtype)
    for slope, both, above in ((1.0, 0, 0), (3.0, 4, 4), (0.5, 0.25, 0)):
        critic = lambda rows, slope=slope: rows @ (slope * unit)  # noqa: E731
        found = [gradient_penalty(KEY, critic, f, g, side) for side in (False, True)]
        np.testing.assert_allclose(found, [both, above], atol=1e-6)
    square = lambda rows: jnp.sum(rows**2, 1) / 2  # noqa: E731  # its slope is the point itself
    part = jax.random.uniform(KEY, (31, 1), dtype)
    points = part * f + (1 - part) * g
    want = np.mean((np.linalg.norm(points, axis=1) - 1) ** 2)
    np.testing.assert_allclose(gradient_penalty(KEY, square, f, g), want, rtol=1e-5)


DISCREPANCIES = {
    "wasserstein": bnn.Wasserstein(20, 40, one_sided=True),
    "energy": bnn.MMD(),
    "rbf": bnn.MMD("rbf"),
    "sliced": bnn.SlicedWasserstein(20),
}


@pytest.mark.parametrize("name", DISCREPANCIES)
def test_discrepancies_are_none_for_one_process_and_see_a_shift(name):
    """Unbiased ones are 0 on average; the sliced distance has its size for samples of this size."""
    discrepancy, number, m = DISCREPANCIES[name], 64, 3

    def once(key):
        keys = jax.random.split(key, 3)
        f, g = (jax.random.normal(k, (number, m)) for k in keys[:2])
        shifts = jnp.array([0, 2 / np.sqrt(m)])
        of = lambda shift: discrepancy(keys[2], f + shift, g)  # noqa: E731
        return jax.lax.map(jax.value_and_grad(of), shifts)

    found, slopes = jax.jit(jax.vmap(once))(jax.random.split(KEY, 60))
    (same, shifted), slope = found.T, slopes[:, 1]
    error = np.std(same) / np.sqrt(len(same))
    if name == "sliced":
        below = norm.cdf(np.linspace(-6, 6, 1000))
        want = np.sum(np.sqrt(below * (1 - below))) * 12 / 999 * np.sqrt(4 / (np.pi * number))
        np.testing.assert_allclose(np.mean(same), want, rtol=0.1)
        np.testing.assert_allclose(np.mean(shifted), 1.0, rtol=0.1)  # 2 / sqrt(3) times sqrt(3) / 2
    else:
        assert abs(np.mean(same)) < 5 * error
        assert np.mean(shifted) > 10 * np.std(same) / np.sqrt(len(same))
    if name == "wasserstein":  # the distance of a shift is its length
        assert 1.4 < np.mean(shifted) < 2.2
    assert np.all(np.isfinite(slope)) and np.mean(slope) > 0


def test_linear_networks_find_the_scales_of_a_linear_process():
    matched = bnn.match_prior(
        KEY,
        bnn.normal_prior(LINEAR, 0.6, 2.0),
        PROCESS,
        X,
        discrepancy=bnn.MMD(),
        max_steps=100,
        num_samples=256,
        num_held_out=256,
    )
    np.testing.assert_allclose(matched.prior.scales, SCALES, rtol=0.05)
    assert matched.num_steps == len(matched.discrepancy) == 100
    assert matched.after < 1.3 * matched.floor < matched.before / 1.5


def test_a_critic_and_random_scales_by_the_algorithm():
    """By the critic from `fit`; a process with a random scale is that of a hierarchical prior."""

    def process(key, x):
        for_scale, for_slope = jax.random.split(key)
        slope = jax.random.normal(for_slope, (3,))
        return x @ slope * jnp.sqrt(1.4 / jax.random.gamma(for_scale, 3.1) / 3)

    network = eqx.nn.Linear(3, "scalar", use_bias=False, key=KEY)
    start = bnn.hierarchical_prior(network, 3.1, 0.1)
    algorithm = bnn.prior_matching(
        start,
        process,
        bnn.MeasurementSet(X, 7),
        optax.rmsprop(optax.cosine_decay_schedule(0.1, 60)),
        discrepancy=bnn.Wasserstein(20, 20),
        num_samples=128,
    )
    fit = bayesjx.fit(KEY, algorithm, algorithm.init(), 60)
    found = start.trained(fit.state)
    first, last = np.split(fit.info.objective, 6)[::5]
    assert np.mean(last) < np.mean(first) / 3
    mean_square = found.rates[0] / (found.concentrations[0] - 1)
    np.testing.assert_allclose(np.sqrt(mean_square / (1.4 / 2.1)), 1, rtol=0.3)


def test_processes_have_the_shape_of_networks():
    """Of several outputs: independent processes, also of random parameters; single precision."""
    network = eqx.nn.MLP(3, 2, 4, 1, key=KEY)
    single = jax.tree.map(
        lambda a: a.astype(jnp.float32) if eqx.is_inexact_array(a) else a, network
    )
    prior = bnn.normal_prior(single)
    random_scale = lambda key, x: gp.GP(kernels.RBF(1 + jax.random.uniform(key))).latent(x)  # noqa: E731
    for target in (gp.GP(kernels.RBF()), random_scale):
        algorithm = bnn.prior_matching(
            prior, target, X, optax.sgd(0.1), discrepancy=bnn.SlicedWasserstein(8), num_samples=8
        )
        state, info = jax.jit(algorithm.step)(KEY, algorithm.init())
        assert info.objective.dtype == state.params.scales[0].dtype == jnp.float32
        assert info.objective > 0 and info.gradient_norm > 0


def test_sets_of_inputs_are_rows_and_points_of_their_box():
    measure = bnn.MeasurementSet(X, 10)
    points = np.asarray(eqx.filter_jit(measure)(KEY))
    rows = (points[:, None] == X).all(-1).any(-1)
    assert points.shape == (10, 3) and rows[:7].all() and not rows[7:].any()
    assert len(np.unique(points[:7], axis=0)) == 7
    assert np.all((points >= X.min(0)) & (points <= X.max(0)))
    assert bnn.MeasurementSet(X, 40, uniform=0)(KEY).shape == (40, 3)
    images = np.asarray(RNG.normal(size=(5, 4, 4, 1)), np.float32)
    assert bnn.MeasurementSet(images, 4, uniform=1)(KEY).shape == (4, 4, 4, 1)


@pytest.mark.errors
def test_bad_processes_and_sets_are_named():
    prior = bnn.normal_prior(LINEAR)
    raises = lambda match: pytest.raises(ValueError, match=match)  # noqa: E731
    with raises("target must give the values"):
        bnn.match_prior(KEY, prior, lambda key, x: x, X, max_steps=1)
    with raises("prior must be one of a whole network"):
        bnn.match_prior(KEY, bnn.FanIn(), PROCESS, X)
    with raises("measure must be inputs"):
        bnn.match_prior(KEY, prior, PROCESS, None)
    with raises("fails at an input of shape"):
        bnn.match_prior(KEY, prior, PROCESS, X[:, :2])
