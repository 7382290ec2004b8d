"""Gauss-Markov processes that others are made of.

States are scaled to comparable size, which keeps single precision usable: that of a Matérn process
holds its derivatives divided by powers of the rate.
"""

from __future__ import annotations

import functools
import math
import operator
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..kernels import damped_waves
from . import _unrolled as alg
from ._spaces import AbstractElementarySpace, AbstractStateSpace
from ._unrolled import Matrix

# Correlations of the scaled states of Matérn processes of each order, by the Lyapunov equation.
MATERN_STATES = (
    ((1,),),
    ((1, 0), (0, 1)),
    ((1, 0, -1 / 3), (0, 1 / 3, 0), (-1 / 3, 0, 1)),
    ((1, 0, -1 / 5, 0), (0, 1 / 5, 0, -1 / 5), (-1 / 5, 0, 1 / 5, 0), (0, -1 / 5, 0, 1)),
)
GAMMA_TERMS = 18
GAMMA_IS_ONE = 200.0  # from where on the gamma functions of Matérn processes are 1
STIFF = 1.2  # dampings whose two rates are apart
NOISE_TERMS = 24  # of the series of an oscillator's noise over short steps


class MaternSpace(AbstractElementarySpace):
    r"""A Matérn process of order $p + 1/2$: $(d/dt + \lambda)^{p+1} f$ is white noise.

    References:
        Hartikainen and Särkkä (2010), "Kalman filtering and smoothing solutions to temporal
        Gaussian process regression models", section 3.
    """

    order: int = eqx.field(static=True)
    rate: Float[Array, ""]
    variance: Float[Array, ""]

    @property
    def readout(self) -> tuple[int, ...]:
        return (1,) + (0,) * self.order

    @property
    def slope(self) -> tuple[Any, ...]:
        if self.order == 0:
            raise ValueError("a process with kernel Matern12 has no derivative")
        return (0, self.rate) + (0,) * (self.order - 1)

    def transition(self, step: Any) -> Matrix:
        x = self.rate * step
        decay = jnp.exp(-x)
        powers = _nilpotent_powers(self.order)
        entries = np.stack(powers, axis=-1)
        return tuple(tuple(alg.times(decay, _horner(c, x)) for c in row) for row in entries)

    def marginal(self, time: Any) -> Matrix:
        return alg.scale_symmetric(self.variance, MATERN_STATES[self.order])

    def noise(self, time: Any, step: Any) -> Matrix:
        d = self.order + 1
        gammas = lower_gammas(2 * d - 1, 2 * self.rate * step)
        weights = _noise_weights(self.order)

        def entry(i: int, j: int) -> Any:
            total: Any = 0
            for m in range(1, 2 * d):
                total = alg.plus(total, alg.times(_number(weights[i, j, m]), gammas[m]))
            return alg.times(self.variance, total)

        return alg.symmetric([[entry(i, j) for j in range(i + 1)] for i in range(d)])


class WaveSpace(AbstractElementarySpace):
    """A wave of unknown amplitude and phase: a vector that turns at a known frequency."""

    frequency: Float[Array, ""]
    variance: Float[Array, ""]

    @property
    def readout(self) -> tuple[int, ...]:
        return (1, 0)

    @property
    def slope(self) -> tuple[Any, ...]:
        return (0, -self.frequency)

    def transition(self, step: Any) -> Matrix:
        angle = self.frequency * step
        cos, sin = jnp.cos(angle), jnp.sin(angle)
        return ((cos, -sin), (sin, cos))

    def marginal(self, time: Any) -> Matrix:
        return alg.scale_symmetric(self.variance, alg.identity(2))

    def noise(self, time: Any, step: Any) -> Matrix:
        return alg.zeros(2)


