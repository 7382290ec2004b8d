"""Trainings and predictions with other data of the same shapes compile nothing again."""

import equinox as eqx
import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
import pytest

from bayesjx import bnn, fit, likelihoods

N = 7
COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: COMPILED.append(event) if event.endswith("compile_duration") else None
)


def data(i):
    rng = np.random.default_rng(i)
    return jnp.asarray(rng.normal(size=(N, 3))), jnp.asarray(rng.normal(size=N))


def make(key):
    """With an activation that is made anew."""
    return eqx.nn.MLP(3, "scalar", 5, 1, activation=lambda x: jnp.tanh(x), key=key)


NETWORK = make(jax.random.key(0))


def network(i):
    return jax.tree.map(lambda a: a * (1.0 + i) if eqx.is_inexact_array(a) else a, NETWORK)


def variational(i):
    key = jax.random.key(i)
    noise = likelihoods.Gaussian(0.1 + i)
    q = bnn.mean_field(network(i), noise, prior=bnn.FanIn(1.0 + i), estimator="local")
    algorithm = bnn.mean_field_vi(q, optax.adam(0.01), num_data=N, kl_weight=0.5 / (1 + i))
    q = q.trained(fit(key, algorithm, algorithm.init(), 3, data=data(i), batch_size=5).state)
    return q.means, q.posterior(key, 4).predict(data(i)[0]).mean


def ensemble(i):
    key = jax.random.key(i)
    starts = bnn.deep_ensemble(
        key, lambda key: network(i), likelihoods.Gaussian(0.1), num_members=2
    )
    algorithm = bnn.ensemble_map(starts, optax.adam(0.01), num_data=N)
    return starts.trained(fit(key, algorithm, algorithm.init(), 3, data=data(i)).state).likelihoods


def swag(i):
    key = jax.random.key(i)
    start = bnn.swag(network(i), likelihoods.Gaussian(0.1), rank=2)
    algorithm = bnn.swag_sgd(start, optax.sgd(1e-3), num_data=N)
    return start.trained(fit(key, algorithm, algorithm.init(), 3, data=data(i)).state).means


def predictions(i):
    """Of networks and likelihoods that are made anew, with functions of the same kind."""
    networks = eqx.filter_vmap(make)(jax.random.split(jax.random.key(i), 3))
    posterior = bnn.NetworkSamples(networks, lambda f: dist.Bernoulli(logits=f))
    x = data(i)[0]
    return posterior.predict(x).logits, posterior.covariance(x), posterior.moments(x)


@pytest.mark.parametrize("call", [variational, ensemble, swag, predictions])
def test_other_networks_compile_nothing(call):
    for i in (0, 1):
        jax.block_until_ready(jax.tree.leaves(call(i)))
    COMPILED.clear()
    for i in (2, 3):
        jax.block_until_ready(jax.tree.leaves(call(i)))
    assert not COMPILED
