"""Layers with random weights: flipout and local reparameterisation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jax.ad_checkpoint import checkpoint_name
from jax.extend import core

from .._core import path_name, safe_sqrt
from ._noise import layer_noise

Estimator = Literal["weights", "flipout", "local"]
LINEAR = (eqx.nn.Linear, eqx.nn.Conv, eqx.nn.ConvTranspose)  # linear in their weights
_MARK = "local reparameterisation of "
_LOOPS = ("scan", "while")


class FlipoutLayer(eqx.Module):
    r"""A linear or convolution layer whose random weights have other signs for each input.

    $y = M x + r \circ \Delta (s \circ x)$ for random signs $r$ and $s$: the layer with the weights
    $M + \Delta \circ r s^\top$, which are distributed as $M + \Delta$ is where $\Delta$ is
    symmetric and its elements independent. All calls of one input have the same weights, so that a
    layer may be applied several times.

    Attributes:
        mean: the layer with the weights $M$.
        deviation: the layer with the weights $\Delta$.
        out_signs: $r$, one for each output or output channel.
        in_signs: $s$, one for each input or input channel.

    References:
        Wen, Vicol, Ba, Tran and Grosse (2018), "Flipout: efficient pseudo-independent weight
        perturbations on mini-batches", ICLR, equation 3.
    """

    mean: Any
    deviation: Any
    out_signs: jax.Array
    in_signs: jax.Array

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        """The layer's value at one input."""
        x = _as_floats(x, self.mean)
        flipped = self.deviation(x * _along_first(self.in_signs, x))
        return self.mean(x) + flipped * _along_first(self.out_signs, flipped)

    @property
    def weight(self) -> jax.Array:
        """The weights of this input, for networks that read them."""
        groups = getattr(self.mean, "groups", 1)
        each = len(self.out_signs) // groups
        signs = jnp.repeat(self.in_signs.reshape(groups, -1), each, axis=0)
        signs = signs * self.out_signs[:, None]
        delta = self.deviation.weight
        return self.mean.weight + delta * signs.reshape(*signs.shape, *(1,) * (delta.ndim - 2))

    @property
    def bias(self) -> jax.Array | None:
        """The biases of this input, for networks that read them."""
        if self.mean.bias is None:
            return None
        delta = self.deviation.bias
        return self.mean.bias + delta * _along_first(self.out_signs, delta)

    def __getattr__(self, name: str) -> Any:
        return _of_layer(self, name)


class LocalLayer(eqx.Module):
    r"""A linear or convolution layer whose outputs are drawn in place of its weights.

    $y \sim N(M x, S^{\circ 2} x^{\circ 2})$, each output by itself. That is the distribution of one
    application of a linear layer; that of a convolution has the same marginals, but the outputs at
    several places share weights and are correlated.

    Attributes:
        mean: the layer with the means of the weights, $M$.
        variance: the layer with their variances, $S^{\circ 2}$.
        key: of this input.
        name: of the layer in its network.

    References:
        Kingma, Salimans and Welling (2015), "Variational dropout and the local reparameterization
        trick", NeurIPS, equation 6.
    """

    mean: Any
    variance: Any
    key: jax.Array
    name: str = eqx.field(static=True)

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        """A draw of the layer's value at one input."""
        x = _as_floats(x, self.mean)
        mean = self.mean(x)
        noise = layer_noise(self.key, mean.shape, mean.dtype)
        y = mean + safe_sqrt(self.variance(x**2)) * noise
        return checkpoint_name(y, f"{_MARK}{self.name} {mean.ndim}")

    @property
    def weight(self) -> jax.Array:
        """There are no weights of an input.

        Raises:
            ValueError: always.
        """
        raise ValueError(_reads(self.name))

    @property
    def bias(self) -> jax.Array | None:
        """There are no biases of an input.

        Raises:
            ValueError: always.
        """
        raise ValueError(_reads(self.name))

    def __getattr__(self, name: str) -> Any:
        return _of_layer(self, name)


