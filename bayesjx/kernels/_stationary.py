"""Stationary covariance functions: RBF, rational quadratic, Matérn, periodic, cosine, white."""

from __future__ import annotations

import abc
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._core import constrained_field
from ._distances import by_differences, common_offset, matern, squared_distances
from ._kernel import AbstractConstantVariance
from ._parameters import along, check_coordinates, of_coordinates, scalar, valid_variance


class AbstractStationary(AbstractConstantVariance):
    r"""Abstract base class of kernels $\sigma^2 f(r^2)$ of the distance $r = \|(x - x') / \ell\|$.

    Written as a function of $r^2$, so that derivatives are right where points coincide.
    """

    lengthscale: Float[Array, "*d"] = constrained_field(constraints.positive)
    variance: Float[Array, ""] = constrained_field(constraints.nonnegative)

    def __init__(self, lengthscale: Any = 1.0, variance: Any = 1.0):
        self.lengthscale = of_coordinates("lengthscale", lengthscale)
        self.variance = scalar("variance", variance)

    @abc.abstractmethod
    def of_square(self, r2: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """The correlation at squared scaled distances."""

    def amplitude(self, x: Float[Array, "n d"]) -> Float[Array, ""]:
        check_coordinates(self, "lengthscale", x.shape[1])
        return valid_variance(self, x.dtype)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        r2 = squared_distances(x, y, along(self, "lengthscale", x))
        return self.amplitude(x) * self.of_square(r2)


class RBF(AbstractStationary):
    r"""Squared exponential (RBF) kernel $\sigma^2 e^{-r^2 / 2}$: infinitely smooth.

    Args:
        lengthscale: positive, scalar or one for each coordinate (ARD), shape `(d,)`.
        variance: positive, scalar.
    """

    def of_square(self, r2: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return jnp.exp(-0.5 * r2)


class RationalQuadratic(AbstractConstantVariance):
    r"""Rational quadratic kernel $\sigma^2 (1 + r^2 / 2\alpha)^{-\alpha}$: a mixture of RBFs.

    Args:
        lengthscale: positive, scalar or shape `(d,)`.
        alpha: positive, scalar; the smaller, the wider the mixture.
        variance: positive, scalar.
    """

    lengthscale: Float[Array, "*d"] = constrained_field(constraints.positive)
    alpha: Float[Array, ""] = constrained_field(constraints.positive)
    variance: Float[Array, ""] = constrained_field(constraints.nonnegative)

    def __init__(self, lengthscale: Any = 1.0, alpha: Any = 1.0, variance: Any = 1.0):
        self.lengthscale = of_coordinates("lengthscale", lengthscale)
        self.alpha = scalar("alpha", alpha)
        self.variance = scalar("variance", variance)

    def amplitude(self, x: Float[Array, "n d"]) -> Float[Array, ""]:
        check_coordinates(self, "lengthscale", x.shape[1])
        return valid_variance(self, x.dtype)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        alpha = jnp.asarray(self.alpha, x.dtype)
        r2 = squared_distances(x, y, along(self, "lengthscale", x))
        return self.amplitude(x) * jnp.exp(-alpha * jnp.log1p(r2 / (2 * alpha)))


class Matern12(AbstractStationary):
    r"""Matérn-1/2 kernel $\sigma^2 e^{-r}$: the Ornstein-Uhlenbeck process, continuous.

    Args:
        lengthscale: positive, scalar or shape `(d,)`.
        variance: positive, scalar.
    """

    def of_square(self, r2: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return matern(0, r2)


class Matern32(AbstractStationary):
    r"""Matérn-3/2 kernel $\sigma^2 (1 + \sqrt3 r) e^{-\sqrt3 r}$: once differentiable.

    Args:
        lengthscale: positive, scalar or shape `(d,)`.
        variance: positive, scalar.
    """

    def of_square(self, r2: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return matern(1, 3 * r2)


class Matern52(AbstractStationary):
    r"""Matérn-5/2 kernel $\sigma^2 (1 + \sqrt5 r + 5 r^2 / 3) e^{-\sqrt5 r}$: twice differentiable.

    Args:
        lengthscale: positive, scalar or shape `(d,)`.
        variance: positive, scalar.
    """

    def of_square(self, r2: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return matern(2, 5 * r2)


class Matern72(AbstractStationary):
    r"""Matérn-7/2 kernel $\sigma^2 (1 + s + 2 s^2 / 5 + s^3 / 15) e^{-s}$: differentiable thrice.

    With $s = \sqrt7 r$.

    Args:
        lengthscale: positive, scalar or shape `(d,)`.
        variance: positive, scalar.
    """

    def of_square(self, r2: Float[Array, "*n"]) -> Float[Array, "*n"]:
        return matern(3, 7 * r2)


class Periodic(AbstractConstantVariance):
    r"""Periodic kernel $\sigma^2 \exp(-2 \sum_j \sin^2(\pi (x_j - x'_j) / p_j) / \ell_j^2)$.

    `RBF` of points on a circle of radius 1, once round in each period.

    Args:
        lengthscale: positive, in units of the radius of that circle, scalar or `(d,)`.
        period: positive, in units of `x`, scalar or `(d,)`.
        variance: positive, scalar.

    References:
        MacKay (1998), "Introduction to Gaussian processes".
    """

    lengthscale: Float[Array, "*d"] = constrained_field(constraints.positive)
    period: Float[Array, "*p"] = constrained_field(constraints.positive)
    variance: Float[Array, ""] = constrained_field(constraints.nonnegative)

    def __init__(self, lengthscale: Any = 1.0, period: Any = 1.0, variance: Any = 1.0):
        self.lengthscale = of_coordinates("lengthscale", lengthscale)
        self.period = of_coordinates("period", period)
        self.variance = scalar("variance", variance)

    def amplitude(self, x: Float[Array, "n d"]) -> Float[Array, ""]:
        check_coordinates(self, "period", x.shape[1])
        check_coordinates(self, "lengthscale", x.shape[1])
        return valid_variance(self, x.dtype)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        # sin² of half an angle is a quarter of the squared chord. Differences of sines and cosines
        # lose no digits to a small lengthscale, as 1 - cos would.
        period, scale = along(self, "period", x), along(self, "lengthscale", x)
        offset = common_offset(x)

        def on_circles(z: jax.Array) -> jax.Array:
            angle = 2 * jnp.pi * _turns(z, offset, period)
            return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=1)

        circles = on_circles(x)
        scale = jnp.concatenate([scale, scale]) if scale.ndim else scale
        r2 = by_differences(circles, circles if y is x else on_circles(y), scale)
        return self.amplitude(x) * jnp.exp(-0.5 * r2)


class Cosine(AbstractConstantVariance):
    r"""Cosine kernel $\sigma^2 \cos(2 \pi \sum_j (x_j - x'_j) / p_j)$: a wave of random phase.

    Args:
        period: positive, in units of `x`, scalar or `(d,)`.
        variance: positive, scalar.
    """

    period: Float[Array, "*p"] = constrained_field(constraints.positive)
    variance: Float[Array, ""] = constrained_field(constraints.nonnegative)

    def __init__(self, period: Any = 1.0, variance: Any = 1.0):
        self.period = of_coordinates("period", period)
        self.variance = scalar("variance", variance)

    def amplitude(self, x: Float[Array, "n d"]) -> Float[Array, ""]:
        check_coordinates(self, "period", x.shape[1])
        return valid_variance(self, x.dtype)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        period, offset = along(self, "period", x), common_offset(x)
        turns_x, turns_y = (jnp.sum(_turns(z, offset, period), axis=1) for z in (x, y))
        lag = turns_x[:, None] - turns_y
        return self.amplitude(x) * jnp.cos(2 * jnp.pi * lag)


class White(AbstractConstantVariance):
    r"""White noise kernel: $\sigma^2$ where points are equal, else 0.

    A function of the point: its values at repeated points are equal, so that an observation of one
    is an observation of the other. Noise that is independent in each observation is that of
    `gp.GP`. Points are equal if all coordinates are, to the last bit. Derivatives in the points are
    0.

    Args:
        variance: not negative, scalar.

    References:
        Matheron (1963), "Principles of geostatistics": the nugget effect.
    """

    variance: Float[Array, ""] = constrained_field(constraints.nonnegative)

    def __init__(self, variance: Any = 1.0):
        self.variance = scalar("variance", variance)

    def amplitude(self, x: Float[Array, "n d"]) -> Float[Array, ""]:
        return valid_variance(self, x.dtype)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        equal = jnp.ones((len(x), len(y)), bool)
        for d in range(x.shape[1]):  # no (n, m, d) array
            equal &= x[:, d][:, None] == y[:, d]
        scale = self.amplitude(x)
        return jnp.where(equal, scale, jnp.where(jnp.isnan(scale), scale, 0.0))


@jax.custom_jvp
def _turns(x: jax.Array, offset: jax.Array, period: jax.Array) -> jax.Array:
    """Periods since the last whole one, in -1 to 1, exactly: a remainder has no rounding error.

    The derivative in the period is that of `(x - offset) / period`. An offset in common turns all
    points by the same angle, and left in would cost digits of that derivative.
    """
    return jax.lax.rem(x, jnp.broadcast_to(period, x.shape)) / period


@_turns.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x, offset, period), (dx, _, d_period) = primals, tangents
    return _turns(x, offset, period), (dx - (x - offset) / period * d_period) / period
