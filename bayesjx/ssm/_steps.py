"""One step of the Kalman filter and of its filter elements.

Each formula is written once, over an `AbstractAlgebra`. Notation: the state predicted for an
observation has mean $m$ and covariance $P$, and is read out by $h$; the innovation
$v = y - h^T m$ has variance $s = h^T P h + R$; the Kalman gain is $P h / s$.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from ._algebra import AbstractAlgebra, Blocks, Square, Symmetric, Vector
from ._unrolled import plus

LOG_2PI = math.log(2 * math.pi)


class Observations(NamedTuple):
    r"""Observations at each time, or at one time inside of loops.

    Attributes:
        y: what was observed, 0 where nothing was; `(n,)` of one output, or `(n, p)`.
        noise_var: its variance.
        observed: 1 where something was observed, else 0.
        site_precision: None; or for what is known of the function $f$ by a factor
            $\exp(\lambda_1 f - \lambda_2 f^2 / 2)$, $\lambda_2$, which may be 0 or negative, with
            $\lambda_1$ as `y`.
        readout: of the outputs, `(p, d)`, or `(n, p, d)` if it changes with time; None for that of
            the state space, and inside of loops that need not carry it.
    """

    y: Any
    noise_var: Any
    observed: Any
    site_precision: Any = None
    readout: Any = None


class Transition(NamedTuple):
    """A step of time: the covariance becomes $A (P - P_0) A^T + Q$.

    Attributes:
        matrix: $A$.
        subtracted: $P_0$, the marginal covariance before the step; or None for 0.
        added: $Q$, the marginal covariance after it; or the process noise.
    """

    matrix: Blocks
    subtracted: Symmetric | None
    added: Blocks


class Moments(NamedTuple):
    """Mean and covariance of a state."""

    mean: Vector
    cov: Symmetric


class Information(NamedTuple):
    r"""Information of observations about a state before them, $\exp(\eta^T x - x^T J x / 2)$.

    Attributes:
        linear: $\eta$.
        precision: $J$.
    """

    linear: Vector
    precision: Symmetric


class FilterElement(NamedTuple):
    r"""A part of the series as a function of the state $x_0$ before it.

    The last state is $N(A x_0 + b, C)$ given the observations, whose density is proportional to
    $\exp(\eta^T x_0 - x_0^T J x_0 / 2)$.

    Attributes:
        matrix: $A$.
        mean: $b$.
        cov: $C$.
        information: $\eta$ and $J$.
        log_density: of the observations at $x_0 = 0$.

    References:
        Särkkä and García-Fernández (2021), "Temporal parallelization of Bayesian smoothers", IEEE
        Transactions on Automatic Control, section III.
    """

    matrix: Square
    mean: Vector
    cov: Symmetric
    information: Information
    log_density: Any


class Adjoint(NamedTuple):
    """Derivatives of the log density of what comes after in the mean of a state.

    Attributes:
        gradient: first derivatives, $r$.
        curvature: second derivatives with the other sign, $N$.
    """

    gradient: Vector
    curvature: Symmetric


class Innovation(NamedTuple):
    """An observation beside its prediction.

    Attributes:
        cross: covariance of state and observation, $P h$.
        scaled: innovation over its variance, $v / s$.
        precision: $1 / s$, 0 where nothing was observed.
        noise_precision: $R / s^2$.
        exponent: what the log density has besides the logarithm of a determinant and constants.
        determinant: the variance $s$, or what the factor grows by; 1 where nothing was observed.
    """

    cross: Vector
    scaled: Any
    precision: Any
    noise_precision: Any
    exponent: Any
    determinant: Any


class Smoothed(NamedTuple):
    """Derivatives of the log density in an observation.

    Attributes:
        error: the first one with the other sign, $u$, an element of $(K + R)^{-1} (y - m)$.
        precision: the second one with the other sign, $D$, of the diagonal of $(K + R)^{-1}$; 0
            where nothing was observed.
    """

    error: Any
    precision: Any


def predict(alg: AbstractAlgebra, transition: Transition, state: Moments) -> Moments:
    """The Kalman filter's prediction: the state a step later."""
    a, subtracted, added = transition
    cov = state.cov if subtracted is None else alg.subtract_symmetric(state.cov, subtracted)
    return Moments(alg.apply(a, state.mean), alg.add_noise(alg.conjugate(a, cov), added))


