"""What linear layers and convolutions of a network see, and what reaches their outputs."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import get_opaque_trace_state

from ._function import NetworkFunction
from ._leaves import Leaves


class Layer(eqx.Module):
    """A layer with random weights, a bias or both, whose vector is `(out, in + 1)` in C order.

    Attributes:
        name: such as `layers[0]`.
        path: where it is in the network.
        order: places of its elements among the random ones, in that order.
        outputs: number of outputs, or output channels.
        inputs: columns: those of the weight if that is random, and one of the bias if that is.
        weight: whether the weight is random.
        bias: whether the bias is.
        positions: how often the weights are applied in one call, as at the places of an image.
        repeated: whether the layer is called several times, or by `vmap` or in a loop.
    """

    name: str = eqx.field(static=True)
    path: Any = eqx.field(static=True)
    order: tuple[Any, ...] = eqx.field(static=True)
    outputs: int = eqx.field(static=True)
    inputs: int = eqx.field(static=True)
    weight: bool = eqx.field(static=True)
    bias: bool = eqx.field(static=True)
    positions: int = eqx.field(static=True, default=1)
    repeated: bool = eqx.field(static=True, default=False)

    @property
    def size(self) -> int:
        """Number of random elements."""
        return self.outputs * self.inputs

    def places(self) -> np.ndarray:
        """Places of its elements among the random ones, in its own order, shape `(size,)`."""
        weight_at, bias_at = self.order
        columns = []
        if self.weight:
            width = self.inputs - self.bias
            weight = weight_at + np.arange(self.outputs * width).reshape(self.outputs, width)
            columns.append(weight)
        if self.bias:
            columns.append(bias_at + np.arange(self.outputs)[:, None])
        return np.concatenate(columns, axis=1).reshape(-1)


class Seen(NamedTuple):
    """What a layer sees of one datum.

    Attributes:
        inputs: with a one for the bias, shape `(R, in)`; of a layer that is repeated their sums.
        outputs: what each cotangent of the network's value is at the layer's outputs, shape
            `(r, R, out)`; of a layer that is repeated their sums.
        count: how often it was called.
        products: of a layer that is repeated, sums over all calls and positions of the products of
            inputs `(in, in)` and of outputs, over all cotangents, `(out, out)`; else None.
    """

    inputs: jax.Array
    outputs: jax.Array
    count: jax.Array
    products: tuple[jax.Array, jax.Array] | None


class _Probes(NamedTuple):
    """Zeros, whose cotangents are what a layer saw."""

    inputs: jax.Array
    outputs: jax.Array
    count: jax.Array
    products: tuple[jax.Array, jax.Array] | None


def find_layers(owner: str, network: Any, leaves: Leaves) -> tuple[Layer, ...]:
    """The layers that the random leaves belong to.

    Raises:
        ValueError: one of another kind, which is named.
    """
    flat = jax.tree_util.tree_flatten_with_path(network, is_leaf=lambda x: x is None)[0]
    found: dict[Any, dict[str, Any]] = {}
    start, refused = 0, []
    for place, name in zip(leaves.places, leaves.names, strict=True):
        path, leaf = flat[place]
        node = _node(network, path[:-1])
        field = getattr(path[-1], "name", "")
        if _supported(node, field):
            found.setdefault(tuple(path[:-1]), {"name": name.rpartition(".")[0] or "network"})[
                field
            ] = start
        else:
            refused.append(f"{name} of {_described(node)}")
        start += leaf.size
    if refused:
        raise ValueError(
            f"{owner}: Kronecker factors are known for eqx.nn.Linear and for convolutions without "
            f"groups, each with a weight of its own; not for {', '.join(refused)}. Leave these out "
            'by where, or take structure="diag" or "full"'
        )
    return tuple(_layer(_node(network, path), path, at) for path, at in found.items())


def with_calls(
    owner: str, function: NetworkFunction, layers: tuple[Layer, ...], x: Any
) -> tuple[Layer, ...]:
    """The layers with their positions, and whether they are repeated.

    Args:
        owner: function whose arguments these are.
        function: of the network.
        layers: as `find_layers` found them.
        x: one input, or its shape and type.

    Raises:
        ValueError: the network does more with a layer than to call it.
    """
    calls: list[list[tuple[int, Any]]] = [[] for _ in layers]

    def look(x: jax.Array) -> Any:
        network = function.network(function.vector)
        spies = [
            _Spy(_node(network, layer.path), made)
            for layer, made in zip(layers, calls, strict=True)
        ]
        replaced = _replaced(network, layers, spies)
        return get_opaque_trace_state(), replaced(x)

    outside: list[Any] = []

    def trace(x: jax.Array) -> Any:
        state, out = look(x)
        outside.append(state)
        return out

    try:
        jax.eval_shape(trace, x)
    except AttributeError as error:
        raise ValueError(
            f"{owner}: the network does more with a layer than to call it, so that its Kronecker "
            f"factors are not known: {error}"
        ) from error
    told = []
    for layer, made in zip(layers, calls, strict=True):
        positions = made[0][0] if made else 1
        repeated = len(made) > 1 or any(state != outside[0] for _, state in made)
        if any(count != positions for count, _ in made):
            raise ValueError(
                f"{owner}: {layer.name} is called on inputs of several sizes, which Kronecker "
                "factors are not known for"
            )
        told.append(_told(layer, positions, repeated))
    return tuple(told)


def seen(
    function: NetworkFunction,
    layers: tuple[Layer, ...],
    vector: jax.Array,
    x: jax.Array,
    cotangents: jax.Array,
) -> tuple[Seen, ...]:
    """What layers see of one datum.

    Args:
        function: of the network.
        layers: as `with_calls` made them.
        vector: of the random leaves.
        x: one input.
        cotangents: of the network's flat value, shape `(r, p)`.
    """
    dtype = vector.dtype
    network = function.network(vector)

    def value(probes: tuple[_Probes, ...]) -> jax.Array:
        taps = [
            _Tapped(_node(network, layer.path), layer, probe)
            for layer, probe in zip(layers, probes, strict=True)
        ]
        return _replaced(network, layers, taps)(x).reshape(-1)

    _, pull = jax.vjp(value, tuple(_zeros(layer, dtype) for layer in layers))
    (once,) = pull(cotangents[0])  # what of it does not depend on the cotangent
    (each,) = jax.vmap(pull)(cotangents)
    found = []
    for single, many in zip(once, each, strict=True):
        products = None
        if single.products is not None:
            products = single.products[0], jnp.sum(many.products[1], axis=0)
        found.append(Seen(single.inputs, many.outputs, single.count, products))
    return tuple(found)


class _Spy(eqx.Module):
    """A layer that writes down how it is called."""

    layer: Any
    calls: list[Any] = eqx.field(static=True)

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        out = self.layer(x)
        positions = 1 if isinstance(self.layer, eqx.nn.Linear) else math.prod(out.shape[1:])
        self.calls.append((positions, get_opaque_trace_state()))
        return out


class _Tapped(eqx.Module):
    """A layer whose probes get what it sees as their cotangents."""

    layer: Any
    about: Layer
    probes: _Probes

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        out = self.layer(x)
        columns = [_patches(self.layer, x)] if self.about.weight else []
        if self.about.bias:
            columns.append(jnp.ones((self.about.positions, 1), out.dtype))
        return _tap(out, jnp.concatenate(columns, axis=1), self.probes)


@jax.custom_vjp
def _tap(out: jax.Array, inputs: jax.Array, probes: _Probes) -> jax.Array:
    return out


def _tap_forward(out: jax.Array, inputs: jax.Array, probes: _Probes) -> Any:
    return out, (inputs, probes.products is not None)


def _tap_backward(kept: Any, cotangent: jax.Array) -> Any:
    inputs, repeated = kept
    # A vmap sums over calls what depends on the call, and nothing else: so all of it does.
    one = jnp.where(jnp.isnan(cotangent.reshape(-1)[0]), 1, 1).astype(inputs.dtype)
    inputs = one * inputs
    outputs = cotangent.reshape(-1, len(inputs)).T if len(inputs) > 1 else cotangent.reshape(1, -1)
    products = (inputs.T @ inputs, outputs.T @ outputs) if repeated else None
    probes = _Probes(inputs, outputs, one, products)
    return cotangent, jnp.zeros_like(kept[0]), probes


_tap.defvjp(_tap_forward, _tap_backward)


def _zeros(layer: Layer, dtype: Any) -> _Probes:
    zeros = lambda *shape: jnp.zeros(shape, dtype)  # noqa: E731
    i, o = layer.inputs, layer.outputs
    products = (zeros(i, i), zeros(o, o)) if layer.repeated else None
    return _Probes(zeros(layer.positions, i), zeros(layer.positions, o), zeros(), products)


def _patches(layer: Any, x: jax.Array) -> jax.Array:
    """The inputs of each position, `(R, in)`, in the order of the weight's columns."""
    if isinstance(layer, eqx.nn.Linear):
        return jnp.reshape(x, (1, -1))
    padding = layer.padding
    if layer.padding_mode != "ZEROS":
        x, padding = layer._nonzero_pad(x), "VALID"
    found = jax.lax.conv_general_dilated_patches(
        x[None], layer.kernel_size, layer.stride, padding, rhs_dilation=layer.dilation
    )[0]
    return found.reshape(len(found), -1).T


