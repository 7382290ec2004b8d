"""A prior-data fitted network as a predictive rule."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ._network import AbstractPFN
from ._pfn_posterior import append_row, PFNPosterior
from ._predictive_rule import AbstractPredictiveRule, checked_pairs, checked_vector, refuse


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
                f"{type(network).__name__}"
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