def innovation(alg: AbstractAlgebra, h: Vector, state: Moments, now: Observations) -> Innovation:
    """The observation beside what the state predicts."""
    cross = alg.matvec(state.cov, h)
    mean, variance = alg.dot(h, state.mean), alg.dot(h, cross)
    if now.site_precision is not None:
        return Innovation(cross, *_factor(now, mean, variance))
    # Where nothing was observed the variance may be 0, which must not reach a derivative.
    observed = now.observed > 0
    total = plus(variance, jnp.where(observed, now.noise_var, 1.0))
    residual = now.y - mean
    precision = now.observed / total
    scaled = residual * precision
    determinant = jnp.where(observed, total, 1.0)
    noise_precision = now.noise_var * precision**2
    exponent = -0.5 * residual * scaled
    return Innovation(cross, scaled, precision, noise_precision, exponent, determinant)


def _factor(now: Observations, mean: Any, variance: Any) -> tuple[Any, ...]:
    """The same of a factor; its log density is the log of its mean."""
    site_precision = now.observed * now.site_precision
    growth = jnp.where(now.observed > 0, 1 + site_precision * variance, 1.0)
    precision = site_precision / growth
    linear = now.observed * now.y
    scaled = (linear - site_precision * mean) / growth
    exponent = linear**2 * variance + 2 * linear * mean - site_precision * mean**2
    return scaled, precision, precision / growth, 0.5 * exponent / growth, growth


def log_factors(observations: Observations, determinants: jax.Array, lanes: int) -> jax.Array:
    """Log normalising factors of the densities of a series, summed but for lanes."""
    axes = tuple(range(determinants.ndim - lanes))
    if observations.site_precision is not None:
        # Of convex factors only the product over time is sure to be positive.
        return -0.5 * jnp.sum(jnp.log(jnp.abs(determinants)), axis=axes)
    constant = LOG_2PI * jnp.sum(observations.observed, axis=axes)
    return -0.5 * jnp.sum(jnp.log(determinants), axis=axes) - 0.5 * constant


def update(
    alg: AbstractAlgebra, h: Vector, state: Moments, now: Observations, precise: bool
) -> tuple[Moments, Innovation]:
    """The Kalman filter's update: the state given the observation too.

    Args:
        alg: the algebra.
        h: readout.
        state: predicted.
        now: one output.
        precise: keep the covariance positive semi-definite by Joseph's form, for single precision.
    """
    step = innovation(alg, h, state, now)
    cross = step.cross
    mean = alg.add(state.mean, alg.scale(step.scaled, cross))
    cov = alg.add_rank_one(state.cov, cross, -step.precision)
    if precise:  # (I - g h^T) P (I - g h^T)^T + R g g^T with the gain g
        gain = alg.scale(step.precision, cross)
        cov = alg.subtract_symmetric_outer(cov, alg.matvec(cov, h), gain)
        cov = alg.add_rank_one(cov, cross, step.noise_precision)
    return Moments(mean, cov), step


def empty_element(alg: AbstractAlgebra, size: int, like: jax.Array) -> FilterElement:
    """The filter element of no observations."""
    zero, nothing = alg.zero_vector(size, like), alg.zero_matrix(size, like)
    information = Information(zero, nothing)
    return FilterElement(alg.identity(size, like), zero, nothing, information, jnp.zeros_like(like))


