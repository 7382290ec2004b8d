"""Covariance functions of processes in time: a damped oscillator and Wiener processes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._core import positive_field
from ._kernel import AbstractKernel, scalar
from ._stationary import _positive, valid

SERIES_BELOW = 1e-2  # five terms of the series are exact to rounding below this


class SHO(AbstractKernel):
    r"""A harmonic oscillator that is damped and driven by white noise.

    $\sigma^2 e^{-a\tau} (\cos \omega\tau + \frac{a}{\omega} \sin \omega\tau)$ with
    $\omega_0 = 2\pi / p$, $a = \omega_0 / 2Q$, $\omega^2 = \omega_0^2 - a^2$; for a quality below
    1/2 the waves are hyperbolic. A quality of 1/2 is `Matern32`, large ones tend to `Cosine`.

    Args:
        period: $p$ of the oscillator without damping, positive, in units of `x`, scalar.
        quality: $Q$, about the number of periods after which a wave has died down, positive.
        variance: positive, scalar.

    References:
        Foreman-Mackey, Agol, Ambikasaran and Angus (2017), "Fast and scalable Gaussian process
        modeling with applications to astronomical time series", equation 33 (there with
        $S_0 = \sigma^2 / \omega_0 Q$).
    """

    period: jax.Array = positive_field()
    quality: jax.Array = positive_field()
    variance: jax.Array = positive_field()

    def __init__(self, period: Any = 1.0, quality: Any = 1.0, variance: Any = 1.0):
        self.period = scalar("period", _positive("period", period))
        self.quality = scalar("quality", _positive("quality", quality))
        self.variance = scalar("variance", variance)

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        x, y = _time(x, self), _time(y, self)
        lag = jnp.abs(x[:, None] - y)
        omega = 2 * jnp.pi / valid(self.period).astype(x.dtype)
        decay = omega / (2 * valid(self.quality).astype(x.dtype))
        even, odd = damped_waves(decay * lag, (omega**2 - decay**2) * lag**2)
        return self.variance.astype(x.dtype) * (even + decay * lag * odd)

    def variances(self, x: jax.Array) -> jax.Array:
        return jnp.full(len(x), self.variance, x.dtype)


class _FromOrigin(AbstractKernel):
    """A process that is 0 at an origin in time."""

    origin: jax.Array
    variance: jax.Array = positive_field()

    def __init__(self, variance: Any = 1.0, origin: Any = 0.0):
        self.variance, self.origin = scalar("variance", variance), jnp.asarray(origin, float)


class Wiener(_FromOrigin):
    r"""$\sigma^2 \min(t - o, t' - o)$: Brownian motion that is 0 at the origin.

    Args:
        variance: $\sigma^2$, growth of the variance in a unit of time, positive, scalar.
        origin: $o$, scalar, not later than any time; before it the kernel is NaN.
    """

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        since = _since(x, y, self)
        return self.variance.astype(x.dtype) * since

    def variances(self, x: jax.Array) -> jax.Array:
        since = _known(_time(x, self) - self.origin.astype(x.dtype))
        return self.variance.astype(x.dtype) * since


class IntegratedWiener(_FromOrigin):
    r"""The integral of a Wiener process, 0 at the origin with its derivative.

    $\sigma^2 (m^3 / 3 + \tau m^2 / 2)$ with $m = \min(t, t') - o$ and $\tau$ the distance of times.
    With a `Linear` trend and a constant its posterior mean is a cubic smoothing spline.

    Args:
        variance: of the Wiener process that is the derivative, positive, scalar.
        origin: $o$, where function and derivative are 0, scalar, not later than any time.

    References:
        Wahba (1978), "Improper priors, spline smoothing and the problem of guarding against model
        errors in regression".
    """

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        since = _since(x, y, self)
        lag = jnp.abs(_time(x, self)[:, None] - _time(y, self))
        return self.variance.astype(x.dtype) * since**2 * (since / 3 + lag / 2)

    def variances(self, x: jax.Array) -> jax.Array:
        since = _known(_time(x, self) - self.origin.astype(x.dtype))
        return self.variance.astype(x.dtype) * since**3 / 3


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
    if x.shape[1] != 1:
        raise ValueError(
            f"{type(kernel).__name__} is a kernel of time: points must have one coordinate, got "
            f"{x.shape[1]}; choose one by .on(...)"
        )
    return x[:, 0]


def _since(x: jax.Array, y: jax.Array, kernel: Any) -> jax.Array:
    first = jnp.minimum(_time(x, kernel)[:, None], _time(y, kernel))
    return _known(first - kernel.origin.astype(x.dtype))


def _known(since: jax.Array) -> jax.Array:
    return jnp.where(since >= 0, since, jnp.nan)
