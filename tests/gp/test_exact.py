"""Exact regression against formulas in NumPy and scikit-learn; its draws under NUTS; bad input."""

import re

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.test_util import check_grads
from numpyro.infer import MCMC, NUTS
from scipy.stats import multivariate_normal

from bayesjx import gp, kernels, ops
from bayesjx._core import from_real, to_real

N, M, D = 11, 5, 2
X = np.random.default_rng(0).normal(size=(N, D))
Y = np.sin(2 * X[:, 0]) - X[:, 1] + 0.1 * np.random.default_rng(1).normal(size=N)
NEW = np.random.default_rng(2).normal(size=(M, D))
NOISES = {
    "scalar": 0.1,
    "each": np.linspace(0.05, 0.4, N),
    "correlated": ops.Dense(0.1 * np.eye(N) + 0.05, ops.psd),
}


def prior(noise=0.1, mean=0.3):
    return gp.GP(kernels.RBF(jnp.array([0.7, 1.3]), 1.5), mean, noise_var=noise)


def dense(noise="scalar", mean=0.3):
    """Mean and covariance at the new points, and the covariance of the data, by NumPy."""

    def gram(a, b):
        r2 = np.sum(((a[:, None] - b) / np.array([0.7, 1.3])) ** 2, -1)
        return 1.5 * np.exp(-r2 / 2)

    noise = NOISES[noise]
    noise = noise.matrix if isinstance(noise, ops.Dense) else np.diag(noise * np.ones(N))
    total = gram(X, X) + noise
    solve = np.linalg.solve(total, gram(X, NEW)).T
    loc = mean + solve @ (Y - mean)
    return loc, gram(NEW, NEW) - solve @ gram(X, NEW), total


def test_correlated_noise_is_the_dense_formula():
    loc, cov, total = dense("correlated")
    process = prior(NOISES["correlated"])

    @jax.jit
    def answers(process, x, y, new):
        posterior = gp.condition(process, x, y)
        covariances = posterior.covariance(new), posterior(new).covariance_matrix
        evidences = process(x).log_prob(y), posterior.log_evidence()
        return posterior, posterior.mean(new), posterior.variance(new), covariances, evidences

    posterior, mean, variance, covariances, evidences = answers(process, X, Y, NEW)
    np.testing.assert_allclose(mean, loc, rtol=1e-9)
    np.testing.assert_allclose(variance, np.diag(cov), rtol=1e-9)
    np.testing.assert_allclose(posterior.mean(NEW), loc, rtol=1e-9)  # and outside of a program
    for covariance in covariances:
        np.testing.assert_allclose(covariance, cov, rtol=1e-9, atol=1e-12)
    want = multivariate_normal(np.full(N, 0.3), total).logpdf(Y)
    np.testing.assert_allclose(evidences, [want] * 2, rtol=1e-12)
    assert posterior.jitter == 0


def test_evidence_in_single_precision():
    process, x, y = jax.tree.map(lambda a: jnp.asarray(a, jnp.float32), (prior(), X, Y))
    found = jax.jit(lambda process, x, y: process(x).log_prob(y))(process, x, y)
    assert found.dtype == jnp.float32
    want = multivariate_normal(np.full(N, 0.3), dense()[2]).logpdf(Y)
    np.testing.assert_allclose(found, want, rtol=1e-3)


def test_the_gradient_of_the_evidence_is_right_to_second_order():
    @jax.jit
    def evidence(lengthscale, variance, noise, y):
        return gp.GP(kernels.RBF(lengthscale, variance), noise_var=noise)(X).log_prob(y)

    at = (jnp.array([0.7, 1.3]), jnp.array(1.5), jnp.array(0.1), jnp.asarray(Y))
    check_grads(evidence, at, order=1, rtol=1e-6)

    def through_the_factor(lengthscale, variance, noise, y):
        cov = kernels.RBF(lengthscale, variance).gram(X) + noise * jnp.eye(N)
        return dist.MultivariateNormal(jnp.zeros(N), cov).log_prob(y)

    found, want = (jax.jit(jax.hessian(f, range(4)))(*at) for f in (evidence, through_the_factor))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(want), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-8)
    over_variances = jax.jit(jax.vmap(evidence, (None, 0, None, None)))
    value = over_variances(at[0], jnp.array([1.5, 2.0]), *at[2:])
    np.testing.assert_allclose(value[0], evidence(*at), rtol=1e-10)


