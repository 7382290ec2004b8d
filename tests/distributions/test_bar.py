"""The bar distribution against quadrature of its density, written once more in NumPy and SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from bayesjx.distributions import bar_mixture, BarDistribution, equal_mass_borders

# Two rows with borders of their own; the first row has its largest probability in a wide bar and
# its largest density in a narrow one, the second an empty bar in the middle and an empty tail.
BORDERS = np.array([[-3.0, -1.5, -0.5, 0.0, 2.5, 3.0, 4.5, 7.0],
                    [-1.0, 0.5, 0.75, 1.5, 2.0, 4.0, 5.0, 5.5]])  # fmt: skip
PROBS = np.array([[0.11, 0.2, 0.15, 0.3, 0.1, 0.08, 0.06], [0.3, 0.1, 0.0, 0.25, 0.15, 0.2, 0.0]])
with np.errstate(divide="ignore"):
    LOGITS = np.log(PROBS) + [[0.3], [-2.0]]
# In each tail, on both sides of its outer border, on borders, inside of bars and in the empty one.
POINTS = np.array([[-7.0, 0.0], [-2.0, -2.5], [-1.5, 0.5], [-0.8, 0.6], [0.0, 1.0], [1.7, 2.0],
                   [2.5, 3.9], [3.7, 4.5], [4.5, 5.0], [5.2, 5.2], [11.0, 8.0]])  # fmt: skip
GRID = 2000
LEVELS = np.array([1e-30, 1e-4, 0.05, 0.11, 0.3, 0.5, 0.73, 0.9, 0.97, 1 - 1e-4])
LEVELS = np.concatenate([LEVELS, (np.arange(GRID) + 0.5) / GRID])[:, None]
SCALES = np.diff(BORDERS)[:, [0, -1]] / scipy.stats.norm.ppf(0.75)
NODES, WEIGHTS = (np.asarray(x, float) for x in np.polynomial.legendre.leggauss(24))


def density(x, row):
    """The density on both sides of a border is that of the bar on its right."""
    borders, (first, last) = BORDERS[row], SCALES[row]
    heights = PROBS[row] / np.diff(borders)
    out = heights[np.clip(np.searchsorted(borders, x, "right") - 1, 0, 6)]
    left = PROBS[row, 0] * scipy.stats.halfnorm.pdf(borders[1] - x, scale=first)
    right = PROBS[row, -1] * scipy.stats.halfnorm.pdf(x - borders[-2], scale=last)
    return np.where(x < borders[1], left, np.where(x >= borders[-2], right, out))


def probability(x, row):
    """The distribution function, by components."""
    borders, (first, last) = BORDERS[row], SCALES[row]
    parts = [scipy.stats.halfnorm.sf(borders[1] - x, scale=first)]
    parts += [
        scipy.stats.uniform.cdf(x, a, b - a)
        for a, b in zip(borders[1:-2], borders[2:-1], strict=True)
    ]
    parts += [scipy.stats.halfnorm.cdf(x - borders[-2], scale=last)]
    return np.tensordot(PROBS[row], np.array(parts), 1)


def integral(function, row, *cuts, low=-np.inf, high=np.inf):
    """Gauss-Legendre between all borders, cuts, and whole scales out to the 30th in the tails."""
    first, last = SCALES[row]
    outside = np.arange(1, 31)
    ends = np.concatenate([BORDERS[row], cuts, BORDERS[row, 1] - first * outside,
                           BORDERS[row, -2] + last * outside])  # fmt: skip
    ends = np.unique(np.clip(ends, low, high))
    half, middle = np.diff(ends)[:, None] / 2, (ends[1:] + ends[:-1])[:, None] / 2
    x = middle + half * NODES
    return np.sum(half * WEIGHTS * function(x))


@jax.jit
def everything(distribution, points, levels):
    """One program for most of the tests."""
    quantiles = distribution.icdf(levels)
    bounds = distribution.upper_confidence_bound(points)
    return {
        "log_prob": distribution.log_prob(points),
        "cdf": distribution.cdf(points),
        "icdf": quantiles,
        "level": distribution.cdf(quantiles),
        "improvement": distribution.expected_improvement(points),
        "chance": distribution.probability_of_improvement(points),
        "crps": distribution.crps(points),
        "bound": bounds,
        "above bound": distribution.probability_of_improvement(bounds),
        "mean": distribution.mean,
        "variance": distribution.variance,
        "entropy": distribution.entropy(),
        "mode": distribution.mode,
        "peak": distribution.log_prob(distribution.mode),
    }


def make(dtype, borders=BORDERS, logits=LOGITS):
    return BarDistribution(jnp.asarray(borders, dtype), jnp.asarray(logits, dtype))


def expected():
    each = lambda f: np.array([[f(x, row) for row, x in enumerate(at)] for at in POINTS])  # noqa: E731
    with np.errstate(divide="ignore"):
        log_density = np.log(each(lambda x, row: density(np.array(x), row)))

    def crps(y, row):
        below = integral(lambda x: probability(x, row) ** 2, row, y, high=y)
        return below + integral(lambda x: (1 - probability(x, row)) ** 2, row, y, low=y)

    def moment(function):
        weigh = lambda row: lambda x: function(x, row) * density(x, row)  # noqa: E731
        return np.array([integral(weigh(row), row) for row in (0, 1)])

    def surprise(x, row):
        return -np.log(np.maximum(density(x, row), 1e-300))

    mean = moment(lambda x, row: x)
    return {
        "log_prob": log_density,
        "cdf": each(lambda x, row: integral(lambda t: density(t, row), row, x, high=x)),
        "improvement": each(lambda f, row: integral(
            lambda t: (t - f) * density(t, row), row, f, low=f)),
        "chance": each(lambda x, row: integral(lambda t: density(t, row), row, x, low=x)),
        "crps": each(crps),
        "mean": mean,
        "variance": moment(lambda x, row: (x - mean[row]) ** 2),
        "entropy": moment(surprise),
        "mode": np.array([-0.25, 1.75]),
    }  # fmt: skip


def test_all_formulas_are_those_of_quadrature(dtype, tol):
    """Two rows, one with empty bars; values relative to themselves, so also in the tails."""
    found = everything(make(dtype), POINTS, LEVELS)
    wanted = expected()
    np.testing.assert_allclose(
        [integral(functools.partial(density, row=row), row) for row in (0, 1)], 1
    )
    for name, want in wanted.items():
        assert found[name].dtype == dtype, name
        np.testing.assert_allclose(found[name], want, rtol=tol["rtol"], atol=1e-12, err_msg=name)
    levels = np.broadcast_to(LEVELS, found["level"].shape)
    np.testing.assert_allclose(found["level"], levels, rtol=30 * tol["rtol"], atol=0)
    np.testing.assert_allclose(found["peak"], np.log([0.3, 0.5]), rtol=tol["rtol"])


def test_score_is_that_of_the_quantile_identity(dtype):
    """Gneiting and Raftery's score is twice the mean quantile loss."""
    found = everything(make(dtype), POINTS, LEVELS)
    grid, quantiles = LEVELS[-GRID:], np.asarray(found["icdf"])[-GRID:]
    loss = ((POINTS[:, None] <= quantiles) - grid) * (quantiles - POINTS[:, None])
    np.testing.assert_allclose(found["crps"], 2 * loss.mean(1), rtol=1e-3, atol=1e-4)


