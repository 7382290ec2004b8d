"""Distribution transformers: exact updates of mixtures, symmetries, densities and training."""

import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.distributions import constraints
from numpyro.infer import MCMC, NUTS
from scipy.special import logsumexp
from scipy.stats import invgamma, multivariate_normal

import bayesjx
from bayesjx import amortized

S, D, K, N = 2, 3, 5, 7


def mixture_of(rng, dtype, k=K, s=S, lead=()):
    tril = np.tril(0.5 * rng.normal(size=(*lead, k, s, s)), -1)
    tril = tril + np.exp(0.3 * rng.normal(size=(*lead, k, 1, s))) * np.eye(s)
    parts = rng.normal(size=(*lead, k)), rng.normal(size=(*lead, k, s)), tril
    return amortized.GaussianMixture(*(part.astype(dtype) for part in parts))


def network_of(dtype=np.float64, seed=0, **options):
    """A network whose weights are random, the outputs too, so that it does something."""
    made = amortized.DistributionTransformer(
        S, D, K, key=jax.random.key(seed), width=8, depth=2, encoder_depth=1, heads=2, **options
    )
    rng = np.random.default_rng(seed)

    def changed(leaf):
        return jnp.asarray(leaf + 0.3 * rng.normal(size=leaf.shape), dtype)

    arrays, rest = eqx.partition(eqx.tree_at(lambda m: m.scalings, made, None), eqx.is_array)
    scalings = jax.tree.map(lambda leaf: leaf.astype(dtype), made.scalings)
    whole = eqx.combine(jax.tree.map(changed, arrays), rest)
    return eqx.tree_at(lambda m: m.scalings, whole, scalings, is_leaf=lambda x: x is None)


def close(got, want, tol):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tol), got, want)


def test_the_exact_update_is_that_of_each_component(dtype, tol):
    rng = np.random.default_rng(1)
    prior = mixture_of(rng, dtype, 3, S, (2,))
    p = 3
    z, design = rng.normal(size=(2, p)).astype(dtype), rng.normal(size=(p, S)).astype(dtype)
    noise_cov = np.diag([0.3, 1.0, 2.0]).astype(dtype) + np.asarray(0.1, dtype)

    @jax.jit
    def run(prior):
        batch = amortized.condition_mixture(prior, z, design, noise_cov)
        each = jax.vmap(lambda m, z: amortized.condition_mixture(m, z, design, noise_cov))(prior, z)
        return batch, each, (prior.mean, prior.covariance)

    (posterior, log_evidence), each, _ = run(prior)
    close(each, (posterior, log_evidence), tol)
    assert posterior.loc.dtype == log_evidence.dtype == dtype
    for b in range(2):
        log_weights = []
        for j in range(3):
            loc, tril = (
                np.asarray(prior.loc[b, j], float),
                np.asarray(prior.scale_tril[b, j], float),
            )
            cov = tril @ tril.T
            spread = design @ cov @ design.T + noise_cov
            gain = np.linalg.solve(spread, design @ cov).T
            log_weights.append(
                float(prior.log_weights[b, j])
                + multivariate_normal.logpdf(z[b], design @ loc, spread)
            )
            np.testing.assert_allclose(
                posterior.loc[b, j], loc + gain @ (z[b] - design @ loc), **tol
            )
            got = posterior.scale_tril[b, j] @ posterior.scale_tril[b, j].T
            np.testing.assert_allclose(got, cov - gain @ design @ cov, **tol)
        total = logsumexp(log_weights)
        np.testing.assert_allclose(log_evidence[b], total, **tol)
        np.testing.assert_allclose(posterior.log_weights[b], log_weights - total, **tol)