class OscillatorSpace(AbstractElementarySpace):
    """A damped oscillator driven by white noise: value, and velocity over frequency."""

    frequency: Float[Array, ""]
    quality: Float[Array, ""]
    variance: Float[Array, ""]

    @property
    def readout(self) -> tuple[int, ...]:
        return (1, 0)

    @property
    def slope(self) -> tuple[Any, ...]:
        return (0, self.frequency)

    def transition(self, step: Any) -> Matrix:
        damping, even, odd = self._waves(step)
        return ((even + damping * odd, odd), (-odd, even - damping * odd))

    def marginal(self, time: Any) -> Matrix:
        return alg.scale_symmetric(self.variance, alg.identity(2))

    def noise(self, time: Any, step: Any) -> Matrix:
        # What is left of the identity, with its cancelling terms cancelled; of the value, which a
        # short step changes by its cube only, a series.
        damping, even, odd = self._waves(step)
        x = self.frequency * step
        lost = -jnp.expm1(-2 * damping * x)
        far = lost - 2 * damping * odd * (even + damping * odd)
        far = jnp.where(damping > STIFF, _stiff_noise(damping, x), far)
        short = x * (1 + damping) < 1
        value = jnp.where(short, _short_noise(damping, jnp.where(short, x, 0.0)), far)
        velocity = lost + 2 * damping * odd * (even - damping * odd)
        rows = ((value,), (2 * damping * odd**2, velocity))
        return alg.scale_symmetric(self.variance, alg.symmetric(rows))

    def _waves(self, step: Any) -> tuple[Any, Any, Any]:
        """Damping, and the solutions of the equation of motion that start as 1 and as the phase."""
        damping = 0.5 / self.quality
        x = self.frequency * step
        even, odd = damped_waves(damping * x, (1 - damping**2) * x**2)
        return damping, even, x * odd


class ConstantSpace(AbstractElementarySpace):
    """A constant."""

    variance: Float[Array, ""]

    @property
    def readout(self) -> tuple[int, ...]:
        return (1,)

    @property
    def slope(self) -> tuple[Any, ...]:
        return (0,)

    def transition(self, step: Any) -> Matrix:
        return alg.identity(1)

    def marginal(self, time: Any) -> Matrix:
        return ((self.variance,),)

    def noise(self, time: Any, step: Any) -> Matrix:
        return alg.zeros(1)


class LineSpace(AbstractStateSpace):
    """A line through 0 at the origin: value and slope."""

    origin: Float[Array, ""]
    variance: Float[Array, ""]

    @property
    def readout(self) -> tuple[int, ...]:
        return (1, 0)

    @property
    def slope(self) -> tuple[Any, ...]:
        return (0, 1)

    def transition(self, step: Any) -> Matrix:
        return ((1, step), (0, 1))

    def marginal(self, time: Any) -> Matrix:
        since = time - self.origin
        return alg.scale_symmetric(self.variance, ((since**2, since), (since, 1)))

    def noise(self, time: Any, step: Any) -> Matrix:
        return alg.zeros(2)

    def since(self, origin: float) -> AbstractStateSpace:
        return eqx.tree_at(lambda space: space.origin, self, _earlier(self.origin, origin))

    def defined(self, time: Any) -> Any:
        return jnp.ones(jnp.shape(time), bool)

    @property
    def blocks(self) -> tuple[AbstractStateSpace, ...]:
        return (self,)


class WienerSpace(AbstractStateSpace):
    """A Wiener process from the origin on (order 0), or its integral (order 1).

    Before the origin the state is 0, so that what comes later does not feel it; there the function
    itself is not defined, see `defined`.
    """

    order: int = eqx.field(static=True)
    origin: Float[Array, ""]
    variance: Float[Array, ""]

    @property
    def readout(self) -> tuple[int, ...]:
        return (1,) + (0,) * self.order

    @property
    def slope(self) -> tuple[Any, ...]:
        if self.order == 0:
            raise ValueError("a process with kernel Wiener has no derivative")
        return (0, 1)

    def transition(self, step: Any) -> Matrix:
        return alg.identity(1) if self.order == 0 else ((1, step), (0, 1))

    def marginal(self, time: Any) -> Matrix:
        return self._grown(jnp.maximum(time - self.origin, 0.0))

    def noise(self, time: Any, step: Any) -> Matrix:
        since = time - self.origin
        # Before the origin there is nothing; a step across it grows from there on.
        return self._grown(jnp.where(since >= 0, step, jnp.maximum(since + step, 0.0)))

    def defined(self, time: Any) -> Any:
        return time >= self.origin

    def _grown(self, step: Any) -> Matrix:
        """The covariance a time after the state was 0."""
        if self.order == 0:
            return ((self.variance * step,),)
        half = step**2 / 2
        return alg.scale_symmetric(self.variance, ((step**3 / 3, half), (half, step)))

    def since(self, origin: float) -> AbstractStateSpace:
        return eqx.tree_at(lambda space: space.origin, self, _earlier(self.origin, origin))

    @property
    def blocks(self) -> tuple[AbstractStateSpace, ...]:
        return (self,)


