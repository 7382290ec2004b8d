"""ReLU autoencoders, conditional or not, trained by `bayesjx.vi` to count their active units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
import optax
from jax import random

import bayesjx
from bayesjx import vi

Params = dict[str, Any]


def start(key: jax.Array, d: int, p: int, hidden: int, latent: int) -> Params:
    """Weights for conditions of size `d` (0 for none) and outputs of size `p`."""
    sizes = {
        "enc": (d + p, hidden, 2 * latent),
        "dec": (d + latent, hidden, p),
    }
    keys = random.split(key, len(sizes))
    return {name: _mlp(k, *s) for k, (name, s) in zip(keys, sizes.items(), strict=True)}


def _mlp(key: jax.Array, *sizes: int) -> list[tuple[jax.Array, jax.Array]]:
    keys = random.split(key, len(sizes) - 1)
    return [
        (random.normal(k, (i, o)) * jnp.sqrt(1 / i), jnp.zeros(o))
        for k, i, o in zip(keys, sizes, sizes[1:], strict=False)
    ]


def _apply(layers: list[tuple[jax.Array, jax.Array]], x: jax.Array) -> jax.Array:
    for weight, bias in layers[:-1]:
        x = jax.nn.relu(x @ weight + bias)
    weight, bias = layers[-1]
    return x @ weight + bias


def programs(latent: int, batch: int | None) -> tuple[Callable[..., None], Callable[..., None]]:
    """Model and guide of images `y` given conditions `x`; unit scales."""

    def plate(y: jax.Array) -> Any:
        return numpyro.plate("data", len(y), subsample_size=batch)

    def model(params: Params, x: jax.Array, y: jax.Array) -> None:
        with plate(y) as i:
            z = numpyro.sample("z", dist.Normal(0.0, 1.0).expand([latent]).to_event(1))
            mean = _apply(params["dec"], jnp.concatenate([x[i], z], axis=1))
            numpyro.sample("y", dist.Normal(mean, 1.0).to_event(1), obs=y[i])

    def guide(params: Params, x: jax.Array, y: jax.Array) -> None:
        with plate(y) as i:
            out = _apply(params["enc"], jnp.concatenate([x[i], y[i]], axis=1))
            loc, log_scale = jnp.split(out, 2, axis=1)
            numpyro.sample("z", dist.Normal(loc, jnp.exp(log_scale)).to_event(1))

    return model, guide


def trainer(params: Params, latent: int, batch: int, num_steps: int) -> Any:
    """Adam with a falling rate and an average of the last steps, for data `(beta, x, y)`."""
    model, guide = programs(latent, batch)

    @vi.expectation
    def objective(params: Params, beta: jax.Array, x: jax.Array, y: jax.Array) -> Any:
        trace, log_q = vi.simulate(guide, params, x, y)
        bound = vi.log_density(model, trace, params, x, y) - log_q
        return bound.weight_sites({"z": beta}) / len(y)

    schedule = optax.cosine_decay_schedule(3e-3, num_steps, alpha=0.01)
    return vi.optimise(objective, params, optax.adam(schedule), average=0.998)


def active(key: jax.Array, algorithm: Any, num_steps: int, latent: int, data: tuple) -> int:
    """How many units are active under the averaged weights, which noise does not keep alive."""
    result = bayesjx.fit(key, algorithm, algorithm.init(), num_steps, data=data)
    model, guide = programs(latent, None)
    usage = vi.latent_usage(key, model, guide, result.state.average, *data[1:], num_draws=1)
    return int(usage.num_active)
