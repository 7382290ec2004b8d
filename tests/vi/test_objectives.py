"""The objective library against quadrature, enumeration and closed forms."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
from jax.scipy.special import logsumexp
from monte_carlo import assert_mean, draws, z_score

from bayesjx import vi

Y = 1.3
POINT = jnp.array([0.6, -0.3, 1.1])  # guide's location and log scale, model's slope
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def model(p):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z * p[2], 0.7), obs=Y)


def guide(p):
    numpyro.sample("z", dist.Normal(p[0], jnp.exp(p[1])))


def log_joint(p, z):
    return dist.Normal(0.0, 1.0).log_prob(z) + dist.Normal(z * p[2], 0.7).log_prob(Y)


def log_evidence(p):
    return dist.Normal(0.0, jnp.sqrt(p[2] ** 2 + 0.49)).log_prob(Y)


def posterior(p):
    precision = 1 + p[2] ** 2 / 0.49
    return dist.Normal(p[2] * Y / 0.49 / precision, precision**-0.5)


def quadrature(p, combine):
    """Mean of `combine(l_1, l_2)` over two draws, by their log weights."""
    z = p[0] + jnp.exp(p[1]) * NODES
    log_w = log_joint(p, z) - dist.Normal(p[0], jnp.exp(p[1])).log_prob(z)
    return jnp.sum(WEIGHTS[:, None] * WEIGHTS * combine(log_w[:, None], log_w[None]))


def power_mean(power):
    return lambda a, b: (jnp.logaddexp(power * a, power * b) - jnp.log(2)) / power


def divergence(p, q):
    """KL of two normals."""
    ratio = (p.scale / q.scale) ** 2
    return 0.5 * (ratio + ((p.loc - q.loc) / q.scale) ** 2 - 1 - jnp.log(ratio))


def normal_guide(p):
    return dist.Normal(p[0], jnp.exp(p[1]))


EXACT = {
    "elbo": (vi.elbo(model, guide), lambda p: quadrature(p, lambda a, b: a)),
    "iwelbo1": (vi.iwelbo(model, guide, 1), lambda p: quadrature(p, lambda a, b: a)),
    "iwelbo2": (vi.iwelbo(model, guide, 2), lambda p: quadrature(p, power_mean(1.0))),
    "dreg2": (
        vi.iwelbo(model, guide, 2, gradient="dreg"),
        lambda p: quadrature(p, power_mean(1.0)),
    ),
    "renyi2": (vi.renyi(model, guide, 0.5, 2), lambda p: quadrature(p, power_mean(0.5))),
    "renyi_above_1": (vi.renyi(model, guide, 1.5, 2), lambda p: quadrature(p, power_mean(-0.5))),
    "chi_square2": (vi.chi_square(model, guide, 2.0, 2), lambda p: quadrature(p, power_mean(2.0))),
    "thermodynamic01": (
        vi.thermodynamic(model, guide, 4, (0, 1)),
        lambda p: quadrature(p, lambda a, b: a),
    ),
}


@pytest.mark.parametrize("name", EXACT)
def test_value_and_gradient_are_those_of_the_formula(name):
    objective, exact = EXACT[name]
    value, gradient = draws(lambda key: objective.value_and_grad(key, POINT), 10_000)
    assert_mean(value, exact(POINT), relative_error=0.02)
    assert_mean(gradient, np.asarray(jax.grad(exact)(POINT)))
    assert np.all(gradient.std(0) < 10)


def test_renyi_of_order_zero_is_the_importance_bound():
    key = jax.random.key(0)
    renyi = vi.renyi(model, guide, 0.0, 5).value_and_grad(key, POINT)
    iwelbo = vi.iwelbo(model, guide, 5).value_and_grad(key, POINT)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12), renyi, iwelbo)


def test_dreg_has_much_less_variance_than_the_standard_gradient():
    near = jnp.array([posterior(POINT).loc + 0.05, jnp.log(posterior(POINT).scale) + 0.1, 1.1])
    spread = {}
    for name in ("standard", "dreg"):
        objective = vi.iwelbo(model, guide, 5, gradient=name)
        _, gradient = draws(lambda key: objective.value_and_grad(key, near), 2_000)  # noqa: B023
        spread[name] = gradient
    error = (spread["standard"].var(0) / 2_000 + spread["dreg"].var(0) / 2_000) ** 0.5
    difference = spread["standard"].mean(0) - spread["dreg"].mean(0)
    assert np.all(np.abs(difference) < 4 * error)
    ratio = spread["dreg"].var(0)[:2] / spread["standard"].var(0)[:2]
    assert np.all(ratio < 0.05)


def test_bounds_are_ordered_and_valid():
    truth = float(log_evidence(POINT))
    lower = [
        draws(lambda key, objective=objective: objective.estimate(key, POINT), 8_000)
        for objective in (vi.elbo(model, guide), *(vi.iwelbo(model, guide, k) for k in (2, 8, 32)))
    ]
    for worse, better in itertools.pairwise(lower):
        error = np.hypot(worse.std(), better.std()) / 8_000**0.5
        assert better.mean() - worse.mean() > 3 * error
    assert all(z_score(sample, truth) < 3 for sample in lower)
    tvo = draws(lambda k: vi.thermodynamic(model, guide, 256).estimate(k, POINT), 500)
    above = draws(lambda k: vi.thermodynamic(model, guide, 256, upper=True).estimate(k, POINT), 500)
    chi = draws(lambda k: vi.chi_square(model, guide, 2.0, 256).estimate(k, POINT), 500)
    assert lower[0].mean() < tvo.mean() < truth < above.mean()
    assert chi.mean() > truth + 0.01


# forward divergences


def test_wake_objectives_have_the_gradient_of_the_forward_divergence():
    q = jnp.array([0.8, -0.4, 1.1])
    wanted = jax.grad(lambda p: divergence(posterior(q), normal_guide(p)))(q)[:2]
    for objective, sign in (
        (vi.wake_guide(model, guide, 400), -1.0),
        (vi.forward_kl(model, guide, 400), 1.0),
    ):
        value, gradient = draws(lambda key: objective.value_and_grad(key, q), 1_500)  # noqa: B023
        assert_mean(sign * gradient[:, :2], np.asarray(wanted))
        assert not np.any(gradient[:, 2])  # the model's parameter is none of the guide's business
    assert_mean(value, divergence(posterior(q), normal_guide(q)))


def test_forward_kl_is_an_upper_bound_with_few_particles():
    # Of the divergence from the resampled distribution to the guide, so never negative in mean.
    value = draws(lambda key: vi.forward_kl(model, guide, 2).estimate(key, POINT), 5_000)
    assert z_score(value, 0.0) > 3


def test_the_wake_phase_of_the_model_climbs_the_evidence():
    wanted = jax.grad(log_evidence)(POINT)[2]
    for objective in (
        vi.wake_model(model, guide, 300),
        vi.wake_posterior(model, guide, 300),
    ):
        value, gradient = draws(lambda key: objective.value_and_grad(key, POINT), 3_000)  # noqa: B023
        assert np.all(value.mean() < log_evidence(POINT) + 3 * value.std() / 3_000**0.5)
        assert abs(z_score(gradient[:, 2], wanted)) < 4.5
    assert not np.any(gradient[:, :2])
    few = draws(lambda key: vi.wake_posterior(model, guide, 2).estimate(key, POINT), 5_000)
    assert_mean(few, EXACT["iwelbo2"][1](POINT))


def test_symmetric_kl_is_the_sum_of_both_divergences():
    def exact(p):
        q, true = normal_guide(p), posterior(p)
        return divergence(q, true) + divergence(jax.lax.stop_gradient(true), q)

    def objective(key):
        return vi.symmetric_kl(model, guide, 300).value_and_grad(key, POINT)

    value, gradient = draws(objective, 3_000)
    # The self-normalised half is off by about 1/300 of the divergence.
    slack = 0.01
    error = value.std() / 3_000**0.5
    assert abs(value.mean() - exact(POINT)) < slack + 4.5 * error
    wanted = np.asarray(jax.grad(exact)(POINT))[:2]
    error = gradient[:, :2].std(0) / 3_000**0.5
    assert np.all(np.abs(gradient[:, :2].mean(0) - wanted) < slack * np.abs(wanted) + 4.5 * error)


def test_sleep_fits_the_guide_to_simulated_data():
    def amortised(p, y):
        numpyro.sample("z", dist.Normal(p[0] + p[1] * y, 0.5))

    def simulator(p, y):
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(z, 0.7), obs=y)

    p = POINT[:2]
    for place in (1, "y"):
        objective = vi.sleep(simulator, amortised, {"y": place})
        args = (p, 0.0) if place == 1 else (p,)
        kwargs = {} if place == 1 else {"y": 0.0}
        value, gradient = draws(
            lambda key: objective.value_and_grad(key, *args, **kwargs),  # noqa: B023
            10_000,
        )
        assert_mean(gradient, np.array([-p[0] / 0.25, (1 - p[1] * 1.49) / 0.25]))
        squared = p[0] ** 2 + (1 - p[1]) ** 2 + p[1] ** 2 * 0.49
        log_scale = np.log(0.5) + 0.5 * np.log(2 * np.pi)
        assert_mean(value, -squared / 0.5 - log_scale)


# discrete latents


LOGITS = jnp.array([0.2, -0.4, 0.9, 0.3])
PRIOR = jnp.array([0.5, 0.2, 0.3])


def discrete_model(p):
    z = numpyro.sample("z", dist.Categorical(PRIOR))
    numpyro.sample("y", dist.Normal(p[3] * z, 0.6), obs=Y)


def discrete_guide(p):
    numpyro.sample("z", dist.Categorical(logits=p[:3]))


def tables(p):
    log_p = jnp.log(PRIOR) + dist.Normal(p[3] * jnp.arange(3), 0.6).log_prob(Y)
    return log_p, jax.nn.log_softmax(p[:3])


def enumerated(p, combine):
    log_p, log_q = tables(p)
    log_w = log_p - log_q
    weights = jnp.exp(log_q[:, None] + log_q)
    return jnp.sum(weights * combine(log_w[:, None], log_w[None]))


def thermodynamic_exact(p, grid, upper):
    log_p, log_q = tables(p)
    total = 0.0
    for beta, width in zip(grid[1:] if upper else grid[:-1], np.diff(grid), strict=True):
        weights = jax.nn.softmax((1 - beta) * log_q + beta * log_p)
        total += width * weights @ (log_p - log_q)
    return total


@pytest.mark.parametrize(
    "make, power",
    [
        (lambda: vi.iwelbo(discrete_model, discrete_guide, 2), 1.0),
        (lambda: vi.renyi(discrete_model, discrete_guide, 0.5, 2), 0.5),
        (lambda: vi.chi_square(discrete_model, discrete_guide, 2.0, 2), 2.0),
    ],
    ids=["iwelbo", "renyi", "chi_square"],
)
def test_score_function_sites_get_the_right_gradient(make, power):
    exact = lambda p: enumerated(p, power_mean(power))  # noqa: E731
    value, gradient = draws(lambda key: make().value_and_grad(key, LOGITS), 10_000)
    assert_mean(value, exact(LOGITS), relative_error=0.02)
    assert_mean(gradient, np.asarray(jax.grad(exact)(LOGITS)))
    assert np.all(gradient.std(0) / 100 < 0.05)


@pytest.mark.parametrize("upper", [False, True])
def test_thermodynamic_needs_no_strategy_for_discrete_sites(upper):
    grid = np.array([0.0, 0.1, 0.4, 1.0])
    exact = lambda p: thermodynamic_exact(p, grid, upper)  # noqa: E731
    objective = vi.thermodynamic(discrete_model, discrete_guide, 500, grid, upper)
    value, gradient = draws(lambda key: objective.value_and_grad(key, LOGITS), 1_000)
    wanted = np.asarray(jax.grad(exact)(LOGITS))
    for sample, truth in ((value, exact(LOGITS)), (gradient, wanted)):
        error = sample.std(0) / 1_000**0.5
        slack = 0.01 * np.abs(wanted).max()  # self-normalised weights: of order 1/500
        assert np.all(np.abs(sample.mean(0) - truth) < slack + 4.5 * error)


def test_wake_guide_needs_no_strategy_for_discrete_sites():
    def exact(p):
        log_p, log_q = tables(p)
        return jax.nn.softmax(jax.lax.stop_gradient(log_p)) @ log_q

    objective = vi.wake_guide(discrete_model, discrete_guide, 500)
    _, gradient = draws(lambda key: objective.value_and_grad(key, LOGITS), 1_000)
    wanted = np.asarray(jax.grad(exact)(LOGITS))
    error = gradient.std(0) / 1_000**0.5
    assert np.all(np.abs(gradient.mean(0) - wanted) < 0.005 + 4.5 * error)


def test_marginal_guides_go_through_the_wake_objectives():
    # The weights use the sampled estimate, the cross-entropy the evaluated one.
    def hierarchical(p):
        u = numpyro.sample("u", vi.reinforce(dist.Bernoulli(logits=p[0])))
        numpyro.sample("z", dist.Normal(p[1] + 1.5 * u, 0.8))

    def marginal_density(p, z):
        log_prob = jax.nn.log_sigmoid(jnp.array([-1, 1]) * p[0])
        distributions = [dist.Normal(p[1] + 1.5 * u, 0.8).log_prob(z) for u in (0, 1)]
        return logsumexp(
            jnp.stack([a + b for a, b in zip(log_prob, distributions, strict=True)]), axis=0
        )

    def exact(p):
        z = posterior(POINT).loc + posterior(POINT).scale * NODES
        return jnp.sum(WEIGHTS * marginal_density(p, z))

    q = jnp.array([0.3, -0.2, 1.1])
    program = vi.marginal_guide(hierarchical, "z", vi.exact())
    objective = vi.wake_guide(model, program, 300)
    value, gradient = draws(lambda key: objective.value_and_grad(key, q), 1_000)
    wanted = np.asarray(jax.grad(exact)(q))
    for sample, truth in ((value, exact(q)), (gradient, wanted)):
        error = sample.std(0) / 1_000**0.5
        assert np.all(np.abs(sample.mean(0) - truth) < 0.005 + 4.5 * error)
    rough = vi.wake_guide(model, vi.marginal_guide(hierarchical, "z", vi.sir(2)), 300)
    assert np.mean(draws(lambda key: rough.estimate(key, q), 500)) < exact(q)


# every objective

ALL = {
    "elbo": vi.elbo(model, guide),
    "iwelbo": vi.iwelbo(model, guide, 3),
    "dreg": vi.iwelbo(model, guide, 3, gradient="dreg"),
    "renyi": vi.renyi(model, guide, 0.5, 3),
    "chi_square": vi.chi_square(model, guide, 2.0, 3),
    "thermodynamic": vi.thermodynamic(model, guide, 3),
    "wake_model": vi.wake_model(model, guide, 3),
    "wake_guide": vi.wake_guide(model, guide, 3),
    "wake_posterior": vi.wake_posterior(model, guide, 3),
    "forward_kl": vi.forward_kl(model, guide, 3),
    "symmetric_kl": vi.symmetric_kl(model, guide, 3),
    "iwhvi": vi.iwhvi(
        model,
        lambda p: numpyro.sample(
            "z", dist.Normal(numpyro.sample("u", dist.Normal(p[0], 0.3)), jnp.exp(p[1]))
        ),
        "z",
        3,
    ),
}
LOSSES = {"chi_square", "forward_kl", "symmetric_kl"}


@pytest.mark.parametrize("name", ALL)
def test_every_objective_maps_compiles_and_keeps_the_dtype(name, dtype):
    objective = ALL[name]
    keys = jax.random.split(jax.random.key(0), 3)
    point = POINT.astype(dtype)

    @jax.jit
    def run(keys):
        one = lambda key: objective.value_and_grad(key, point)  # noqa: E731
        return jax.vmap(one)(keys), objective.estimate(keys[1], point)

    (value, gradient), alone = run(keys)
    assert value.dtype == gradient.dtype == dtype
    assert np.all(np.isfinite(value)) and np.all(np.isfinite(gradient))
    tol = 1e-4 if dtype == jnp.float32 else 1e-9
    np.testing.assert_allclose(value[1], alone, rtol=tol)
    assert objective.maximise == (name not in LOSSES)


@pytest.mark.errors
def test_bad_options_are_named():
    with pytest.raises(ValueError, match="alpha = 1 is the ELBO"):
        vi.renyi(model, guide, 1.0)
    with pytest.raises(ValueError, match="order must be at least 1"):
        vi.chi_square(model, guide, 0.5)
    for grid in ((0, 0.5), (0.1, 1), (0, 0.5, 0.5, 1), (0, 0.7, 0.3, 1), (1,), 3.0):
        with pytest.raises((ValueError, TypeError), match="increase from 0 to 1|inverse_temp"):
            vi.thermodynamic(model, guide, 4, grid)
    with pytest.raises(ValueError, match="two particles or more"):
        vi.thermodynamic(model, guide, 1)
    with pytest.raises((ValueError, TypeError), match='stl|"dreg"|gradient'):
        vi.iwelbo(model, guide, 4, gradient="stl")
    with pytest.raises(ValueError, match="local_plate"):
        vi.iwelbo(model, guide, 4, "plate", gradient="dreg")
    for make in (vi.iwelbo, vi.thermodynamic, vi.wake_guide, vi.forward_kl, vi.symmetric_kl):
        with pytest.raises(ValueError, match="num_particles must be at least 1, got 0"):
            make(model, guide, 0)
    for make in (vi.renyi, vi.chi_square):
        with pytest.raises(ValueError, match="num_particles must be at least 1, got 0"):
            make(model, guide, 2.0, 0)
    with pytest.raises(ValueError, match="model has no site 'w'"):
        vi.sleep(model, guide, {"w": 0}).estimate(jax.random.key(0), POINT)


@pytest.mark.errors
def test_estimated_densities_and_score_sites_are_refused_where_the_gradient_would_be_wrong():
    key = jax.random.key(0)
    with pytest.raises(ValueError, match="'z'.*reparameterised"):
        vi.iwelbo(discrete_model, discrete_guide, 3, gradient="dreg").estimate(key, LOGITS)

    def hierarchical(p):
        u = numpyro.sample("u", dist.Normal(p[0], 0.3))
        numpyro.sample("z", dist.Normal(u, jnp.exp(p[1])))

    program = vi.marginal_guide(hierarchical, "z", vi.sir(2))
    for objective in (
        vi.iwelbo(model, program, 3, gradient="dreg"),
        vi.thermodynamic(model, program, 3),
    ):
        with pytest.raises(ValueError, match="exact densities.*'z'"):
            objective.estimate(key, POINT)
