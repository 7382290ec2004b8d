"""Gauss-Markov processes: linear stochastic differential equations, solved between two times.

Here is what a process is, and how processes combine; `_elementary_spaces` has those made of no
others. A process is a list of states whose matrices are written out entry by entry, see
`_unrolled`.
"""

from __future__ import annotations

import abc
import functools
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import _unrolled as alg
from ._unrolled import Matrix

NEGATIVE = 100  # roundings that an eigenvalue of process noise may be below 0


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
    @abc.abstractmethod
    def slope(self) -> tuple[Any, ...]:
        """The vector that reads the derivative of $f$ from the state.

        Raises:
            ValueError: the process has none.
        """

    @property
    def size(self) -> int:
        """The number of states."""
        return len(self.readout)

    @abc.abstractmethod
    def since(self, origin: float) -> AbstractStateSpace:
        """The same process where time is counted from an origin."""

    @abc.abstractmethod
    def defined(self, time: Any) -> Any:
        """Whether the process is defined at a time; results are NaN where it is not."""

    @property
    @abc.abstractmethod
    def blocks(self) -> tuple[AbstractStateSpace, ...]:
        """Independent processes whose sum this is, in the order of their states."""


class AbstractElementarySpace(AbstractStateSpace):
    """Abstract base class of processes that are no sum, defined at all times, without an origin."""

    def since(self, origin: float) -> AbstractStateSpace:
        return self

    def defined(self, time: Any) -> Any:
        return jnp.ones(jnp.shape(time), bool)

    @property
    def blocks(self) -> tuple[AbstractStateSpace, ...]:
        return (self,)


class ScaledSpace(AbstractStateSpace):
    """A process times a number, given as the factor of its variance."""

    space: AbstractStateSpace
    factor: Float[Array, ""]

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

    def defined(self, time: Any) -> Any:
        return self.space.defined(time)

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

    def defined(self, time: Any) -> Any:
        return functools.reduce(jnp.logical_and, (space.defined(time) for space in self.spaces))

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

    def defined(self, time: Any) -> Any:
        return self.first.defined(time) & self.second.defined(time)

    @property
    def blocks(self) -> tuple[AbstractStateSpace, ...]:
        return (self,)


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