class Perturbed(eqx.Module):
    """A layer whose noise depends on the input."""

    make: Callable[[jax.Array], Any] = eqx.field(static=True)


def is_linear(node: Any) -> bool:
    """Whether a node of a network is a layer that is linear in its weights, and known to be so."""
    kinds = [kind for kind in LINEAR if isinstance(node, kind)]
    return bool(kinds) and type(node).__call__ is kinds[0].__call__


def eligible_layers(means: Any, scales: Any) -> list[str]:
    """Names of the layers with random weights that have an estimator of their own.

    Args:
        means: the network.
        scales: a tree like it, with None where a leaf is not random.
    """
    return [name for name, mean, scale in _nodes(means, scales) if _is_eligible(mean, scale)]


def other_owners(means: Any, scales: Any) -> list[str]:
    """Types of the modules that own random leaves of no such layer."""
    found = set()
    paths = jax.tree_util.tree_leaves_with_path(scales)
    for path, _ in paths:
        node, owner = means, type(means).__name__
        for entry in path:
            node = _child(node, entry)
            owner = type(node).__name__ if isinstance(node, eqx.Module) else owner
        found.add(owner)
    return sorted(found)


def by_input(
    means: Any, scales: Any, estimator: Estimator, key: jax.Array
) -> Callable[[jax.Array], Any]:
    """A network with random weights as a function of the key of an input.

    Args:
        means: the network.
        scales: standard deviations in a tree like it, with None where a leaf is not random.
        estimator: `"weights"` draws all leaves once for all inputs. `"flipout"` and `"local"` give
            linear and convolution layers noise that is another one for each input, and draw the
            leaves of all others once.
        key: of what all inputs share.
    """
    parts: list[Any] = []
    nodes = list(_nodes(means, scales))
    for (name, mean, scale), own in zip(nodes, random.split(key, len(nodes)), strict=True):
        if estimator == "weights" or not _is_eligible(mean, scale):
            parts.append(drawn(mean, scale, own))
        elif estimator == "flipout":
            parts.append(_flipout(mean, scale, own))
        else:
            parts.append(_local(mean, scale, name))
    structure = jax.tree.structure(means, is_leaf=is_linear)

    def of_input(key: jax.Array) -> Any:
        keys = random.split(key, len(parts))
        pairs = zip(parts, keys, strict=True)
        made = [part.make(own) if isinstance(part, Perturbed) else part for part, own in pairs]
        return jax.tree.unflatten(structure, made)

    return of_input


def drawn(means: Any, scales: Any, key: jax.Array) -> Any:
    """A tree whose random leaves are normal draws, of one draw for all inputs."""
    leaves = jax.tree.leaves(scales)
    keys = iter(random.split(key, max(len(leaves), 1)))

    def one(mean: Any, scale: Any) -> Any:
        if scale is None:
            return mean
        return mean + scale * random.normal(next(keys), mean.shape, mean.dtype)

    return jax.tree.map(one, means, scales, is_leaf=lambda x: x is None)


def check_applied_once(
    of_input: Callable[..., jax.Array], *args: Any, instead: str = "flipout"
) -> None:
    """Whether a network draws the outputs of each layer only once for an input.

    Two draws of a layer's outputs would be those of two layers with weights of their own.

    Raises:
        ValueError: a layer is applied several times; names it.
    """
    counts: Counter[str] = Counter()
    for mark, times in _marks(jax.make_jaxpr(of_input)(*args).jaxpr):
        counts[mark] += times
    for mark, times in counts.items():
        if times > 1:
            raise ValueError(
                f"estimator='local' draws the outputs of a layer, not its weights, and {mark} is "
                "applied several times to an input, in a loop or by jax.vmap within the network: "
                f"use estimator={instead!r}, whose weights are the same each time"
            )


