"""`SVILoss` under NumPyro's SVI: what it keeps between steps, and what it says that it does not."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
from numpyro.infer import SVI
from numpyro.primitives import mutable

from bayesjx import vi

KEY = jax.random.key(0)


def model():
    state = mutable("running", {"mean": jnp.zeros(()), "steps": jnp.zeros((), int)})
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    state["mean"] = 0.9 * state["mean"] + z
    state["steps"] = state["steps"] + 1


def guide():
    numpyro.sample("z", dist.Normal(numpyro.param("loc", 0.3), 1.0))


def mean_of_three(model, guide):
    @vi.expectation
    def bound():
        def log_weight():
            trace, log_q = vi.simulate(guide)
            return vi.log_density(model, trace) - log_q

        return vi.particles(3)(log_weight)() / 3

    return bound


@pytest.mark.parametrize("loss", [vi.SVILoss(num_particles=3), vi.SVILoss(mean_of_three)])
def test_the_state_is_the_mean_over_the_particles_of_the_loss(loss):
    """From the loss of a guide with the prior's scale, which is linear in the mean of the draws."""
    svi = SVI(model, guide, optax.sgd(0.0), loss)
    step = jax.jit(svi.update)
    first, _ = step(svi.init(KEY))
    second, value = step(first)
    before, after = first.mutable_state["running"], second.mutable_state["running"]
    mean = after["mean"] - 0.9 * before["mean"]
    assert after["steps"] == before["steps"] + 1
    np.testing.assert_allclose(value, 0.3 * mean - 0.045, rtol=1e-6)  # mean of log q - log p


def test_moving_averages_are_said_to_be_inert():
    def guide():
        logits = numpyro.param("logits", 0.0)
        numpyro.sample("b", vi.reinforce(dist.Bernoulli(logits=logits), vi.EMA()))

    def model():
        b = numpyro.sample("b", dist.Bernoulli(0.4))
        numpyro.factor("cost", 2.0 * b)

    svi = SVI(model, guide, optax.sgd(0.1), vi.SVILoss(num_particles=2))
    state = svi.init(KEY)
    with pytest.warns(UserWarning, match=r"vi\.EMA baselines .* \['b'\] are zero; use vi\.fit"):
        jax.eval_shape(svi.update, state)


@pytest.mark.errors
def test_objectives_of_another_kind_are_named():
    with pytest.raises(TypeError, match="objective must be a function of model and guide"):
        vi.SVILoss(vi.elbo(model, guide))
    svi = SVI(model, guide, optax.sgd(0.1), vi.SVILoss(lambda model, guide: 3.0))
    with pytest.raises(TypeError, match="objective must return an Objective"):
        svi.update(svi.init(KEY))
