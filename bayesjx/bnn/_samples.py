"""The posterior of a network as a number of networks with weights."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from .._core import (
    checked_finite,
    compiled,
    compiled_for,
    in_chunks,
    traced,
    TracedFunction,
    whole_number,
)
from ..likelihoods import AbstractPosterior, held, Likelihood
from ._arguments import check_draws, inputs
from ._mixture import network_predictive
from ._network import check_network, Held, parameter_dtype, value_at

CHUNK = 2048  # evaluations of a network at a time


class NetworkSamples(AbstractPosterior):
    r"""Posterior of a network as `s` networks $f_s$ with weights: an ensemble, or draws.

    The posterior of the function is the discrete mixture of these; `moments` are its mean and its
    variance $\sum_s w_s (f_s - \bar f)^2$, and `marginal` the normals of these moments. `predict`
    averages the likelihood's distributions, not the function: class probabilities, or densities.
    All values have the shape `(m,)`, or `(m, p)` of networks with `p` outputs, where other
    posteriors have `(m,)`. Layers that behave differently in training, such as dropout, are in
    inference mode.

    Args:
        networks: networks in one, whose arrays have an axis of length `s` in front, as
            `equinox.filter_vmap` makes them of a function of keys; or a list of networks that
            differ only by their arrays.
        likelihood: from the function to a NumPyro distribution of observations; None if only
            values of the function are needed.
        shared: network with the arrays that all have in common, where `networks` has None.
        log_weights: logarithms of the weights, which need not be normalised, shape `(s,)`; by
            default all networks have the same.
        likelihood_each: whether the likelihood's arrays have such an axis in front, too: one for
            each network.
        chunk_size: how many evaluations of a network are made at a time, which bounds the memory
            of predictions at many points.

    Raises:
        ValueError: no network, networks that differ in more than their arrays or have different
            numbers, weights of another number or NaN.
    """

    members: Held
    shared: Held
    log_weights: Float[Array, " s"]
    likelihood: Any
    likelihood_each: bool = eqx.field(static=True)
    chunk_size: int = eqx.field(static=True)

    def __init__(
        self,
        networks: Any,
        likelihood: Likelihood | None = None,
        *,
        shared: Any = None,
        log_weights: Any = None,
        likelihood_each: bool = False,
        chunk_size: int = CHUNK,
    ):
        if isinstance(networks, list | tuple):
            networks = _stacked(networks)
        arrays, rest = eqx.partition(networks, eqx.is_array)
        shared = rest if shared is None else eqx.combine(rest, shared)
        size = _number(arrays)
        whole = eqx.nn.inference_mode(eqx.combine(arrays, shared))
        check_network("NetworkSamples", whole)
        dtype = parameter_dtype(whole)
        self.members, self.shared = Held(arrays), Held(_without(whole, arrays))
        if log_weights is None:
            log_weights = jnp.full(size, -np.log(size), dtype)
        log_weights = jnp.asarray(log_weights, dtype)
        if log_weights.shape != (size,):
            raise ValueError(
                f"NetworkSamples: log_weights must have shape ({size},), one for each network; got "
                f"{log_weights.shape}"
            )
        checked_finite(
            "NetworkSamples: log_weights", log_weights, "; leave out networks of weight 0"
        )
        self.log_weights = jax.nn.log_softmax(log_weights)
        self.likelihood, self.likelihood_each = held(likelihood), likelihood_each
        self.chunk_size = whole_number("NetworkSamples: chunk_size", chunk_size)

    @property
    def num_samples(self) -> int:
        """How many networks there are."""
        return len(self.log_weights)

    def network(self, index: int) -> Any:
        """One of the networks, of number `index`."""
        if not -self.num_samples <= index < self.num_samples:
            raise ValueError(
                f"network: index must name one of {self.num_samples} networks, got {index}"
            )
        return eqx.combine(jax.tree.map(lambda a: a[index], self.members.tree), self.shared.tree)

    def values(self, x: Any) -> Float[Array, "s m ..."]:
        """Values of each network, shape `(s, m)` or `(s, m, p)`.

        Args:
            x: inputs of the network, one a row, shape `(m, ...)`.

        Raises:
            ValueError: inputs that the network does not take, or that are empty or NaN.
        """
        x, guard = inputs("values", x, self.log_weights.dtype)
        of_one = self._traced(x)
        run = _values if of_one.identity is None else compiled_for(of_one.identity, _values)
        f = run(of_one, self.members.arrays, x, self.chunk_size)
        return f * guard.astype(f.dtype)

    def moments(self, x: Any) -> tuple[Float[Array, "m ..."], Float[Array, "m ..."]]:
        """Mean and variance of the function at each point, shape `(m,)` or `(m, p)` both."""
        f = self.values(x)
        mean = self._averaged(f)
        return mean, self._averaged((f - mean) ** 2)

    def mean(self, x: Any) -> Float[Array, "m ..."]:
        """Means of the function, shape `(m,)` or `(m, p)`."""
        return self._averaged(self.values(x))

    def covariance(self, x: Any) -> Float[Array, ...]:
        """Covariances of the function between points, `(m, m)`, or `(p, m, m)` of each output."""
        f = self.values(x)
        weights = jnp.exp(self.log_weights).astype(f.dtype)
        off = jnp.moveaxis(f - self._averaged(f), 0, -1)  # (m, s) or (m, p, s)
        off = off if off.ndim == 2 else jnp.moveaxis(off, 1, 0)
        return (off * weights) @ off.mT

    def predict(self, x: Any) -> dist.Distribution:
        """Predictive distribution of a new observation at each point, batch shape `(m,)`.

        The mixture of what the likelihood says of each network: a Bernoulli or categorical
        distribution for classes, else a `NetworkMixture`.

        Raises:
            ValueError: there is no likelihood, or it holds data of each observation.
        """
        if self.likelihood is None:
            raise ValueError(
                "predict: how new observations are distributed is not known: the networks were "
                "given no likelihood; values(x) are those of the function"
            )
        f = self.values(x)
        log_weights = self.log_weights.astype(f.dtype)
        return network_predictive(self.likelihood, f, log_weights, self.likelihood_each)

    def sample(
        self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, ...]:
        """Joint draws of the function: of networks, with replacement.

        Shape `(*sample_shape, m)` or `(*sample_shape, m, p)`.
        """
        check_draws("sample", key, sample_shape)
        which = jax.random.categorical(key, self.log_weights, shape=sample_shape)
        return self.values(x)[which]

    def log_evidence(self) -> Float[Array, ""]:
        """Not known of samples.

        Raises:
            ValueError: always.
        """
        raise ValueError(
            "log_evidence: samples of networks do not hold the evidence; MeanField.elbo is a bound"
        )

    def _averaged(self, values: jax.Array) -> jax.Array:
        return jnp.tensordot(jnp.exp(self.log_weights).astype(values.dtype), values, axes=1)

    def _traced(self, x: jax.Array) -> TracedFunction:
        """A network's value at one input as a function of its arrays."""

        def of_one(arrays: tuple[jax.Array, ...], x: jax.Array) -> jax.Array:
            own = eqx.tree_at(lambda members: members.arrays, self.members, arrays).tree
            return value_at("values", eqx.combine(own, self.shared.tree), x)

        arrays, row = jax.tree.map(_of_first, (self.members.arrays, x))
        source = self.shared.rest.structure, *(p.value for p in self.shared.rest.leaves)
        return traced(of_one, arrays, row, source=source)


