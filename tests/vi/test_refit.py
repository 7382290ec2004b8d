"""Fits of one objective share a compiled program; Polyak averages, and what is trained."""

import jax
import jax.monitoring
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest

from bayesjx import kernels, vi

KEY = jax.random.key(0)
COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, _, **__: COMPILED.append(event) if "compile/" in event else None
)


def model(params, y):
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    b = numpyro.sample("b", dist.Bernoulli(0.3))
    numpyro.sample("y", dist.Normal(z + b, 1.0).expand([3]).to_event(1), obs=y)


def guide(params, y):
    numpyro.sample("z", dist.Normal(params["loc"], jnp.exp(params["log_scale"])))
    numpyro.sample("b", vi.reinforce(dist.Bernoulli(logits=params["logit"]), vi.EMA(0.9)))


def start(i=0):
    return {name: jnp.asarray(0.1 * i) for name in ("loc", "log_scale", "logit")}


OBJECTIVE, ADAM = vi.elbo(model, guide), optax.adam(0.05)


@pytest.mark.parametrize("fresh", [False, True])
def test_a_second_fit_traces_and_compiles_nothing(fresh):
    """With the same objects, and with fresh ones that do the same."""

    def run(i):
        elbo, adam = (vi.elbo(model, guide), optax.adam(0.05)) if fresh else (OBJECTIVE, ADAM)
        y = jnp.arange(3.0) + i
        return vi.fit(KEY, elbo, start(i), adam, 5, data=(y,), num_draws=2, average=0.9)

    first = run(0)
    COMPILED.clear()
    second = run(1)
    assert not COMPILED
    assert second.compile_seconds == 0 and second.params["loc"] != first.params["loc"]
    assert list(second.state.natural) and second.average["loc"] != second.params["loc"]


def test_another_model_is_another_program():
    y, ends = jnp.arange(3.0), []
    for scale in (1.0, 2.0, 3.0):
        scaled = [numpyro.handlers.scale(program, scale=scale) for program in (model, guide)]
        bound = vi.elbo(*scaled)
        ends.append(vi.fit(KEY, bound, start(), ADAM, 2, data=(y,)).info.objective[0])
    np.testing.assert_allclose(ends, ends[0] * np.arange(1, 4), rtol=1e-12)


def test_constrained_fields_stay_in_their_constraint_and_what_is_trained_is_chosen():
    """Of a kernel, by steps that would leave it."""

    @vi.expectation(maximise=False)
    def loss(params):
        return params["kernel"].lengthscale + params["other"] ** 2

    params = {"kernel": kernels.RBF(0.1), "other": jnp.ones(())}
    found = vi.fit(KEY, loss, params, optax.sgd(1.0), 20).params
    assert 0 < found["kernel"].lengthscale < 0.1 and found["kernel"].variance == 1
    chosen = vi.fit(KEY, loss, params, optax.sgd(0.1), 20, trainable=lambda p: p["kernel"]).params
    assert chosen["other"] == 1 and chosen["kernel"].lengthscale < 0.1
    np.testing.assert_array_equal(params["kernel"].lengthscale, 0.1)
