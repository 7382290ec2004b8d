"""What every posterior answers, on a table of them, against dense formulas in NumPy alone.

A row is how the posterior is made and an oracle; one program asks for everything.
"""

import functools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist
from scipy import stats

from bayesjx import gp, kernels, likelihoods, ops
from bayesjx.gp._posterior import AbstractGPPosterior

AXES = np.linspace(0, 1, 5), np.linspace(-1, 1, 4)
CELLS = np.stack(np.meshgrid(*AXES, indexing="ij"), axis=-1).reshape(-1, 2)
N = len(CELLS)
RNG = np.random.default_rng(0)
MASK = RNG.random(N) < 0.75
SEEN = np.flatnonzero(MASK)
Y = np.sin(3 * CELLS[:, 0]) - CELLS[:, 1] + 0.3 * RNG.normal(size=N)
COUNTS = RNG.poisson(np.exp(0.8 + np.sin(6 * CELLS[:, 0])))
LABELS = (Y > 0.3).astype(int)
NEW = np.array([[0.1, 0.2], [1.4, 0.4], [0.5, -0.55]])  # where the function is asked for
POINTS = CELLS[[0, 4, 9, 13, 18]] + 0.05
ELL, VARIANCE, NOISE = np.array([0.5, 0.8]), 1.3, 0.2
EACH = np.linspace(0.1, 0.4, N)
DRAWS = 4000
LAW = RNG.normal(size=5), np.tril(0.3 * RNG.normal(size=(5, 5)), -1) + 0.6 * np.eye(5)
FACTORS = [np.tril(0.2 * RNG.normal(size=(n, n)), -1) + 0.7 * np.eye(n) for n in (5, 4)]
NU = 0.5 * RNG.normal(size=N)
LOG_LAMBDA = np.log(0.5) + 0.4 * RNG.normal(size=N)
TIMES, LATER = np.sort(RNG.uniform(0, 4, N)), np.array([-0.5, 1.7, 4.4])


def bernoulli(f):
    return dist.Bernoulli(logits=f)


def poisson(f):
    return dist.Poisson(jnp.exp(f))


# The problem, ours and by NumPy -------------------------------------------------------------------


def prior(dtype=float, noise_var=0.0):
    kernel = kernels.RBF(jnp.asarray(ELL, dtype), jnp.asarray(VARIANCE, dtype))
    return gp.GP(kernel, lambda x: 0.3 + x[0], noise_var=jnp.asarray(noise_var, dtype))


def grid(dtype):
    return gp.Grid(*(jnp.asarray(axis, dtype) for axis in AXES))


def gram(x, z, ell=ELL, variance=VARIANCE):
    return variance * np.exp(-0.5 * np.sum(((x[:, None] - z) / ell) ** 2, axis=-1))


def matern(x, z):
    r = np.sqrt(3) * np.abs(x[:, None] - z) / 0.7
    return VARIANCE * (1 + r) * np.exp(-r)


def mean_of(x):
    return 0.3 + (x[:, 0] if x.ndim == 2 else x)


def regression(x, y, noise, gram=gram, new=NEW):
    """Mean and covariance of the function, and the evidence, with normal noise."""
    total = gram(x, x) + np.diag(noise * np.ones(len(x)))
    gain = np.linalg.solve(total, gram(x, new)).T
    mean = mean_of(new) + gain @ (y - mean_of(x))
    evidence = stats.multivariate_normal(mean_of(x), total).logpdf(y)
    return mean, gram(new, new) - gain @ gram(x, new), evidence


def newton(x, y, score, weight, log_prob):
    """Laplace's approximation (Rasmussen and Williams, 3.1), by inverses."""
    k, m = gram(x, x), mean_of(x)
    f = m.copy()
    for _ in range(50):
        b = weight(f) * (f - m) + score(y, f)
        f = m + np.linalg.solve(np.eye(len(x)) + k * weight(f), k @ b)
    alpha = score(y, f)
    total = np.linalg.inv(k + np.diag(1 / weight(f)))
    cross = gram(NEW, x)
    logdet = np.linalg.slogdet(np.eye(len(x)) + k * weight(f))[1]
    evidence = log_prob(y, f) - 0.5 * alpha @ (f - m) - 0.5 * logdet
    return mean_of(NEW) + cross @ alpha, gram(NEW, NEW) - cross @ total @ cross.T, evidence


