"""NIW-Meta: divergences by Monte Carlo, conjugate tasks in closed form, empirical Bayes."""

import equinox as eqx
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest
import scipy.special
import scipy.stats

import bayesjx
from bayesjx import amortized, likelihoods
from bayesjx.amortized._niw_episode import Quadratic, quadratic, TaskPosterior
from bayesjx.amortized._niw_meta import task_bound
from bayesjx.amortized._niw_terms import expected_kl, kl, NIW

KEY = jax.random.key(0)
D, NOISE = 3, 0.4
RNG = np.random.default_rng(0)
Q = NIW(np.array([0.5, -1.0, 0.2]), np.array(4.0), np.array([2.0, 0.7, 5.0]), np.array(3.5))
P = NIW(np.zeros(3), np.array(1.0), np.ones(3), np.array(1.0))
COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: COMPILED.append(event) if event.endswith("compile_duration") else None
)


def cast(tree, dtype):
    return jax.tree.map(lambda a: jnp.asarray(a, dtype), tree)


def draws_of_niw(q, number):
    rng = np.random.default_rng(1)
    degrees = q.excess + q.loc.size + 1
    covariance = scipy.stats.invwishart(degrees, np.diag(q.scale)).rvs(number, random_state=rng)
    root = np.linalg.cholesky(covariance / q.strength)
    return q.loc + np.einsum("nij,nj->ni", root, rng.normal(size=(number, 3))), covariance


def log_niw(q, mu, covariance):
    wishart = scipy.stats.invwishart(q.excess + q.loc.size + 1, np.diag(q.scale))
    off = mu - q.loc
    square = np.einsum("ni,nij,nj->n", off, np.linalg.inv(covariance), off)
    logdet = np.linalg.slogdet(covariance)[1]
    normal = -0.5 * (3 * np.log(2 * np.pi / q.strength) + logdet + q.strength * square)
    return wishart.logpdf(np.moveaxis(covariance, 0, -1)) + normal


def test_divergences_are_those_of_draws(dtype):
    mu, covariance = draws_of_niw(Q, 20_000)
    ratio = log_niw(Q, mu, covariance) - log_niw(P, mu, covariance)
    error = ratio.std() / len(ratio) ** 0.5
    with jax.numpy_dtype_promotion("strict"):
        found = jax.jit(kl)(cast(Q, dtype), cast(P, dtype))
    assert found.dtype == dtype and abs(found - ratio.mean()) < 5 * error < 0.5
    rng = np.random.default_rng(2)  # near and narrow, so that draws vary little
    mean, root = Q.loc + 0.1 * rng.normal(size=3), 0.3 * rng.normal(size=(3, 3))
    own = root @ root.T
    inverse = np.linalg.inv(covariance)
    off = mean - mu
    terms = np.einsum("nij,ij->n", inverse, own) + np.einsum("ni,nij,nj->n", off, inverse, off)
    terms += np.linalg.slogdet(covariance)[1] - np.linalg.slogdet(own)[1] - 3
    error = terms.std() / len(terms) ** 0.5 / 2
    given = cast((Q, mean, np.diag(own), np.linalg.slogdet(own)[1]), dtype)
    found = jax.jit(expected_kl)(*given)
    assert found.dtype == dtype and abs(found - terms.mean() / 2) < 5 * error < 0.1


@pytest.mark.parametrize("kind", ["low_rank", "diagonal"])
def test_the_posterior_minimises_the_bound(kind):
    """All directions of mean and covariance, by derivatives of the objective written out."""
    root = RNG.normal(size=(3, 2) if kind == "low_rank" else 3)
    root = root if kind == "low_rank" else root**2
    dense = root @ root.T if kind == "low_rank" else np.diag(root)
    linear, q = RNG.normal(size=3), cast(Q, jnp.float64)
    made = TaskPosterior(Quadratic(jnp.asarray(root), linear), q.loc, q.precision)
    found = made.distribution()
    np.testing.assert_allclose(made.variance(), found.variance, rtol=1e-9)
    np.testing.assert_allclose(made.logdet(), -found.precision.psd_logdet(), rtol=1e-9)
    np.testing.assert_allclose(
        found.covariance_matrix, np.linalg.inv(dense + np.diag(q.precision)), rtol=1e-9
    )

    def objective(mean, factor):
        covariance = factor @ factor.T
        square = jnp.trace(dense @ covariance) + mean @ dense @ mean
        logdet = jnp.linalg.slogdet(covariance)[1]
        return 0.5 * square - linear @ mean + expected_kl(q, mean, jnp.diag(covariance), logdet)

    at = found.loc, jnp.linalg.cholesky(found.covariance_matrix)
    for slope in jax.jit(jax.grad(objective, argnums=(0, 1)))(*at):
        np.testing.assert_allclose(slope, 0, atol=1e-9)


