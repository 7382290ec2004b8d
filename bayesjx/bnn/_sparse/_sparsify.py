"""Dense Equinox models made sparse."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from ..._core import check_key, path_name
from ._arguments import block_of, one_of, real
from ._budgets import BUDGETS, erk_densities, global_densities, unit_of, units_of_density
from ._layers import conv_of, linear_of
from ._start import largest_weight, random_weight
from ._weight import grid, SparseWeight, unit_norms

_CONVERTED = (eqx.nn.Linear, eqx.nn.Conv)
_UNSUPPORTED = (eqx.nn.ConvTranspose, eqx.nn.Embedding, eqx.nn.GRUCell, eqx.nn.LSTMCell)


class _Dense(NamedTuple):
    """A layer to convert: its name, itself, its weights as `(K, N)`, and its units."""

    name: str
    layer: Any
    matrix: jax.Array
    block: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        return self.matrix.shape[0], self.matrix.shape[1]


def sparsify(
    key: Any,
    model: Any,
    density: Any = 0.1,
    *,
    group: int = 32,
    block: Any = None,
    budget: str = "uniform",
    start: str = "random",
    last_dense: bool = True,
    layers: Any = None,
    relative_scale: Any = 0.05,
) -> Any:
    r"""The model with `SparseLinear` and `SparseConv` in place of its dense layers.

    Their weights are normal, on random active units; biases and all other parts of the model stay.
    Layers that stay dense get normal weights too, with the model's as means.

    Args:
        key: for the active units and their means.
        model: callable Equinox module with `equinox.nn.Linear` and `equinox.nn.Conv` anywhere in
            it, modules such as `MLP` and `MultiheadAttention` included.
        density: share of the weights that is active, of all layers together that are not dense; or
            that of each layer, in the order of the model's leaves, 1 for dense ones.
        group: columns that share their active rows; the last group of a layer may be smaller. 32
            from a density of 5 % on, 8 below, are about as fast and better than larger ones; 1 is
            sparsity by entries.
        block: rows and columns of blocks that are active as one, in place of `group`. Of a
            convolution's rows, `prod(kernel_size)` follow each other for each input channel.
        budget: how one density is shared out: `"uniform"`, the same for each layer; `"erk"`,
            Erdős-Rényi kernel, more for small layers; `"global"`, the largest units of the model's
            weights in all layers together, and `reallocate` moves units between layers later on.
        start: `"random"`, random units with means $N(0, 2/k)$ for `k` active inputs; or
            `"weights"`, the units of the largest norms with the model's weights as means, as of a
            model that is trained.
        last_dense: whether the last layer stays dense where one density is given.
        layers: from the model to the layers that are converted, a list of them; by default all.
        relative_scale: initial standard deviations in units of that of the means of a layer.

    Raises:
        ValueError: a density that leaves a layer without active units, is above 1, or one of a
            number of layers that differs; no layer to convert; layers of other types, which are
            named, unless `layers` leaves them out; groups of channels, stacked layers.

    References:
        Li, Miao, Qiu and Zhang (2024), "Training Bayesian neural networks with sparse subspace
        variational inference", ICLR; Evci et al. (2020), "Rigging the lottery", ICML (ERK).
    """
    check_key(key)
    one_of("start", start, ("random", "weights"))
    unit = block_of(group, block)
    dense = _layers(model, layers, unit)
    counts = _counts(dense, density, one_of("budget", budget, BUDGETS), last_dense)
    keys = random.split(key, len(dense))
    made = {}
    for entry, k, key in zip(dense, counts, keys, strict=True):
        weight = _weight(key, entry, k, start, relative_scale)
        put = linear_of if isinstance(entry.layer, eqx.nn.Linear) else conv_of
        made[id(entry.layer)] = put(weight, entry.layer)
    change = lambda node: made.get(id(node), node)  # noqa: E731
    return jax.tree.map(change, model, is_leaf=lambda node: id(node) in made)


def _weight(
    key: jax.Array, entry: _Dense, k: int, start: str, relative_scale: float
) -> SparseWeight:
    if start == "random" and k < grid(entry.size, entry.block)[1]:
        dtype = entry.matrix.dtype
        return random_weight(key, entry.size, entry.block, k, relative_scale, dtype)
    return largest_weight(entry.matrix, entry.block, k, relative_scale)


def _counts(dense: Sequence[_Dense], density: Any, budget: str, last_dense: bool) -> list[int]:
    """Active units of each group of each layer."""
    if isinstance(density, Sequence | np.ndarray):
        if len(density) != len(dense):
            names = ", ".join(entry.name for entry in dense)
            raise ValueError(
                f"density must be a number or one for each of the {len(dense)} layers, {names}; "
                f"got {len(density)}"
            )
        shares = list(density)
    else:
        sparse = dense[: len(dense) - bool(last_dense)] if len(dense) > 1 else dense
        share = real("density", density, 0, 1, "a number above 0 and at most 1")
        shares = _shares(sparse, share, budget) + [1.0] * (len(dense) - len(sparse))
    pairs = zip(dense, shares, strict=True)
    return [units_of_density(entry.name, entry.size, entry.block, share) for entry, share in pairs]


def _shares(sparse: Sequence[_Dense], density: float, budget: str) -> list[float]:
    if budget == "erk":
        return erk_densities([entry.layer.weight.shape for entry in sparse], density)
    if budget == "global":
        norms = [np.asarray(unit_norms(e.matrix, e.block)) / math.prod(e.block) for e in sparse]
        return global_densities(norms, [math.prod(e.block) for e in sparse], density)
    return [density] * len(sparse)


def _layers(model: Any, layers: Any, unit: tuple[int, int]) -> list[_Dense]:
    kinds = (*_CONVERTED, *_UNSUPPORTED)
    is_layer = lambda node: isinstance(node, kinds)  # noqa: E731
    found = jax.tree_util.tree_leaves_with_path(model, is_leaf=is_layer)
    named = [(path_name(path, "model"), node) for path, node in found if is_layer(node)]
    if layers is not None:
        chosen = _chosen(model, layers)
        named = [(name, node) for name, node in named if any(node is one for one in chosen)]
        if len(named) < len(chosen):
            kept = [node for _, node in named]
            other = next(c for c in chosen if not any(c is node for node in kept))
            raise ValueError(
                f"layers must return layers of the model, equinox.nn.Linear or Conv; it returned a "
                f"{type(other).__name__}, which has no sparse form"
            )
    if not named:
        raise ValueError(
            f"model holds no equinox.nn.Linear or equinox.nn.Conv to convert; got "
            f"{type(model).__name__}"
        )
    return [_dense(name, node, unit) for name, node in named]


def _chosen(model: Any, layers: Any) -> list[Any]:
    if not callable(layers):
        raise ValueError(f"layers must be a function of the model, got {layers!r:.60}")
    chosen = layers(model)
    return list(chosen) if isinstance(chosen, tuple | list) else [chosen]


def _dense(name: str, layer: Any, unit: tuple[int, int]) -> _Dense:
    kind = type(layer).__name__
    if isinstance(layer, _UNSUPPORTED):
        raise ValueError(
            f"{name} of the model is a {kind}, which has no sparse form; choose others by layers, "
            "and it stays as it is"
        )
    weight, conv = layer.weight, isinstance(layer, eqx.nn.Conv)
    if conv and layer.groups > 1:
        raise ValueError(
            f"{name} of the model is a {kind} with {layer.groups} groups of channels, which has no "
            "sparse form; choose others by layers, and it stays as it is"
        )
    if weight.ndim != (2 + layer.num_spatial_dims if conv else 2):
        raise ValueError(
            f"{name} of the model is a stack of layers, with weights of shape {weight.shape}; "
            "sparse layers cannot be stacked: make them one by one"
        )
    if not jnp.issubdtype(weight.dtype, jnp.floating):
        raise ValueError(f"{name} of the model has weights of {weight.dtype}; they must be real")
    matrix = weight.reshape(len(weight), -1).T
    return _Dense(name, layer, matrix, unit_of(matrix.shape, unit))
