"""Prior-data fitted networks and neural processes as predictive rules."""

from __future__ import annotations

import warnings
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from .._core import whole_number
from ._network import AbstractPFN
from ._neural_process import AbstractNeuralProcess, check_draws, check_network
from ._pfn_posterior import append_row, checked_data, PFNPosterior
from ._predictive_rule import (
    AbstractPredictiveRule,
    add_row,
    checked_pairs,
    checked_vector,
    refuse,
    Rows,
    with_room,
)
from ._process_posterior import check_span


class PFNPredictive(AbstractPredictiveRule):
    """A prior-data fitted network as a predictive rule.

    Draws are appended to the context. A causal network takes time linear in the rows for each;
    others compute their context anew, in a buffer of the size that all rows need, so that `N` steps
    take time cubic in `N`. A network is only nearly Bayesian: look at the drift that
    `predictive_resample` reports and at `cid_defect`, and at `order_sensitivity` of causal ones.

    Data are pairs `(x, y)`, or targets alone, shape `(n,)`, of networks without inputs.

    Args:
        network: a `PFN` or `TablePFN`.
        style: what the network is told, shape `(k,)`; None to average over it.

    Raises:
        ValueError: `network` is none.

    References:
        Ng, Fong, Frazier, Knoblauch and Wei (2025), "TabMGP: martingale posterior with TabPFN",
        arXiv 2510.25154.
    """

    network: AbstractPFN
    style: Float[Array, " k"] | None

    def __init__(self, network: Any, *, style: Any = None):
        if not isinstance(network, AbstractPFN):
            raise ValueError(
                "PFNPredictive: network must be an amortized.PFN or TablePFN, got "
                f"{type(network).__name__}; for neural processes there is NeuralProcessPredictive"
            )
        self.network = network
        self.style = None if style is None else jnp.asarray(style, network.dtype)

    @property
    def has_inputs(self) -> bool:
        return self.network.most_inputs > 0

    @property
    def has_density(self) -> bool:
        return True

    @property
    def has_cdf(self) -> bool:
        return self.network.head.num_classes is None

    def init(self, data: Any, num_forward: int = 0) -> PFNPosterior:
        if self.has_inputs:
            x, y = checked_pairs("PFNPredictive", data)
        else:
            y = checked_vector("PFNPredictive", data)
            x = jnp.zeros((len(y), 0), self.network.dtype)
        capacity, most = len(y) + num_forward, self.network.max_context
        if most is not None and capacity > most >= len(y):
            warnings.warn(
                f"PFNPredictive: {capacity} rows with those to come, more than the {most} that the "
                "network was trained with; its predictions there are not checked",
                stacklevel=2,
            )
        return self.network.condition(x, y, style=self.style, capacity=max(capacity, 1))

    def predictive(self, state: PFNPosterior, x: Any = None) -> dist.Distribution:
        """Distribution of the next target at one input.

        Args:
            state: of the rule.
            x: its inputs, shape `(d,)`.
        """
        head = self.network.head
        outputs = self.network.decode(self._input(x)[None], state.cache)
        return head.distribution(head.parameters(outputs)[0], state.loc, state.scale)

    def sample(self, key: jax.Array, state: PFNPosterior, x: Any = None) -> Any:
        return jnp.asarray(self.predictive(state, x).sample(key)).astype(state.y.dtype)

    def absorb(self, state: PFNPosterior, y: Any, x: Any = None) -> PFNPosterior:
        y = jnp.asarray(y).astype(state.y.dtype)
        return append_row(state, self._input(x), y, state.size)

    def log_prob(self, state: PFNPosterior, y: Any, x: Any = None) -> Float[Array, ""]:
        return jnp.asarray(self.predictive(state, x).log_prob(y))

    def cdf(self, state: PFNPosterior, y: Any, x: Any = None) -> Float[Array, ""]:
        if not self.has_cdf:
            raise refuse(self, "cdf", "classes have no order")
        return self.predictive(state, x).cdf(y)

    def report(self, state: PFNPosterior) -> dict[str, Array]:
        return {}

    def _input(self, x: Any) -> jax.Array:
        """Inputs as the network has them, with what stands in columns that data do not have."""
        network = self.network
        x = jnp.zeros(0, network.dtype) if x is None else jnp.ravel(x).astype(network.dtype)
        if network.absent is not None and len(x) < network.most_inputs:
            x = jnp.pad(x, (0, network.most_inputs - len(x)), constant_values=network.absent)
        return x


class NeuralProcessPredictive(AbstractPredictiveRule):
    """A neural process as a predictive rule.

    Draws are appended to the context, which is encoded anew at each step. With inputs at fixed
    places it is the autoregressive mode of the process. Networks that draw predict by a mixture
    over the same noise at each step. A network is only nearly Bayesian: look at the drift that
    `predictive_resample` reports and at `cid_defect`.

    Data are pairs `(x, y)`.

    Args:
        network: such as a `CANP` or an `MPANP`.
        key: PRNG key of the draws of a network that makes any.
        num_samples: number of draws.

    Raises:
        ValueError: `network` is none, or no key for a network that draws.

    References:
        Bruinsma, Markou, Requeima, Foong, Andersson, Vaughan, Buonomo, Hosking and Turner (2023),
        "Autoregressive conditional neural processes", ICLR.
    """

    network: AbstractNeuralProcess
    key: jax.Array | None
    num_samples: int = eqx.field(static=True)

    def __init__(self, network: Any, *, key: jax.Array | None = None, num_samples: int = 20):
        owner = "NeuralProcessPredictive"
        check_network(owner, network)
        check_draws(owner, network, key)
        self.network, self.key = network, key if network.stochastic else None
        self.num_samples = whole_number(f"{owner}: num_samples", num_samples)

    @property
    def has_inputs(self) -> bool:
        return True

    @property
    def has_density(self) -> bool:
        return True

    @property
    def has_cdf(self) -> bool:
        return True

    def init(self, data: Any, num_forward: int = 0) -> Rows:
        owner = "NeuralProcessPredictive"
        x, y, mask = checked_data(owner, self.network, *checked_pairs(owner, data), None)
        x = check_span(owner, self.network, x, x, mask) if len(y) else x
        return with_room((x, y), max(num_forward, 1))

    def predictive(self, state: Rows, x: Any = None) -> dist.Distribution:
        """Distribution of the next target at one input, batch shape `(1,)`.

        Args:
            state: of the rule.
            x: its inputs, shape `(d,)`.
        """
        (rows, y), network = state.rows, self.network
        mask = jnp.arange(len(y)) < state.size
        x = jnp.ravel(jnp.asarray(x, rows.dtype))[None]
        x = check_span("NeuralProcessPredictive", network, x, rows, mask)
        return network.marginals(x, network.encode(self.key, rows, y, mask, self.num_samples))

    def sample(self, key: jax.Array, state: Rows, x: Any = None) -> Any:
        drawn = jnp.asarray(self.predictive(state, x).sample(key))
        return drawn[0].astype(state.rows[1].dtype)

    def absorb(self, state: Rows, y: Any, x: Any = None) -> Rows:
        return add_row(state, (jnp.ravel(x), y))

    def log_prob(self, state: Rows, y: Any, x: Any = None) -> Float[Array, ""]:
        return jnp.asarray(self.predictive(state, x).log_prob(y))[0]

    def cdf(self, state: Rows, y: Any, x: Any = None) -> Float[Array, ""]:
        return jnp.asarray(self.predictive(state, x).cdf(y))[0]

    def report(self, state: Rows) -> dict[str, Array]:
        return {}
