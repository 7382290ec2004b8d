"""Abstract base class of distributions over networks."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax

from .._core import check_key, whole_number
from ..likelihoods import Likelihood
from ._leaves import Leaves
from ._samples import CHUNK, NetworkSamples


class AbstractNetworkDistribution(eqx.Module):
    """Abstract base class of distributions over networks, by those of their random leaves.

    Attributes:
        rest: the network with None in the places of its random leaves.
        leaves: which these are.
        likelihood: from the function to a distribution of observations, or None.
    """

    rest: eqx.AbstractVar[Any]
    leaves: eqx.AbstractVar[Leaves]
    likelihood: eqx.AbstractVar[Likelihood | None]

    @abc.abstractmethod
    def draw(self, key: jax.Array) -> tuple[jax.Array, ...]:
        """A joint draw of the random leaves, in their order."""

    @abc.abstractmethod
    def mean_leaves(self) -> tuple[jax.Array, ...]:
        """The means of the random leaves, in their order."""

    def sample(self, key: jax.Array) -> Any:
        """A network with random leaves, a draw of this distribution.

        Raises:
            ValueError: no PRNG key.
        """
        check_key(key)
        return self.leaves.put(self.rest, self.draw(key))

    def mean_network(self) -> Any:
        """The network whose random leaves are their means."""
        return self.leaves.put(self.rest, self.mean_leaves())

    def posterior(
        self, key: jax.Array, num_samples: int = 30, *, chunk_size: int = CHUNK
    ) -> NetworkSamples:
        """The posterior as draws of networks, with the likelihood.

        Args:
            key: PRNG key.
            num_samples: how many draws.
            chunk_size: see `NetworkSamples`.

        Raises:
            ValueError: no key, or no such number.
        """
        check_key(key)
        number = whole_number("posterior: num_samples", num_samples)
        drawn = jax.vmap(self.draw)(jax.random.split(key, number))
        networks = self.leaves.only(self.rest, drawn)
        return NetworkSamples(networks, self.likelihood, shared=self.rest, chunk_size=chunk_size)