def _short_noise(damping: Any, x: Any) -> Any:
    r"""The noise of an oscillator's value: $4 d \int_0^x e^{-2 d s} (\sin b s / b)^2 ds$.

    Of damping $d$ and $b^2 = 1 - d^2$, over a short phase $x$. Times $e^{2 d x}$, it solves a
    linear equation of first order, whose series has no alternating terms of the damping.
    """
    loss, turn = 2 * damping * x, -4 * (1 - damping**2) * x**2
    driven, last, total = 1.0, 0.0, 0.0  # coefficients of the squared sine, of the solution; sum
    for n in range(2, NOISE_TERMS):
        last = loss / (n + 1) * last
        if n % 2 == 0:
            last = last + driven / (n + 1)
            driven = driven * turn / ((n + 1) * (n + 2))
        total = total + last
    return 2 * loss * x**2 * jnp.exp(-loss) * total


def _stiff_noise(damping: Any, x: Any) -> Any:
    """The same of a damping above `STIFF`, by its two rates, whose product is 1."""
    square = jnp.maximum(damping**2, STIFF**2) - 1
    fast = damping + jnp.sqrt(square)
    slow_part = -fast / 2 * jnp.expm1(-2 * x / fast)
    fast_part = -jnp.expm1(-2 * x * fast) / (2 * fast)
    return damping / square * (slow_part + fast_part + jnp.expm1(-2 * damping * x) / damping)


def lower_gammas(most: int, z: Any) -> list[Any]:
    r"""The regularised lower incomplete gamma functions $P(m, z)$ of $z \ge 0$.

    To full relative accuracy also near 0, where they are about $z^m / m!$: the last by its series,
    the others by $P(m, z) = P(m + 1, z) + z^m e^{-z} / m!$, whose terms are positive.

    Args:
        most: the largest $m$, an integer.
        z: the argument.

    Returns:
        For $m$ from 0 (which is 1) to `most`.
    """
    z = jnp.minimum(z, GAMMA_IS_ONE)  # beyond, powers overflow
    small = z < most + 1
    near = jnp.where(small, z, 0.0)
    series: Any = jnp.ones_like(near)
    for j in range(GAMMA_TERMS + 3 * most, 0, -1):
        series = 1 + near / (most + j) * series
    densities = [jnp.exp(-z)]
    for m in range(1, most + 1):
        densities.append(densities[-1] * z / m)
    beyond = 1 - functools.reduce(operator.add, densities[:-1])
    gammas = [jnp.where(small, densities[-1] * series, beyond)]
    for density in densities[-2::-1]:
        gammas.append(gammas[-1] + density)
    return gammas[::-1]


def _nilpotent_powers(order: int) -> list[np.ndarray]:
    """The powers of $F + I$, over their factorials, where $F$ is the companion matrix of rate 1."""
    d = order + 1
    companion = np.eye(d, k=1)
    companion[-1] -= [math.comb(d, j) for j in range(d)]
    shifted, powers = companion + np.eye(d), [np.eye(d)]
    for k in range(1, d):
        powers.append(powers[-1] @ shifted / k)
    return powers


def _noise_weights(order: int) -> np.ndarray:
    """Coefficients of the incomplete gamma functions in the noise of unit rate and variance."""
    d = order + 1
    columns = [power[:, -1] for power in _nilpotent_powers(order)]
    density = math.factorial(order) ** 2 / math.factorial(2 * order) * 2 ** (2 * order + 1)
    weights = np.zeros((d, d, 2 * d))
    for a, left in enumerate(columns):
        for b, right in enumerate(columns):
            m = a + b + 1
            factor = density * math.factorial(a + b) / 2**m
            weights[:, :, m] += factor * np.outer(left, right)
    return weights


def _horner(coefficients: np.ndarray, x: Any) -> Any:
    total: Any = 0
    for c in coefficients[::-1]:
        total = alg.plus(alg.times(total, x), _number(c))
    return total


def _earlier(time: jax.Array, origin: float) -> Any:
    if isinstance(time, jax.core.Tracer):
        return time - origin
    return np.float64(time) - origin  # whatever the precision of what follows


def _number(value: Any) -> float | int:
    """A Python number, an integer if it is one, so that 0 and 1 are seen."""
    value = float(value)
    return round(value) if abs(value - round(value)) < 1e-12 else value