def counts_by_newton(x, y):
    def log_prob(y, f):
        return np.sum(y * f - np.exp(f)) - sum(math.lgamma(n + 1) for n in y)

    return newton(x, y, lambda y, f: y - np.exp(f), np.exp, log_prob)


def classes_by_newton():
    sigmoid = lambda f: 1 / (1 + np.exp(-f))  # noqa: E731
    return newton(
        CELLS,
        LABELS,
        lambda y, f: y - sigmoid(f),
        lambda f: sigmoid(f) * sigmoid(-f),
        lambda y, f: -np.sum(np.logaddexp(0, (1 - 2 * y) * f)),
    )


def variational_counts():
    """The best normal distribution of the function at the times, and its bound, by inverses."""
    k, m = matern(TIMES, TIMES), mean_of(TIMES)
    inverse, mean, variance = np.linalg.inv(k), m.copy(), np.diag(k)
    for _ in range(500):
        rate = np.exp(mean + variance / 2)
        covariance = np.linalg.inv(inverse + np.diag(rate))
        mean = mean + 0.5 * covariance @ (COUNTS - rate - inverse @ (mean - m))
        variance = 0.5 * (variance + np.diag(covariance))
    bound = np.sum(COUNTS * mean - rate) - sum(math.lgamma(n + 1) for n in COUNTS)
    off = mean - m
    divergence = np.trace(inverse @ covariance) + off @ inverse @ off - N
    bound -= 0.5 * (divergence - np.linalg.slogdet(inverse @ covariance)[1])
    cross = matern(LATER, TIMES)
    left = cross @ np.linalg.solve(k + np.diag(1 / rate), cross.T)
    return mean_of(LATER) + cross @ (COUNTS - rate), matern(LATER, LATER) - left, bound


def jittered(points, dtype):
    jitter = 1e-4 if dtype == jnp.float32 else 1e-6
    return gram(points, points) + jitter * VARIANCE * np.eye(len(points))


def titsias(dtype, alpha=0.0):
    """The best distribution of the inducing variables, and the bound, by dense inverses."""
    inside, cross, new = jittered(POINTS, dtype), gram(POINTS, CELLS), gram(POINTS, NEW)
    nystrom = cross.T @ np.linalg.solve(inside, cross)
    left = np.maximum(VARIANCE - np.diag(nystrom), 0)
    noise = NOISE + alpha * left
    covariance = np.linalg.inv(inside + cross / noise @ cross.T)
    mean = mean_of(NEW) + new.T @ covariance @ (cross / noise) @ (Y - mean_of(CELLS))
    explained = new.T @ (np.linalg.inv(inside) - covariance) @ new
    bound = stats.multivariate_normal(mean_of(CELLS), nystrom + np.diag(noise)).logpdf(Y)
    if alpha:
        bound -= 0.5 * (1 - alpha) / alpha * np.sum(np.log1p(alpha * left / NOISE))
    else:
        bound -= 0.5 * np.sum(np.log1p(left / NOISE))
    return mean, gram(NEW, NEW) - explained, bound


def inducing(dtype):
    """The function where whitened inducing variables have the distribution `LAW`."""
    half = np.linalg.solve(np.linalg.cholesky(jittered(POINTS, dtype)), gram(POINTS, NEW))
    own = LAW[1].T @ half
    covariance = gram(NEW, NEW) - half.T @ half + own.T @ own
    return mean_of(NEW) + half.T @ LAW[0], covariance, None


def kronecker(dtype):
    """The function where its values at the cells have a covariance that is a Kronecker product."""
    del dtype
    scales = VARIANCE, 1.0
    axes = [
        gram(axis[:, None], axis[:, None], ell, scale) + 1e-6 * scale * np.eye(len(axis))
        for axis, ell, scale in zip(AXES, ELL, scales, strict=True)
    ]
    root, before = np.kron(*map(np.linalg.cholesky, axes)), np.kron(*axes)
    half = root @ np.kron(*FACTORS)
    gain = np.linalg.solve(before, gram(CELLS, NEW)).T
    covariance = gram(NEW, NEW) - gain @ (before - half @ half.T) @ gain.T
    return mean_of(NEW) + gain @ root @ NU, covariance, None