def test_the_posterior_of_no_data_and_of_many():
    q, target = cast(Q, jnp.float64), RNG.normal(size=3)
    for size, want in ((1e-12, q.loc), (1e12, target)):
        diagonal = jnp.full(3, size)
        found = TaskPosterior(Quadratic(diagonal, diagonal * target), q.loc, q.precision)
        np.testing.assert_allclose(found.loc, want, atol=1e-9)


def linear_tasks(number, rows=5, seed=2):
    """Bayesian linear regressions, whose weights vary in different directions by 1 and 0.3."""
    rng = np.random.default_rng(seed)
    weights = np.array([1.0, -2.0, 0.5]) + rng.normal(size=(number, 3)) * [1.0, 0.3, 0.3]
    x = rng.normal(size=(number, rows, 2))
    centre = np.einsum("tni,ti->tn", x, weights[:, :2]) + weights[:, 2:]
    return x, centre + NOISE * rng.normal(size=(number, rows))


def noisy(f):
    return dist.Normal(f, jnp.asarray(NOISE, f.dtype))


def linear(dtype, **options):
    network = eqx.nn.Linear(2, "scalar", key=KEY, dtype=dtype)
    return amortized.NIWMeta(network, noisy, task_scale=0.7, **options)


def conjugate(x, y, loc, precision):
    design = np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1)
    matrix = design.mT @ design / NOISE**2 + np.diag(precision)
    rest = (design.mT @ y[..., None])[..., 0] / NOISE**2 + precision * loc
    return np.linalg.solve(matrix, rest[..., None])[..., 0], np.linalg.inv(matrix)


