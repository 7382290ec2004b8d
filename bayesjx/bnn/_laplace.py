"""Linearised Laplace approximation of networks, in several structures of the curvature."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import ops
from .._core import check_flag, number_array, path_name, refuse_where, run_traced, whole_number
from ..likelihoods import held, Likelihood, log_likelihood, scores
from ._arguments import check_single
from ._curvature import drawn_roots, ELEMENTS, matrix_of, Problem, problem, weight_roots, with_noise
from ._kronecker import joined_places, layer_factors, layer_views, network_layers
from ._laplace_evidence import noise_of
from ._laplace_posterior import About, conditioned, LaplacePosterior, settled
from ._layer_structures import KronStructure, layer_gram, LayerStructure
from ._leaves import Leaves, random_leaves, Where
from ._network import Outputs
from ._structures import AbstractStructure, DiagStructure, GramStructure, RowsStructure

STRUCTURES = ("full", "last_layer", "kron", "diag", "subnetwork")


def laplace(
    network: Any,
    x: Any,
    y: Any,
    likelihood: Likelihood,
    *,
    where: Where = None,
    structure: str = "full",
    prior_precision: Any = 1.0,
    curvature: str = "ggn",
    mean: str = "network",
    subnetwork: Any = None,
    sharing: str = "expand",
    key: jax.Array | None = None,
    num_samples: int | None = None,
    chunk_size: int | None = None,
    throw: bool = False,
) -> LaplacePosterior:
    r"""Linearised Laplace approximation of a trained network.

    The network is linearised in its random leaves at where it stands, $\theta_*$, and its
    log likelihood gets the curvature $H$ there; with the prior $\theta \sim N(0, \Delta^{-1})$ the
    weights are $N(\theta_*, (H + \Delta)^{-1})$ and the function is Gaussian at all inputs, by the
    network's Jacobian. For a network that is linear in its random leaves, with normal noise, this
    is Bayesian linear regression. The network should be at a mode of the log posterior density
    with this prior: the posterior's `result`, `gradient_norm` and `mode_distance` say how far it
    is. Prior precisions and noise are tuned by `tune_laplace`.

    Args:
        network: a callable Equinox module of one input, with values of shape `()` or `(p,)`; its
            dropout is off.
        x: inputs of the data that it was trained with, shape `(n, ...)`.
        y: observations, shape `(n,)`, or `(n, ...)`.
        likelihood: from values of the network `(n,)` or `(n, p)` to a NumPyro distribution.
        where: which leaves are random, see `mean_field`; all others are known.
        structure: of the curvature: `"full"`, with the smaller of the systems of all weights and
            of all values of the function; `"last_layer"`, the same of the last `eqx.nn.Linear`
            alone; `"kron"`, see `kronecker_factors`; `"diag"`; `"subnetwork"`, full of some
            weights and none of the others.
        prior_precision: $\delta > 0$ of all weights, or one for each layer, see
            `LaplacePosterior.layers`.
        curvature: `"ggn"`, `"fisher"` or `"empirical"`, see `gauss_newton`, `fisher` and
            `empirical_fisher`.
        mean: of the function: `"network"`, its values, as is usual; or `"linear"`, that of the
            linear model's own posterior, a Newton step away: also right for a network that is not
            at a mode if the linear model is.
        subnetwork: for that structure how many weights, those of the largest variance in the
            diagonal approximation, or which: integers, of the random leaves joined in their order.
        sharing: of Kronecker factors, see `kronecker_factors`.
        key: for the Fisher information of likelihoods without a closed form.
        num_samples: of draws for it.
        chunk_size: how many data are treated at a time, here and in predictions; by default as
            many as have some 4 million elements of their Jacobians. Memory is linear in it.
        throw: whether it is an error, or a `result`, that the network is not at a mode.

    Raises:
        ValueError: see `gauss_newton`; an unknown structure, curvature or mean, a prior precision
            that is not positive or of another shape, a subnetwork without weights, no
            `eqx.nn.Linear`, or Kronecker factors of unsupported layers, which are named.
        TypeError: the likelihood does not return a NumPyro distribution.
        RuntimeError: under `jit`, values out of range; with `throw`, that the network is not at a
            mode.

    References:
        MacKay (1992), "A practical Bayesian framework for backpropagation networks"; Ritter, Botev
        and Barber (2018), "A scalable Laplace approximation for neural networks", ICLR; Immer,
        Korzepa and Bauer (2021), "Improving predictions of Bayesian neural nets via local
        linearization", AISTATS; Daxberger, Kristiadi, Immer, Eschenhagen, Bauer and Hennig (2021),
        "Laplace redux", NeurIPS; Daxberger, Nalisnick, Allingham, Antorán and Hernández-Lobato
        (2021), "Bayesian deep learning via subnetwork inference", ICML.
    """
    check_flag("laplace: throw", throw)
    _check_word("structure", structure, STRUCTURES)
    _check_word("mean", mean, ("network", "linear"))
    leaves = _last_layer(network, where) if structure == "last_layer" else where
    found = problem("laplace", network, x, y, likelihood, leaves, chunk_size)
    layers, layer = _layers(found.function.held.tree, found.function.leaves)
    if structure != "diag":
        check_single("laplace", found.f.dtype)
    precision = _precision(prior_precision, layers, found.f.dtype)
    if curvature == "fisher" and key is not None and num_samples is not None:
        roots = drawn_roots("laplace", found, key, num_samples, unit_noise=True)
    else:
        roots = weight_roots("laplace", found, curvature, key, num_samples, unit_noise=True)
    if structure == "subnetwork":
        index = _subnetwork(subnetwork, found, roots, precision, layer)
        layer = jnp.asarray(layer)[index]
        found = found._replace(function=found.function.part(index))
    elif subnetwork is not None:
        raise ValueError('laplace: subnetwork is for structure="subnetwork"')
    of = _structured(structure, found, roots, layer, sharing)
    power = 2 if curvature == "empirical" else 1  # of the noise variance, in the curvature
    posterior = _posterior(found, of, layers, precision, (mean, power))
    return settled(posterior, throw)


def _structured(
    structure: str, found: Problem, roots: Any, layer: Any, sharing: str
) -> AbstractStructure:
    """The curvature at a noise variance of 1."""
    if structure == "kron":
        known = layer
        parts, factors = layer_factors("laplace", found, roots, sharing)
        order = joined_places(parts)
        pairs = [ops.Kron(f.outputs, f.inputs, tags=ops.psd).eigh() for f in factors]
        values = tuple(jnp.maximum(v, 0) for _, v in pairs)
        of_block = tuple(int(known[part.places()[0]]) for part in parts)
        vectors = tuple(v for v, _ in pairs)
        layer = jnp.asarray(layer)
        return KronStructure(layer, vectors, values, jnp.asarray(order), of_block)
    layer = jnp.asarray(layer)
    matrix = matrix_of(found, roots, found.chunk_size)
    if structure == "diag":
        return DiagStructure(layer, matrix.diag())
    rows, size = matrix.jacobian.shape
    if rows < size:
        return RowsStructure(layer, matrix.jacobian.dense())
    if structure == "last_layer":
        (part,) = parts = network_layers("laplace", found)
        if not part.repeated:
            order = jnp.asarray(part.places())
            look = layer_views(found, parts, roots)
            data = found.x, roots
            vector = found.function.vector
            chunk = max(1, min(len(found.x), ELEMENTS // part.inputs**2))
            gram = run_traced(layer_gram, look, look, vector, data, order, chunk)
            shape = part.outputs, part.inputs
            return LayerStructure(layer, GramStructure(layer, gram), order, shape)
    return GramStructure(layer, matrix.as_matrix())


def _posterior(
    found: Problem,
    structure: AbstractStructure,
    layers: tuple[str, ...],
    precision: jax.Array,
    options: tuple[str, int],
) -> LaplacePosterior:
    """The posterior, with what it takes from the data: slope and log likelihood."""
    each = Outputs(found.likelihood)
    mean, power = options
    slope = scores(with_noise(found, True), found.f, found.y)
    jacobian = ops.Jacobian(found.function, found.function.vector, found.x, chunk=found.chunk_size)
    slope = jacobian.transpose().mv(slope.reshape(-1))
    if noise_of(found.likelihood) is None:
        fit = jnp.sum(log_likelihood(each, found.f, found.y))
    else:
        fit = jnp.sum((found.y - found.f) ** 2)
    about = About(found.function, held(found.likelihood), structure, slope, fit, found.f)
    return conditioned(about, layers, precision, mean, power, found.chunk_size)


def _last_layer(network: Any, where: Where) -> Leaves:
    """The random leaves of the last linear layer that has some.

    Raises:
        ValueError: there is none.
    """
    leaves = random_leaves("laplace", network, where)
    flat = jax.tree_util.tree_flatten_with_path(network, is_leaf=lambda x: x is None)[0]
    is_linear = lambda node: isinstance(node, eqx.nn.Linear)  # noqa: E731
    nodes = jax.tree_util.tree_flatten_with_path(network, is_leaf=is_linear)[0]
    paths = [path for path, node in nodes if is_linear(node) and node.weight.ndim == 2]
    for path in reversed(paths):
        inside = [i for i, place in enumerate(leaves.places) if flat[place][0][:-1] == path]
        if inside:
            places = tuple(leaves.places[i] for i in inside)
            return Leaves(places, tuple(leaves.names[i] for i in inside))
    raise ValueError(
        f"laplace: the {type(network).__name__} has no eqx.nn.Linear with random leaves, so that "
        'its last layer is not known; choose one by where and take structure="full"'
    )


def _layers(network: Any, leaves: Leaves) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the modules that hold random leaves, and which one each weight belongs to."""
    flat = jax.tree_util.tree_flatten_with_path(network, is_leaf=lambda x: x is None)[0]
    parents = [
        path_name(flat[place][0][:-1], "network") if flat[place][0][:-1] else "network"
        for place in leaves.places
    ]
    names = tuple(dict.fromkeys(parents))
    sizes = [flat[place][1].size for place in leaves.places]
    return names, np.repeat([names.index(parent) for parent in parents], sizes).astype(np.int32)


