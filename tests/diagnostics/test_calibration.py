"""Ranks, coverage and tests of uniformity against SciPy, enumeration and known posteriors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.infer.util import log_likelihood
from scipy import stats

from bayesjx import diagnostics
from bayesjx.diagnostics import _bands, _uniformity

KEY = jax.random.key(3)
S, N, D = 61, 211, 3


def test_probability_of_a_band_is_that_of_all_outcomes():
    number, cells = 7, 4
    points = np.arange(1, cells) / cells
    outcomes = [c for c in itertools.product(range(number + 1), repeat=cells) if sum(c) == number]
    probs = stats.multinomial.pmf(outcomes, number, np.full(cells, 1 / cells))
    counts = np.cumsum(outcomes, axis=1)[:, :-1]

    def enumerated(lower, upper):
        return probs[np.all((counts >= lower) & (counts <= upper), axis=1)].sum()

    band = diagnostics.ecdf_band(number, num_points=cells, prob=0.8)
    lower, upper = np.rint(band.lower * number), np.rint(band.upper * number)
    np.testing.assert_allclose(band.points, points)
    np.testing.assert_allclose(band.prob, enumerated(lower, upper), rtol=1e-10)
    assert 0.8 <= band.prob < 0.95
    lower, upper, leave = _bands.tabulated(number, cells)
    want = [1 - enumerated(*ends) for ends in zip(lower, upper, strict=True)]
    np.testing.assert_allclose(leave, np.maximum.accumulate(want[::-1])[::-1], atol=1e-12)
    level = _bands._LEVELS[:, None] / 2  # in each tail
    below, above = stats.binom.cdf, stats.binom.sf
    assert np.all(
        (below(lower - 1, number, points) < level) & (level <= below(lower, number, points))
    )
    assert np.all(
        (above(upper, number, points) < level) & (level <= above(upper - 1, number, points))
    )


def test_bands_of_many_values_are_as_likely():
    rng = np.random.default_rng(0)
    band = diagnostics.ecdf_band(5000, num_points=20)
    cells = rng.multinomial(5000, np.full(20, 0.05), size=20000)
    ecdf = np.cumsum(cells, axis=1)[:, :-1] / 5000
    inside = np.all((ecdf >= band.lower - 1e-9) & (ecdf <= band.upper + 1e-9), axis=1).mean()
    assert abs(inside - band.prob) < 5 * np.sqrt(0.05 * 0.95 / 20000) + 0.002  # that of 1000 values


def test_uniformity_is_that_of_scipy(dtype):
    rng = np.random.default_rng(1)
    u = np.stack([rng.uniform(size=N), stats.norm.cdf(1.1 * rng.normal(size=N) + 0.1)])
    found = jax.jit(jax.vmap(diagnostics.uniformity))(jnp.asarray(u, dtype))
    u = np.asarray(jnp.asarray(u, dtype), float)
    z = stats.norm.ppf(u)
    variance = z.var(axis=1, ddof=1)
    cdf = stats.chi2.cdf((N - 1) * variance, N - 1)
    ks = [stats.kstest(row, "uniform").pvalue for row in u]
    counts = np.array([np.histogram(row, 20, (0, 1))[0] for row in u])
    close = lambda a, b, rtol: np.testing.assert_allclose(a, b, rtol=rtol, atol=1e-6)  # noqa: E731
    close(found.score_mean, z.mean(axis=1), 1e-4)
    close(found.score_scale, np.sqrt(variance), 1e-4)
    close(found.p_mean, stats.ttest_1samp(z, 0, axis=1).pvalue, 2e-3)
    close(found.p_scale, 2 * np.minimum(cdf, 1 - cdf), 2e-3)
    close(found.p_ks, ks, 5e-3)
    np.testing.assert_array_equal(found.histogram, counts)
    close(found.p_chi2, stats.chisquare(counts, axis=1).pvalue, 2e-3)
    np.testing.assert_allclose(found.points[0], np.arange(1, 50) / 50, rtol=1e-6)
    want = (u[:, :, None] <= np.asarray(found.points[0])).mean(axis=1)
    np.testing.assert_allclose(found.ecdf, want, rtol=1e-6)
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} <= {np.dtype(dtype), np.dtype(int),
                                                              np.dtype(np.int32)}  # fmt: skip
    assert np.all(found.p_value <= 3 * np.minimum(found.p_mean, found.p_scale) + 1e-6)


def test_p_values_are_uniform_for_uniform_values():
    found = jax.jit(diagnostics.uniformity)(jax.random.uniform(KEY, (1000, 53)))
    for name in ("p_mean", "p_scale", "p_ks", "p_chi2", "p_ecdf"):
        for level in (0.02, 0.2):
            share = np.mean(np.asarray(getattr(found, name)) <= level)
            error = 5 * np.sqrt(level * (1 - level) / 1000)
            assert share < level + error + 0.01 * (name == "p_chi2"), name
            assert share > (0.5 if name == "p_ecdf" else 1) * level - error, name
    assert np.mean(found.p_value <= 0.05) < 0.05 + 5 * np.sqrt(0.05 * 0.95 / 1000)
    edges = diagnostics.uniformity(np.repeat([0.0, 1.0], 25))
    assert edges.p_value < 1e-6 and edges.p_ecdf < 1e-6 and np.isfinite(edges.score_scale)


def test_ranks_are_those_of_numpy_and_ties_are_drawn():
    rng = np.random.default_rng(2)
    draws = {"a": rng.normal(size=(S, N, 2)), "b": rng.integers(0, 5, size=(S, N))}
    truths = {"a": rng.normal(size=(N, 2)), "b": rng.integers(0, 5, size=N)}
    found = jax.jit(diagnostics.sbc)(KEY, draws, truths)
    assert found.names == ("a[0]", "a[1]", "b") and found.num_draws == S
    want = (draws["a"] < truths["a"]).sum(axis=0).T
    np.testing.assert_array_equal(found.ranks[:2], want)
    np.testing.assert_array_equal(np.floor(np.asarray(found.values) * (S + 1)), found.ranks)
    low = (draws["b"] < truths["b"]).sum(axis=0)
    ties = (draws["b"] == truths["b"]).sum(axis=0)
    place = np.asarray(found.ranks[2]) - low
    assert np.all((place >= 0) & (place <= ties))
    assert abs(np.mean(place - ties / 2)) < 5 * np.std(ties) / np.sqrt(N) + 5 * S / 17 / np.sqrt(N)
    assert place.max() > 0 and np.all(found.uniformity.p_value > 1e-3)
    np.testing.assert_allclose(found.p_value, min(1, 3 * found.uniformity.p_value.min()))
    assert diagnostics.sbc(KEY, draws["a"][..., 0], truths["a"][:, 0]).names == ("value",)


POSTERIORS = ("right", "narrow", "wide", "low", "false correlations")
SCALES = np.array([1.0, 0.5, 2.0])


def posteriors():
    """A normal posterior, and four wrong ones: draws `(v, s, n, d)`."""
    rng = np.random.default_rng(4)
    tril = np.array([[1.0, 0, 0], [0.97, 0.24, 0], [0.9, 0.3, 0.3]])
    tril /= np.linalg.norm(tril, axis=1, keepdims=True)
    mean = rng.normal(size=(N, D))
    truths = mean + SCALES * rng.normal(size=(N, D))
    noise = SCALES * rng.normal(size=(S, N, D))
    together = SCALES * (rng.normal(size=(S, N, D)) @ tril.T)
    kinds = (noise, 0.7 * noise, 1.4 * noise, noise - 0.6 * SCALES, together)
    return np.stack([mean + kind for kind in kinds]).astype("f"), truths.astype("f")


def test_right_posteriors_pass_and_wrong_ones_do_not():
    draws, truths = posteriors()
    scores = (
        -0.5 * ((draws - truths.mean()) ** 2).sum(axis=-1),
        -0.5 * ((truths - truths.mean()) ** 2).sum(axis=-1),
    )

    def check(key, draws, log_prob):
        around = truths[::-1]
        return (
            diagnostics.sbc(key, draws, truths),
            diagnostics.tarp(key, draws, truths, num_bootstrap=100),
            diagnostics.tarp(key, draws, truths, references="posterior", num_bootstrap=2),
            diagnostics.tarp(key, draws, truths, references=around, num_bootstrap=2),
            diagnostics.highest_density_coverage(key, log_prob, scores[1], num_bootstrap=2),
        )

    program = jax.jit(jax.vmap(check, in_axes=(None, 0, 0)))
    ranks, far, near, own, dense = program(KEY, draws, scores[0])
    p = {"sbc": ranks.p_value, "random": far.p_value, "posterior": near.p_value}
    p = {name: dict(zip(POSTERIORS, np.asarray(value), strict=True)) for name, value in p.items()}
    for found in p.values():
        assert found["right"] > 1e-3
        assert found["narrow"] < 1e-4 and found["wide"] < 1e-4
    assert p["sbc"]["low"] < 1e-6
    assert p["sbc"]["false correlations"] > 1e-3 and p["posterior"]["false correlations"] < 1e-4
    scale = np.asarray(ranks.uniformity.score_scale)
    assert np.all(np.abs(scale[1] * 0.7 / scale[0] - 1) < 0.15)  # ranks cut tails
    assert np.all(np.abs(ranks.uniformity.score_mean[3] - 0.6) < 0.3)
    # the shares themselves
    unit = truths.std(axis=0)
    distance = lambda x: (((x - truths[::-1]) / unit) ** 2).sum(axis=-1)  # noqa: E731
    shares = (distance(draws[1]) < distance(truths)).sum(axis=0)
    differ = np.floor(np.asarray(own.values[1]) * (S + 1)) != shares
    assert differ.mean() < 0.01  # rounding
    gaps = [(((x - draws[1][0]) / unit) ** 2).sum(axis=-1) for x in (draws[1][1:], truths)]
    differ = np.floor(np.asarray(near.values[1]) * S) != (gaps[0] < gaps[1]).sum(axis=0)
    assert differ.mean() < 0.01
    shares = (scores[0][2] > scores[1]).sum(axis=0)
    assert np.mean(np.floor(np.asarray(dense.values[2]) * (S + 1)) != shares) < 0.01
    want = (np.asarray(far.values[0])[:, None] <= np.asarray(far.levels[0])).mean(axis=0)
    np.testing.assert_allclose(far.coverage[0], want, atol=1e-6)
    half = 1.96 * np.sqrt(want * (1 - want) / N)
    inner = slice(10, 40)
    for end, sign in ((far.lower[0], -1), (far.upper[0], 1)):
        np.testing.assert_allclose((end - want)[inner], (sign * half)[inner], atol=0.03)


def test_report_says_what_is_wrong(tmp_path):
    pytest.importorskip("matplotlib").use("agg")
    draws, truths = posteriors()
    names = ["one", "two", "three"]
    reports = {
        kind: diagnostics.calibration_report(KEY, d, truths, names=names)
        for kind, d in zip(POSTERIORS, draws, strict=True)
    }
    right = reports["right"]
    assert right.calibrated and set(right.findings.values()) == {"fine"} and right.joint == "fine"
    assert right.verdict.startswith("calibrated, as far as 211 data sets with 61 draws can tell")
    words = {"narrow": "too narrow: its sd should be 1.", "wide": "too wide: its sd should be 0.",
             "low": "too low, by 0."}  # fmt: skip
    for kind, text in words.items():
        assert not reports[kind].calibrated
        assert all(text in found for found in reports[kind].findings.values()), kind
        assert text in str(reports[kind])
    joint = reports["false correlations"]
    assert set(joint.findings.values()) == {"fine"}
    assert "should be lower" in joint.joint and joint.joint in joint.verdict
    assert right.pairs.names[2] == "two and three"
    mean = (draws[0].sum(axis=0) + truths) / (S + 1)
    products = [((x - mean)[..., 1:]).prod(axis=-1) for x in (draws[0], truths)]
    differ = (products[0] < products[1]).sum(axis=0) != right.pairs.ranks[2]
    assert differ.mean() < 0.02  # rounding
    gaps = np.abs(draws[3] - truths).mean(axis=(0, 1)), np.abs(draws[3][1:] - draws[3][:-1])
    low = gaps[0] - gaps[1].mean(axis=(0, 1)) / 2
    np.testing.assert_allclose(reports["low"].crps, low, rtol=0.05)
    for i, level in enumerate((0.5, 0.9)):
        share = np.asarray(right.coverage.coverage)[:, i]
        assert np.all(np.abs(share - level) < 5 * np.asarray(right.coverage.standard_error)[i])
    assert 1.2 < right.detectable < 1.4
    skewed = np.random.default_rng(5).exponential(size=(S, N, D)).astype("f")
    shape = diagnostics.calibration_report(KEY, skewed, 0.75 + 0.4 * truths, names=names)
    assert not shape.calibrated
    figure = reports["narrow"].plot()
    assert len(figure.axes) == 4
    figure.savefig(tmp_path / "report.png", dpi=20)
    tree = reports["narrow"].to_datatree()
    assert tree["prior_sbc"]["two"].shape == (1, N)
    np.testing.assert_array_equal(tree["prior_sbc"]["two"][0], reports["narrow"].sbc.ranks[1])
    assert set(tree.children) == {"prior_sbc", "tests", "coverage", "tarp"}
    assert tree.attrs["calibrated"] == 0


def test_intervals_of_draws_and_of_distributions(dtype):
    rng = np.random.default_rng(6)
    draws = jnp.asarray(rng.normal(size=(19, N)), dtype)
    y = jnp.asarray(rng.normal(size=N), dtype)

    @jax.jit
    def answers(draws, y):
        exact = diagnostics.coverage(dist.Normal(jnp.zeros_like(y), 1.0), y)
        return diagnostics.coverage({"y": draws}, {"y": y}, levels=(0.9, 0.5)), exact

    found, exact = answers(draws, y)
    ordered = np.sort(np.asarray(draws), axis=0)
    want = [((y >= ordered[i]) & (y <= ordered[-1 - i])).mean() for i in (0, 4)]
    np.testing.assert_allclose(found.coverage[0], want, rtol=1e-5)
    widths = [(ordered[-1 - i] - ordered[i]).mean() for i in (0, 4)]
    np.testing.assert_allclose(found.width[0], widths, rtol=1e-5)
    np.testing.assert_allclose(found.standard_error, np.sqrt([0.09 / N, 0.25 / N]), rtol=1e-5)
    assert found.names == ("y",) and found.coverage.dtype == dtype
    np.testing.assert_allclose(exact.width[0], 2 * stats.norm.ppf([0.75, 0.9, 0.95, 0.975]), 1e-5)
    inside = np.abs(np.asarray(y))[:, None] <= stats.norm.ppf([0.75, 0.9, 0.95, 0.975])
    np.testing.assert_allclose(exact.coverage[0], inside.mean(axis=0), rtol=1e-5)


def test_integral_transforms():
    rng = np.random.default_rng(7)
    y, counts, labels = rng.normal(size=N), rng.poisson(2.0, size=N), rng.integers(0, 3, size=N)
    draws = rng.normal(size=(S, N))
    probs = np.array([0.2, 0.5, 0.3])

    @jax.jit
    def answers(y, counts, labels, draws):
        of = lambda p, at: diagnostics.pit(KEY, p, at)  # noqa: E731
        return (
            of(dist.Normal(0.5, 2.0), y),
            of(dist.Poisson(2.0), counts),
            of(dist.Categorical(probs), labels),
            of(draws, y),
        )

    normal, poisson, classes, ranks = map(np.asarray, answers(y, counts, labels, draws))
    np.testing.assert_allclose(normal, stats.norm.cdf(y, 0.5, 2.0), rtol=1e-6)
    ends = stats.poisson.cdf(counts - 1, 2.0), stats.poisson.cdf(counts, 2.0)
    assert np.all((poisson >= ends[0] - 1e-9) & (poisson <= ends[1] + 1e-9))
    place = (poisson - ends[0]) / (ends[1] - ends[0])
    assert stats.kstest(place, "uniform").pvalue > 1e-4
    assert stats.kstest(poisson, "uniform").pvalue > 1e-4
    edges = np.concatenate([[0], np.cumsum(probs)])
    assert np.all((classes >= edges[labels] - 1e-9) & (classes <= edges[labels + 1] + 1e-9))
    np.testing.assert_array_equal(np.floor(ranks * (S + 1)), (draws < y).sum(axis=0))


def program(x, y=None):
    level = numpyro.sample("level", dist.Normal(0.0, 1.0))
    kind = numpyro.sample("kind", dist.Bernoulli(0.3))
    with numpyro.plate("row", len(x)):
        numpyro.sample("y", dist.Normal(level * x + kind, 1.0), obs=y)


def test_programs_are_taken_apart_and_simulated():
    x = np.random.default_rng(8).normal(size=5)
    problem = diagnostics.model_problem(program, x, np.zeros(5))
    assert problem.latents == ("level", "kind") and problem.observed == ("y",)
    unseen = diagnostics.model_problem(program, x, observed=["y"])
    assert unseen.latents == problem.latents

    def posterior(key, data):  # the prior: what ranks alone do not see
        return jax.vmap(problem.prior)(jax.random.split(key, 29))

    def run(**options):
        return diagnostics.simulate(
            KEY, problem.prior, problem.simulator, posterior,
            test_quantities={"log_likelihood": problem.log_likelihood}, **options,
        )  # fmt: skip

    draws, truths = run(num_datasets=200)
    assert draws["log_likelihood"].shape == (29, 200) and truths["level"].shape == (200,)
    for value in (truths["level"], draws["level"]):
        assert abs(np.mean(value)) < 5 / np.sqrt(200)
        assert abs(np.var(value) - 1) < 5 * np.sqrt(2 / 200)
    p_value = diagnostics.sbc(KEY, draws, truths).uniformity.p_value
    assert p_value[2] < 1e-6 and min(p_value[0], p_value[1]) > 1e-3
    for options in ({"num_datasets": 200, "batch_size": 7},):
        for tree, want in zip(run(**options), (draws, truths), strict=True):
            jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), tree, want)
    params, data = jax.tree.map(lambda a: a[3], truths), {"y": x + 1}
    params.pop("log_likelihood")
    want = log_likelihood(program, params, x, data["y"], batch_ndims=0)["y"].sum()
    np.testing.assert_allclose(problem.log_likelihood(params, data), want, rtol=1e-5)
    seen = problem.simulator(KEY, params)["y"]
    assert seen.shape == (5,) and np.all(np.abs(seen - params["level"] * x - params["kind"]) < 5)
    one_by_one = diagnostics.simulate(
        KEY, lambda key: jax.random.normal(key, (2,)), lambda key, p: p,
        lambda key, data: np.asarray(data) + np.zeros((4, 2)), num_datasets=3, compile=False,
        test_quantities={"sum": lambda p, data: p.sum()},
    )  # fmt: skip
    assert one_by_one.draws["parameters"].shape == (4, 3, 2)
    np.testing.assert_allclose(one_by_one.draws["sum"][0], one_by_one.truths["sum"], rtol=1e-6)


@pytest.mark.nightly
def test_nuts_is_calibrated():
    def normal(y):
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
        numpyro.sample("y", dist.Normal(numpyro.sample("mean", dist.Normal(0, 1)), scale), obs=y)

    problem = diagnostics.model_problem(normal, np.zeros(7))
    runs = diagnostics.simulate(
        KEY, problem.prior, problem.simulator, problem.nuts(), num_datasets=200,
        test_quantities={"log_likelihood": problem.log_likelihood},
    )  # fmt: skip
    assert diagnostics.calibration_report(KEY, *runs).calibrated


def test_sets_of_draws_are_told_apart():
    rng = np.random.default_rng(9)
    sets = rng.normal(size=(4, 201, 2))
    sets[3, :, 1] = 0.95 * sets[3, :, 0] + 0.1 * sets[3, :, 1]
    found = jax.jit(jax.vmap(diagnostics.c2st, in_axes=(None, None, 0)))(KEY, sets[0], sets[1:])
    same, other = found.p_value[:2], found.p_value[2]
    assert np.all(same > 1e-3) and other < 1e-6 and found.accuracy[2] > 0.65
    right = np.rint(np.asarray(found.accuracy) * 202)
    np.testing.assert_allclose(found.p_value, stats.binom.sf(right - 1, 202, 0.5), rtol=1e-5)
    assert _uniformity.NUM_TESTS == 3