def _marks(jaxpr: Any) -> Iterator[tuple[str, int]]:
    """Name of each draw of outputs, and 1, or 2 if there are several draws."""
    for eqn in jaxpr.eqns:
        name = str(eqn.params.get("name", "")) if eqn.primitive.name == "name" else ""
        if name.startswith(_MARK):
            layer, ndim = name.removeprefix(_MARK).rsplit(" ", 1)
            yield layer, 1 if eqn.outvars[0].aval.ndim == int(ndim) else 2
        for inner in map(_inner, jax.tree.leaves(eqn.params, is_leaf=_is_jaxpr)):
            if inner is not None:
                again = 2 if eqn.primitive.name in _LOOPS else 1
                yield from ((layer, again * times) for layer, times in _marks(inner))


def _is_jaxpr(x: Any) -> bool:
    return isinstance(x, core.Jaxpr | core.ClosedJaxpr)


def _inner(x: Any) -> Any:
    if isinstance(x, core.ClosedJaxpr):
        return x.jaxpr
    return x if isinstance(x, core.Jaxpr) else None


def _nodes(means: Any, scales: Any) -> Iterator[tuple[str, Any, Any]]:
    """Names, layers or leaves of a network, and what stands in their places in another tree."""
    paths, structure = jax.tree_util.tree_flatten_with_path(means, is_leaf=is_linear)
    others = structure.flatten_up_to(scales)
    for (path, mean), scale in zip(paths, others, strict=True):
        yield path_name(path, "network"), mean, scale


def _is_eligible(mean: Any, scale: Any) -> bool:
    return is_linear(mean) and scale.weight is not None


def _flipout(mean: Any, scale: Any, key: jax.Array) -> Perturbed:
    zero = jax.tree.map(jnp.zeros_like, mean)
    delta = drawn(zero, scale, key)
    dtype, sizes = mean.weight.dtype, (mean.weight.shape[0], _num_inputs(mean))

    def make(key: jax.Array) -> FlipoutLayer:
        signs = random.rademacher(key, (sum(sizes),), dtype)
        return FlipoutLayer(mean, delta, signs[: sizes[0]], signs[sizes[0] :])

    return Perturbed(make)


def _local(mean: Any, scale: Any, name: str) -> Perturbed:
    bias = mean.bias
    if bias is not None:
        bias = jnp.zeros_like(bias) if scale.bias is None else scale.bias**2
    variance = _with(mean, scale.weight**2, bias)
    return Perturbed(lambda key: LocalLayer(mean, variance, key, name))


def _with(layer: Any, weight: Any, bias: Any) -> Any:
    """The layer with other weights and biases."""
    return eqx.tree_at(
        lambda layer: (layer.weight, layer.bias),
        layer,
        (weight, bias),
        is_leaf=lambda x: x is None,
    )


def _num_inputs(layer: Any) -> int:
    return layer.weight.shape[1] * getattr(layer, "groups", 1)


def _as_floats(x: jax.Array, layer: Any) -> jax.Array:
    """An input in the type of the weights, in which integers would overflow when squared."""
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(layer.weight.dtype)


def _along_first(signs: jax.Array, x: jax.Array) -> jax.Array:
    """Signs with the axes of `x`, along its first one."""
    return signs.reshape(x.shape[:1] + (1,) * max(x.ndim - 1, 0))


def _of_layer(layer: Any, name: str) -> Any:
    """Sizes and options of the layer that another one stands for."""
    if name.startswith("_") or name in ("mean", "deviation", "variance"):
        raise AttributeError(name)
    return getattr(layer.mean, name)


def _reads(name: str) -> str:
    return (
        f"estimator='local' draws the outputs of {name}, so that its weights cannot be read, as "
        "the network does: use estimator='flipout' or 'weights'"
    )


def _child(node: Any, entry: Any) -> Any:
    for name in ("name", "key", "idx"):
        if hasattr(entry, name):
            value = getattr(entry, name)
            return getattr(node, value) if name == "name" else node[value]
    return node
