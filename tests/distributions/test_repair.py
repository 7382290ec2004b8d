"""Densities where NumPyro's derivatives are wrong, against derivatives by hand.

Each row is a density as a function of one number, at one of its special points: its value there
and the first two derivatives. Those of NumPyro 0.22 differ in every row.
"""

import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from scipy import special, stats

from bayesjx.distributions import repaired

LOG2, LOG3 = np.log(2), np.log(3)


def hazard(a):
    """Of the standard normal distribution: its density over the probability of more."""
    return np.sqrt(2 / np.pi) / special.erfcx(a / np.sqrt(2))


def psi(n, x):
    return special.polygamma(n, x)


def concentration_row(c, m, y):
    """The negative binomial in its concentration."""
    value = stats.nbinom(c, c / (c + m)).logpmf(y)
    first = psi(0, c + y) - psi(0, c) + np.log(c / (c + m)) + 1 - (c + y) / (c + m)
    second = psi(1, c + y) - psi(1, c) + 1 / c - 1 / (c + m) - (m - y) / (c + m) ** 2
    return value, first, second


def half_student_row(s, v):
    u = v**2 / 3
    value = stats.t(3, scale=s).logpdf(v) + LOG2
    first = -1 / s + 4 * u / (s**3 + u * s)
    return value, first, 1 / s**2 - 4 * u * (3 * s**2 + u) / (s**3 + u * s) ** 2


def tail_row(a, value=None):
    """A normal value beyond `a`, in the mean."""
    h = hazard(a)
    if value is None:  # censored
        return special.log_ndtr(-a), h, -h * (h - a)
    return stats.norm.logpdf(value) - special.log_ndtr(-a), value - h, h * (h - a) - 1


def interval_row(a, b):
    inside = special.ndtr(-a) - special.ndtr(-b)
    first = (stats.norm.pdf(a) - stats.norm.pdf(b)) / inside
    slope = (a * stats.norm.pdf(a) - b * stats.norm.pdf(b)) / inside
    return np.log(inside), first, slope - first**2


NONE = np.zeros((), bool)
P0 = np.exp(-1.5)
BESSEL = special.i1(1) / special.i0(1)
TORUS = np.cos(0.3) + np.cos(0.5) - 2 * np.log(2 * np.pi * special.i0(1))


def interval(p, left, right):
    return dist.IntervalCensoredDistribution(
        dist.Normal(p, 1.0), np.asarray(left), np.asarray(right)
    )


def right_censored(base):
    return dist.RightCensoredDistribution(base, np.ones((), bool))


def power_law(p, name):
    return dist.DoublyTruncatedPowerLaw(**{"alpha": -1.0, "low": 1.0, "high": 3.0, name: p})


def mixture(p):
    parts = dist.Bernoulli(logits=jnp.stack([p, 0 * p]))
    return dist.MixtureSameFamily(dist.Categorical(logits=jnp.zeros(2)), parts)