def test_exact_updates_and_predictions_of_one_component_are_the_kalman_filter():
    rng = np.random.default_rng(2)
    steps, p = 5, 1
    transition = np.array([[1.0, 0.4], [-0.2, 0.9]])
    noise_cov = np.array([[0.3, 0.1], [0.1, 0.2]])
    design, var = np.array([[1.0, 0.5]]), np.array([[0.4]])
    z = rng.normal(size=(steps, p))
    prior = mixture_of(rng, np.float64, 1)

    @jax.jit
    def run(prior):
        def step(mixture, z):
            after, log_evidence = amortized.condition_mixture(mixture, z, design, var)
            return amortized.propagate_mixture(after, transition, noise_cov), (after, log_evidence)

        return jax.lax.scan(step, prior, z)[1]

    after, log_evidence = run(prior)
    # All states at once: a dense Gaussian.
    blocks = [np.linalg.matrix_power(transition, t) for t in range(steps)]
    tril = np.asarray(prior.scale_tril[0])
    mean = np.concatenate([block @ prior.loc[0] for block in blocks])
    lower = np.block(
        [
            [blocks[t - u] if u <= t else np.zeros((S, S)) for u in range(steps)]
            for t in range(steps)
        ]
    )
    inner = np.kron(np.eye(steps), noise_cov)
    inner[:S, :S] = tril @ tril.T
    cov = lower @ inner @ lower.T
    seen = np.kron(np.eye(steps), design)
    spread = seen @ cov @ seen.T + np.kron(np.eye(steps), var)
    gain = np.linalg.solve(spread, seen @ cov).T
    np.testing.assert_allclose(
        log_evidence.sum(), multivariate_normal.logpdf(z[:, 0], seen @ mean, spread), rtol=1e-9
    )
    np.testing.assert_allclose(
        after.loc[-1, 0], (mean + gain @ (z[:, 0] - seen @ mean))[-S:], rtol=1e-9
    )
    last = after.scale_tril[-1, 0] @ after.scale_tril[-1, 0].T
    np.testing.assert_allclose(last, (cov - gain @ seen @ cov)[-S:, -S:], rtol=1e-9)


@pytest.mark.parametrize("residual", [True, False], ids=["residual", "whole"])
def test_order_does_not_matter_and_no_observation_changes_nothing(dtype, residual):
    tol = {"rtol": 3e-4, "atol": 3e-5} if dtype == jnp.float32 else {"rtol": 1e-9, "atol": 1e-10}
    rng = np.random.default_rng(3)
    network = network_of(dtype, residual=residual)
    prior = mixture_of(rng, dtype, lead=(2,))
    z = rng.normal(size=(2, N, D)).astype(dtype)
    order, turned = rng.permutation(K), rng.permutation(N)
    mask = np.arange(N) < np.array([[3], [0]])
    holes = np.where(mask[..., None], z, np.nan)

    @jax.jit
    def run(network, prior, z):
        def permuted(m):
            return jax.tree.map(lambda a: a[:, order], m)

        first = jax.tree.map(lambda a: a[0], prior)
        return {
            "posterior": network.posterior(prior, z),
            "permuted": permuted(network.posterior(prior, z)),
            "of permuted": network.posterior(permuted(prior), z[:, turned]),
            "masked": network.posterior(prior, holes, mask=mask),
            "three": network.posterior(first, z[0, :3]),
            "vmapped": jax.vmap(network.posterior)(prior, z),
            "empty": network.posterior(prior, z[:, :0]),
            "embedded": network.embed(prior).mixture,
        }

    got = run(network, prior, z)
    assert got["posterior"].loc.dtype == dtype
    close(got["of permuted"], got["permuted"], tol)
    close(got["vmapped"], got["posterior"], tol)
    close(jax.tree.map(lambda a: a[0], got["masked"]), got["three"], tol)
    assert np.max(abs(got["posterior"].loc - got["embedded"].loc)) > 0.1
    start = got["embedded"]
    jax.tree.map(np.testing.assert_array_equal, got["empty"], start)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b[1]), got["masked"], start)
    if residual:
        close(start, prior, {"rtol": 1e-6, "atol": 1e-6})


def test_an_untrained_network_and_copies_leave_the_prior_as_it_is():
    rng = np.random.default_rng(4)
    network = amortized.DistributionTransformer(
        S, D, K, key=jax.random.key(0), width=8, depth=1, heads=2
    )
    prior, z = mixture_of(rng, np.float64, 2), rng.normal(size=(N, D))
    x = rng.normal(size=(11, S))
    zero = amortized.GaussianMixture(np.array([0.0, -np.inf]), prior.loc, prior.scale_tril)

    @jax.jit
    def run(network, prior, zero):
        copies = network.posterior(prior, z)
        gradient = jax.grad(
            lambda w: jnp.sum(
                network.posterior(eqx.tree_at(lambda m: m.log_weights, zero, w), z).log_prob(x)
            )
        )(zero.log_weights)
        hidden = network_of().embed(prior).hidden
        return copies, jax.vmap(copies.log_prob)(x), jax.vmap(prior.log_prob)(x), gradient, hidden

    copies, got, want, gradient, hidden = run(network, prior, zero)
    assert copies.num_components == K
    np.testing.assert_allclose(got, want, rtol=1e-10)
    assert np.all(np.isfinite(gradient))
    # Copies of a component are told apart, a little.
    apart = np.linalg.norm(hidden - hidden[:1], axis=-1)
    assert 0 < apart[2] < 0.2 * apart[1] and 0 < apart[4] < 0.2 * apart[1]