def test_tails_are_right_far_out(dtype, tol):
    """Densities forty scales and more away, and quantiles of tiny probabilities, on both sides."""
    z = np.array([3.0, 13.0, 40.0, 1e6, 1.0])[:, None]
    (first, last), norm = SCALES.T, scipy.stats.norm
    far = np.concatenate([BORDERS[:, 1] - z * first, BORDERS[:, -2] + z * last, 0 * z.T[:, :2]])
    tiny = np.resize(np.array([1e-3, 1e-10, 1e-35, 0.0, 1.0]), LEVELS.shape)
    found = everything(make(dtype), far, tiny)
    with np.errstate(divide="ignore"):
        want = scipy.stats.halfnorm.logpdf(z) + np.log(PROBS[:, 0] / first)
        np.testing.assert_allclose(found["log_prob"][:5], want, rtol=1e-5)
        want = scipy.stats.halfnorm.logpdf(z) + np.log(PROBS[:, -1] / last)
        np.testing.assert_allclose(found["log_prob"][5:10], want, rtol=1e-5)
    want = BORDERS[:, 1] + first * norm.ppf(tiny[:3] / (2 * PROBS[:, 0]))
    np.testing.assert_allclose(found["icdf"][:3], want, rtol=tol["rtol"])
    want = np.array([[-np.inf, -np.inf], [np.inf, 5.0]])  # 5, since the last bar is empty there
    np.testing.assert_allclose(found["icdf"][3:5], want, rtol=1e-6)
    beta = np.array([-12.0, -7.0, -1.0, 0.3, 1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 12.0])[:, None]
    found = everything(make(dtype), beta + np.zeros(2), tiny)
    close = {"rtol": 100 * tol["rtol"], "atol": 0}
    np.testing.assert_allclose(found["above bound"][2:, 0], norm.sf(beta[2:, 0]), **close)
    want = BORDERS[0, -2] - last[0] * norm.ppf(norm.sf(beta[-4:, 0]) / (2 * PROBS[0, -1]))
    np.testing.assert_allclose(found["bound"][-4:, 0], want, rtol=tol["rtol"])
    want = BORDERS[0, 1] + first[0] * norm.ppf(norm.cdf(beta[:2, 0]) / (2 * PROBS[0, 0]))
    np.testing.assert_allclose(found["bound"][:2, 0], want, rtol=tol["rtol"])


