"""Gauss-Markov processes: linear stochastic differential equations, solved between two times.

Every process here is a list of states whose matrices are written out entry by entry, see
`_algebra`. States are scaled to comparable size, which keeps single precision usable: that of a
Matérn process holds its derivatives divided by powers of the rate.
"""

from __future__ import annotations

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from ..kernels._temporal import damped_waves
from . import _algebra as alg
from ._algebra import Matrix

# Correlations of the scaled states of Matérn processes of each order, by the Lyapunov equation.
MATERN_STATES = (
    ((1,),),
    ((1, 0), (0, 1)),
    ((1, 0, -1 / 3), (0, 1 / 3, 0), (-1 / 3, 0, 1)),
    ((1, 0, -1 / 5, 0), (0, 1 / 5, 0, -1 / 5), (-1 / 5, 0, 1 / 5, 0), (0, -1 / 5, 0, 1)),
)
GAMMA_TERMS = 18
NEGATIVE = 100  # roundings that an eigenvalue of process noise may be below 0
NODES = 10  # of Gauss-Legendre rules over short steps


class AbstractStateSpace(eqx.Module):
    r"""A process $f(t) = h^\top x(t)$ with $x(t') = A x(t) + \epsilon$, $\epsilon \sim N(0, Q)$.

    Matrices are tuples of rows of scalars; entries that do not depend on time or parameters are
    Python numbers. Times and steps may have any shape, which is that of the entries.
    """

    @property
    @abc.abstractmethod
    def readout(self) -> tuple[int, ...]:
        """The vector $h$, of numbers."""

    @abc.abstractmethod
    def transition(self, step: Any) -> Matrix:
        """The matrix $A$ of a step of time, which is not negative."""

    @abc.abstractmethod
    def marginal(self, time: Any) -> Matrix:
        """The covariance of the state at a time; of a stationary process, the same at all."""

    @abc.abstractmethod
    def noise(self, time: Any, step: Any) -> Matrix:
        r"""The covariance $Q$ that a step from a time on adds, to full relative accuracy.

        It equals $\Pi(t') - A \Pi(t) A^\top$, which loses all digits for short steps.
        """

    @property
    def slope(self) -> tuple[Any, ...]:
        """The vector that reads the derivative of $f$ from the state.

        Raises:
            ValueError: the process has none.
        """
        raise ValueError(f"{type(self).__name__}: this process has no derivative")

    @property
    def size(self) -> int:
        """The number of states."""
        return len(self.readout)

    def since(self, origin: float) -> AbstractStateSpace:
        """The same process where time is counted from an origin."""
        return self

    @property
    def blocks(self) -> tuple[AbstractStateSpace, ...]:
        """Independent processes whose sum this is, in the order of their states."""
        return (self,)


class MaternSpace(AbstractStateSpace):
    r"""A Matérn process of order $p + 1/2$: $(d/dt + \lambda)^{p+1} f$ is white noise.

    References:
        Hartikainen and Särkkä (2010), "Kalman filtering and smoothing solutions to temporal
        Gaussian process regression models", section 3.
    """

    order: int = eqx.field(static=True)
    rate: jax.Array
    variance: jax.Array

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
        d, z = self.order + 1, 2 * self.rate * step
        gammas = [None, *(lower_gamma(m, z) for m in range(1, 2 * d))]
        weights = _noise_weights(self.order)

        def entry(i: int, j: int) -> Any:
            total: Any = 0
            for m in range(1, 2 * d):
                total = alg.plus(total, alg.times(_number(weights[i, j, m]), gammas[m]))
            return alg.times(self.variance, total)

        return alg.symmetric([[entry(i, j) for j in range(i + 1)] for i in range(d)])


class WaveSpace(AbstractStateSpace):
    """A wave of unknown amplitude and phase: a vector that turns at a known frequency."""

    frequency: jax.Array
    variance: jax.Array

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