def test_evidence_and_gradient_are_scikit_learns():
    sklearn = pytest.importorskip("sklearn.gaussian_process")
    rbf, white = sklearn.kernels.RBF, sklearn.kernels.WhiteKernel
    scale = sklearn.kernels.ConstantKernel
    model = sklearn.GaussianProcessRegressor(
        scale(1.5) * rbf([0.7, 1.3]) + white(0.1), alpha=0, optimizer=None
    )
    model.fit(X, Y)
    theta = np.log([1.5, 0.7, 1.3, 0.1])
    want, want_gradient = model.log_marginal_likelihood(theta, eval_gradient=True)

    def evidence(theta):
        t = jnp.exp(theta)
        return gp.GP(kernels.RBF(t[1:3], t[0]), noise_var=t[3])(X).log_prob(Y)

    found, gradient = jax.jit(jax.value_and_grad(evidence))(theta)
    np.testing.assert_allclose(found, want, rtol=1e-9)
    np.testing.assert_allclose(gradient, want_gradient, rtol=1e-8)


@pytest.mark.parametrize("noise", ["scalar", "each"])
def test_leave_one_out_is_leaving_one_out(noise):
    found = jax.jit(lambda: gp.condition(prior(NOISES[noise]), X, Y).leave_one_out())()

    @jax.jit
    def predicted(each, x, y, new):
        return gp.condition(prior(each), x, y).moments(new)

    for i in (0, 4, N - 1):
        rest = np.arange(N) != i
        each = np.broadcast_to(NOISES[noise], N)
        mean, variance = predicted(each[rest], X[rest], Y[rest], X[i : i + 1])
        np.testing.assert_allclose(found.loc[i], mean[0], rtol=1e-8)
        np.testing.assert_allclose(found.scale[i] ** 2, variance[0] + each[i], rtol=1e-8)


def test_without_noise_it_interpolates():
    exact = gp.condition(prior(0.0), X, Y)
    np.testing.assert_allclose(exact.mean(X), Y, atol=1e-6)
    assert exact.variance(X).max() < 1e-6


def test_duplicates_without_noise_are_reported_as_jitter():
    twice = np.concatenate([X, X])
    posterior = gp.condition(prior(0.0), twice, np.concatenate([Y, Y]))
    assert 1e-7 < posterior.jitter < 1e-3
    np.testing.assert_allclose(posterior.mean(X), Y, atol=1e-3)


def test_a_mean_function_may_have_parameters():
    line = eqx.nn.Linear(D, "scalar", key=jax.random.key(0))
    process = gp.GP(kernels.RBF(1.0), line, noise_var=0.1)
    shift = np.asarray(jax.vmap(line)(X))
    np.testing.assert_allclose(process(X).mean, shift)
    plain = gp.GP(kernels.RBF(1.0), 0.0, noise_var=0.1)
    found = gp.condition(process, X, Y).mean(NEW) - np.asarray(jax.vmap(line)(NEW))
    np.testing.assert_allclose(found, gp.condition(plain, X, Y - shift).mean(NEW), atol=1e-10)
    fitted = gp.minimise(lambda p: -p(X).log_prob(Y), process, max_steps=30)
    assert not np.allclose(fitted.params.mean.weight, line.weight)


def test_nuts_finds_the_posterior_of_an_independent_density():
    """Against the posterior of the hyper-parameters by quadrature, on a grid of 41³ points."""
    x = np.linspace(0, 3, 20)
    y = np.sin(2 * x) + 0.2 * np.random.default_rng(3).normal(size=20)

    def model():
        lengthscale = numpyro.sample("lengthscale", dist.LogNormal(0.0, 0.5))
        scale = numpyro.sample("scale", dist.LogNormal(0.0, 0.5))
        noise = numpyro.sample("noise", dist.LogNormal(-1.5, 0.5))
        kernel = kernels.Matern32(lengthscale, scale**2)
        numpyro.sample("y", gp.GP(kernel, noise_var=noise**2)(x), obs=y)

    @jax.jit  # one program, where NumPyro's setting up is many small ones
    def sample(key):
        mcmc = MCMC(NUTS(model), num_warmup=500, num_samples=2000, progress_bar=False)
        mcmc.run(key)
        return mcmc.get_samples()

    draws = sample(jax.random.key(0))

    def log_density(logs):
        lengthscale, scale, noise = jnp.exp(logs)
        r = jnp.sqrt(3.0) * jnp.abs(x[:, None] - x) / lengthscale
        cov = scale**2 * (1 + r) * jnp.exp(-r) + noise**2 * jnp.eye(20)
        whole = dist.MultivariateNormal(jnp.zeros(20), cov).log_prob(y)
        return whole + dist.Normal(jnp.array([0, 0, -1.5]), 0.5).log_prob(logs).sum()

    axes = [m + 0.5 * np.linspace(-5, 5, 41) for m in (0, 0, -1.5)]
    points = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    densities = jax.jit(lambda at: jax.lax.map(log_density, at, batch_size=500))(points)
    weights = jax.nn.softmax(densities)
    mean = weights @ points
    spread = np.sqrt(weights @ (points - mean) ** 2)
    for i, name in enumerate(("lengthscale", "scale", "noise")):
        logs = np.log(draws[name])
        size = numpyro.diagnostics.effective_sample_size(logs[None])
        assert abs(logs.mean() - mean[i]) < 4 * spread[i] / np.sqrt(size)
        assert abs(logs.std() / spread[i] - 1) < 4 / np.sqrt(size)  # kurtosis up to 5