def test_gradients_are_finite_and_those_of_finite_differences(dtype):
    """Backwards in borders, logits, values and levels: on borders, at empty bars, and off them."""
    num = 4 if dtype == jnp.float64 else 2

    def weighted(arguments, weights):
        borders, logits, points, levels = arguments
        distribution = BarDistribution(borders, logits)
        outputs = [
            distribution.log_prob(points),
            distribution.icdf(levels),
            distribution.crps(points) + distribution.cdf(points) * 2,
            distribution.expected_improvement(points) + distribution.entropy()
            + distribution.variance,
        ]  # fmt: skip
        terms = [jnp.sum(jnp.where(jnp.isfinite(x), x, 0)) for x in outputs[: weights.size]]
        return jnp.stack(terms) @ weights

    def as_arrays(*arrays):
        return tuple(jnp.asarray(x, dtype) for x in arrays)

    run = jax.jit(jax.value_and_grad(weighted))
    on_borders = np.concatenate([BORDERS[:, 1:-1].T, POINTS[5:]])
    levels = np.cumsum(PROBS, axis=1)[:, [0, 1, 2, 3, 4, 5]].T
    levels[levels > 1 - 1e-3] = 1e-30
    levels = np.concatenate([levels, np.linspace(1e-4, 0.9999, 6)[:, None] + np.zeros(2)])
    slopes = run(as_arrays(BORDERS, LOGITS, on_borders, levels), jnp.ones(num, dtype))[1]
    for slope in slopes:
        assert slope.dtype == dtype and np.all(np.isfinite(slope))
    if dtype == jnp.float32:
        return
    levels = np.linspace(0.013, 0.98, 12)[:, None] + np.zeros(2)
    arguments = as_arrays(BORDERS, np.log(PROBS + 0.05), on_borders + 0.03, levels)
    rng = np.random.default_rng(3)
    for weights in np.eye(num):
        for which in range(4):
            step = np.asarray(rng.normal(size=arguments[which].shape)) * 1e-6
            moved = [
                (*arguments[:which], arguments[which] + sign * step, *arguments[which + 1 :])
                for sign in (1, -1)
            ]
            want = run(moved[0], weights)[0] - run(moved[1], weights)[0]
            got = 2 * np.sum(run(arguments, weights)[1][which] * step)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-12)


def test_draws_have_the_distribution_and_its_derivative(dtype):
    num = 40_000

    @jax.jit
    def run(borders, logits, change):
        def draws(x):
            return BarDistribution(borders, x).sample(jax.random.key(1), (num,))

        mean = lambda x: BarDistribution(borders, x).mean  # noqa: E731
        return jax.jvp(draws, (logits,), (change,)), jax.jvp(mean, (logits,), (change,))

    change = np.sin(np.arange(14.0)).reshape(2, 7) * [[0.5], [0.0]]
    (draws, slopes), (mean, slope) = run(
        *(jnp.asarray(x, dtype) for x in (BORDERS, LOGITS, change))
    )
    assert draws.shape == (num, 2) and draws.dtype == dtype
    draws, root = np.asarray(draws, float), np.sqrt(num)
    assert np.all(np.abs(draws.mean(0) - mean) < 5 * draws.std(0) / root)
    slopes = np.asarray(slopes, float)
    assert np.all(np.abs(slopes.mean(0) - slope) <= 5 * slopes.std(0) / root)
    assert min(np.min(density(draws[:, row], row)) for row in (0, 1)) > 0  # no empty bar
    levels = np.stack([probability(draws[:, row], row) for row in (0, 1)], 1)
    ranks = (np.arange(num)[:, None] + 0.5) / num
    assert np.all(np.abs(np.sort(levels, 0) - ranks).max(0) < 2.5 / root)  # one in 10⁵
    assert abs(np.corrcoef(levels.T)[0, 1]) < 5 / root
    for tail in (draws[draws[:, 0] < -1.5, 0], draws[draws[:, 0] > 4.5, 0]):
        assert np.unique(tail).size > 0.99 * tail.size  # not a lattice


