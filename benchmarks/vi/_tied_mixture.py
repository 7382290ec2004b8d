"""Task D: a mixture with a subsampled plate, whose guide assigns data to the centres it drew.

Five components with known weights and known, different scales; the centres are unknown. The guide
draws the centres and then assigns each point by its distance to them with one learned precision
for all components, so assignments depend on parameters along two ways: the location of the
centres is reparameterised, and it enters the chances of the score-function sites.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

COMPONENTS, SPREAD = 5, 4.0
SCALES = (0.4, 0.6, 0.9, 1.3, 1.8)
Params = dict[str, jax.Array]
Wrap = Callable[[Any], Any]


def data(n: int) -> jax.Array:
    """`n 2` points of the model."""
    rng = np.random.default_rng(0)
    angle = 2 * np.pi * np.arange(COMPONENTS) / COMPONENTS
    centres = SPREAD * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    member = rng.integers(COMPONENTS, size=n)
    noise = rng.normal(size=(n, 2)) * np.array(SCALES)[member, None]
    return jnp.asarray(centres[member] + noise, jnp.float32)


def start() -> Params:
    """Guide: location and log scale of the centres, log precision of the assignments."""
    angle = 2 * np.pi * np.arange(COMPONENTS) / COMPONENTS + 0.3
    loc = 0.7 * SPREAD * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return {
        "loc": jnp.asarray(loc, jnp.float32),
        "log_scale": jnp.full((COMPONENTS, 2), -1.0),
        "log_precision": jnp.zeros(()),
        "weight": jnp.zeros(COMPONENTS),
    }


def model(params: Params, y: jax.Array, batch: int | None = None) -> None:
    """Mixture of `COMPONENTS` round Gaussians; `batch` points are looked at."""
    centres: Any = numpyro.sample("centres", _centres(jnp.zeros((COMPONENTS, 2)), SPREAD))
    chances = dist.Categorical(probs=jnp.full(COMPONENTS, 1 / COMPONENTS))
    with numpyro.plate("points", len(y), subsample_size=batch) as index:
        member: Any = numpyro.sample("member", chances)
        scale = jnp.asarray(SCALES)[member]
        distribution = dist.Normal(centres[member], scale[..., None]).to_event(1)
        numpyro.sample("y", distribution, obs=y[index])


def guide(wrap: Wrap) -> Callable[..., None]:
    """The guide whose assignments carry a strategy."""

    def run(params: Params, y: jax.Array, batch: int | None = None) -> None:
        distribution = _centres(params["loc"], jnp.exp(params["log_scale"]))
        centres = numpyro.sample("centres", distribution)
        with numpyro.plate("points", len(y), subsample_size=batch) as index:
            distance = jnp.sum((y[index][:, None] - jnp.asarray(centres)) ** 2, axis=-1)
            logits = params["weight"] - 0.5 * jnp.exp(params["log_precision"]) * distance
            numpyro.sample("member", wrap(dist.Categorical(logits=logits)))

    return run


def exact_bound(params: Params, key: jax.Array, y: jax.Array, draws: int) -> jax.Array:
    """The bound on all points, assignments summed, centres by Monte Carlo."""

    def one(key: jax.Array) -> jax.Array:
        noise = jax.random.normal(key, params["loc"].shape)
        centres = params["loc"] + jnp.exp(params["log_scale"]) * noise
        log_q = _centres(params["loc"], jnp.exp(params["log_scale"])).log_prob(centres)
        log_p = _centres(jnp.zeros((COMPONENTS, 2)), SPREAD).log_prob(centres)
        distance = jnp.sum((y[:, None] - centres) ** 2, axis=-1)
        logits = params["weight"] - 0.5 * jnp.exp(params["log_precision"]) * distance
        chance = jax.nn.log_softmax(logits)
        scale = jnp.asarray(SCALES)
        near = dist.Normal(centres, scale[:, None]).to_event(1).log_prob(y[:, None])
        local = near - np.log(COMPONENTS) - chance
        return log_p - log_q + jnp.sum(jnp.exp(chance) * local)

    return jnp.mean(jax.lax.map(one, jax.random.split(key, draws)))


def _centres(loc: jax.Array, scale: Any) -> Any:
    return dist.Normal(loc, scale).to_event(2)
