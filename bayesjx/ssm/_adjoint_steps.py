"""One step of the adjoint smoother (Bryson and Frazier), and the derivatives that it gives.

Notation as in `_steps`.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ._algebra import AbstractAlgebra, Vector
from ._steps import (
    Adjoint,
    FilterElement,
    inform,
    Information,
    innovation,
    Moments,
    Observations,
    Smoothed,
    Transition,
)


def adjoint_of(alg: AbstractAlgebra, state: Moments, information: Information) -> Adjoint:
    """The adjoint of a state from what later observations say about it."""
    informed, precision = inform(alg, state, information), information.precision
    gradient = alg.subtract(informed.residual, alg.matvec(precision, informed.change))
    known = alg.congruence(precision, informed.cov)
    return Adjoint(gradient, alg.subtract_symmetric(precision, known))


def information_before(
    alg: AbstractAlgebra, element: FilterElement, later: Information
) -> Information:
    """Information about the state before a filter element, from it and all after it."""
    adjoint = adjoint_of(alg, Moments(element.mean, element.cov), later)
    back, (linear, precision) = alg.transpose(element.matrix), element.information
    return Information(
        alg.add(linear, alg.matvec(back, adjoint.gradient)),
        alg.add_symmetric(precision, alg.congruence(back, adjoint.curvature)),
    )


def adjoint_update(
    alg: AbstractAlgebra, h: Vector, state: Moments, now: Observations, later: Adjoint
) -> tuple[Adjoint, Smoothed]:
    """The Bryson-Frazier smoother's step back through an observation.

    Args:
        alg: the algebra.
        h: readout.
        state: predicted, before the observation.
        now: the observation.
        later: of the state after it.

    References:
        Bierman (1973), "Fixed interval smoothing with discrete measurements", International Journal
        of Control; Durbin and Koopman (2012), "Time series analysis by state space methods",
        section 4.4.
    """
    step = innovation(alg, h, state, now)
    gain = alg.scale(step.precision, step.cross)
    curved = alg.matvec(later.curvature, gain)
    error = step.scaled - alg.dot(gain, later.gradient)
    precision = step.precision + alg.dot(gain, curved)
    gradient = alg.add(later.gradient, alg.scale(error, h))
    curvature = alg.subtract_both_outer(later.curvature, curved, h)
    adjoint = Adjoint(gradient, alg.add_rank_one(curvature, h, precision))
    return adjoint, Smoothed(error, precision)


def adjoint_predict(alg: AbstractAlgebra, transition: Transition, adjoint: Adjoint) -> Adjoint:
    """The Bryson-Frazier smoother's step back through time."""
    back = alg.transposed(transition.matrix)
    return Adjoint(alg.apply(back, adjoint.gradient), alg.conjugate(back, adjoint.curvature))


def smoothed_moments(
    alg: AbstractAlgebra, h: Vector, state: Moments, adjoint: Adjoint
) -> tuple[Any, Any]:
    """Mean and variance of a combination of the states given all observations.

    Args:
        alg: the algebra.
        h: the combination.
        state: predicted, before an observation.
        adjoint: of that state.
    """
    cross = alg.matvec(state.cov, h)
    mean = alg.dot(h, state.mean) + alg.dot(cross, adjoint.gradient)
    known = alg.dot(cross, alg.matvec(adjoint.curvature, cross))
    return mean, alg.dot(h, cross) - known


def smoothed_state(alg: AbstractAlgebra, state: Moments, adjoint: Adjoint) -> Moments:
    """The state given all observations; arguments as for `smoothed_moments`."""
    mean = alg.add(state.mean, alg.matvec(state.cov, adjoint.gradient))
    known = alg.congruence(state.cov, adjoint.curvature)
    return Moments(mean, alg.subtract_symmetric(state.cov, known))


def observation_gradient(
    alg: AbstractAlgebra,
    h: Vector,
    state: Moments,
    now: Observations,
    later: Adjoint,
    adjoint: Adjoint,
    smoothed: Smoothed,
) -> Observations:
    """Derivatives of the log density in the fields of an observation.

    Args:
        alg: the algebra.
        h: readout.
        state: predicted, before the observation.
        now: the observation.
        later: adjoint of the state after it.
        adjoint: of the state before it.
        smoothed: derivatives in the observation.
    """
    error, precision = smoothed
    in_noise = 0.5 * (error**2 - precision)
    nothing = jnp.zeros_like(now.observed)
    in_readout = None
    if now.readout is not None:
        step = innovation(alg, h, state, now)
        gain = alg.scale(step.precision, step.cross)
        curved = alg.matvec(later.curvature, gain)
        through_gain = alg.matvec(state.cov, alg.add(alg.scale(error, later.gradient), curved))
        in_readout = alg.add(alg.scale(error, state.mean), alg.scale(2 * in_noise, step.cross))
        in_readout = alg.add(in_readout, alg.scale(now.observed, through_gain))
    if now.site_precision is None:
        return Observations(-error, in_noise, nothing, None, in_readout)
    mean, variance = smoothed_moments(alg, h, state, adjoint)
    in_linear = now.observed * mean
    in_precision = -0.5 * now.observed * (mean**2 + variance)
    return Observations(in_linear, nothing, nothing, in_precision, in_readout)