def heteroscedastic():
    """The marginalised bound by its definition, and the log variance of new noise."""
    k = gram(CELLS, CELLS, 1.1, 0.8)
    lambdas = np.exp(LOG_LAMBDA)
    covariance = k - k @ np.linalg.solve(k + np.diag(1 / lambdas), k)
    mean = -1.5 + k @ (lambdas - 0.5)
    noise = np.exp(mean - np.diag(covariance) / 2)
    at, between, evidence = regression(CELLS, Y, noise)
    ratio, shift = np.eye(N) - np.linalg.solve(k + np.diag(1 / lambdas), k).T, lambdas - 0.5
    divergence = np.trace(ratio) + shift @ k @ shift - N - np.linalg.slogdet(ratio)[1]
    evidence -= 0.25 * np.trace(covariance) + 0.5 * divergence
    cross = gram(NEW, CELLS, 1.1, 0.8)
    loc = -1.5 + cross @ shift
    left = 0.8 - np.sum(cross * np.linalg.solve(k + np.diag(1 / lambdas), cross.T).T, axis=1)
    return at, between, evidence, (loc, left)


# The rows -----------------------------------------------------------------------------------------


def svgp(dtype, y, likelihood):
    del y
    mean, tril = (jnp.asarray(a, dtype) for a in LAW)
    q, points = gp.WhitenedNormal(mean, tril), jnp.asarray(POINTS, dtype)
    return gp.SVGP(prior(dtype), likelihood, inducing_points=points, q=q).posterior()


def decoupled(dtype, y):
    del y
    mean, tril = (jnp.asarray(a, dtype) for a in LAW)
    first, second = (
        gp.WhitenedNormal(mean[:3], tril[:3, :3]),
        gp.WhitenedNormal(mean[3:], tril[3:, 3:]),
    )
    points = jnp.asarray(POINTS, dtype)
    return gp.DecoupledSVGP(
        prior(dtype),
        poisson,
        inducing_points=points[:3],
        orthogonal_points=points[3:],
        q=first,
        q_orthogonal=second,
    ).posterior()


def block_diagonal(dtype):
    tril = LAW[1].copy()
    tril[3:, :3] = 0
    half = np.linalg.solve(np.linalg.cholesky(jittered(POINTS, dtype)), gram(POINTS, NEW))
    covariance = gram(NEW, NEW) - half.T @ half + half.T @ tril @ tril.T @ half
    return mean_of(NEW) + half.T @ LAW[0], covariance, None


def kron_variational(dtype, y):
    del y
    q = gp.KronVariational(prior(dtype), likelihoods.PoissonExp(), grid(dtype))
    arrays = [jnp.asarray(a, dtype) for a in (NU, *FACTORS)]
    fields = lambda q: [q.whitened_mean, *q.factors]  # noqa: E731
    return eqx.tree_at(fields, q, arrays).posterior()


def varying_problem(dtype, y):
    log_prior = gp.GP(kernels.RBF(jnp.asarray(1.1, dtype), jnp.asarray(0.8, dtype)), -1.5)
    return prior(dtype), log_prior, jnp.asarray(LOG_LAMBDA, dtype), jnp.asarray(CELLS, dtype), y


def varying(dtype, y):
    return gp.heteroscedastic_posterior(*varying_problem(dtype, y))


def in_time(dtype, y):
    kernel = kernels.Matern32(jnp.asarray(0.7, dtype), jnp.asarray(VARIANCE, dtype))
    process = gp.GP(kernel, lambda x: 0.3 + x[0], noise_var=jnp.asarray(NOISE, dtype))
    return gp.condition(process, gp.Times(jnp.asarray(TIMES, dtype)), y)


def counts_in_time(dtype, y):
    kernel = kernels.Matern32(jnp.asarray(0.7, dtype), jnp.asarray(VARIANCE, dtype))
    process = gp.GP(kernel, lambda x: 0.3 + x[0])
    return gp.condition(process, gp.Times(jnp.asarray(TIMES, dtype)), y, poisson)


def at_points(noise_var, likelihood=None, mask=None):
    def make(dtype, y):
        x = jnp.asarray(CELLS, dtype)
        return gp.condition(prior(dtype, noise_var), x, y, likelihood, mask=mask)

    return make


