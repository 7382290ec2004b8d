"""Squared distances and functions of them, differentiable where points coincide."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import safe_sqrt

EXPANDED_FROM = 4  # dimensions from which |x|² + |y|² - 2xy is faster than the differences


def squared_distances(
    x: Float[Array, "n d"], y: Float[Array, "m d"], scale: Any = 1.0
) -> Float[Array, "n m"]:
    r"""$\|(x_i - y_j) / \ell\|^2$ of all points of `x` `(n, d)` and `y` `(m, d)`, shape `(n, m)`.

    By differences, which lose no digits, in few dimensions or in single precision; else by a
    product of matrices of the points about their mean, where rounding may leave 1e-15 of the
    largest squared norm. An offset that the points have in common, as coordinates on a map do,
    costs no digits in either.

    Args:
        x: shape `(n, d)`.
        y: shape `(m, d)`; the same object as `x` for distances among them.
        scale: lengthscales, scalar or `(d,)`.
    """
    if x.shape[1] < EXPANDED_FROM or x.dtype != jnp.float64:
        return by_differences(x, y, scale)
    r2 = _expanded(x, y, scale)
    if y is x:
        n = jnp.arange(len(x))
        r2 = r2.at[n, n].set(0.0)
    return at_least(r2, 0.0)


def _expanded(x: jax.Array, y: jax.Array, scale: Any) -> jax.Array:
    mean = jnp.mean(jax.lax.stop_gradient(x), axis=0)
    mean = jnp.where(jnp.isfinite(mean), mean, 0.0)
    same = y is x
    x = (x - mean) / scale
    y = x if same else (y - mean) / scale
    norms = jnp.sum(x**2, axis=1)
    others = norms if same else jnp.sum(y**2, axis=1)
    return norms[:, None] + others - 2 * jnp.matmul(x, y.T, precision="highest")


@jax.custom_jvp
def _by_differences(x: jax.Array, y: jax.Array, scale: jax.Array) -> jax.Array:
    rate = 1 / scale
    total = jnp.zeros((len(x), len(y)), x.dtype)
    for d in range(x.shape[1]):  # no (n, m, d) array
        apart = x[:, d][:, None] - y[:, d]
        total = total + (apart * rate[d] if rate.ndim else apart) ** 2
    return total if rate.ndim else total * rate * rate


def by_differences(
    x: Float[Array, "n d"], y: Float[Array, "m d"], scale: Any
) -> Float[Array, "n m"]:
    """Squared distances as sums of squared differences.

    Points are subtracted before anything else: of products XLA may round one and not the other,
    and then the distance of a point to itself is not 0.
    """
    return _by_differences(x, y, jnp.asarray(scale, x.dtype))


@_by_differences.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # Of scaled points, whose derivatives are sums over rows; those in the scale of the above would
    # be sums over whole matrices, one for each coordinate, which take several times as long. In
    # many dimensions products of matrices, which need no array for each coordinate.
    def of_scaled(x: jax.Array, y: jax.Array, scale: jax.Array) -> jax.Array:
        if x.shape[1] >= EXPANDED_FROM:
            return _expanded(x, y, scale)
        offset = common_offset(x)
        x, y = (x - offset) / scale, (y - offset) / scale
        total = jnp.zeros((len(x), len(y)), x.dtype)
        for d in range(x.shape[1]):
            total = total + (x[:, d][:, None] - y[:, d]) ** 2
        return total

    return _by_differences(*primals), jax.jvp(of_scaled, primals, tangents)[1]


def common_offset(x: Float[Array, "n d"]) -> Float[Array, " d"]:
    """An offset that can be subtracted from points `(n, d)` without rounding, shape `(d,)`.

    The mean of least and largest where those have one sign and differ by less than a factor of 2,
    by Sterbenz's lemma; else 0. It has no derivative.
    """
    x = jax.lax.stop_gradient(x)
    least, most = jnp.min(x, axis=0, initial=jnp.inf), jnp.max(x, axis=0, initial=-jnp.inf)
    near = ((least > 0) & (most <= 2 * least)) | ((most < 0) & (least >= 2 * most))
    return jnp.where(near, least + (most - least) / 2, 0.0)


def at_least(value: jax.Array, bound: float) -> jax.Array:
    """The maximum of value and bound, for rounding errors, with the derivative of the value.

    That of `maximum` is halved at the bound, which is where points coincide.
    """
    return value + jax.lax.stop_gradient(jnp.maximum(value, bound) - value)


def at_most(value: jax.Array, bound: float) -> jax.Array:
    """As `at_least`, from above."""
    return value + jax.lax.stop_gradient(jnp.minimum(value, bound) - value)


@functools.partial(jax.custom_jvp, nondiff_argnums=(0,))
def matern(order: int, z: jax.Array) -> jax.Array:
    r"""The Matérn correlation of order $p + 1/2$ as a function of $z = (2p + 1) r^2$.

    A polynomial of degree $p$ in $\sqrt z$ times $e^{-\sqrt z}$. As a function of $z$ its
    derivative is that of order $p - 1/2$ times $-1 / (4p - 2)$ (by $(s^\nu K_\nu)' = -s^\nu
    K_{\nu - 1}$), so that all derivatives that exist at $z = 0$ come out there. Those of order 1/2
    are infinite; see `_slope`. In a `jax.lax.scan` that is differentiated backwards JAX drops
    such rules for derivatives taken after it: those in parameters stay right, those in points are 0
    where points coincide. Derivatives taken inside of the scan are right.

    Args:
        order: $p$, in 0 to 3.
        z: not negative.

    References:
        Abramowitz and Stegun (1964), equation 9.6.28; Rasmussen and Williams (2006), "Gaussian
        processes for machine learning", equation 4.16.
    """
    s = safe_sqrt(z)
    polynomial = (1, 1 + s, 1 + s + z / 3, 1 + s + 0.4 * z + z * s / 15)[order]
    return polynomial * jnp.exp(-s)


@matern.defjvp
def _(order: int, primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (z,), (change,) = primals, tangents
    slope = matern(order - 1, z) / (4 * order - 2) if order else _slope(z)
    return matern(order, z), -slope * change


def _slope(z: jax.Array) -> jax.Array:
    r"""$e^{-s} / 2s$ of $s = \sqrt z$, cut off where $s$ is of the size of its rounding errors.

    Where points coincide it meets a factor 0 in all derivatives that exist. In those that do not
    it stands alone, and makes them the large numbers that they should be.
    """
    s = jnp.sqrt(jnp.maximum(z, jnp.finfo(z.dtype).eps))
    return jnp.exp(-s) / (2 * s)