def _supported(node: Any, field: Any) -> bool:
    if field not in ("weight", "bias"):
        return False
    if isinstance(node, eqx.nn.Linear):
        return node.weight.ndim == 2
    if isinstance(node, eqx.nn.Conv):
        return node.groups == 1 and node.weight.ndim == node.num_spatial_dims + 2
    return False


def _described(node: Any) -> str:
    kind = type(node).__name__
    if isinstance(node, eqx.nn.Conv) and node.groups > 1:
        return f"a {kind} of {node.groups} groups"
    if isinstance(node, eqx.nn.Linear | eqx.nn.Conv):
        return f"several {kind} in one"
    return f"a {kind}"


def _layer(node: Any, path: Any, at: dict[str, Any]) -> Layer:
    weight, bias = "weight" in at, "bias" in at
    outputs = node.weight.shape[0]
    inputs = node.weight[0].size * weight + bias
    order = at.get("weight", 0), at.get("bias", 0)
    return Layer(at["name"], path, order, outputs, inputs, weight, bias)


def _told(layer: Layer, positions: int, repeated: bool) -> Layer:
    return Layer(
        layer.name, layer.path, layer.order, layer.outputs, layer.inputs, layer.weight, layer.bias,
        positions, repeated,
    )  # fmt: skip


def _replaced(network: Any, layers: tuple[Layer, ...], others: list[Any]) -> Any:
    nodes = lambda network: [_node(network, layer.path) for layer in layers]  # noqa: E731
    return eqx.tree_at(nodes, network, others)


def _node(tree: Any, path: Any) -> Any:
    for entry in path:
        if hasattr(entry, "name"):
            tree = getattr(tree, entry.name)
        else:
            tree = tree[entry.key if hasattr(entry, "key") else entry.idx]
    return tree
