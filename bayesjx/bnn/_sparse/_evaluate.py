"""Networks with sparse layers: their weights, their noise, and what a growth gradient probes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax, random
from jax.ad_checkpoint import checkpoint_name

from .._network import takes_key
from .._stochastic import _MARK
from ._layers import AbstractSparseLayer
from ._weight import SparseWeight


class NoisyLayer(eqx.Module):
    """A sparse layer with noise of its own key and, where it is probed, a dense matrix beside.

    Attributes:
        layer: with random weights.
        key: of the input; None for mean weights.
        probe: dense matrix that is added to the weights, without gradient of the inputs; or None.
        name: of the layer among those of the network.
    """

    layer: AbstractSparseLayer
    key: jax.Array | None
    probe: jax.Array | None
    name: str = eqx.field(static=True)

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        """A draw of the layer's value at one input."""
        out = self.layer(x, key=self.key)
        if self.key is not None and self.layer.weight.scale is not None:
            out = checkpoint_name(out, f"{_MARK}{self.name} {out.ndim}")
        if self.probe is None:
            return out
        x = jnp.asarray(x, self.probe.dtype)
        columns = lax.stop_gradient(self.layer.columns(x))
        return out + self.layer.shaped(columns @ self.probe, x)


def weights_of(network: Any) -> list[SparseWeight]:
    """The sparse weights of a network, or of a tree like it, in the order of its leaves."""
    return [leaf for leaf in jax.tree.leaves(network, is_leaf=_is_weight) if _is_weight(leaf)]


def with_weights(network: Any, weights: Sequence[Any]) -> Any:
    """The network with others in place of its sparse weights."""
    left = iter(weights)
    put = lambda leaf: next(left) if _is_weight(leaf) else leaf  # noqa: E731
    return jax.tree.map(put, network, is_leaf=_is_weight)


def by_input(
    network: Any, probes: Sequence[Any] | None = None
) -> Callable[[jax.Array | None], Any]:
    """The network as a function of the key of an input, whose noise all of its layers have.

    Args:
        network: with sparse layers.
        probes: for each layer a dense matrix that is added to its weights, or None.
    """
    count = len(weights_of(network))
    probes = [None] * count if probes is None else list(probes)

    def of_input(key: jax.Array | None) -> Any:
        keys = [None] * count if key is None else list(random.split(key, count))
        left = iter(range(count))

        def noisy(layer: AbstractSparseLayer) -> NoisyLayer:
            i = next(left)
            return NoisyLayer(layer, keys[i], probes[i], f"sparse layer {i}")

        return _with_layers(network, noisy)

    return of_input


def layer_shapes(network: Any, x: Any) -> list[tuple[int, int]]:
    """For each call of a sparse layer its position among them, and the rows of its product."""
    found: list[tuple[int, int]] = []
    numbers = iter(range(len(weights_of(network))))

    def counted(layer: Any) -> Callable[..., jax.Array]:
        number = next(numbers)

        def call(x: jax.Array, *, key: Any = None) -> jax.Array:
            found.append((number, layer.columns(x).shape[0]))
            return layer(x)

        return call

    options = {"key": random.key(0)} if takes_key(network) else {}
    eqx.filter_eval_shape(_with_layers(network, counted), x, **options)
    return found


def _with_layers(network: Any, change: Callable[[AbstractSparseLayer], Any]) -> Any:
    put = lambda node: change(node) if _is_layer(node) else node  # noqa: E731
    return jax.tree.map(put, network, is_leaf=_is_layer)


def _is_layer(node: Any) -> bool:
    return isinstance(node, AbstractSparseLayer)


def _is_weight(node: Any) -> bool:
    return isinstance(node, SparseWeight)