def test_minimise_under_jit_and_its_restarts():
    """The same ends as outside, one after another and at once; NaN at every start is an error."""
    objective = lambda p, x, y: -p(x).log_prob(y)  # noqa: E731
    options = {"restarts": 3, "key": jax.random.key(0), "restart_scale": 0.3}
    want = gp.minimise(objective, prior(0.5), X, Y, **options)

    @jax.jit
    def both(noise, y):
        ends = [
            gp.minimise(objective, prior(noise), X, y, side_by_side=flag, **options)
            for flag in (False, True)
        ]
        return [(end.objective, end.ends, end.params.kernel, end.converged) for end in ends]

    for value, ends, kernel, converged in both(0.5, Y):
        assert converged and np.isclose(value, want.objective, rtol=1e-9)
        np.testing.assert_allclose(ends, want.ends, rtol=1e-6)
        scales = kernel.lengthscale, want.params.kernel.lengthscale
        np.testing.assert_allclose(*scales, rtol=1e-3)
    with pytest.raises(RuntimeError, match="NaN or infinite at every start"):
        eqx.filter_jit(gp.minimise)(lambda p: jnp.log(-p.noise_var), prior(0.5))


def test_minimise_reaches_the_maximum_and_keeps_what_is_fixed():
    objective = lambda p, x, y: -p(x).log_prob(y)  # noqa: E731
    found = gp.minimise(objective, prior(0.5), X, Y)
    assert found.converged and found.objective < objective(prior(0.5), X, Y)
    real = to_real(found.params)
    slope = eqx.filter_grad(lambda r: objective(from_real(r), X, Y))
    gradient = eqx.filter_jit(slope)(real)
    assert max(np.abs(g).max() for g in jax.tree.leaves(gradient)) < 1e-4
    silent = gp.minimise(lambda p: -p(X).log_prob(Y), gp.GP(kernels.Matern12(1.0)))
    assert silent.params.noise_var == 0 and silent.objective < -gp.GP(kernels.Matern12())(
        X
    ).log_prob(Y)
    some = gp.minimise(objective, prior(0.5), X, Y, trainable=lambda p: p.noise_var)
    np.testing.assert_array_equal(some.params.kernel.lengthscale, [0.7, 1.3])
    assert some.params.noise_var != 0.5 and some.objective > found.objective
    again = gp.minimise(
        objective, prior(0.5), X, Y, restarts=3, key=jax.random.key(0), restart_scale=0.3
    )
    assert again.objective <= found.objective + 1e-6
    assert again.ends.shape == (3,) and again.objective == again.ends.min()
    assert found.ends == found.objective
    options = {"restarts": 3, "key": jax.random.key(0), "restart_scale": 0.3, "side_by_side": True}
    beside = gp.minimise(objective, prior(0.5), X, Y, **options)
    np.testing.assert_allclose(beside.ends, again.ends, rtol=1e-6)
    assert beside.converged and beside.params.noise_var.shape == ()
    apart = f"{again.ends.min():.6g} and {again.ends.max():.6g}"
    assert again.message.endswith(f"; the 3 starts ended between {apart}")
    assert re.fullmatch(r"converged in \d+ steps", found.message)
    early = gp.minimise(objective, prior(0.5), X, Y, max_steps=2)
    assert not early.converged and "not converged in 2 steps: the objective still" in early.message
    assert early.decrease > 0 and early.gradient > 0


