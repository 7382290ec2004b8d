"""Markov chains of networks: what they sample from, and where they start."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ..._core import check_key, from_real, known_field, unconstrained, whole_number
from ...distributions import repaired
from ...likelihoods import Likelihood
from .._functional import AbstractNetworkPrior
from .._leaves import Leaves, random_leaves, Where
from .._network import check_network, log_joint_of_leaves
from .._priors import check_prior, leaf_priors, WeightPrior
from .._samples import CHUNK, NetworkSamples
from ._draws import ChainDiagnostics, diagnosed, labelled, network_samples
from ._state import ChainPosition


class NetworkChains(eqx.Module):
    """The posterior of a network's weights as the target of Markov chains; see `network_chains`.

    Attributes:
        rest: the network with None in the places of its random leaves.
        leaves: which leaves are random.
        likelihood: from the function to a distribution of observations.
        start: where the chains start, arrays of shape `(chains, ...)`.
        prior: of the random leaves.
        likelihood_prior: of the likelihood's parameters, or None if they stay as they are.
    """

    rest: Any
    leaves: Leaves
    likelihood: Any
    start: ChainPosition
    prior: Any = known_field()
    likelihood_prior: Any = known_field()

    @property
    def num_chains(self) -> int:
        """How many chains there are."""
        return len(self.start.weights[0])

    def network(self, position: ChainPosition) -> Any:
        """The network of one chain's position."""
        return self.leaves.put(self.rest, position.weights)

    def log_joint(
        self,
        position: ChainPosition,
        x: Any,
        y: Any,
        num_data: int | None = None,
        *,
        prior: Any = None,
        key: jax.Array | None = None,
    ) -> Float[Array, ""]:
        """Log density of data and one chain's position, or its estimate from a minibatch.

        Parameters of the likelihood that are sampled count on the real line, where the chains move.

        Args:
            position: of one chain.
            x: inputs, shape `(b, ...)`.
            y: observations, shape `(b,)`, or `(b, ...)` of vectors.
            num_data: number of the data of which these are drawn; by default these are all.
            prior: of the weights in place of the own one.
            key: for networks that take one, as with dropout.

        Raises:
            ValueError: see `bnn.log_joint`.
        """
        network, prior = self.network(position), self.prior if prior is None else prior
        likelihood, log_prior = self._likelihood_at(position.likelihood)
        value = log_joint_of_leaves(network, likelihood, x, y, num_data, prior, self.leaves, key)
        return value + jnp.asarray(log_prior, value.dtype)

    def log_density(self, x: Any, y: Any) -> Callable[[ChainPosition], Float[Array, ""]]:
        """The log density of one chain's position given all data, for the samplers of BlackJAX.

        Hierarchical priors enter with their scales integrated out.

        Args:
            x: inputs, shape `(n, ...)`.
            y: observations, shape `(n,)`, or `(n, ...)` of vectors.
        """
        return lambda position: self.log_joint(position, x, y)

    def likelihood_at(self, free: Any) -> Likelihood:
        """The likelihood with these parameters, which are on the real line."""
        return self.likelihood if free is None else eqx.combine(from_real(free), self.likelihood)

    def posterior(
        self, draws: Any, *, chain_axis: int = 1, chunk_size: int = CHUNK
    ) -> NetworkSamples:
        """The draws of all chains as a posterior; those of burn-in and exploration are left out.

        Args:
            draws: `kept` of a fit with `keep=bnn.chain_draws`, or positions with axes of draws and
                chains, as from `interop.sample`.
            chain_axis: 1 for arrays of shape `(draws, chains, ...)`, 0 for `(chains, draws, ...)`.
            chunk_size: see `NetworkSamples`.

        Raises:
            ValueError: draws of something else, or none after burn-in.
        """
        return network_samples(self, draws, chain_axis, chunk_size)

    def diagnostics(
        self, draws: Any, x: Any, *, chain_axis: int = 1, chunk_size: int = CHUNK
    ) -> ChainDiagnostics:
        """Split potential scale reduction and effective sample size of the function's values.

        Of predictions and not of weights, which a network may permute without any change.

        Args:
            draws: see `posterior`.
            x: inputs, one a row, shape `(m, ...)`.
            chain_axis: see `posterior`.
            chunk_size: see `NetworkSamples`.

        Raises:
            ValueError: see `posterior`; fewer than 4 draws of each chain.

        References:
            Gelman, Carlin, Stern, Dunson, Vehtari and Rubin (2013), "Bayesian data analysis",
            sections 11.4 and 11.5.
        """
        return diagnosed(self, draws, x, chain_axis, chunk_size)

    def to_datatree(
        self,
        draws: Any,
        x: Any,
        *,
        chain_axis: int = 1,
        weights: bool = False,
        chunk_size: int = CHUNK,
        **options: Any,
    ) -> Any:
        """Predictions of each chain as an `xarray.DataTree`, with dimensions `chain` and `draw`.

        Group `posterior` has `f`, the function's values at `x`, parameters of the likelihood and
        precisions of a hierarchical prior; `constant_data` has `x` and, for each value, `r_hat` and
        `effective_sample_size` (see `diagnostics`) if there are at least 4 draws of each chain.

        Args:
            draws: see `posterior`.
            x: inputs, one a row, shape `(m, ...)`.
            chain_axis: see `posterior`.
            weights: whether the weights are variables, too.
            chunk_size: see `NetworkSamples`.
            **options: of `bayesjx.to_datatree`.

        Raises:
            ValueError: see `posterior`.
            ImportError: xarray is not installed.
        """
        return labelled(self, draws, x, chain_axis, weights, chunk_size, options)

    def _likelihood_at(self, free: Any) -> tuple[Likelihood, Any]:
        """The likelihood, and the log prior density of its parameters on the real line."""
        if free is None:
            return self.likelihood, 0.0
        ones = jax.tree.map(jnp.ones_like, free)
        values, slopes = jax.jvp(from_real, (free,), (ones,))
        terms = jax.tree.map(self._parameter_terms, values, slopes)
        return eqx.combine(values, self.likelihood), sum(jax.tree.leaves(terms))

    def _parameter_terms(self, value: jax.Array, slope: jax.Array) -> jax.Array:
        prior = self.likelihood_prior
        log_prob = repaired(prior).log_prob(value) + jnp.log(jnp.abs(slope))
        return jnp.sum(log_prob).astype(value.dtype)


