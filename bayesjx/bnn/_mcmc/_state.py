"""States of Markov chains of networks, and what is kept of them."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Bool, Float, Int


class ChainPosition(NamedTuple):
    """Where a chain stands; arrays of several chains have an axis of them in front.

    Attributes:
        weights: the random leaves of the network, in their order.
        likelihood: parameters of the likelihood on the real line, or None if they are not sampled.
    """

    weights: tuple[jax.Array, ...]
    likelihood: Any


class ChainState(NamedTuple):
    """State of the samplers of networks.

    Attributes:
        position: of all chains, arrays of shape `(chains, ...)`.
        precisions: of hierarchical priors whose Gibbs steps are made, `(chains,)` for each leaf; or
            None.
        memory: what the sampler itself carries along.
        count: number of steps so far, integer.
        sampling: whether the position counts as a draw of the posterior, boolean.
    """

    position: ChainPosition
    precisions: tuple[Float[Array, " chains"], ...] | None
    memory: Any
    count: Int[Array, ""]
    sampling: Bool[Array, ""]


class ChainDraws(NamedTuple):
    """What `bayesjx.fit` keeps of the states of chains, with an axis of draws in front.

    Attributes:
        position: arrays of shape `(draws, chains, ...)`.
        precisions: of hierarchical priors, `(draws, chains)` for each leaf, or None.
        sampling: which of them are draws of the posterior, `(draws,)`.
    """

    position: ChainPosition
    precisions: tuple[Float[Array, ...], ...] | None
    sampling: Bool[Array, ...]


class ChainInfo(NamedTuple):
    """What a step of chains of networks reports.

    Attributes:
        objective: log joint density of data and weights, estimated from the batch, mean over
            chains, where the step started.
        sampling: whether the state after it counts as a draw.
        step_size: of the step; of `sghmc` the mean over weights and chains, as a time step squared.
        temperature: mean of squared momenta in units of their variance at temperature 1, which
            estimates the temperature; NaN of samplers without momenta.
    """

    objective: Float[Array, ""]
    sampling: Bool[Array, ""]
    step_size: Float[Array, ""]
    temperature: Float[Array, ""]


def chain_draws(state: ChainState) -> ChainDraws:
    """What draws are made of: `bayesjx.fit(..., keep=bnn.chain_draws, thin=...)`.

    Args:
        state: of one of the samplers of networks.

    Raises:
        ValueError: it is that of something else.
    """
    if not isinstance(state, ChainState):
        raise ValueError(
            "chain_draws: state must be a ChainState, of sghmc, sgld or cyclical_sgld; got "
            f"{type(state).__name__}"
        )
    return ChainDraws(state.position, state.precisions, state.sampling)