@pytest.mark.parametrize(
    "noise", [np.full(N, 0.3), ops.Diag(jnp.full(N, 0.3), ops.psd)], ids=["each", "operator"]
)
def test_minimise_leaves_known_noise_as_it_is_unless_asked(noise):
    objective = lambda p, x, y: -p(x).log_prob(y)  # noqa: E731
    start = prior(noise)
    found = gp.minimise(objective, start, X, Y, max_steps=5).params
    for a, b in zip(
        jax.tree.leaves(found.noise_var), jax.tree.leaves(start.noise_var), strict=True
    ):
        np.testing.assert_array_equal(a, b)
    assert np.all(found.kernel.lengthscale != start.kernel.lengthscale)
    asked = gp.minimise(objective, start, X, Y, max_steps=5, trainable=lambda p: p.noise_var).params
    assert np.all(jax.tree.leaves(asked.noise_var)[0] != 0.3)
    np.testing.assert_array_equal(asked.kernel.lengthscale, start.kernel.lengthscale)


def test_minimise_stops_where_the_gradient_is_no_number():
    root = lambda a: jnp.sum(jnp.sqrt(jnp.abs(a)))  # noqa: E731  # infinite slope at 0
    found = gp.minimise(lambda a: root(a) + 1, jnp.zeros(2))
    assert not found.converged and found.objective == 1 and "gradient is NaN" in found.message
    np.testing.assert_array_equal(found.params, [0, 0])


@pytest.mark.errors
def test_bad_input_is_named():
    process = prior()
    with pytest.raises(ValueError, match=r"y must have shape \(11,\)"):
        gp.condition(process, X, Y[:-1])
    with pytest.raises(ValueError, match=r"x must have shape \(n, d\)"):
        gp.condition(process, X[None], Y)
    with pytest.raises(ValueError, match="y holds NaN"):
        gp.condition(process, X, np.where(Y > 0, Y, np.nan))
    with pytest.raises(ValueError, match="x holds NaN"):
        process(np.where(X > 0, X, np.nan))
    with pytest.raises(ValueError, match="x is empty"):
        process(np.zeros((0, 2)))
    with pytest.raises(RuntimeError, match="y holds NaN"):
        jax.jit(gp.condition)(process, X, jnp.where(Y > 0, Y, jnp.nan))
    with pytest.raises(ValueError, match="noise_var must not be negative"):
        prior(-0.1)
    with pytest.raises(ValueError, match="noise_var must be a scalar or have shape"):
        prior(np.ones(3))(X)
    with pytest.raises(ValueError, match="noise_var must be a scalar or"):
        prior(np.ones((3, 3)))
    with pytest.raises(ValueError, match="noise_var is"):
        prior(ops.Dense(np.eye(3), ops.psd))(X)
    with pytest.raises(ValueError, match="mask is for a Grid"):
        process(X, mask=np.ones(N, bool))
    with pytest.raises(ValueError, match="mask is all false"):
        gp.condition(process, X, Y, mask=np.zeros(N, bool))
    with pytest.raises(ValueError, match="mask must have shape"):
        gp.condition(process, X, Y, mask=np.ones(3, bool))
    with pytest.raises(ValueError, match="booleans"):
        gp.condition(process, X, Y, mask=np.ones(N))
    with pytest.raises(ValueError, match="solver is for a Grid"):
        gp.condition(process, X, Y, solver="cg")


@pytest.mark.errors
def test_what_goes_wrong_at_run_time_is_an_error_in_results_and_nan_in_densities():
    def evidence(lengthscale):
        return gp.GP(kernels.RBF(lengthscale), noise_var=0.1)(X).log_prob(Y)

    assert jnp.isnan(jax.jit(evidence)(-1.0))
    assert jnp.isfinite(jax.jit(evidence)(1.0))

    def mean(variance):
        return gp.condition(gp.GP(kernels.RBF(1.0, variance), noise_var=0.1), X, Y).mean(NEW)

    with pytest.raises(RuntimeError, match="has no Cholesky factor even with jitter"):
        jax.jit(mean)(-1.0)
    with pytest.raises(RuntimeError, match="at every start"):
        gp.minimise(lambda p: jnp.nan * p.noise_var, prior())
    with pytest.raises(ValueError, match="no floating-point array"):
        gp.minimise(lambda p: 0.0, {"a": 1})
    with pytest.raises(ValueError, match="holds zeros beside other values"):
        noise = lambda p: p.noise_var  # noqa: E731
        gp.minimise(lambda p: p(X).log_prob(Y), prior(np.arange(N) / N), trainable=noise)
    with pytest.raises(ValueError, match="restarts need a key"):
        gp.minimise(lambda p: p.noise_var, prior(), restarts=2)
    with pytest.raises(ValueError, match="must be a scalar"):
        gp.minimise(lambda p: p(X).mean, prior())
