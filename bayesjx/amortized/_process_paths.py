"""Paths of neural processes: from the rows of a context to what is read at a query."""

from __future__ import annotations

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._attention import Attention, Dense, KeysValues, Layer, normed

# Variances of the initial weights times their inputs (He et al., 2015): values neither grow nor
# fade from map to map, so that deep stacks without residuals let the context through at once.
GELU_GAIN, PLAIN_GAIN = 2.0, 1.0


def scaled(layer: Dense, gain: float) -> Dense:
    """The same with weights of variance `gain` over the number of inputs; they have a third."""
    return eqx.tree_at(lambda m: m.linear.weight, layer, layer.linear.weight * math.sqrt(3 * gain))


class Deep(eqx.Module):
    """Affine maps of the last axis with GELUs between them."""

    layers: tuple[Dense, ...]

    def __init__(self, inputs: int, width: int, outputs: int, depth: int, *, key: jax.Array):
        sizes = [inputs, *[width] * (depth - 1), outputs]
        keys = jax.random.split(key, depth)
        gains = [GELU_GAIN] * (depth - 1) + [PLAIN_GAIN]
        layers = (Dense(*sizes[i : i + 2], key=k) for i, k in enumerate(keys))
        self.layers = tuple(scaled(m, g) for m, g in zip(layers, gains, strict=True))

    def __call__(self, x: Float[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        for layer in self.layers[:-1]:
            x = jax.nn.gelu(layer(x))
        return self.layers[-1](x)


class Decoder(eqx.Module):
    """From an input and what was read for it to the outputs for the head.

    Attributes:
        first: affine map of both, after which a shift may be added.
        rest: what follows.
    """

    first: Dense
    rest: Deep

    def __init__(self, inputs: int, width: int, outputs: int, depth: int, *, key: jax.Array):
        keys = jax.random.split(key)
        self.first = scaled(Dense(inputs, width, key=keys[0]), GELU_GAIN)
        self.rest = Deep(width, width, outputs, max(depth - 1, 1), key=keys[1])

    def __call__(self, x: Float[Array, "*batch m d"], read: Any, shift: Any = 0.0) -> Any:
        """Outputs at inputs `x` with `read` of shape `(*batch, m, e)`."""
        return self.rest(jax.nn.gelu(self.first(jnp.concatenate([x, read], axis=-1)) + shift))


class AbstractPath(eqx.Module):
    """Abstract base class of paths: tokens of the rows of a context, and what queries read of them.

    Attributes:
        size: of what is read at a query.
        token_size: size of a token.
    """

    size: eqx.AbstractVar[int]
    token_size: eqx.AbstractVar[int]

    @abc.abstractmethod
    def tokens(
        self,
        x: Float[Array, "*batch n d"],
        y: Float[Array, "*batch n"],
        mask: Bool[Array, "*#batch n"],
    ) -> Float[Array, "*batch n t"]:
        """Representations of rows; `mask` tells which count."""

    @abc.abstractmethod
    def read(
        self,
        x_new: Float[Array, "*batch m d"],
        tokens: Float[Array, "*batch n t"],
        mask: Bool[Array, "*#batch n"],
    ) -> Float[Array, "*batch m e"]:
        """What queries get of the tokens that count; there may be none."""

    @abc.abstractmethod
    def architecture(self) -> dict[str, Any]:
        """Options of the networks that have it, as plain data."""


class MeanPath(AbstractPath):
    """The mean of the rows' representations, a learned vector where there are no rows.

    Attributes:
        encoder: of a row by itself.
        empty: what is read of an empty context.
    """

    encoder: Deep
    empty: Float[Array, " e"]
    size: int = eqx.field(static=True)
    token_size: int = eqx.field(static=True)

    def __init__(self, num_inputs: int, width: int, depth: int, *, key: jax.Array):
        keys = jax.random.split(key)
        self.encoder = Deep(num_inputs + 1, width, width, depth, key=keys[0])
        self.empty = 0.02 * jax.random.normal(keys[1], (width,))
        self.size = self.token_size = width

    def tokens(self, x: Any, y: Any, mask: Any) -> Any:
        del mask
        return self.encoder(rows_of(x, y))

    def read(self, x_new: Any, tokens: Any, mask: Any) -> Any:
        mean = masked_mean(tokens, mask, self.empty)[..., None, :]
        return jnp.broadcast_to(mean, (*x_new.shape[:-1], self.size))

    def architecture(self) -> dict[str, Any]:
        return {"width": self.size, "depth": len(self.encoder.layers)}


class AttentivePath(AbstractPath):
    """Rows attend to each other; queries attend to them by their inputs.

    A token holds the key of a row, made of its input alone, and its representation after
    self-attention, beside each other.

    Attributes:
        inputs: of an input, to what attends at queries and is attended to in rows.
        encoder: of a row by itself.
        layers: of attention among rows.
        norm: of representations after them.
        cross: attention of queries to rows, with a learned key and value beside them.
    """

    inputs: Deep
    encoder: Deep
    layers: tuple[Layer, ...]
    norm: eqx.nn.LayerNorm
    cross: Attention
    size: int = eqx.field(static=True)
    token_size: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)

    def __init__(
        self,
        num_inputs: int,
        width: int,
        depth: int,
        heads: int,
        num_layers: int,
        *,
        key: jax.Array,
    ):
        keys = jax.random.split(key, num_layers + 4)
        self.inputs = Deep(num_inputs, width, width, 2, key=keys[0])
        self.encoder = Deep(num_inputs + 1, width, width, max(depth - num_layers, 2), key=keys[1])
        self.layers = tuple(Layer(width, heads, 2 * width, key=k) for k in keys[4:])
        self.norm = eqx.nn.LayerNorm(width)
        # Nothing stands beside this attention: were its output map zero, nobody would be read.
        output = scaled(Dense(width, width, key=keys[3]), PLAIN_GAIN)
        cross = Attention(width, heads, key=keys[2])
        self.cross = eqx.tree_at(lambda a: a.output, cross, output)
        self.size, self.token_size, self.depth = width, 2 * width, depth

    def tokens(self, x: Any, y: Any, mask: Any) -> Any:
        rows = self.encoder(rows_of(x, y))
        for layer in self.layers:
            rows = layer(rows, layer.keys_values(rows), mask[..., None, :])
        return jnp.concatenate([self.inputs(x), normed(self.norm, rows)], axis=-1)

    def read(self, x_new: Any, tokens: Any, mask: Any) -> Any:
        keys, values = jnp.split(tokens, 2, axis=-1)
        to = KeysValues(self.cross.keys_values(keys).keys, self.cross.keys_values(values).values)
        return self.cross(self.inputs(x_new), to, mask[..., None, :])

    def architecture(self) -> dict[str, Any]:
        heads, layers = self.cross.heads, len(self.layers)
        return {"width": self.size, "depth": self.depth, "heads": heads, "num_layers": layers}


def rows_of(x: Float[Array, "*batch n d"], y: Float[Array, "*batch n"]) -> Any:
    """Inputs and targets beside each other, shape `(*batch, n, d + 1)`."""
    return jnp.concatenate([x, y[..., None]], axis=-1)


def masked_mean(
    tokens: Float[Array, "*batch n e"], mask: Bool[Array, "*#batch n"], empty: Float[Array, " e"]
) -> Float[Array, "*batch e"]:
    """Mean of the tokens that count, and `empty` where none does."""
    count = jnp.sum(mask, axis=-1)[..., None]
    total = jnp.sum(jnp.where(mask[..., None], tokens, 0), axis=-2)
    return jnp.where(count > 0, total / jnp.maximum(count, 1).astype(tokens.dtype), empty)


def drawn(x: Float[Array, "*batch m e"], num_samples: int) -> Float[Array, "*batch s m e"]:
    """The same for each of `num_samples` draws."""
    return jnp.broadcast_to(x[..., None, :, :], (*x.shape[:-2], num_samples, *x.shape[-2:]))
