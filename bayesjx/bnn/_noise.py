"""Noise of layers."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax, random
from jax.custom_batching import custom_vmap

SMALL = 2**13  # numbers of which XLA may make as many copies as it likes


def layer_noise(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Standard normal draws, `random.normal(key, shape, dtype)`, made once for a batch of keys.

    What reads the output of a layer with noise, in products and gradients, XLA fuses with what
    makes it: on CPUs the draws were made six times, by a polynomial of degree 8 and with strides,
    which was a third of the time of a step of a sparse network. Barriers do not hold there, but a
    loop does: under `jax.vmap` each half of the batch is a turn.

    Args:
        key: PRNG key.
        shape: of the draws of one input.
        dtype: of the draws.
    """
    kind = random.key_impl(key)

    def one(data: jax.Array) -> jax.Array:
        return random.normal(random.wrap_key_data(data, impl=kind), shape, dtype)

    draws = custom_vmap(one)

    @draws.def_vmap
    def _(axis_size: int, in_batched: list[bool], data: jax.Array) -> tuple[jax.Array, bool]:
        del in_batched
        each = jax.vmap(one)
        if axis_size * math.prod(shape) < SMALL:
            return each(data), True
        half = -(-axis_size // 2)
        data = jnp.concatenate([data, data[: 2 * half - axis_size]])
        out = lax.map(each, data.reshape(2, half, *data.shape[1:]))
        return out.reshape(-1, *shape)[:axis_size], True

    return draws(random.key_data(key))
