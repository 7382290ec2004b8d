"""Problems in units in which one recipe serves all, and the way back from there."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .._core import eigh
from ..ops import kron_mm
from ._design import square
from ._kron_moments import Problem


class Units(NamedTuple):
    """What a problem was divided by.

    Attributes:
        y: root mean square of the measurements, scalar.
        norms: of the columns of each factor, 1 where a column is zero.
    """

    y: jax.Array
    norms: tuple[jax.Array, ...]


def standardised(
    factors: tuple[Inexact[Array, "_m _n"], ...], y: Inexact[Array, ...]
) -> tuple[Problem, Units]:
    """The problem with columns of norm 1, measurements of mean square 1, and no spare rows.

    Of a factor with more rows than columns, measurements beyond its range say something of the
    noise only: an orthonormal basis of the range takes the place of the rows.

    Args:
        factors: shape `(m_i, n_i)` each.
        y: shape `(m_1, ..., m_I, L)`.
    """
    norms = tuple(_column_norms(f) for f in factors)
    scaled = tuple(f / n for f, n in zip(factors, norms, strict=True))
    unit = _root_mean_square(y)
    flat = (y / unit).reshape(-1, y.shape[-1])
    rest = jnp.zeros((), norms[0].dtype)
    if any(f.shape[0] > f.shape[1] for f in factors):
        bases = tuple(_range(f) if f.shape[0] > f.shape[1] else None for f in scaled)
        eye = lambda f: jnp.eye(len(f), dtype=f.dtype)  # noqa: E731
        onto = tuple(
            eye(f) if b is None else b.conj().T for b, f in zip(bases, scaled, strict=True)
        )
        inside = kron_mm(onto, flat)
        outside = flat - kron_mm(tuple(b.conj().T for b in onto), inside)
        rest = jnp.sum(square(outside))
        scaled = tuple(
            f if b is None else b.conj().T @ f for b, f in zip(bases, scaled, strict=True)
        )
        flat = inside
    size = math.prod(y.shape[:-1])
    return Problem(scaled, flat, rest, size), Units(unit, norms)


def normalised(variances: tuple[Float[Array, " _n"], ...]) -> tuple[Float[Array, " _n"], ...]:
    """Factors of the same product: all but the last have norm 1, and that carries the scale."""
    *first, last = variances
    kept = []
    for variance in first:
        norm = jnp.linalg.norm(variance)
        kept.append(variance / jnp.where(norm > 0, norm, 1))
        last = last * norm
    return (*kept, last)


def in_users_units(
    variances: tuple[Float[Array, " _n"], ...], units: Units
) -> tuple[Float[Array, " _n"], ...]:
    """Prior variances of coefficients of the columns as they were given."""
    *first, last = (g / n**2 for g, n in zip(variances, units.norms, strict=True))
    return normalised((*first, last * units.y**2))


def _column_norms(factor: jax.Array) -> jax.Array:
    largest = jnp.max(jnp.abs(factor), axis=0)
    largest = jnp.where(largest > 0, largest, 1)
    norm = largest * jnp.sqrt(jnp.sum(square(factor / largest), axis=0))
    return jnp.where(norm > 0, norm, 1)


def _root_mean_square(y: jax.Array) -> jax.Array:
    largest = jnp.max(jnp.abs(y))
    return largest * jnp.sqrt(jnp.mean(square(y / largest)))


def _range(matrix: jax.Array) -> jax.Array:
    """Orthonormal basis of a tall matrix's range, shape `(m, n)`; zeros for what it lacks.

    Twice by eigenvectors of a Gram matrix: the second time makes up for the squared condition.
    """
    for _ in range(2):
        values, vectors = eigh(matrix.conj().T @ matrix)
        least = len(values) * jnp.finfo(values.dtype).eps * values[-1]
        scale = jnp.where(values > least, 1 / jnp.sqrt(jnp.maximum(values, least)), 0)
        matrix = (matrix @ vectors) * scale
    return matrix
