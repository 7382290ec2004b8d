"""Attend, infer, repeat on small canvases: data, networks, model and guide.

Task C of the benchmarks at full length: 16×16 canvases with up to two handwritten digits of 8×8
pixels each. The guide looks for one object after the other: whether there is one more, where, and
what it looks like. A window is shifted to its place instead of scaled and rotated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random

CANVAS, WINDOW, STEPS = 16, 8, 2
WHAT, HIDDEN = 8, 64  # size of an object's code, width of the networks
# With the noise 0.3 and the chances 0.05 and 0.05**2.3 of the paper, whose digits have ten times
# the pixels, every strategy sticks at one object in some seeds. A digit is worth some 20 nats here.
NOISE = 0.6  # standard deviation of pixels
PRESENT = (2 / 3, 1 / 2)  # chance of a further object, given that there was one before: the data's
WHERE_SCALE = 2.5  # prior standard deviation of positions in pixels, around the middle
MARGIN = 6  # digits are that far apart in one direction at least, so they hardly overlap
SAFE = 1e-4  # chances stay that far from 0 and 1

sample: Callable[..., Any] = numpyro.sample
Wrap = Callable[[Any], Any]  # puts a gradient strategy on a distribution


class Scenes(NamedTuple):
    """Canvases `n 16 16` with values in [0, 1] and the number of digits in each, `n`."""

    images: np.ndarray
    counts: np.ndarray


def scenes(n: int, seed: int, test: bool = False) -> Scenes:
    """Canvases with 0, 1 or 2 digits, equally often.

    Args:
        n: how many.
        seed: of counts, places and digits.
        test: take the digits that no training canvas has.
    """
    from sklearn.datasets import load_digits

    digits = load_digits().images / 16.0
    digits = digits[1297:] if test else digits[:1297]
    rng = np.random.default_rng(seed)
    counts = rng.integers(STEPS + 1, size=n)
    images = np.zeros((n, CANVAS, CANVAS))
    for image, count in zip(images, counts, strict=True):
        for row, column in _places(rng, count):
            digit = digits[rng.integers(len(digits))]
            image[row : row + WINDOW, column : column + WINDOW] += digit
    return Scenes(np.minimum(images, 1.0).astype(np.float32), counts)


def _places(rng: np.random.Generator, count: int) -> np.ndarray:
    """Corners of that many windows, `count 2`, drawn anew until they are apart."""
    while True:
        places = rng.integers(CANVAS - WINDOW + 1, size=(count, 2))
        if count < 2 or np.max(np.abs(places[0] - places[1])) >= MARGIN:
            return places


class Memory(NamedTuple):
    """What the guide remembers: state of the network, and the last object."""

    state: jax.Array
    present: jax.Array
    where: jax.Array
    what: jax.Array


class Encoder(eqx.Module):
    """Recurrent network of the guide, and the network that looks through the window."""

    image: eqx.nn.MLP
    cell: eqx.nn.GRUCell
    head: eqx.nn.MLP
    window: eqx.nn.MLP

    def __init__(self, key: jax.Array):
        a, b, c, d = random.split(key, 4)
        self.image = eqx.nn.MLP(CANVAS**2, HIDDEN, 2 * HIDDEN, 1, key=a)
        self.cell = eqx.nn.GRUCell(HIDDEN + 3 + WHAT, HIDDEN, key=b)
        self.head = eqx.nn.MLP(HIDDEN, 5, HIDDEN, 1, key=c)
        self.window = eqx.nn.MLP(WINDOW**2, 2 * WHAT, 2 * HIDDEN, 1, key=d)

    def look(self, images: jax.Array) -> jax.Array:
        """What every step sees of the canvases, `n HIDDEN`."""
        return jax.vmap(self.image)(images.reshape(len(images), -1))

    def start(self, images: jax.Array) -> Memory:
        """Before the first object."""
        n = len(images)
        state, where, what = (jnp.zeros((n, size)) for size in (HIDDEN, 2, WHAT))
        return Memory(state, jnp.ones(n), where, what)

    def attend(self, seen: jax.Array, memory: Memory) -> tuple[jax.Array, Any, Any]:
        """State, chance of a further object, and distribution of its place."""
        last = jnp.concatenate([memory.present[:, None], memory.where, memory.what], axis=-1)
        state = jax.vmap(self.cell)(jnp.concatenate([seen, last], axis=-1), memory.state)
        out = jax.vmap(self.head)(state)
        where = dist.Normal(out[:, 1:3], 0.5 * jax.nn.softplus(out[:, 3:])).to_event(1)
        return state, chance(jax.nn.sigmoid(out[:, 0]), memory.present), where

    def describe(self, images: jax.Array, where: jax.Array) -> Any:
        """Distribution of the code of the object at a place."""
        rows, columns = placement(where)
        windows = jnp.einsum("nyi,nyx,nxj->nij", rows, images, columns)
        out = jax.vmap(self.window)(windows.reshape(len(images), -1))
        loc, scale = out[:, :WHAT], jax.nn.softplus(out[:, WHAT:])
        return dist.Normal(loc, scale + 1e-3).to_event(1)


class Air(eqx.Module):
    """Encoder of the guide and decoder of the model."""

    encoder: Encoder
    decoder: eqx.nn.MLP

    def __init__(self, key: jax.Array):
        a, b = random.split(key)
        self.encoder = Encoder(a)
        self.decoder = eqx.nn.MLP(WHAT, WINDOW**2, 2 * HIDDEN, 1, key=b)

    def render(self, present: jax.Array, where: jax.Array, what: jax.Array) -> jax.Array:
        """What an object adds to the canvas, `n 16 16`."""
        window = jax.nn.sigmoid(jax.vmap(self.decoder)(what) - 2.0)
        rows, columns = placement(where)
        window = window.reshape(-1, WINDOW, WINDOW)
        return present[:, None, None] * jnp.einsum("nyi,nij,nxj->nyx", rows, window, columns)


def placement(where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Matrices `n 16 8` that put the rows and columns of a window at `where`, interpolating."""
    corner = (CANVAS - WINDOW) / 2 + WHERE_SCALE * where
    target = corner[:, :, None, None] + jnp.arange(WINDOW)
    near = jax.nn.relu(1 - jnp.abs(jnp.arange(CANVAS)[:, None] - target))
    return near[:, 0], near[:, 1]


