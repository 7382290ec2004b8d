"""Deep ensembles: networks that are trained from different starts, all at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial

from .._core import (
    Algorithm,
    check_key,
    gradient_algorithm,
    GradientState,
    known_field,
    trained,
    whole_number,
)
from ..likelihoods import Likelihood
from ._arguments import check_optimizer
from ._leaves import Leaves, random_leaves, Where
from ._network import check_network, log_joint_of_leaves
from ._priors import check_prior, WeightPrior
from ._samples import CHUNK, NetworkSamples


class DeepEnsemble(eqx.Module):
    """Networks of one kind that are trained independently; see `deep_ensemble`.

    Attributes:
        networks: all in one, their arrays with an axis of one for each network in front.
        likelihoods: likewise, from the function to a distribution of observations.
        leaves: which leaves have the prior.
        prior: of these, or None.
    """

    networks: Any
    likelihoods: Any
    leaves: Leaves
    prior: Any = known_field()

    @property
    def num_members(self) -> int:
        """How many networks there are."""
        return len(jax.tree.leaves(eqx.filter(self.networks, eqx.is_array))[0])

    def posterior(self, *, chunk_size: int = CHUNK) -> NetworkSamples:
        """The networks as a posterior, all with the same weight.

        Args:
            chunk_size: see `NetworkSamples`.
        """
        return NetworkSamples(
            self.networks, self.likelihoods, likelihood_each=True, chunk_size=chunk_size
        )

    def trained(self, state: GradientState) -> DeepEnsemble:
        """The same with the arrays of a state of `ensemble_map`, made from it.

        Args:
            state: of its steps.
        """
        return trained(self, state)


def deep_ensemble(
    key: jax.Array,
    make: Callable[[jax.Array], Any],
    likelihood: Likelihood,
    *,
    num_members: int = 5,
    prior: WeightPrior | None = None,
    where: Where = None,
) -> DeepEnsemble:
    """Networks with different initial weights, each with a likelihood of its own.

    `ensemble_map` trains them, and the mixture of their predictions is `posterior`.

    Args:
        key: PRNG key.
        make: from a key to a callable Equinox module of one input, such as
            `lambda key: eqx.nn.MLP(2, "scalar", 50, 2, key=key)`.
        likelihood: from the function to a NumPyro distribution of observations; its parameters,
            such as a noise variance, are trained for each network.
        num_members: how many networks.
        prior: of the random leaves, see `mean_field`; None to maximise the likelihood alone.
        where: which leaves have the prior, see `mean_field`.

    Raises:
        ValueError: no key, no such number, prior or leaves; `make` does not make a network.

    References:
        Lakshminarayanan, Pritzel and Blundell (2017), "Simple and scalable predictive uncertainty
        estimation using deep ensembles", NeurIPS.
    """
    check_key(key)
    number = whole_number("deep_ensemble: num_members", num_members)
    if not callable(make) or (isinstance(make, eqx.Module) and not isinstance(make, type)):
        raise ValueError(
            "deep_ensemble: make must be a function from a key to a network, such as lambda key: "
            f"eqx.nn.MLP(..., key=key), since each member starts elsewhere; got {make!r:.80}"
        )
    if not callable(likelihood):
        raise ValueError(
            "deep_ensemble: likelihood must be a function from f to a NumPyro distribution, got "
            f"{likelihood!r:.80}"
        )
    networks = eqx.filter_vmap(make)(jax.random.split(key, number))
    one = jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, networks)
    check_network("deep_ensemble", one)
    leaves = random_leaves("deep_ensemble", one, where)
    if prior is not None:
        check_prior("deep_ensemble", prior, leaves, leaves.of(one))
    repeated = lambda x: jnp.repeat(x[None], number, axis=0) if eqx.is_array(x) else x  # noqa: E731
    return DeepEnsemble(networks, jax.tree.map(repeated, likelihood), leaves, prior)


def ensemble_map(
    ensemble: DeepEnsemble,
    optimizer: optax.GradientTransformation,
    *,
    num_data: int,
    trainable: Callable[[Any], Any] | None = None,
) -> Algorithm:
    """Training of all networks of an ensemble under one `jax.vmap`, for `bayesjx.fit`.

    Each climbs its own log posterior density, or likelihood, by an optimiser of its own, on the
    same minibatches. The objective is the mean of theirs.

    Args:
        ensemble: where to start.
        optimizer: Optax gradient transformation, such as `optax.adam(1e-3)`.
        num_data: number of all data, of which minibatches are drawn.
        trainable: chooses what is trained, `trainable(ensemble)` a leaf or a list of leaves; by
            default all floating-point arrays of networks and likelihoods.

    Returns:
        `init() -> GradientState`, `step(key, state, x, y) -> (GradientState, GradientInfo)`.
        `ensemble.trained(state)` is the result.

    Raises:
        ValueError: options out of range, nothing to train; when traced, what `log_joint` raises.
    """
    if not isinstance(ensemble, DeepEnsemble):
        raise ValueError(
            "ensemble_map: ensemble must be what deep_ensemble(key, make, likelihood) returns, got "
            f"{type(ensemble).__name__}"
        )
    check_optimizer("ensemble_map", optimizer)
    num_data = whole_number("ensemble_map: num_data", num_data)
    each = optax.GradientTransformation(
        Partial(_over_members, optimizer.init), Partial(_over_members, optimizer.update)
    )
    loss = Partial(_loss, num_data)
    return gradient_algorithm(loss, ensemble, each, trainable=trainable, natural={})


def _over_members(function: Callable[..., Any], *args: Any) -> Any:
    return jax.vmap(function)(*args)


def _loss(
    num_data: int,
    key: jax.Array,
    ensemble: DeepEnsemble,
    natural: dict[str, Any],
    x: Any,
    y: Any,
) -> tuple[jax.Array, jax.Array, dict[str, Any]]:
    def of_one(network: Any, likelihood: Any, key: jax.Array) -> jax.Array:
        prior, leaves = ensemble.prior, ensemble.leaves
        return log_joint_of_leaves(network, likelihood, x, y, num_data, prior, leaves, key)

    keys = jax.random.split(key, ensemble.num_members)
    axes = eqx.if_array(0)
    values = eqx.filter_vmap(of_one, in_axes=(axes, axes, 0))(
        ensemble.networks, ensemble.likelihoods, keys
    )
    # Of the sum, so that the gradient of each is that of its own.
    return -jnp.sum(values), jnp.mean(values), natural
