"""Abstract base class of priors of a whole network, which are distributions over functions."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_key, GradientState, trained, whole_number
from .._arguments import check_draws, inputs, positive
from .._leaves import Leaves, random_leaves, Where
from .._network import check_network, Held, network_values, parameter_dtype
from .._priors import AbstractJointPrior, fan_in, is_bias


class AbstractNetworkPrior(AbstractJointPrior):
    """Abstract base class of prior distributions of a network, with parameters to learn.

    One stands wherever a function of this package takes a prior of random leaves, and is itself a
    distribution over functions, which `match_prior` fits to a process.

    Attributes:
        network: which it is of; its random leaves give shapes and types only.
        leaves: which are random.
    """

    network: eqx.AbstractVar[Held]

    @abc.abstractmethod
    def draw(self, key: jax.Array) -> tuple[jax.Array, ...]:
        """A joint draw of the random leaves, in their order, differentiable in all parameters."""

    @property
    def like(self) -> tuple[jax.Array, ...]:
        """Arrays of the shapes and types of the random leaves."""
        return self.leaves.of(self.network.tree)

    def sample(self, key: jax.Array) -> Any:
        """A network with random leaves, a draw of this prior.

        Raises:
            ValueError: no PRNG key.
        """
        check_key(key)
        return self.leaves.put(self.network.tree, self.draw(key))

    def sample_functions(
        self, key: jax.Array, x: Any, num_samples: int = 1
    ) -> Float[Array, "s m *p"]:
        """Values of random networks at the same inputs, joint draws of the prior over functions.

        Args:
            key: PRNG key.
            x: inputs, one a row, shape `(m, ...)`.
            num_samples: how many networks.

        Returns:
            Shape `(s, m)` or `(s, m, p)`.

        Raises:
            ValueError: no key or number; inputs that the network does not take, or that are empty
                or NaN.
        """
        number = whole_number("sample_functions: num_samples", num_samples)
        check_draws("sample_functions", key, (number,))
        x, guard = inputs("sample_functions", x, parameter_dtype(self.like))
        f = self.values(key, x, number)
        return f * guard.astype(f.dtype)

    def trained(self, state: GradientState, *, average: bool = False) -> Any:
        """The same with the arrays of a state of `prior_matching`, made from it.

        Args:
            state: of its steps.
            average: whether to take the Polyak average.
        """
        return trained(self, state, average=average)

    def values(self, key: jax.Array, x: jax.Array, num_samples: int) -> Float[Array, "s m *p"]:
        """`sample_functions` of inputs that are checked and a known number."""

        def of_one(key: jax.Array) -> jax.Array:
            for_leaves, own = jax.random.split(key)
            network = self.leaves.put(self.network.tree, self.draw(for_leaves))
            return network_values("sample_functions", network, x, own)

        return jax.vmap(of_one)(jax.random.split(key, num_samples))


def held_network(owner: str, network: Any, where: Where) -> tuple[Held, Leaves]:
    """The network of a prior, in inference mode, and which of its leaves are random."""
    check_network(owner, network)
    leaves = random_leaves(owner, network, where)
    return Held(eqx.nn.inference_mode(network)), leaves


def start_scales(
    owner: str, leaves: Leaves, network: Held, weight_scale: Any, bias_scale: Any
) -> tuple[jax.Array, ...]:
    """A standard deviation for each leaf: that of weights, or that of biases."""
    return tuple(
        positive(
            owner,
            "bias_scale" if is_bias(name, value.shape) else "weight_scale",
            bias_scale if is_bias(name, value.shape) else weight_scale,
            value.dtype,
        )
        for name, value in zip(leaves.names, leaves.of(network.tree), strict=True)
    )


def widths(prior: AbstractJointPrior) -> tuple[float, ...]:
    r"""$1 / \sqrt{k}$ of each leaf with `k` inputs, the factor of standardised weights."""
    pairs = zip(prior.leaves.names, prior.like, strict=True)
    return tuple(fan_in(name, value.shape) ** -0.5 for name, value in pairs)


def in_types(prior: AbstractJointPrior, values: Any) -> tuple[jax.Array, ...]:
    """Leaves in the types that the prior's parameters have."""
    pairs = zip(values, prior.like, strict=True)
    return tuple(jnp.asarray(value).astype(like.dtype) for value, like in pairs)
