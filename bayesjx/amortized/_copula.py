r"""The bivariate Gaussian copula update of distributions at points.

Distribution functions are held with their complements, $u$ and $1 - u$, both accurate where they
are small. No density is clipped.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import erfc, ndtri
from jaxtyping import Array, Float

LOG_2PI = 1.8378770664093453


class Points(NamedTuple):
    r"""A predictive distribution of `d` coordinates at `m` points.

    Attributes:
        log_pdf: log densities of the first $j$ coordinates together, shape `(m, d)`.
        lower: distribution function of each coordinate given those before it, shape `(m, d)`.
        upper: 1 less that.
    """

    log_pdf: Float[Array, "m d"]
    lower: Float[Array, "m d"]
    upper: Float[Array, "m d"]


def standard_normal(y: Float[Array, "m d"]) -> Points:
    """The distribution to start from, of independent standard normal coordinates."""
    log_pdf = jnp.cumsum(-0.5 * (y**2 + jnp.asarray(LOG_2PI, y.dtype)), axis=-1)
    return Points(log_pdf, *tails(y))


def log_odds(i: Any, dtype: Any) -> jax.Array:
    r"""$\log(\alpha_i / (1 - \alpha_i))$ of the weights $\alpha_i = (2 - 1/i) / (i + 1)$.

    Args:
        i: number of the observation, from 1 on.
        dtype: of the result.
    """
    i = jnp.asarray(i, dtype)
    return jnp.log(2 * i - 1) - jnp.log(i * i - i + 1)


def scores(points: Points) -> Float[Array, "m d"]:
    """Normal scores: standard normal quantiles of the distribution functions at points."""
    return quantile(points.lower, points.upper)


def update(
    points: Points, a: Any, seen: Float[Array, " d"], odds: Any, rho: Any, log_kernel: Any = 0.0
) -> Points:
    r"""The predictive at points after one more observation.

    With $C_j = k \prod_{l \le j} c_{\rho_l}(u_l, v_l)$, where $k$ is 1 without inputs, the density
    of the first $j$ coordinates is multiplied by $(1 - \alpha + \alpha C_j) / (1 - \alpha + \alpha
    k)$, and $u_j$ is moved to $H_{\rho_j}(u_j, v_j)$ with the weight $\alpha C_{j-1} / (1 - \alpha
    + \alpha C_{j-1})$.

    Args:
        points: before.
        a: their `scores`, of $u$.
        seen: that of the observation, of $v$, which is all that it counts by.
        odds: see `log_odds`.
        rho: correlations of the copulas in (0, 1), shape `(d,)`.
        log_kernel: $\log k$ of the inputs at the points, shape `(m,)`, or 0.
    """
    first = jnp.broadcast_to(jnp.asarray(log_kernel, points.log_pdf.dtype), points.lower.shape[:1])
    after = first[:, None] + jnp.cumsum(log_copula(a, seen, rho), axis=-1)
    before = jnp.concatenate([first[:, None], after[:, :-1]], axis=-1)
    weight, rest = jax.nn.sigmoid(odds + before), jax.nn.sigmoid(-(odds + before))
    low, high = tails((a - rho * seen) / jnp.sqrt((1 - rho) * (1 + rho)))
    factor = jax.nn.softplus(odds + after) - jax.nn.softplus(odds + first)[:, None]
    return Points(
        points.log_pdf + factor,
        rest * points.lower + weight * low,
        rest * points.upper + weight * high,
    )


def log_copula(a: Any, b: Any, rho: Any) -> jax.Array:
    r"""Log density of the Gaussian copula at $\Phi(a)$ and $\Phi(b)$; the kernel of inputs too.

    Args:
        a: normal quantiles.
        b: normal quantiles, broadcastable.
        rho: correlation in (0, 1), broadcastable.
    """
    rest = (1 - rho) * (1 + rho)
    return -0.5 * jnp.log(rest) - rho * (rho * (a**2 + b**2) - 2 * a * b) / (2 * rest)


def log_kernels(x: Float[Array, "m d"], seen: Float[Array, "n d"], rho: Any) -> Float[Array, "m n"]:
    """Log kernels of inputs between two sets, sums over columns of log copula densities."""
    rest = (1 - rho) * (1 + rho)
    squares = rho**2 / (2 * rest)
    own = -0.5 * jnp.sum(jnp.log(rest)) - (x**2 @ squares)[:, None] - seen**2 @ squares
    return own + (x * (rho / rest)) @ seen.T


def pooled(each: Points) -> Points:
    """The mixture of distributions with equal weights, of points with a leading axis.

    Args:
        each: arrays `(p, m, d)`.
    """
    number = each.log_pdf.shape[0]
    mean = jax.nn.logsumexp(each.log_pdf, axis=0) - jnp.log(number).astype(each.log_pdf.dtype)
    # Conditional distributions of coordinate j are weighted by the densities of those before it.
    before = jnp.concatenate([jnp.zeros_like(each.log_pdf[..., :1]), each.log_pdf[..., :-1]], -1)
    weights = jax.nn.softmax(before, axis=0)
    return Points(
        mean, jnp.sum(weights * each.lower, axis=0), jnp.sum(weights * each.upper, axis=0)
    )


@jax.custom_jvp
def tails(z: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The standard normal distribution function and 1 less it, each accurate where it is small."""
    small = 0.5 * erfc(jnp.abs(z) * 0.7071067811865476)
    return jnp.where(z < 0, small, 1 - small), jnp.where(z < 0, 1 - small, small)


@tails.defjvp
def _tails_jvp(primals: Any, tangents: Any) -> Any:
    (z,), (dz,) = primals, tangents
    slope = jnp.exp(-0.5 * (z**2 + jnp.asarray(LOG_2PI, z.dtype))) * dz
    return tails(z), (slope, -slope)


@jax.custom_jvp
def quantile(lower: jax.Array, upper: jax.Array) -> jax.Array:
    """The standard normal quantile of a probability and 1 less it, the smaller of which counts.

    Finite: tails that are lighter than the smallest number of the type are taken for that.
    """
    tail = jnp.maximum(jnp.minimum(lower, upper), _least(lower.dtype))
    return jnp.where(lower < upper, 1, -1) * ndtri(tail)


@quantile.defjvp
def _quantile_jvp(primals: Any, tangents: Any) -> Any:
    lower, upper = primals
    z = quantile(lower, upper)
    # The smaller of the two has the derivative to trust; that of the other is minus it.
    moved = jnp.where(lower < upper, tangents[0], -tangents[1])
    inside = jnp.minimum(lower, upper) > _least(lower.dtype)
    inverse = jnp.exp(0.5 * (z**2 + jnp.asarray(LOG_2PI, z.dtype)))
    return z, jnp.where(inside, moved * inverse, 0)


def _least(dtype: Any) -> Any:
    return jnp.asarray(1e-30 if dtype == jnp.float32 else 1e-280, dtype)