# name: distribution of a number, value (None: the number itself), the number, and the answer
ROWS = {
    "bernoulli 0": (lambda p: dist.Bernoulli(logits=p), 0, 0.0, (-LOG2, -0.5, -0.25)),
    "bernoulli 1": (lambda p: dist.Bernoulli(logits=p), 1, 0.0, (-LOG2, 0.5, -0.25)),
    "binomial": (lambda p: dist.Binomial(3, logits=p), 1, 0.0, (LOG3 - 3 * LOG2, -0.5, -0.75)),
    "binomial, sure": (
        lambda p: dist.Binomial(np.array([3, 2]), logits=p * jnp.inf), np.array([3, 2]), 1.0,
        (0, None, None),
    ),
    "bernoulli, p = 0": (lambda p: dist.Bernoulli(probs=p), 0, 0.0, (0, -1, -1)),
    "bernoulli, p = 1": (lambda p: dist.Bernoulli(probs=p), 1, 1.0, (0, 1, -1)),
    "binomial, p = 0": (lambda p: dist.Binomial(3, probs=p), 0, 0.0, (0, -3, -3)),
    "binomial, p = 1": (lambda p: dist.Binomial(3, probs=p), 3, 1.0, (0, 3, -3)),
    "poisson, rate 0": (dist.Poisson, 0, 0.0, (0, -1, 0)),
    "multinomial, p = 0": (
        lambda p: dist.Multinomial(3, probs=jnp.stack([p, 1 - p])), np.array([0, 3]), 0.0,
        (0, -3, -3),
    ),
    "geometric, p = 1": (lambda p: dist.Geometric(probs=p), 0, 1.0, (0, 1, -1)),
    "negative binomial, p = 0": (
        lambda p: dist.NegativeBinomialProbs(2.0, p), 0, 0.0, (0, -2, -2)
    ),
    "negative binomial": (lambda p: dist.NegativeBinomial2(1.0, p), 2, 3.0,
                          concentration_row(3.0, 1.0, 2)),
    "gamma-poisson": (lambda p: dist.GammaPoisson(p, p), 2, 3.0, concentration_row(3.0, 1.0, 2)),
    "beta-binomial": (
        lambda p: dist.BetaBinomial(p, 1.0, 3), 0, 1.0,
        (-2 * LOG2, psi(0, 2) - psi(0, 5), psi(1, 2) - psi(1, 5)),
    ),
    "beta-negative-binomial": (
        lambda p: dist.BetaNegativeBinomial(p, 1.0, 2), 1, 1.0,
        (LOG2 + special.betaln(2, 3), 2 * psi(0, 2) - psi(0, 5) - psi(0, 1),
         2 * psi(1, 2) - psi(1, 5) - psi(1, 1)),
    ),
    "zero-inflated, gate 1": (
        lambda p: dist.ZeroInflatedPoisson(p, 1.5), 0, 1.0, (0, 1 - P0, -((1 - P0) ** 2))
    ),
    "zero-inflated, gate 0": (
        lambda p: dist.ZeroInflatedPoisson(p, 1.5), 0, 0.0,
        (-1.5, 1 / P0 - 1, -((1 / P0 - 1) ** 2)),
    ),
    "zero-inflated, underflow": (
        lambda p: dist.ZeroInflatedPoisson(0.25, p), 1, 800.0,
        (np.log(0.75 * 800) - 800, 1 / 800 - 1, -(800.0**-2)),
    ),
    "zero-inflated logits": (
        lambda p: dist.ZeroInflatedDistribution(dist.Binomial(3, logits=p), gate=0.3), 2, 0.0,
        (np.log(0.7) + LOG3 - 3 * LOG2, 0.5, -0.75),
    ),
    "hurdle, gate 0": (
        lambda p: dist.HurdlePoisson(rate=1.5, gate=p), 2, 0.0,
        (stats.poisson(1.5).logpmf(2) - np.log(1 - P0), -1, -1),
    ),
    "hurdle, gate 1": (lambda p: dist.HurdlePoisson(rate=1.5, gate=p), 0, 1.0, (0, 1, -1)),
    "beta at 0": (lambda p: dist.Beta(1.0, p), 0.0, 3.0, (LOG3, 1 / 3, -1 / 9)),
    "beta at 1": (lambda p: dist.Beta(p, 1.0), 1.0, 3.0, (LOG3, 1 / 3, -1 / 9)),
    "beta's value at 0": (lambda p: dist.Beta(1.0, 3.0), None, 0.0, (LOG3, -2, -2)),
    "dirichlet at 0": (
        lambda p: dist.Dirichlet(jnp.stack([1 + 0 * p, p])), np.array([0.0, 1.0]), 3.0,
        (LOG3, 1 / 3, -1 / 9),
    ),
    "kumaraswamy's value at 0": (lambda p: dist.Kumaraswamy(1.0, 2.0), None, 0.0, (LOG2, -1, -1)),
    "laplace, truncated at the mode": (
        lambda p: dist.TruncatedDistribution(dist.Laplace(0.0, 1.0), low=p), 0.5, 0.0,
        (-0.5, 1, None),
    ),
    "half-student": (
        lambda p: dist.TruncatedDistribution(dist.StudentT(3.0, 0.0, p), low=0.0), 0.5, 1.0,
        half_student_row(1.0, 0.5),
    ),
    "truncated left": (
        lambda p: dist.TruncatedNormal(p, 1.0, low=49.0), 50.0, 0.0, tail_row(49.0, 50.0)
    ),
    "truncated right": (
        lambda p: dist.TruncatedNormal(-p, 1.0, high=-49.0), -50.0, 0.0, tail_row(49.0, 50.0)
    ),
    "truncated twice": (
        lambda p: dist.TruncatedNormal(p, 1.0, low=49.0, high=51.0), 50.0, 0.0,
        tail_row(49.0, 50.0),  # the other end takes a share of exp(-100) away
    ),
    "censored normal": (lambda p: right_censored(dist.Normal(p, 1.0)), 10.0, 0.0, tail_row(10.0)),
    "censored log-normal": (
        lambda p: right_censored(dist.LogNormal(p, 1.0)), np.exp(10.0), 0.0, tail_row(10.0)
    ),
    "censored exponential": (
        lambda p: right_censored(dist.Exponential(p)), 50.0, 1.0, (-50, -50, 0)
    ),
    "interval": (lambda p: interval(p, NONE, NONE), np.array([9.0, 10.0]), 0.0,
                 interval_row(9.0, 10.0)),
    "half-open interval": (lambda p: interval(p, NONE, ~NONE), np.array([9.0, np.inf]), 0.0,
                           tail_row(9.0)),
    "power law's exponent": (
        lambda p: power_law(p, "alpha"), 2.0, -1.0,
        (-LOG2 - np.log(LOG3), LOG2 - LOG3 / 2, -(LOG3**2) / 12),
    ),
    "power law's start": (
        lambda p: power_law(p, "low"), 2.0, 1.0,
        (-LOG2 - np.log(LOG3), 1 / LOG3, 1 / LOG3**2 - 1 / LOG3),
    ),
    "power law's end": (
        lambda p: power_law(p, "high"), 2.0, 3.0,
        (-LOG2 - np.log(LOG3), -1 / (3 * LOG3), (1 / LOG3 + 1 / LOG3**2) / 9),
    ),
    "angles": (
        lambda p: dist.SineBivariateVonMises(0.0, 0.0, 1.0, 1.0, p), np.array([0.3, 0.5]), 0.0,
        (TORUS, np.sin(0.3) * np.sin(0.5), -(BESSEL**2)),
    ),
    "mixture": (mixture, 1, 0.0, (-LOG2, 0.25, -0.0625)),
}  # fmt: skip