def predict_element(
    alg: AbstractAlgebra, transition: Transition, element: FilterElement
) -> FilterElement:
    """A filter element followed by a step of time."""
    state = predict(alg, transition, Moments(element.mean, element.cov))
    matrix = alg.apply_to_square(transition.matrix, element.matrix)
    return element._replace(matrix=matrix, mean=state.mean, cov=state.cov)


def update_element(
    alg: AbstractAlgebra, h: Vector, element: FilterElement, now: Observations, precise: bool
) -> tuple[FilterElement, Any]:
    """A filter element with one more observation, and the determinant that its density lacks."""
    state, step = update(alg, h, Moments(element.mean, element.cov), now, precise)
    row = alg.matvec(alg.transpose(element.matrix), h)
    linear, precision = element.information
    information = Information(
        alg.add(linear, alg.scale(step.scaled, row)),
        alg.add_rank_one(precision, row, step.precision),
    )
    matrix = alg.subtract_outer(element.matrix, alg.scale(step.precision, step.cross), row)
    log_density = element.log_density + step.exponent
    element = FilterElement(matrix, state.mean, state.cov, information, log_density)
    return element, step.determinant


class Informed(NamedTuple):
    r"""A state given information about it.

    Attributes:
        cov: its covariance.
        residual: $\eta - J m$.
        change: of its mean.
        log_density: of the information.
    """

    cov: Symmetric
    residual: Vector
    change: Vector
    log_density: Any


def inform(
    alg: AbstractAlgebra, state: Moments, information: Information, definite: bool = True
) -> Informed:
    """A state given information about it; no covariance is inverted."""
    linear, precision = information
    cov, log_det = alg.condition_on_precision(state.cov, precision, definite)
    residual = alg.subtract(linear, alg.matvec(precision, state.mean))
    change = alg.matvec(cov, residual)
    quadratic = alg.dot(residual, change) + alg.dot(state.mean, alg.add(linear, residual))
    return Informed(cov, residual, change, 0.5 * (quadratic - log_det))


def through(
    alg: AbstractAlgebra, state: Moments, element: FilterElement, definite: bool = True
) -> tuple[Moments, Any, Informed]:
    """The state after a filter element that began with this one, and the element's log density."""
    informed = inform(alg, state, element.information, definite)
    mean = alg.matvec(element.matrix, alg.add(state.mean, informed.change))
    cov = alg.congruence(element.matrix, informed.cov)
    after = Moments(alg.add(mean, element.mean), alg.add_symmetric(cov, element.cov))
    return after, element.log_density + informed.log_density, informed


def combine(
    alg: AbstractAlgebra, first: FilterElement, second: FilterElement, definite: bool = True
) -> FilterElement:
    r"""Two filter elements as one: the associative operation of the parallel filter.

    Args:
        alg: the algebra.
        first: the earlier one.
        second: the later one.
        definite: see `AbstractAlgebra.condition_on_precision`.

    References:
        Särkkä and García-Fernández (2021), "Temporal parallelization of Bayesian smoothers", IEEE
        Transactions on Automatic Control, lemma 8, with
        $(I + C J)^{-1} = I - (C^{-1} + J)^{-1} J$: a step of length 0 has a singular $C$.
    """
    start = Moments(first.mean, first.cov)
    after, log_density, informed = through(alg, start, second, definite)
    precision, back = second.information.precision, alg.transpose(first.matrix)
    # Each product is with a vector or a covariance, in the order that has the fewest of them.
    reached = alg.matmul(informed.cov, alg.matmul(precision, first.matrix))
    kept = alg.subtract_square(first.matrix, reached)
    gradient = alg.subtract(informed.residual, alg.matvec(precision, informed.change))
    curvature = alg.symmetric_product(back, alg.matmul(precision, kept))
    information = Information(
        alg.add(first.information.linear, alg.matvec(back, gradient)),
        alg.add_symmetric(first.information.precision, curvature),
    )
    matrix = alg.matmul(second.matrix, kept)
    log_density = first.log_density + log_density
    return FilterElement(matrix, after.mean, after.cov, information, log_density)
