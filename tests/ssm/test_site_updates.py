"""Approximations: narrow likelihoods, orders, gaps, derivatives of any order, repeated calls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpyro import distributions as dist

from bayesjx import kernels, ssm

TIMES = np.array([0.0, 0.4, 0.4, 1.3, 2.0])
COUNTS = np.array([1, 0, 3, 2, 5])
METHODS = ("vi", "ep", "pl")


@pytest.mark.parametrize("method", METHODS)
def test_normal_noise_narrower_than_the_process_is_exact(method):
    y = jnp.array([1.0, -0.4, 0.3, 2.0, 4.0])

    @jax.jit
    def both(scale):
        kernel = kernels.Matern32(1.0, 2.0)
        likelihood = lambda f: dist.Normal(f, scale)  # noqa: E731
        prior = ssm.MarkovGP(kernel, TIMES)
        post = ssm.approximate(prior, y, likelihood, method, rate=1.0, atol=1e-6)
        exact = ssm.MarkovGP(kernel, TIMES, noise_var=scale**2)
        ours = post.state.mean, post.state.variance, post.log_evidence()
        return post.converged, ours, (*exact.condition(y).moments(), exact.log_prob(y))

    for scale, rtol in ((0.2, 1e-8), (1e-2, 1e-7), (1e-3, 1e-4)):
        converged, ours, exact = both(scale)
        assert converged
        for a, b in zip(ours, exact, strict=True):
            np.testing.assert_allclose(a, b, rtol=rtol)


def test_a_site_that_cannot_be_updated_is_no_convergence():
    prior = ssm.MarkovGP(kernels.Matern32(1.0), TIMES)
    normal = lambda f: dist.Normal(f, 1.0)  # noqa: E731
    algorithm = ssm.site_updates(prior, np.ones(5), normal, "ep", rate=1e-9)
    state = algorithm.init()
    for site in (0.5, 2.0):  # with cavities, and without
        sites = ssm.Sites(state.sites.linear, jnp.full(5, site))
        _, info = algorithm.step(None, state._replace(sites=sites))
        assert np.isinf(info.change) == (site > 1)


@pytest.mark.filterwarnings("ignore:times are not in order")
def test_likelihoods_see_values_in_the_order_of_the_observations():
    mixed = np.array([3, 0, 4, 2, 1])
    exposure = np.random.default_rng(0).uniform(0.5, 5, (5, 2))
    y = np.random.default_rng(1).poisson(exposure)
    mixing, kernel = np.array([[1.0], [0.5]]), [kernels.Matern32(1.0)]

    def approximated(order):
        prior = ssm.MarkovGP(kernel, TIMES[order], mixing=mixing)
        data = jnp.asarray(exposure[order].reshape(-1))
        return ssm.approximate(prior, y[order], lambda f: dist.Poisson(data * jnp.exp(f)), "pl")

    straight, crooked = approximated(np.arange(5)), approximated(mixed)
    np.testing.assert_allclose(crooked.log_evidence(), straight.log_evidence(), rtol=1e-10)
    for a, b in zip(jax.tree.leaves(crooked.state), jax.tree.leaves(straight.state), strict=True):
        np.testing.assert_allclose(a, b[mixed], rtol=1e-6, atol=1e-7)


def derivatives(answer):
    """First and second derivatives, forward and reverse, each with what it is, and how closely."""

    @jax.jit
    def both(at, direction):
        return jax.jvp(jax.value_and_grad(answer), (at,), (direction,))

    at, step, direction = np.array([0.1, 1.0]), 1e-4, np.array([1.0, -0.5])
    (_, slopes), (along, second) = both(at, direction)
    sides = [both(at + sign * step * direction, direction)[0] for sign in (1, -1)]
    values, gradients = zip(*sides, strict=True)
    yield along, (values[0] - values[1]) / (2 * step), 1e-6
    yield along, slopes @ direction, 1e-7  # to which sites are solved for
    yield second, (gradients[0] - gradients[1]) / (2 * step), 1e-6


def approximated(at, method):
    """Counts, whose rate and lengthscale are parameters."""
    rise, lengthscale = at
    prior = ssm.MarkovGP(kernels.Matern32(lengthscale, 0.8), TIMES)
    likelihood = lambda f: dist.Poisson(jnp.exp(f + rise))  # noqa: E731
    power = 0.5 if method == "ep" else 1.0
    options = {"atol": 1e-12, "max_steps": 400, "power": power}
    return ssm.approximate(prior, COUNTS, likelihood, method, **options)


def test_derivatives_of_any_order_are_those_of_the_whole():
    """Of the evidence, whose slope moves with the sites."""
    for got, want, rtol in derivatives(lambda at: approximated(at, "ep").log_evidence()):
        np.testing.assert_allclose(got, want, rtol=rtol)


def test_derivatives_of_moments_are_those_of_the_whole():
    """Of first order; `test_derivatives_at_other_times` has the second one, too."""

    @jax.jit
    @jax.value_and_grad
    def both(at):
        state = approximated(at, "ep").state
        return jnp.sum(state.mean) + jnp.sum(state.variance)

    at, step, direction = np.array([0.1, 1.0]), 1e-4, np.array([1.0, -0.5])
    up, down = (both(at + sign * step * direction)[0] for sign in (1, -1))
    np.testing.assert_allclose(both(at)[1] @ direction, (up - down) / (2 * step), rtol=1e-6)


@pytest.mark.nightly
@pytest.mark.parametrize("method", METHODS)
def test_derivatives_at_other_times_are_those_of_the_whole(method):
    def answer(at):
        post = approximated(at, method)
        return post.log_evidence() + jnp.sum(jnp.stack(post.moments(np.array([0.7]))))

    for got, want, rtol in derivatives(answer):
        np.testing.assert_allclose(got, want, rtol=rtol)


@pytest.mark.parametrize("method", METHODS)
def test_where_nothing_is_observed_the_prior_is_left(method):
    prior = ssm.MarkovGP(kernels.Matern32(1.0, 1.7), TIMES, mask=np.zeros(5, bool))
    binomial = lambda f: dist.Binomial(np.array([3, 9, 3, 4, 1]), logits=f)  # noqa: E731
    post = ssm.approximate(prior, np.full(5, -7), binomial, method)
    assert post.converged and post.log_evidence() == 0
    mean, variance = post.moments()
    np.testing.assert_allclose([mean[2], variance[2]], [0, 1.7], atol=1e-12)


def test_what_is_for_normal_noise_is_refused():
    prior = ssm.MarkovGP(kernels.Matern32(1.0), TIMES)
    sites = prior.condition(COUNTS, lambda f: dist.Poisson(jnp.exp(f))).posterior
    for call in (lambda: sites.predict(TIMES, noise_var=0.1), sites.leave_one_out):
        with pytest.raises(ValueError, match="observations with normal noise.*approximation"):
            call()


@pytest.mark.compiles(300, "the first calls of four families of questions")
def test_calls_with_other_data_compile_nothing():
    """Nor do likelihoods and closures that are defined anew each time."""
    lowered = []

    def listen(name, *_, **__):
        if name == "/jax/core/compile/jaxpr_to_mlir_module_duration":
            lowered.append(name)

    rng, new = np.random.default_rng(0), np.array([0.3, 3.0])

    def approximated(times, y):
        counts, exposure = rng.poisson(2, 5), rng.uniform(1, 2, 5)
        prior = ssm.MarkovGP(kernels.Matern32(0.7), times)
        post = ssm.approximate(prior, counts, lambda f: dist.Poisson(exposure * jnp.exp(f)))
        rate = rng.uniform(1, 2)
        plain = lambda f: dist.Poisson(jnp.asarray(rate) * jnp.exp(f))  # noqa: E731
        predicted = post.predict(new, likelihood=plain)
        return post.log_evidence(), predicted.log_prob(np.array([1, 2])), post.covariance(new)

    def conditioned(times, y):
        noisy = lambda kernel: ssm.MarkovGP(kernel, times, noise_var=0.1)  # noqa: E731
        prior = noisy(kernels.Matern32(0.7) + kernels.Cosine(1.0))
        post = prior.condition(y)
        draws = prior.sample(jax.random.key(0)), post.sample(jax.random.key(1), new, (3,))
        slope = jax.grad(lambda s: noisy(kernels.Matern32(s)).log_prob(y))(0.7)
        states = ssm.rts_smoother(kernels.Matern32(0.7), times, y, noise_var=0.1)
        answers = post.moments(), post.moments(new, term=1), post.covariance(new)
        return prior.log_prob(y), *answers, draws, slope, states

    def in_space(times, y):
        pair, locations = (kernels.RBF(1.0), kernels.Matern32(0.7)), np.arange(3.0)
        prior = ssm.SpaceTimeGP(*pair, locations, times, noise_var=0.1)
        field = np.outer(y, np.ones(3))
        return prior.log_prob(field), prior.condition(field).moments((new, None))

    for question in (approximated, conditioned, in_space):
        for call in range(4):
            times = np.sort(rng.uniform(0, 2, 5))
            jax.block_until_ready(jax.tree.leaves(question(times, rng.normal(size=5))))
            if call == 1:  # once more, for what depends on the first answer's type
                jax.monitoring.register_event_duration_secs_listener(listen)
        jax.monitoring.unregister_event_duration_listener(listen)
        assert not lowered, question.__name__
