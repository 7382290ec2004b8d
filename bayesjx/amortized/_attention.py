"""Attention in which only the context is attended to, so that its keys and values are kept."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


class KeysValues(NamedTuple):
    """Keys and values of tokens, for each head: shape `(..., heads, n, size)`."""

    keys: Float[Array, "*batch heads n size"]
    values: Float[Array, "*batch heads n size"]


class Dense(eqx.Module):
    """Affine map of the last axis, as `equinox.nn.Linear` is one of vectors."""

    linear: eqx.nn.Linear

    def __init__(self, inputs: int, outputs: int, *, key: jax.Array, zero: bool = False):
        linear = eqx.nn.Linear(max(inputs, 1), outputs, key=key)
        weight = linear.weight[:, :inputs]
        if zero:
            weight = jnp.zeros_like(weight)
        bias = jnp.zeros(outputs, weight.dtype)
        self.linear = eqx.tree_at(lambda m: (m.weight, m.bias), linear, (weight, bias))

    def __call__(self, x: Float[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        return x @ self.linear.weight.T + self.linear.bias  # ty: ignore


class MLP(eqx.Module):
    """Two affine maps with a GELU between them, of the last axis."""

    first: Dense
    second: Dense

    def __init__(
        self, inputs: int, hidden: int, outputs: int, *, key: jax.Array, zero: bool = False
    ):
        keys = jax.random.split(key)
        self.first = Dense(inputs, hidden, key=keys[0])
        self.second = Dense(hidden, outputs, key=keys[1], zero=zero)

    def __call__(self, x: Float[Array, "*batch i"]) -> Float[Array, "*batch o"]:
        return self.second(jax.nn.gelu(self.first(x)))


class Attention(eqx.Module):
    """Multi-head attention to tokens whose keys and values are given.

    Beside them each query attends to one learned key and value, so that there may be no tokens.
    The output map starts at zero. Softmax is taken in single precision at least.

    Attributes:
        query: map of what attends.
        pair: map of what is attended to, to keys and values.
        output: map of what the heads return.
        empty: the learned key and value, shape `(2, heads, size)`.
        heads: number of heads.
    """

    query: Dense
    pair: Dense
    output: Dense
    empty: Float[Array, "2 heads size"]
    heads: int = eqx.field(static=True)

    def __init__(self, width: int, heads: int, *, key: jax.Array):
        keys = jax.random.split(key, 4)
        self.query = Dense(width, width, key=keys[0])
        self.pair = Dense(width, 2 * width, key=keys[1])
        self.output = Dense(width, width, key=keys[2], zero=True)
        self.empty = 0.02 * jax.random.normal(keys[3], (2, heads, width // heads))
        self.heads = heads

    def keys_values(self, tokens: Float[Array, "*batch n e"]) -> KeysValues:
        """What queries attend to."""
        keys, values = jnp.split(self.pair(tokens), 2, axis=-1)
        return KeysValues(self._by_head(keys), self._by_head(values))

    def __call__(
        self,
        tokens: Float[Array, "*batch m e"],
        to: KeysValues,
        mask: Bool[Array, "*#batch #m n"] | None = None,
    ) -> Float[Array, "*batch m e"]:
        """What `tokens` get from the tokens of `to` that `mask` allows."""
        queries = self._by_head(self.query(tokens))
        wide = jnp.promote_types(queries.dtype, jnp.float32)
        scale = queries.shape[-1] ** -0.5
        scores = (queries @ jnp.swapaxes(to.keys, -1, -2)).astype(wide) * scale
        if mask is not None:
            scores = jnp.where(mask[..., None, :, :], scores, -jnp.inf)
        none = (queries @ self.empty[0][..., None]).astype(wide) * scale
        # In place of a concatenation, which would copy the scores.
        top = jnp.maximum(none, jnp.max(scores, axis=-1, keepdims=True, initial=-jnp.inf))
        top = jax.lax.stop_gradient(top)
        weights, rest = jnp.exp(scores - top), jnp.exp(none - top)
        total = jnp.sum(weights, axis=-1, keepdims=True) + rest
        out = (weights / total).astype(tokens.dtype) @ to.values
        out = out + (rest / total).astype(tokens.dtype) * self.empty[1][:, None]
        return self.output(jnp.swapaxes(out, -3, -2).reshape(tokens.shape))

    def _by_head(self, x: Float[Array, "*batch n e"]) -> Float[Array, "*batch h n s"]:
        return jnp.swapaxes(x.reshape(*x.shape[:-1], self.heads, -1), -3, -2)


class Layer(eqx.Module):
    """A transformer layer whose tokens attend to the context only, with norms in front.

    With zero output maps it starts as the identity.

    Attributes:
        norms: layer normalisation before each of the two.
        attention: to the context.
        feed: of each token.
    """

    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]
    attention: Attention
    feed: MLP

    def __init__(self, width: int, heads: int, hidden: int, *, key: jax.Array):
        keys = jax.random.split(key)
        self.norms = (eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width))
        self.attention = Attention(width, heads, key=keys[0])
        self.feed = MLP(width, hidden, width, key=keys[1], zero=True)

    def keys_values(self, tokens: Float[Array, "*batch n e"]) -> KeysValues:
        """What other tokens attend to in these."""
        return self.attention.keys_values(normed(self.norms[0], tokens))

    def __call__(
        self,
        tokens: Float[Array, "*batch m e"],
        to: KeysValues,
        mask: Bool[Array, "*#batch #m n"] | None = None,
    ) -> Float[Array, "*batch m e"]:
        """The next layer's tokens."""
        tokens = tokens + self.attention(normed(self.norms[0], tokens), to, mask)
        return tokens + self.feed(normed(self.norms[1], tokens))


def normed(norm: eqx.nn.LayerNorm, x: Float[Array, "*batch n e"]) -> Float[Array, "*batch n e"]:
    """Layer normalisation of each token."""
    return jnp.vectorize(norm, signature="(e)->(e)")(x)
