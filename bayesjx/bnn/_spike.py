"""The three-layer hierarchical prior of weights: supports, precisions, weights."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.special import gammaln
from jaxtyping import Array, Float

from .._core import known_field
from ._arguments import positive


class SpikeSlabPrecision(eqx.Module):
    r"""Gamma priors of the precisions of weights, one where they are zero and one elsewhere.

    $w_i \sim N(0, 1 / \rho_i)$ with $\rho_i \sim \mathrm{Gamma}(a, b)$ where $s_i = 1$ and
    $\mathrm{Gamma}(\bar a, \bar b)$ where $s_i = 0$, with $\bar b \ll \bar a$.

    Args:
        shape: $a$.
        rate: $b$.
        spike_shape: $\bar a$.
    """

    shape: Float[Array, ""] = known_field()
    rate: Float[Array, ""] = known_field()
    spike_shape: Float[Array, ""] = known_field()

    def __init__(self, shape: Any = 1.0, rate: Any = 1.0, spike_shape: Any = 1.0):
        dtype = jnp.result_type(float)
        self.shape = positive("SpikeSlabPrecision", "shape", shape, dtype)
        self.rate = positive("SpikeSlabPrecision", "rate", rate, dtype)
        self.spike_shape = positive("SpikeSlabPrecision", "spike_shape", spike_shape, dtype)

    def evidence(self, square: Any, spike_rate: Any) -> tuple[jax.Array, jax.Array]:
        r"""Log density of weights with $E[w^2]$ in place of $w^2$, of each component.

        Precisions are integrated out: $\int \mathrm{Gamma}(\rho; a, b) \sqrt{\rho / 2 \pi} \,
        e^{-\rho E[w^2] / 2} d\rho$.

        Args:
            square: $E[w_i^2]$, any shape.
            spike_rate: $\bar b$, scalar.

        Returns:
            for $s_i = 0$ and for $s_i = 1$, of the shape of `square`.
        """
        dtype = square.dtype
        a, b, a0 = (x.astype(dtype) for x in (self.shape, self.rate, self.spike_shape))
        return _log_marginal(a0, spike_rate, square), _log_marginal(a, b, square)

    def mean_precision(self, square: Any, spike_rate: Any, prob: Any) -> jax.Array:
        r"""$E[\rho_i]$ where the weights are not zero with these probabilities."""
        dtype = square.dtype
        a, b, a0 = (x.astype(dtype) for x in (self.shape, self.rate, self.spike_shape))
        slab, spike = (a + 0.5) / (b + square / 2), (a0 + 0.5) / (spike_rate + square / 2)
        return prob * slab + (1 - prob) * spike


def _log_marginal(a: jax.Array, b: jax.Array, square: jax.Array) -> jax.Array:
    total = a * jnp.log(b) - gammaln(a) + gammaln(a + 0.5)
    return total - (a + 0.5) * jnp.log(b + square / 2) - 0.5 * jnp.log(2 * jnp.pi).astype(b.dtype)


def spike_schedule(step: jax.Array, num_steps: int) -> tuple[jax.Array, jax.Array]:
    r"""Rate of the spike, and whether the chains are in use, at a step of so many.

    A spike that is narrow from the start keeps all weights in use; a chain that is in use while the
    spike is wide says of all weights that they are not zero. So in the first quarter the rate falls
    from 1e-1 to 1e-3 with independent indicators, then from 1e-2 to 1e-6 with the chains in half
    of the steps, and stays there.
    """
    part = step / num_steps
    first = -1 - 2 * part / 0.25
    second = -2 - 4 * jnp.minimum((part - 0.25) / 0.5, 1)
    return 10 ** jnp.where(part < 0.25, first, second), part >= 0.25
