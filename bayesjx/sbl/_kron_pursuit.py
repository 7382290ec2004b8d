"""Least squares on a Kronecker-structured support, known or found greedily."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Inexact, Int

from .._core import (
    compiled,
    eigh,
    first_of,
    is_successful,
    number_array,
    RESULTS,
    thrown,
    whole_number,
)
from ..ops import kron_mm, outer_grid
from ._arguments import checked_variance, real_of
from ._design import square
from ._kron_arguments import kron_problem
from ._kron_scaling import standardised, Units


class KroPursuit(NamedTuple):
    """What `kron_orthogonal_matching_pursuit` found.

    Attributes:
        mean: coefficients, shape `(n_1, ..., n_I)`, or with a last axis of snapshots; 0 off the
            support.
        active: which coefficients may differ from 0, booleans, shape `(n_1, ..., n_I)`.
        active_factors: the columns of each axis that were chosen, shape `(n_i,)` each.
        residual_norm: of the measurements less their fit, scalar.
        num_steps: atoms chosen.
        result: successful where the residual is no larger than the noise.
    """

    mean: Inexact[Array, ...]
    active: Bool[Array, ...]
    active_factors: tuple[Bool[Array, " _n"], ...]
    residual_norm: Float[Array, ...]
    num_steps: Int[Array, ...]
    result: RESULTS

    @property
    def converged(self) -> Bool[Array, ...]:
        """Whether `result` is successful."""
        return is_successful(self.result)


def kron_orthogonal_matching_pursuit(
    factors: Any, y: Any, *, noise_var: Any, max_steps: int | None = None, throw: bool = False
) -> KroPursuit:
    r"""Kronecker orthogonal matching pursuit (Kronecker-OMP).

    In each step the atom that correlates most with the residual adds its column along every axis to
    the support, on whose Kronecker product coefficients are fitted by least squares. It ends by the
    noise rule, where the residual is no larger than the noise, $\|r\|^2 \le \sigma^2 m$.

    Args:
        factors: $H_i$, shape `(m_i, n_i)` each, real or complex; or one matrix, or an `ops.Kron`.
        y: measurements, shape `(m_1, ..., m_I)`; with a last axis for snapshots, which share the
            support.
        noise_var: variance of the noise, positive; of both parts together for complex data.
        max_steps: atoms at most; by default until no axis takes another column.
        throw: whether it is an error, or a `result`, that the residual stays above the noise.

    Returns:
        Coefficients and support. The result is `stagnation` where the best atom is in the support.

    Raises:
        ValueError: as `kron_sbl`.
        RuntimeError: the residual stays above the noise and `throw=True`.

    References:
        Caiafa and Cichocki (2013), "Computing sparse representations of multidimensional signals
        using Kronecker bases", Neural Computation.
    """
    owner = "kron_orthogonal_matching_pursuit"
    arrays, y_ = kron_problem(owner, factors, y)
    noise_var = checked_variance(owner, "noise_var", noise_var, real_of(y_.dtype))
    room = sum(min(f.shape) for f in arrays)
    steps = (
        room if max_steps is None else min(whole_number(f"{owner}: max_steps", max_steps, 0), room)
    )
    found = _pursue(arrays, y_, noise_var, steps, jnp.ndim(y) > len(arrays))
    return thrown(owner, found.result, found) if throw else found


class _State(NamedTuple):
    masks: tuple[jax.Array, ...]
    coefficients: jax.Array
    residual: jax.Array
    num_steps: jax.Array
    grew: jax.Array


@compiled
def _pursue(
    factors: tuple[jax.Array, ...],
    y: jax.Array,
    noise_var: jax.Array,
    max_steps: int,
    snapshots: bool,
) -> KroPursuit:
    problem, units = standardised(factors, y)
    scaled = problem.factors
    columns = tuple(f.shape[1] for f in factors)
    room = tuple(min(f.shape) for f in factors)
    bound = noise_var / units.y**2 * y.size - problem.rest

    def energy(state: _State) -> jax.Array:
        return jnp.sum(square(state.residual))

    def go_on(state: _State) -> jax.Array:
        return (energy(state) > bound) & (state.num_steps < max_steps) & state.grew

    def step(state: _State) -> _State:
        correlations = kron_mm(tuple(f.conj().T for f in scaled), state.residual)
        best = jnp.argmax(jnp.sum(square(correlations), axis=1))
        at = jnp.unravel_index(best, columns)
        masks = tuple(
            jnp.where(jnp.count_nonzero(m) < most, m.at[i].set(True), m)
            for m, i, most in zip(state.masks, at, room, strict=True)
        )
        grew = jnp.zeros((), bool)
        for new, old in zip(masks, state.masks, strict=True):
            grew |= jnp.any(new != old)
        coefficients = _least_squares(scaled, problem.y, masks)
        residual = problem.y - kron_mm(scaled, coefficients)
        return _State(masks, coefficients, residual, state.num_steps + 1, grew)

    none = tuple(jnp.zeros(n, bool) for n in columns)
    zeros = jnp.zeros((int(np.prod(columns)), y.shape[-1]), y.dtype)
    begun = _State(none, zeros, problem.y, jnp.zeros((), int), jnp.asarray(True))
    state = jax.lax.while_loop(go_on, step, begun)
    result = first_of(
        (energy(state) <= bound, RESULTS.successful),
        (~jnp.isfinite(energy(state)), RESULTS.nonfinite),
        (state.grew, RESULTS.max_steps_reached),
        otherwise=RESULTS.stagnation,
    )
    mean = _in_users_units(state.coefficients, columns, units)
    norm = units.y * jnp.sqrt(energy(state) + problem.rest)
    mean = mean if snapshots else mean[..., 0]
    active = outer_grid(list(state.masks), jnp.logical_and)
    return KroPursuit(mean, active, state.masks, norm, state.num_steps, result)


def oracle_least_squares(factors: Any, y: Any, support: Any) -> Inexact[Array, ...]:
    r"""Least squares on a known support, the bound that sparse estimators are held against.

    Args:
        factors: a design, shape `(m, n)`, or those of a Kronecker product, shape `(m_i, n_i)` each.
        y: measurements, shape `(m,)` or `(m_1, ..., m_I)`, or with a last axis of snapshots.
        support: booleans, shape `(n,)`, or one mask for each axis.

    Returns:
        Coefficients, shape `(n,)` or `(n_1, ..., n_I)`, with the axis of snapshots if there is one;
        0 off the support. Those of least norm where columns of the support depend on each other.

    Raises:
        ValueError: shapes that disagree, integers or mixed precisions, data that are empty or NaN,
            a support that does not hold booleans.
    """
    arrays, y_ = kron_problem("oracle_least_squares", factors, y, zero=True)
    given = support if isinstance(support, tuple | list) else (support,)
    masks = [number_array("oracle_least_squares: support", mask) for mask in given]
    wanted = [(f.shape[1],) for f in arrays]
    shapes = [jnp.shape(mask) for mask in masks]
    if shapes != wanted or not all(map(_is_boolean, masks)):
        types = ", ".join(str(jnp.result_type(mask)) for mask in masks)
        raise ValueError(
            f"oracle_least_squares: support must hold booleans of shape {wanted}, one mask for "
            f"each factor's columns; got {shapes} of {types}"
        )
    found = _oracle(arrays, y_, tuple(jnp.asarray(mask) for mask in masks))
    return found if jnp.ndim(y) > len(arrays) else found[..., 0]


@compiled
def _oracle(
    factors: tuple[jax.Array, ...], y: jax.Array, masks: tuple[jax.Array, ...]
) -> jax.Array:
    largest = jnp.max(jnp.abs(y))
    problem, units = standardised(factors, jnp.where(largest > 0, y, 1))
    coefficients = _least_squares(problem.factors, problem.y, masks)
    columns = tuple(f.shape[1] for f in factors)
    return jnp.where(largest > 0, _in_users_units(coefficients, columns, units), 0)


def _least_squares(
    factors: tuple[jax.Array, ...], y: jax.Array, masks: tuple[jax.Array, ...]
) -> jax.Array:
    """Coefficients `(n, L)` by pseudo-inverses of the columns in the masks.

    Those come from eigenvectors of Gram matrices; a step of refinement makes up for the squared
    condition.
    """
    inverses = tuple(_pseudo_inverse(f * m) for f, m in zip(factors, masks, strict=True))
    coefficients = kron_mm(inverses, y)
    return coefficients + kron_mm(inverses, y - kron_mm(factors, coefficients))


def _is_boolean(mask: Any) -> bool:
    return jnp.issubdtype(jnp.result_type(mask), jnp.bool_)


def _pseudo_inverse(matrix: jax.Array) -> jax.Array:
    conjugate = matrix.conj().T
    wide = matrix.shape[0] < matrix.shape[1]
    values, vectors = eigh(matrix @ conjugate if wide else conjugate @ matrix)
    least = 10 * len(values) * jnp.finfo(values.dtype).eps * values[-1]
    inverse = jnp.where(values > least, 1 / jnp.where(values > least, values, 1), 0)
    solve = (vectors * inverse) @ vectors.conj().T
    return conjugate @ solve if wide else solve @ conjugate


def _in_users_units(coefficients: jax.Array, columns: tuple[int, ...], units: Units) -> jax.Array:
    norms = outer_grid(list(units.norms))
    return coefficients.reshape(*columns, -1) * (units.y / norms[..., None])
