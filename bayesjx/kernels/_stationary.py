"""Stationary covariance functions: of the scaled distance, periodic and of cosines."""

from __future__ import annotations

import abc
from typing import Any

import jax
import jax.core
import jax.numpy as jnp

from .._core import positive_field, refuse_where
from ._kernel import AbstractKernel, floating, scalar

EXPANDED_FROM = 4  # dimensions from which |x|² + |y|² - 2xy is faster than the differences


class AbstractStationary(AbstractKernel):
    r"""A kernel $\sigma^2 f(r^2)$ of the distance $r = \|(x - x') / \ell\|$.

    Written as a function of $r^2$, so that first derivatives are finite where points coincide.
    """

    lengthscale: jax.Array = positive_field()
    variance: jax.Array = positive_field()

    def __init__(self, lengthscale: Any = 1.0, variance: Any = 1.0):
        self.lengthscale = _lengthscale(lengthscale)
        self.variance = scalar("variance", variance)

    @abc.abstractmethod
    def of_square(self, r2: jax.Array) -> jax.Array:
        """The correlation at squared scaled distances."""

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        scale = valid(self.lengthscale).astype(x.dtype)
        same = y is x
        x = x / scale
        r2 = squared_distances(x, x if same else y / scale)
        return valid(self.variance).astype(x.dtype) * self.of_square(r2)

    def variances(self, x: jax.Array) -> jax.Array:
        return jnp.full(len(x), self.variance, x.dtype)


class RBF(AbstractStationary):
    r"""Squared exponential, $\sigma^2 e^{-r^2 / 2}$: infinitely smooth.

    Args:
        lengthscale: positive, scalar or one for each coordinate (ARD), shape `(d,)`.
        variance: positive, scalar.
    """

    def of_square(self, r2: jax.Array) -> jax.Array:
        return jnp.exp(-0.5 * r2)


class RationalQuadratic(AbstractKernel):
    r"""$\sigma^2 (1 + r^2 / 2\alpha)^{-\alpha}$: a mixture of squared exponentials.

    Args:
        lengthscale: positive, scalar or shape `(d,)`.
        alpha: positive, scalar; the smaller, the wider the mixture.
        variance: positive, scalar.
    """

    lengthscale: jax.Array = positive_field()
    alpha: jax.Array = positive_field()
    variance: jax.Array = positive_field()

    def __init__(self, lengthscale: Any = 1.0, alpha: Any = 1.0, variance: Any = 1.0):
        self.lengthscale = _lengthscale(lengthscale)
        self.alpha = scalar("alpha", alpha)
        self.variance = scalar("variance", variance)

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        scale, alpha = valid(self.lengthscale).astype(x.dtype), self.alpha.astype(x.dtype)
        r2 = squared_distances(x / scale, y / scale)
        return self.variance.astype(x.dtype) * jnp.exp(-alpha * jnp.log1p(r2 / (2 * alpha)))

    def variances(self, x: jax.Array) -> jax.Array:
        return jnp.full(len(x), self.variance, x.dtype)


class Matern12(AbstractStationary):
    r"""$\sigma^2 e^{-r}$, the Ornstein-Uhlenbeck process: continuous and rough.

    Args:
        lengthscale: positive, scalar or shape `(d,)`.
        variance: positive, scalar.
    """

    def of_square(self, r2: jax.Array) -> jax.Array:
        return jnp.exp(-safe_sqrt(r2))


class Matern32(AbstractStationary):
    r"""$\sigma^2 (1 + \sqrt3 r) e^{-\sqrt3 r}$: once differentiable.

    Args:
        lengthscale: positive, scalar or shape `(d,)`.
        variance: positive, scalar.
    """

    def of_square(self, r2: jax.Array) -> jax.Array:
        return _matern32(r2)


class Matern52(AbstractStationary):
    r"""$\sigma^2 (1 + \sqrt5 r + 5 r^2 / 3) e^{-\sqrt5 r}$: twice differentiable.

    Args:
        lengthscale: positive, scalar or shape `(d,)`.
        variance: positive, scalar.
    """

    def of_square(self, r2: jax.Array) -> jax.Array:
        return _matern52(r2)


class Matern72(AbstractStationary):
    r"""$\sigma^2 (1 + s + 2 s^2 / 5 + s^3 / 15) e^{-s}$, $s = \sqrt7 r$: three times.

    Args:
        lengthscale: positive, scalar or shape `(d,)`.
        variance: positive, scalar.
    """

    def of_square(self, r2: jax.Array) -> jax.Array:
        s = safe_sqrt(7 * r2)
        return (1 + s + 0.4 * s**2 + s**3 / 15) * jnp.exp(-s)


class Periodic(AbstractKernel):
    r"""$\sigma^2 \exp(-2 \sum_j \sin^2(\pi (x_j - x'_j) / p_j) / \ell_j^2)$.

    Args:
        lengthscale: positive, in units of half the amplitude of the circle, scalar or `(d,)`.
        period: positive, in units of `x`, scalar or `(d,)`.
        variance: positive, scalar.

    References:
        MacKay (1998), "Introduction to Gaussian processes".
    """

    lengthscale: jax.Array = positive_field()
    period: jax.Array = positive_field()
    variance: jax.Array = positive_field()

    def __init__(self, lengthscale: Any = 1.0, period: Any = 1.0, variance: Any = 1.0):
        self.lengthscale = _lengthscale(lengthscale)
        self.period = _positive("period", period)
        self.variance = scalar("variance", variance)

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        # sin²(a - b) is half of 1 - cos(2a - 2b), which products of matrices give for all pairs.
        period, scale = (p.astype(x.dtype) for p in (self.period, self.lengthscale))
        angle_x, angle_y = (2 * jnp.pi * z / period for z in (x, y))
        weight = jnp.broadcast_to(scale**-2, x.shape[1:])
        alike = jnp.cos(angle_x) * weight @ jnp.cos(angle_y).T
        alike += jnp.sin(angle_x) * weight @ jnp.sin(angle_y).T
        return self.variance.astype(x.dtype) * jnp.exp(alike - jnp.sum(weight))

    def variances(self, x: jax.Array) -> jax.Array:
        return jnp.full(len(x), self.variance, x.dtype)


