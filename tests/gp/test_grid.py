"""Posteriors on grids against the dense posterior of their points, under NUTS too."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from jax.test_util import check_grads
from numpyro import distributions as dist
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS
from scipy.stats import multivariate_normal

from bayesjx import gp, kernels, ops
from bayesjx.gp._exact import exact_posterior
from bayesjx.gp._grid_posterior import symmetric_root
from bayesjx.gp._inputs import cross_covariance

RNG = np.random.default_rng(0)
AXES = (np.linspace(0, 1, 4), RNG.normal(size=(3, 2)), np.linspace(-1, 1, 5))
N = 60
Y = RNG.normal(size=N)
FEW = np.ones(N, bool)
FEW[[3, 17, 18, 40, 59]] = False
HALF = RNG.random(N) < 0.5
# Mask and options of the solver.
CASES = {
    "full": (None, {}),
    "few missing": (FEW, {}),
    "half missing": (HALF, {}),
    "iterations": (HALF, {"solver": "cg", "rtol": 1e-13}),
}
TEST_POINTS = RNG.normal(size=(7, 4))
TEST_AXES = (np.array([0.1, 2.0]), RNG.normal(size=(5, 2)), np.linspace(-2, 0.5, 3))
DRAW_AXES = {
    "cells": AXES,
    "other axes": TEST_AXES,
    "one axis of two": (*AXES[:2], TEST_AXES[2]),
}


def grid(dtype=jnp.float64, axes=AXES):
    return gp.Grid(*(jnp.asarray(axis, dtype) for axis in axes))


def make(p):
    """A product over the axes; `p` holds lengthscales, a variance and the noise."""
    kernel = kernels.RBF(p[0], p[3]).on(0) * kernels.Matern32(p[1]).on([1, 2])
    kernel = kernel * kernels.Periodic(p[2], 1.7).on(3)
    return gp.GP(kernel, mean=lambda x: jnp.sin(x[0]) + x[3], noise_var=p[4])


P = np.array([0.5, 1.3, 0.9, 1.7, 0.2])


def cells_of(case):
    return np.arange(N) if CASES[case][0] is None else np.flatnonzero(CASES[case][0])


def by_structure(p, y, case):
    mask, solver = CASES[case]
    if "rtol" in solver and p.dtype == jnp.float32:
        solver = solver | {"rtol": 1e-6}
    return gp.grid_posterior(make(p), grid(p.dtype), y, mask, **solver)


def by_dense(p, y, case):
    cells = cells_of(case)
    return exact_posterior(make(p), grid(p.dtype).points()[cells], y[cells])


@functools.cache
def everywhere():
    """Where the tests ask, by name, as slices of one Gram matrix; that matrix; and the means."""
    places = {"points": TEST_POINTS}
    places |= {name: np.asarray(grid(axes=axes).points()) for name, axes in DRAW_AXES.items()}
    ends = np.cumsum([len(x) for x in places.values()])
    slices = {n: slice(end - len(x), end) for (n, x), end in zip(places.items(), ends, strict=True)}
    points = np.concatenate(list(places.values()))
    gram = np.asarray(jax.jit(lambda x: make(P).kernel.gram(x))(points))
    return slices, gram, np.sin(points[:, 0]) + points[:, 3]


class Dense:
    """The posterior given some of the cells, by NumPy; `noise` for each of these."""

    def __init__(self, y, cells, noise=P[4], has_mean=True):
        self.slices, self.gram, mean = everywhere()
        self.mean_everywhere = has_mean * mean
        self.cells, self.noise = np.arange(len(self.gram))[self.slices["cells"]][cells], noise
        self.total = self.gram[np.ix_(self.cells, self.cells)] + noise * np.eye(len(cells))
        self.inverse = np.linalg.inv(self.total)
        self.y = y[cells]
        self.residual = self.y - self.mean_everywhere[self.cells]

    def mean(self, name):
        at = self.slices[name]
        cross = self.gram[at][:, self.cells]
        return self.mean_everywhere[at] + cross @ np.linalg.solve(self.total, self.residual)

    def covariance(self, name):
        at = self.slices[name]
        cross = self.gram[at][:, self.cells]
        return self.gram[at, at] - cross @ np.linalg.solve(self.total, cross.T)

    def moments(self, name):
        return self.mean(name), np.diag(self.covariance(name))

    def leave_one_out(self):
        variance = 1 / np.diag(self.inverse)
        return self.y - variance * (self.inverse @ self.residual), variance

    def log_evidence(self):
        return multivariate_normal(cov=self.total).logpdf(self.residual)


def answers(posterior, dtype, evidence):
    """All that a posterior says."""
    points, loo = jnp.asarray(TEST_POINTS, dtype), posterior.leave_one_out()
    found = {
        "points": posterior.moments(points),
        "grid": posterior.moments(grid(dtype, TEST_AXES)),
        "cells": posterior.moments(grid(dtype)),
        "mean": posterior.mean(points),
        "predict": posterior.predict(points).variance,
        "covariance": posterior.covariance(points),
        "leave one out": (loo.mean, loo.variance),
    }
    return found | ({"evidence": posterior.log_evidence()} if evidence else {})


def dense_answers(case):
    distribution = Dense(Y, cells_of(case))
    return {
        "points": distribution.moments("points"),
        "grid": distribution.moments("other axes"),
        "cells": distribution.moments("cells"),
        "mean": distribution.mean("points"),
        "predict": distribution.moments("points")[1] + P[4],
        "covariance": distribution.covariance("points"),
        "leave one out": distribution.leave_one_out(),
        "evidence": distribution.log_evidence(),
    }


def assert_answers_close(found, wanted, dtype, **tol):
    for name in found:
        for f, w in zip(jax.tree.leaves(found[name]), jax.tree.leaves(wanted[name]), strict=True):
            assert f.dtype == dtype
            np.testing.assert_allclose(f, w, **tol, err_msg=name)


SINGLE = "few missing", "iterations"
POSTERIORS = [(case, jnp.float64) for case in CASES] + [(case, jnp.float32) for case in SINGLE]


@pytest.mark.parametrize("case, dtype", POSTERIORS)
def test_posterior_is_the_dense_one(case, dtype):
    evidence = case != "iterations"

    @jax.jit
    def run(p, y):
        return answers(by_structure(p, y, case), dtype, evidence)

    found, wanted = run(jnp.asarray(P, dtype), jnp.asarray(Y, dtype)), dense_answers(case)
    assert set(wanted) - set(found) == (set() if evidence else {"evidence"})
    tol = dict(rtol=2e-3, atol=2e-4) if dtype == jnp.float32 else dict(rtol=1e-9, atol=1e-10)
    assert_answers_close(found, wanted, dtype, **tol)


@pytest.mark.parametrize("case", ["few missing", "iterations"])
def test_predictive_density_has_the_dense_gradient(case):
    """With respect to hyper-parameters, data and test points; variances included."""

    def density(build):
        def run(p, y, x):
            posterior = build(p, y, case)
            return posterior.predict(x).log_prob(0.3).sum() + posterior.variance(grid()).sum()

        return jax.jit(jax.grad(run, (0, 1, 2)))

    args = jnp.asarray(P), jnp.asarray(Y), jnp.asarray(TEST_POINTS)
    for found, wanted in zip(density(by_structure)(*args), density(by_dense)(*args), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-8)


def test_vmap_over_data():
    y = jnp.asarray(RNG.normal(size=(3, N)))
    points = jnp.asarray(TEST_POINTS)
    mean = jax.jit(lambda y: by_structure(jnp.asarray(P), y, "few missing").mean(points))
    found = jax.jit(jax.vmap(mean))(y)
    np.testing.assert_allclose(found, [mean(row) for row in y], rtol=1e-10)


def test_observations_may_come_in_any_shape():
    with_nan = np.where(HALF, Y, np.nan)
    g = grid()
    prior = make(P)
    shapes = (
        (with_nan, HALF),
        (with_nan.reshape(g.shape), HALF),
        (with_nan, HALF.reshape(g.shape)),
        (Y[HALF], HALF),
    )
    run = jax.jit(lambda: [gp.grid_posterior(prior, g, y, mask).weights for y, mask in shapes])
    wanted, *others = run()
    for found in others:
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(np.flatnonzero(wanted), np.flatnonzero(HALF))


@pytest.mark.parametrize("mask", [None, FEW], ids=["full", "missing"])
def test_kronecker_noise_is_the_dense_one(mask):
    g, cells = grid(), slice(None) if mask is None else np.flatnonzero(mask)
    parts = [a @ a.T / n + 0.4 * np.eye(n) for n in g.shape for a in [RNG.normal(size=(n, n))]]
    noise = ops.Kron(*map(jnp.asarray, parts), tags=ops.psd)

    @jax.jit
    def run(noise, y):
        posterior = gp.grid_posterior(gp.GP(make(P).kernel, noise_var=noise), g, y, mask)
        distribution = posterior.mean(TEST_POINTS), posterior.variance(TEST_POINTS)
        if mask is not None:
            return *distribution, None
        return *distribution, (posterior.sample(jax.random.key(1), g, (3000,)), posterior.mean(g))

    mean, variance, draws = run(noise, jnp.asarray(Y))
    slices, everything, _ = everywhere()
    points, at_cells = slices["points"], slices["cells"]
    gram = everything[at_cells, at_cells]
    total = (gram + functools.reduce(np.kron, parts))[cells][:, cells]
    cross = everything[points, at_cells][:, cells]
    np.testing.assert_allclose(mean, cross @ np.linalg.solve(total, Y[cells]), rtol=1e-8)
    wanted = np.diag(everything[points, points])
    wanted = wanted - np.sum(cross.T * np.linalg.solve(total, cross.T), 0)
    np.testing.assert_allclose(variance, wanted, rtol=1e-8)
    if mask is None:
        explained = gram[cells] @ np.linalg.solve(total, gram[cells])
        assert_moments(*draws, gram - explained)


def test_a_noise_for_every_cell_is_the_dense_one():
    noise = RNG.uniform(0.1, 2.0, N)
    prior = gp.GP(make(P).kernel, noise_var=noise)
    test = grid(axes=TEST_AXES)

    @jax.jit
    def run(y):
        found = gp.grid_posterior(prior, grid(), y)
        return found.moments(TEST_POINTS), found.moments(test)

    found, distribution = run(jnp.asarray(Y)), Dense(Y, np.arange(N), noise, has_mean=False)
    wanted = distribution.moments("points"), distribution.moments("other axes")
    for f, w in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-6, atol=1e-8)


def assert_moments(draws, mean, covariance):
    """Mean and covariance of normal draws `(s, n)` within 5 standard errors."""
    s, var = len(draws), np.diag(covariance)
    off = np.asarray(draws - mean)
    assert np.max(np.abs(off.mean(axis=0)) / np.sqrt(var / s)) < 5
    error = np.sqrt((np.outer(var, var) + covariance**2) / s)
    assert np.max(np.abs(off.T @ off / s - covariance) / error) < 5.5  # of 1830 elements


@functools.cache
def draws_of(case):
    """At all the test grids by one program, as they share what conditions on the data."""

    @jax.jit
    def sample(y):
        posterior = by_structure(jnp.asarray(P), y, case)
        return {
            where: posterior.sample(jax.random.key(3), grid(axes=axes), (40, 100))
            for where, axes in DRAW_AXES.items()
        }

    return sample(jnp.asarray(Y))


@pytest.mark.parametrize("where", DRAW_AXES)
@pytest.mark.parametrize("case", ["full", "half missing", "iterations"])
def test_draws_have_the_exact_distribution(case, where):
    draws, test, dense = (
        draws_of(case)[where],
        grid(axes=DRAW_AXES[where]),
        Dense(Y, cells_of(case)),
    )
    assert draws.shape == (40, 100, test.size)
    assert_moments(draws.reshape(-1, test.size), dense.mean(where), dense.covariance(where))


def test_draws_of_a_smooth_process_need_no_jitter():
    """Its covariance is singular to rounding; draws stay within its range."""
    g = gp.Grid(np.linspace(0, 1, 40), np.linspace(0, 1, 30))
    prior = gp.GP(kernels.RBF(0.5), noise_var=1e-4)
    posterior = gp.grid_posterior(prior, g, np.zeros(g.size))
    draw = posterior.sample(jax.random.key(0), g)
    assert posterior.jitter == 0
    # Jitter of 1e-6 would be noise of 1e-3, and three times more in third differences.
    assert np.abs(np.diff(draw.reshape(g.shape), 3, axis=0)).max() < 2e-4 < np.abs(draw).max()


def test_symmetric_root_and_its_derivatives():
    a = RNG.normal(size=(5, 5))
    matrix = jnp.asarray(a @ a.T + np.eye(5))
    root = symmetric_root(matrix)
    np.testing.assert_allclose(root @ root, matrix, rtol=1e-12)
    symmetric = lambda m: symmetric_root(jnp.asarray(m + m.T))  # noqa: E731
    check_grads(symmetric, (0.5 * matrix,), 1, ["fwd", "rev"], rtol=1e-6)
    # Of second order too, and where eigenvalues are equal: roots of I + t d + t² e.
    d, e = np.eye(5)[::-1], np.diag(np.arange(5.0))
    second = jax.hessian(lambda t: symmetric_root(jnp.eye(5) + t * d + t**2 * e)[1, 3])(0.0)
    np.testing.assert_allclose(second, (e - 0.25 * d @ d)[1, 3], atol=1e-12)
    second = jax.hessian(lambda t: symmetric_root(jnp.eye(5) + t * d + t**2 * e)[3, 3])(0.0)
    np.testing.assert_allclose(second, (e - 0.25 * d @ d)[3, 3], rtol=1e-12)
    twice = jnp.eye(4).at[3, 3].set(0.0)  # equal eigenvalues, and one that is 0
    assert np.all(np.isfinite(jax.grad(lambda m: symmetric_root(m)[0, 1])(twice)))


# A kernel, the coordinates of each axis, and whether it is a product over the axes.
STRUCTURES = {
    "product": (kernels.RBF(0.5).on(0) * kernels.Matern12(0.7).on(1), (1, 1), True),
    "ard": (kernels.RBF(jnp.array([0.5, 0.9, 1.3]), 1.7), (1, 2), True),
    "isotropic": (kernels.RBF(0.6, 1.7), (1, 1, 1), True),
    "periodic": (kernels.Periodic(jnp.array([0.5, 0.9]), jnp.array([1.0, 2.0]), 1.7), (1, 1), True),
    "scaled": (0.3 * (kernels.RBF(0.5).on(0) * 2.0 * kernels.Linear(0.7).on(1)), (1, 1), True),
    "two of one axis": (kernels.RBF(0.5).on(0) * kernels.Cosine(0.9).on(0), (1, 1), True),
    "across axes": (kernels.RBF(0.6).on([0, 2]) * kernels.Matern52(1.1).on(1), (1, 1, 1), True),
    "inside an axis": (kernels.Matern32(0.6).on([1, 2]) * kernels.RBF(1.0), (1, 2), True),
    "one axis": (kernels.Matern32(0.5) + kernels.Linear(1.0), (2,), True),
    "constant": (kernels.Constant(1.7) * kernels.RBF(0.5).on(1), (1, 1), True),
    "sum": (kernels.RBF(0.5).on(0) + kernels.RBF(0.7).on(1), (1, 1), False),
    "radial": (kernels.Matern32(0.5), (1, 1), False),
    "parts of an axis": (kernels.Matern32(0.5).on([0, 1]), (1, 2), False),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_is_found_where_it_is(name):
    kernel, widths, exists = STRUCTURES[name]
    axes = [RNG.normal(size=(n, d)) for n, d in zip((4, 3, 5)[: len(widths)], widths, strict=True)]
    g = gp.Grid(*axes)
    if not exists:
        with pytest.raises(ValueError, match="is no product of kernels of the axes"):
            gp.covariance(kernel, g)
        return
    other = gp.Grid(*(RNG.normal(size=(2, d)) for d in widths))

    @jax.jit
    def run(kernel):
        operator, points = gp.covariance(kernel, g), g.points()
        cross = cross_covariance(kernel, other, g).as_matrix()
        wanted = kernel.gram(points), kernel.gram(other.points(), points)
        return operator, (operator.as_matrix(), cross), wanted

    operator, found, wanted = run(kernel)
    assert isinstance(operator, ops.Kron) and operator.grid == g.shape
    for f, w in zip(found, wanted, strict=True):
        np.testing.assert_allclose(f, w, rtol=1e-10)


def test_memory_stays_far_below_the_dense_matrix():
    side = 60
    axis = np.linspace(0, 1, side)
    g = gp.Grid(axis, axis, axis)
    mask = np.ones(g.size, bool)
    mask[::2000] = False

    def run(length, y, key):
        prior = gp.GP(kernels.RBF(length), noise_var=0.1)
        posterior = gp.grid_posterior(prior, g, y, mask)
        draws = posterior.sample(key, g, (2,))
        return posterior.moments(g), draws, posterior.moments(axis.reshape(20, 3))

    args = jnp.ones(3), jnp.zeros(g.size), jax.random.key(0)
    plan = jax.jit(run).lower(*args).compile().memory_analysis()
    used = plan.temp_size_in_bytes + plan.output_size_in_bytes
    assert used < 1000 * 8 * g.size < 8 * g.size**2 / 200  # chunks of 64 columns


# Three hyper-parameters: lengthscales of the axes and the noise, logarithms standard normal about
# these.
CENTRE = np.log([0.4, 0.5, 0.15])
SMALL = (np.linspace(0, 1, 6), np.linspace(0, 1, 5))


def small_data():
    first, second = np.meshgrid(*SMALL, indexing="ij")
    noise = np.random.default_rng(5).normal(size=first.shape)
    y = np.sin(5 * first) * np.cos(3 * second) + 0.4 * noise
    mask = np.random.default_rng(6).random(y.shape) < 0.7
    return y, mask


def quadrature(y, mask):
    """Posterior means and standard deviations of the logarithms, by NumPy alone."""
    nodes = np.linspace(-4, 4, 21)
    z = np.stack(np.meshgrid(nodes, nodes, nodes, indexing="ij"), -1).reshape(-1, 3)
    theta = np.exp(CENTRE + z)

    def squared(axis, ell):
        return np.exp(-0.5 * ((axis[:, None] - axis) / ell[:, None, None]) ** 2)

    first, second = squared(SMALL[0], theta[:, 0]), squared(SMALL[1], theta[:, 1])
    seen = np.flatnonzero(mask)
    log_density = np.empty(len(z))
    for i in range(len(z)):
        gram = np.kron(first[i], second[i]) + theta[i, 2] * np.eye(mask.size)
        tril = np.linalg.cholesky(gram[np.ix_(seen, seen)])
        half = np.linalg.solve(tril, y.reshape(-1)[seen])
        log_density[i] = -0.5 * half @ half - np.log(np.diag(tril)).sum() - 0.5 * z[i] @ z[i]
    weights = np.exp(log_density - log_density.max())
    weights /= weights.sum()
    mean = weights @ z
    return mean, np.sqrt(weights @ (z - mean) ** 2)


@pytest.mark.slow
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
def test_nuts_over_hyper_parameters_is_quadrature(masked):
    y, mask = small_data()
    mask = mask if masked else np.ones_like(mask)
    g = gp.Grid(*SMALL)
    data = jnp.asarray(y[mask])

    def model():
        z = numpyro.sample("z", dist.Normal(jnp.zeros(3), 1.0).to_event(1))
        theta = jnp.exp(CENTRE + z)
        prior = gp.GP(kernels.RBF(theta[:2]), noise_var=theta[2])
        distribution = prior(g, mask) if masked else prior(g)
        numpyro.sample("y", distribution, obs=data)

    @jax.jit  # one program, where NumPyro's setting up is many small ones
    def sample(key):
        mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=1000, progress_bar=False)
        mcmc.run(key)
        return mcmc.get_samples()["z"]

    draws = np.asarray(sample(jax.random.key(0)))
    mean, scale = quadrature(y, mask)
    size = effective_sample_size(draws[None])
    assert np.all(size > 100)
    assert np.all(np.abs(draws.mean(axis=0) - mean) < 5 * scale / np.sqrt(size))
    # Standard deviations: the standard error of a normal one, doubled as it is not quite that.
    np.testing.assert_array_less(np.abs(draws.std(axis=0) / scale - 1), 5 * 2 / np.sqrt(2 * size))


@pytest.mark.errors
def test_bad_observations_are_named():
    g, prior = grid(), make(P)
    for y, mask, text in (
        (Y[:-1], None, "y must have the grid's shape"),
        (Y[:7], HALF, "for the observed cells; got"),
        (np.where(HALF, Y, np.nan), None, "NaN or infinite values in observed cells"),
        (np.where(FEW, Y, np.nan), HALF | ~FEW, "NaN or infinite values in observed cells"),
        (Y, HALF[:-1], "mask must have the grid's shape"),
        (Y, np.zeros(N, bool), "mask is all false"),
        (Y, np.ones(N), "mask must hold booleans"),
    ):
        with pytest.raises(ValueError, match=text):
            gp.grid_posterior(prior, g, y, mask)
    with pytest.raises(Exception, match="NaN or infinite values"):
        jax.jit(lambda y: gp.grid_posterior(prior, g, y).weights)(jnp.full(N, jnp.nan))
    with pytest.raises(ValueError, match="must hold booleans that are known"):
        jax.jit(lambda m: gp.grid_posterior(prior, g, Y, m).weights)(jnp.asarray(HALF))


@pytest.mark.errors
def test_bad_problems_are_named():
    g, prior = grid(), make(P)
    with pytest.raises(ValueError, match="must be a Grid"):
        gp.grid_posterior(prior, g.points(), Y)
    with pytest.raises(ValueError, match="no product of kernels"):
        gp.grid_posterior(gp.GP(kernels.Matern32(1.0), noise_var=0.1), g, Y)
    with pytest.raises(ValueError, match="for grids with a mask"):
        gp.grid_posterior(prior, g, Y, solver="cg")
    with pytest.raises(Exception, match="singular or holds NaN"):
        gp.grid_posterior(gp.GP(kernels.Constant(1.0), noise_var=0.0), g, Y)
    with pytest.raises(ValueError, match="4 coordinates"):
        gp.grid_posterior(prior, g, Y).mean(np.zeros((3, 2)))
    with pytest.raises(ValueError, match="grids of the same axes"):
        gp.grid_posterior(prior, g, Y).mean(gp.Grid(np.zeros(2)))
