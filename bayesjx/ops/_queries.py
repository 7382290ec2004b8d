"""Lineax's queries of operators (`is_symmetric` and the like), answered from the tags."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx

from ._operator import AbstractOperator
from ._tags import negative, psd, symmetric

_ANSWERS = {
    lx.is_symmetric: {psd, negative, symmetric, lx.diagonal_tag},  # entries are real
    lx.is_positive_semidefinite: {psd},
    lx.is_negative_semidefinite: {negative},
    lx.is_diagonal: {lx.diagonal_tag},
    lx.is_tridiagonal: {lx.diagonal_tag, lx.tridiagonal_tag},
    lx.has_unit_diagonal: {lx.unit_diagonal_tag},
    lx.is_lower_triangular: {lx.diagonal_tag, lx.lower_triangular_tag},
    lx.is_upper_triangular: {lx.diagonal_tag, lx.upper_triangular_tag},
}

for _query, _tags in _ANSWERS.items():

    @_query.register(AbstractOperator)
    def _(operator: AbstractOperator, tags: frozenset[object] = frozenset(_tags)) -> bool:
        return bool(operator.tags & tags)


@lx.linearise.register(AbstractOperator)
def _(operator: AbstractOperator) -> AbstractOperator:
    return operator


@lx.materialise.register(AbstractOperator)
def _(operator: AbstractOperator) -> lx.MatrixLinearOperator:
    return lx.MatrixLinearOperator(operator.as_matrix(), operator.tags)


@lx.diagonal.register(AbstractOperator)
def _(operator: AbstractOperator) -> jax.Array:
    if operator.shape[0] != operator.shape[1]:
        return jnp.diagonal(operator.as_matrix())
    return operator._diag()


@lx.tridiagonal.register(AbstractOperator)
def _(operator: AbstractOperator) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Diagonal, below it, above it; where there is nothing else, from three products."""
    if not lx.is_tridiagonal(operator):
        matrix = operator.as_matrix()
        below, above = jnp.diagonal(matrix, -1), jnp.diagonal(matrix, 1)
        return jnp.diagonal(matrix), below, above
    # Columns three apart do not meet in a row, so one vector of ones and zeros has them all.
    row = jnp.arange(operator.shape[0])
    colour = row % 3
    sums = operator._mm(jnp.asarray(colour[:, None] == jnp.arange(3), operator.dtype))
    return sums[row, colour], sums[row[1:], colour[:-1]], sums[row[:-1], colour[1:]]


@lx.conj.register(AbstractOperator)
def _(operator: AbstractOperator) -> AbstractOperator:
    return jax.tree.map(lambda x: jnp.conj(x) if eqx.is_inexact_array(x) else x, operator)
