"""Predictive resampling: exact posteriors of conjugate rules at a finite horizon."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import scipy.stats
from jaxtyping import Array

from bayesjx import amortized
from bayesjx.amortized import (
    AbstractPredictiveRule,
    bayesian_bootstrap,
    CategoricalUrn,
    NormalHead,
    NormalNormal,
    PFN,
    PFNPredictive,
    PolyaUrn,
    PosteriorPredictive,
    predictive_resample,
)

RNG = np.random.default_rng(0)
KEY = jax.random.key(1)
N, AHEAD, SAMPLES = 7, 43, 2000
Y = RNG.normal(size=N) + 0.5
X = RNG.normal(size=(N, 2))
COIN = np.array([1, 0, 1, 1, 0, 1, 1])
LOC, SCALE, NOISE = 0.3, 2.0, 1.5
COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: COMPILED.append(event) if event.endswith("compile_duration") else None
)


class Forgetful(AbstractPredictiveRule):
    """Predicts the last observation with noise, and drifts up by `rise`: no martingale."""

    rise: float

    has_inputs = has_cdf = False
    has_density = True

    def init(self, data, num_forward=0):
        return data[-1]

    def sample(self, key, state, x=None):
        return state + self.rise + jax.random.normal(key, (), state.dtype)

    def absorb(self, state, y, x=None):
        return y

    def log_prob(self, state, y, x=None):
        return dist.Normal(state + self.rise, 1.0).log_prob(y)

    def cdf(self, state, y, x=None):
        raise ValueError

    def report(self, state) -> dict[str, Array]:
        return {"level": state}


def checked(drawn, martingale=True):
    """Diagnostics in NumPy, without drift where the functional is linear and the rule fair."""
    if martingale:
        for z in jax.tree.leaves(drawn.diagnostics.martingale_z):
            assert np.max(np.abs(z)) < 5
    return jax.tree.map(np.asarray, drawn.diagnostics)


def near(values, mean, variance):
    """Mean and variance of draws within five standard errors of theirs."""
    values = np.asarray(values, float)
    assert abs(values.mean() - mean) < 5 * np.sqrt(variance / len(values))
    fourth = np.mean((values - values.mean()) ** 4)
    error = np.sqrt(max(fourth - variance**2, 0.1 * variance**2) / len(values))
    assert abs(values.var() - variance) < 5 * error


def test_a_coin_has_its_beta_posterior():
    """The number of heads is beta-binomial at any horizon."""
    rule = CategoricalUrn([3.0, 2.0])  # Beta(2, 3) of heads
    drawn = predictive_resample(KEY, rule, COIN, jnp.mean, num_forward=AHEAD, num_samples=SAMPLES)
    heads = np.round(np.asarray(drawn.samples) * (N + AHEAD)).astype(int) - COIN.sum()
    exact = scipy.stats.betabinom(AHEAD, 2 + COIN.sum(), 3 + N - COIN.sum())
    at = np.arange(AHEAD + 1)
    found = np.mean(heads[:, None] <= at, axis=0)
    assert np.max(np.abs(found - exact.cdf(at))) < 2.2 / np.sqrt(SAMPLES)  # Kolmogorov, 1e-4
    found = checked(drawn)
    assert found.num_rows[-1] == N + AHEAD and found.num_rows.shape == found.scale.shape
    assert found.scale[-1] > found.scale[0] and found.remaining[-1] == 0
    assert np.all(np.diff(found.remaining) < 0)
    np.testing.assert_allclose(drawn.initial, COIN.mean())


def test_the_normal_mean_has_the_exact_variance(dtype):
    rule, y = NormalNormal(LOC, SCALE, NOISE), Y.astype(dtype)
    options = {"num_forward": AHEAD, "num_samples": SAMPLES, "of": "state", "num_records": 4}

    def functional(state):
        return {"mean": state.mean, "precision": state.precision}

    drawn = predictive_resample(KEY, rule, y, functional, **options)
    means = drawn.samples["mean"]
    first, last = (SCALE**-2 + n * NOISE**-2 for n in (N, N + AHEAD))
    np.testing.assert_allclose(drawn.samples["precision"], last, rtol=1e-5)
    found = drawn.diagnostics  # what moves and does not vary has no drift in standard errors
    assert np.all(np.isinf(found.remaining["precision"][:-1]))
    assert np.all(np.isnan(found.martingale_z["precision"])) and " e+" not in repr(drawn)
    mean = (LOC * SCALE**-2 + Y.sum() * NOISE**-2) / first
    near(means, mean, 1 / first - 1 / last)
    normal = scipy.stats.norm(mean, np.sqrt(1 / first - 1 / last))
    assert scipy.stats.kstest(np.asarray(means, float), normal.cdf).pvalue > 1e-4
    assert means.dtype == dtype
    assert np.max(np.abs(drawn.diagnostics.martingale_z["mean"])) < 5
    np.testing.assert_allclose(drawn.initial["mean"], mean, rtol=1e-5)
    if dtype == jnp.float64:  # the correction, labelled
        wide = predictive_resample(KEY, rule, y, functional, correct=True, **options)
        centre, factor = np.mean(means), np.sqrt((N + AHEAD) / AHEAD)
        np.testing.assert_allclose(wide.samples["mean"], centre + factor * (means - centre))
        assert "corrected for the finite horizon" in repr(wide) and wide.missing_variance == 0
        assert "not corrected" in repr(drawn) and drawn.missing_variance == N / (N + AHEAD)


def test_urns_are_the_bayesian_bootstrap_and_the_dirichlet_process():
    options = {"num_forward": AHEAD, "num_samples": SAMPLES}
    drawn = predictive_resample(
        KEY, PolyaUrn(), Y, amortized.weighted_mean, num_records=3, batch_size=300, **options
    )
    variance = Y.var() / (N + 1)
    near(drawn.samples, Y.mean(), variance * AHEAD / (N + AHEAD))
    found = checked(drawn)
    assert list(found.num_rows) == [22, 37, 50]
    np.testing.assert_allclose(found.mean[-1], np.mean(drawn.samples))
    want = np.sqrt(variance * (found.num_rows - N) / found.num_rows)
    np.testing.assert_allclose(found.scale, want, rtol=5 / np.sqrt(2 * SAMPLES))
    direct = bayesian_bootstrap(KEY, Y, amortized.weighted_mean, num_samples=SAMPLES)
    near(direct.samples, Y.mean(), variance)
    # With a base: E of the drawn rows is the mean of the predictive.
    c, rule = 3.0, PolyaUrn(3.0, dist.Normal(5.0, 1.0))
    process = predictive_resample(KEY, rule, Y, jnp.mean, **options)
    ahead = (c * 5.0 + Y.sum()) / (c + N)
    mean = (Y.sum() + AHEAD * ahead) / (N + AHEAD)
    second = (c * 26.0 + np.sum(Y**2)) / (c + N) - ahead**2
    share = AHEAD * (AHEAD + c + N) / (c + N + 1) / (N + AHEAD) ** 2
    near(process.samples, mean, second * share)
    # Predictions at points: a share of atoms below, and of the base.
    counts = PolyaUrn(2.0, dist.Poisson(1.5))

    @jax.jit
    def predictions(y, numbers):
        return rule.cdf(rule.init(y), 0.9), counts.log_prob(counts.init(numbers), 2)

    cdf, log_prob = predictions(Y, np.array([0, 2, 2, 1, 7]))
    want = (c * scipy.stats.norm.cdf(0.9, 5, 1) + np.sum(Y <= 0.9)) / (c + N)
    np.testing.assert_allclose(cdf, want)
    want = np.log((2.0 * scipy.stats.poisson.pmf(2, 1.5) + 2) / 7)
    np.testing.assert_allclose(log_prob, want)


def test_integers_are_no_limit_of_what_is_drawn():
    """Rows of integers and of real numbers are the same data."""
    counts, x = np.array([1, 2, 3]), np.array([[1, 0], [2, 2], [0, 3]])
    options = {"num_forward": 5, "num_samples": 7}
    slopes = PosteriorPredictive(line, {"slope": RNG.normal(size=(11, 2))})

    def drawn(rule, data, functional=jnp.mean, **more):
        return predictive_resample(KEY, rule, data, functional, **options, **more).samples

    for rule in (NormalNormal(LOC, SCALE, NOISE), PolyaUrn(9.0, dist.Normal(0.5, 0.1))):
        found = drawn(rule, counts)
        np.testing.assert_array_equal(found, drawn(rule, counts.astype(float)))
        assert np.std(found) > 0
    mean, inputs = amortized.weighted_mean, np.full((1, 2), 0.5)
    found = drawn(slopes, (x, counts), mean, inputs=inputs)
    want = drawn(slopes, (x.astype(float), counts.astype(float)), mean, inputs=inputs)
    np.testing.assert_array_equal(found[1], want[1])
    np.testing.assert_allclose(found[0], np.tile((x.sum(axis=0) + 2.5) / 8, (7, 1)))
    heads = drawn(CategoricalUrn([1.0, 1.0, 1.0]), counts == 1, jnp.max)
    assert np.max(heads) == 2
    shares = drawn(PolyaUrn(), counts, lambda rows: jnp.mean(rows) > 2)  # booleans are 0 and 1
    assert set(np.asarray(shares)) <= {0.0, 1.0}


def test_rounding_is_no_drift():
    """Of samples that do not vary nothing is said, whatever their last digits are."""
    y, points = np.full(5, 0.1), np.array([0.1, 0.3])
    drawn = predictive_resample(
        KEY, PolyaUrn(), y, jnp.mean, num_forward=50, num_samples=20, points=points
    )
    found = checked(drawn)
    for values in (found.drift, found.drift_error, found.remaining, found.order_scale):
        np.testing.assert_array_equal(values, 0)
    np.testing.assert_array_equal(found.density_change, 0)
    np.testing.assert_array_equal(found.cid_defect.z, 0)
    assert "largest drift: unknown, of samples that do not vary" in repr(drawn)


def test_points_of_rows_that_are_no_numbers():
    """Rules that have no distribution function there are compared by their probabilities."""
    coin, faces = np.array([0, 1, 1]), PolyaUrn(2.0, dist.Categorical(jnp.array([0.2, 0.3, 0.5])))
    for rule, data in ((PolyaUrn(), (X, Y)), (faces, coin)):
        points = jax.tree.map(lambda v: v[:2], data)
        defect = amortized.cid_defect(KEY, rule, data, points)
        assert np.max(np.abs(defect.z)) < 5 and np.all(np.asarray(defect.standard_error) > 0)
    scores = amortized.prequential_log_prob(CategoricalUrn([1.0, 1.0]), np.array([0, 1, 2, 0.5]))
    np.testing.assert_allclose(np.exp(scores), [1 / 2, 1 / 3, 0, 0])


def test_without_data_the_prior_is_drawn():
    drawn = predictive_resample(
        KEY,
        NormalNormal(LOC, SCALE, NOISE),
        np.zeros(0),
        jnp.mean,
        num_forward=5,
        num_samples=SAMPLES,
    )
    near(drawn.samples, LOC, SCALE**2 + NOISE**2 / 5)
    assert drawn.initial is None and "drawn ahead" in repr(drawn)


def test_gradients_vmap_and_jit():
    def value(y, loc):
        drawn = predictive_resample(
            KEY, NormalNormal(loc, SCALE, NOISE), y, jnp.mean, num_forward=5, num_samples=3
        )
        return jnp.sum(drawn.samples**2)

    way = RNG.normal(size=N)
    moves = 1e-5 * np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]])
    ends = Y + moves[:, :1] * way, LOC + moves[:, 1]
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(value, (0, 1))))(*ends)
    np.testing.assert_allclose(slopes[0][0] @ way, (values[1] - values[2]) / 2e-5, rtol=1e-6)
    np.testing.assert_allclose(slopes[1][0], (values[3] - values[4]) / 2e-5, rtol=1e-6)
    np.testing.assert_allclose(values[1], value(Y + 1e-5 * way, LOC), rtol=1e-9)


def test_rules_that_are_no_martingales_are_found():
    points = np.array([-1.0, 0.5, 2.0])
    drawn = predictive_resample(
        KEY, Forgetful(0.3), Y, jnp.mean, num_forward=20, num_samples=200, points=points
    )
    assert np.max(drawn.diagnostics.martingale_z) > 5
    found = checked(drawn, martingale=False)
    assert found.density_change.shape == found.num_rows.shape
    np.testing.assert_allclose(found.density_change[0], found.density_step[0])
    assert np.max(np.abs(drawn.diagnostics.cid_defect.z)) > 5
    assert np.min(found.order_scale) > 0.01
    np.testing.assert_allclose(found.reports["level"][-1], Y[-1] + 20 * 0.3, atol=5 * 0.32)
    assert "largest drift" in repr(drawn) and "level" in repr(drawn)
    fair = amortized.cid_defect(KEY, NormalNormal(LOC, SCALE, NOISE), Y, points)
    assert np.max(np.abs(fair.z)) < 5


def test_prequential_scores_are_the_evidence():
    covariance = NOISE**2 * np.eye(N) + SCALE**2
    want = scipy.stats.multivariate_normal(np.full(N, LOC), covariance).logpdf(Y)
    scores = amortized.prequential_log_prob(NormalNormal(LOC, SCALE, NOISE), Y)
    np.testing.assert_allclose(np.sum(scores), want)
    heads = COIN.sum()
    want = scipy.special.betaln(2 + heads, 3 + N - heads) - scipy.special.betaln(2, 3)
    scores = amortized.prequential_log_prob(CategoricalUrn([3.0, 2.0]), COIN)
    np.testing.assert_allclose(np.sum(scores), want)


@pytest.mark.parametrize("causal", [False, True])
def test_networks_predict_what_they_do_with_all_rows(causal):
    network = eqx.filter_eval_shape(
        PFN, 2, NormalHead(), key=KEY, width=8, depth=1, heads=2, causal=causal
    )
    rng = np.random.default_rng(3)  # weights that are random everywhere
    network = jax.tree.map(lambda v: jnp.asarray(0.3 * rng.normal(size=v.shape)), network)

    @jax.jit
    def values(network, x, y, at):
        rule = PFNPredictive(network)
        state = rule.absorb(rule.init((x[:-1], y[:-1]), 1), y[-1], x[-1])
        whole = network.condition(x, y).predict(at[None])
        log_probs = rule.log_prob(state, y[0], at), whole.log_prob(y[0])[0]
        return log_probs, (rule.cdf(state, y[0], at), whole.cdf(y[0])[0])

    for found, want in values(network, jnp.asarray(X), jnp.asarray(Y), jnp.asarray([0.2, -0.4])):
        np.testing.assert_allclose(found, want, rtol=1e-8)
    if causal:
        drawn = predictive_resample(
            KEY, PFNPredictive(network), (X, Y), lambda rows: jnp.mean(rows[0][:, 0]),
            inputs=np.full((1, 2), 9.0), num_forward=4, num_samples=3, num_records=1,
        )  # fmt: skip
        np.testing.assert_allclose(drawn.samples, (X[:, 0].sum() + 36) / (N + 4))


def line(x, y=None):
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    mean = numpyro.deterministic("mean", x @ slope)
    numpyro.factor("shrink", -jnp.sum(slope**2))
    with numpyro.plate("rows", len(x)):
        numpyro.sample("y", dist.Normal(mean, 0.5), obs=y)


def test_posterior_draws_are_reweighted_by_what_is_absorbed():
    slopes = RNG.normal(size=(11, 2))
    rule = PosteriorPredictive(line, {"slope": slopes, "mean": slopes @ X.T})

    @jax.jit
    def values(x, y):
        state = rule.init((x, y))
        after = rule.absorb(state, y[0], x[0])
        prior = PosteriorPredictive(line, {"slope": slopes}, absorb_data=True)
        both = rule.report(state), rule.report(after)
        flat = PosteriorPredictive(lambda x: line(x[:, None] * X[0]), {"slope": slopes})
        one = flat.log_prob(flat.init((jnp.ones(len(y)), y)), y[0], jnp.ones(()))
        at = jnp.stack([rule.log_prob(state, y[0], x[0]), one])  # inputs of shape (n,) are (1,)
        return both, at, after, prior.init((x[:1], y[:1]))

    (before, later), log_prob, after, prior = values(jnp.asarray(X), jnp.asarray(Y))
    np.testing.assert_allclose(before["effective_sample_size"], 11)
    density = scipy.stats.norm.pdf(Y[0], slopes @ X[0], 0.5)
    np.testing.assert_allclose(log_prob, np.log(density.mean()))
    weights = density / density.sum()
    np.testing.assert_allclose(np.exp(after.log_weights), weights)
    np.testing.assert_allclose(later["effective_sample_size"], 1 / np.sum(weights**2))
    # Of draws of the prior, data count too.
    np.testing.assert_allclose(np.exp(prior.log_weights), weights)

    @jax.jit
    def functional(rows):  # inputs of drawn rows are those of the data
        gaps = jnp.sum((rows[0][:, None] - X) ** 2, axis=-1)
        return {"mean": jnp.mean(rows[1]), "apart": jnp.max(jnp.min(gaps, axis=1))}

    drawn = predictive_resample(
        KEY, rule, (X, Y), functional, num_forward=30, num_samples=200, num_records=3
    )
    size = drawn.diagnostics.reports["effective_sample_size"]
    assert np.all(np.diff(size) < 0) and 1 <= size[-1] < size[0] <= 11
    np.testing.assert_allclose(drawn.samples["apart"], 0, atol=1e-12)
    assert np.max(np.abs(drawn.diagnostics.martingale_z["mean"])) < 5
    defect = amortized.cid_defect(KEY, rule, (X, Y), (X[:3], Y[:3]))
    assert np.max(np.abs(defect.z)) < 5
    mean = jax.jit(lambda d: d.distribution("mean").mean)(drawn)
    np.testing.assert_allclose(mean, np.mean(drawn.samples["mean"]))


def test_functionals_of_weighted_data():
    weights = RNG.dirichlet(np.ones(N))
    order = np.argsort(Y)
    want = [Y[order][np.searchsorted(np.cumsum(weights[order]), p)] for p in (0.2, 0.9)]
    quantiles = amortized.weighted_quantile([0.2, 0.9])
    data, weights = (jnp.asarray(X), jnp.asarray(Y)), jnp.asarray(weights)

    @jax.jit
    def both(data, weights):
        return quantiles(data[1], weights=weights), amortized.least_squares(data, weights=weights)

    levels = jnp.array([0.1, 0.3, 0.7, 1.1, 3.3, 5.7])
    high = jnp.column_stack([data[0], jnp.tile(levels, (N, 1))]), data[1] + 1e6
    constant, single = both(high, weights)[1], both(*jax.tree.map(jnp.float32, (high, weights)))[1]
    found, coefficients = both(data, weights)
    np.testing.assert_allclose(
        constant, [coefficients[0] + 1e6, *coefficients[1:], *np.zeros(6)], rtol=1e-8
    )
    near = (jnp.float32(high[1]) - 1e6).astype(float)
    np.testing.assert_allclose(single[1:], both((high[0], near), weights)[1][1:], rtol=1e-4)
    numbers = jnp.arange(10.0)  # rows of equal weights have the share that they have
    tenths = amortized.weighted_quantile(np.arange(1, 10) / 10)
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(tenths(numbers, jnp.full(10, 0.1, dtype)), np.arange(9))
    np.testing.assert_array_equal(found, want)
    design = np.column_stack([np.ones(N), X])
    root = np.sqrt(np.asarray(weights))
    want = np.linalg.lstsq(root[:, None] * design, root * Y, rcond=None)[0]
    np.testing.assert_allclose(coefficients, want, rtol=1e-8)

    def loss(params, row):
        return (row[1] - params["base"] - row[0] @ params["slope"]) ** 2

    found = amortized.m_estimator(loss, {"base": jnp.zeros(()), "slope": jnp.zeros(2)})

    def of(y):
        params = found((data[0], y), weights=weights)
        flat = jnp.append(params["base"], params["slope"])
        return flat, flat

    slope, params = jax.jit(jax.jacobian(of, has_aux=True))(data[1])
    np.testing.assert_allclose(params, want, rtol=1e-7)
    exact = np.linalg.pinv(root[:, None] * design) * root
    np.testing.assert_allclose(slope, exact, rtol=1e-6, atol=1e-9)


def test_minimisers_in_single_precision():
    """All are found where there is one, whatever the weights; where there is none they are NaN."""
    dtype = np.float32

    def logistic(w, row):
        return jnp.logaddexp(0.0, row[0] * w) - row[1] * row[0] * w

    classes = np.array([0, 0, 0, 1, 1, 1, 1], dtype)
    apart = np.array([-3, -2, -1, 1, 2, 3, 4], dtype)
    mixed = apart * np.array([1, 1, -1, 1, 1, 1, -1], dtype)
    found = amortized.m_estimator(logistic, jnp.zeros((), dtype))
    weights = RNG.dirichlet(np.ones(7), 300).astype(dtype)
    fitted = jax.jit(jax.vmap(lambda x, w: found((x, classes), weights=w)))(
        np.concatenate([apart[None], np.tile(mixed, (299, 1))]), weights
    )
    assert fitted.dtype == dtype and np.isnan(fitted[0]) and np.all(np.isfinite(fitted[1:]))
    residual = classes - 1 / (1 + np.exp(-mixed * np.asarray(fitted[1:, None], float)))
    np.testing.assert_allclose(np.sum(weights[1:] * mixed * residual, axis=1), 0, atol=1e-5)


def test_minimisers_do_not_depend_on_units(dtype):
    """Robust means of data in any units from far away, separable classes, collinear inputs."""

    def robust(m, row):
        y, unit = row
        return unit**2 * (jnp.sqrt(1 + ((y - m) / unit) ** 2) - 1)

    def logistic(w, row):
        return jnp.logaddexp(0.0, row[0] @ w) - row[1] * (row[0] @ w)

    units = np.array([1e-8, 1e-3, 1.0, 1e8], dtype)
    mean = amortized.m_estimator(robust, jnp.asarray(0.0, dtype))
    weights = np.full(N, 1 / N, dtype)
    y = units[:, None] * Y.astype(dtype)
    rows = y, np.broadcast_to(units[:, None], y.shape)
    found = jax.jit(jax.vmap(lambda row: mean(row, weights=weights)))(rows) / units
    residual = Y - np.asarray(found, float)[:, None]
    slope = np.sum(residual / np.sqrt(1 + residual**2), axis=1)
    np.testing.assert_allclose(slope, 0, atol=3e-5 if dtype == np.float32 else 1e-9)
    classes = amortized.m_estimator(logistic, jnp.zeros(2, dtype))
    apart = X * np.sign(X[:, :1]) * (2 * COIN[:, None] - 1)
    alike = [X[:, :1] * np.array([1.0, factor]) for factor in np.linspace(0.1, 3.0, 20)]
    x = np.stack([1e4 * X, 1e-4 * X, 1e4 * apart, 1e-4 * apart, *alike]).astype(dtype)
    weights[:2], weights[2:] = 0.2, 0.6 / (N - 2)
    fitted = jax.jit(jax.vmap(lambda x: classes((x, COIN.astype(dtype)), weights=weights)))(x)
    assert np.all(np.isnan(fitted[2:])) and np.all(np.isfinite(fitted[:2]))
    np.testing.assert_allclose(1e4 * fitted[0], 1e-4 * fitted[1], rtol=1e-3)


def test_losses_that_do_the_same_compile_nothing():
    def run(i):
        mean = amortized.m_estimator(lambda m, row: (row - m) ** 2, 0.5)
        return bayesian_bootstrap(KEY, Y + i, mean, num_samples=3).initial

    jax.block_until_ready([run(0), run(1)])
    COMPILED.clear()
    np.testing.assert_allclose(run(2), Y.mean() + 2)
    assert not COMPILED


def test_samples_are_labelled():
    drawn = bayesian_bootstrap(
        KEY, (X, Y), amortized.weighted_mean, num_samples=SAMPLES, concentration=0.5
    )
    near(drawn.samples[1], Y.mean(), Y.var() / (0.5 * N + 1))
    tree = drawn.to_datatree()
    assert sorted(v.shape for v in tree["posterior"].values()) == [(1, SAMPLES), (1, SAMPLES, 2)]
    assert tree.attrs["num_data"] == N
    assert f"{SAMPLES} samples" in repr(drawn) and "horizon" not in repr(drawn)


@pytest.mark.errors
def test_bad_input_is_named():
    rule = NormalNormal(0.0, 1.0, 1.0)
    network = PFN(2, NormalHead(), key=KEY, width=8, depth=1, heads=2)

    def resample(rule=rule, data=Y, functional=jnp.mean, **options):
        return predictive_resample(KEY, rule, data, functional, **({"num_forward": 3} | options))

    for call, words in (
        (lambda: resample(dist.Normal(0.0, 1.0)), "rule must be a predictive rule"),
        (lambda: resample(num_forward=0), "num_forward must be at least 1"),
        (lambda: resample(num_samples=0), "num_samples must be at least 1"),
        (lambda: resample(functional=lambda rows: rows), "shapes do not depend"),
        (lambda: resample(functional=lambda rows: rows @ jnp.ones(3)), "cannot be computed"),
        (lambda: resample(functional=np.median), "with NumPy instead of jax.numpy"),
        (lambda: resample(functional=lambda rows: 1j * jnp.mean(rows)), "real numbers"),
        (lambda: resample(data=[0.1, 0.2]), "of a list make an array"),
        (lambda: resample(PolyaUrn(0.0, dist.Normal(0.0, 1.0)), data=Y[:0]), "concentration of 0"),
        (lambda: amortized.least_squares((X, X)), r"y of shape \(n,\)"),
        (lambda: amortized.m_estimator(lambda w, row: w - row, jnp.zeros(()))(X), "one number"),
        (lambda: resample(functional=3), "functional must be a function"),
        (lambda: resample(of="all"), "of must be 'rows' or 'state'"),
        (lambda: resample(correct=1), "correct must be True or False"),
        (lambda: resample(data=Y * np.nan), "data holds NaN"),
        (lambda: resample(data=X), r"data must have shape \(n,\)"),
        (lambda: resample(points=X), "points must be at least one row"),
        (lambda: resample(PolyaUrn(), data=Y[:0]), "data is empty"),
        (lambda: resample(PFNPredictive(network), data=Y), r"pair \(x, y\)"),
        (lambda: resample(PFNPredictive(network), data=(X[:0], Y[:0]), functional=jnp.size),
         "data is empty; then inputs"),
        (lambda: resample(PFNPredictive(network), data=(X, Y), inputs=X[:, :1],
                          functional=lambda rows: jnp.mean(rows[1])), "inputs must be rows like"),
        (lambda: PFNPredictive("network"), "network must be"),
        (lambda: CategoricalUrn([1.0, -1.0]), "must be positive"),
        (lambda: CategoricalUrn([1.0, 1.0]).init(np.array([2])), r"classes 0, \.\.\., 1"),
        (lambda: NormalNormal(0.0, -1.0, 1.0), "scale must be finite and positive"),
        (lambda: PolyaUrn(1.0), "concentration needs a base"),
        (lambda: PolyaUrn(1.0, "normal"), "base must be a NumPyro distribution"),
        (lambda: amortized.prequential_log_prob(PolyaUrn(1.0, dist.Normal(0.0, 1.0)), Y),
         "log_prob: PolyaUrn has none"),
        (lambda: PosteriorPredictive(line, {"slope": Y[:0]}), "same length"),
        (lambda: PosteriorPredictive(line, {"slope": X}, y="z").init((X, Y)), "site 'z'"),
        (lambda: PosteriorPredictive(line, {"other": X}).init((X, Y)), "must hold all latent"),
        (lambda: bayesian_bootstrap(KEY, Y, jnp.mean), "argument weights"),
        (lambda: bayesian_bootstrap(KEY, (X, Y), amortized.weighted_mean).distribution("w"),
         r"name must be one of 'theta\[0\]'"),
        (lambda: bayesian_bootstrap(KEY, Y[:0], amortized.weighted_mean), "data is empty"),
        (lambda: amortized.weighted_quantile(1.5), r"in \(0, 1\)"),
        (lambda: amortized.m_estimator(lambda w: w, jnp.zeros(2)), "parameters and a row"),
        (lambda: amortized.m_estimator(lambda w, r: 0.0, jnp.zeros(2, int)), "floating-point"),
        (lambda: amortized.order_sensitivity(KEY, rule, Y, Y, num_permutations=1), "at least 2"),
        (lambda: amortized.cid_defect(KEY, rule, Y, X), "points must be at least one row"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            call()
