"""Bounds against exact evidence, closed-form optima and dense integrals; training."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.test_util import check_grads
from numpyro import distributions as dist
from scipy.stats import multivariate_normal

import bayesjx
from bayesjx import gp, kernels, likelihoods

N, M, D = 12, 5, 2
KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(size=(N, D))
Y = np.sin(2 * X[:, 0]) + 0.2 * X[:, 1]
LABELS = (Y > 0).astype(int)


def make_prior(dtype=jnp.float64, noise=0.1):
    kernel = kernels.RBF(jnp.asarray([1.0, 1.5], dtype), jnp.asarray(1.3, dtype))
    return gp.GP(kernel, jnp.asarray(0.2, dtype), noise_var=jnp.asarray(noise, dtype))


def some_distribution(m=M, dtype=jnp.float64, lead=(), seed=1):
    draw = np.random.default_rng(seed).normal(size=(*lead, m, m + 1)) / m
    tril = np.tril(draw[..., 1:]) + 0.7 * np.eye(m)
    return gp.WhitenedNormal(jnp.asarray(draw[..., 0], dtype), jnp.asarray(tril, dtype))


def make(dtype=jnp.float64, likelihood=None, **options):
    prior = make_prior(dtype, 0.1 if likelihood is None else 0.0)
    points = jnp.asarray(X[:M] + 0.1, dtype)
    return gp.SVGP(
        prior, likelihood, inducing_points=points, q=some_distribution(dtype=dtype), **options
    )


def bernoulli(f):
    return dist.Bernoulli(logits=f)


@eqx.filter_jit
def optimum(svgp):
    """The process after a full-batch natural step with everything else kept."""
    algorithm = gp.svgp_natgrad(svgp, None, 1.0, num_data=N)
    return svgp.trained(algorithm.step(KEY, algorithm.init(), X, Y)[0])


@eqx.filter_jit
def elbo(svgp, x, y):
    return svgp.elbo(x, y)


@eqx.filter_jit
def moments(posterior, x):
    return posterior.moments(x)


@eqx.filter_jit
def evidence(prior, x, y):
    return prior(x).log_prob(y)


def gram(a, b):
    """Of the kernel of `make_prior`, by NumPy."""
    return 1.3 * np.exp(-0.5 * np.sum(((a[:, None] - b) / np.array([1.0, 1.5])) ** 2, axis=-1))


# The bound ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("tight", [False, True])
def test_the_bound_is_its_formula(dtype, tol, tight):
    svgp = make(dtype, tight=tight)
    found = elbo(svgp, jnp.asarray(X, dtype), Y)
    assert found.dtype == dtype
    q, points = (
        jax.tree.map(np.asarray, some_distribution()),
        np.asarray(svgp.inducing_points, float),
    )
    jitter = (1e-4 if dtype == jnp.float32 else 1e-6) * 1.3
    inside = gram(points, points) + jitter * np.eye(M)
    phi = np.linalg.solve(np.linalg.cholesky(inside), gram(points, X))
    mean = 0.2 + phi.T @ q.mean
    spread = np.diag(phi.T @ q.scale_tril @ q.scale_tril.T @ phi)
    residual = 1.3 - np.sum(phi**2, axis=0)
    want = -0.5 * np.sum(np.log(2 * np.pi * 0.1) + ((Y - mean) ** 2 + spread) / 0.1)
    want -= 0.5 * np.sum(np.log1p(residual / 0.1) if tight else residual / 0.1)
    squares = np.sum(q.mean**2) + np.sum(q.scale_tril**2)
    want -= 0.5 * (squares - M) - np.sum(np.log(np.diag(q.scale_tril)))
    loose = 10 if dtype == jnp.float32 else 1
    np.testing.assert_allclose(found, want, rtol=loose * tol["rtol"])


def test_quadrature_gives_the_bound_of_normal_noise():
    noise = 0.1
    svgp = make(likelihood=lambda f: dist.Normal(f, noise**0.5))
    want = make().elbo(X, Y)
    np.testing.assert_allclose(elbo(svgp, X, Y), want, rtol=1e-10)
    given = make(likelihood=likelihoods.Gaussian(noise))
    np.testing.assert_allclose(elbo(given, X, Y), want, rtol=1e-12)


@pytest.mark.parametrize("tight", [False, True])
def test_one_natural_step_finds_the_collapsed_optimum(tight):
    svgp = make(tight=tight)
    best = optimum(svgp)
    collapsed = jax.jit(gp.sparse_posterior)(
        make_prior(), X, Y, inducing_points=svgp.inducing_points
    )
    np.testing.assert_allclose(best.q.mean, collapsed.whitened_mean, rtol=1e-7, atol=1e-9)
    tril = np.tril(best.q.scale_tril)
    want = collapsed.scale_tril @ collapsed.scale_tril.T
    np.testing.assert_allclose(tril @ tril.T, want, atol=1e-9)
    collapsed_bound = jax.jit(
        lambda p, z: gp.sgpr(p, X, inducing_points=z, tight=tight).log_prob(Y)
    )
    found, loose = elbo(best, X, Y), elbo(optimum(make()), X, Y)
    np.testing.assert_allclose(
        found, collapsed_bound(make_prior(), svgp.inducing_points), rtol=1e-9
    )
    assert elbo(svgp, X, Y) < found < evidence(make_prior(), X, Y)
    assert (found > loose) == tight


def test_all_data_as_points_give_the_evidence():
    svgp = optimum(gp.SVGP(make_prior(), inducing_points=X, jitter=1e-10))
    np.testing.assert_allclose(elbo(svgp, X, Y), evidence(make_prior(), X, Y), rtol=1e-6)
    exact = jax.jit(gp.condition)(make_prior(), X, Y)
    at = X[:3] + 0.3
    for found, want in zip(moments(svgp.posterior(), at), moments(exact, at), strict=True):
        np.testing.assert_allclose(found, want, atol=1e-6)


def test_the_bound_of_minibatches_is_unbiased():
    svgp = make()
    bounds = jax.jit(jax.vmap(lambda x, y: svgp.elbo(x, y, N)))(X.reshape(4, 3, D), Y.reshape(4, 3))
    np.testing.assert_allclose(bounds.mean(), elbo(svgp, X, Y), rtol=1e-12)
    assert bounds.std() > 0.1


LIKELIHOODS = {"normal": None, "Bernoulli": bernoulli, "Poisson": likelihoods.PoissonExp()}


@pytest.mark.parametrize("likelihood", LIKELIHOODS.values(), ids=LIKELIHOODS)
def test_derivatives_are_finite_differences(likelihood):
    svgp = make(likelihood=likelihood)
    y = Y if likelihood is None else LABELS
    arrays, rest = eqx.partition(svgp, eqx.is_inexact_array)
    if likelihood is not None:
        arrays = eqx.tree_at(lambda s: s.prior.noise_var, arrays, None)
        rest = eqx.tree_at(lambda s: s.prior.noise_var, rest, 0.0, is_leaf=lambda v: v is None)

    def value(arrays):
        return eqx.combine(arrays, rest).elbo(X, y, 3 * N)

    check_grads(jax.jit(value), (arrays,), order=1, modes=["fwd", "rev"], rtol=1e-5, atol=1e-5)


def test_second_derivatives_by_forward_and_reverse_agree():
    def value(lengthscale, points):
        prior = gp.GP(kernels.RBF(lengthscale), noise_var=0.1)
        return gp.SVGP(prior, inducing_points=points, q=some_distribution()).elbo(X, Y)

    args = (jnp.asarray([1.0, 1.5]), jnp.asarray(X[:M] + 0.1))
    check_grads(jax.jit(value), args, order=2, modes=["fwd", "rev"], rtol=1e-3, atol=1e-3)


def test_vmap_over_distributions_is_a_loop():
    distributions = [some_distribution(seed=s) for s in (1, 2, 3)]
    stacked = jax.tree.map(lambda *x: jnp.stack(x), *distributions)
    svgp = make()
    found = jax.jit(jax.vmap(lambda q: svgp.with_blocks((q,)).elbo(X, Y)))(stacked)
    want = [elbo(svgp.with_blocks((q,)), X, Y) for q in distributions]
    np.testing.assert_allclose(found, want, rtol=1e-12)


def test_vmap_over_kernels_is_a_loop():
    scales = jnp.asarray([[1.0, 1.5], [0.5, 2.0]])

    def bound(scale):
        return gp.SVGP(
            gp.GP(kernels.RBF(scale), noise_var=0.1), inducing_points=X[:M], q=some_distribution()
        ).elbo(X, Y)

    found = jax.jit(jax.vmap(jax.value_and_grad(bound)))(scales)
    one = jax.jit(jax.value_and_grad(bound))
    want = [one(scale) for scale in scales]
    np.testing.assert_allclose(found[0], [v for v, _ in want], rtol=1e-9)
    np.testing.assert_allclose(found[1], [g for _, g in want], rtol=1e-7)


def test_large_sets_are_whitened_by_halves():
    """Above the size of a leaf the inverse of the factor is put together from blocks."""
    points = np.random.default_rng(2).normal(size=(75, D))
    x = jnp.asarray(np.concatenate([points, X]) + 0.1)
    y = jnp.sin(x[:, 0])
    svgp = gp.SVGP(
        gp.GP(kernels.Matern12(0.5), noise_var=0.1), inducing_points=points, q=some_distribution(75)
    )

    def through_solves(svgp):
        posterior = svgp.posterior()
        mean, variance = posterior.moments(x)
        value = jnp.sum(likelihoods.expected_log_prob(svgp.observed, y, mean, variance))
        return value, (posterior.features(x), svgp.project(x).features[0])

    @jax.jit
    def both(svgp):
        by_solves, features = jax.grad(through_solves, has_aux=True)(svgp)
        return (by_solves, jax.grad(lambda s: s.elbo(x, y))(svgp)), features

    slopes, features = both(svgp)
    np.testing.assert_allclose(*features, atol=1e-10)
    for name in ("prior", "inducing_points"):
        pair = [jax.tree.leaves(getattr(slope, name)) for slope in slopes]
        for want, found in zip(*pair, strict=True):
            np.testing.assert_allclose(found, want, rtol=1e-6, atol=1e-8)


def test_coinciding_points_get_a_jitter():
    points = np.concatenate([X[:3], X[:3]])
    svgp = gp.SVGP(make_prior(), inducing_points=points, jitter=0.0)
    single = elbo(optimum(gp.SVGP(make_prior(), inducing_points=X[:3], jitter=0.0)), X, Y)
    value, gradient = eqx.filter_jit(eqx.filter_value_and_grad(elbo))(optimum(svgp), X, Y)
    np.testing.assert_allclose(value, single, atol=1e-3)
    assert np.all(np.isfinite(gradient.prior.kernel.lengthscale))


# Posteriors ---------------------------------------------------------------------------------------


def test_a_tiny_classification_is_the_integral_over_a_grid():
    """With all inputs as points nothing but normality is approximated."""
    x, y = np.array([-1.0, 0.2, 0.9]), np.array([0, 1, 1])
    prior = gp.GP(kernels.RBF(1.0, 1.0))
    svgp = gp.SVGP(prior, bernoulli, inducing_points=x, jitter=1e-10)
    algorithm = gp.svgp_natgrad(svgp, None, 0.5, num_data=3)
    result = bayesjx.fit(KEY, algorithm, algorithm.init(), 100, data=(x[:, None], y))
    q = svgp.trained(result.state)

    line = np.linspace(-6, 6, 81)
    f = np.stack(np.meshgrid(line, line, line, indexing="ij"), axis=-1)
    density = multivariate_normal(np.zeros(3), np.asarray(prior.kernel.gram(x))).logpdf(f)
    density = np.exp(density - np.sum(np.logaddexp(0, (1 - 2 * y) * f), axis=-1))
    log_evidence = np.log(np.sum(density) * (line[1] - line[0]) ** 3)
    centre = np.tensordot(density / density.sum(), f, axes=3)
    spread = np.tensordot(density / density.sum(), f**2, axes=3) - centre**2
    bound = elbo(q, x, y)
    assert log_evidence - 0.02 < bound < log_evidence
    mean, variance = moments(q.posterior(), x)
    np.testing.assert_allclose(mean, centre, atol=0.02)
    np.testing.assert_allclose(variance, spread, rtol=0.05)

    def of_normal(params):  # the best normal distribution, by brute force
        distribution = gp.WhitenedNormal(*params)
        return -q.with_blocks((distribution,)).elbo(x, y)

    best = gp.minimise(of_normal, (q.q.mean * 0.9, jnp.tril(q.q.scale_tril)))
    np.testing.assert_allclose(-best.objective, bound, rtol=1e-8)


def test_several_latents_are_separate_processes():
    """A likelihood that does not couple the two makes the bound a sum."""

    def coupled(f):
        return dist.Normal(f, 0.1**0.5).to_event(1)

    prior, points = make_prior(noise=0.0), X[:M]
    y = np.stack([Y, np.cos(Y)], axis=1)
    svgp = gp.SVGP(
        prior, coupled, inducing_points=points, num_latents=2, q=some_distribution(lead=(2,))
    )
    single = gp.SVGP(make_prior(), inducing_points=points)
    distributions = [gp.WhitenedNormal(svgp.q.mean[i], svgp.q.scale_tril[i]) for i in range(2)]
    want = sum(
        elbo(single.with_blocks((distribution,)), X, y[:, i])
        for i, distribution in enumerate(distributions)
    )
    np.testing.assert_allclose(elbo(svgp, X, y), want, rtol=1e-9)

    algorithm = gp.svgp_natgrad(svgp, None, 1.0, num_data=N)
    best = svgp.trained(jax.jit(algorithm.step)(KEY, algorithm.init(), X, y)[0])
    for i in range(2):
        collapsed = jax.jit(gp.sparse_posterior)(make_prior(), X, y[:, i], inducing_points=points)
        pair = moments(best.posterior(latent=i), X), moments(collapsed, X)
        np.testing.assert_allclose(*pair, atol=1e-6)


def test_softmax_trains_with_draws():
    svgp = gp.SVGP(
        make_prior(noise=0.0),
        lambda f: dist.Categorical(logits=f),
        inducing_points=X[:M],
        num_latents=3,
    )
    labels = np.digitize(Y, [-0.5, 0.5])
    algorithm = gp.svgp_natgrad(svgp, optax.adam(1e-2), 0.1, num_data=N)
    result = bayesjx.fit(KEY, algorithm, algorithm.init(), 150, data=(X, labels))
    objective = result.info.objective
    assert objective[-30:].mean() > objective[:5].mean() + 2
    trained = svgp.trained(result.state)
    scores = np.stack([moments(trained.posterior(latent=i), X)[0] for i in range(3)], axis=1)
    assert np.mean(np.argmax(scores, axis=1) == labels) > 0.8


# Training -----------------------------------------------------------------------------------------


def test_natural_gradients_are_those_of_the_natural_parameters():
    """Against autodiff: the gradient in the expectation parameters E[v] and E[v vᵀ]."""
    svgp, gamma = make(likelihood=bernoulli), 0.3
    algorithm = gp.svgp_natgrad(svgp, None, gamma, num_data=3 * N)
    start = algorithm.init()
    found = jax.jit(algorithm.step)(KEY, start, X, LABELS)[0].natural.normals[0]

    def bound(first, second):
        distribution = gp.WhitenedNormal(
            first, jnp.linalg.cholesky(second - jnp.outer(first, first))
        )
        return svgp.with_blocks((distribution,)).elbo(X, LABELS, 3 * N)

    q = some_distribution()
    second = q.scale_tril @ q.scale_tril.T + jnp.outer(q.mean, q.mean)
    by_first, by_second = jax.jit(jax.grad(bound, (0, 1)))(q.mean, second)
    shift = start.natural.normals[0].shift + gamma * by_first
    precision = start.natural.normals[0].precision - gamma * (by_second + by_second.T)
    np.testing.assert_allclose(found.shift, shift, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(found.precision, precision, rtol=1e-7, atol=1e-9)


def test_precisions_stay_positive_where_the_likelihood_is_not_log_concave(dtype):
    def cauchy(f):
        return dist.Cauchy(f, 0.1)

    svgp = make(dtype, likelihood=cauchy)
    x, y = jnp.asarray(X, dtype), jnp.asarray(np.where(np.arange(N) % 3 == 0, 5.0, Y), dtype)

    @jax.jit
    def trained(rate):
        algorithm = gp.svgp_natgrad(svgp, None, lambda count: rate, num_data=N)
        return jax.lax.scan(lambda s, _: algorithm.step(KEY, s, x, y), algorithm.init(), None, 30)[
            0
        ]

    # Steps of 0.9 go to and fro, and a rounding decides where the last one is; those of 0.5 settle.
    for rate, settles in ((0.9, False), (0.5, True)):
        state = trained(rate)
        precision = state.natural.normals[0].precision
        assert precision.dtype == dtype
        assert np.linalg.eigvalsh(precision).min() > 0.99
        assert not settles or elbo(svgp.trained(state), x, y) > elbo(svgp, x, y) + 10


@pytest.mark.parametrize("name", ["adam", "natgrad"])
def test_training_climbs_the_bound(name, dtype):
    svgp = make(dtype)
    optimizer = optax.adam(0.03)
    algorithm = {
        "adam": lambda: gp.svgp_adam(svgp, optimizer, num_data=N),
        "natgrad": lambda: gp.svgp_natgrad(svgp, optimizer, 0.3, num_data=N),
    }[name]()
    data = (jnp.asarray(X, dtype), jnp.asarray(Y, dtype))
    result = bayesjx.fit(KEY, algorithm, algorithm.init(), 60, data=data)
    trained = svgp.trained(result.state)
    assert {x.dtype for x in jax.tree.leaves(eqx.filter(trained, eqx.is_array))} == {
        jnp.dtype(dtype)
    }
    start = elbo(svgp, *data)
    assert elbo(trained, *data) > start + 5
    np.testing.assert_allclose(result.info.objective[0], start, rtol=1e-5)
    assert trained.prior.noise_var > 0 and trained.prior.noise_var != svgp.prior.noise_var
    assert np.all(trained.inducing_points != svgp.inducing_points)


def test_what_is_trained_can_be_chosen():
    svgp = make()
    algorithm = gp.svgp_natgrad(
        svgp, optax.adam(0.1), num_data=N, trainable=lambda s: s.prior.kernel.lengthscale
    )
    trained = svgp.trained(jax.jit(algorithm.step)(KEY, algorithm.init(), X, Y)[0])
    assert np.all(trained.prior.kernel.lengthscale != svgp.prior.kernel.lengthscale)
    np.testing.assert_array_equal(trained.inducing_points, svgp.inducing_points)
    np.testing.assert_allclose(trained.prior.noise_var, svgp.prior.noise_var)


def test_a_schedule_sets_the_length_of_the_step():
    svgp = make()
    slow = gp.svgp_natgrad(svgp, None, optax.linear_schedule(0.0, 1.0, 1), num_data=N)
    step = jax.jit(slow.step)
    first, _ = step(KEY, slow.init(), X, Y)
    np.testing.assert_allclose(svgp.trained(first).q.mean, svgp.q.mean, rtol=1e-9)
    second, _ = step(KEY, first, X, Y)
    np.testing.assert_allclose(svgp.trained(second).q.mean, optimum(svgp).q.mean, rtol=1e-9)


@pytest.mark.parametrize("name", ["adam", "natgrad"])
def test_a_fit_goes_on_from_its_checkpoint(name, tmp_path):
    make_one = {"adam": gp.svgp_adam, "natgrad": gp.svgp_natgrad}[name]
    algorithm = make_one(make(), optax.adam(0.03), num_data=N)

    def batches(step):
        chosen = np.random.default_rng(step).choice(N, 6, replace=False)
        return X[chosen], Y[chosen]

    def fit(steps, **options):
        return bayesjx.fit(KEY, algorithm, algorithm.init(), steps, batches=batches, **options)

    whole = fit(12)
    fit(5, checkpoint=tmp_path / "fit")
    resumed = fit(12, checkpoint=tmp_path / "fit")
    assert resumed.resumed_from == 5
    jax.tree.map(np.testing.assert_array_equal, resumed.state, whole.state)


# Errors -------------------------------------------------------------------------------------------


@pytest.mark.errors
def test_bad_data_are_named():
    svgp = make(likelihood=bernoulli)
    with pytest.raises(ValueError, match="support of BernoulliLogits"):
        svgp.elbo(X, 2 * LABELS - 1)
    with pytest.raises(RuntimeError, match="support of BernoulliLogits"):
        jax.block_until_ready(jax.jit(lambda x, y: svgp.elbo(x, y))(X, 2 * LABELS - 1))
    with pytest.raises(ValueError, match="support of Normal"):
        make().elbo(X, np.where(LABELS, Y, np.nan))
    with pytest.raises(ValueError, match="x holds NaN"):
        svgp.elbo(np.where(X > 0, X, np.nan), LABELS)
    with pytest.raises(ValueError, match="y must have shape"):
        svgp.elbo(X, LABELS[:-1])
    with pytest.raises(ValueError, match="3 coordinates, the inducing points 2"):
        svgp.elbo(np.ones((N, 3)), LABELS)
    with pytest.raises(ValueError, match="num_data is 3, less than the 12"):
        svgp.elbo(X, LABELS, 3)
    with pytest.raises(ValueError, match="more inducing points, 5, than data, 4"):
        svgp.elbo(X[:2], LABELS[:2], 4)


@pytest.mark.errors
def test_bad_options_are_named():
    prior = make_prior()
    with pytest.raises(ValueError, match="noise_var of the prior must be positive"):
        gp.SVGP(make_prior(noise=0.0), inducing_points=X)
    with pytest.raises(ValueError, match="noise_var of the prior would not be used"):
        gp.SVGP(prior, bernoulli, inducing_points=X)
    with pytest.raises(ValueError, match="must be a scalar"):
        gp.SVGP(gp.GP(prior.kernel, noise_var=np.ones(N)), inducing_points=X)
    with pytest.raises(ValueError, match="normal noise only"):
        gp.SVGP(make_prior(noise=0.0), bernoulli, inducing_points=X, tight=True)
    with pytest.raises(ValueError, match="NaN"):
        gp.SVGP(prior, inducing_points=X * np.nan)
    with pytest.raises(ValueError, match="q must have a mean of shape"):
        gp.SVGP(prior, inducing_points=X, q=some_distribution())
    with pytest.raises(ValueError, match="num_latents"):
        gp.SVGP(prior, inducing_points=X, num_latents=0)
    with pytest.raises(ValueError, match="one latent function"):
        gp.SVGP(prior, inducing_points=X).posterior(1)
    with pytest.raises(ValueError, match="one of 2 functions"):
        gp.SVGP(prior, inducing_points=X, num_latents=2).posterior()
    for gamma in (0.0, 1.5):
        with pytest.raises(ValueError, match="gamma"):
            gp.svgp_natgrad(make(), None, gamma, num_data=N)
    with pytest.raises(ValueError, match="nothing to train"):
        gp.svgp_adam(make(), optax.adam(0.1), num_data=N, trainable=lambda s: [])


@pytest.mark.errors
def test_a_failing_fit_says_what_went_wrong():
    svgp = make(likelihood=likelihoods.PoissonExp())
    counts = LABELS.copy()
    algorithm = gp.svgp_adam(svgp, optax.sgd(1e6), num_data=N)
    with pytest.raises(bayesjx.NonFiniteError, match=r"not finite|Cholesky"):
        bayesjx.fit(KEY, algorithm, algorithm.init(), 20, data=(X, counts))