def on_grid(noise_var=0.0, likelihood=None, mask=None, **options):
    def make(dtype, y):
        return gp.condition(
            prior(dtype, noise_var), grid(dtype), y, likelihood, mask=mask, **options
        )

    return make


def inducing_points(**options):
    def make(dtype, y):
        x, points = jnp.asarray(CELLS, dtype), jnp.asarray(POINTS, dtype)
        return gp.sparse_posterior(prior(dtype, NOISE), x, y, inducing_points=points, **options)

    return make


# How it is made of the data, the data, the oracle, the likelihood of new observations, the class.
ROWS = {
    "points": (
        at_points(NOISE),
        Y,
        lambda _: regression(CELLS, Y, NOISE),
        NOISE,
        gp.ExactPosterior,
    ),
    "points, noise of each": (
        at_points(EACH),
        Y,
        lambda _: regression(CELLS, Y, EACH),
        None,
        gp.ExactPosterior,
    ),
    "points, noise of each, mask": (
        at_points(EACH, mask=MASK),
        np.where(MASK, Y, np.nan),
        lambda _: regression(CELLS[SEEN], Y[SEEN], EACH[SEEN]),
        None,
        gp.ExactPosterior,
    ),
    "points, mask, Gaussian": (
        at_points(0.0, likelihoods.Gaussian(NOISE), MASK),
        np.where(MASK, Y, np.nan),
        lambda _: regression(CELLS[SEEN], Y[SEEN], NOISE),
        NOISE,
        gp.ExactPosterior,
    ),
    "grid": (on_grid(NOISE), Y, lambda _: regression(CELLS, Y, NOISE), NOISE, gp.GridPosterior),
    "grid with gaps": (
        on_grid(NOISE, mask=MASK),
        np.where(MASK, Y, np.nan),
        lambda _: regression(CELLS[SEEN], Y[SEEN], NOISE),
        NOISE,
        gp.GridPosterior,
    ),
    "times": (
        in_time,
        Y,
        lambda _: regression(TIMES, Y, NOISE, matern, LATER),
        NOISE,
        gp.TimesPosterior,
    ),
    "times, counts": (
        counts_in_time,
        COUNTS,
        lambda _: variational_counts(),
        poisson,
        gp.TimesPosterior,
    ),
    "inducing points": (
        inducing_points(),
        Y,
        titsias,
        NOISE,
        gp.SparsePosterior,
    ),
    "inducing points, power EP": (
        inducing_points(alpha=0.5),
        Y,
        functools.partial(titsias, alpha=0.5),
        NOISE,
        gp.SparsePosterior,
    ),
    "variational, classes": (
        functools.partial(svgp, likelihood=bernoulli),
        LABELS,
        inducing,
        bernoulli,
        gp.SparsePosterior,
    ),
    "decoupled, counts": (decoupled, COUNTS, block_diagonal, poisson, gp.SparsePosterior),
    "Kronecker, counts": (
        kron_variational,
        COUNTS,
        kronecker,
        poisson,
        gp.KronVariationalPosterior,
    ),
    "Laplace, classes": (
        at_points(0.0, bernoulli),
        LABELS,
        lambda _: classes_by_newton(),
        bernoulli,
        gp.LaplacePosterior,
    ),
    "Laplace, counts with gaps": (
        on_grid(likelihood=poisson, mask=MASK),
        COUNTS,
        lambda _: counts_by_newton(CELLS[SEEN], COUNTS[SEEN]),
        poisson,
        gp.LaplacePosterior,
    ),
    "Laplace, iterations": (
        on_grid(likelihood=poisson, mask=MASK, solver="cg", cg_rtol=1e-12),
        COUNTS,
        lambda _: (*counts_by_newton(CELLS[SEEN], COUNTS[SEEN])[:2], None),
        poisson,
        gp.LaplacePosterior,
    ),
    "noise that varies": (
        varying,
        Y,
        lambda _: heteroscedastic(),
        "varies",
        gp.HeteroscedasticPosterior,
    ),
}
SINGLE = ("points", "grid", "inducing points", "Laplace, classes", "noise that varies")
CASES = [(name, jnp.float64) for name in ROWS] + [(name, jnp.float32) for name in SINGLE]


