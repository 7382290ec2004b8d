"""Covariance functions of processes in time: a damped oscillator and Wiener processes."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._core import constrained_field
from ._kernel import AbstractConstantVariance, AbstractKernel
from ._parameters import finite_scalar, scalar, valid_variance

SERIES_BELOW = 1e-2  # five terms of the series are exact to rounding below this


class SHO(AbstractConstantVariance):
    r"""Kernel of a stochastically driven, damped harmonic oscillator (SHO, as in celerite).

    $\sigma^2 e^{-a\tau} (\cos \omega\tau + \frac{a}{\omega} \sin \omega\tau)$ with
    $\omega_0 = 2\pi / p$, $a = \omega_0 / 2Q$, $\omega^2 = \omega_0^2 - a^2$; for a quality below
    1/2 the waves are hyperbolic. A quality of 1/2 is `Matern32`, large ones tend to `Cosine`.

    Args:
        period: $p$ of the oscillator without damping, positive, in units of `x`, scalar.
        quality: $Q$, about the number of periods in which a wave decays, positive.
        variance: positive, scalar.

    References:
        Foreman-Mackey, Agol, Ambikasaran and Angus (2017), "Fast and scalable Gaussian process
        modeling with applications to astronomical time series", equation 33 (with
        $S_0 = \sigma^2 / \omega_0 Q$).
    """

    period: Float[Array, ""] = constrained_field(constraints.positive)
    quality: Float[Array, ""] = constrained_field(constraints.positive)
    variance: Float[Array, ""] = constrained_field(constraints.nonnegative)

    def __init__(self, period: Any = 1.0, quality: Any = 1.0, variance: Any = 1.0):
        self.period = scalar("period", period)
        self.quality = scalar("quality", quality)
        self.variance = scalar("variance", variance)

    def amplitude(self, x: Float[Array, "n d"]) -> Float[Array, ""]:
        _check_time(x, self)
        return valid_variance(self, x.dtype)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        lag = _time(x, self)[:, None] - _time(y, self)
        frequency = 2 * jnp.pi / jnp.asarray(self.period, x.dtype)
        damping = frequency / (2 * jnp.asarray(self.quality, x.dtype))
        return self.amplitude(x) * _oscillation(lag, frequency, damping)


class AbstractFromOrigin(AbstractKernel):
    """Abstract base class of kernels of processes that are 0 at an origin in time."""

    origin: Float[Array, ""]
    variance: Float[Array, ""] = constrained_field(constraints.nonnegative)

    def __init__(self, variance: Any = 1.0, origin: Any = 0.0):
        self.variance = scalar("variance", variance)
        self.origin = finite_scalar("origin", origin)

    def since(self, x: Float[Array, "n _"]) -> Float[Array, " n"]:
        """Times since the origin, NaN before it."""
        since = _time(x, self) - jnp.asarray(self.origin, x.dtype)
        return jnp.where(since >= 0, since, jnp.nan)


class Wiener(AbstractFromOrigin):
    r"""Wiener kernel $\sigma^2 \min(t - o, t' - o)$: Brownian motion, 0 at the origin.

    Args:
        variance: $\sigma^2$, growth of the variance in a unit of time, positive, scalar.
        origin: $o$, scalar, not later than any time; before it the kernel is NaN.
    """

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return valid_variance(self, x.dtype) * _earlier(self.since(x)[:, None], self.since(y))

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return valid_variance(self, x.dtype) * self.since(x)


class IntegratedWiener(AbstractFromOrigin):
    r"""Kernel of an integrated Wiener process, 0 at the origin with its derivative.

    $\sigma^2 (m^3 / 3 + \tau m^2 / 2)$ with $m = \min(t, t') - o$ and $\tau$ the distance of times.
    With a `Linear` trend and a constant its posterior mean is a cubic smoothing spline.

    Args:
        variance: of the Wiener process that is the derivative, positive, scalar.
        origin: $o$, where function and derivative are 0, scalar, not later than any time.

    References:
        Wahba (1978), "Improper priors, spline smoothing and the problem of guarding against model
        errors in regression".
    """

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return valid_variance(self, x.dtype) * _integrated(self.since(x)[:, None], self.since(y))

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return valid_variance(self, x.dtype) * self.since(x) ** 3 / 3


# Functions with a kink in some derivative where times are equal. Rules that lead from a function to
# its derivative as a function of the same kind give all derivatives that exist there; the kink that
# is left is smoothed over distances of the size of rounding errors, so that derivatives that do not
# exist come out as large numbers.


def _plain_oscillation(lag: jax.Array, frequency: jax.Array, damping: jax.Array) -> jax.Array:
    x = damping * jnp.abs(lag)
    even, odd = damped_waves(x, (frequency**2 - damping**2) * lag**2)
    return even + x * odd


_oscillation = jax.custom_jvp(_plain_oscillation)  # as a function of the lag an even one


@functools.partial(_oscillation.defjvp, symbolic_zeros=True)
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    lag, frequency, damping = primals
    d_lag, *changes = tangents
    total = jnp.zeros_like(lag)
    if not isinstance(d_lag, SymbolicZero):  # not in a fit, where only parameters move
        size = _abs(lag, jnp.finfo(lag.dtype).eps ** 0.5 / frequency)
        odd = damped_waves(damping * size, (frequency**2 - damping**2) * lag**2)[1]
        total = total - frequency**2 * lag * odd * d_lag
    moved = [isinstance(change, SymbolicZero) for change in changes]
    if not all(moved):
        parameters = frequency, damping
        given = zip(parameters, changes, moved, strict=True)
        full = tuple(jnp.zeros_like(p) if still else change for p, change, still in given)
        fixed = functools.partial(_plain_oscillation, lag)
        total = total + jax.jvp(fixed, parameters, full)[1]
    return _oscillation(*primals), total


@jax.custom_jvp
def _abs(x: jax.Array, width: jax.Array) -> jax.Array:
    """The absolute value, its slope smoothed over a width."""
    return jnp.abs(x)


@_abs.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (x, width), (change, _) = primals, tangents
    return _abs(x, width), x / jnp.maximum(jnp.abs(x), width) * change


@jax.custom_jvp
def _earlier(s: jax.Array, t: jax.Array) -> jax.Array:
    return jnp.minimum(s, t)


@_earlier.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (s, t), (ds, dt) = primals, tangents
    limits = jnp.finfo(s.dtype)
    width = jax.lax.stop_gradient(limits.eps**0.5 * jnp.maximum(s, t) + limits.tiny)
    sign = (s - t) / jnp.maximum(jnp.abs(s - t), width)
    return _earlier(s, t), ((1 - sign) * ds + (1 + sign) * dt) / 2


@jax.custom_jvp
def _integrated(s: jax.Array, t: jax.Array) -> jax.Array:
    late = s >= t
    m, lag = jnp.where(late, t, s), jnp.where(late, s - t, t - s)
    return m**2 * (m / 3 + lag / 2)


@_integrated.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (s, t), (ds, dt) = primals, tangents
    m = _earlier(
        s, t
    )  # the covariance of the integral at s and the Wiener process at t: m s - m²/2
    return _integrated(s, t), m * ((t - m / 2) * ds + (s - m / 2) * dt)


def damped_waves(damping: jax.Array, square: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""$e^{-d} \cos \sqrt z$ and $e^{-d} \sin(\sqrt z) / \sqrt z$, hyperbolic where $z < 0$.

    Smooth across $z = 0$ and without overflow for $-z \le d^2$.

    Args:
        damping: $d \ge 0$.
        square: $z$.
    """
    near = jnp.abs(square) < SERIES_BELOW
    root = jnp.sqrt(jnp.where(near, 1.0, jnp.abs(square)))
    decay = jnp.exp(-damping)
    hyperbolic = square < 0
    growth = jnp.where(hyperbolic, root, 0.0)  # so that nothing overflows where it is not used
    slow, fast = jnp.exp(growth - damping), jnp.exp(-growth - damping)
    even = jnp.where(hyperbolic, (slow + fast) / 2, decay * jnp.cos(root))
    odd = jnp.where(hyperbolic, (slow - fast) / 2, decay * jnp.sin(root)) / root
    z = jnp.where(near, square, 0.0)
    even_near = 1 - z / 2 * (1 - z / 12 * (1 - z / 30 * (1 - z / 56)))
    odd_near = 1 - z / 6 * (1 - z / 20 * (1 - z / 42 * (1 - z / 72)))
    return jnp.where(near, decay * even_near, even), jnp.where(near, decay * odd_near, odd)


def _time(x: jax.Array, kernel: Any) -> jax.Array:
    _check_time(x, kernel)
    return x[:, 0]


def _check_time(x: jax.Array, kernel: Any) -> None:
    if x.shape[1] != 1:
        raise ValueError(
            f"{type(kernel).__name__} is a kernel of time: points must have one coordinate, got "
            f"{x.shape[1]}; choose one by .on(...)"
        )
