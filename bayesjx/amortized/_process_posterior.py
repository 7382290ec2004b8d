"""Predictive distributions of neural processes, given a context."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float

from .._core import check_key, compiled, refuse_where
from ._pfn_posterior import checked_data, checked_inputs


class NeuralProcessPosterior(eqx.Module):
    """Predictive distribution of a neural process given a context.

    All queries are answered with the same draws of the network.

    Attributes:
        network: such as a `CNP`.
        cache: what the network keeps of the context.
        x: inputs of the context, shape `(c, d)`.
        mask: rows that count, shape `(c,)`.
    """

    network: Any
    cache: Any
    x: Float[Array, "c d"]
    mask: Bool[Array, " c"]

    def predict(self, x: Any) -> dist.Distribution:
        """Distributions of new observations, each by itself.

        Args:
            x: inputs, shape `(m, d)`, or `(m,)` for one input.

        Returns:
            Batch shape `(m,)`: what the network's head says, or a mixture of that over draws.

        Raises:
            ValueError: wrong shapes, NaN, no rows, inputs that lie further apart than the network
                can represent.
        """
        return _marginals(self, self._queries("predict", x))

    def joint(self, x: Any) -> dist.Distribution:
        """Joint distribution of new observations.

        Args:
            x: inputs, shape `(m, d)`.

        Returns:
            Event shape `(m,)`. Mixtures over draws are taken of all observations at once.
        """
        return _joint(self, self._queries("joint", x))

    def log_predictive_prob(self, x: Any, y: Any) -> Any:
        """Log density of each new observation by itself, shape `(m,)`.

        Args:
            x: inputs, shape `(m, d)`.
            y: targets, shape `(m,)`.
        """
        x, y, _ = checked_data("log_predictive_prob", self.network, x, y, None)
        return self.predict(x).log_prob(y)

    def sample(self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Joint draws of new observations, shape `(*sample_shape, m)`.

        Args:
            key: PRNG key.
            x: inputs, shape `(m, d)`.
            sample_shape: of the draws.
        """
        check_key(key)
        return jnp.asarray(self.joint(x).sample(key, sample_shape), self.x.dtype)

    def _queries(self, owner: str, x: Any) -> Any:
        x = checked_inputs(owner, self.network, x)
        if not len(x):
            raise ValueError(f"{owner}: x has no rows")
        return check_span(owner, self.network, x, self.x, self.mask)


@compiled
def condition(
    key: Any, network: Any, x: Any, y: Any, mask: Any, num_samples: int
) -> NeuralProcessPosterior:
    """The posterior of a network given rows that count."""
    cache = network.encode(key, x, y, mask, num_samples)
    return NeuralProcessPosterior(network, cache, x, mask)


def check_span(owner: str, network: Any, x_new: Any, x: Any, mask: Any) -> Any:
    """The inputs of queries, if they and the context are not too far apart.

    Raises:
        ValueError: they are; under `jit` a `RuntimeError`.
    """
    if network.span is None:
        return x_new
    low, high = extent(x, mask)
    low = jnp.minimum(low, jnp.min(x_new, axis=-2))
    high = jnp.maximum(high, jnp.max(x_new, axis=-2))
    too_far = jnp.any(high - low > network.span * (1 + 1e-5))
    message = (
        f"{owner}: x must lie, with the context, in a range of length span = {network.span:g}; "
        "give the network a larger span or scale the inputs"
    )
    if isinstance(too_far, jax.core.Tracer):
        return eqx.error_if(x_new, too_far, message)
    refuse_where(too_far, lambda far: far, message)
    return x_new


def extent(x: Float[Array, "*batch n d"], mask: Bool[Array, "*batch n"]) -> tuple[Any, Any]:
    """Smallest and largest inputs of the rows that count; infinities where there are none."""
    counted = mask[..., None]
    low = jnp.min(jnp.where(counted, x, jnp.inf), axis=-2)
    return low, jnp.max(jnp.where(counted, x, -jnp.inf), axis=-2)


@compiled
def _marginals(posterior: NeuralProcessPosterior, x: Any) -> dist.Distribution:
    return posterior.network.marginals(x, posterior.cache)


@compiled
def _joint(posterior: NeuralProcessPosterior, x: Any) -> dist.Distribution:
    return posterior.network.joint(x, posterior.cache)
