"""The tasks of the overhead benchmark as NumPyro programs, for bayesjx and for NumPyro alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from benchmarks.vi import _hand
from benchmarks.vi._hand import Grouped, NOISE, OBJECTS, Params, WHAT

sample: Callable[..., Any] = numpyro.sample
Wrap = Callable[[Any], Any]  # puts a gradient strategy on a distribution


def regression_model(params: dict[str, Params], data: Grouped) -> None:
    """Task A."""
    num_groups, (n, d) = len(params["intercept"]["loc"]), data.x.shape
    mean = sample("mean", dist.Normal(0.0, 1.0))
    log_spread = sample("log_spread", dist.Normal(0.0, 1.0))
    slope = sample("slope", dist.Normal(0.0, 1.0).expand([d]).to_event(1))
    with numpyro.plate("groups", num_groups):
        intercept = sample("intercept", dist.Normal(mean, jnp.exp(log_spread)))
    with numpyro.plate("data", n):
        logits = data.x @ slope + intercept[data.group]
        sample("y", dist.Bernoulli(logits=logits), obs=data.y)


def regression_guide(params: dict[str, Params], data: Grouped) -> None:
    """Task A: a mean-field Gaussian."""

    def normal(name: str) -> dist.Normal:
        return dist.Normal(params[name]["loc"], jnp.exp(params[name]["log_scale"]))

    sample("mean", normal("mean"))
    sample("log_spread", normal("log_spread"))
    sample("slope", normal("slope").to_event(1))
    with numpyro.plate("groups", len(params["intercept"]["loc"])):
        sample("intercept", normal("intercept"))


def vae_model(params: dict[str, Params], images: jax.Array) -> None:
    """Task B."""
    latent = params["decoder"]["w"].shape[0]
    with numpyro.plate("batch", len(images)):
        z = sample("z", dist.Normal(0.0, 1.0).expand([latent]).to_event(1))
        logits = _hand.decode(params["decoder"], z)
        sample("x", dist.Bernoulli(logits=logits).to_event(1), obs=images)


def vae_guide(params: dict[str, Params], images: jax.Array) -> None:
    """Task B."""
    with numpyro.plate("batch", len(images)):
        loc, scale = _hand.encode(params["encoder"], images)
        sample("z", dist.Normal(loc, scale).to_event(1))


def scene_model(params: dict[str, Params], images: jax.Array) -> None:
    """Task C."""
    decoder, prior = params["decoder"], params["prior"]
    with numpyro.plate("batch", len(images)):
        present: Any = jnp.ones(len(images))
        mean: Any = 0.0
        for t in range(OBJECTS):
            logits = prior["logit"] + prior["more"] * present
            present = sample(f"present{t}", dist.Bernoulli(logits=logits))
            what = sample(f"what{t}", dist.Normal(0.0, 1.0).expand([WHAT]).to_event(1))
            mean += _hand.render(decoder, present, what)
        sample("image", dist.Normal(mean, NOISE).to_event(1), obs=images)


def scene_guide(*wraps: Wrap) -> Callable[[dict[str, Params], jax.Array], None]:
    """Task C: the guide whose presences carry the given strategies (one for all, or one each)."""
    each = wraps if len(wraps) == OBJECTS else wraps * OBJECTS

    def guide(params: dict[str, Params], images: jax.Array) -> None:
        encoder = params["encoder"]
        with numpyro.plate("batch", len(images)):
            seen = _hand.look(encoder, images)
            present: Any = jnp.ones(len(images))
            what: Any = jnp.zeros((len(images), WHAT))
            for t in range(OBJECTS):
                state = _hand.attend(encoder, seen, present, what)
                chance = dist.Bernoulli(logits=_hand.presence(encoder, state))
                present = sample(f"present{t}", each[t](chance))
                loc, scale = _hand.describe(encoder, state)
                what = sample(f"what{t}", dist.Normal(loc, scale).to_event(1))

    return guide
