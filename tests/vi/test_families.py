"""Gaussian guides: their distributions, their fits, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from family_problems import (
    covariance,
    D,
    gaussian,
    hierarchy,
    MEAN,
    prepared,
    READINGS,
    SCALES,
)
from numpyro import handlers
from numpyro.infer import Predictive, SVI, Trace_ELBO
from numpyro.infer.autoguide import AutoGuideList

from bayesjx import vi


def dense(posterior):
    """Covariance of a Gaussian posterior, whatever its class."""
    if hasattr(posterior, "covariance_matrix"):
        return posterior.covariance_matrix
    return jnp.diag(posterior.variance)


@pytest.mark.compiles(800, "derivatives outside of jit, as dense matrices of small guides")
def test_structured_conditions_on_what_is_outside_the_plates():
    guide, problem = prepared(hierarchy, READINGS, scale="structured")
    names = [*guide.prototype_trace]
    sizes = {"mu": 1, "tau": 1, "a": 3, "c": 6, "b": 6}
    order = [name for name in names if name in sizes]
    ends = np.cumsum([sizes[name] for name in order])
    where = {n: np.arange(e - sizes[n], e) for n, e in zip(order, ends, strict=True)}
    covariance = dense(guide.get_posterior(problem.constrain(problem.params)))
    outside = np.concatenate([where["mu"], where["tau"]])
    others = np.concatenate([where["a"], where["c"], where["b"]])
    solved = jnp.linalg.solve(covariance[np.ix_(outside, outside)], covariance[outside][:, others])
    given = covariance[np.ix_(others, others)] - covariance[others][:, outside] @ solved
    # Per group: a (1), c (2 free coordinates), b (2 units): coupled inside, not between groups.
    group = np.concatenate([np.arange(3), np.repeat(np.arange(3), 2), np.repeat(np.arange(3), 2)])
    apart = group[:, None] != group[None, :]
    assert jnp.abs(given[apart]).max() < 1e-12
    assert (jnp.abs(given[~apart]) > 1e-6).mean() > 0.9
    # Without plates it is the full-rank guide.
    structured, _ = prepared(gaussian, scale="structured")
    assert [g.index.shape for g in structured.layout.groups] == [(D,)]


@pytest.mark.parametrize("entropy", ["analytic", "stl"])
@pytest.mark.parametrize("scale", ["fullrank", "structured"])
def test_full_rank_recovers_a_gaussian_posterior(scale, entropy):
    guide = vi.GaussianGuide(gaussian, scale=scale, init_scale=1.0)
    problem = vi.functional(jax.random.key(0), gaussian, guide)
    bound = vi.elbo(problem.model, problem.guide, entropy=entropy)
    rate = optax.exponential_decay(0.05, 500, 0.1, transition_begin=500)
    result = vi.fit(jax.random.key(1), bound, problem.params, optax.adam(rate), 2000, num_draws=4)
    posterior = guide.get_posterior(problem.constrain(result.params))
    tol = 0.05 if entropy == "stl" else 0.2
    np.testing.assert_allclose(posterior.mean, MEAN, atol=tol)
    np.testing.assert_allclose(dense(posterior), covariance(), atol=tol)


@pytest.mark.parametrize(
    ("scale", "loss"),
    [*((scale, vi.SVILoss()) for scale in SCALES), ("structured", Trace_ELBO())],
    ids=[*SCALES, "numpyro"],
)
def test_it_is_an_autoguide(scale, loss):
    guide = vi.GaussianGuide(hierarchy, scale=scale)
    svi = SVI(hierarchy, guide, optax.adam(0.02), loss)
    result = svi.run(jax.random.key(0), 400, READINGS, progress_bar=False)
    assert result.losses[-50:].mean() < result.losses[:50].mean()
    draws = guide.sample_posterior(jax.random.key(1), result.params, sample_shape=(11,))
    assert {k: v.shape for k, v in draws.items()} == {
        "mu": (11,),
        "tau": (11,),
        "a": (11, 3, 1),
        "c": (11, 3, 1, 3),
        "b": (11, 3, 2),
    }
    assert (draws["tau"] > 0).all()
    np.testing.assert_allclose(draws["c"].sum(-1), 1, rtol=1e-6)
    middle = guide.median(result.params)
    low, median, high = guide.quantiles(result.params, [0.1, 0.5, 0.9])["tau"]
    assert low < median < high
    np.testing.assert_allclose(median, middle["tau"], rtol=1e-6)
    again = Predictive(hierarchy, guide=guide, params=result.params, num_samples=3)
    assert again(jax.random.key(2), READINGS)["y"].shape == (3, 3, 2)


def test_it_joins_discrete_guides():
    def model():
        x = numpyro.sample("x", dist.Normal(0, 1))
        c = numpyro.sample("c", dist.Bernoulli(0.3))
        numpyro.sample("y", dist.Normal(x + c, 0.5), obs=1.0)

    continuous = handlers.block(handlers.seed(model, jax.random.key(0)), hide=["c"])
    guide = AutoGuideList(continuous)
    guide.append(vi.GaussianGuide(continuous))
    guide.append(vi.AutoDiscrete(model))
    svi = SVI(model, guide, optax.adam(0.05), vi.SVILoss())
    losses = svi.run(jax.random.key(1), 300, progress_bar=False).losses
    assert losses[-50:].mean() < losses[:50].mean()


def test_the_dtype_is_that_of_the_model():
    def model():
        numpyro.sample("z", dist.Normal(jnp.zeros(3, jnp.float32), 1).to_event(1))

    for scale in SCALES:
        with jax.enable_x64(False):
            guide = vi.GaussianGuide(model, scale=scale)
            problem = vi.functional(jax.random.key(0), model, guide)
            bound = vi.elbo(problem.model, problem.guide, entropy="stl")
            value, slope = bound.value_and_grad(jax.random.key(1), problem.params)
        assert {x.dtype for x in jax.tree.leaves((value, slope))} == {jnp.dtype(jnp.float32)}


@pytest.mark.parametrize("conditioner", ["softplus", "exp", "linear"])
def test_extreme_scales_give_finite_gradients(conditioner):
    guide = vi.GaussianGuide(gaussian, scale="lowrank", rank=2, conditioner=conditioner)
    problem = vi.functional(jax.random.key(0), gaussian, guide)
    bound = vi.elbo(problem.model, problem.guide, entropy="analytic")
    step = jax.jit(bound.value_and_grad)
    for raw in (-60.0, -1e-30, 0.0) if conditioner != "linear" else (-1e-20, -2.0, 0.0):
        params = problem.params | {"auto_scale": jnp.full(D, raw)}
        assert all(jnp.isfinite(x).all() for x in jax.tree.leaves(step(jax.random.key(1), params)))


def discrete():
    numpyro.sample("c", dist.Bernoulli(0.3))


def mixed():
    numpyro.sample("c", dist.Bernoulli(0.3))
    numpyro.sample("x", dist.Normal(0, 1))


def empty():
    numpyro.sample("x", dist.Normal(0, 1), obs=1.0)


@pytest.mark.errors
@pytest.mark.parametrize(
    ("model", "text"),
    [(discrete, "vi.AutoDiscrete"), (mixed, "AutoGuideList"), (empty, "no latent site")],
)
def test_models_that_it_cannot_serve_are_refused(model, text):
    for guide in (vi.GaussianGuide(model), vi.PathfinderGuide(model)):
        with pytest.raises(ValueError, match=text):
            vi.functional(jax.random.key(0), model, guide)


@pytest.mark.errors
def test_bad_options_are_named():
    with pytest.raises(ValueError, match="scale must be one of"):
        vi.GaussianGuide(gaussian, scale="diagonal")
    with pytest.raises(ValueError, match="conditioner must be one of"):
        vi.GaussianGuide(gaussian, conditioner="relu")
    with pytest.raises(ValueError, match="rank belongs to"):
        vi.GaussianGuide(gaussian, rank=2)
    with pytest.raises(ValueError, match="rank must be at least 1, got 0"):
        vi.GaussianGuide(gaussian, scale="lowrank", rank=0)
    with pytest.raises(ValueError, match="exceeds the 5 dimensions"):
        vi.functional(
            jax.random.key(0), gaussian, vi.GaussianGuide(gaussian, scale="lowrank", rank=6)
        )
    with pytest.raises(ValueError, match="init_scale must be positive"):
        vi.GaussianGuide(gaussian, init_scale=0.0)
    with pytest.raises(ValueError, match="the parameters are"):
        vi.functional(
            jax.random.key(0), gaussian, vi.GaussianGuide(gaussian), init_params={"locs": MEAN}
        )
    with pytest.raises(ValueError, match="has a numpyro.param site"):
        vi.functional(jax.random.key(0), empty, empty)


def test_improper_priors_are_welcome():
    def model():
        mean = numpyro.sample("mean", dist.ImproperUniform(dist.constraints.real, (), ()))
        numpyro.sample("y", dist.Normal(mean, 1.0), obs=2.0)

    guide = vi.GaussianGuide(model, init_scale=1.0)
    problem = vi.functional(jax.random.key(0), model, guide)
    bound = vi.elbo(problem.model, problem.guide, entropy="stl")
    result = vi.fit(jax.random.key(1), bound, problem.params, optax.adam(0.05), 500)
    np.testing.assert_allclose(guide.median(problem.constrain(result.params))["mean"], 2, atol=0.05)


@pytest.mark.parametrize(
    ("scale", "conditioner"),
    [*((scale, "softplus") for scale in SCALES), ("fullrank", "exp"), ("lowrank", "linear")],
)
def test_the_distribution_is_the_dense_gaussian(scale, conditioner):
    guide, problem = prepared(
        hierarchy, READINGS, scale=scale, conditioner=conditioner, init_scale=1.0
    )
    posterior = guide.get_posterior(problem.constrain(problem.params))
    want = dist.MultivariateNormal(posterior.mean, dense(posterior))
    values = want.sample(jax.random.key(1), (7,))
    np.testing.assert_allclose(posterior.log_prob(values), want.log_prob(values), rtol=1e-8)
    np.testing.assert_allclose(posterior.entropy(), want.entropy(), rtol=1e-9)
    np.testing.assert_allclose(posterior.variance, jnp.diag(dense(posterior)), rtol=1e-9)
    draws = posterior.sample(jax.random.key(2), (20_000,))
    error = jnp.cov(draws.T) - dense(posterior)
    spread = jnp.sqrt(jnp.diag(dense(posterior)))
    assert jnp.abs(error / jnp.outer(spread, spread)).max() < 5 * np.sqrt(2 / len(draws))
    transform = guide.get_transform(problem.constrain(problem.params))
    tril = transform.scale_tril
    np.testing.assert_allclose(tril @ tril.T, dense(posterior), rtol=1e-8, atol=1e-10)