@functools.cache
def answers():
    """Of all rows, in one program."""

    def row(make, value, at):
        def log_prob(p):
            distribution = repaired(make(p))
            return jnp.sum(distribution.log_prob(p if value is None else jnp.asarray(value)))

        return log_prob(at), jax.grad(log_prob)(at), jax.grad(jax.grad(log_prob))(at)

    points = {name: at for name, (_, _, at, _) in ROWS.items()}
    return jax.jit(lambda points: {name: row(*ROWS[name][:2], points[name]) for name in ROWS})(
        points
    )


@pytest.mark.parametrize("name", ROWS)
def test_density_and_two_derivatives(name):
    # Logarithms of the size a^2 / 2 have rounding errors that curvatures multiply by a^2.
    atol = 1e-9 + (16 * np.finfo(float).eps * 49.0**4 if "truncated" in name else 0)
    for got, want in zip(answers()[name], ROWS[name][3], strict=True):
        if want is not None:
            np.testing.assert_allclose(got, want, rtol=1e-8, atol=atol)


def test_what_wraps_a_density_is_looked_into_and_the_rest_is_left_alone():
    plain = dist.MultivariateNormal(jnp.zeros(2), jnp.eye(2))
    assert repaired(plain) is plain
    inner = dist.Bernoulli(logits=jnp.zeros(3))
    distribution = inner.mask(np.array([True, True, False])).expand([2, 3]).to_event(1)
    mended = repaired(distribution)
    assert type(mended) is type(distribution) and type(inner) is dist.BernoulliLogits
    slope = jax.grad(
        lambda a: (
            repaired(dist.Bernoulli(logits=a).mask(np.array([True, False])))
            .log_prob(np.ones(2))
            .sum()
        )
    )(jnp.zeros(2))
    np.testing.assert_array_equal(slope, [0.5, 0.0])
    again = pickle.loads(pickle.dumps(repaired(dist.Poisson(2.0))))
    assert again.log_prob(3) == dist.Poisson(2.0).log_prob(3)


