"""Sites stand for likelihoods: what each method must satisfy, checked on dense matrices."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import pytest
from numpyro import distributions as dist

from bayesjx import kernels, likelihoods, ssm
from bayesjx.ssm import _process, _sites
from bayesjx.ssm._backend import Plan

N = 70
KERNEL = kernels.Matern32(0.8, 1.7)
LIKELIHOODS = {
    "bernoulli": lambda f: dist.Bernoulli(logits=f),
    "poisson": lambda f: dist.Poisson(jnp.exp(f)),
    "student": lambda f: dist.StudentT(4.0, f, 0.3, validate_args=False),
}
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(90)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def problem(name, n=N):
    """Irregular times, two of which coincide; some values missing, NaN or not allowed."""
    rng = np.random.default_rng(1)
    times = np.sort(rng.uniform(0, 8, n))
    times[6] = times[5]
    f = 1.2 * np.sin(1.5 * times)
    y = {
        "bernoulli": (rng.random(n) < 1 / (1 + np.exp(-f))).astype(int),
        "poisson": rng.poisson(np.exp(f)),
        "student": f + 0.3 * rng.standard_t(2, n),
    }[name]
    mask = rng.random(n) > 0.1
    mask[[5, 6]] = True
    return times, np.where(mask, y, np.nan if name == "student" else -5), mask


def approximated(name, method, **options):
    times, y, mask = problem(name)
    prior = ssm.MarkovGP(KERNEL, times, mean=0.2, mask=mask)
    result = ssm.approximate(prior, y, LIKELIHOODS[name], method, **options)
    assert result.converged
    return result, times[mask], y[mask], mask


def dense(result, times, mask):
    """Mean and covariance of the function under the sites, and those of the prior."""
    linear, precision = (np.asarray(a)[mask] for a in result.state.sites)
    prior = np.asarray(KERNEL.gram(jnp.asarray(times)))
    inside = np.eye(len(times)) + prior * precision
    cov = np.linalg.solve(inside, prior)
    return cov @ linear, cov, prior, linear, precision


def expectations(log_likelihood, y, mean, variance):
    """Of the log likelihood, by a rule of many more nodes than the library's."""
    f = 0.2 + mean + np.sqrt(variance) * NODES[:, None]
    return WEIGHTS @ np.asarray(log_likelihood(jnp.asarray(f)).log_prob(y))