def log_density(observed, y, mean, variance, of_noise=None):
    """Of a new observation, by the trapezoidal rule over the function or the noise."""
    at = np.linspace(-10, 10, 2001)
    weight = stats.norm.pdf(at)
    if observed == "varies":
        noise = np.exp(of_noise[0] + np.sqrt(of_noise[1]) * at)
        density = stats.norm.pdf(y, mean, np.sqrt(variance + noise))
    elif observed is bernoulli:
        density = 1 / (1 + np.exp((1 - 2 * y) * (mean + np.sqrt(variance) * at)))
    else:
        density = stats.poisson.pmf(y, np.exp(mean + np.sqrt(variance) * at))
    return np.log(np.trapezoid(density * weight, at))


def asked(name, dtype):
    """Everything that the posterior answers at the new points, by one program."""
    make, y, *_, observed, _ = ROWS[name]
    y = jnp.asarray(y, dtype if y.dtype == float else int)
    x = jnp.asarray(LATER if name.startswith("times") else NEW, dtype)
    new_y = jnp.asarray([1, 0, 1], int if callable(observed) else dtype)
    single = dtype == jnp.float32

    @eqx.filter_jit
    def run(y, x):
        posterior = make(dtype, y)
        marginal = posterior.marginal(x)
        answers = {
            "mean": posterior.mean(x),
            "moments": posterior.moments(x),
            "variance": posterior.variance(x),
            "covariance": posterior.covariance(x),
            "marginal": (marginal.loc, marginal.scale**2),
        }
        if observed is not None:
            predicted = posterior.predict(x)
            answers["predict"] = predicted.mean, predicted.variance
            answers["density"] = posterior.log_predictive_prob(x, new_y)
        if observed == "varies":
            log_noise = posterior.log_noise(x)
            answers["log noise"] = log_noise.loc, log_noise.scale**2
            answers["noise"] = posterior.noise_variance(x)
            answers["bound"] = gp.heteroscedastic_bound(*varying_problem(dtype, y))
        if single:  # data in single precision, points in double
            double = x.astype(float)
            answers["mixed"] = posterior.mean(double), posterior.marginal(double).variance
            answers["mixed, joint"] = posterior.covariance(double)
        else:
            answers["draws"] = posterior.sample(jax.random.key(0), x, (DRAWS,))
        if oracle_of(name, dtype)[2] is not None:
            answers["evidence"] = posterior.log_evidence()
        return posterior, answers

    return run(y, x), np.asarray(new_y)


@functools.cache
def oracle_of(name, dtype):
    return ROWS[name][2](dtype)


@pytest.mark.parametrize("name, dtype", CASES, ids=[f"{n} {d.__name__}" for n, d in CASES])
def test_answers_are_those_of_the_dense_formulas(name, dtype):
    (posterior, found), y = asked(name, dtype)
    *_, observed, cls = ROWS[name]
    mean, covariance, evidence, *of_noise = oracle_of(name, dtype)
    variance = np.diag(covariance)
    assert isinstance(posterior, cls) and isinstance(posterior, AbstractGPPosterior)
    # Solves with condition numbers up to some 100 in most rows.
    tol = {"rtol": 2e-3, "atol": 2e-3} if dtype == jnp.float32 else {"rtol": 1e-6, "atol": 1e-6}
    wanted = {
        "mean": mean,
        "moments": (mean, variance),
        "mixed": (mean, variance),
        "mixed, joint": covariance,
        "variance": variance,
        "covariance": covariance,
        "marginal": (mean, variance),
        "evidence": evidence,
    }
    if isinstance(observed, float):
        wanted["predict"] = mean, variance + observed
        wanted["density"] = stats.norm.logpdf(y, mean, np.sqrt(variance + observed))
    elif observed is not None:
        pairs = zip(mean, variance, *(of_noise[0] if of_noise else ()), strict=True)
        args = [(m, v, rest) for m, v, *rest in pairs]
        wanted["density"] = [log_density(observed, n, *a) for n, a in zip(y, args, strict=True)]
    if observed == "varies":
        total = variance + np.exp(of_noise[0][0] + of_noise[0][1] / 2)
        wanted["predict"] = mean, total
        wanted["log noise"], wanted["noise"] = of_noise[0], total - variance
        wanted["bound"] = evidence
    if observed is bernoulli:
        one = np.exp([log_density(observed, 1, *a) for a in args])
        wanted["predict"] = one, one * (1 - one)
    if observed is poisson:
        rate = np.exp(mean + variance / 2)
        wanted["predict"] = rate, rate + rate**2 * np.expm1(variance)
    draws = found.pop("draws", None)
    for question, answer in found.items():
        pairs = zip(jax.tree.leaves(answer), jax.tree.leaves(wanted[question]), strict=True)
        if question == "density":
            pairs = [(answer, np.asarray(wanted[question]))]
        for a, b in pairs:
            assert a.dtype == dtype, question
            np.testing.assert_allclose(a, b, **tol, err_msg=question)
    if draws is not None:
        off = np.asarray(draws - mean)
        assert np.all(np.abs(off.mean(axis=0)) < 5 * np.sqrt(variance / DRAWS))
        error = np.sqrt((np.outer(variance, variance) + covariance**2) / DRAWS)
        assert np.all(np.abs(off.T @ off / DRAWS - covariance) < 5 * error)


