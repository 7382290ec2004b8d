"""The three ways to score a guide in the ELBO, and the proximal step."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from family_problems import covariance, D, gaussian, MEAN, prepared, SCALES
from numpyro.infer import SVI
from scipy.optimize import minimize_scalar

from bayesjx import vi
from bayesjx.distributions import NestedNormal, SubspaceNormal


def gradients(problem, params, num_draws, **options):
    """Values and gradients of the ELBO at many draws."""
    bound = vi.elbo(problem.model, problem.guide, **options)

    @jax.jit
    def run(params, keys):
        loss = lambda key: jax.value_and_grad(lambda p: bound.surrogate(key, p))(params)  # noqa: E731
        return jax.vmap(loss)(keys)

    return run(params, jax.random.split(jax.random.key(5), num_draws))


def exact_bound(guide, problem, params):
    """The ELBO against the Gaussian posterior, minus its divergence (the evidence is 1)."""
    posterior = guide.get_posterior(problem.constrain(params))
    if hasattr(posterior, "covariance_matrix"):
        cov = posterior.covariance_matrix
    else:
        cov = jnp.diag(posterior.variance)
    precision = jnp.linalg.inv(covariance())
    shift = posterior.mean - MEAN
    log_det = jnp.linalg.slogdet(precision @ cov)[1]
    return -0.5 * (jnp.trace(precision @ cov) + shift @ precision @ shift - D - log_det)


@pytest.mark.parametrize("entropy", ["mc", "analytic", "stl"])
@pytest.mark.parametrize("scale", SCALES)
def test_values_and_gradients_are_unbiased(scale, entropy):
    guide, problem = prepared(gaussian, scale=scale)
    value, slope = gradients(problem, problem.params, 4000, entropy=entropy)
    want, exact = jax.value_and_grad(lambda p: exact_bound(guide, problem, p))(problem.params)
    sem = jnp.std(value) / len(value) ** 0.5
    assert abs(jnp.mean(value) - want) < 5 * sem
    for name, draws in slope.items():
        sem = jnp.std(draws, axis=0) / len(draws) ** 0.5
        gap = jnp.abs(jnp.mean(draws, axis=0) - exact[name])
        assert (gap < 5 * sem + 1e-9).all(), name


def at_the_optimum(problem, guide):
    tril = jnp.linalg.cholesky(covariance())
    given = {"auto_loc": MEAN, "auto_scale": jnp.diag(tril)}
    if guide.scale == "fullrank":
        given["auto_lower"] = jnp.tril(tril, -1)
    else:
        given["auto_lower_0"] = jnp.tril(tril, -1)
    return problem.unconstrain(given)


@pytest.mark.parametrize("scale", ["fullrank", "structured"])
def test_sticking_the_landing_has_no_variance_at_the_posterior(scale):
    guide, problem = prepared(gaussian, scale=scale)
    params = at_the_optimum(problem, guide)
    for entropy, low, high in (("stl", 0.0, 1e-20), ("analytic", 1.0, 1e4), ("mc", 1.0, 1e4)):
        _, slope = gradients(problem, params, 200, entropy=entropy)
        total = sum(jnp.var(x, axis=0).sum() for x in jax.tree.leaves(slope))
        assert low <= total <= high, entropy


@pytest.mark.parametrize("scale", SCALES)
def test_the_gradient_of_the_entropy_is_that_of_differences(scale):
    guide, problem = prepared(gaussian, scale=scale)

    @jax.jit
    def entropy(params):
        return guide.get_posterior(problem.constrain(params)).entropy()

    slope = jax.grad(entropy)(problem.params)
    for name, value in problem.params.items():
        direction = jax.random.normal(jax.random.key(3), value.shape)
        near = [entropy(problem.params | {name: value + h * direction}) for h in (1e-5, -1e-5)]
        want = (near[0] - near[1]) / 2e-5
        np.testing.assert_allclose(jnp.sum(slope[name] * direction), want, rtol=1e-6, atol=1e-8)


def test_the_entropies_of_hierarchical_and_discrete_guides():
    def model():
        z = numpyro.sample("z", dist.Normal(0, 1))
        with numpyro.plate("n", 3):
            numpyro.sample("b", dist.Bernoulli(jax.nn.sigmoid(z)))

    def guide(params):
        z = numpyro.sample("z", dist.Normal(params[0], jnp.exp(params[1])))
        with numpyro.plate("n", 3):
            numpyro.sample("b", vi.enum(dist.Bernoulli(logits=params[2] * z)))

    params = jnp.array([0.4, -0.5, 0.7])
    results = {}
    for entropy in ("mc", "analytic", "stl"):
        bound = vi.elbo(lambda params: model(), guide, entropy=entropy)
        keys = jax.random.split(jax.random.key(1), 20_000)
        run = jax.jit(jax.vmap(lambda k, b=bound: b.value_and_grad(k, params)))
        results[entropy] = run(keys)
    for entropy in ("analytic", "stl"):
        for ours, reference in zip(results[entropy], results["mc"], strict=True):
            sem = jnp.sqrt((ours.var(0) + reference.var(0)) / len(ours))
            assert (jnp.abs(ours.mean(0) - reference.mean(0)) < 5 * sem).all(), entropy


def test_the_proximal_step_is_the_minimiser():
    for start, rate in [(0.7, 0.1), (-3.0, 0.01), (1e-3, 2.0), (-1e4, 1e-3)]:
        step = vi.prox_scale(rate)
        state = step.init({"q_scale": jnp.array(start)})
        update, _ = step.update({"q_scale": jnp.array(0.0)}, state, {"q_scale": jnp.array(start)})
        found = start + update["q_scale"]
        assert found > 0
        np.testing.assert_allclose(found * (found - start), rate, rtol=1e-3)  # stationary
        if start > -10:
            best = minimize_scalar(
                lambda s, a=start, r=rate: -np.log(s) + (s - a) ** 2 / (2 * r),
                bounds=(1e-9, 10),
                method="bounded",
                options={"xatol": 1e-10},
            )
            np.testing.assert_allclose(found, best.x, rtol=1e-4)


@pytest.mark.parametrize("scale", ["meanfield", "fullrank"])
def test_proximal_gradient_descent_finds_the_optimum(scale):
    guide = vi.GaussianGuide(gaussian, scale=scale, conditioner="linear", init_scale=1.0)
    schedule = optax.exponential_decay(0.03, 1000, 0.1, transition_begin=1000)
    optimizer = optax.chain(optax.sgd(schedule), vi.prox_scale(schedule))
    loss = vi.SVILoss(lambda m, g: vi.elbo(m, g, entropy="proximal"))
    result = SVI(gaussian, guide, optimizer, loss).run(jax.random.key(0), 4000, progress_bar=False)
    posterior = guide.get_posterior(result.params)
    precision = jnp.diag(jnp.linalg.inv(covariance()))
    want = 1 / precision if scale == "meanfield" else jnp.diag(covariance())
    np.testing.assert_allclose(posterior.mean, MEAN, atol=0.1)
    np.testing.assert_allclose(posterior.variance, want, rtol=0.15)
    assert (result.params["auto_scale"] > 0).all()


@pytest.mark.errors
def test_bad_input_is_named():
    with pytest.raises(ValueError, match="entropy must be one of"):
        vi.elbo(gaussian, gaussian, entropy="exact")
    with pytest.raises(ValueError, match="must be positive"):
        vi.prox_scale(0.0)
    with pytest.raises(ValueError, match="is a scale"):
        vi.prox_scale(0.1).init({"loc": jnp.zeros(2)})
    with pytest.raises(ValueError, match="needs the parameters"):
        step = vi.prox_scale(0.1)
        step.update({"scale": jnp.ones(2)}, step.init({"scale": jnp.ones(2)}))
    guide, problem = prepared(gaussian, scale="lowrank", conditioner="linear")
    bound = vi.elbo(problem.model, problem.guide, entropy="proximal")
    with pytest.raises(ValueError, match="mean-field, full-rank or structured"):
        bound.estimate(jax.random.key(0), problem.params)

    def model():
        numpyro.sample("x", dist.Normal(0, 1))

    def no_entropy():
        numpyro.sample("x", dist.Normal(0, 1).mask(jnp.array(True)))

    with pytest.raises(ValueError, match="no closed-form entropy"):
        vi.elbo(model, no_entropy, entropy="analytic").estimate(jax.random.key(0))


@pytest.mark.parametrize("distribution", ["nested", "subspace"])
def test_our_gaussians_in_both_precisions(distribution, dtype, tol):
    if distribution == "nested":
        guide, problem = prepared(gaussian, scale="structured")
        posterior = guide.get_posterior(problem.constrain(problem.params))
    else:
        basis = jnp.linalg.qr(jax.random.normal(jax.random.key(1), (D, 2)))[0]
        inner = jnp.array([[0.3, 0.0], [0.4, 1.7]])
        posterior = SubspaceNormal(MEAN, jnp.sqrt(MEAN), basis, inner)
    posterior = jax.tree.map(lambda x: x.astype(dtype), posterior)
    assert isinstance(posterior, NestedNormal | SubspaceNormal)
    # The same numbers in double precision: a reference whose own rounding, of the order of the
    # condition of the covariance, does not count.
    double = jax.tree.map(lambda x: x.astype(jnp.float64), posterior)
    want = dist.MultivariateNormal(double.mean, double.covariance_matrix)
    draws = jax.jit(lambda p, key: p.sample(key, (4000,)))(posterior, jax.random.key(2))
    assert draws.dtype == dtype
    log_prob = jax.jit(lambda p, x: p.log_prob(x))(posterior, draws[:7])
    assert log_prob.dtype == dtype
    np.testing.assert_allclose(
        log_prob, want.log_prob(draws[:7].astype("float64")), **(tol | {"rtol": 2e-4})
    )
    # A sum of D logarithms: each is rounded by eps of its size, the sums by eps of theirs; those of
    # the reference by the condition of the covariance besides.
    eigenvalues = np.linalg.eigvalsh(want.covariance_matrix)
    size = D * (1 + np.abs(np.log(eigenvalues)).max())
    condition = D * eigenvalues[-1] / eigenvalues[0]
    atol = 4 * size * jnp.finfo(dtype).eps + condition * jnp.finfo(jnp.float64).eps
    np.testing.assert_allclose(posterior.entropy(), want.entropy(), rtol=0, atol=atol)
    np.testing.assert_allclose(posterior.variance, want.variance, **(tol | {"rtol": 1e-4}))
    spread = jnp.sqrt(want.variance)
    error = (jnp.cov(draws.astype("float64").T) - want.covariance_matrix) / jnp.outer(
        spread, spread
    )
    assert jnp.abs(error).max() < 5 * np.sqrt(2 / len(draws))
    expanded = posterior.expand((3,))
    assert expanded.log_prob(draws[:3]).shape == (3,)
    assert expanded.has_rsample
    if distribution == "subspace":
        precision = jnp.diag(jnp.linalg.inv(want.covariance_matrix))
        np.testing.assert_allclose(posterior.precision_diagonal, precision, rtol=1e-3)


@pytest.mark.parametrize("scale", ["fullrank", "structured"])
@pytest.mark.parametrize("entropy", ["mc", "stl"])
def test_no_bound_of_a_collapsed_guide_lies_above_the_evidence(scale, entropy):
    # Scales of 1e-45 beside links of 0.01: a solve turns rounding errors of the draw into 1e70.
    guide, problem = prepared(gaussian, scale=scale)
    lower = "auto_lower" if scale == "fullrank" else "auto_lower_0"
    given = {"auto_loc": MEAN, "auto_scale": jnp.full(D, 1e-45), lower: jnp.full((D, D), 0.01)}
    bound = vi.elbo(problem.model, problem.guide, entropy=entropy)
    run = jax.jit(lambda key: bound.estimate(key, problem.unconstrain(given)))
    log_det = D * jnp.log(jnp.finfo(float).eps)  # where the guide stops the scales
    highest = log_det + 0.5 * jnp.linalg.slogdet(jnp.linalg.inv(covariance()))[1] + 40
    values = jnp.array([run(jax.random.key(i)) for i in range(5)])
    assert (values < highest).all() and (values > 2 * log_det).all()  # the log evidence is 0


@pytest.mark.errors
def test_a_fit_with_an_impossible_bound_is_not_ok():
    def collapsed(params):
        tril = jnp.tril(params["lower"], -1) + jnp.diag(jnp.exp(params["log_scale"]))
        numpyro.sample("z", dist.MultivariateNormal(MEAN, scale_tril=tril))

    start = {"log_scale": jnp.full(D, -60.0), "lower": jnp.full((D, D), 1e-3)}
    bound = vi.elbo(lambda params: gaussian(), collapsed)
    result = vi.fit(jax.random.key(0), bound, start, optax.adam(1e-9), 3, throw=False)
    assert not result.ok and "collapsed to a point" in result.message


@pytest.mark.parametrize("entropy", ["mc", "analytic", "stl"])
def test_entropies_of_a_minibatch_are_scaled_to_all_rows(entropy):
    rows, size = 6, 2

    def model(scale):
        with numpyro.plate("rows", rows, subsample_size=size):
            numpyro.sample("z", dist.Normal(0.0, 1.0))

    def guide(scale):
        with numpyro.plate("rows", rows, subsample_size=size):
            numpyro.sample("z", dist.Normal(0.3, scale))

    bound = vi.elbo(model, guide, entropy=entropy)
    keys = jax.random.split(jax.random.key(0), 4000)
    value, slope = jax.jit(jax.vmap(lambda key: bound.value_and_grad(key, 0.7)))(keys)
    exact = lambda s: -rows * dist.kl_divergence(dist.Normal(0.3, s), dist.Normal())  # noqa: E731
    for draws, want in zip((value, slope), jax.value_and_grad(exact)(0.7), strict=True):
        assert abs(jnp.mean(draws) - want) < 5 * jnp.std(draws) / len(draws) ** 0.5 + 1e-9
