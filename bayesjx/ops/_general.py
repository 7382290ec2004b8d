"""General algorithms for what few structures have a formula of their own for.

Each function is generic (`functools.singledispatch`): the default serves every operator with
products, solves, a log-determinant and a root, and a structure that does better registers its own.
"""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random

from .._core import compiled

CHUNK = 64  # columns that are solved for together where all are needed


@functools.singledispatch
def as_matrix(operator: Any) -> jax.Array:
    """The dense matrix, by the product with an identity."""
    return operator._mm(jnp.eye(operator.shape[1], dtype=operator.dtype))


@functools.singledispatch
def check_size(operator: Any, what: str) -> None:
    """Refuses an operator that leaves its size open, which few do."""


@functools.singledispatch
def inverse_diag(operator: Any) -> jax.Array:
    """The diagonal of the inverse, by solves for some unit vectors at a time."""
    return inverse_diag_by_solves(operator)


@functools.singledispatch
def sample(operator: Any, key: jax.Array, num: int) -> jax.Array:
    """Draws of covariance A as columns, shape `(n, num)`: its root times standard normal noise."""
    root = operator._root()
    return root.mm(random.normal(key, (root.shape[1], num), operator.dtype))


@functools.singledispatch
def sample_inverse(operator: Any, key: jax.Array, num: int) -> jax.Array:
    """Draws of precision A as columns, shape `(n, num)`: solves for draws of covariance A."""
    return operator._solve(sample(operator, key, num))


@functools.singledispatch
def psd_logdet(operator: Any) -> jax.Array:
    """The log-determinant for a density: NaN or an error if it is not positive definite."""
    return operator._logdet()


@functools.singledispatch
def inv_quad_logdet(operator: Any, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""$y^\top A^{-1} y$, one for each column, and the log-determinant."""
    return inv_quad(operator, y), psd_logdet(operator)


@eqx.filter_custom_jvp
def inv_quad(operator: Any, y: jax.Array) -> jax.Array:
    r"""$y^\top A^{-1} y$ for each column of `y`; its derivative takes no second solve."""
    return jnp.maximum(jnp.sum(y * operator.solve(y), axis=0), 0)  # rounding may make it negative


@inv_quad.def_jvp
def _inv_quad_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    operator, y = primals
    d_operator, d_y = tangents
    alpha = operator.solve(y)
    value = jnp.maximum(jnp.sum(y * alpha, axis=0), 0)
    change = jnp.zeros_like(value)
    if d_y is not None:
        change += 2 * jnp.sum(alpha * d_y, axis=0)
    if jax.tree.leaves(d_operator):

        def times_alpha(operator: Any) -> jax.Array:
            return operator._mm(alpha if alpha.ndim == 2 else alpha[:, None])

        _, d_product = eqx.filter_jvp(times_alpha, (operator,), (d_operator,))
        change -= jnp.sum(alpha * d_product.reshape(alpha.shape), axis=0)
    return value, change


@compiled
def inverse_diag_by_solves(operator: Any) -> jax.Array:
    """The diagonal of the inverse by `n` solves, 64 at a time."""
    size = operator.shape[0]

    def some(start: jax.Array) -> jax.Array:
        index = start + jnp.arange(CHUNK)
        unit = jnp.zeros((size, CHUNK), operator.dtype).at[index, jnp.arange(CHUNK)].set(1.0)
        return operator._solve(unit).at[index, jnp.arange(CHUNK)].get(mode="clip")

    return jax.lax.map(some, jnp.arange(0, size, CHUNK)).reshape(-1)[:size]