@pytest.mark.parametrize("name", LIKELIHOODS)
def test_variational_sites_maximise_the_bound(name):
    result, times, y, mask = approximated(name, "vi", atol=1e-10, max_steps=300)
    mean, cov, prior, linear, precision = dense(result, times, mask)
    np.testing.assert_allclose(result.state.mean[mask], mean, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(result.state.variance[mask], np.diag(cov), rtol=1e-8)

    def bound(linear, precision):
        inside = jnp.eye(len(times)) + prior * precision
        cov = jnp.linalg.solve(inside, prior)
        mean, variance = cov @ linear, jnp.diag(cov)
        trace = jnp.sum(-precision * variance)  # of the inverse prior times cov, less n
        alpha = linear - precision * mean  # the inverse prior times the mean
        divergence = 0.5 * (trace + mean @ alpha + jnp.linalg.slogdet(inside)[1])
        f = 0.2 + mean + jnp.sqrt(variance) * NODES[:, None]
        return jnp.sum(WEIGHTS @ LIKELIHOODS[name](f).log_prob(y)) - divergence

    value, slopes = jax.value_and_grad(bound, (0, 1))(jnp.asarray(linear), jnp.asarray(precision))
    # Twenty nodes are not exact for heavy tails, so the bound is flat to their error only.
    exact = {"bernoulli": 1e-5, "poisson": 1e-6, "student": 3e-2}[name]
    np.testing.assert_allclose(result.log_evidence(), value, atol=exact)
    for slope in slopes:
        assert np.max(np.abs(slope)) < exact
    if name == "student":
        assert precision.min() < 0


@pytest.mark.parametrize("power", [1.0, 0.5])
@pytest.mark.parametrize("name", LIKELIHOODS)
def test_sites_of_ep_match_moments(name, power):
    result, times, y, mask = approximated(name, "ep", power=power, atol=1e-10, max_steps=300)
    mean, cov, prior, linear, precision = dense(result, times, mask)
    variance = np.diag(cov)
    cavity = 1 / (1 / variance - power * precision)
    centre = cavity * (mean / variance - power * linear)
    f = centre + np.sqrt(cavity) * np.linspace(-12, 12, 4001)[:, None]
    log_prob = np.asarray(LIKELIHOODS[name](jnp.asarray(0.2 + f)).log_prob(y))
    density = np.exp(power * log_prob - 0.5 * (f - centre) ** 2 / cavity)
    partition = np.trapezoid(density, f, axis=0)
    tilted = np.trapezoid(density * f, f, axis=0) / partition
    around = np.trapezoid(density * (f - tilted) ** 2, f, axis=0) / partition
    exact = {"bernoulli": 1e-8, "poisson": 1e-6, "student": 1e-4}[name]  # of the quadrature
    np.testing.assert_allclose(tilted, mean, atol=exact)
    np.testing.assert_allclose(around, variance, rtol=exact)
    if power == 1.0 and name != "student":
        # Rasmussen and Williams (2006), equation 3.65.
        noise, target = 1 / precision, linear / precision
        log_partition = np.log(partition / np.sqrt(2 * np.pi * cavity))
        total = dist.MultivariateNormal(jnp.zeros(len(y)), prior + np.diag(noise)).log_prob(target)
        total += np.sum(log_partition + 0.5 * np.log(2 * np.pi * (cavity + noise)))
        total += np.sum(0.5 * (centre - target) ** 2 / (cavity + noise))
        np.testing.assert_allclose(result.log_evidence(), total, atol=1e-5)


@pytest.mark.parametrize("name", ["bernoulli", "poisson"])
def test_sites_of_posterior_linearisation_are_regressions(name):
    result, times, y, mask = approximated(name, "pl", atol=1e-10)
    mean, cov, _, linear, precision = dense(result, times, mask)
    variance = np.diag(cov)
    f = mean + np.sqrt(variance) * NODES[:, None]
    observed = LIKELIHOODS[name](jnp.asarray(0.2 + f))
    expected = WEIGHTS @ observed.mean
    slope = WEIGHTS @ (observed.mean * (f - mean)) / variance
    noise = WEIGHTS @ observed.variance + WEIGHTS @ (observed.mean - expected) ** 2
    noise = noise - slope**2 * variance
    np.testing.assert_allclose(precision, slope**2 / noise, rtol=1e-6)
    offset = y - expected + slope * mean
    np.testing.assert_allclose(linear, slope * offset / noise, rtol=1e-6, atol=1e-7)
    best, _, _, _ = approximated(name, "vi")
    assert result.log_evidence() < best.log_evidence()


@pytest.mark.parametrize(("method", "power"), [("vi", 1.0), ("ep", 1.0), ("ep", 0.5), ("pl", 1.0)])
def test_normal_noise_is_exact_in_a_step(method, power):
    times, y, mask = problem("student")
    prior = ssm.MarkovGP(KERNEL, times, mean=0.2, mask=mask)
    result = ssm.approximate(prior, y, likelihoods.Gaussian(0.3), method, rate=1.0, power=power)
    exact = ssm.MarkovGP(KERNEL, times, 0.2, noise_var=0.3, mask=mask)
    assert result.converged and result.num_steps <= 3
    np.testing.assert_allclose(result.log_evidence(), exact.log_prob(y), rtol=1e-9)
    new, want = np.array([-1.0, 2.2, 9.0]), exact.condition(y)
    for ours, theirs in zip(result.moments(new), want.moments(new), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(result.covariance(new), want.covariance(new), rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(result.predict(new).mean, want.predict(new).mean, rtol=1e-9)
    np.testing.assert_allclose(result.predict(new).variance, want.predict(new).variance, rtol=1e-9)
    future = np.array([0.1, 0.2, -0.3])
    got, right = (post.log_predictive_prob(new, future) for post in (result, want))
    np.testing.assert_allclose(got, right, rtol=1e-9)


@pytest.mark.parametrize("method", ["vi", "ep"])
def test_derivatives_of_the_evidence_are_those_of_the_whole(method):
    """Of a likelihood that is not log-concave; see `test_site_updates` for higher orders."""
    times, y, mask = problem("student", 31)

    def evidence(lengthscale, scale, mean):
        student = lambda f: dist.StudentT(4.0, f, scale, validate_args=False)  # noqa: E731
        prior = ssm.MarkovGP(kernels.Matern32(lengthscale, 1.7), times, mean=mean, mask=mask)
        result = ssm.approximate(prior, y, student, method, atol=1e-11, max_steps=400)
        return result.log_evidence()

    at = (0.8, 0.3, 0.2)
    both = jax.jit(jax.value_and_grad(evidence, (0, 1, 2)))
    for i, slope in enumerate(both(*at)[1]):
        step = 1e-5 * np.eye(3)[i]
        difference = (both(*(at + step))[0] - both(*(at - step))[0]) / 2e-5
        np.testing.assert_allclose(slope, difference, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize(
    ("arrays", "lanes", "precise"),
    [(False, 1, False), (False, 8, True), (True, 8, False), (True, 1, True)],
    ids=["written_out-1", "written_out-8-precise", "arrays-8", "arrays-1-precise"],
)
def test_convex_sites_are_dense(arrays, lanes, precise):
    times, _, _ = problem("student")
    rng = np.random.default_rng(2)
    linear, precision = rng.normal(size=N), rng.uniform(-0.4, 3, N)
    precision[8] = 0.0
    series = (
        ssm.MarkovGP(KERNEL, times).series(linear)._replace(site_precision=jnp.asarray(precision))
    )

    def total(lengthscale):
        space = ssm.state_space(kernels.Matern32(lengthscale, 1.7))
        return _process.log_density(Plan(lanes, precise, arrays), space, series)

    def theirs(lengthscale):
        prior = kernels.Matern32(lengthscale, 1.7).gram(jnp.asarray(times))
        inside = jnp.eye(N) + prior * precision
        mean = jnp.linalg.solve(inside, prior @ linear)
        return 0.5 * (linear @ mean - jnp.linalg.slogdet(inside)[1])

    value, slope = jax.jit(jax.value_and_grad(total))(0.8)
    want, wanted = jax.jit(jax.value_and_grad(theirs))(0.8)
    np.testing.assert_allclose(value, want, rtol=1e-10)
    np.testing.assert_allclose(slope, wanted, rtol=1e-8)


def test_several_outputs_of_counts(getkey):
    times = np.linspace(0, 4, 20)
    mixing = jnp.array([[1.0, 0.2], [-0.4, 0.9]])
    pair = (kernels.Matern32(0.8), kernels.Matern12(1.5))
    y = np.random.default_rng(0).poisson(1.5, (20, 2))
    at, counts = np.array([1.1, 5.0]), np.array([[1, 2], [0, 3]])

    @jax.jit
    def answers(key):
        prior = ssm.MarkovGP(pair, times, mixing=mixing)
        post = ssm.approximate(prior, y, LIKELIHOODS["poisson"], atol=1e-10)
        draws = post.sample(key, at, (4000,))
        density = post.log_predictive_prob(at, counts)
        return post.state, draws, post.moments(at), post.covariance(at), density

    state, draws, (mean, variance), left, density = answers(getkey())
    blocks = [kernel.gram(jnp.asarray(times)) for kernel in pair]
    cov = sum(
        jnp.einsum("st,i,j->sitj", block, mixing[:, q], mixing[:, q])
        for q, block in enumerate(blocks)
    ).reshape(40, 40)
    linear, precision = (a.reshape(-1) for a in state.sites)
    posterior = jnp.linalg.solve(jnp.eye(40) + cov * precision, cov)
    np.testing.assert_allclose(state.mean.reshape(-1), posterior @ linear, rtol=1e-8)
    rate = np.exp(state.mean + state.variance / 2).reshape(-1)
    np.testing.assert_allclose(precision, rate, rtol=1e-6)  # closed form for Poisson counts
    np.testing.assert_allclose(np.diag(left), variance.reshape(-1), rtol=1e-9)
    assert np.max(np.abs(draws.mean(0) - mean) / np.sqrt(variance / 4000)) < 4.5
    f = mean.reshape(-1) + np.sqrt(variance.reshape(-1)) * NODES[:, None]
    inside = np.exp(LIKELIHOODS["poisson"](jnp.asarray(f)).log_prob(np.array([1, 2, 0, 3])))
    np.testing.assert_allclose(density.reshape(-1), np.log(WEIGHTS @ inside), rtol=1e-4)


def test_steps_by_hand_and_in_single_precision():
    times, y, mask = problem("bernoulli")
    prior = ssm.MarkovGP(KERNEL, times, mean=0.2, mask=mask)
    algorithm = ssm.site_updates(prior, y, LIKELIHOODS["bernoulli"], "ep", rate=1.0)
    step = jax.jit(lambda state: algorithm.step(None, state))
    state = algorithm.init()
    for _ in range(15):
        state, info = step(state)
    assert info.change < 1e-8
    whole = ssm.approximate(prior, y, LIKELIHOODS["bernoulli"], "ep")
    np.testing.assert_allclose(state.mean, whole.state.mean, atol=1e-7)
    single = kernels.Matern32(np.float32(0.8), np.float32(1.7))
    prior = ssm.MarkovGP(single, times.astype(np.float32), mean=np.float32(0.2), mask=mask)
    low = ssm.approximate(prior, y, LIKELIHOODS["bernoulli"], "ep")
    assert low.state.mean.dtype == jnp.float32 and low.converged
    np.testing.assert_allclose(low.state.mean, whole.state.mean, atol=2e-4)
    np.testing.assert_allclose(low.log_evidence(), whole.log_evidence(), rtol=2e-5)


def test_counts_in_a_numpyro_model():
    """Value and gradient of a model's density are those of its parts."""
    times, y, mask = problem("poisson")

    def evidence(lengthscale):
        prior = ssm.MarkovGP(kernels.Matern32(lengthscale, 1.7), times, mask=mask)
        return ssm.approximate(prior, y, LIKELIHOODS["poisson"]).log_evidence()

    def model():
        lengthscale = numpyro.sample("lengthscale", dist.LogNormal(0.0, 0.5))
        numpyro.factor("evidence", evidence(lengthscale))

    def density(log_lengthscale):
        params = {"lengthscale": jnp.exp(log_lengthscale)}
        return numpyro.infer.util.log_density(model, (), {}, params)[0]

    both = jax.jit(jax.value_and_grad(density))
    (value, slope), (up, _), (down, _) = map(both, (-0.2, -0.2 + 1e-5, -0.2 - 1e-5))
    prior = dist.LogNormal(0.0, 0.5).log_prob(np.exp(-0.2))
    np.testing.assert_allclose(value, prior + evidence(np.exp(-0.2)), rtol=1e-9)
    np.testing.assert_allclose(slope, (up - down) / 2e-5, rtol=1e-5)


def test_what_has_not_converged_has_no_evidence():
    times, y, mask = problem("poisson")
    prior = ssm.MarkovGP(KERNEL, times, mask=mask)
    result = ssm.approximate(prior, y, LIKELIHOODS["poisson"], max_steps=2)
    assert not result.converged and np.isnan(result.log_evidence())


def test_bad_input_of_approximations_is_named():
    times, y, mask = problem("poisson")
    prior, poisson = ssm.MarkovGP(KERNEL, times, mask=mask), LIKELIHOODS["poisson"]
    with pytest.raises(ValueError, match="prior must have no noise"):
        ssm.approximate(ssm.MarkovGP(KERNEL, times, noise_var=0.1), y, poisson)
    with pytest.raises(ValueError, match="outside of the support"):
        ssm.approximate(ssm.MarkovGP(KERNEL, times), y, poisson)
    with pytest.raises(ValueError, match="y must have shape"):
        ssm.approximate(prior, y[1:], poisson)
    with pytest.raises(ValueError, match="method must be one of"):
        ssm.approximate(prior, y, poisson, "laplace")
    with pytest.raises(ValueError, match="rate must be in"):
        ssm.approximate(prior, y, poisson, rate=0.0)
    with pytest.raises(ValueError, match="power must be in"):
        ssm.approximate(prior, y, poisson, "ep", power=2.0)
    with pytest.raises(ValueError, match="has no sites"):
        ssm.approximate(ssm.MarkovGP(KERNEL, times, backend="square-root"), y, poisson)
    with pytest.raises(TypeError, match="must return a NumPyro distribution"):
        ssm.approximate(prior, y, lambda f: f)


def test_flat_sites_keep_their_slope():
    sites = _sites.Sites(jnp.array([1.0, 2.0]), jnp.array([-0.5, 0.7]))
    flat = _sites.without_convex(sites, jnp.array([2.0, 3.0]))
    np.testing.assert_allclose(flat.precision, [0.0, 0.7])
    slopes = [s.linear - s.precision * jnp.array([2.0, 3.0]) for s in (sites, flat)]
    np.testing.assert_allclose(*slopes)


def test_classes_are_predicted_as_classes():
    """The likelihood says what a new observation is; `condition` with it approximates."""
    times, y, mask = problem("bernoulli")
    prior = ssm.MarkovGP(KERNEL, times, 0.2, mask=mask)
    post = prior.condition(y, LIKELIHOODS["bernoulli"], method="ep")
    whole, _, _, _ = approximated("bernoulli", "ep")
    np.testing.assert_allclose(post.log_evidence(), whole.log_evidence(), rtol=1e-9)
    new = np.array([-1.0, 2.2, 9.0])
    mean, variance = post.moments(new)
    predicted = post.predict(new)
    assert isinstance(predicted, dist.BernoulliLogits)
    f = mean + np.sqrt(variance) * NODES[:, None]
    np.testing.assert_allclose(predicted.mean, WEIGHTS @ (1 / (1 + np.exp(-f))), rtol=1e-6)
    np.testing.assert_allclose(np.diag(post.covariance(new)), variance, rtol=1e-9)