def test_values_elsewhere_are_those_of_numpyro():
    """At ordinary points, with all of the families that have another density."""
    half = np.full(3, 0.4)
    distributions = [
        (dist.Bernoulli(logits=half), np.array([0, 1, 0])),
        (dist.Bernoulli(probs=half), np.array([0, 1, 0])),
        (dist.Binomial(3, logits=half), np.array([0, 1, 3])),
        (dist.Binomial(3, probs=half), np.array([0, 1, 3])),
        (dist.Poisson(half), np.array([0, 1, 3])),
        (dist.Poisson(half, is_sparse=True), np.array([0, 1, 3])),
        (dist.Geometric(probs=half), np.array([0, 1, 3])),
        (dist.NegativeBinomialProbs(2.0, half), np.array([0, 1, 3])),
        (dist.GammaPoisson(2.0, half), np.array([0, 1, 3])),
        (dist.ZeroInflatedPoisson(0.3, half), np.array([0, 1, 3])),
        (dist.ZeroInflatedNegativeBinomial2(2.0, half, gate=0.3), np.array([0, 1, 3])),
        (dist.HurdleGamma(0.3, 2.0, half), np.array([0.0, 1.0, 3.0])),
        (dist.BetaBinomial(2.0, half, 3), np.array([0, 1, 3])),
        (dist.BetaProportion(half, 2.0), np.array([0.1, 0.5, 0.9])),
        (dist.Kumaraswamy(half, 2.0), np.array([0.1, 0.5, 0.9])),
        (dist.DoublyTruncatedPowerLaw(half, 0.0, 1.0), np.array([0.1, 0.5, 0.9])),
        (dist.DoublyTruncatedPowerLaw(-2.0 - half, 0.1, 1.0), np.array([0.1, 0.5, 0.9])),
    ]  # fmt: skip
    families = (dist.Normal, dist.Laplace, dist.Logistic, dist.Cauchy, dist.SoftLaplace)
    for base in [f(half, 1.5) for f in families] + [dist.StudentT(3.0, half, 1.5)]:
        ends = np.array([-2.0, 0.4, 1.5])
        distributions += [
            (dist.TruncatedDistribution(base, low=ends), ends + 0.3),
            (dist.TruncatedDistribution(base, high=ends), ends - 0.3),
            (dist.TruncatedDistribution(base, low=ends, high=ends + 1), ends + 0.3),
            (right_censored(base), ends),
            (dist.LeftCensoredDistribution(base, np.array([True, False, True])), ends),
        ]

    @jax.jit
    def both():
        pairs = [(repaired(distribution), distribution) for distribution, _ in distributions]
        for mended, distribution in pairs:
            assert type(mended) is not type(distribution) and isinstance(mended, type(distribution))
        values = [value for _, value in distributions]
        return [[d.log_prob(v) for d in pair] for pair, v in zip(pairs, values, strict=True)]

    for mended, plain in both():
        np.testing.assert_allclose(mended, plain, rtol=1e-9)


@pytest.mark.parametrize("df", [1e2, 1e4, 1e8])
def test_many_degrees_of_freedom_keep_their_digits(df, dtype):
    # Each against the distribution that it tends to, with the next terms of that limit.
    z, count, mean = 1.3, 4, 3.0
    first = (z**4 - 2 * z**2 - 1) / (4 * df)
    second = (2 * z**6 - 3 * z**4) / (-12 * df**2)
    student = stats.norm.logpdf(z) + first + second if df > 1e2 else stats.t(df).logpdf(z)
    steps = sum(np.log1p(i / df) for i in range(count))
    counts = steps - special.gammaln(count + 1) + count * np.log(mean)
    counts -= (df + count) * np.log1p(mean / df)

    def found(df):
        of_df = repaired(dist.StudentT(df, dtype(0), dtype(1))).log_prob(dtype(z))
        return of_df, repaired(dist.NegativeBinomial2(dtype(mean), df)).log_prob(count)

    value, slope = jax.jit(lambda df: (found(df), jax.jacrev(found)(df)))(dtype(df))
    eps = np.finfo(dtype).eps
    left_out = 20 / df**3 if df > 1e2 else 1e-13  # of the series, and of SciPy
    np.testing.assert_allclose(value[0], student, rtol=8 * eps, atol=left_out)
    np.testing.assert_allclose(value[1], counts, rtol=1e-9 if dtype == jnp.float64 else 8 * eps)
    want = -first / df - 2 * second / df
    np.testing.assert_allclose(slope[0], want, rtol=40 * eps, atol=3 / df**3 + 2 * eps / df)
