"""Deep ensembles against networks that are trained one by one; SWAG against NumPy on its path."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from bayesjx import bnn, fit, gradient_algorithm, likelihoods, trained

nn = eqx.nn
KEY = jax.random.key(11)
RNG = np.random.default_rng(1)
X, Y = RNG.normal(size=(13, 3)), RNG.normal(size=13)


def make(key):
    return nn.MLP(3, "scalar", 5, 1, key=key)


def data(dtype):
    return jnp.asarray(X, dtype), jnp.asarray(Y, dtype)


def test_members_are_trained_as_each_alone():
    """With an optimiser that has one norm for all parameters of a network."""
    noise = likelihoods.Gaussian(0.3)
    optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(0.03))
    ensemble = bnn.deep_ensemble(KEY, make, noise, num_members=3, prior=bnn.FanIn(2.0))
    algorithm = bnn.ensemble_map(ensemble, optimizer, num_data=13)
    result = fit(KEY, algorithm, algorithm.init(), 20, data=data(float))
    found = ensemble.trained(result.state)
    values, noises = [], []
    for key in jax.random.split(KEY, 3):
        params = make(key), noise

        def loss(key, params, x, y):
            f = jax.vmap(params[0])(x)
            log_prob = jnp.sum(params[1](f).log_prob(y))
            for layer in params[0].layers:
                width = 2 / layer.weight.shape[1] ** 0.5
                log_prob += jnp.sum(-0.5 * (layer.weight / width) ** 2 - jnp.log(width))
                log_prob += jnp.sum(-0.5 * layer.bias**2)
            return -log_prob

        alone = gradient_algorithm(loss, params, optimizer)
        end = fit(KEY, alone, alone.init(), 20, data=data(float))
        network, own = trained(params, end.state)
        values.append(jax.vmap(network)(X))
        noises.append(own.noise_var)
    posterior = found.posterior()
    np.testing.assert_allclose(posterior.values(X), values, rtol=1e-8, atol=1e-9)
    np.testing.assert_allclose(found.likelihoods.noise_var, noises, rtol=1e-8)
    assert found.num_members == 3 and np.ptp(noises) > 1e-3
    assert result.info.objective[-1] > result.info.objective[0]
    mixture = np.log(
        np.mean(
            [
                np.exp(-0.5 * (Y - f) ** 2 / v) / np.sqrt(2 * np.pi * v)
                for f, v in zip(values, noises, strict=True)
            ],
            axis=0,
        )
    )
    np.testing.assert_allclose(posterior.log_predictive_prob(X, Y), mixture, rtol=1e-7)


def test_swag_has_the_moments_of_the_path(dtype):
    rank, start, every, steps = 4, 5, 2, 24
    cast = lambda a: a.astype(dtype) if eqx.is_inexact_array(a) else a  # noqa: E731
    network = jax.tree.map(cast, make(KEY))
    noise = likelihoods.Gaussian(jnp.asarray(0.5, dtype))
    chosen = lambda m: [m.layers[0].weight, m.layers[1]]  # noqa: E731
    q = bnn.swag(network, noise, prior=1.0, where=chosen, rank=rank)
    algorithm = bnn.swag_sgd(q, optax.sgd(0.003), num_data=13, start=start, every=every)
    state = algorithm.init()
    options = {"data": data(dtype), "keep": lambda s: s.gradient.params}
    result = fit(KEY, algorithm, state, steps, **options)
    path = result.kept
    points = slice(start + every - 1, steps, every)
    found = q.trained(result.state)
    assert found.collected == (steps - start) // every == 9
    tight = {"rtol": 1e-3, "atol": 1e-6} if dtype == jnp.float32 else {"rtol": 1e-9, "atol": 1e-12}
    for i, mean in enumerate(found.means):
        leaf = np.asarray(path.means[i], float)[points]
        np.testing.assert_allclose(mean, leaf.mean(axis=0), **tight)
        np.testing.assert_allclose(found.variances[i], leaf.var(axis=0), **tight)
        running = np.cumsum(leaf, axis=0) / np.arange(1, 10).reshape(-1, *[1] * mean.ndim)
        rows = (leaf - running)[-rank:]
        order = np.argsort(np.arange(9)[-rank:] % rank)
        np.testing.assert_allclose(found.deviations[i], rows[order], **tight)
        assert mean.dtype == found.deviations[i].dtype == dtype
    noises = np.exp(np.asarray(path.likelihood.noise_var, float))[points]
    np.testing.assert_allclose(np.log(found.likelihood.noise_var), np.log(noises).mean(), **tight)
    assert found.rest.layers[0].bias.dtype == dtype


def test_draws_of_swag_have_its_covariance():
    q = bnn.swag(nn.Linear(3, 1, key=KEY), likelihoods.Gaussian(0.5), rank=3)
    rng = np.random.default_rng(2)
    variances = tuple(jnp.asarray(rng.uniform(0.1, 1, m.shape)) for m in q.means)
    rows = tuple(jnp.asarray(rng.normal(size=(3, *m.shape))) for m in q.means)
    q = eqx.tree_at(lambda q: (q.variances, q.deviations), q, (variances, rows))
    flat = lambda parts, n: np.concatenate([np.reshape(p, (n, -1)) for p in parts], axis=1)  # noqa: E731

    @jax.jit
    def draws(q, keys):
        return jax.vmap(q.draw)(keys)

    n = 4000
    for collected in (2, 3, 8):
        used = min(collected, 3)
        kept = tuple(row.at[used:].set(0) for row in rows)
        now = eqx.tree_at(
            lambda q: (q.collected, q.deviations), q, (jnp.asarray(collected, jnp.int32), kept)
        )
        d, w = flat(kept, 3), flat(draws(now, jax.random.split(KEY, n)), n)
        want = np.diag(flat(variances, 1)[0]) / 2 + d.T @ d / (2 * (used - 1))
        error = np.sqrt((np.outer(np.diag(want), np.diag(want)) + want**2) / n)
        assert np.all(np.abs(np.cov(w.T) - want) < 5 * error)
        mean = flat(q.means, 1)[0]
        assert np.all(np.abs(w.mean(axis=0) - mean) < 5 * np.sqrt(np.diag(want) / n))
    assert q.posterior(KEY, 6).values(X).shape == (6, 13, 1)


@pytest.mark.errors
def test_bad_ensembles_and_paths_are_named():
    raises = lambda match: pytest.raises(ValueError, match=match)  # noqa: E731
    noise = likelihoods.Gaussian(0.3)
    with raises("make must be a function from a key"):
        bnn.deep_ensemble(KEY, make(KEY), noise)
    with raises("num_members must be at least 1"):
        bnn.deep_ensemble(KEY, make, noise, num_members=0)
    with raises("likelihood must be a function"):
        bnn.deep_ensemble(KEY, make, None)
    with raises("prior must be a standard deviation"):
        bnn.deep_ensemble(KEY, make, noise, prior="normal")
    ensemble = bnn.deep_ensemble(KEY, make, noise, num_members=2)
    with raises("optimizer must be"):
        bnn.ensemble_map(ensemble, "adam", num_data=13)
    with raises("ensemble must be what deep_ensemble"):
        bnn.ensemble_map(make(KEY), optax.adam(0.1), num_data=13)
    algorithm = bnn.ensemble_map(ensemble, optax.adam(0.1), num_data=3)
    with raises("num_data is 3, less than the 13"):
        fit(KEY, algorithm, algorithm.init(), 2, data=data(float))
    with raises("rank must be at least 2"):
        bnn.swag(make(KEY), noise, rank=1)
    q = bnn.swag(make(KEY), noise)
    with raises("start must be at least 0"):
        bnn.swag_sgd(q, optax.sgd(0.1), num_data=13, start=-1)
    with raises("every must be at least 1"):
        bnn.swag_sgd(q, optax.sgd(0.1), num_data=13, every=0)
    only_noise = lambda q: q.likelihood  # noqa: E731
    with raises("layers.0..weight is random, but trainable leaves it out"):
        bnn.swag_sgd(q, optax.sgd(0.1), num_data=13, trainable=only_noise).init()
    algorithm = bnn.swag_sgd(q, optax.sgd(1e-3), num_data=13, start=7)
    with raises("need at least 2 points, and 0 were"):
        q.trained(algorithm.init())
