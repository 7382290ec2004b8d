"""The density of a process of space and time on a complete grid, one series at a time."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from .._core import eigh
from . import _process as process
from ._backend import MOST_STATES, Plan
from ._derivatives import with_derivatives
from ._process import Series
from ._spaces import AbstractStateSpace, ScaledSpace


def _value(
    precise: bool, cov: jax.Array, space: AbstractStateSpace, noise_var: jax.Array, series: Series
) -> jax.Array:
    r"""The log density of $Y \sim N(0, K_s \otimes K_t + \sigma^2 I)$, scalar.

    In the basis of eigenvectors of $K_s$ the columns of $Y$ are independent series, whose
    processes have the eigenvalues as factors; all are filtered at once. The derivative in $K_s$
    holds whatever its eigenvalues are, equal ones too.

    Args:
        precise: see `_backend.Plan`.
        cov: $K_s$, shape `(s, s)`.
        space: the state space of the factor of time.
        noise_var: $\sigma^2$, scalar.
        series: times `(n,)`, and $Y$ as `y`, shape `(n, s)`.
    """
    values, vectors = eigh(cov)
    return _rotated(precise, values, space, noise_var, series._replace(y=series.y @ vectors))


def _rotated(
    precise: bool, values: jax.Array, space: Any, noise_var: jax.Array, series: Series
) -> jax.Array:
    """The sum over columns; one filter with a lane for each."""
    plan = Plan(1, precise, arrays=space.size > MOST_STATES)

    def one(value: jax.Array, y: jax.Array) -> jax.Array:
        everywhere = jnp.ones_like(y)
        column = series._replace(y=y, noise_var=noise_var * everywhere, observed=everywhere)
        return process.log_density(plan, ScaledSpace(space, value), column)

    return jnp.sum(jax.vmap(one, (0, 1))(jnp.maximum(values, 0), series.y))


def _derivatives(
    precise: bool, cov: jax.Array, space: Any, noise_var: jax.Array, series: Series
) -> tuple[jax.Array, Any]:
    values, vectors = eigh(cov)
    rotated = series._replace(y=series.y @ vectors)
    total, slopes = jax.value_and_grad(functools.partial(_rotated, precise), (0, 1, 2, 3))(
        values, space, noise_var, rotated
    )
    in_values, in_space, in_noise, in_series = slopes
    # Off the diagonal the derivative is a_i' K_t a_j / 2, with K_t a_j from the equation that a_j
    # solves, which is safe for the larger of the two eigenvalues.
    weights = -in_series.y
    moved = (rotated.y - noise_var * weights) / jnp.maximum(values, jnp.finfo(values.dtype).tiny)
    half = 0.5 * weights.T @ moved
    inside = jnp.where(values >= values[:, None], half, half.T)
    inside = jnp.where(jnp.eye(len(values), dtype=bool), jnp.diag(in_values), inside)
    in_series = in_series._replace(y=in_series.y @ vectors.T)
    return total, (vectors @ inside @ vectors.T, in_space, in_noise, in_series)


log_density = with_derivatives(_value, _derivatives)
