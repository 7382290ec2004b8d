"""Prior covariances of what is read from a state space, between any two times."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from . import _unrolled as unrolled
from ._spaces import AbstractStateSpace


@jax.jit
def prior_covariance(
    space: AbstractStateSpace,
    s: Float[Array, " m"],
    t: Float[Array, " n"],
    rows: jax.Array,
    columns: jax.Array,
) -> Float[Array, "m p n q"]:
    r"""$h_i^T \operatorname{Cov}(x(s), x(t)) h_j$, shape `(m, p, n, q)`.

    From $\operatorname{Cov}(x(t), x(s)) = A(t - s) \Pi(s)$ for $t \ge s$, block by block.

    Args:
        space: the state space.
        s: times `(m,)`, in any order.
        t: times `(n,)`.
        rows: what is read at `s`, `(m, p, d)` or `(1, p, d)`.
        columns: what is read at `t`, `(n, q, d)` or `(1, q, d)`.
    """
    early = jnp.minimum(s[:, None], t)
    step = jnp.abs(s[:, None] - t)
    total: Any = 0.0
    first = 0
    for block in space.blocks:
        at = slice(first, first := first + block.size)
        cov = unrolled.matmul(block.transition(step), block.marginal(early))
        later = unrolled.stacked(cov, step.shape, step.dtype)  # of the later time and the earlier
        both = (rows[..., at], columns[..., at])
        shape = (*step.shape, block.size, block.size)
        total = total + _read(jnp.broadcast_to(later, shape), s[:, None] > t, *both)
    return total


def _read(cov: jax.Array, s_is_later: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    m, n = cov.shape[:2]
    rows = jnp.broadcast_to(rows, (m, *rows.shape[1:]))
    columns = jnp.broadcast_to(columns, (n, *columns.shape[1:]))
    contract = functools.partial(jnp.einsum, precision="highest")
    of_s = contract("mpi,mnij,nqj->mpnq", rows, cov, columns)
    of_t = contract("mpi,mnji,nqj->mpnq", rows, cov, columns)
    return jnp.where(s_is_later[:, None, :, None], of_s, of_t)