@compiled
def _values(
    of_one: TracedFunction, arrays: tuple[jax.Array, ...], x: jax.Array, chunk_size: int
) -> jax.Array:
    """Values `(s, m, ...)`, for some networks and some rows at a time."""
    rows = min(len(x), chunk_size)
    at_once = min(max(chunk_size // rows, 1), len(arrays[0]))

    def of_rows(x: jax.Array) -> jax.Array:
        over_rows = lambda arrays: jax.vmap(lambda x: of_one(arrays, x))(x)  # noqa: E731
        if at_once == len(arrays[0]):
            return jnp.moveaxis(jax.vmap(over_rows)(arrays), 0, 1)
        return jnp.moveaxis(jax.lax.map(over_rows, arrays, batch_size=at_once), 0, 1)

    return jnp.moveaxis(in_chunks(of_rows, x, rows), 0, 1)


def _of_first(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape[1:], x.dtype)


def _stacked(networks: Any) -> Any:
    """Networks in one, with their arrays stacked."""
    if len(networks) == 0:
        raise ValueError("NetworkSamples: networks must be at least one, got none")
    parts = [eqx.partition(network, eqx.is_array) for network in networks]
    first = parts[0]
    for i, part in enumerate(parts):
        same = eqx.tree_equal(part[1], first[1]) is True
        shapes = [[(a.shape, a.dtype) for a in jax.tree.leaves(p[0])] for p in (part, first)]
        if not same or shapes[0] != shapes[1]:
            raise ValueError(
                f"NetworkSamples: networks must differ only by the values of their arrays, but "
                f"number {i} differs from the first in its structure or shapes"
            )
    arrays = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(part[0] for part in parts))
    return eqx.combine(arrays, first[1])


def _number(arrays: Any) -> int:
    """The length of the first axis that all arrays have."""
    shapes = [leaf.shape for leaf in jax.tree.leaves(arrays)]
    sizes = {shape[0] if shape else None for shape in shapes}
    if len(sizes) != 1 or None in sizes or 0 in sizes:
        raise ValueError(
            "NetworkSamples: the arrays of networks must have a first axis of the same length, of "
            f"one for each network, as equinox.filter_vmap makes them; got shapes {shapes[:5]}"
        )
    return shapes[0][0]


def _without(tree: Any, arrays: Any) -> Any:
    """A tree with None where another one has arrays."""
    is_none = lambda x: x is None  # noqa: E731
    return jax.tree.map(lambda x, a: x if a is None else None, tree, arrays, is_leaf=is_none)