class Cosine(AbstractKernel):
    r"""$\sigma^2 \cos(2 \pi \sum_j (x_j - x'_j) / p_j)$: a wave of unknown phase and amplitude.

    Args:
        period: positive, in units of `x`, scalar or `(d,)`.
        variance: positive, scalar.
    """

    period: jax.Array = positive_field()
    variance: jax.Array = positive_field()

    def __init__(self, period: Any = 1.0, variance: Any = 1.0):
        self.period = _positive("period", period)
        self.variance = scalar("variance", variance)

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        period = self.period.astype(x.dtype)
        angle_x, angle_y = (jnp.sum(2 * jnp.pi * z / period, axis=1) for z in (x, y))
        return self.variance.astype(x.dtype) * jnp.cos(angle_x[:, None] - angle_y)

    def variances(self, x: jax.Array) -> jax.Array:
        return jnp.full(len(x), self.variance, x.dtype)


class White(AbstractKernel):
    r"""$\sigma^2$ where points are equal, else 0: noise that belongs to the process.

    Args:
        variance: not negative, scalar.
    """

    variance: jax.Array = positive_field()

    def __init__(self, variance: Any = 1.0):
        self.variance = scalar("variance", variance)

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        if y is x:
            return self.variance.astype(x.dtype) * jnp.eye(len(x), dtype=x.dtype)
        equal = jnp.all(x[:, None] == y, axis=-1)
        return self.variance.astype(x.dtype) * equal.astype(x.dtype)

    def variances(self, x: jax.Array) -> jax.Array:
        return jnp.full(len(x), self.variance, x.dtype)


def squared_distances(x: jax.Array, y: jax.Array) -> jax.Array:
    """Squared distances of all points of `x` `(n, d)` and `y` `(m, d)`, shape `(n, m)`.

    By differences, which lose no digits, in few dimensions or in single precision; else by a
    product of matrices, where rounding may leave 1e-15 of the largest squared norm.
    """
    if x.shape[1] < EXPANDED_FROM or x.dtype != jnp.float64:
        return _by_differences(x, y)
    if y is x:
        norms = jnp.sum(x**2, axis=1)
        r2 = norms[:, None] + norms - 2 * x @ x.T
        n = jnp.arange(len(x))
        r2 = r2.at[n, n].set(0.0)
    else:
        centre = jnp.mean(x, axis=0)  # small norms keep more digits of the distances
        x, y = x - centre, y - centre
        r2 = jnp.sum(x**2, axis=1)[:, None] + jnp.sum(y**2, axis=1) - 2 * x @ y.T
    return jnp.maximum(r2, 0)


def _by_differences(x: jax.Array, y: jax.Array) -> jax.Array:
    total = jnp.zeros((len(x), len(y)), x.dtype)
    for d in range(x.shape[1]):  # no (n, m, d) array
        total = total + (x[:, d][:, None] - y[:, d]) ** 2
    return total


def valid(parameter: jax.Array) -> jax.Array:
    """The parameter, NaN where it is negative: a square would hide the sign from a density."""
    return jnp.where(parameter >= 0, parameter, jnp.nan)


def safe_sqrt(x: jax.Array) -> jax.Array:
    """The root, with derivative 0 at 0.

    Not the usual pair of `where`: XLA may compute a distance of 0 twice, once with rounding and
    once without, and then the two conditions differ and the value is wrong.
    """
    return jnp.sqrt(jnp.maximum(x, 1e-36))


@jax.custom_jvp
def _matern32(r2: jax.Array) -> jax.Array:
    s = safe_sqrt(3 * r2)
    return (1 + s) * jnp.exp(-s)


@_matern32.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # The derivative in r² is finite at 0, where that of r is not.
    (r2,), (change,) = primals, tangents
    s = safe_sqrt(3 * r2)
    decay = jnp.exp(-s)
    return (1 + s) * decay, -1.5 * decay * change


@jax.custom_jvp
def _matern52(r2: jax.Array) -> jax.Array:
    s = safe_sqrt(5 * r2)
    return (1 + s + s**2 / 3) * jnp.exp(-s)


@_matern52.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (r2,), (change,) = primals, tangents
    s = safe_sqrt(5 * r2)
    decay = jnp.exp(-s)
    return (1 + s + s**2 / 3) * decay, -5 / 6 * (1 + s) * decay * change


def _lengthscale(value: Any) -> jax.Array:
    if jnp.ndim(value) > 1:
        raise ValueError(f"lengthscale must be a scalar or have shape (d,), got {jnp.shape(value)}")
    return _positive("lengthscale", value)


def _positive(name: str, value: Any) -> jax.Array:
    if not isinstance(value, jax.core.Tracer):
        refuse_where(value, lambda v: ~(v > 0), f"{name} must be positive, got {value}")
    return floating(name, value)
