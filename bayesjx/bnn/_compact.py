"""Networks without the units that nothing depends on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np


class Compacted(NamedTuple):
    """A network without its idle units; see `compact`.

    Attributes:
        network: the smaller network, an `equinox.nn.Sequential` of dense layers.
        widths: number of units of each layer, first and last ones those of inputs and outputs.
        num_weights: weights of its layers that are not zero, without biases.
        flops_ratio: multiplications of the given network's layers over those of this one.
        run_length: mean length of runs of non-zeros along the inputs of units.
    """

    network: eqx.nn.Sequential
    widths: tuple[int, ...]
    num_weights: int
    flops_ratio: float
    run_length: float


class _Layer(NamedTuple):
    """A dense layer and what follows it, elementwise functions and dropout."""

    weight: np.ndarray
    bias: np.ndarray | None
    after: tuple[Any, ...]
    scalar: tuple[bool, bool]  # whether it takes a scalar, and gives one


def compact(network: Any) -> Compacted:
    """The same function by a smaller dense network, without units that nothing depends on.

    Of dense layers with zeros among their weights, as pruning leaves them. A unit goes whose
    output nothing reads, or whose output does not depend on the input; the latter's value goes
    into the biases of the next layer. Values change by rounding only.

    Args:
        network: an `equinox.nn.MLP`, or an `equinox.nn.Sequential` of `Linear` layers and
            elementwise functions (`Lambda`, `Dropout`, `Identity`), with known arrays.

    Raises:
        ValueError: another network or layer, which is named; a function between layers that is not
            elementwise; arrays that are traced.
    """
    layers = _layers(network)
    sizes = [layers[0].weight.shape[1], *(layer.weight.shape[0] for layer in layers)]
    before = sum(a * b for a, b in zip(sizes, sizes[1:], strict=False))
    runs = _mean_run(layers)
    changed = True
    while changed:
        changed = False
        for i in range(len(layers) - 1):
            layers[i], layers[i + 1], one = _without_idle(layers[i], layers[i + 1])
            changed |= one
    parts: list[Any] = []
    for layer in layers:
        parts += [_linear(layer), *layer.after]
    widths = (sizes[0], *(layer.weight.shape[0] for layer in layers))
    after = sum(a * b for a, b in zip(widths, widths[1:], strict=False))
    return Compacted(
        eqx.nn.Sequential(parts),
        widths,
        sum(int(np.count_nonzero(layer.weight)) for layer in layers),
        before / max(after, 1),
        runs,
    )


def _layers(network: Any) -> list[_Layer]:
    if any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves(network)):
        raise ValueError("compact: the arrays of network are traced; call it outside of jit")
    if isinstance(network, eqx.nn.MLP):
        parts = _parts_of_mlp(network)
    elif isinstance(network, eqx.nn.Sequential):
        parts = list(network.layers)
    else:
        raise ValueError(
            "compact: network must be an equinox.nn.MLP or Sequential, got "
            f"{type(network).__name__}"
        )
    groups: list[tuple[Any, list[Any]]] = []
    for i, part in enumerate(parts):
        if isinstance(part, eqx.nn.Linear):
            groups.append((part, []))
        elif not isinstance(part, eqx.nn.Lambda | eqx.nn.Dropout | eqx.nn.Identity):
            raise ValueError(
                f"compact: layer {i} of network is a {type(part).__name__}; only Linear, Lambda, "
                "Dropout and Identity are known"
            )
        elif not groups:
            raise ValueError(f"compact: network begins with a {type(part).__name__}, not a Linear")
        else:
            groups[-1][1].append(part)
    if not groups:
        raise ValueError("compact: network has no Linear layer")
    found = []
    for part, after in groups:
        bias = None if part.bias is None else np.asarray(part.bias)
        scalar = part.in_features == "scalar", part.out_features == "scalar"
        found.append(_Layer(np.asarray(part.weight), bias, tuple(after), scalar))
    for i, layer in enumerate(found[:-1]):
        _check_elementwise(i, layer)
    return found


def _parts_of_mlp(network: eqx.nn.MLP) -> list[Any]:
    functions = (network.activation, network.final_activation)
    learned = any(eqx.is_array(x) for f in functions for x in jax.tree.leaves(f))
    if network.scan or learned:
        raise ValueError("compact: an MLP with scan=True or learned activations is not known")
    inner, last = (eqx.nn.Lambda(f) for f in functions)
    parts: list[Any] = []
    for layer in network.layers[:-1]:
        parts += [layer, inner]
    return [*parts, network.layers[-1], last]


def _value(layer: _Layer, values: jax.Array) -> jax.Array:
    for part in layer.after:
        if not isinstance(part, eqx.nn.Dropout):
            values = part(values)
    return values


def _check_elementwise(i: int, layer: _Layer) -> None:
    probe = np.linspace(-1.7, 2.3, layer.weight.shape[0])  # in no order, which some functions keep
    probe = jnp.asarray(np.random.default_rng(0).permutation(probe), layer.weight.dtype)
    try:
        whole = _value(layer, probe)
        each = jax.vmap(lambda unit: _value(layer, unit))(probe[:, None]).reshape(-1)
        close = whole.shape == probe.shape and bool(jnp.allclose(whole, each, equal_nan=True))
    except (TypeError, ValueError):
        close = False
    if not close:
        raise ValueError(
            f"compact: what follows layer {i} is not elementwise, so that units cannot be left out"
        )


def _without_idle(layer: _Layer, after: _Layer) -> tuple[_Layer, _Layer, bool]:
    """Two layers without the units between them that are not read or do not vary."""
    read = np.any(after.weight != 0, axis=0)
    varies = np.any(layer.weight != 0, axis=1)
    kept = read & varies
    if kept.all() or (not kept.any() and len(kept) == 1):
        return layer, after, False
    zeros = np.zeros(len(kept), layer.weight.dtype)
    bias = zeros if layer.bias is None else layer.bias
    constant = np.asarray(_value(layer, jnp.asarray(bias)))
    fixed = read & ~varies
    moved = after.weight[:, fixed] @ constant[fixed]
    new_bias = after.bias
    if np.any(moved != 0):
        new_bias = moved if after.bias is None else after.bias + moved
    if not kept.any():  # a layer has one unit at least
        kept[0] = True
        layer = layer._replace(weight=np.zeros_like(layer.weight))
        after = after._replace(weight=np.zeros_like(after.weight))
    layer = layer._replace(
        weight=layer.weight[kept], bias=None if layer.bias is None else layer.bias[kept]
    )
    return layer, after._replace(weight=after.weight[:, kept], bias=new_bias), True


def _linear(layer: _Layer) -> eqx.nn.Linear:
    sizes = zip(layer.weight.shape[::-1], layer.scalar, strict=True)
    inputs, outputs = ("scalar" if scalar else size for size, scalar in sizes)
    make: Callable[..., Any] = eqx.nn.Linear
    linear = make(
        inputs,
        outputs,
        use_bias=layer.bias is not None,
        dtype=layer.weight.dtype,
        key=jax.random.key(0),
    )
    arrays = (jnp.asarray(layer.weight), None if layer.bias is None else jnp.asarray(layer.bias))
    return eqx.tree_at(
        lambda part: (part.weight, part.bias), linear, arrays, is_leaf=lambda x: x is None
    )


def _mean_run(layers: list[_Layer]) -> float:
    """Mean length of runs of non-zeros along rows."""
    total = runs = 0
    for layer in layers:
        used = layer.weight != 0
        total += int(used.sum())
        runs += int(used[:, 0].sum() + (used[:, 1:] & ~used[:, :-1]).sum())
    return total / max(runs, 1)