SUPPORTS = {
    "mixed": (constraints.positive, constraints.interval(-1.0, 3.0)),
    "bounded below": constraints.greater_than(-2.0),
    "real": constraints.real,
}


@pytest.mark.parametrize("name", SUPPORTS)
def test_posteriors_are_densities_on_the_support(name, dtype):
    rng = np.random.default_rng(5)
    network = network_of(dtype, support=SUPPORTS[name])
    prior = mixture_of(rng, dtype, 3)
    prior = eqx.tree_at(lambda m: m.scale_tril, prior, 0.4 * prior.scale_tril)
    z = rng.normal(size=(2, D)).astype(dtype)
    grid = np.linspace(-14, 14, 401)

    @jax.jit
    def run(network, prior, z, grid, key):
        posterior = network(prior, z)
        to = dist.biject_to(posterior.support)
        x = jnp.stack(jnp.meshgrid(grid, grid, indexing="ij"), -1)
        y, slopes = jax.jvp(to, (x,), (jnp.ones_like(x),))  # each coordinate by itself
        y = y.astype(x.dtype)  # NumPyro computes some in the widest type
        density = jnp.exp(posterior.log_prob(y)) * slopes.prod(-1).astype(x.dtype)
        draws = posterior.sample(key, (4000,))
        return y, density, draws, posterior.mean, posterior.variance, posterior.support(draws)

    y, density, draws, mean, variance, inside = run(
        network, prior, z, grid.astype(dtype), jax.random.key(1)
    )
    assert draws.dtype == mean.dtype == density.dtype == dtype
    assert draws.shape == (4000, S) and np.all(inside)
    mass = np.asarray(density, float) * (grid[1] - grid[0]) ** 2
    rtol = 2e-4 if dtype == jnp.float32 else 1e-6
    y = np.asarray(y, float)
    np.testing.assert_allclose(mass.sum(), 1, rtol=rtol)
    want = np.einsum("ij,ijs->s", mass, y)
    second = np.einsum("ij,ijs->s", mass, (y - want) ** 2)
    np.testing.assert_allclose(mean, want, rtol=10 * rtol, atol=10 * rtol)
    np.testing.assert_allclose(variance, second, rtol=20 * rtol)
    np.testing.assert_array_less(
        abs(np.asarray(draws, float).mean(0) - want), 5 * (second / 4000) ** 0.5
    )


def test_the_gradient_in_logits_is_weight_minus_responsibility():
    rng = np.random.default_rng(6)
    prior, x = mixture_of(rng, np.float64), rng.normal(size=S)

    def loss(logits):
        made = amortized.GaussianMixture(logits, prior.loc, prior.scale_tril)
        return -made.log_prob(x)

    logits = rng.normal(size=K)
    weights = np.exp(logits - logsumexp(logits))
    parts = [
        multivariate_normal.logpdf(x, loc, tril @ tril.T)
        for loc, tril in zip(np.asarray(prior.loc), np.asarray(prior.scale_tril), strict=True)
    ]
    responsibility = np.exp(logits + parts - logsumexp(logits + np.array(parts)))
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(logits), weights - responsibility, rtol=1e-9)


def test_distributions_of_numpyro_are_priors(getkey):
    rng = np.random.default_rng(7)
    mixture = mixture_of(rng, np.float64)
    network = network_of(support=constraints.positive)
    z = rng.normal(size=(2, D))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # an unknown range is no reason to warn
        posterior = network(mixture, z)
        again = network.embed(posterior).mixture
    want = network.posterior(mixture, z)
    close(again, want, {"rtol": 1e-9})
    independent = dist.LogNormal(mixture.loc[0], np.array([0.3, 2.0])).to_event(1)
    got = network.embed(independent).mixture
    np.testing.assert_allclose(got.scale_tril[1], np.diag([0.3, 2.0]))
    np.testing.assert_allclose(got.mean, mixture.loc[0])
    one = amortized.DistributionTransformer(1, 1, 1, key=getkey(), width=4, depth=1, heads=1)
    assert one.embed(dist.Normal(1.0, 2.0)).mixture.scale_tril[0, 0, 0] == 2