def chance(prob: Any, present: jax.Array) -> Any:
    """Chance of a further object, which there is only if there was one before."""
    return dist.Bernoulli(probs=(SAFE + prob * present) / (1 + 2.01 * SAFE))


def model(air: Air, images: jax.Array) -> None:
    """Up to two objects on a canvas with Gaussian noise."""
    with numpyro.plate("images", len(images)):
        present, mean = jnp.ones(len(images)), jnp.zeros(images.shape)
        for t in range(STEPS):
            drawn = sample(f"present{t}", chance(PRESENT[t], present))
            present = jnp.asarray(drawn, mean.dtype)
            where = sample(f"where{t}", _standard(2, present))
            what = sample(f"what{t}", _standard(WHAT, present))
            mean = mean + air.render(present, where, what)
        sample("image", dist.Normal(mean, NOISE).to_event(2), obs=images)


def guide(*wraps: Wrap) -> Callable[[Air, jax.Array], None]:
    """The guide whose presences carry the given strategies (one for all, or one for each)."""
    each = wraps if len(wraps) == STEPS else wraps * STEPS

    def run(air: Air, images: jax.Array) -> None:
        encoder = air.encoder
        with numpyro.plate("images", len(images)):
            seen, memory = encoder.look(images), encoder.start(images)
            for t in range(STEPS):
                state, presence, where_distribution = encoder.attend(seen, memory)
                drawn = sample(f"present{t}", each[t](presence))
                present = jnp.asarray(drawn, images.dtype)
                where = sample(f"where{t}", where_distribution.mask(present > 0))
                what_distribution = encoder.describe(images, where)
                what = sample(f"what{t}", what_distribution.mask(present > 0))
                memory = Memory(state, present, where, what)

    return run


def plain(distribution: Any) -> Any:
    """No strategy: for NumPyro's objectives, and to draw from the guide."""
    return distribution


def _standard(size: int, present: jax.Array) -> Any:
    return dist.Normal(0.0, 1.0).expand((len(present), size)).to_event(1).mask(present > 0)