def test_two_bars_are_two_half_normals():
    scale = np.array([3.0, 0.5]) / scipy.stats.norm.ppf(0.75)
    half = scipy.stats.halfnorm

    @jax.jit
    def run(borders, logits):
        d = BarDistribution(borders, logits)
        return d.cdf(np.array([0.0, 1.0, 2.0])), d.icdf(np.array([0.1, 0.25, 0.6]))

    cdf, icdf = run(np.array([-2.0, 1.0, 1.5]), np.log([0.25, 0.75]))
    want = [0.25 * half.sf(1, scale=scale[0]), 0.25, 0.25 + 0.75 * half.cdf(1, scale=scale[1])]
    np.testing.assert_allclose(cdf, want, rtol=1e-12)
    want = 1 - scale[0] * half.ppf(0.6), 1, 1 + scale[1] * half.ppf(0.35 / 0.75)
    np.testing.assert_allclose(icdf, want, rtol=1e-12)


def test_axes_broadcast():
    """Borders and logits with different axes, and points with one more."""
    logits = np.log(PROBS + 0.02)[:, None]
    borders = BORDERS[0] + np.arange(3.0)[:, None]
    distribution = BarDistribution(borders, logits)
    found = jax.jit(lambda d: d.log_prob(POINTS[:5, :1, None]))(distribution)
    assert distribution.batch_shape == (2, 3) and found.shape == (5, 2, 3)
    want = [[make(jnp.float64, b, x[0]).log_prob(POINTS[:5, 0]) for b in borders] for x in logits]
    np.testing.assert_allclose(found, np.moveaxis(np.array(want), -1, 0), rtol=1e-12)


def test_affine_change_of_the_variable():
    loc, scale = np.array([[1.5], [-20.0], [0.0]]), np.array([[2.0, 0.1]])

    @jax.jit
    def run(distribution):
        moved = distribution.affine(loc, scale)
        return (
            (
                moved.log_prob(loc + scale * POINTS[3]),
                distribution.log_prob(POINTS[3]) - np.log(scale),
            ),
            (moved.mean, loc + scale * distribution.mean),
            (moved.variance, scale**2 * distribution.variance),
        )

    for moved, want in run(make(jnp.float64)):
        assert moved.shape == (3, 2)
        np.testing.assert_allclose(moved, np.broadcast_to(want, (3, 2)), rtol=1e-9)


def test_mixture_has_the_probabilities_of_its_parts():
    """On pooled and on given borders; the tails have the mixture's mean."""
    second, weights = make(jnp.float64), np.array([1.0, 2.0])
    few = make(jnp.float64, BORDERS[0, [0, 1, 4, 7]], np.zeros(3))
    given = np.array([-2.0, -1.0, 0.25, 0.6, 1.2, 4.7])

    @jax.jit
    def run(few, second):
        mixed = bar_mixture([few, second], weights)
        ends = mixed.borders[:, -2]
        gains = [d.expected_improvement(ends) for d in (few, second, mixed)]
        return mixed, gains, bar_mixture([few, second], weights, borders=given)

    mixed, gains, onto = run(few, second)
    assert mixed.batch_shape == (2,) and mixed.num_bars == 5 and np.all(np.diff(mixed.borders) > 0)
    np.testing.assert_allclose(gains[2], (gains[0] + 2 * gains[1]) / 3, rtol=1e-9)
    inner = np.asarray(mixed.borders)[:, 1:-1]
    cdf = np.stack([few.cdf(x) + 2 * probability(x, row) for row, x in enumerate(inner)]) / 3
    np.testing.assert_allclose(np.cumsum(mixed.probs, 1)[:, :-1], cdf, rtol=1e-9)
    cdf = np.array([[0, *probability(given[1:-1], row), 1] for row in (0, 1)])
    few_cdf = np.array([0, *few.cdf(given[1:-1]), 1])
    np.testing.assert_allclose(onto.probs, np.diff(few_cdf + 2 * cdf) / 3, rtol=1e-9)