def network_chains(
    key: jax.Array,
    network: Any,
    likelihood: Likelihood,
    *,
    prior: WeightPrior = 1.0,
    likelihood_prior: dist.Distribution | None = None,
    where: Where = None,
    num_chains: int = 4,
    start: Any = None,
) -> NetworkChains:
    """The posterior of a network's weights, as the target of chains that start from its prior.

    `sghmc`, `sgld` and `cyclical_sgld` sample from it by minibatches, and the samplers of BlackJAX
    by all data: `interop.sample(key, blackjax.nuts(chains.log_density(x, y), ...), chains.start,
    ..., num_chains=4)`.

    Args:
        key: PRNG key, of the starting points.
        network: a callable Equinox module of one input, with values of shape `()` or `(p,)`.
        likelihood: from these values to a NumPyro distribution of observations.
        prior: of the random leaves, see `mean_field`; or a prior of whole networks, such as
            `hierarchical_prior(network)`, or `match_prior(...).prior`.
        likelihood_prior: distribution of each parameter of the likelihood, such as a noise
            variance, which is then sampled; by default they stay what they are.
        where: which leaves are random, see `mean_field`; the same as those of a prior of whole
            networks.
        num_chains: how many chains there are.
        start: networks in one where the chains start, whose arrays have an axis of chains in front,
            such as the `networks` of a trained `DeepEnsemble`; by default draws from the prior.

    Raises:
        ValueError: no such network, leaves, prior or number; a likelihood without parameters for
            `likelihood_prior`, starting points of other shapes.
    """
    check_key(key)
    check_network("network_chains", network)
    number = whole_number("network_chains: num_chains", num_chains)
    if not callable(likelihood) or isinstance(likelihood, dist.Distribution):
        raise ValueError(
            "network_chains: likelihood must be a function from f to a NumPyro distribution, such "
            f"as likelihoods.Gaussian(0.1); got {likelihood!r:.80}"
        )
    leaves = random_leaves("network_chains", network, where)
    values = leaves.of(network)
    check_prior("network_chains", prior, leaves, values)
    if start is None:
        draw = lambda key: _drawn(key, prior, leaves, values)  # noqa: E731
        weights = jax.vmap(draw)(jax.random.split(key, number))
    else:
        weights = _started(start, leaves, values, number)
    free = _free(likelihood, likelihood_prior)
    repeated = jax.tree.map(lambda x: jnp.repeat(x[None], number, axis=0), free)
    rest = leaves.put(network, [None] * len(values))
    position = ChainPosition(weights, repeated)
    return NetworkChains(rest, leaves, likelihood, position, prior, likelihood_prior)


def _drawn(
    key: jax.Array, prior: Any, leaves: Leaves, values: tuple[jax.Array, ...]
) -> tuple[jax.Array, ...]:
    """Leaves that are drawn from a prior."""
    if isinstance(prior, AbstractNetworkPrior):
        return prior.draw(key)
    priors = leaf_priors("network_chains", prior, leaves, values)
    keys = jax.random.split(key, len(values))
    return tuple(
        jnp.asarray(own.sample(key)).astype(value.dtype)
        for own, key, value in zip(priors, keys, values, strict=True)
    )


def _started(
    start: Any, leaves: Leaves, values: tuple[jax.Array, ...], number: int
) -> tuple[jax.Array, ...]:
    try:
        found = leaves.of(start)
    except IndexError:
        found = (None,) * len(values)
    for name, leaf, value in zip(leaves.names, found, values, strict=True):
        shape = getattr(leaf, "shape", None)
        if shape != (number, *value.shape):
            raise ValueError(
                f"network_chains: start must be networks in one, with {name} of shape "
                f"{(number, *value.shape)}, a first axis of num_chains; got {shape}"
            )
    return tuple(jnp.asarray(leaf, v.dtype) for leaf, v in zip(found, values, strict=True))


def _free(likelihood: Any, prior: Any) -> Any:
    """Parameters of the likelihood on the real line, or None."""
    if prior is None:
        return None
    if not isinstance(prior, dist.Distribution) or prior.event_shape or prior.batch_shape:
        raise ValueError(
            "network_chains: likelihood_prior must be a NumPyro distribution of one number, such "
            f"as dist.InverseGamma(3.0, 0.2) of a noise variance; got {prior!r:.80}"
        )
    try:
        free = unconstrained(likelihood)
    except ValueError as error:
        raise ValueError(
            "network_chains: likelihood_prior is given, but the likelihood has no parameters that "
            f"could be sampled: {error}"
        ) from error
    moved = from_real(free)
    for leaf, value in zip(jax.tree.leaves(free), jax.tree.leaves(moved), strict=True):
        if leaf.shape != value.shape:
            raise ValueError(
                "network_chains: likelihood_prior is for parameters whose elements are free, but "
                f"the likelihood has one of shape {value.shape} with {leaf.size} degrees of freedom"
            )
    return free
