"""One step of filters and of their adjoints, for scalars or lanes of them.

Notation: the state before an observation has mean $m$ and covariance $P$; the innovation $v$ has
variance $s$; $r$ and $N$ are derivatives of the log density of all that comes later.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from . import _algebra as alg
from ._algebra import Matrix, Vector
from ._spaces import AbstractStateSpace

LOG_2PI = math.log(2 * math.pi)


class Series(NamedTuple):
    r"""Sorted observations of one series, or lanes of them; all of one shape.

    Attributes:
        time: of the observation before this one; for the first, its own.
        step: time since then, not negative.
        y: what was observed, 0 where nothing was.
        noise: its variance.
        seen: 1 where something was observed, else 0.
        scale: None; or for what is known of the function $f$ by a factor
            $\exp(\lambda_1 f - \lambda_2 f^2 / 2)$, $\lambda_2$, which may be 0 or negative, with
            $\lambda_1$ as `y`.
    """

    time: Any
    step: Any
    y: Any
    noise: Any
    seen: Any
    scale: Any = None


class Moments(NamedTuple):
    """Mean and covariance of a state."""

    mean: Vector
    cov: Matrix


class Future(NamedTuple):
    r"""What later observations say about a state, $\exp(\eta^\top x - x^\top J x / 2)$.

    Attributes:
        shift: $\eta$.
        precision: $J$, positive semi-definite.
    """

    shift: Vector
    precision: Matrix


class Element(NamedTuple):
    r"""A stretch of the series as a function of the state $x_0$ before it.

    The last state is $N(A x_0 + b, C)$ given the observations, whose density is proportional to
    $\exp(\eta^\top x_0 - x_0^\top J x_0 / 2)$.

    Attributes:
        matrix: $A$.
        mean: $b$.
        cov: $C$.
        future: $\eta$ and $J$.
        log_density: of the observations at $x_0 = 0$.
    """

    matrix: Matrix
    mean: Vector
    cov: Matrix
    future: Future
    log_density: Any


class Adjoint(NamedTuple):
    """Derivatives of the log density of what comes after, in a mean: first, and minus second."""

    slope: Vector
    curvature: Matrix


def predict(
    space: AbstractStateSpace,
    state: Moments,
    time: Any,
    step: Any,
    precise: bool,
    transition: Matrix | None = None,
) -> Moments:
    """The state a step later.

    Args:
        space: its law.
        state: at that time.
        time: of the state.
        step: until the next one.
        precise: add the process noise itself, for single precision, and not what keeps the
            marginal law as it is, which is cheaper.
        transition: of the step, where it is known.
    """
    a = space.transition(step) if transition is None else transition
    return Moments(alg.matvec(a, state.mean), _moved(space, a, state.cov, time, step, precise))


def _moved(
    space: AbstractStateSpace, a: Matrix, cov: Matrix, time: Any, step: Any, precise: bool
) -> Matrix:
    if precise:
        return alg.add_symmetric(alg.congruence(a, cov), space.noise(time, step))
    excess = alg.subtract_symmetric(cov, space.marginal(time))
    return alg.add_symmetric(space.marginal(time + step), alg.congruence(a, excess))


class Innovation(NamedTuple):
    """An observation against its prediction.

    Attributes:
        cross: covariance of state and observation.
        pull: observation less its mean, over its variance.
        precision: one over its variance, 0 where nothing was observed.
        spread: variance of its noise, over the square of its variance.
        exponent: what the log density has besides the logarithm of a determinant and constants.
        determinant: the variance of the observation, or what its factor grows by; 1 where nothing
            was observed.
    """

    cross: Any
    pull: Any
    precision: Any
    spread: Any
    exponent: Any
    determinant: Any

    def log_density(self, now: Any) -> Any:
        """0 where nothing was observed."""
        constant = 0.0 if now.scale is not None else LOG_2PI * now.seen
        return self.exponent - 0.5 * (constant + _log(now, self.determinant))


def log_factors(series: Any, determinants: jax.Array) -> jax.Array:
    """What the log densities of a series have besides their exponents, summed over time."""
    total = -0.5 * jnp.sum(_log(series, determinants), axis=0)
    return total if series.scale is not None else total - 0.5 * LOG_2PI * jnp.sum(series.seen, 0)


def _log(now: Any, determinant: Any) -> Any:
    # Of factors that curve upward only the product over time is sure to be positive.
    return jnp.log(determinant if now.scale is None else jnp.abs(determinant))


def innovation(h: Vector, state: Moments, now: Series) -> Innovation:
    """The observation against what the state predicts."""
    cross = alg.matvec(state.cov, h)
    found = compared(now, alg.dot(h, state.mean), alg.dot(h, cross))
    return Innovation(cross, *found)


def compared(now: Any, mean: Any, variance: Any) -> tuple[Any, ...]:
    """All of an `Innovation` but the first, from the moments of the function."""
    if now.scale is not None:
        return _factor(now, mean, variance)
    # Where nothing was observed the variance may be 0, which must not reach a derivative.
    there = now.seen > 0
    total = alg.plus(variance, jnp.where(there, now.noise, 1.0))
    value = now.y - mean
    precision = now.seen / total
    pull = value * precision
    determinant = jnp.where(there, total, 1.0)
    return pull, precision, now.noise * precision**2, -0.5 * value * pull, determinant


def _factor(now: Any, mean: Any, variance: Any) -> tuple[Any, ...]:
    """The same of a factor; its log density is the log of its mean."""
    scale = now.seen * now.scale
    growth = jnp.where(now.seen > 0, 1 + scale * variance, 1.0)
    precision = scale / growth
    shift = now.seen * now.y
    pull = (shift - scale * mean) / growth
    exponent = 0.5 * (shift**2 * variance + 2 * shift * mean - scale * mean**2) / growth
    return pull, precision, precision / growth, exponent, growth


def observe(h: Vector, state: Moments, now: Series, precise: bool) -> tuple[Moments, Innovation]:
    """The state given the observation too, and how that compares with its prediction."""
    found = innovation(h, state, now)
    cross = found.cross
    mean = alg.add(state.mean, alg.scale(found.pull, cross))
    if not precise:
        return Moments(mean, alg.with_rank_one(state.cov, cross, -found.precision)), found
    gain = alg.scale(found.precision, cross)
    left = alg.subtract_outer(alg.identity(len(h)), gain, h)
    cov = alg.with_rank_one(alg.congruence(left, state.cov), cross, found.spread)
    return Moments(mean, cov), found


def extend(
    space: AbstractStateSpace, so_far: Element, now: Series, precise: bool
) -> tuple[Element, Any]:
    """A stretch with one more observation, and the determinant that its log density still lacks."""
    h = space.readout
    a = space.transition(now.step)
    matrix = alg.matmul(a, so_far.matrix)
    state = Moments(
        alg.matvec(a, so_far.mean),
        _moved(space, a, so_far.cov, now.time, now.step, precise),
    )
    state, found = observe(h, state, now, precise)
    cross, pull, precision = found[:3]
    row = alg.matvec(alg.transpose(matrix), h)
    future = Future(
        alg.add(so_far.future.shift, alg.scale(pull, row)),
        alg.with_rank_one(so_far.future.precision, row, precision),
    )
    matrix = alg.subtract_outer(matrix, alg.scale(precision, cross), row)
    exponent = so_far.log_density + found.exponent
    return Element(matrix, state.mean, state.cov, future, exponent), found.determinant


def empty(d: int) -> Element:
    """The stretch of no observations."""
    zero = (0,) * d
    return Element(alg.identity(d), zero, alg.zeros(d), Future(zero, alg.zeros(d)), 0)


def absorb(cov: Matrix, precision: Matrix, definite: bool = True) -> tuple[Matrix, Any]:
    r"""$(P^{-1} + J)^{-1}$ and $\log|I + P J|$ for a positive semi-definite $P$.

    The square-root-free Cholesky factor of $J$ makes it a list of scalar observations, which are
    taken in one after another; no matrix is inverted.

    Args:
        cov: $P$.
        precision: $J$.
        definite: whether $J$ is positive semi-definite, too; what it is not is NaN then.
    """
    d, log_det = len(cov), 0.0
    left = [list(row) for row in precision]
    for i in range(d):
        pivot = jnp.asarray(left[i][i])
        safe = jnp.where(pivot != 0, pivot, 1.0)
        column = [1 if j == i else jnp.where(pivot != 0, left[j][i] / safe, 0.0) for j in range(d)]
        direction = tuple(0 if j < i else column[j] for j in range(d))
        for j in range(i + 1, d):
            for k in range(i + 1, j + 1):
                left[j][k] = left[k][j] = left[j][k] - pivot * column[j] * column[k]
        cross = alg.matvec(cov, direction)
        ratio = pivot * alg.dot(direction, cross)
        cov = alg.with_rank_one(cov, cross, -pivot / (1 + ratio))
        log_det = log_det + (jnp.log1p(ratio) if definite else jnp.log(jnp.abs(1 + ratio)))
    return cov, log_det


def through(state: Moments, stretch: Element, definite: bool = True) -> tuple[Moments, Any]:
    """The state after a stretch that began with this one, and the log density of the stretch."""
    shift, precision = stretch.future
    cov, log_det = absorb(state.cov, precision, definite)
    gap = alg.subtract(shift, alg.matvec(precision, state.mean))
    moved = alg.matvec(cov, gap)
    density = stretch.log_density - 0.5 * log_det + 0.5 * alg.dot(gap, moved)
    density = density + 0.5 * alg.dot(state.mean, alg.add(shift, gap))
    mean = alg.add(alg.matvec(stretch.matrix, alg.add(state.mean, moved)), stretch.mean)
    cov = alg.add_symmetric(alg.congruence(stretch.matrix, cov), stretch.cov)
    return Moments(mean, cov), density


def before(stretch: Element, later: Future) -> Future:
    """What a stretch and all after it say about the state before it."""
    adjoint = seen_from(Moments(stretch.mean, stretch.cov), later)
    back = alg.transpose(stretch.matrix)
    return Future(
        alg.add(stretch.future.shift, alg.matvec(back, adjoint.slope)),
        alg.add_symmetric(stretch.future.precision, alg.congruence(back, adjoint.curvature)),
    )


def seen_from(state: Moments, later: Future) -> Adjoint:
    """Derivatives in the mean of a state of the log density of what comes later."""
    shift, precision = later
    cov, _ = absorb(state.cov, precision)
    gap = alg.subtract(shift, alg.matvec(precision, state.mean))
    slope = alg.subtract(gap, alg.matvec(precision, alg.matvec(cov, gap)))
    curvature = alg.subtract_symmetric(precision, alg.congruence(precision, cov))
    return Adjoint(slope, curvature)


class Smoothed(NamedTuple):
    """What the backward pass finds at an observation.

    Attributes:
        weight: derivative of the log density in the observation, with the other sign.
        precision: minus the second one; 0 where nothing was observed.
    """

    weight: Any
    precision: Any


def adjoint_step(
    h: Vector, state: Moments, now: Series, later: Adjoint
) -> tuple[Adjoint, Smoothed]:
    """Derivatives in the state before an observation, from those after it.

    Args:
        h: readout.
        state: predicted, before the observation.
        now: the observation.
        later: derivatives in the mean of the state after it.

    References:
        Bierman (1973), "Fixed interval smoothing with discrete measurements"; Durbin and Koopman
        (2012), "Time series analysis by state space methods", section 4.4.
    """
    cross, pull, precision = innovation(h, state, now)[:3]
    gain = alg.scale(precision, cross)
    bent = alg.matvec(later.curvature, gain)
    weight = pull - alg.dot(gain, later.slope)
    curvature = precision + alg.dot(gain, bent)
    slope = alg.add(later.slope, alg.scale(weight, h))
    rest = alg.subtract_outer(later.curvature, bent, h)
    rest = alg.subtract_outer(rest, h, bent)
    seen = Adjoint(slope, alg.with_rank_one(alg.symmetric(rest), h, curvature))
    return seen, Smoothed(weight, curvature)


def smoothed_moments(h: Vector, state: Moments, adjoint: Adjoint) -> tuple[Any, Any]:
    """Mean and variance of a combination of the states given all observations.

    Args:
        h: the combination.
        state: predicted, before an observation.
        adjoint: derivatives in its mean.
    """
    cross = alg.matvec(state.cov, h)
    mean = alg.dot(h, state.mean) + alg.dot(cross, adjoint.slope)
    known = alg.dot(cross, alg.matvec(adjoint.curvature, cross))
    return mean, alg.dot(h, cross) - known


def record_gradient(
    h: Vector, state: Moments, now: Series, adjoint: Adjoint, smoothed: Smoothed
) -> tuple[Any, ...]:
    """Derivatives of the log density in `y`, `noise`, `seen` and `scale` of an observation.

    Args:
        h: readout.
        state: predicted, before the observation.
        now: the observation.
        adjoint: derivatives in the mean of that state.
        smoothed: derivatives in the observation.
    """
    nothing = jnp.zeros_like(now.step)
    if now.scale is None:
        weight, precision = smoothed
        return -weight, 0.5 * (weight**2 - precision), nothing, None
    return factor_gradient(now, *smoothed_moments(h, state, adjoint))


def factor_gradient(now: Any, mean: Any, variance: Any) -> tuple[Any, ...]:
    """The same of a factor, from the moments of the function given all factors."""
    nothing = jnp.zeros_like(now.noise)
    return now.seen * mean, nothing, nothing, -0.5 * now.seen * (mean**2 + variance)


def back(space: AbstractStateSpace, adjoint: Adjoint, step: Any) -> Adjoint:
    """Derivatives in the state a step earlier."""
    a = alg.transpose(space.transition(step))
    return Adjoint(alg.matvec(a, adjoint.slope), alg.congruence(a, adjoint.curvature))


def parameter_gradient(
    space: AbstractStateSpace, earlier: Moments, adjoint: Adjoint, now: Series, precise: bool
) -> tuple[Any, Any, Any]:
    """Derivatives of the log density in the space, the time and the step of a prediction.

    Args:
        space: where predictions come from.
        earlier: the state that is predicted from.
        adjoint: derivatives in the predicted state.
        now: the time and step of that.
        precise: as in `predict`.
    """

    def packed(space: AbstractStateSpace, time: Any, step: Any) -> Any:
        mean, cov = predict(space, earlier, time, step, precise)
        return alg.filled((mean, alg.packed(cov)), jnp.shape(step), step.dtype)

    cotangent = (adjoint.slope, covariance_cotangent(adjoint))
    _, pull = jax.vjp(packed, space, now.time, now.step)
    return pull(alg.filled(cotangent, jnp.shape(now.step), now.step.dtype))


def covariance_cotangent(adjoint: Adjoint) -> Vector:
    """Derivatives in the lower triangle of a covariance; an entry off the diagonal is two."""
    r, curvature = adjoint
    entries = [
        [(r[i] * r[j] - curvature[i][j]) * (0.5 if i == j else 1.0) for j in range(i + 1)]
        for i in range(len(r))
    ]
    return alg.packed(alg.symmetric(entries))