def test_a_posterior_is_a_site_of_a_model(getkey):
    """NUTS in a model whose prior is a posterior, against quadrature."""
    rng = np.random.default_rng(8)
    network = amortized.DistributionTransformer(
        1, 1, 2, key=getkey(), width=4, depth=1, heads=1, support=constraints.positive
    )
    prior = amortized.GaussianMixture(
        np.log([0.3, 0.7]), np.array([[-0.5], [0.8]]), np.array([[[0.4]], [[0.3]]])
    )
    posterior = network(prior, rng.normal(size=(1, 1)))

    def model():
        x = numpyro.sample("x", posterior)
        numpyro.sample("y", dist.Normal(x[0], 0.8), obs=1.4)

    mcmc = MCMC(NUTS(model), num_warmup=200, num_samples=1500, progress_bar=False)
    mcmc.run(getkey())
    draws = np.asarray(mcmc.get_samples()["x"])[:, 0]
    x = np.linspace(1e-3, 8, 4000)
    mass = np.exp(posterior.log_prob(x[:, None]) - 0.5 * ((x - 1.4) / 0.8) ** 2)
    mass = mass / mass.sum()
    mean, size = mass @ x, numpyro.diagnostics.effective_sample_size(draws[None])
    scale = (mass @ (x - mean) ** 2) ** 0.5
    assert abs(draws.mean() - mean) < 5 * scale / size**0.5


def meta_prior(key):
    u = jax.random.normal(key, (2,))
    return amortized.GaussianMixture(
        jnp.zeros(1), u[:1, None], jnp.exp(0.2 * u[1])[None, None, None]
    )


def simulator(key, x):
    return x + 0.5 * jax.random.normal(key, (3, 1))


def test_training_climbs_from_the_entropy_of_the_prior_and_filters(getkey):
    """A network that changes nothing scores minus the entropy of the prior, at each time."""
    network = amortized.DistributionTransformer.for_meta_prior(
        getkey(), meta_prior, simulator, num_components=2, width=8, depth=1, heads=2, num_tasks=200
    )
    dynamics = np.array([[-0.5]]), np.array([[0.75]])
    algorithm = amortized.transformer_training(
        network, meta_prior, simulator, optax.adam(1e-2), batch_size=400, min_observed=1,
        dynamics=dynamics, num_steps=2,
    )  # fmt: skip
    result = bayesjx.fit(getkey(), algorithm, algorithm.init(), 40)
    trained = bayesjx.trained(network, result.state)
    scale = np.exp(0.2 * np.random.default_rng(0).normal(size=100_000))
    # At time 1 the scale of the prior; at time 2 that of half of it, with noise.
    logs = np.log(scale) + 0.5 * np.log(0.25 * scale**2 + 0.75)
    want = -0.5 * np.log(2 * np.pi * np.e) - 0.5 * logs.mean()
    objective = np.asarray(result.info.objective)
    assert abs(objective[0] - want) < 5 * 0.6 / 400**0.5
    assert objective[-5:].mean() > objective[0] + 0.3
    z = np.random.default_rng(9).normal(size=(4, 3, 1))
    prior = amortized.GaussianMixture(np.zeros(1), np.zeros((1, 1)), np.ones((1, 1, 1)))
    filtered = eqx.filter_jit(trained.filter)(prior, z, *dynamics)
    second = trained.posterior(
        amortized.propagate_mixture(trained.posterior(prior, z[0]), *dynamics), z[1]
    )
    close(jax.tree.map(lambda a: a[1], filtered), second, {"rtol": 1e-9})
    with pytest.warns(UserWarning, match=r"outside .* loc\[0\] \(trained between"):
        trained(
            amortized.GaussianMixture(np.zeros(1), np.full((1, 1), 9.0), np.ones((1, 1, 1))), z[0]
        )
    assert trained.check(prior) == []


def of_parameters(phi):
    return dist.InverseGamma(*jnp.exp(phi))