def test_mixture_keeps_borders_that_are_the_same():
    """In single precision, with an empty bar, at which gradients are finite too."""
    first, flat = (make(jnp.float32, BORDERS[1], x) for x in (LOGITS[1], np.zeros(7)))

    def log_prob(first, flat):
        mixed = bar_mixture([first, flat])
        return jnp.sum(mixed.log_prob(np.array([0.6, 7.0]))), mixed

    slope, mixed = jax.jit(jax.grad(log_prob, has_aux=True, allow_int=True))(first, flat)
    assert mixed.borders.dtype == mixed.logits.dtype == jnp.float32
    np.testing.assert_allclose(mixed.borders, BORDERS[1], rtol=1e-5)
    np.testing.assert_allclose(mixed.probs, (PROBS[1] + 1 / 7) / 2, rtol=1e-5)
    assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(slope))


def test_borders_cut_draws_into_equal_groups(dtype):
    draws = np.random.default_rng(5).standard_normal((50, 14)).astype(dtype)
    borders = equal_mass_borders(draws, 7)
    assert borders.dtype == dtype and borders.shape == (8,)
    np.testing.assert_array_equal(np.histogram(draws, np.asarray(borders))[0], 100)
    assert borders[0] == draws.min() and borders[-1] == draws.max()
    ordered = np.sort(draws, axis=None)
    np.testing.assert_allclose(borders[1], (ordered[99] + ordered[100]) / 2, rtol=1e-6)


def test_equal_draws_stay_together_and_no_bar_lacks_width():
    rng = np.random.default_rng(6)
    coins = equal_mass_borders(rng.integers(0, 2, 500), 10)
    np.testing.assert_array_equal(coins, [0, 0.5, 1])
    dice = equal_mass_borders(np.repeat(np.arange(6), 100), 100)
    np.testing.assert_array_equal(dice, [0, 0.5, 1.5, 2.5, 3.5, 4.5, 5])
    clipped = np.maximum(rng.normal(size=4000), 0)
    borders = np.asarray(equal_mass_borders(clipped, 20))
    counts = np.histogram(clipped, borders)[0]
    assert np.all(np.diff(borders) > 0) and 10 <= counts.size <= 12
    assert counts[0] == np.sum(clipped == 0) and np.all(np.abs(counts[2:] - 200) <= 1)
    far = (1e6 + rng.normal(size=4000) * 10).astype(np.float32)
    assert np.all(np.diff(equal_mass_borders(far, 100)) > 1)
    BarDistribution(borders, np.zeros(counts.size))
    skewed = np.exp(5 * rng.normal(size=4000)).astype(np.float32)  # over fifteen decades
    assert equal_mass_borders(skewed, 100).shape == (101,)


def test_arguments_are_validated():
    checked = BarDistribution(BORDERS, LOGITS, validate_args=True)
    with pytest.warns(UserWarning, match="Out-of-support"):
        assert np.all(checked.log_prob(np.nan) == -np.inf)
    for bad in (np.full((2, 7), -np.inf), np.full((2, 7), np.nan)):
        with pytest.raises(ValueError, match="invalid logits"):
            BarDistribution(BORDERS, bad, validate_args=True)


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"shape \(\.\.\., k \+ 1\) .* got \(8,\) and \(8,\)"):
        BarDistribution(BORDERS[0], np.zeros(8))
    with pytest.raises(ValueError, match="at least 2 bars"):
        BarDistribution(BORDERS[0, :2], np.zeros(1))
    with pytest.raises(ValueError, match="borders must be finite and increase in float64"):
        BarDistribution(np.zeros(4), np.zeros(3))
    with pytest.raises(ValueError, match="scale must be positive"):
        make(jnp.float64).affine(0.0, 0.0)
    with pytest.raises(ValueError, match=r"weights must have shape \(1,\)"):
        bar_mixture([make(jnp.float64)], np.ones(2))
    with pytest.raises(ValueError, match="at least 5 draws for each of 30 bars"):
        equal_mass_borders(np.arange(100.0), 30)
    with pytest.raises(ValueError, match="must differ"):
        equal_mass_borders(np.full(100, 3.0), 7)
