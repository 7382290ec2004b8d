"""Kronecker factors of the curvature of linear layers and convolutions (KFAC)."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .. import ops
from .._core import compiled, run_traced, sum_chunks, traced, TracedFunction
from ..likelihoods import Likelihood
from ._curvature import drawn_roots, Problem, problem, weight_roots
from ._leaves import Where
from ._taps import find_layers, Layer, Seen, seen, with_calls

SHARING = ("expand", "reduce")


class Factors(NamedTuple):
    """Kronecker factors of one layer, whose block is `outputs` ⊗ `inputs`.

    Attributes:
        outputs: sum over the data, shape `(out, out)`.
        inputs: mean over the data, shape `(in, in)`, a one for the bias last.
    """

    outputs: jax.Array
    inputs: jax.Array


def kronecker_factors(
    network: Any,
    x: Any,
    y: Any,
    likelihood: Likelihood,
    *,
    where: Where = None,
    curvature: str = "ggn",
    sharing: str = "expand",
    key: jax.Array | None = None,
    num_samples: int | None = None,
    chunk_size: int | None = None,
) -> ops.Reordered:
    r"""Kronecker-factored approximate curvature (KFAC) of a network, block-diagonal by layers.

    The block of a layer with inputs $a$ and derivatives $g$ at its outputs is $B \otimes A$ with
    $A = E[a a^\top]$ and $B = \sum g g^\top$; the bias is a weight of an input of one, in the
    layer's block. Exact for a linear network with one layer; else an approximation of
    `gauss_newton`, of whose rows and columns it has the order. `eqx.nn.Linear` and convolutions
    without groups are known, also called by `jax.vmap`, in a loop or several times.

    Args:
        network: see `gauss_newton`.
        x: inputs, shape `(n, ...)`.
        y: observations; not used, and may be None, with `curvature="fisher"`.
        likelihood: from values of the network to a NumPyro distribution.
        where: which leaves are random, see `mean_field`; all in supported layers.
        curvature: what is factorised: `"ggn"`, `"fisher"` or `"empirical"`, see `gauss_newton`,
            `fisher` and `empirical_fisher`.
        sharing: of weights that are applied at several places of an input, as those of a
            convolution: `"expand"` takes each place for a datum; `"reduce"` first averages inputs
            and adds derivatives over the places, as for a network that averages over them.
        key: for the Fisher information by draws.
        num_samples: with `curvature="fisher"`, draws of each observation, from which the
            derivatives are then taken in place of the closed form, whose reverse passes are as
            many as outputs. One is the usual choice.
        chunk_size: how many data are treated at a time; by default as many as have some 4 million
            elements of their Jacobians.

    Returns:
        An operator whose `operator.blocks` are an `ops.Kron` of each layer, in the order of the
        network's leaves.

    Raises:
        ValueError: see `gauss_newton`; a random leaf of an unsupported layer, all of which are
            named; another `curvature` or `sharing`.

    References:
        Martens and Grosse (2015), "Optimizing neural networks with Kronecker-factored approximate
        curvature", ICML; Grosse and Martens (2016), "A Kronecker-factored approximate Fisher
        matrix for convolution layers", ICML; Eschenhagen, Immer, Turner, Schneider and Hennig
        (2023), "Kronecker-factored approximate curvature for modern neural network
        architectures", NeurIPS, for expand and reduce.
    """
    owner = "kronecker_factors"
    observed = None if curvature == "fisher" else y
    found = problem(owner, network, x, observed, likelihood, where, chunk_size)
    if curvature == "fisher" and num_samples is not None and key is not None:
        roots = drawn_roots(owner, found, key, num_samples)
    else:
        roots = weight_roots(owner, found, curvature, key, num_samples)
    layers, factors = layer_factors(owner, found, roots, sharing)
    blocks = tuple(ops.Kron(f.outputs, f.inputs, tags=ops.psd) for f in factors)
    return ops.Reordered(ops.BlockDiag(blocks), joined_places(layers))


def joined_places(layers: tuple[Layer, ...]) -> np.ndarray:
    """Places among the random elements of those of all layers, one layer after the other."""
    return np.concatenate([layer.places() for layer in layers])


def network_layers(owner: str, found: Problem) -> tuple[Layer, ...]:
    """The layers of a network that the random leaves belong to.

    Raises:
        ValueError: another kind of layer.
    """
    network = found.function.held.tree
    layers = find_layers(owner, network, found.function.leaves)
    return with_calls(owner, found.function, layers, found.x[0])


def layer_factors(
    owner: str, found: Problem, roots: Any, sharing: str
) -> tuple[tuple[Layer, ...], tuple[Factors, ...]]:
    """The layers and their factors.

    Args:
        owner: function whose arguments these are.
        found: of that function.
        roots: of the weight of each datum.
        sharing: `"expand"` or `"reduce"`.

    Raises:
        ValueError: another `sharing`, an unsupported layer.
    """
    if sharing not in SHARING:
        raise ValueError(f'{owner}: sharing must be "expand" or "reduce", got {sharing!r}')
    layers = network_layers(owner, found)
    look = layer_views(found, layers, roots)
    data = (found.x, roots)
    vector = found.function.vector
    shapes = tuple((layer.positions, layer.repeated) for layer in layers)
    return layers, run_traced(_factors, look, look, vector, data, shapes, sharing, found.chunk_size)


def layer_views(found: Problem, layers: tuple[Layer, ...], roots: Any) -> TracedFunction:
    """What layers see of one datum, as a function of the weights and of `(x, root)`."""
    size = found.f.size // len(found.f)

    def look(vector: jax.Array, datum: Any) -> tuple[Seen, ...]:
        x, root = datum
        cotangents = ops.times_root(root, jnp.eye(size, dtype=vector.dtype))
        return seen(found.function, layers, vector, x, cotangents)

    first = jax.tree.map(lambda a: a[0], (found.x, roots))
    return traced(look, found.function.vector, first)


@compiled
def _factors(
    look: TracedFunction,
    vector: jax.Array,
    data: Any,
    shapes: tuple[tuple[int, bool], ...],
    sharing: str,
    chunk_size: int | None,
) -> tuple[Factors, ...]:
    def of_some(part: Any) -> Any:
        views = jax.vmap(lambda datum: look(vector, datum))(part)
        return tuple(
            _sums(view, positions, repeated, sharing)
            for view, (positions, repeated) in zip(views, shapes, strict=True)
        )

    sums = sum_chunks(of_some, data, chunk_size)
    return tuple(Factors(b, a / jnp.maximum(number, 1)) for a, b, number in sums)


def _sums(view: Seen, positions: int, repeated: bool, sharing: str) -> tuple[jax.Array, ...]:
    """Sums over some data of the products of inputs and of outputs, and how many inputs."""
    places = view.count * positions
    if sharing == "reduce":
        inputs = jnp.sum(view.inputs, axis=1) / jnp.maximum(places, 1)[:, None]
        outputs = jnp.sum(view.outputs, axis=2)
        number = jnp.sum(jnp.minimum(view.count, 1))
    elif repeated:
        products = view.products
        assert products is not None
        return jnp.sum(products[0], axis=0), jnp.sum(products[1], axis=0), jnp.sum(places)
    else:
        inputs, outputs, number = view.inputs, view.outputs, jnp.sum(places)
    inputs = inputs.reshape(-1, inputs.shape[-1])
    outputs = outputs.reshape(-1, outputs.shape[-1])
    return inputs.T @ inputs, outputs.T @ outputs, number
