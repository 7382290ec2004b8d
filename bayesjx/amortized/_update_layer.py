"""The layer in which components of a mixture attend to each other and to observations."""

from __future__ import annotations

import equinox as eqx
import jax
from jaxtyping import Array, Bool, Float

from ._attention import Attention, KeysValues, Layer, normed


class UpdateLayer(eqx.Module):
    """Components attend to each other, then to observations; norms in front, zero outputs at first.

    Attributes:
        among: of components among themselves.
        across: of components to observations, and the network of each token.
    """

    norm: eqx.nn.LayerNorm
    among: Attention
    observations: eqx.nn.LayerNorm
    across: Layer

    def __init__(self, width: int, heads: int, hidden: int, *, key: jax.Array):
        keys = jax.random.split(key)
        self.norm = eqx.nn.LayerNorm(width)
        self.among = Attention(width, heads, key=keys[0])
        self.observations = eqx.nn.LayerNorm(width)
        self.across = Layer(width, heads, hidden, key=keys[1])

    def __call__(
        self,
        tokens: Float[Array, "*batch k e"],
        seen: Float[Array, "*batch n e"],
        mask: Bool[Array, "*#batch 1 n"],
    ) -> Float[Array, "*batch k e"]:
        """The next layer's tokens of components."""
        own = normed(self.norm, tokens)
        tokens = tokens + self.among(own, self.among.keys_values(own))
        to: KeysValues = self.across.attention.keys_values(normed(self.observations, seen))
        return self.across(tokens, to, mask)
