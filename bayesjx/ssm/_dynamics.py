"""How states move from one time to the next: what filters take from a state space."""

from __future__ import annotations

import abc
import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from . import _unrolled as unrolled
from ._algebra import AbstractAlgebra, UNROLLED
from ._dense_algebra import DENSE
from ._spaces import AbstractStateSpace
from ._steps import Adjoint, Moments, predict, Transition


class AbstractDynamics(eqx.Module):
    """The transitions of a series, with the algebra that they are written in."""

    @property
    @abc.abstractmethod
    def algebra(self) -> AbstractAlgebra:
        """Of the states."""

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Number of states."""

    @property
    @abc.abstractmethod
    def like(self) -> jax.Array:
        """An array of the shape and type of a number of each lane."""

    @property
    @abc.abstractmethod
    def inputs(self) -> Any:
        """What a loop over steps takes one by one, arrays with a leading axis of steps."""

    @property
    @abc.abstractmethod
    def readout(self) -> Any:
        """What reads the function from the state, if observations do not say so."""

    @abc.abstractmethod
    def start(self) -> Moments:
        """The state before the first step."""

    @abc.abstractmethod
    def transition(self, inputs: Any) -> Transition:
        """The transition of one step."""

    @abc.abstractmethod
    def in_lanes(self, lanes: int) -> AbstractDynamics:
        """The series cut into parts side by side, as a last axis."""

    @abc.abstractmethod
    def gradient(self, inputs: Any, earlier: Moments, adjoint: Adjoint) -> tuple[Any, Any]:
        """Derivatives of the log density through one prediction.

        Args:
            inputs: of the step.
            earlier: the state that is predicted from.
            adjoint: of the predicted state.

        Returns:
            What is summed over steps, and what is kept of each.
        """

    @abc.abstractmethod
    def with_lanes(self) -> AbstractDynamics:
        """Itself, with parameters that have lanes, so that derivatives have them."""

    @abc.abstractmethod
    def gradient_start(self) -> Any:
        """Zeros for what is summed over steps."""

    @abc.abstractmethod
    def whole_gradient(self, summed: Any, kept: Any, first: Adjoint) -> AbstractDynamics:
        """Derivatives in all arrays, from those of the steps, and the adjoint of the first state.

        `self` is not in lanes, and `kept` is in the order of time.
        """


class SpaceDynamics(AbstractDynamics):
    """Transitions that a state space computes inside of the loop, written out entry by entry.

    Attributes:
        space: the state space, whose arrays are scalars.
        time: before each step, `(n,)` or `(steps, lanes)`.
        step: time to the observation, of that shape.
        precise: add the process noise itself, for single precision, and not what keeps the
            marginal distribution as it is, which is cheaper.
    """

    space: AbstractStateSpace
    time: Float[Array, ...]
    step: Float[Array, ...]
    precise: bool = eqx.field(static=True)

    @property
    def algebra(self) -> AbstractAlgebra:
        return UNROLLED

    @property
    def size(self) -> int:
        return self.space.size

    @property
    def like(self) -> jax.Array:
        return self.step[0]

    @property
    def inputs(self) -> Any:
        return self.time, self.step

    @property
    def readout(self) -> Any:
        return self.space.readout

    def start(self) -> Moments:
        return Moments((0,) * self.size, self.space.marginal(self.time[0]))

    def transition(self, inputs: Any, matrix: Any = None) -> Transition:
        return _transition(self.space, *inputs, self.precise, matrix)

    def in_lanes(self, lanes: int) -> SpaceDynamics:
        end = self.time[-1] + self.step[-1]
        time, step = in_lanes(self.time, lanes, end), in_lanes(self.step, lanes, 0.0)
        return SpaceDynamics(self.space, time, step, self.precise)

    def gradient(self, inputs: Any, earlier: Moments, adjoint: Adjoint) -> tuple[Any, Any]:
        time, step = inputs
        alg = self.algebra

        def prediction(space: AbstractStateSpace, time: Any, step: Any) -> Any:
            state = predict(alg, _transition(space, time, step, self.precise), earlier)
            return alg.filled((state.mean, alg.packed(state.cov)), step)

        cotangent = alg.filled((adjoint.gradient, _cov_cotangent(adjoint)), step)
        in_space, in_time, in_step = jax.vjp(prediction, self.space, time, step)[1](cotangent)
        return in_space, (in_time, in_step)

    def with_lanes(self) -> SpaceDynamics:
        shape = self.like.shape
        space = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape), self.space)
        return SpaceDynamics(space, self.time, self.step, self.precise)

    def gradient_start(self) -> Any:
        return jax.tree.map(jnp.zeros_like, self.with_lanes().space)

    def whole_gradient(self, summed: Any, kept: Any, first: Adjoint) -> SpaceDynamics:
        """Derivatives come through the prior distribution of the first state, too."""
        alg, like = self.algebra, self.like
        adjoint = jax.tree.map(lambda leaf: leaf[0] if jnp.ndim(leaf) else leaf, first)

        def prior(space: AbstractStateSpace, time: jax.Array) -> Any:
            return alg.filled(alg.packed(space.marginal(time)), like)

        cotangent = alg.filled(_cov_cotangent(adjoint), like)
        in_space, in_time = jax.vjp(prior, self.space, self.time[0])[1](cotangent)
        in_space = jax.tree.map(lambda lanes, one: jnp.sum(lanes) + one, summed, in_space)
        return SpaceDynamics(in_space, kept[0].at[0].add(in_time), kept[1], self.precise)


def _transition(
    space: AbstractStateSpace, time: Any, step: Any, precise: bool, matrix: Any = None
) -> Transition:
    a = space.transition(step) if matrix is None else matrix
    if precise:
        return Transition(a, None, space.noise(time, step))
    return Transition(a, space.marginal(time), space.marginal(time + step))


def _cov_cotangent(adjoint: Adjoint) -> Any:
    """Derivatives in the lower triangle of a covariance; an entry off the diagonal is two."""
    r, curvature = adjoint
    entries = [
        [(r[i] * r[j] - curvature[i][j]) * (0.5 if i == j else 1.0) for j in range(i + 1)]
        for i in range(len(r))
    ]
    return unrolled.packed(unrolled.symmetric(entries))


class BlockDynamics(AbstractDynamics):
    """Transitions that are arrays, block-diagonal, for many states or outputs.

    The state before the first step is 0, and that step adds the prior covariance.

    Attributes:
        matrix: of the transition into each time, shape `(n, blocks, k, k)`, lanes last.
        noise: covariance of the process noise, of that shape.
    """

    matrix: jax.Array
    noise: jax.Array

    @property
    def algebra(self) -> AbstractAlgebra:
        return DENSE

    @property
    def size(self) -> int:
        return self.matrix.shape[1] * self.matrix.shape[2]

    @property
    def like(self) -> jax.Array:
        return self.matrix[0, 0, 0, 0]

    @property
    def inputs(self) -> Any:
        return self.matrix, self.noise

    @property
    def readout(self) -> Any:
        raise ValueError("observations of states that are arrays need a readout")

    def start(self) -> Moments:
        like, size = self.like, self.size
        return Moments(DENSE.zero_vector(size, like), DENSE.zero_matrix(size, like))

    def transition(self, inputs: Any) -> Transition:
        return Transition(inputs[0], None, inputs[1])

    def in_lanes(self, lanes: int) -> BlockDynamics:
        stay = jnp.eye(self.matrix.shape[-1])
        return BlockDynamics(in_lanes(self.matrix, lanes, stay), in_lanes(self.noise, lanes, 0.0))

    def gradient(self, inputs: Any, earlier: Moments, adjoint: Adjoint) -> tuple[Any, Any]:
        """In closed form, for the blocks alone."""
        matrix = inputs[0]
        count, k, lanes = matrix.shape[0], matrix.shape[1], matrix.shape[3:]
        r, curvature = adjoint
        second = r[:, None] * r[None] - curvature
        # Symmetric, so that its columns serve as rows.
        left = second.reshape(-1, count, k, *lanes)
        right = DENSE.apply_to_square(matrix, earlier.cov).reshape(-1, count, k, *lanes)
        if lanes:
            in_cov = jnp.sum(left[:, :, :, None] * right[:, :, None], axis=0)
        else:
            in_cov = jnp.einsum("cbi,cbj->bij", left, right, precision="highest")
        in_mean = r.reshape(count, k, 1, *lanes) * earlier.mean.reshape(count, 1, k, *lanes)
        each, whole = jnp.arange(count), second.reshape(count, k, count, k, *lanes)
        return (), (in_mean + in_cov, 0.5 * whole[each, :, each])

    def with_lanes(self) -> BlockDynamics:
        return self

    def gradient_start(self) -> Any:
        return ()

    def whole_gradient(self, summed: Any, kept: Any, first: Adjoint) -> BlockDynamics:
        return BlockDynamics(*kept)


def block_dynamics(space: AbstractStateSpace, time: jax.Array, step: jax.Array) -> BlockDynamics:
    """Blocks of one size, of one or several independent processes each."""
    n, dtype = len(step), step.dtype
    count, k, positions = bins([block.size for block in space.blocks])
    matrix = jnp.zeros((n, count, k, k), dtype)
    noise = jnp.zeros((n, count, k, k), dtype)
    for block, (which, first) in zip(space.blocks, positions, strict=True):
        at = (slice(None), which, *2 * (slice(first, first + block.size),))
        matrix = matrix.at[at].set(unrolled.stacked(block.transition(step), (n,), dtype))
        added = unrolled.stacked(block.noise(time, step), (n,), dtype)
        prior = unrolled.stacked(block.marginal(time[:1]), (1,), dtype)
        noise = noise.at[at].set(added.at[:1].set(prior))
    return BlockDynamics(matrix, noise)


def state_indices(space: AbstractStateSpace) -> tuple[int, np.ndarray]:
    """The number of states of `block_dynamics`, and where those of the space are among them."""
    sizes = [block.size for block in space.blocks]
    count, k, positions = bins(sizes)
    starts = [which * k + first for which, first in positions]
    every = [a + np.arange(size) for a, size in zip(starts, sizes, strict=True)]
    return count * k, np.concatenate(every)


def padded(space: AbstractStateSpace, rows: Any) -> jax.Array:
    """Combinations of states, `(..., d)`, as they are for the states of `block_dynamics`."""
    size, indices = state_indices(space)
    rows = jnp.asarray(rows)
    rows = rows if jnp.issubdtype(rows.dtype, jnp.inexact) else rows.astype(float)
    return jnp.zeros((*rows.shape[:-1], size), rows.dtype).at[..., indices].set(rows)


def bins(sizes: list[int]) -> tuple[int, int, list[tuple[int, int]]]:
    """Bins that hold blocks of these sizes: their number and size, and bin and offset of each.

    First fit, the largest first, for the bin size that leaves the least room unused.
    """
    candidates = range(max(sizes), 2 * max(sizes) + 1)
    return min(map(functools.partial(_first_fit, sizes), candidates), key=lambda p: p[0] * p[1])


def _first_fit(sizes: list[int], k: int) -> tuple[int, int, list[tuple[int, int]]]:
    filled: list[int] = []
    positions = [(0, 0)] * len(sizes)
    for i in sorted(range(len(sizes)), key=lambda i: -sizes[i]):
        which = next((b for b, full in enumerate(filled) if full + sizes[i] <= k), len(filled))
        filled += [0] if which == len(filled) else []
        positions[i] = (which, filled[which])
        filled[which] += sizes[i]
    return len(filled), k, positions


def in_lanes(array: jax.Array, lanes: int, fill: Any) -> jax.Array:
    """An array `(n, ...)` cut into parts, `(steps, ..., lanes)`; the last one is filled up."""
    n = len(array)
    length = -(-n // lanes)
    rest = jnp.broadcast_to(jnp.asarray(fill, array.dtype), array.shape[1:])
    rest = jnp.broadcast_to(rest, (length * lanes - n, *array.shape[1:]))
    whole = jnp.concatenate([array, rest]).reshape(lanes, length, *array.shape[1:])
    return jnp.moveaxis(whole, 0, -1)


def in_order(array: jax.Array, n: int, lanes: int) -> jax.Array:
    """The inverse of `in_lanes`."""
    if lanes == 1:
        return array
    back = jnp.moveaxis(array, -1, 0)
    return back.reshape(-1, *back.shape[2:])[:n]