class OscillatorSpace(AbstractStateSpace):
    """A damped oscillator driven by white noise: value, and velocity over frequency."""

    frequency: jax.Array
    quality: jax.Array
    variance: jax.Array

    @property
    def readout(self) -> tuple[int, ...]:
        return (1, 0)

    @property
    def slope(self) -> tuple[Any, ...]:
        return (0, self.frequency)

    def transition(self, step: Any) -> Matrix:
        damping = 0.5 / self.quality
        x = self.frequency * step
        even, odd = damped_waves(damping * x, (1 - damping**2) * x**2)
        return ((even + damping * x * odd, x * odd), (-x * odd, even - damping * x * odd))

    def marginal(self, time: Any) -> Matrix:
        return alg.scale_symmetric(self.variance, alg.identity(2))

    def noise(self, time: Any, step: Any) -> Matrix:
        # The driving noise enters the velocity; a short step is integrated, a long one subtracted.
        short = self.frequency * step * (1 + 0.5 / self.quality) < 1
        brief = jnp.where(short, step, 0.0)
        nodes, weights = np.polynomial.legendre.leggauss(NODES)
        total: Matrix = alg.zeros(2)
        for node, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
            column = tuple(row[1] for row in self.transition(float(node) * brief))
            total = alg.with_rank_one(total, column, float(weight))
        pace = 2 * self.variance * self.frequency / self.quality * brief
        a = self.transition(jnp.where(short, 0.0, step))
        one = alg.identity(2)
        rest = alg.subtract_symmetric(one, alg.congruence(a, one))
        rows = [
            [
                jnp.where(short, pace * total[i][j], self.variance * jnp.asarray(rest[i][j]))
                for j in range(i + 1)
            ]
            for i in range(2)
        ]
        return alg.symmetric(rows)


class ConstantSpace(AbstractStateSpace):
    """A constant."""

    variance: jax.Array

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

    origin: jax.Array
    variance: jax.Array

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


class WienerSpace(AbstractStateSpace):
    """A Wiener process from the origin on (order 0), or its integral (order 1)."""

    order: int = eqx.field(static=True)
    origin: jax.Array
    variance: jax.Array

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
        since = time - self.origin
        return self.noise(time, jnp.where(since >= 0, since, jnp.nan))

    def noise(self, time: Any, step: Any) -> Matrix:
        if self.order == 0:
            return ((self.variance * step,),)
        half = step**2 / 2
        return alg.scale_symmetric(self.variance, ((step**3 / 3, half), (half, step)))

    def since(self, origin: float) -> AbstractStateSpace:
        return eqx.tree_at(lambda space: space.origin, self, _earlier(self.origin, origin))


class ScaledSpace(AbstractStateSpace):
    """A process times a number, given as the factor of its variance."""

    space: AbstractStateSpace
    factor: jax.Array

    @property
    def readout(self) -> tuple[int, ...]:
        return self.space.readout

    @property
    def slope(self) -> tuple[Any, ...]:
        return self.space.slope

    def transition(self, step: Any) -> Matrix:
        return self.space.transition(step)

    def marginal(self, time: Any) -> Matrix:
        return alg.scale_symmetric(self.factor, self.space.marginal(time))

    def noise(self, time: Any, step: Any) -> Matrix:
        return alg.scale_symmetric(self.factor, self.space.noise(time, step))

    def since(self, origin: float) -> AbstractStateSpace:
        return ScaledSpace(self.space.since(origin), self.factor)

    @property
    def blocks(self) -> tuple[AbstractStateSpace, ...]:
        return tuple(ScaledSpace(block, self.factor) for block in self.space.blocks)


class SumSpace(AbstractStateSpace):
    """The sum of independent processes, one after another in the state."""

    spaces: tuple[AbstractStateSpace, ...]

    @property
    def readout(self) -> tuple[int, ...]:
        return tuple(h for space in self.spaces for h in space.readout)

    @property
    def slope(self) -> tuple[Any, ...]:
        return tuple(h for space in self.spaces for h in space.slope)

    def transition(self, step: Any) -> Matrix:
        return alg.block_diagonal(*(space.transition(step) for space in self.spaces))

    def marginal(self, time: Any) -> Matrix:
        return alg.block_diagonal(*(space.marginal(time) for space in self.spaces))

    def noise(self, time: Any, step: Any) -> Matrix:
        return alg.block_diagonal(*(space.noise(time, step) for space in self.spaces))

    def since(self, origin: float) -> AbstractStateSpace:
        return SumSpace(tuple(space.since(origin) for space in self.spaces))

    @property
    def blocks(self) -> tuple[AbstractStateSpace, ...]:
        return tuple(block for space in self.spaces for block in space.blocks)


