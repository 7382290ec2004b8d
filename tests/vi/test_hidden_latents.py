"""Automatic guides where a mask hides latents, or where supports depend on other latents."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from numpyro import handlers
from numpyro.contrib.control_flow import scan
from numpyro.infer import Trace_ELBO
from scipy import stats

from bayesjx import vi

Y = np.array([0.3, 9.0, 2.1, 0.0])
SEEN = np.array([True, False, True, False])
PI = np.array([0.2, 0.3, 0.5])


def mixture(y, seen):
    with numpyro.plate("n", 4), handlers.mask(mask=seen):
        z = numpyro.sample("z", dist.Categorical(PI))
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def imputed(y, seen):
    """The classes of some are known."""
    with numpyro.plate("n", 4):
        known = jnp.array([0, 1, 2, 1])
        z = numpyro.sample("z", dist.Categorical(PI), obs=known, obs_mask=seen)
        numpyro.sample("y", dist.Normal(z, 1.0), obs=y)


def joint(y):
    """p(z, y) of one element, over the classes."""
    return PI * stats.norm(np.arange(3), 1.0).pdf(y)


def logits_of(table):
    return {"z_auto_logits": jnp.asarray(table), "z_unobserved_auto_logits": jnp.asarray(table)}


@pytest.mark.parametrize(
    ("model", "loss"), [(mixture, "ours"), (imputed, "ours"), (mixture, "numpyro")]
)
def test_a_discrete_guide_leaves_out_what_is_hidden(model, loss):
    """At any parameters the bound is that of the elements that are there, by enumeration."""
    table = np.random.default_rng(0).normal(size=(4, 3))
    q = np.exp(table) / np.exp(table).sum(-1, keepdims=True)
    latent = SEEN if model is mixture else ~SEEN
    want = sum(np.sum(q[i] * np.log(joint(Y[i]) / q[i])) for i in range(4) if latent[i])
    if model is imputed:
        want += sum(np.log(joint(Y[i])[[0, 1, 2, 1][i]]) for i in range(4) if SEEN[i])
    guide = vi.AutoDiscrete(model)
    data = jnp.asarray(Y), jnp.asarray(SEEN)
    with handlers.seed(rng_seed=0):
        guide(*data)
    params = logits_of(table)
    if loss == "ours":
        got = -vi.SVILoss().loss(jax.random.key(0), params, model, guide, *data)
        np.testing.assert_allclose(got, want, rtol=1e-10)
    else:
        elbo = Trace_ELBO(num_particles=2000)
        run = jax.jit(lambda key: -elbo.loss(key, params, model, guide, *data))
        got = np.array([run(jax.random.key(i)) for i in range(8)])
        assert abs(got.mean() - want) < 5 * got.std(ddof=1) / np.sqrt(8) + 1e-6


def test_other_masks_reach_the_guide_at_each_call():
    """The mask is data of the call, not that of the first one; also in a minibatch."""
    guide = vi.AutoDiscrete(mixture)
    problem = vi.functional(jax.random.key(0), mixture, guide, jnp.asarray(Y), jnp.asarray(SEEN))
    bound = jax.jit(vi.elbo(problem.model, problem.guide).estimate)
    every = {"z_auto_logits": jnp.log(np.stack([joint(y) for y in Y]))}
    for seen in (SEEN, ~SEEN, SEEN & False):
        want = sum(np.log(joint(y).sum()) for y in Y[seen])
        got = bound(jax.random.key(1), every, jnp.asarray(Y), jnp.asarray(seen))
        np.testing.assert_allclose(got, want, rtol=1e-10, atol=1e-12)

    def batches(y, seen):
        with numpyro.plate("n", 4, subsample_size=2) as rows, handlers.mask(mask=seen[rows]):
            z = numpyro.sample("z", dist.Categorical(PI))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y[rows])

    part = vi.functional(
        jax.random.key(0), batches, vi.AutoDiscrete(batches), jnp.asarray(Y), jnp.asarray(SEEN)
    )
    bound = vi.elbo(part.model, part.guide)
    keys = jax.random.split(jax.random.key(3), 64)
    got = jax.jit(jax.vmap(lambda k: bound.estimate(k, every, jnp.asarray(Y), jnp.asarray(SEEN))))(
        keys
    )
    # Two of four elements, scaled by two: each pair has a value of its own.
    single = np.where(SEEN, [np.log(joint(y).sum()) for y in Y], 0.0)
    pairs = {round(2 * (single[i] + single[j]), 8) for i in range(4) for j in range(i)}
    assert set(np.round(np.asarray(got), 8)) == pairs


def chain(y, seen):
    """Gaussian latents, of which some are hidden."""
    mu = numpyro.sample("mu", dist.Normal(0.0, 2.0))
    with numpyro.plate("n", 4), handlers.mask(mask=seen):
        z = numpyro.sample("z", dist.LogNormal(mu, 1.0))
        numpyro.sample("y", dist.Normal(jnp.log(z), 0.5), obs=y)


def evidence(seen):
    n = seen.sum()
    cov = 4.0 * np.ones((n, n)) + 1.25 * np.eye(n)
    return stats.multivariate_normal(np.zeros(n), cov).logpdf(Y[seen])


def loss_of(model, guide, *args, objective=vi.elbo, draws=16):
    """A function from constrained parameters to values of a bound."""
    with handlers.seed(rng_seed=0):
        guide(*args)
    keys = jax.random.split(jax.random.key(2), draws)
    loss = vi.SVILoss(objective)
    one = lambda params, key: -loss.loss(key, params, model, guide, *args)  # noqa: E731
    run = jax.jit(lambda params: jax.vmap(lambda key: one(params, key))(keys))
    return lambda params: np.asarray(run(params))


def test_a_gaussian_guide_leaves_out_what_is_hidden():
    """At the posterior, which a full-rank guide holds, the bound is the evidence without noise."""
    # Precision of (mu, log z); hidden elements are independent standard normals.
    precision = np.diag([0.25 + SEEN.sum(), *np.where(SEEN, 5.0, 1.0)])
    precision[0, 1:] = precision[1:, 0] = -1.0 * SEEN
    mean = np.linalg.solve(precision, np.concatenate([[0.0], np.where(SEEN, 4.0 * Y, 0.0)]))
    tril = np.linalg.cholesky(np.linalg.inv(precision))
    params = {
        "auto_loc": jnp.asarray(mean),
        "auto_scale": jnp.asarray(np.diag(tril)),
        "auto_lower": jnp.asarray(np.tril(tril, -1)),
    }
    guide = vi.GaussianGuide(chain, scale="fullrank")
    data = jnp.asarray(Y), jnp.asarray(SEEN)
    bound = loss_of(chain, guide, *data, draws=4000)
    values = bound(params)
    np.testing.assert_allclose(values, evidence(SEEN), rtol=1e-9)
    draws = guide.sample_posterior(jax.random.key(0), params, sample_shape=(3,))
    assert draws["z"].shape == (3, 4) and np.all(draws["z"] > 0)
    # Nothing is gained by larger scales of what is hidden: the slope is that of a divergence.
    scale = params["auto_scale"].at[1:].set(jnp.where(SEEN, params["auto_scale"][1:], 3.0))
    value = bound({**params, "auto_scale": scale})
    gap = 2 * (0.5 * (9.0 - 1) - np.log(3.0))
    error = value.std() / np.sqrt(len(value))
    assert abs(value.mean() + gap - evidence(SEEN)) < 5 * error


@pytest.mark.parametrize("entropy", ["analytic", "stl"])
def test_other_entropies_leave_it_out_too(entropy):
    guide = vi.GaussianGuide(chain, scale="structured", init_scale=2.0)
    data = jnp.asarray(Y), jnp.asarray(SEEN)
    problem = vi.functional(jax.random.key(0), chain, guide, *data)
    params = problem.constrain(problem.params)
    plain, other = (
        loss_of(chain, guide, *data, objective=o, draws=2000)(params)
        for o in (vi.elbo, lambda model, guide: vi.elbo(model, guide, entropy))
    )
    error = np.std(plain - other) / np.sqrt(len(plain))
    assert abs(np.mean(plain - other)) <= 5 * error + 1e-9
    assert np.mean(other) < evidence(SEEN)


def test_masks_inside_of_events_and_static_ones():
    def model(y):
        numpyro.sample("unused", dist.HalfNormal(1.0).mask(False))
        x = numpyro.sample("x", dist.Normal(0.0, 1.0).mask(False))  # an improper prior
        numpyro.factor("prior", dist.Normal(3.0, 0.5).log_prob(x))
        part = dist.Normal(jnp.zeros(4), 1.0).mask(jnp.asarray(SEEN)).to_event(1)
        z = numpyro.sample("z", part)
        numpyro.sample("y", dist.Normal(z, 1.0).mask(SEEN), obs=y)

    loc = np.concatenate([[0.0, 3.0], np.where(SEEN, Y / 2, 0.0)])
    scale = np.concatenate([[1.0, 0.5], np.where(SEEN, np.sqrt(0.5), 1.0)])
    params = {"auto_loc": jnp.asarray(loc), "auto_scale": jnp.asarray(scale)}
    values = loss_of(model, vi.GaussianGuide(model), jnp.asarray(Y))(params)
    want = stats.norm(0, np.sqrt(2)).logpdf(Y[SEEN]).sum()
    np.testing.assert_allclose(values, want, rtol=1e-9)


def interval(y):
    a = numpyro.sample("a", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Uniform(a, a + 2).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(b, 0.5).to_event(1), obs=y)


def interval_evidence(y):
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    inside = [stats.norm.cdf((nodes + 2 - v) / 0.5) - stats.norm.cdf((nodes - v) / 0.5) for v in y]
    return np.log(np.sum(weights / np.sqrt(2 * np.pi) * np.prod(inside, axis=0) / 4))


def test_supports_that_depend_on_other_sites():
    y = jnp.array([1.0, 1.9])
    guide = vi.GaussianGuide(interval)
    params = {"auto_loc": jnp.array([0.5, -0.5, 0.5]), "auto_scale": jnp.array([0.7, 1.2, 1.2])}
    want = interval_evidence(np.asarray(y))
    tight = loss_of(
        interval,
        guide,
        y,
        objective=lambda model, guide: vi.iwelbo(model, guide, 500),
        draws=50,
    )(params)
    assert abs(np.mean(tight) - want) < 5 * np.std(tight) / np.sqrt(50) + 5e-3
    draws = guide.sample_posterior(jax.random.key(0), params, sample_shape=(50,))
    inside = (draws["b"] > draws["a"][:, None]) & (draws["b"] < draws["a"][:, None] + 2)
    assert np.all(inside) and np.ptp(draws["a"]) > 1


def test_a_support_that_depends_on_the_data_is_that_of_the_call():
    def model(top):
        numpyro.sample("u", dist.Uniform(0.0, top))

    problem = vi.functional(jax.random.key(0), model, vi.GaussianGuide(model), jnp.asarray(1.0))
    draws = vi.sample(
        jax.random.key(1), problem.guide, problem.params, jnp.asarray(50.0), num_samples=20
    )
    assert draws["u"].max() > 2.0


def test_a_mask_that_depends_on_a_latent_of_the_guide():
    """The number of objects, and which of them there are."""

    def model(y):
        n = numpyro.sample("n", dist.Categorical(jnp.array([0.5, 0.5])))
        with numpyro.plate("objects", 2), handlers.mask(mask=jnp.arange(2) <= n):
            z = numpyro.sample("z", dist.Bernoulli(0.3))
            numpyro.sample("y", dist.Normal(z, 1.0), obs=y)

    y = np.array([0.4, 1.3])
    each = np.array([0.7 * stats.norm(0).pdf(v) + 0.3 * stats.norm(1).pdf(v) for v in y])
    odds = np.log(0.3 * stats.norm(1).pdf(y)) - np.log(0.7 * stats.norm(0).pdf(y))
    weights = np.array([0.5 * each[0], 0.5 * each[0] * each[1]])
    params = {"n_auto_logits": jnp.log(weights), "z_auto_logits": jnp.asarray(odds)}
    got = -vi.SVILoss().loss(
        jax.random.key(0), params, model, vi.AutoDiscrete(model), jnp.asarray(y)
    )
    np.testing.assert_allclose(got, np.log(weights.sum()), rtol=1e-10)


@pytest.mark.errors
def test_a_mask_that_depends_on_a_latent_of_another_guide_is_refused():
    def model():
        n = numpyro.sample("n", dist.Categorical(jnp.ones(3) / 3))
        with numpyro.plate("objects", 3), handlers.mask(mask=jnp.arange(3) <= n):
            numpyro.sample("x", dist.Normal(0.0, 1.0))
            numpyro.sample("flag", dist.Bernoulli(0.5))

    for make, hidden in ((vi.GaussianGuide, ["n", "flag"]), (vi.AutoDiscrete, ["n", "x"])):
        guide = make(handlers.block(model, hide=hidden))
        with handlers.seed(rng_seed=0), pytest.raises(ValueError, match="depends on a latent that"):
            guide()


def test_steps_of_a_scan_may_be_hidden_and_have_moving_supports():
    def model(y, seen):
        def step(last, inputs):
            y, seen = inputs
            with handlers.mask(mask=seen):
                x = numpyro.sample("x", dist.Uniform(last, last + 2.0))
                numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
            return jnp.where(seen, x, last), None

        scan(step, jnp.zeros(()), (y, seen))

    y, seen = jnp.array([0.5, 7.0, 1.5]), jnp.array([True, False, True])
    params = {"auto_loc": jnp.array([-0.5, 0.0, 0.0]), "auto_scale": jnp.array([1.0, 1.0, 1.0])}
    bound = lambda model, guide: vi.iwelbo(model, guide, 400)  # noqa: E731
    got = loss_of(model, vi.GaussianGuide(model), y, seen, objective=bound, draws=50)(params)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    first, second = nodes + 1.0, (nodes + 1.0)[None] + (nodes + 1.0)[:, None]
    density = stats.norm(first, 1.0).pdf(0.5)[:, None] * stats.norm(second, 1.0).pdf(1.5)
    want = np.log(weights @ density @ weights / 4)
    assert abs(got.mean() - want) < 5 * got.std() / np.sqrt(50) + 5e-3
