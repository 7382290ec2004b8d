"""Quadrature, and functions with values or derivatives that are safe at the edge of a domain."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def gauss_hermite(num_nodes: int, dtype: Any) -> tuple[np.ndarray, np.ndarray]:
    r"""Nodes and weights of Gauss-Hermite quadrature for the standard normal distribution.

    $E[g(x)] \approx \sum_i w_i g(x_i)$ for $x \sim N(0, 1)$, exact for polynomials up to degree
    $2k - 1$. The weights sum to one.

    Args:
        num_nodes: $k$, at least 1.
        dtype: of the result.

    Returns:
        Nodes in ascending order and weights, shape `(num_nodes,)` each.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    return np.asarray(nodes, dtype), np.asarray(weights / np.sum(weights), dtype)


def nan_if_negative(value: Any) -> jax.Array:
    """The value, NaN where it is negative: what follows is then NaN, which samplers avoid."""
    return jnp.where(value >= 0, value, jnp.nan)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """The square root, with derivative 0 at 0.

    Not the usual pair of `where`: XLA may compute a distance of 0 twice, once with rounding and
    once without, and then the two conditions differ and the value is wrong.
    """
    return jnp.sqrt(jnp.maximum(x, 1e-36))
