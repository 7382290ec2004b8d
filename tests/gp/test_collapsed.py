"""Collapsed bounds and their optimal posteriors against dense formulas in NumPy; NUTS on them."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro.diagnostics import effective_sample_size
from numpyro.infer import MCMC, NUTS
from scipy.stats import multivariate_normal

from bayesjx import gp, kernels, ops
from bayesjx.gp._exact import exact_posterior

N, M, D, BLOCKS = 17, 5, 2, 3  # blocks of 6, 6 and 5
RNG = np.random.default_rng(0)
X, Z = RNG.standard_normal((N, D)), RNG.standard_normal((M, D))
Y, NEW = np.sin(2 * X[:, 0]) + 0.3 * RNG.standard_normal(N), RNG.standard_normal((3, D))
ELL, VARIANCE, MEAN = np.array([0.7, 1.3]), 1.4, 0.2
NOISES = {"one": 0.15, "each": 0.05 + 0.3 * RNG.random(N)}
EACH_NOISE = pytest.mark.parametrize("noise", tuple(NOISES))
jit = eqx.filter_jit


def make(noise="one", dtype=jnp.float64):
    prior = gp.GP(
        kernels.RBF(jnp.asarray(ELL), VARIANCE), MEAN, noise_var=jnp.asarray(NOISES[noise])
    )
    prior = jax.tree.map(lambda a: a.astype(dtype), prior)
    return prior, *(jnp.asarray(a, dtype) for a in (Z, X, Y, NEW))


def distributions(prior, points, x):
    return {
        "exact": prior(x),
        "blocks": gp.sgpr(prior, x, inducing_points=points, blocks=BLOCKS),
        "tight": gp.sgpr(prior, x, inducing_points=points),
        "titsias": gp.sgpr(prior, x, inducing_points=points, tight=False),
        "half": gp.power_ep(prior, x, inducing_points=points, alpha=0.5),
        "fitc": gp.fitc(prior, x, inducing_points=points),
    }


def rbf(a, b):
    return VARIANCE * np.exp(-0.5 * np.sum(((a[:, None] - b) / ELL) ** 2, axis=-1))


def dense(noise, jitter):
    """Covariances of the approximation, what it leaves, and the noise."""
    cross = rbf(Z, X)
    low = cross.T @ np.linalg.solve(rbf(Z, Z) + jitter * VARIANCE * np.eye(M), cross)
    return low, rbf(X, X) - low, np.broadcast_to(NOISES[noise], N)


def dense_objectives(noise, jitter):
    low, left, noise = dense(noise, jitter)
    d = np.diag(left)
    groups = np.split(np.arange(N), [6, 12])

    def density(diagonal):
        return multivariate_normal(np.full(N, MEAN), low + np.diag(diagonal)).logpdf(Y)

    def logdet(group):
        scaled = left[np.ix_(group, group)] / noise[group]
        return np.linalg.slogdet(np.eye(len(group)) + scaled)[1]

    exact = multivariate_normal(np.full(N, MEAN), rbf(X, X) + np.diag(noise)).logpdf(Y)
    return {
        "exact": exact,
        "blocks": density(noise) - 0.5 * sum(map(logdet, groups)),
        "tight": density(noise) - 0.5 * np.sum(np.log(1 + d / noise)),
        "titsias": density(noise) - 0.5 * np.sum(d / noise),
        "half": density(noise + d / 2) - 0.5 * np.sum(np.log(1 + d / (2 * noise))),
        "fitc": density(noise + d),
    }


@EACH_NOISE
def test_objectives_are_their_dense_formulas(noise, dtype, tol):
    prior, points, x, y, _ = make(noise, dtype)
    got = jit(lambda *args: {k: v.log_prob(y) for k, v in distributions(*args).items()})(
        prior, points, x
    )
    want = dense_objectives(noise, 1e-4 if dtype == jnp.float32 else 1e-6)
    for name, value in got.items():
        assert value.dtype == dtype
        np.testing.assert_allclose(value, want[name], **tol, err_msg=name)


def test_bounds_are_in_their_order_for_any_parameters():
    prior, points, x, y, _ = make()
    keys = jax.random.split(jax.random.key(3), 40)

    def values(key):
        flat, back = jax.flatten_util.ravel_pytree(prior)
        moved = back(flat * jnp.exp(jax.random.normal(key, flat.shape)))
        return {
            name: distribution.log_prob(y)
            for name, distribution in distributions(moved, points, x).items()
        }

    found = jit(jax.vmap(values))(keys)
    for above, below in (("exact", "blocks"), ("blocks", "tight"), ("tight", "titsias")):
        gap = found[above] - found[below]
        assert np.all(gap >= 0) and gap.max() > 0.1, (above, below)
    one = jit(values)(keys[7])
    for name, value in found.items():  # vmap agrees with one at a time
        np.testing.assert_allclose(value[7], one[name], rtol=1e-9)


def test_inputs_as_points_give_the_exact_evidence():
    """Any bound is then exact, and what jitter it needs lowers it, by at most its own trace."""
    prior, _, x, y, new = make()
    prior = eqx.tree_at(lambda p: p.kernel, prior, kernels.Matern32(jnp.asarray(ELL), VARIANCE))

    @jit
    def both(prior, x):
        names = ({}, {"tight": False}, {"blocks": 4})
        bounds = [gp.sgpr(prior, x, inducing_points=x, jitter=0.0, **o).log_prob(y) for o in names]
        bounds += [gp.fitc(prior, x, inducing_points=x, jitter=0.0).log_prob(y)]
        exact = exact_posterior(prior, x, y)
        sparse = gp.sparse_posterior(prior, x, y, inducing_points=x, jitter=0.0)
        loose = gp.sgpr(prior, x, inducing_points=x, tight=False).log_prob(y)
        moments = [(*post.moments(new), post.covariance(new)) for post in (exact, sparse)]
        return jnp.stack(bounds), loose, exact.log_evidence(), moments

    bounds, loose, exact, moments = both(prior, x)
    np.testing.assert_allclose(bounds, exact, rtol=1e-9)
    assert 0 < exact - loose < N * 1e-6 * VARIANCE / NOISES["one"]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-9), *moments)


def test_blocks_of_one_row_are_the_tightened_bound():
    prior, points, x, y, _ = make("each")
    got = jit(lambda p: gp.sgpr(p, x, inducing_points=points, blocks=N).log_prob(y))(prior)
    np.testing.assert_allclose(
        got, gp.sgpr(prior, x, inducing_points=points).log_prob(y), rtol=1e-10
    )
    one = jit(lambda p: gp.sgpr(p, x, inducing_points=points, blocks=1).log_prob(y))(prior)
    low, left, noise = dense("each", 1e-6)
    want = multivariate_normal(np.full(N, MEAN), low + np.diag(noise)).logpdf(Y)
    want -= 0.5 * np.linalg.slogdet(np.eye(N) + left / noise)[1]
    np.testing.assert_allclose(one, want, rtol=1e-9)


@EACH_NOISE
def test_fitc_keeps_the_variances_and_power_ep_has_its_limits(noise):
    prior, points, x, y, _ = make(noise)

    @jit
    def power(alpha):
        return gp.power_ep(prior, x, inducing_points=points, alpha=alpha).log_prob(y)

    want = dense_objectives(noise, 1e-6)
    np.testing.assert_allclose(
        gp.fitc(prior, x, inducing_points=points).variance, VARIANCE + prior.noise_var
    )
    np.testing.assert_allclose(power(jnp.asarray(0.0)), want["titsias"], rtol=1e-9)
    np.testing.assert_allclose(power(jnp.asarray(1e-7)), want["titsias"], rtol=1e-4)
    np.testing.assert_allclose(power(jnp.asarray(1.0)), want["fitc"], rtol=1e-9)
    slope = jit(
        jax.grad(lambda a: gp.power_ep(prior, x, inducing_points=points, alpha=a).log_prob(y))
    )(jnp.asarray(0.3))
    ends = power(jnp.asarray(0.3 + 1e-5)) - power(jnp.asarray(0.3 - 1e-5))
    np.testing.assert_allclose(slope, ends / 2e-5, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.4])
def test_posterior_with_noise_of_each_is_the_dense_formula(alpha, dtype, tol):
    prior, points, x, y, new = make("each", dtype)
    post = jit(gp.sparse_posterior)(prior, x, y, inducing_points=points, alpha=alpha)
    jitter = 1e-4 if dtype == jnp.float32 else 1e-6
    low, left, diagonal = dense("each", jitter)
    gain = np.linalg.inv(low + np.diag(diagonal + alpha * np.diag(left)))
    inner = np.linalg.inv(rbf(Z, Z) + jitter * VARIANCE * np.eye(M))
    cross = rbf(NEW, Z) @ inner @ rbf(Z, X)
    mean, cov = MEAN + cross @ gain @ (Y - MEAN), rbf(NEW, NEW) - cross @ gain @ cross.T
    got = jit(lambda post: (*post.moments(new), post.covariance(new), post.mean(new)))(post)
    for value, want in zip(got, (mean, np.diag(cov), cov, mean), strict=True):
        assert value.dtype == dtype
        np.testing.assert_allclose(value, want, **tol)
    np.testing.assert_allclose(post.jitter, jitter * VARIANCE, rtol=1e-6)
    assert np.all(np.triu(post.scale_tril, 1) == 0)
    assert np.all(np.diag(post.scale_tril) > 0)


@EACH_NOISE
def test_bound_is_that_of_the_optimal_distribution_of_the_inducing_variables(noise):
    """The evidence bound of Titsias, with its expectation and divergence written out."""
    prior, points, x, y, _ = make(noise)

    @jit
    def evidence_bound(post):
        mean, variance = post.moments(x)
        scale = jnp.sqrt(jnp.broadcast_to(prior.noise_var, N))
        fit = jnp.sum(dist.Normal(mean, scale).log_prob(y)) - 0.5 * jnp.sum(variance / scale**2)
        distribution = dist.MultivariateNormal(post.whitened_mean, scale_tril=post.scale_tril)
        standard = dist.MultivariateNormal(jnp.zeros(M), jnp.eye(M))
        return fit - dist.kl_divergence(distribution, standard)

    best = jit(gp.sparse_posterior)(prior, x, y, inducing_points=points)
    want = jit(lambda p: gp.sgpr(p, x, inducing_points=points, tight=False).log_prob(y))(prior)
    np.testing.assert_allclose(evidence_bound(best), want, rtol=1e-9)
    moved = eqx.tree_at(lambda p: p.whitened_mean, best, best.whitened_mean + 0.01)
    assert evidence_bound(moved) < want


def test_gradients_are_those_of_differences():
    prior, points, x, y, _ = make("each")
    flat, back = jax.flatten_util.ravel_pytree((prior, points, y))
    moves = 1e-5 * jnp.asarray(RNG.standard_normal((3, flat.size)))

    def values(flat):
        prior, points, y = back(flat)
        return jnp.stack(
            [distribution.log_prob(y) for distribution in distributions(prior, points, x).values()]
        )

    @jit
    def both(flat):
        ends = jax.lax.map(values, jnp.concatenate([flat + moves, flat - moves]))
        return moves @ jax.jacrev(values)(flat).T, (ends[:3] - ends[3:]) / 2

    slopes, want = both(flat)
    np.testing.assert_allclose(1e5 * slopes, 1e5 * want, rtol=1e-5, atol=1e-5)


def test_gradient_makes_no_array_of_all_pairs():
    n, m = 4000, 20
    x, points = jax.ShapeDtypeStruct((n, D), float), jax.ShapeDtypeStruct((m, D), float)
    y = jax.ShapeDtypeStruct((n,), float)

    def bound(prior, points, x, y):
        return gp.sgpr(prior, x, inducing_points=points).log_prob(y)

    prior = make()[0]
    compiled = jax.jit(jax.grad(bound, (0, 1))).lower(prior, points, x, y).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.2 * 8 * n**2


def test_density_is_nan_where_parameters_have_none():
    _, points, x, y, _ = make()

    @jit
    def density(ell, noise):
        prior = gp.GP(kernels.RBF(ell), noise_var=noise)
        found = distributions(prior, points, x)
        return jnp.stack(
            [distribution.log_prob(y) for name, distribution in found.items() if name != "exact"]
        )

    assert np.all(np.isfinite(density(1.0, 0.1)))
    for ell, noise in ((-1.0, 0.1), (1.0, 0.0), (1.0, -0.1), (1.0, -10.0), (jnp.nan, 0.1)):
        assert np.all(np.isnan(density(jnp.asarray(ell), jnp.asarray(noise))))


def test_optimiser_moves_parameters_and_points():
    prior, points, x, y, new = make()

    def objective(params):
        return -gp.sgpr(params[0], x, inducing_points=params[1]).log_prob(y)

    @jit
    def about(fitted, moved):
        distribution = gp.sparse_posterior(fitted, x, y, inducing_points=moved).predict(new)
        return fitted(x).log_prob(y), distribution.variance, objective((fitted, moved))

    *_, start = about(prior, points)
    found = gp.minimise(objective, (prior, points), max_steps=15)
    fitted, moved = found.params
    assert found.objective < start - 1
    evidence, variance, end = about(fitted, moved)
    np.testing.assert_allclose(found.objective, end, rtol=1e-9)
    assert -found.objective <= evidence
    assert np.abs(moved - points).max() > 0.01
    assert np.all(variance > fitted.noise_var)


LOGS = ("ell", "variance", "noise")
PRIOR = dist.Normal(jnp.array([-0.5, 0.0, -2.5]), jnp.array([0.4, 0.6, 0.6]))


def line():
    rng = np.random.default_rng(4)
    x = np.sort(rng.uniform(-3, 3, 60))
    y = np.sin(3 * x) + 0.3 * rng.standard_normal(60)
    return jnp.asarray(x), jnp.asarray(y), jnp.linspace(-2.8, 2.8, 7)


def log_posterior(logs, x, y, points):
    """Of the logarithms of lengthscale, variance and noise: all dense, nothing of ours."""
    ell, variance, noise = jnp.exp(logs)

    def cov(a, b):
        return variance * jnp.exp(-0.5 * ((a[:, None] - b) / ell) ** 2)

    inner = cov(points, points) + 1e-6 * variance * jnp.eye(points.size)
    low = cov(x, points) @ jnp.linalg.solve(inner, cov(points, x))
    total = low + noise * jnp.eye(x.size)
    quad = y @ jnp.linalg.solve(total, y)
    logdet = jnp.linalg.slogdet(total)[1]
    penalty = jnp.sum(jnp.log(1 + (variance - jnp.diag(low)) / noise))
    return -0.5 * (quad + logdet + penalty) + jnp.sum(PRIOR.log_prob(logs))


@pytest.mark.slow
def test_nuts_finds_the_posterior_of_the_parameters():
    """Of the tightened bound, beside quadrature of an independent density on a grid."""
    x, y, points = line()

    def model():
        ell, variance, noise = jnp.exp(numpyro.sample("logs", PRIOR.to_event(1)))
        prior = gp.GP(kernels.RBF(ell, variance), noise_var=noise)
        numpyro.sample("y", gp.sgpr(prior, x, inducing_points=points), obs=y)

    @jit  # one program, where NumPyro's setting up is many small ones
    def sample(key):
        mcmc = MCMC(NUTS(model), num_warmup=300, num_samples=1200, progress_bar=False)
        mcmc.run(key)
        return mcmc.get_samples()["logs"]

    draws = np.asarray(sample(jax.random.key(0)))

    axes = [np.linspace(-1.6, 0.6, 23), np.linspace(-2.2, 2.2, 23), np.linspace(-4.2, 0.2, 23)]
    grid = jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3))
    density = jit(lambda g: jax.lax.map(lambda p: log_posterior(p, x, y, points), g))(grid)
    weights = np.exp(np.asarray(density) - density.max())
    weights /= weights.sum()
    cube = weights.reshape(23, 23, 23)
    for axis in range(3):  # the grid holds all of the mass
        ends = np.moveaxis(cube, axis, 0)[[0, -1]]
        assert ends.sum() < 1e-3, (axis, ends.sum((1, 2)))
    mean = weights @ grid
    sd = np.sqrt(weights @ (grid - mean) ** 2)

    for power, want in ((1, 0.0), (2, 1.0)):  # mean and variance, in units of the quadrature's
        scores = ((draws - mean) / sd) ** power
        error = scores.std(0) / np.sqrt(effective_sample_size(scores[None]))
        assert np.all(error < 0.25)
        assert np.all(np.abs(scores.mean(0) - want) < 5 * error), (power, scores.mean(0), error)


@pytest.mark.errors
def test_bad_input_is_named():
    prior, points, x, y, _ = make()
    with pytest.raises(ValueError, match="inducing_points: 18 are more than 17 data"):
        gp.sgpr(prior, x, inducing_points=jnp.ones((N + 1, D)))
    with pytest.raises(ValueError, match="inducing_points holds NaN"):
        gp.fitc(prior, x, inducing_points=points.at[1, 1].set(jnp.nan))
    with pytest.raises(ValueError, match="x holds NaN"):
        gp.sgpr(prior, x.at[1, 1].set(jnp.nan), inducing_points=points)
    with pytest.raises(ValueError, match="y holds NaN"):
        gp.sparse_posterior(prior, x, y.at[1].set(jnp.nan), inducing_points=points)
    with pytest.raises(
        ValueError, match=r"inducing_points must have shape \(n, d\) or \(n,\), got \(1, 5"
    ):
        gp.sgpr(prior, x, inducing_points=points[None])
    with pytest.raises(ValueError, match=r"x must have shape \(n, d\) or \(n,\), got \(1, 17"):
        gp.sgpr(prior, x[None], inducing_points=points)
    with pytest.raises(
        ValueError, match="inducing_points and x must have the same dimension, got 1 and 2"
    ):
        gp.sgpr(prior, x, inducing_points=points[:, 0])
    with pytest.raises(ValueError, match=r"y must have shape \(17,\), as x has 17 points; got \(5"):
        gp.sparse_posterior(prior, x, y[:5], inducing_points=points)
    for bad in (0, N + 1):
        with pytest.raises(ValueError, match=f"blocks must be in 1, ..., 17, got {bad}"):
            gp.sgpr(prior, x, inducing_points=points, blocks=bad)
    with pytest.raises(ValueError, match="blocks are for the tightened bound"):
        gp.sgpr(prior, x, inducing_points=points, blocks=2, tight=False)
    for alpha in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match="power_ep: alpha must lie in 0 to 1"):
            gp.power_ep(prior, x, inducing_points=points, alpha=alpha)
        with pytest.raises(ValueError, match="alpha must lie in 0 to 1 for sparse_posterior"):
            gp.sparse_posterior(prior, x, y, inducing_points=points, alpha=alpha)
    with pytest.raises(ValueError, match="alpha must be a scalar"):
        gp.power_ep(prior, x, inducing_points=points, alpha=jnp.ones(2))


@pytest.mark.errors
def test_bad_noise_is_named():
    _, points, x, y, _ = make()
    kernel = kernels.RBF(1.0)
    for distribution in (gp.sgpr, gp.fitc):
        with pytest.raises(ValueError, match="noise_var must be positive, got 0.0"):
            distribution(gp.GP(kernel), x, inducing_points=points)
        with pytest.raises(ValueError, match=r"noise_var must be a scalar or have shape \(17,\)"):
            distribution(gp.GP(kernel, noise_var=jnp.ones(5)), x, inducing_points=points)
        with pytest.raises(ValueError, match="for a sparse approximation, got Dense"):
            distribution(
                gp.GP(kernel, noise_var=ops.Dense(jnp.eye(N), ops.psd)), x, inducing_points=points
            )
    with pytest.raises(ValueError, match="noise_var must be positive, got 0.0"):
        gp.sparse_posterior(gp.GP(kernel), x, y, inducing_points=points)

    @jax.jit
    def traced(noise, x):
        return gp.sparse_posterior(
            gp.GP(kernel, noise_var=noise), x, y, inducing_points=points
        ).whitened_mean

    with pytest.raises(RuntimeError, match="noise_var must be positive for sparse_posterior"):
        traced(0.0, x).block_until_ready()
    with pytest.raises(RuntimeError, match="x holds NaN"):
        traced(0.1, x.at[0].set(jnp.nan)).block_until_ready()
