"""Laplace's approximation against exact posteriors, dense peers and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import distributions as dist
from numpyro.infer.util import potential_energy
from scipy import optimize
from scipy.stats import multivariate_normal
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF

from bayesjx import gp, kernels, likelihoods

RNG = np.random.default_rng(1)
GRID = gp.Grid(np.linspace(0, 1, 5), np.linspace(0, 1, 4))
N = 20
MASK = RNG.random(N) < 0.7
SEEN = np.flatnonzero(MASK)
P = np.array([0.4, 0.7, 1.3])
COUNTS = RNG.poisson(np.exp(1 + np.sin(6 * np.asarray(GRID.points())[:, 0])))
TEST = np.array([[0.1, 0.2], [2.0, 0.4], [0.5, 0.55]])
SOLVERS = ["dense", "cg"]


def make(p, mean=0.3, dtype=None):
    return gp.GP(kernels.RBF(p[:2], p[2]), mean=jnp.asarray(mean, dtype))


def poisson(f):
    return dist.Poisson(jnp.exp(f))


def gram(p, x=None, z=None):
    """Of the kernel, between all cells or two sets of points."""
    x, z = (np.asarray(GRID.points() if a is None else a) / p[:2] for a in (x, z))
    return p[2] * np.exp(-0.5 * ((x[:, None] - z) ** 2).sum(-1))


def dense_laplace(p, y, mean=0.3):
    """Mode by SciPy, and the evidence by determinants, for Poisson counts; NumPy alone."""
    cells = np.ix_(SEEN, SEEN)
    k = gram(p)[cells]
    inverse = np.linalg.inv(k + 1e-12 * np.eye(len(k)))
    log_factorial = np.array([np.sum(np.log(np.arange(1, n + 1))) for n in y])

    def negative(f):
        log_prob = np.sum(y * f - np.exp(f) - log_factorial)
        gradient = y - np.exp(f) - inverse @ (f - mean)
        return 0.5 * (f - mean) @ inverse @ (f - mean) - log_prob, -gradient

    hessian = lambda f: np.diag(np.exp(f)) + inverse  # noqa: E731
    options = {"gtol": 1e-11, "maxiter": 500}
    start = np.full(len(k), mean)
    best = optimize.minimize(
        lambda f: negative(f)[0], start, jac=lambda f: negative(f)[1], hess=hessian,
        method="trust-exact", options=options,
    )  # fmt: skip
    logdet = np.linalg.slogdet(np.eye(len(k)) + k @ np.diag(np.exp(best.x)))[1]
    return best.x, -best.fun - 0.5 * logdet, np.linalg.inv(hessian(best.x))


def dense_normal(y, mean=0.3, noise=0.25):
    """Moments at the test points and the cells, and evidence, with normal noise; NumPy alone."""
    cells = np.asarray(GRID.points())
    total = gram(P)[np.ix_(SEEN, SEEN)] + noise * np.eye(len(SEEN))

    def distribution(x):
        cross = gram(P, x, cells[SEEN])
        gain = np.linalg.solve(total, cross.T).T
        return mean + gain @ (y[SEEN] - mean), gram(P, x, x) - gain @ cross.T

    (at_points, covariance), (at_cells, between) = distribution(TEST), distribution(cells)
    moments = (at_points, np.diag(covariance)), (at_cells, np.diag(between)), covariance
    return moments, multivariate_normal(np.full(len(SEEN), mean), total).logpdf(y[SEEN])


@pytest.mark.parametrize("solver, dtype", [("dense", jnp.float64), ("cg", jnp.float32)])
def test_normal_noise_makes_it_exact(solver, dtype):
    y = jnp.asarray(RNG.normal(size=N), dtype)
    p = jnp.asarray(P, dtype)
    g = gp.Grid(*(axis.astype(dtype) for axis in GRID.axes))
    points = jnp.asarray(TEST, dtype)

    @jax.jit
    def run(p, y):
        found = gp.laplace(make(p), lambda f: dist.Normal(f, 0.5), g, y, MASK, solver=solver)
        answers = found.moments(points), found.moments(g), found.covariance(points)
        return answers, found.converged, found.log_evidence(jax.random.key(0))

    found, converged, evidence = run(p, y)
    assert bool(converged)
    wanted, wanted_evidence = dense_normal(np.asarray(y, float))
    tol = dict(rtol=1e-3, atol=1e-3) if dtype == jnp.float32 else dict(rtol=1e-7, atol=1e-7)
    for f, w in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        assert f.dtype == dtype
        np.testing.assert_allclose(f, w, **tol)
    if solver == "dense":
        np.testing.assert_allclose(evidence, wanted_evidence, rtol=tol["rtol"])


@pytest.mark.parametrize("solver", SOLVERS)
def test_counts_with_missing_cells_are_the_dense_problem(solver):
    mode, evidence, covariance = dense_laplace(P, COUNTS[SEEN])

    @jax.jit
    def run(p):
        found = gp.laplace(make(p), poisson, GRID, COUNTS, MASK, solver=solver)
        estimate = found.log_evidence(jax.random.key(0), num_probes=500, num_steps=14)
        return found.mode, found.mean(GRID), found.variance(GRID), estimate, found.converged

    found, mean, variance, estimate, converged = run(jnp.asarray(P))
    assert bool(converged)
    np.testing.assert_allclose(found, mode, atol=1e-6)
    np.testing.assert_allclose(mean[SEEN], mode, atol=1e-6)
    np.testing.assert_allclose(variance[SEEN], np.diag(covariance), atol=1e-6)
    tol = 1e-6 if solver == "dense" else 0.2  # of the probes, spread below 0.05
    assert abs(estimate - evidence) < tol


def test_bernoulli_is_scikit_learn():
    x = np.asarray(GRID.points())
    labels = (x[:, 0] + 0.3 * RNG.normal(size=N) > 0.5).astype(int)
    kernel = RBF([0.4, 0.7])
    peer = GaussianProcessClassifier(kernel, optimizer=None, max_iter_predict=1000).fit(x, labels)
    likelihood = lambda f: dist.Bernoulli(logits=f)  # noqa: E731
    prior = gp.GP(kernels.RBF(jnp.array([0.4, 0.7])))
    for inputs, y in ((GRID, labels.reshape(GRID.shape)), (x, labels)):

        @jax.jit
        def run(prior, inputs=inputs, y=y):
            found = gp.laplace(prior, likelihood, inputs, y)
            return found.mode, found.log_evidence(), found.predict(TEST).mean

        mode, evidence, probability = run(prior)
        np.testing.assert_allclose(mode, peer.base_estimator_.f_cached, atol=1e-5)
        wanted = peer.log_marginal_likelihood(kernel.theta)
        np.testing.assert_allclose(evidence, wanted, atol=1e-6)
        # scikit-learn approximates this integral by five error functions.
        np.testing.assert_allclose(probability, peer.predict_proba(TEST)[:, 1], atol=5e-3)


def negative_binomial(concentration):
    return lambda f: dist.NegativeBinomial2(jnp.exp(f), concentration)


def evidence(q, solver="dense", **probes):
    """Of lengthscales, variance, mean, and a parameter of the likelihood."""
    found = gp.laplace(
        make(q, q[3]), negative_binomial(q[4]), GRID, COUNTS, MASK, solver=solver, cg_rtol=1e-12
    )
    return found.log_evidence(jax.random.key(1), **probes)


Q = jnp.array([*P, 0.3, 4.0])
value_and_grad = jax.jit(jax.value_and_grad(evidence))  # compiled once for all tests


def test_evidence_has_the_gradient_of_finite_differences():
    """The whole derivative: of kernel, mean and likelihood, with the mode that moves."""
    value = jax.jit(evidence)
    at_q, found = value_and_grad(Q)
    np.testing.assert_allclose(at_q, value(Q), rtol=1e-12)
    step = 1e-4
    moved = [(value(Q.at[i].add(step)), value(Q.at[i].add(-step))) for i in range(5)]
    wanted = [(up - down) / (2 * step) for up, down in moved]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)
    forward = jax.jit(jax.jacfwd(evidence))(Q)
    np.testing.assert_allclose(forward, found, rtol=1e-8)


def test_evidence_has_the_second_derivative_of_one_observation():
    """Against the one-dimensional problem, its mode by bisection, in kernel and likelihood."""

    def exact(t):
        root = lambda f: 3.0 - t * np.exp(f) - (f - 0.3) / t  # noqa: E731
        f = optimize.brentq(root, -5.0, 5.0, xtol=1e-15, rtol=1e-15)
        log_prob = 3 * (np.log(t) + f) - t * np.exp(f) - np.log(6.0)
        return log_prob - 0.5 * (f - 0.3) ** 2 / t - 0.5 * np.log1p(t**2 * np.exp(f))

    def found(t):
        prior = gp.GP(kernels.RBF(1.0, t), mean=0.3)
        likelihood = lambda f: dist.Poisson(t * jnp.exp(f))  # noqa: E731
        return gp.laplace(prior, likelihood, jnp.zeros(1), jnp.array([3])).log_evidence()

    h, t = 1e-3, 0.8  # differences of fourth order: errors of h^4, and of rounding over h^2
    values = [exact(t + i * h) for i in (-2, -1, 0, 1, 2)]
    second = np.array([-1, 16, -30, 16, -1]) @ values / (12 * h**2)
    np.testing.assert_allclose(jax.jit(jax.hessian(found))(t), second, rtol=1e-7, atol=1e-8)


def test_estimated_evidence_has_the_same_gradient_on_average():
    wanted = value_and_grad(Q)[1]
    estimate = jax.grad(lambda q: evidence(q, "cg", num_probes=2000, num_steps=14))
    np.testing.assert_allclose(jax.jit(estimate)(Q), wanted, atol=0.1)


def test_likelihood_may_be_a_module_or_close_over_traced_numbers():
    class Scaled(likelihoods.AbstractLikelihood):
        scale: jax.Array

        def __call__(self, f):
            return dist.Normal(f, self.scale)

        def expected_log_prob(self, y, mean, variance):
            raise NotImplementedError

    y = jnp.asarray(RNG.normal(size=N))

    def by_module(s):
        return gp.laplace(make(P), Scaled(s), GRID, y).log_evidence()

    def by_closure(s):
        return gp.laplace(make(P), lambda f: dist.Normal(f, s), GRID, y).log_evidence()

    found = [jax.jit(jax.value_and_grad(f))(jnp.asarray(0.7)) for f in (by_module, by_closure)]
    np.testing.assert_allclose(*found, rtol=1e-10)
    exact = lambda s: gp.GP(make(P).kernel, 0.3, noise_var=s**2)(GRID).log_prob(y)  # noqa: E731
    np.testing.assert_allclose(found[0], jax.jit(jax.value_and_grad(exact))(0.7), rtol=1e-7)


def test_bounds_hold_the_evidence():
    """Eigenvalues sorted like the weights bound it from below, oppositely sorted from above."""

    @jax.jit
    def run(p):
        problems = (poisson, COUNTS), (poisson, COUNTS, MASK), (normal, jnp.zeros(N))
        found = [gp.laplace(make(p), like, GRID, *data) for like, *data in problems]
        return [
            (distribution.log_evidence(), distribution.evidence_bounds()) for distribution in found
        ]

    normal = lambda f: dist.Normal(f, 0.5)  # noqa: E731
    *counts, flat = run(jnp.asarray(P))
    for evidence, (low, high) in counts:
        assert low < evidence < high
    np.testing.assert_allclose(flat[1], [flat[0]] * 2, rtol=1e-8)


@pytest.mark.parametrize("solver", SOLVERS)
def test_draws_have_the_distribution(solver):
    tests = GRID, gp.Grid(np.array([0.1, 1.5]), np.array([0.2, 0.9, 0.5]))

    @jax.jit
    def run(key):
        found = gp.laplace(make(P), poisson, GRID, COUNTS, MASK, solver=solver)
        return [(found.sample(key, t, (4000,)), found.mean(t), found.covariance(t)) for t in tests]

    for draws, mean, covariance in run(jax.random.key(2)):
        var, s = np.diag(covariance), len(draws)
        off = np.asarray(draws - mean)
        assert np.max(np.abs(off.mean(axis=0)) / np.sqrt(var / s)) < 5
        error = np.sqrt((np.outer(var, var) + covariance**2) / s)
        assert np.max(np.abs(off.T @ off / s - covariance) / error) < 5


def test_vmap_over_hyper_parameters():
    found = jax.jit(jax.vmap(jax.value_and_grad(evidence)))(jnp.stack([Q, 1.2 * Q]))
    for i, q in enumerate((Q, 1.2 * Q)):
        value, gradient = value_and_grad(q)
        np.testing.assert_allclose(found[0][i], value, rtol=1e-8)
        np.testing.assert_allclose(found[1][i], gradient, rtol=1e-6)


def test_far_starts_are_reached_by_line_search():
    """Counts of 10⁵ where the prior mean says 1: full Newton steps would overflow."""
    y = np.full(N, 100_000)
    found = gp.laplace(make(np.array([0.4, 0.7, 25.0]), 0.0), poisson, GRID, y)
    assert bool(found.converged)
    slope = y - np.exp(found.mode)  # at the mode it is the coefficients
    np.testing.assert_allclose(slope, found.weights, rtol=1e-4, atol=1e-3)


def test_evidence_of_a_mode_that_was_not_found_is_nan():
    found = gp.laplace(make(P), poisson, GRID, COUNTS, max_steps=1)
    assert not bool(found.converged) and np.isnan(found.log_evidence())


def test_evidence_is_a_factor_of_a_model():
    def model():
        ell = numpyro.sample("ell", dist.LogNormal(jnp.zeros(2), 1.0).to_event(1))
        prior = gp.GP(kernels.RBF(ell))
        numpyro.factor("evidence", gp.laplace(prior, poisson, GRID, COUNTS, MASK).log_evidence())

    def potential(log_ell):
        return potential_energy(model, (), {}, {"ell": log_ell})

    at = jnp.log(jnp.array([0.4, 0.7]))
    potential_and_slope = jax.jit(jax.value_and_grad(potential))
    value, gradient = potential_and_slope(at)
    steps = [at + 1e-4 * jnp.array([1.0, 0.0]), at - 1e-4 * jnp.array([1.0, 0.0])]
    slope = (potential_and_slope(steps[0])[0] - potential_and_slope(steps[1])[0]) / 2e-4
    assert np.isfinite(value)
    np.testing.assert_allclose(gradient[0], slope, rtol=1e-5)


def test_nothing_of_all_pairs_of_cells_is_made():
    side = 40
    axis = np.linspace(0, 1, side)
    g = gp.Grid(axis, axis, axis)
    mask = np.ones(g.size, bool)
    mask[::3] = False

    def run(ell, y, key):
        found = gp.laplace(gp.GP(kernels.RBF(ell)), poisson, g, y, mask, solver="cg")
        return found.log_evidence(key), (found.evidence_bounds(), found.sample(key, g))

    args = jnp.ones(3), jnp.zeros(g.size, int), jax.random.key(0)
    both = jax.jit(jax.value_and_grad(run, has_aux=True))
    plan = both.lower(*args).compile().memory_analysis()
    used = plan.temp_size_in_bytes + plan.output_size_in_bytes
    assert used < 2500 * 8 * g.size < 8 * g.size**2 / 20  # 2 x 10 probes x 30 steps


@pytest.mark.errors
def test_bad_problems_are_named():
    prior = make(P)
    cases = (
        (dict(y=COUNTS[:-1]), ValueError, "y must have the grid's shape"),
        (dict(y=-COUNTS - 1), ValueError, "outside of the support of Poisson"),
        (dict(y=np.where(MASK, 1.0, np.nan)), ValueError, "NaN or infinite"),
        (dict(mask=MASK[:-1]), ValueError, "mask must have the grid's shape"),
        (dict(mask=np.zeros(N, bool)), ValueError, "mask is all false"),
        (dict(solver="qr"), ValueError, "solver must be"),
        (dict(x=np.asarray(GRID.points()), solver="cg"), ValueError, "is for a Grid"),
        (dict(likelihood=lambda f: f), TypeError, "NumPyro distribution"),
        (dict(prior=gp.GP(prior.kernel, noise_var=0.1)), ValueError, "noise_var of the prior"),
    )
    for change, error, text in cases:
        problem = dict(prior=prior, x=GRID, y=COUNTS, likelihood=poisson) | change
        with pytest.raises(error, match=text):
            gp.laplace(**problem)
    found = gp.laplace(prior, poisson, GRID, COUNTS, solver="cg")
    with pytest.raises(ValueError, match="needs a key"):
        found.log_evidence()
    points = gp.laplace(prior, poisson, np.asarray(GRID.points()), COUNTS)
    with pytest.raises(ValueError, match="for a Grid only"):
        points.evidence_bounds()


def test_modes_that_start_where_the_score_of_a_logit_is_hard():
    """Few ones among many zeros, from a mean of 0, against the equations of the mode."""
    x = np.linspace(0, 1, 13)
    prior = gp.GP(kernels.RBF(1.0, 4.0))
    matrix = 4 * np.exp(-0.5 * (x[:, None] - x) ** 2)
    labels = (np.random.default_rng(4).random((3, 13)) < 0.2).astype(int)
    labels[0] = 0
    for total in (1, 3):

        @jax.jit
        @jax.vmap
        def run(y, total=total):
            def likelihood(f):
                return dist.Bernoulli(logits=f) if total == 1 else dist.Binomial(total, logits=f)

            found = gp.laplace(prior, likelihood, x, y)
            return found.mode, found.log_evidence(), found.converged

        for y, mode, evidence, converged in zip(labels, *run(labels), strict=True):
            assert converged
            p = 1 / (1 + np.exp(-np.asarray(mode)))
            alpha = y - total * p
            np.testing.assert_allclose(mode, matrix @ alpha, atol=1e-6)
            weight = total * p * (1 - p)
            log_prob = np.sum(y * np.log(p) + (total - y) * np.log1p(-p)) + y.sum() * np.log(total)
            logdet = np.linalg.slogdet(np.eye(13) + matrix * weight)[1]
            np.testing.assert_allclose(
                evidence, log_prob - 0.5 * alpha @ mode - 0.5 * logdet, rtol=1e-7
            )
