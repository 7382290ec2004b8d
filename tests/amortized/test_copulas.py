"""Recursive copula predictives: densities written out in NumPy, and martingales."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from bayesjx.amortized import (
    CopulaBandwidths,
    CopulaClassifier,
    CopulaDensity,
    CopulaRegression,
)

RNG = np.random.default_rng(0)
KEY = jax.random.key(3)
N, M = 7, 5
Y, Y_NEW = (scale * RNG.normal(size=(k, 2)) * [2.0, 0.5] + 1 for k, scale in ((N, 1), (M, 0.7)))
X, X_NEW = RNG.normal(size=(N, 3)), RNG.normal(size=(M, 3))
RHO, RHO_X = np.array([0.9, 0.7]), np.array([0.8, 0.3, 0.6])
norm = scipy.stats.norm


def bandwidths(outputs, inputs=None, dtype=np.float64):
    convert = lambda r: None if r is None else jnp.asarray(np.asarray(r, dtype))  # noqa: E731
    return CopulaBandwidths(convert(outputs), convert(inputs))


def orders(key, n, number):
    return [np.asarray(jax.random.permutation(k, n)) for k in jax.random.split(key, number)]


def copula(u, v, rho):
    a, b = norm.ppf(u), norm.ppf(v)
    return np.exp(
        -0.5 * np.log(1 - rho**2) - (rho**2 * (a**2 + b**2) - 2 * rho * a * b) / (2 - 2 * rho**2)
    )


def conditional(u, v, rho):
    return norm.cdf((norm.ppf(u) - rho * norm.ppf(v)) / np.sqrt(1 - rho**2))


def alpha(i):
    return (2 - 1 / i) / (i + 1)


def kernel(x, seen, rho):
    return np.prod(copula(norm.cdf(x), norm.cdf(seen), rho), axis=-1)


def reference(z, rho, new, x=None, x_new=None, rho_x=None):
    """Densities and conditional distribution functions at `new`, one observation after another."""
    points = np.concatenate([z, new])
    inputs = None if x is None else np.concatenate([x, x_new])
    u, p, scores = norm.cdf(points), np.prod(norm.pdf(points), axis=1), []
    for i in range(len(z)):
        scores.append(np.log(p[i]))
        k = np.ones(len(points)) if x is None else kernel(inputs, x[i], rho_x)
        a = alpha(i + 1)
        a = a * k / (1 - a + a * k)
        v, product, moved = u[i].copy(), np.ones(len(points)), u.copy()
        for j in range(len(rho)):
            down = 1 - a + a * product
            rise = a * product * conditional(u[:, j], v[j], rho[j])
            moved[:, j] = ((1 - a) * u[:, j] + rise) / down
            product = product * copula(u[:, j], v[j], rho[j])
        p, u = p * (1 - a + a * product), moved
    return p[len(z) :], u[len(z) :], np.array(scores)


def standard(rows, by):
    return (rows - by.mean(axis=0)) / by.std(axis=0)


def tolerance(dtype):
    return {"rtol": 3e-4, "atol": 3e-5} if dtype == np.float32 else {"rtol": 1e-8, "atol": 1e-10}


def density(y, rho):
    return CopulaDensity.fit(KEY, y, num_permutations=2, bandwidths=bandwidths(rho))


def test_densities_are_those_written_out():
    dtype = np.float64
    fitted = density(Y, RHO)
    z, new = standard(Y, Y), standard(Y_NEW, Y)
    each = [reference(z[o], RHO, new) for o in orders(KEY, N, 2)]
    want = np.log(np.mean([p for p, _, _ in each], axis=0)) - np.log(Y.std(axis=0)).sum()
    found = fitted.log_prob(Y_NEW.astype(dtype))
    assert found.dtype == dtype
    np.testing.assert_allclose(found, want, **tolerance(dtype))
    score = np.mean([s.sum() for _, _, s in each]) - N * np.log(Y.std(axis=0)).sum()
    np.testing.assert_allclose(fitted.prequential_log_prob(), score, **tolerance(dtype))
    # Of the mixture, the second coordinate is weighted by the densities of the first.
    first = [reference(z[o, :1], RHO[:1], new[:, :1])[0] for o in orders(KEY, N, 2)]
    cdf = np.stack([u for _, u, _ in each])
    want = np.sum(first * cdf[..., 1], axis=0) / np.sum(first, axis=0)
    found = fitted.cdf(Y_NEW.astype(dtype))
    np.testing.assert_allclose(found[:, 1], want, **tolerance(dtype))
    np.testing.assert_allclose(found[:, 0], cdf[..., 0].mean(axis=0), **tolerance(dtype))


def test_regressions_are_those_written_out():
    dtype = np.float64
    y, y_new = Y[:, 0], Y_NEW[:, 0]
    fitted = CopulaRegression.fit(
        KEY,
        X.astype(dtype),
        y.astype(dtype),
        num_permutations=2,
        bandwidths=bandwidths(RHO[:1], RHO_X, dtype),
    )
    z, new, x, x_new = (standard(Y[:, :1], Y[:, :1]), standard(Y_NEW[:, :1], Y[:, :1]),
                        standard(X, X), standard(X_NEW, X))  # fmt: skip
    each = [reference(z[o], RHO[:1], new, x[o], x_new, RHO_X) for o in orders(KEY, N, 2)]
    want = np.log(np.mean([p for p, _, _ in each], axis=0)) - np.log(y.std())
    at = X_NEW.astype(dtype), y_new.astype(dtype)
    np.testing.assert_allclose(fitted.log_prob(*at), want, **tolerance(dtype))
    want = np.mean([u[:, 0] for _, u, _ in each], axis=0)
    np.testing.assert_allclose(fitted.cdf(*at), want, **tolerance(dtype))


def test_the_joint_kind_is_a_ratio_of_densities():
    """Of the pair and of the inputs alone, each averaged over the same orders."""
    x, y = Y[:, :1], Y[:, 1]
    joint = CopulaRegression.fit(
        KEY, x, y, kind="joint", num_permutations=2, bandwidths=bandwidths(RHO)
    )
    both, alone = density(Y, RHO), density(x, RHO[:1])
    want = both.log_prob(Y_NEW) - alone.log_prob(Y_NEW[:, :1])
    np.testing.assert_allclose(joint.log_prob(Y_NEW[:, :1], Y_NEW[:, 1]), want, rtol=1e-9)
    want = both.prequential_log_prob() - alone.prequential_log_prob()
    np.testing.assert_allclose(joint.prequential_log_prob(), want, rtol=1e-9)


def test_classes_are_predicted_as_written_out():
    classes = np.array([1, 0, 0, 1, 1, 0, 1])
    fitted = CopulaClassifier.fit(
        KEY, X, classes, num_permutations=2, bandwidths=bandwidths([0.7], RHO_X)
    )
    inputs, each, scores = np.concatenate([standard(X, X), standard(X_NEW, X)]), [], []
    for order in orders(KEY, N, 2):
        p = np.full(N + M, 0.5)
        for i, row in enumerate(order):
            a, k, q = alpha(i + 1), kernel(inputs, inputs[row], RHO_X), p[row]
            a = a * k / (1 - a + a * k)
            low = np.minimum(p, q)
            ratio = low / (p * q) if classes[row] else (p - low) / (p * (1 - q))
            scores.append(np.log(q if classes[row] else 1 - q))
            p = p * (1 - a + a * (0.3 + 0.7 * ratio))
        each.append(p[N:])
    np.testing.assert_allclose(fitted.predict(X_NEW).probs, np.mean(each, axis=0), rtol=1e-9)
    np.testing.assert_allclose(fitted.prequential_log_prob(), np.sum(scores) / 2, rtol=1e-9)
    log_prob = fitted.log_prob(X_NEW, np.ones(M, int))
    np.testing.assert_allclose(log_prob, np.log(np.mean(each, axis=0)), rtol=1e-9)


def test_densities_in_single_precision_are_not_clipped():
    """Written out, with the integral 1, and tails that go on falling."""
    dtype = np.float32
    y = Y[:, :1].astype(dtype)
    fitted = CopulaDensity.fit(
        KEY, y, num_permutations=2, bandwidths=bandwidths([0.95], dtype=dtype)
    )
    grid = np.linspace(-15, 17, 1601)
    far = np.array([8, 12, 16]) * y.std() + 1
    points = np.concatenate([grid, far]).astype(dtype)
    log_prob, cdf = (np.asarray(f(points), np.float64) for f in (fitted.log_prob, fitted.cdf))
    assert fitted.log_prob(points).dtype == dtype
    at = slice(500, 1100, 50)
    z, new = standard(y, y).astype(float), standard(grid[at, None], y)
    each = [reference(z[o], [0.95], new) for o in orders(KEY, N, 2)]
    want = np.mean([p for p, _, _ in each], axis=0) / y.std()
    np.testing.assert_allclose(np.exp(log_prob[at]), want, **tolerance(dtype))
    want = np.mean([u[:, 0] for _, u, _ in each], axis=0)
    np.testing.assert_allclose(cdf[at], want, **tolerance(dtype))
    density = np.exp(log_prob[:-3])
    assert abs(np.trapezoid(density, grid) - 1) < 1e-4
    steps = np.concatenate([[0], np.cumsum(np.diff(grid) * (density[1:] + density[:-1]) / 2)])
    assert np.max(np.abs(steps - cdf[:-3])) < 1e-4
    assert np.all(np.diff(log_prob[-3:]) < -30) and log_prob[-3] < -25


def test_without_data_they_are_the_base():
    density = CopulaDensity.fit(KEY, np.zeros((0, 2)), bandwidths=bandwidths(RHO))
    np.testing.assert_allclose(density.log_prob(Y_NEW), norm.logpdf(Y_NEW).sum(axis=1))
    known = bandwidths([0.5], RHO_X)
    regression = CopulaRegression.fit(KEY, np.zeros((0, 3)), np.zeros(0), bandwidths=known)
    at_base = norm.logpdf(Y_NEW[:, 0])
    np.testing.assert_allclose(regression.log_prob(X_NEW, Y_NEW[:, 0]), at_base)
    classes = CopulaClassifier.fit(KEY, np.zeros((0, 3)), np.zeros(0, int), bandwidths=known)
    np.testing.assert_allclose(classes.predict(X_NEW).probs, 0.5)


def test_gradients_under_vmap():
    def score(at):
        known = CopulaBandwidths(at[0], at[1])
        fitted = CopulaRegression.fit(KEY, X, at[2], num_permutations=2, bandwidths=known)
        return fitted.prequential_log_prob()

    at = [RHO[:1], RHO_X, Y[:, 0]]
    ways = [0.1 * RNG.normal(size=v.shape) for v in at]
    # There, and two small steps in the direction of each argument.
    moves = 1e-5 * np.array([[0, 0, 0], *np.eye(3), *-np.eye(3)])
    ends = [v + np.multiply.outer(moves[:, i], ways[i]) for i, v in enumerate(at)]
    values, slopes = jax.jit(jax.vmap(jax.value_and_grad(score)))(ends)
    for place, (slope, way) in enumerate(zip(slopes, ways, strict=True)):
        want = (values[1 + place] - values[4 + place]) / 2e-5
        np.testing.assert_allclose(np.sum(slope[0] * way), want, rtol=1e-5, atol=1e-7)


def test_bandwidths_predict_best():
    classes = np.array([1, 0, 0, 1, 1, 1, 1])

    def fit(**options):
        return CopulaClassifier.fit(KEY, X, classes, num_permutations=2, **options)

    fitted = fit(max_steps=30)
    assert bool(fitted.minimum.converged) and "converged" in fitted.minimum.message
    rho = np.concatenate([fitted.bandwidths.outputs, fitted.bandwidths.inputs])
    best = float(fitted.prequential_log_prob())
    np.testing.assert_allclose(best / N, -fitted.minimum.objective)
    for i, way in itertools.product(range(4), (0.02, -0.02)):
        moved = np.clip(rho + way * (np.arange(4) == i), 1e-6, 1 - 1e-6)
        other = fit(bandwidths=bandwidths(moved[:1], moved[1:])).prequential_log_prob()
        assert other < best + 1e-4 * N


def test_bandwidths_of_densities_predict_best():
    y = np.concatenate([RNG.normal(size=20) - 3, RNG.normal(size=20) + 3])
    fitted = CopulaDensity.fit(KEY, y, num_permutations=2)
    assert bool(fitted.minimum.converged)
    rho = float(fitted.bandwidths.outputs[0])
    near = (rho, rho - 0.03, rho + (1 - rho) / 4)
    scores = [float(density(y, [r]).prequential_log_prob()) for r in near]
    assert scores[0] > max(scores[1:])
    np.testing.assert_allclose(scores[0] / 40, -np.log(y.std()) - fitted.minimum.objective)
    assert scores[0] > np.sum(norm.logpdf(y, y.mean(), y.std()))  # two modes
    with pytest.warns(UserWarning, match="a bandwidth went to 1"):  # of rounded data
        CopulaDensity.fit(KEY, np.sign(y), num_permutations=2)


def first_step(drawn, name, values, shares):
    """Mean and variance after one step, of equally likely values or with shares, and the drift."""
    assert np.max(np.abs(drawn.diagnostics.martingale_z[name])) < 5
    found, start = (jax.tree.map(np.asarray, v) for v in (drawn.diagnostics, drawn.initial[name]))
    variance = shares @ (values - start) ** 2
    np.testing.assert_allclose(shares @ values, start, rtol=2e-3)  # by enumeration, exactly
    samples = drawn.num_samples
    assert list(found.num_rows) == [N + 1, N + 2] and drawn.samples[name].shape == (samples, M)
    fourth = shares @ (values - start) ** 4
    error = np.sqrt((fourth - variance**2) / samples)
    assert np.all(np.abs(found.scale[name][0] ** 2 - variance) < 5 * error)
    assert np.all(found.scale[name][1] > found.scale[name][0])
    assert f"MartingalePosterior of {drawn.source}: {samples} samples, 7 rows" in repr(drawn)


AHEAD = {"num_forward": 2, "num_samples": 4000, "num_records": 2}
V = (np.arange(20000) + 0.5) / 20000


def test_densities_drawn_ahead_are_a_martingale():
    """The first step beside quadrature over what an observation was under the predictive."""
    fitted = density(Y[:, 0], [0.8])
    drawn = fitted.resample(KEY, Y_NEW[:, 0], **AHEAD)
    start = np.exp(np.asarray(fitted.log_prob(Y_NEW[:, 0])))
    np.testing.assert_allclose(drawn.initial["density"], start, rtol=1e-9)
    u, a = np.asarray(fitted.cdf(Y_NEW[:, 0])), alpha(N + 1)
    values = start * (1 - a + a * copula(u, V[:, None], 0.8))
    first_step(drawn, "density", values, np.full(len(V), 1 / len(V)))
    np.testing.assert_allclose(drawn.initial["cdf"], u)
    assert np.max(np.abs(drawn.diagnostics.martingale_z["cdf"])) < 5


def test_regressions_drawn_ahead_are_a_martingale():
    fitted = CopulaRegression.fit(
        KEY, X, Y[:, 0], num_permutations=2, bandwidths=bandwidths([0.8], RHO_X)
    )
    drawn = fitted.resample(KEY, X_NEW, Y_NEW[:, 0], **AHEAD)
    start = np.exp(np.asarray(fitted.log_prob(X_NEW, Y_NEW[:, 0])))
    u, v, a = np.asarray(fitted.cdf(X_NEW, Y_NEW[:, 0])), V[::40], alpha(N + 1)
    inputs, values = standard(X_NEW, X), []
    for row in standard(X, X):
        k = kernel(inputs, row, RHO_X)
        weight = a * k / (1 - a + a * k)
        values.append(start * (1 - weight + weight * copula(u, v[:, None], 0.8)))
    values = np.concatenate(values)
    first_step(drawn, "density", values, np.full(len(values), 1 / len(values)))


def test_classes_drawn_ahead_are_a_martingale():
    classes = np.array([1, 0, 0, 1, 1, 1, 1])
    fitted = CopulaClassifier.fit(
        KEY, X, classes, num_permutations=2, bandwidths=bandwidths([0.7], RHO_X)
    )
    drawn = fitted.resample(KEY, X_NEW, **AHEAD)
    start, own = (np.asarray(fitted.predict(x).probs) for x in (X_NEW, X))
    inputs, values, shares, a = standard(X_NEW, X), [], [], alpha(N + 1)
    for row, q in zip(standard(X, X), own, strict=True):
        k = kernel(inputs, row, RHO_X)
        beta = 0.7 * a * k / (1 - a + a * k)
        low = np.minimum(start, q)
        values += [
            start + beta * (low / q - start),
            start + beta * ((start - low) / (1 - q) - start),
        ]
        shares += [q / N, (1 - q) / N]
    first_step(drawn, "probability", np.array(values), np.array(shares))


@pytest.mark.errors
def test_bad_input_is_named():
    known = bandwidths(RHO)
    density = CopulaDensity.fit(KEY, Y, bandwidths=known)
    regression = CopulaRegression.fit(KEY, X, Y[:, 0], bandwidths=bandwidths([0.5], RHO_X))
    for call, words in (
        (lambda: CopulaDensity.fit(KEY, Y * np.nan), "y holds NaN"),
        (lambda: CopulaDensity.fit(KEY, np.ones((N, 2))), "constant column"),
        (lambda: CopulaDensity.fit(KEY, np.zeros((0, 2))), "at least 2 rows"),
        (lambda: CopulaDensity.fit(KEY, Y[None]), r"y must have shape \(n, d\)"),
        (lambda: CopulaDensity.fit(3, Y), "PRNG key"),
        (lambda: CopulaDensity.fit(KEY, Y, num_permutations=0), "num_permutations"),
        (lambda: CopulaDensity.fit(KEY, Y, bandwidths=bandwidths([0.5])), "outputs must have"),
        (lambda: CopulaDensity.fit(KEY, Y, bandwidths=bandwidths([0.5, 1.0])), r"in \(0, 1\)"),
        (lambda: CopulaDensity.fit(KEY, Y, bandwidths=RHO), "amortized.CopulaBandwidths"),
        (lambda: density.log_prob(Y[:, :1]), r"y must have shape \(n, 2\)"),
        (lambda: density.resample(KEY, Y, num_forward=0), "num_forward must be at least 1"),
        (lambda: CopulaRegression.fit(KEY, X[:-1], Y[:, 0]), "same number of rows"),
        (lambda: CopulaRegression.fit(KEY, X, Y), r"y must have shape \(n,\)"),
        (lambda: CopulaRegression.fit(KEY, X, Y[:, 0], kind="both"), "kind must be"),
        (lambda: CopulaRegression.fit(KEY, X[:0], Y[:0, 0]), "at least 2 rows"),
        (lambda: regression.log_prob(X_NEW[:, :2], Y_NEW[:, 0]), r"x must have shape \(n, 3\)"),
        (lambda: regression.log_prob(X_NEW, Y_NEW[:2, 0]), "same number of rows"),
        (lambda: CopulaClassifier.fit(KEY, X, Y[:, 0]), "classes 0 and 1"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
    empty = CopulaRegression.fit(KEY, X[:0], Y[:0, 0], bandwidths=bandwidths([0.5], RHO_X))
    with pytest.raises(ValueError, match="no inputs can be drawn"):
        empty.resample(KEY, X_NEW, Y_NEW[:, 0], num_forward=3)
