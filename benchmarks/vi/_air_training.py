"""Training of attend, infer, repeat under every objective and strategy of the benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from numpyro.infer import TraceGraph_ELBO

from bayesjx import vi
from benchmarks.vi import air_model

LEARNING_RATE = 1e-3
PARTICLES = 2

Loss = Callable[[air_model.Air, jax.Array, jax.Array], jax.Array]  # of (air, key, images)


class Data(NamedTuple):
    """Training canvases in batches, `steps batch 16 16`, and the scenes to test with."""

    batches: jax.Array
    test: air_model.Scenes

    @staticmethod
    def of(n: int, batch: int) -> Data:
        """`n` training canvases."""
        images = air_model.scenes(n, seed=0).images
        side = air_model.CANVAS
        batches = jnp.asarray(images.reshape(-1, batch, side, side))
        return Data(batches, air_model.scenes(1000, seed=1, test=True))


class Curve(NamedTuple):
    """Count accuracy on the test canvases, and bound per training canvas, after each epoch."""

    accuracy: list[float]
    bound: list[float]


@dataclasses.dataclass(frozen=True)
class Trainer:
    """An objective with strategies, and a compiled epoch of it.

    Attributes:
        objective: its name in the table.
        strategies: likewise.
        epoch: `epoch(key, state, batches) -> (state, mean bound per canvas)`.
    """

    objective: str
    strategies: str
    epoch: Any

    def example(self, data: Data) -> tuple[Any, ...]:
        """Arguments to time an epoch with."""
        return random.key(0), _start(0), data.batches


def trainers(quick: bool) -> dict[str, Trainer]:
    """All candidates by name; the quick run has the least that shows the claim."""
    guide, model = air_model.guide, air_model.model

    def elbo(*wraps: air_model.Wrap) -> Loss:
        bound = vi.elbo(model, guide(*wraps))
        return lambda air, key, images: -bound.surrogate(key, air, images)

    def peer(air: air_model.Air, key: jax.Array, images: jax.Array) -> jax.Array:
        return TraceGraph_ELBO().loss(key, {}, model, guide(air_model.plain), air, images)

    found = {
        "reinforce": Trainer("ELBO", "reinforce", _epoch(elbo(vi.reinforce))),
        "enum": Trainer("ELBO", "enum", _epoch(elbo(vi.enum))),
        "TraceGraph_ELBO": Trainer("NumPyro TraceGraph_ELBO", "reinforce", _epoch(peer)),
    }
    if quick:
        return found
    importance = vi.iwelbo(model, guide(vi.reinforce), PARTICLES, local_plate="images")
    name = f"IWELBO({PARTICLES})"
    return {
        **found,
        "mvd": Trainer("ELBO", "mvd", _epoch(elbo(vi.mvd))),
        "hybrid": Trainer("ELBO", "mvd, enum", _epoch(elbo(vi.mvd, vi.enum))),
        "disarm": Trainer("ELBO", "disarm", _epoch(elbo(vi.disarm))),
        "vimco": Trainer(
            name,
            "reinforce (VIMCO)",
            _epoch(lambda air, key, images: -importance.surrogate(key, air, images)),
        ),
    }


def train(trainer: Trainer, data: Data, epochs: int, seed: int) -> Curve:
    """Some epochs from the initial networks of a seed, batches in a new order each time."""
    state, curve = _start(seed), Curve([], [])
    rng = np.random.default_rng(seed)
    key = random.key(100 + seed)
    counts = jnp.asarray(data.test.counts)
    images = data.batches.reshape(-1, *data.batches.shape[2:])
    for i in range(epochs):
        shuffled = images[rng.permutation(len(images))].reshape(data.batches.shape)
        state, bound = trainer.epoch(random.fold_in(key, i), state, shuffled)
        found = _count(state[0], random.fold_in(random.key(7), i), data.test.images)
        curve.accuracy.append(float(jnp.mean(found == counts)))
        curve.bound.append(float(bound))
    return curve


def networks(seed: int) -> air_model.Air:
    """Initial networks."""
    return air_model.Air(random.key(seed))


def _start(seed: int) -> tuple[Any, Any]:
    params = eqx.filter(networks(seed), eqx.is_inexact_array)
    return params, optax.adam(LEARNING_RATE).init(params)


def _epoch(loss: Loss) -> Any:
    """A jitted pass over batches by Adam."""
    _, static = eqx.partition(networks(0), eqx.is_inexact_array)
    optimiser = optax.adam(LEARNING_RATE)

    def step(state: tuple[Any, Any], inputs: tuple[jax.Array, jax.Array]) -> Any:
        params, opt_state = state
        key, images = inputs

        def minus_bound(params: Any) -> jax.Array:
            return loss(eqx.combine(params, static), key, images)

        value, gradient = jax.value_and_grad(minus_bound)(params)
        updates, opt_state = optimiser.update(gradient, opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), -value / len(images)

    @jax.jit
    def epoch(key: jax.Array, state: Any, batches: jax.Array) -> tuple[Any, jax.Array]:
        keys = random.split(key, len(batches))
        state, bounds = jax.lax.scan(step, state, (keys, batches))
        return state, jnp.mean(bounds)

    return epoch


@jax.jit
def _count(params: Any, key: jax.Array, images: jax.Array) -> jax.Array:
    """Number of objects in one draw of the guide per canvas."""
    _, static = eqx.partition(networks(0), eqx.is_inexact_array)
    drawn = vi.sample(key, air_model.guide(air_model.plain), eqx.combine(params, static), images)
    return sum(jnp.asarray(drawn[f"present{t}"]) for t in range(air_model.STEPS))  # ty: ignore