def test_priors_by_their_parameters_are_learned_in_both_terms(getkey):
    """The objective is the sum of the log densities before and after the observations."""

    def parameters(key):
        return 1 + jax.random.uniform(key, (2,))

    def observed(key, x):
        return jnp.sqrt(x) * jax.random.normal(key, (N, 1))

    options = {"width": 8, "depth": 1, "heads": 2, "num_tasks": 500}
    network = amortized.DistributionTransformer.for_meta_prior(
        getkey(), parameters, observed, prior=of_parameters, num_components=2,
        support=constraints.positive, **options,
    )  # fmt: skip
    algorithm = amortized.transformer_training(
        network, parameters, observed, optax.adam(2e-2), prior=of_parameters, batch_size=200
    )
    result = bayesjx.fit(getkey(), algorithm, algorithm.init(), 100)
    trained = bayesjx.trained(network, result.state)
    phi, z = np.log([4.0, 5.0]), np.random.default_rng(10).normal(size=(2, N, 1))
    grid = np.linspace(-5, 5, 2001)

    @jax.jit
    def run(trained, z):
        before = trained.decode(trained.embed(phi))
        after = jax.vmap(lambda z: trained.posterior(phi, z))(z)
        return before.log_prob(jnp.exp(grid)[:, None]) + grid, after

    log_prior, after = run(trained, z)
    want = invgamma.logpdf(np.exp(grid), 4, scale=5) + grid
    divergence = np.sum(np.exp(want) * (want - log_prior)) * (grid[1] - grid[0])
    assert 0 <= divergence < 0.15
    # The objective is nearly what the exact prior and posterior would have.
    rng = np.random.default_rng(11)
    a, b = np.exp(1 + rng.uniform(size=(2, 9000)))
    x = invgamma.rvs(a, scale=b, random_state=rng)
    total = np.sum(x[:, None] * rng.normal(size=(9000, N)) ** 2, axis=1)
    exact = invgamma.logpdf(x, a, scale=b) + 2 * np.log(x)
    exact += invgamma.logpdf(x, a + N / 2, scale=b + total / 2)
    reached = np.mean(result.info.objective[-30:])
    assert exact.mean() - 0.3 < reached < exact.mean() + 0.1
    # More scattered observations mean a larger variance.
    wide, narrow = (trained.posterior(phi, scale * z[0]).mean[0] for scale in (2.0, 0.5))
    assert wide > narrow + 0.5
    assert trained.check(phi) == [] and len(trained.check(phi + 9)) == 2
    # A mixture is a prior of this network, too.
    assert trained.posterior(jax.tree.map(lambda a: a[0], after), z[0]).num_components == 2


BAD = {
    "support must be real": lambda made: amortized.DistributionTransformer(
        1, 1, 1, key=jax.random.key(0), support=constraints.simplex
    ),
    "heads must divide width": lambda made: amortized.DistributionTransformer(
        1, 1, 1, key=jax.random.key(0), width=6, heads=4
    ),
    "prior has 7 components, more than num_components = 5": lambda made: made.embed(
        mixture_of(np.random.default_rng(0), np.float64, 7)
    ),
    "prior must be of 2 latent variables": lambda made: made.embed(dist.Normal(0.0, 1.0)),
    "got Gamma": lambda made: made.embed(dist.Gamma(1.0, 1.0)),
    r"z must be observations of shape \(\*batch, n, 3\)": lambda made: made(
        mixture_of(np.random.default_rng(0), np.float64), np.zeros((4, 2))
    ),
    "z holds NaN": lambda made: made(
        mixture_of(np.random.default_rng(0), np.float64), np.full((4, D), np.nan)
    ),
    "simulator must return observations of 3 numbers": lambda made: amortized.transformer_training(
        made,
        lambda key: mixture_of(np.random.default_rng(0), np.float64),
        lambda key, x: x[None],
        optax.adam(1e-2),
    ),
    "prior must be given": lambda made: amortized.transformer_training(
        made, lambda key: jnp.zeros(2), simulator, optax.adam(1e-2)
    ),
    "noise_cov must have shape": lambda made: amortized.condition_mixture(
        mixture_of(np.random.default_rng(0), np.float64), np.zeros(1), np.ones((1, S)), np.ones(1)
    ),
    "loc must have shape": lambda made: amortized.GaussianMixture(
        np.zeros(3), np.zeros((2, 1)), np.ones((2, 1, 1))
    ),
    "positive diagonal": lambda made: amortized.GaussianMixture(
        np.zeros(2), np.zeros((2, 1)), -np.ones((2, 1, 1))
    ),
}


@pytest.mark.errors
@pytest.mark.parametrize("text", BAD)
def test_bad_calls_are_named(text):
    with pytest.raises(ValueError, match=text):
        BAD[text](network_of())