def test_correlated_noise_of_observed_points():
    among = 0.2 * np.exp(-np.abs(np.subtract.outer(np.arange(N), np.arange(N))))
    of_all = gp.GP(kernels.RBF(ELL, VARIANCE), noise_var=ops.Dense(among, ops.psd))
    found = gp.condition(of_all, CELLS, np.where(MASK, Y, np.nan), mask=MASK)
    total = gram(CELLS[SEEN], CELLS[SEEN]) + among[np.ix_(SEEN, SEEN)]
    np.testing.assert_allclose(found.weights, np.linalg.solve(total, Y[SEEN]), rtol=1e-9)


def test_every_class_has_a_row():
    classes = {value for value in vars(gp).values() if isinstance(value, type)}
    posteriors = {c for c in classes if issubclass(c, AbstractGPPosterior)}
    assert posteriors - {AbstractGPPosterior} == {cls for *_, cls in ROWS.values()}


@pytest.mark.errors
def test_questions_without_an_answer_say_who_has_one():
    y, x = jnp.asarray(COUNTS), jnp.asarray(CELLS)
    variational = svgp(float, y, poisson)
    with pytest.raises(ValueError, match="elbo.*SVGP.*sparse_posterior"):
        variational.log_evidence()
    with pytest.raises(ValueError, match="elbo.*KronVariational"):
        kron_variational(float, y).log_evidence()
    with pytest.raises(ValueError, match="noise_var differs between observations"):
        gp.condition(prior(float, EACH), x, Y).predict(NEW)
    with pytest.raises(ValueError, match=r"y must have shape \(3,\), as x says; got \(2,\)"):
        variational.log_predictive_prob(NEW, y[:2])
    with pytest.raises(ValueError, match="outside of the support"):
        variational.log_predictive_prob(NEW, np.array([1, -1, 0]))
    with pytest.raises(RuntimeError, match="outside of the support"):
        ask = jax.jit(lambda y: variational.log_predictive_prob(NEW, y))
        jax.block_until_ready(ask(jnp.array([1, -1, 0])))
    noisy = lambda f: dist.Normal(f[..., 0], jnp.exp(f[..., 1]))  # noqa: E731
    two = gp.SVGP(prior(), noisy, inducing_points=POINTS, num_latents=2)
    with pytest.raises(ValueError, match=r"of 2 functions.*log_predictive_prob"):
        two.posterior(0).predict(NEW)
    with pytest.raises(ValueError, match="leave_one_out: known with normal noise only"):
        counts_in_time(float, y).leave_one_out()
    with pytest.raises(ValueError, match="a likelihood was given"):
        gp.condition(prior(float, NOISE), x, y, poisson)
    exposed = lambda f: dist.Poisson(EACH * jnp.exp(f))  # noqa: E731
    with pytest.raises(ValueError, match=rf"failed at values of shape \({SEEN.size},\).*mask"):
        gp.condition(prior(float), x, y, exposed, mask=MASK)
    with pytest.raises(ValueError, match="is no option of ops.Masked"):
        gp.condition(prior(float, NOISE), x, Y, cg_rtol=1e-3)