class ProductSpace(AbstractStateSpace):
    """The product of independent processes: the Kronecker product of their states."""

    first: AbstractStateSpace
    second: AbstractStateSpace

    @property
    def readout(self) -> tuple[int, ...]:
        return tuple(alg.times(a, b) for a in self.first.readout for b in self.second.readout)

    @property
    def slope(self) -> tuple[Any, ...]:
        first, second = self.first, self.second
        terms = ((first.slope, second.readout), (first.readout, second.slope))
        left, right = (tuple(alg.times(a, b) for a in x for b in y) for x, y in terms)
        return alg.add(left, right)

    def transition(self, step: Any) -> Matrix:
        return alg.kron(self.first.transition(step), self.second.transition(step))

    def marginal(self, time: Any) -> Matrix:
        return alg.kron(self.first.marginal(time), self.second.marginal(time))

    def noise(self, time: Any, step: Any) -> Matrix:
        # Sums of positive semi-definite terms, so it is as accurate as its factors.
        q1, q2 = self.first.noise(time, step), self.second.noise(time, step)
        moved = [
            alg.congruence(space.transition(step), space.marginal(time))
            for space in (self.first, self.second)
        ]
        mixed = alg.add_symmetric(alg.kron(q1, moved[1]), alg.kron(moved[0], q2))
        return alg.add_symmetric(alg.kron(q1, q2), mixed)

    def since(self, origin: float) -> AbstractStateSpace:
        return ProductSpace(self.first.since(origin), self.second.since(origin))


def check_noise(space: AbstractStateSpace, times: Any, steps: Any) -> None:
    """Refuse process noise that is known and not positive semi-definite.

    Raises:
        ValueError: an eigenvalue is negative, more than rounding would make it.
    """
    if any(isinstance(a, jax.core.Tracer) for a in jax.tree.leaves((space, times, steps))):
        return
    with jax.ensure_compile_time_eval():
        noise = alg.stacked(space.noise(times, steps), jnp.shape(steps), jnp.result_type(steps))
    matrices = np.asarray(noise, np.float64)
    eigenvalues = np.linalg.eigvalsh(matrices)
    scale = np.max(np.abs(matrices), axis=(1, 2))
    bad = eigenvalues[:, 0] < -NEGATIVE * np.finfo(noise.dtype).eps * scale
    if np.any(bad) or not np.all(np.isfinite(matrices)):
        i = int(np.argmax(bad)) if np.any(bad) else 0
        raise ValueError(
            f"{type(space).__name__}: the process noise of a step of {float(steps[i]):g} has the "
            f"eigenvalue {eigenvalues[i, 0]:.3g}; it must be positive semi-definite"
        )


def lower_gamma(m: int, z: Any) -> Any:
    r"""The regularised lower incomplete gamma function $P(m, z)$ of an integer, for $z \ge 0$.

    To full relative accuracy also near 0, where it is about $z^m / m!$.
    """
    small = z < m + 1
    near = jnp.where(small, z, 0.0)
    series: Any = jnp.ones_like(near)
    for j in range(GAMMA_TERMS + 3 * m, 0, -1):
        series = 1 + near / (m + j) * series
    below = jnp.exp(-near) * near**m / math.factorial(m) * series
    far = jnp.where(small, m + 1.0, z)
    tail: Any = jnp.ones_like(far)
    for j in range(m - 1, 0, -1):
        tail = 1 + far / j * tail
    return jnp.where(small, below, 1 - jnp.exp(-far) * tail)


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