@pytest.mark.parametrize("inner_steps", [1, 3])
def test_linear_regressions_have_their_exact_posterior(dtype, inner_steps):
    """One compiled program for several tasks, some of which have a row less, filled with NaN."""
    x, y = linear_tasks(4)
    meta = linear(dtype, inner_steps=inner_steps)
    mask = np.ones((4, 5), bool)
    mask[1, 2] = False
    keys = jax.random.split(KEY, 4)

    @jax.jit
    def adapted(x, y, gaps, mask):
        def of_task(key, x, y, gaps, mask):
            made = meta.adapt(key, *gaps, mask=mask, num_samples=64)
            predicted = made.predict(x)
            new = predicted.mean, predicted.variance, predicted.log_prob(y)
            return made.weights.loc, made.weights.covariance_matrix, made.draws, new, made.values(x)

        return jax.vmap(of_task)(keys, x, y, gaps, mask)

    gaps = np.where(mask[..., None], x, np.nan), np.where(mask, y, np.nan)
    loc, covariance, draws, new, values = adapted(*cast((x, y, gaps), dtype), mask)
    assert loc.dtype == draws.dtype == new[2].dtype == dtype
    y_seen, x_seen = np.where(mask, y, 0), np.where(mask[..., None], x, 0)
    start, precision = np.asarray(meta.loc, float), np.asarray(meta.precision, float)
    for i in range(4):
        seen = mask[i]
        exact = conjugate(x_seen[i][seen], y_seen[i][seen], start, precision)
        rtol = 1e-3 if dtype == jnp.float32 else 1e-9
        np.testing.assert_allclose(loc[i], exact[0], rtol=rtol)
        np.testing.assert_allclose(covariance[i], exact[1], rtol=rtol, atol=rtol)
        whitened = np.linalg.solve(np.linalg.cholesky(exact[1]), (draws[i] - exact[0]).T)
        assert np.all(np.abs(whitened.mean(axis=1)) < 5 / 8)
        assert np.all(np.abs((whitened**2).mean(axis=1) - 1) < 5 * 2**0.5 / 8)
    f = np.asarray(values, float)
    np.testing.assert_allclose(new[0], f.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(new[1], f.var(axis=1) + NOISE**2, rtol=1e-3)
    density = scipy.stats.norm.logpdf(y[:, None], f, NOISE)
    want = scipy.special.logsumexp(density, axis=1) - np.log(64)
    np.testing.assert_allclose(new[2], want, rtol=1e-3, atol=1e-4)


def empirical_bayes(x, y, steps=2000):
    """EM for mean and diagonal covariance of the weights of tasks."""
    loc, variance = np.zeros(3), np.ones(3)
    for _ in range(steps):
        means, covariances = conjugate(x, y, loc, 1 / variance)
        loc = means.mean(axis=0)
        variance = np.mean((means - loc) ** 2 + np.diagonal(covariances, 0, 1, 2), axis=0)
    return loc, variance


def test_global_parameters_become_those_of_empirical_bayes(tmp_path):
    """And a fit that is resumed ends with the same bits."""
    x, y = linear_tasks(60)
    meta = linear(jnp.float64, inner_steps=1)
    schedule = optax.cosine_decay_schedule(0.1, 250)
    algorithm = amortized.niw_meta(meta, optax.adam(schedule), num_samples=4)
    data, path = cast((x, y), jnp.float64), tmp_path / "half"
    runs = [
        bayesjx.fit(KEY, algorithm, algorithm.init(), steps, data=data, checkpoint=file)
        for steps, file in ((100, path), (250, path), (250, None))
    ]
    np.testing.assert_array_equal(runs[1].state.params.loc, runs[2].state.params.loc)
    found = bayesjx.trained(meta, runs[2].state)
    loc, variance = empirical_bayes(x, y)
    np.testing.assert_allclose(found.loc, loc, atol=0.02)
    np.testing.assert_allclose(1 / found.precision, variance, rtol=0.15)
    assert found.scale.min() > 0 and found.excess > 0


def test_a_number_of_tasks_brings_the_prior():
    """Endless tasks have the bound without it, and a strength without end."""
    x, y = cast(linear_tasks(2), jnp.float64)
    meta, info = linear(jnp.float64, inner_steps=1), []
    for number in (None, 10):
        algorithm = amortized.niw_meta(meta, optax.sgd(0.0), num_tasks=number, prior_scale=2.0)
        info.append(jax.jit(algorithm.step)(KEY, algorithm.init(), x, y)[1].objective)
    q = meta.niw(11.0)
    prior = NIW(jnp.zeros(3), jnp.ones(()), jnp.full(3, 4.0), jnp.ones(()))
    np.testing.assert_allclose(info[0] - info[1], 3 / 22 + kl(q, prior) / 10, rtol=1e-9)
    # Whatever rows that do not count hold.
    step, mask = jax.jit(algorithm.step), np.arange(5) < np.array([[3], [5]])
    filled = np.where(mask[..., None], x, np.nan), np.where(mask, y, np.nan)
    whole, gaps = (step(KEY, algorithm.init(), *data, mask) for data in ((x, y), filled))
    for found, want in zip(jax.tree.leaves(gaps), jax.tree.leaves(whole), strict=True):
        np.testing.assert_allclose(found, want, rtol=1e-9)


def test_derivatives_are_those_of_the_closed_form_alone():
    """Of the bound in all parameters, with the task's quadratic held where it is."""
    network = eqx.nn.MLP(2, "scalar", 3, 1, activation=jnp.tanh, key=KEY, dtype=jnp.float64)
    meta = amortized.NIWMeta(network, likelihoods.Gaussian(0.3), task_scale=0.5, inner_steps=2)
    x, y = cast(linear_tasks(1), jnp.float64)
    key, mask = jax.random.key(3), jnp.ones(5, bool)
    episode = meta.episode(x[0], y[0], mask)
    held = quadratic(KEY, episode, meta.inner, meta.loc, meta.precision)

    def by_hand(meta):
        q = meta.niw(jnp.inf)
        found = TaskPosterior(held, q.loc, q.precision)
        draws = found.sample(jax.random.split(key)[1], 3)
        divergence = expected_kl(q, found.loc, found.variance(), found.logdet())
        episode = meta.episode(x[0], y[0], mask)
        return -jnp.mean(jax.vmap(episode.loss)(draws)) - divergence

    of_bound = lambda m: task_bound(m, key, x[0], y[0], mask, jnp.inf, 3)[0]  # noqa: E731
    slopes = eqx.filter_jit(lambda m: [eqx.filter_grad(f)(m) for f in (of_bound, by_hand)])(meta)
    for a, b in zip(*map(jax.tree.leaves, slopes), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9)


def softmax(f):
    e = np.exp(f - f.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def classes(f):
    return dist.Categorical(logits=f)


def test_classes_of_a_frozen_body():
    """Mean and precision of softmax regression on the body's features; averaged probabilities."""
    network = eqx.nn.MLP(2, 3, 4, 1, activation=jnp.tanh, key=KEY, dtype=jnp.float64)
    meta = amortized.NIWMeta(
        network, classes, where=lambda net: net.layers[-1], task_scale=1.0, inner_steps=20
    )
    x, y = RNG.normal(size=(7, 2)), np.array([0, 1, 2, 0, 1, 2, 0])
    made = meta.adapt(KEY, x, y, num_samples=5)
    first = network.layers[0]
    hidden = np.tanh(x @ np.asarray(first.weight).T + np.asarray(first.bias))
    features = np.concatenate([hidden, np.ones((7, 1))], axis=1)
    last = made.network().layers[-1]
    weights = np.concatenate([last.weight, last.bias[:, None]], axis=1)  # (3, 5)
    probs = softmax(features @ weights.T)
    slope = (probs - np.eye(3)[y]).T @ features
    start = np.concatenate([network.layers[-1].weight, network.layers[-1].bias[:, None]], axis=1)
    np.testing.assert_allclose(slope + (weights - start) / 1.0 * meta.precision[0], 0, atol=1e-8)
    blocks = probs[..., None] * np.eye(3) - probs[:, :, None] * probs[:, None]
    matrix = np.einsum("ni,npq,nj->piqj", features, blocks, features)
    order = np.concatenate([(np.arange(3)[:, None] * 5 + np.arange(4)).ravel(), [4, 9, 14]])
    precision = matrix.reshape(15, 15)[np.ix_(order, order)] + np.diag(meta.precision)
    np.testing.assert_allclose(
        made.weights.covariance_matrix, np.linalg.inv(precision), rtol=1e-6, atol=1e-9
    )
    np.testing.assert_allclose(made.predict(x).probs, softmax(made.values(x)).mean(0), rtol=1e-9)
    algorithm = amortized.niw_meta(meta, optax.adam(0.1), lambda key: (x, 1.0 * y), batch_size=2)
    state, _ = jax.jit(algorithm.step)(KEY, algorithm.init())
    body = bayesjx.trained(meta, state).network(made.weights.loc).layers[0]
    np.testing.assert_array_equal(body.weight, first.weight)


def test_diagonal_curvature():
    """Exact, by random vectors, and from the spread of iterates around a task's least squares."""
    x, y = cast(linear_tasks(1, rows=7), jnp.float64)
    design = np.concatenate([x[0], np.ones((7, 1))], axis=1)
    exact = np.sum(design**2, axis=0) / NOISE**2
    least = np.linalg.lstsq(design, y[0])[0]

    def curvature(**options):
        meta = linear(jnp.float64, **options)
        made = eqx.filter_jit(meta.adapt)(KEY, x[0], y[0]).weights
        found = made.precision.entries - meta.precision
        mean = (made.precision.entries * made.loc - meta.precision * meta.loc) / found
        return np.asarray(found), np.asarray(mean)

    found, mean = curvature(curvature="diagonal", inner_steps=500, inner_lr=0.05)
    np.testing.assert_allclose(found, exact, rtol=1e-9)
    np.testing.assert_allclose(mean, least, rtol=1e-6)
    found, _ = curvature(curvature="diagonal", inner_steps=1, num_probes=2000)
    np.testing.assert_allclose(found, exact, rtol=0.15)
    found, mean = curvature(curvature="iterates", inner_steps=40_000, inner_lr=0.05)
    spread = np.diag(np.linalg.inv(design.T @ design)) * NOISE**2
    np.testing.assert_allclose(1 / found, spread, rtol=0.15)
    np.testing.assert_allclose(mean, least, atol=0.05)
    few, _ = curvature(curvature="iterates", inner_steps=2, inner_lr=1e-4, max_curvature=7.0)
    np.testing.assert_allclose(few, 7.0)


def test_other_tasks_compile_nothing():
    def run(i):
        x, y = cast(linear_tasks(2, seed=i), jnp.float32)
        network = eqx.nn.Linear(2, "scalar", key=jax.random.key(i), dtype=jnp.float32)
        meta = amortized.NIWMeta(network, likelihoods.Gaussian(0.1 + i), inner_steps=1)
        algorithm = amortized.niw_meta(meta, optax.adam(0.1))
        state = bayesjx.fit(KEY, algorithm, algorithm.init(), 3, data=(x, y)).state
        made = bayesjx.trained(meta, state).adapt(KEY, x[0], y[0], num_samples=2)
        return made.moments(x[0]), made.sample(KEY, x[0]), made.predict(x[0]).mean

    jax.block_until_ready([run(0), run(1)])
    COMPILED.clear()
    jax.block_until_ready([run(2), run(3)])
    assert not COMPILED


@pytest.mark.errors
def test_bad_tasks_are_named():
    meta = amortized.NIWMeta(eqx.nn.Linear(2, 3, key=KEY), classes)
    x, y = RNG.normal(size=(4, 2)), np.array([0, 1, 2, 2])
    for bad, text in (
        ((x, y % 2), "class 2"),
        ((x, y + 1), "support"),
        ((x[:0], y[:0]), "empty"),
        ((x, y[:3]), "each of the 4 rows"),
        ((x * np.nan, y), "NaN"),
        ((x[:, :1], y), "the network fails"),
    ):
        with pytest.raises(ValueError, match=text):
            meta.adapt(KEY, *bad)
    assert meta.adapt(KEY, x, y % 2, all_classes=False).predict(x).probs.shape == (4, 3)
    with pytest.raises(RuntimeError, match="support"):
        jax.block_until_ready(eqx.filter_jit(meta.adapt)(KEY, x, y + 1))