def _precision(value: Any, layers: tuple[str, ...], dtype: Any) -> jax.Array:
    array = number_array("laplace: prior_precision", value)
    if jnp.shape(array) not in ((), (1,), (len(layers),)) or jnp.iscomplexobj(array):
        raise ValueError(
            "laplace: prior_precision must be a number, or one for each of the layers "
            f"{', '.join(layers)}; got shape {jnp.shape(array)}"
        )
    text = "laplace: prior_precision must be positive and finite"
    array = refuse_where(array, lambda v: ~((v > 0) & (v < np.inf)), text)
    return jnp.broadcast_to(jnp.asarray(array, dtype), (len(layers),))


def _subnetwork(chosen: Any, found: Problem, roots: Any, precision: Any, layer: Any) -> jax.Array:
    """Places of the weights that are not known, sorted."""
    size = found.function.vector.size
    if chosen is None:
        raise ValueError(
            'laplace: structure="subnetwork" needs subnetwork=, how many weights, or which'
        )
    if np.ndim(chosen) == 0:
        count = whole_number("laplace: subnetwork", chosen)
        if count > size:
            raise ValueError(f"laplace: subnetwork is {count}, more than the {size} random weights")
        diagonal = matrix_of(found, roots, found.chunk_size).diag()
        noise_var = noise_of(found.likelihood)
        scale = 1.0 if noise_var is None else 1 / noise_var.astype(diagonal.dtype)
        return jnp.sort(jax.lax.top_k(-(scale * diagonal + precision[layer]), count)[1])
    index = np.asarray(number_array("laplace: subnetwork", chosen))
    good = index.ndim == 1 and index.size > 0 and np.issubdtype(index.dtype, np.integer)
    if not good or index.min() < 0 or index.max() >= size or len(set(index.tolist())) < len(index):
        raise ValueError(
            f"laplace: subnetwork must be a number of weights, or distinct places in 0, ..., "
            f"{size - 1}, a vector of integers; got {chosen!r:.80}"
        )
    return jnp.sort(jnp.asarray(index))


def _check_word(name: str, value: Any, known: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in known:
        listed = ", ".join(f'"{word}"' for word in known)
        raise ValueError(f"laplace: {name} must be one of {listed}; got {value!r:.80}")
