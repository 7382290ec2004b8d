"""What steps of all samplers of networks have in common."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._core import whole_number
from .._arguments import positive
from .._functional import HierarchicalPrior, NormalPrior
from .._network import parameter_dtype
from ._chains import NetworkChains
from ._state import ChainPosition, ChainState


class Target(eqx.Module):
    """The posterior of chains that a step samples from.

    Attributes:
        chains: without their start.
        num_data: number of all data, or None where a step is given all.
        batch_size: rows that each chain draws for a step, or None for all that it is given.
        gibbs_every: steps from one draw of the scales of a hierarchical prior to the next, or None.
    """

    chains: NetworkChains
    num_data: int | None = eqx.field(static=True)
    batch_size: int | None = eqx.field(static=True)
    gibbs_every: int | None = eqx.field(static=True)

    def slopes(
        self, key: jax.Array, state: ChainState, x: Any, y: Any
    ) -> tuple[jax.Array, ChainPosition]:
        """Log joint densities `(chains,)` and their gradients, estimated from batches."""
        num_data = self.num_data
        if self.batch_size is not None and num_data is None:
            num_data = len(x)

        def of_one(key: jax.Array, position: ChainPosition, precisions: Any) -> Any:
            prior = None if precisions is None else given(self.chains.prior, precisions)
            batch = x, y
            if self.batch_size is not None:
                key, for_rows = jax.random.split(key)
                rows = jax.random.randint(for_rows, (self.batch_size,), 0, len(x))
                batch = jnp.asarray(x)[rows], jnp.asarray(y)[rows]
            joint = lambda p: self.chains.log_joint(p, *batch, num_data, prior=prior, key=key)  # noqa: E731
            return jax.value_and_grad(joint)(position)

        keys = jax.random.split(key, len(state.position.weights[0]))
        return jax.vmap(of_one)(keys, state.position, state.precisions)

    def precisions(self, key: jax.Array, position: ChainPosition) -> Any:
        """Those of a hierarchical prior, drawn given the weights of each chain: a Gibbs step."""
        one = lambda key, p: self.chains.prior.precisions(key, self.chains.network(p))  # noqa: E731
        return jax.vmap(one)(jax.random.split(key, len(position.weights[0])), position)

    def refreshed(self, key: jax.Array, state: ChainState) -> Any:
        """The precisions of a state, drawn anew where it is time."""
        if self.gibbs_every is None:
            return None
        return jax.lax.cond(
            state.count % self.gibbs_every == 0,
            lambda: self.precisions(key, state.position),
            lambda: state.precisions,
        )


def target_of(
    owner: str, chains: Any, num_data: Any, batch_size: Any, temperature: Any, gibbs_every: Any
) -> tuple[Target, jax.Array]:
    """The target of a sampler and its temperature.

    Raises:
        ValueError: options out of range; Gibbs steps of a prior without scales, or tempered.
    """
    if not isinstance(chains, NetworkChains):
        raise ValueError(
            f"{owner}: chains must be what network_chains(key, network, likelihood) returns, got "
            f"{type(chains).__name__}"
        )
    if num_data is not None:
        num_data = whole_number(f"{owner}: num_data", num_data)
    if batch_size is not None:
        batch_size = whole_number(f"{owner}: batch_size", batch_size)
    temperature = positive(owner, "temperature", temperature, dtype_of(chains))
    if gibbs_every is not None:
        gibbs_every = whole_number(f"{owner}: gibbs_every", gibbs_every)
        if not isinstance(chains.prior, HierarchicalPrior):
            raise ValueError(
                f"{owner}: gibbs_every is for hierarchical priors, whose scales are drawn given "
                f"the weights; the prior is {chains.prior!r:.80}"
            )
        if not bool(temperature == 1):
            raise ValueError(
                f"{owner}: gibbs_every needs temperature=1; without it the scales of a "
                "hierarchical prior are integrated out, at any temperature"
            )
    # A step does not read where chains start, and other starts do not make another program.
    chains = eqx.tree_at(lambda c: c.start, chains, None, is_leaf=lambda x: x is None)
    return Target(chains, num_data, batch_size, gibbs_every), temperature


def given(prior: Any, precisions: tuple[jax.Array, ...]) -> NormalPrior:
    """The prior of weights whose precisions are known, and positive."""
    scales = tuple(1 / jnp.sqrt(precision) for precision in precisions)
    return NormalPrior(network=prior.network, leaves=prior.leaves, scales=scales)


def started(target: Target, chains: NetworkChains, key: jax.Array | None, memory: Any) -> Any:
    """The state before the first step."""
    precisions = None
    if target.gibbs_every is not None:
        key = jax.random.key(0) if key is None else key
        precisions = target.precisions(key, chains.start)
    zero = jnp.zeros((), jnp.int32)
    return ChainState(chains.start, precisions, memory, zero, jnp.zeros((), bool))


def dtype_of(chains: NetworkChains) -> Any:
    """That of a chain's arrays."""
    return parameter_dtype(chains.start)
