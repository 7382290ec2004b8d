"""Adaptive quadrature nodes for the product of a likelihood and a normal density."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

NODES = 61
REACH = 9.0  # standard deviations, beyond which a normal density is 0 in double precision
STARTS = (-4.0, -2.0, -1.0, 0.0, 1.0, 2.0, 4.0)
SEARCH = 30  # steps at most
HALVINGS = 28  # of the distance from the mode, 3e-8 standard deviations at the end
NOTHING = 40.0  # nats below the mode


@functools.cache
def gauss_hermite(num_nodes: int, dim: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Gauss-Hermite nodes of the standard normal distribution, in double precision.

    Args:
        num_nodes: along each dimension.
        dim: number of independent variables.

    Returns:
        Nodes, shape `(num_nodes**dim, dim)`, and their weights, which sum to 1.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    grid = np.meshgrid(*[nodes] * dim, indexing="ij")
    total = functools.reduce(np.multiply.outer, [weights / weights.sum()] * dim)
    return np.stack([g.reshape(-1) for g in grid], axis=1), np.reshape(total, -1)


def adaptive_nodes(
    log_prob: Callable[[jax.Array], jax.Array],
    mean: jax.Array,
    variance: jax.Array,
    power: Any = 1.0,
    start: Any = None,
    whole: bool = False,
) -> tuple[jax.Array, jax.Array]:
    r"""Nodes and log weights for $E[p(y \mid \mu + \sigma x)^\alpha g(x)]$ with $x \sim N(0, 1)$.

    Placed around the mode of the product of normal density and likelihood, at the scale at which it
    falls off: equal steps of $u$ in $x = \hat x + \tau \sinh u$, so that a likelihood much
    narrower than the normal density is seen as well as what lies at the scale of the latter. The
    trapezoidal rule in $u$ converges exponentially for analytic likelihoods. Nodes have no
    derivatives; weights are NaN where the product is narrower than 3e-8 standard deviations.

    Args:
        log_prob: from values of the function `(n,)` to log densities `(n,)`, elementwise. What it
            closes over should be without derivatives.
        mean: $\mu$, shape `(n,)`.
        variance: $\sigma^2$, shape `(n,)`.
        power: $\alpha$.
        start: a value of the function near the mode, shape `(n,)`, if one is known.
        whole: whether the rule is to be exact without the likelihood, too.

    Returns:
        Shape `(61, n)` both.

    References:
        Liu and Pierce (1994), "A note on Gauss-Hermite quadrature", Biometrika (nodes at mode and
        scale of the product); Takahasi and Mori (1974), "Double exponential formulas for numerical
        integration", section 1 (the trapezoidal rule after a change of variables).
    """
    mean, variance = jax.lax.stop_gradient((mean, variance))
    scale = jnp.sqrt(jnp.maximum(variance, jnp.finfo(variance.dtype).tiny))

    def product(x: jax.Array) -> jax.Array:
        value = power * log_prob(mean + scale * x).astype(mean.dtype) - 0.5 * x**2
        return jnp.where(jnp.isnan(value), -jnp.inf, value)

    starts = [jnp.full_like(mean, x) for x in STARTS]
    if start is not None:
        starts.append((jax.lax.stop_gradient(start) - mean) / scale)
    mode, top = _mode(product, jnp.stack(starts))
    far = jnp.abs(mode) + REACH
    radii = far * jnp.exp2(-jnp.arange(HALVINGS, dtype=mean.dtype))[:, None]
    sides = [_width(top - jax.vmap(product)(mode + sign * radii), radii) for sign in (-1, 1)]
    (left, least), (right, most) = sides
    tau = jnp.minimum(left, right)
    if whole:  # what the likelihood has far out matters no more than its tail here
        near = jnp.abs(mode) < max(STARTS)
        mode, tau = jnp.where(near, mode, 0.0), jnp.where(near, tau, 1.0)
        least = most = jnp.abs(mode) + REACH
    low, high = -jnp.arcsinh(least / tau), jnp.arcsinh(most / tau)
    share = jnp.asarray(np.linspace(0, 1, NODES), mean.dtype)[:, None]
    u = low + (high - low) * share
    x = mode + tau * jnp.sinh(u)
    step = tau * (high - low) / (NODES - 1)
    log_weights = jnp.log(step) + jnp.log(jnp.cosh(u)) - 0.5 * x**2 - 0.5 * math.log(2 * math.pi)
    return jax.lax.stop_gradient((x, log_weights))


def _mode(
    product: Callable[[jax.Array], jax.Array], starts: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The best of the starts, moved uphill by damped Newton steps, and the value at it."""
    values = jax.vmap(product)(starts)
    best = jnp.argmax(values, axis=0)[None]
    x, top = (jnp.take_along_axis(a, best, axis=0)[0] for a in (starts, values))
    slope = jax.grad(lambda x: jnp.sum(product(x)))

    def goes_on(carry: Any) -> jax.Array:
        *_, moved, count = carry
        return moved & (count < SEARCH)

    def step(carry: Any) -> Any:
        x, top, damping, _, count = carry
        g, curvature = jax.jvp(slope, (x,), (jnp.ones_like(x),))
        # That of the normal density alone is -1, which is taken where the likelihood curves upward.
        full = g / jnp.where(curvature < -1, -curvature, 1.0)
        full = jnp.where(jnp.isfinite(full), full, 0.0)
        new = x + full / (1 + damping)
        value = product(new)
        better = value > top
        # Rejected steps shrink fast, accepted ones grow again.
        damping = jnp.where(better, damping / 8, jnp.maximum(8 * damping, 3.0))
        width = jax.lax.rsqrt(jnp.maximum(-curvature, 1.0))
        moving = jnp.any((jnp.abs(full) > 0.05 * width) & jnp.isfinite(top))
        x, top = jnp.where(better, new, x), jnp.where(better, value, top)
        return x, top, damping, moving, count + 1

    first = (x, top, jnp.zeros_like(x), jnp.asarray(True), jnp.zeros((), int))
    x, top, *_ = jax.lax.while_loop(goes_on, step, first)
    return x, top


def _width(drops: jax.Array, radii: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Where the product falls by half a nat, and beyond what distance nothing is left.

    Args:
        drops: below the mode, at distances from it, `(k, n)`.
        radii: these, from far to near.
    """
    k = len(radii)
    falls = drops > 0.5
    nearest = k - 1 - jnp.argmax(falls[::-1], axis=0)  # the least distance with such a drop
    drop, radius = (jnp.take_along_axis(a, nearest[None], axis=0)[0] for a in (drops, radii))
    # In between the drop grows with the square of the distance, about.
    share = jnp.sqrt(0.5 / jnp.clip(drop, 0.5, 2.0))
    width = jnp.where(jnp.any(falls, axis=0), radius * share, radii[0])
    width = jnp.where(nearest == k - 1, jnp.where(falls[-1], jnp.nan, width), width)
    left = drops < NOTHING
    outer = jnp.maximum(jnp.argmax(left, axis=0) - 1, 0)
    return width, jnp.take_along_axis(radii, outer[None], axis=0)[0]
