"""Networks in NumPyro models and guides: a site for each random leaf."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
from numpyro.handlers import scope

from ..distributions import Normal
from ..likelihoods import Likelihood
from ._leaves import Leaves, random_leaves, Where
from ._mean_field import MeanField
from ._network import check_network
from ._priors import AbstractJointPrior, leaf_priors, WeightPrior
from ._samples import NetworkSamples


def random_network(
    name: str, network: Any, prior: WeightPrior = 1.0, *, where: Where = None
) -> Any:
    """A network whose random leaves are sample sites of a NumPyro model or guide.

    The sites are `name/layers[0].weight` and so on, as those of
    `numpyro.contrib.module.random_eqx_module`. That one also registers all weights as parameters,
    which an optimiser then carries along, takes no choice of leaves, and draws in JAX's default
    precision; the leaves that are not random here stay what they are, and the others keep their
    types. In a guide, a `MeanField` draws the same sites by its normal distributions.

    Args:
        name: of the network, first part of the names of sites.
        network: a callable Equinox module of one input; or a `MeanField`, whose distributions are
            those of the sites in place of the prior.
        prior: of the random leaves, see `mean_field`; here of any support. One of a whole network,
            such as a `HierarchicalPrior`, has sites of its own beside those of the leaves.
        where: which leaves are random, see `mean_field`.

    Returns:
        The network with drawn leaves: `jax.vmap(random_network("net", network))(x)`.

    Raises:
        ValueError: no such network, leaves or prior.
    """
    _check_name("random_network", name)
    if isinstance(network, MeanField):
        leaves, rest = network.leaves, network.rest
        values = network.means
        pairs = zip(network.means, network.scales, strict=True)
        priors = tuple(Normal(mean, scale).to_event(mean.ndim) for mean, scale in pairs)
    else:
        check_network("random_network", network)
        leaves, rest = random_leaves("random_network", network, where), network
        values = leaves.of(network)
        if isinstance(prior, AbstractJointPrior):
            prior.check_fits("random_network", leaves, values)
            with scope(prefix=name, divider="/"):
                drawn = prior.sites()
            return leaves.put(rest, _as_types(drawn, values))
        priors = leaf_priors("random_network", prior, leaves, values, real=False)
    with scope(prefix=name, divider="/"):
        drawn = [numpyro.sample(*pair) for pair in zip(leaves.names, priors, strict=True)]
    return leaves.put(rest, _as_types(drawn, values))


def from_sites(
    name: str,
    samples: Mapping[str, Any],
    network: Any,
    likelihood: Likelihood | None = None,
    *,
    where: Where = None,
    log_weights: Any = None,
) -> NetworkSamples:
    """The posterior of a network from draws of the sites of `random_network`.

    Args:
        name: of the network.
        samples: draws by site, such as `mcmc.get_samples()`, with one axis of draws in front;
            other sites are left out.
        network: as `random_network` was given it.
        likelihood: from the function to a NumPyro distribution of observations.
        where: as `random_network` was given it.
        log_weights: logarithms of the weights of the draws, shape `(s,)`; by default all the same.

    Raises:
        ValueError: sites that are missing or have other shapes.
    """
    _check_name("from_sites", name)
    check_network("from_sites", network)
    leaves = random_leaves("from_sites", network, where)
    values = leaves.of(network)
    drawn = [
        _draws(f"{name}/{leaf}", samples, like)
        for leaf, like in zip(leaves.names, values, strict=True)
    ]
    rest = _rest(network, leaves)
    return NetworkSamples(
        leaves.only(network, drawn), likelihood, shared=rest, log_weights=log_weights
    )


def _as_types(drawn: Any, values: Any) -> list[jax.Array]:
    pairs = zip(drawn, values, strict=True)
    return [jnp.asarray(value).astype(like.dtype) for value, like in pairs]


def _draws(site: str, samples: Mapping[str, Any], like: jax.Array) -> jax.Array:
    if not isinstance(samples, Mapping) or site not in samples:
        known = list(samples) if isinstance(samples, Mapping) else type(samples).__name__
        raise ValueError(f"from_sites: samples must hold draws of the site {site!r}, got {known}")
    value = jnp.asarray(samples[site])
    if value.shape[1:] != like.shape or value.ndim != like.ndim + 1:
        raise ValueError(
            f"from_sites: samples of {site!r} must have shape {('s', *like.shape)}, one axis of "
            f"draws in front, got {value.shape}; are the draws grouped by chain?"
        )
    return value.astype(like.dtype)


def _rest(network: Any, leaves: Leaves) -> Any:
    return leaves.put(network, [None] * len(leaves.places))


def _check_name(owner: str, name: Any) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"{owner}: name must be a text, the first part of sites, got {name!r:.80}")
