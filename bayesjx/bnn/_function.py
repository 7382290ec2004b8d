"""Networks as functions of one vector, that of their random leaves."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ._leaves import Leaves
from ._network import Held


class NetworkFunction(eqx.Module):
    """A network's value at one input, as a function of its random leaves, flat and joined.

    Attributes:
        held: the network, in inference mode.
        leaves: which of its leaves are random.
        index: which elements of these are, or None for all.
    """

    held: Held
    leaves: Leaves
    index: Int[Array, " m"] | None

    @property
    def values(self) -> tuple[Any, ...]:
        """The random leaves as they are."""
        return self.leaves.of(self.held.tree)

    @property
    def vector(self) -> Float[Array, " m"]:
        """Where the network stands, shape `(m,)`."""
        flat = self._flat()
        return flat if self.index is None else flat[self.index]

    def network(self, vector: Float[Array, " m"]) -> Any:
        """The network with these in place of its random leaves."""
        if self.index is not None:
            vector = self._flat().at[self.index].set(vector)
        parts, start = [], 0
        for value in self.values:
            size = math.prod(value.shape)
            parts.append(vector[start : start + size].reshape(value.shape))
            start += size
        return self.leaves.put(self.held.tree, parts)

    def __call__(self, vector: Float[Array, " m"], x: Array) -> Array:
        """Its value at one input, shape `()` or `(p,)`."""
        return self.network(vector)(x)

    def part(self, index: Int[Array, " k"]) -> NetworkFunction:
        """The same of some elements of the random leaves, the others fixed."""
        return NetworkFunction(self.held, self.leaves, jnp.asarray(index))

    def _flat(self) -> jax.Array:
        return jnp.concatenate([jnp.ravel(value) for value in self.values])


def network_function(network: Any, leaves: Leaves) -> NetworkFunction:
    """That of a network, whose dropout is off."""
    return NetworkFunction(Held(eqx.nn.inference_mode(network)), leaves, None)
