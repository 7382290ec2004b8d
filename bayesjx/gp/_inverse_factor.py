"""Inverses of Cholesky factors, so that whitening is a product of matrices."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .._core import cholesky_each, compiled, inverse_tril, safe_cholesky


@jax.custom_jvp
def inverse_factor(matrix: Float[Array, "n n"]) -> tuple[Float[Array, "n n"], Float[Array, ""]]:
    r"""$L^{-1}$ of the Cholesky factor $L$ of a matrix, and the jitter that it needed.

    A triangular solve with a minibatch costs several times as much as the product with the inverse,
    and so do the solves in the usual derivative of a factor; here all work but the factor itself is
    products. As accurate as solves where the matrix has been kept away from singularity by a
    jitter, which `safe_cholesky` adds where there is no factor.

    Args:
        matrix: symmetric, shape `(m, m)`.

    Returns:
        lower triangular, shape `(m, m)`, NaN if no jitter helped, and the jitter, a scalar.

    References:
        Murray (2016), "Differentiation of the Cholesky decomposition", equation 8.
    """
    tril, jitter = _factor(matrix)
    return inverse_tril(tril), jitter


@compiled
def _factor(matrix: jax.Array) -> tuple[jax.Array, jax.Array]:
    tril = cholesky_each(matrix)
    none = jnp.zeros((), matrix.dtype)
    return jax.lax.cond(
        jnp.all(jnp.isfinite(jnp.diagonal(tril))),
        lambda: (tril, none),
        lambda: tuple(safe_cholesky(matrix)),
    )


@inverse_factor.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (matrix,), (change,) = primals, tangents
    inverse, jitter = inverse_factor(matrix)
    inside = _by_transpose(written_out(inverse.T), change) @ inverse.T
    # It is symmetric as the change is, so half of it is enough.
    half = jnp.tril(inside, -1) + 0.5 * jnp.diag(jnp.diagonal(inside))
    return (inverse, jitter), (-half @ inverse, jnp.zeros_like(jitter))


@jax.custom_jvp
def product(left: Float[Array, "*b n m"], right: Float[Array, "m k"]) -> Float[Array, "*b n k"]:
    """The product of matrices, with a reverse derivative that is as fast as itself.

    XLA takes twice the time on CPUs for a left factor that is to be transposed on the way, so the
    transpose is written out.
    """
    return left @ right


@product.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (left, right), (left_change, right_change) = primals, tangents
    moved = _by_transpose(written_out(left.mT), right_change)
    return left @ right, moved + left_change @ right


def written_out(matrix: Float[Array, "*b n m"]) -> Float[Array, "*b n m"]:
    """The matrix, in memory of its own."""
    return jax.lax.optimization_barrier(matrix)


def root_of_inverse(matrix: Float[Array, "*b n n"]) -> Float[Array, "*b n n"]:
    r"""Lower triangular $R$ with $R R^\top = \Lambda^{-1}$.

    The factor of the matrix with rows and columns in reverse, reversed again, is upper triangular;
    the transpose of its inverse is the root.

    Args:
        matrix: $\Lambda$, positive definite, shape `(..., m, m)`.
    """
    return inverse_tril(cholesky_each(matrix[..., ::-1, ::-1])).mT[..., ::-1, ::-1]


def _by_transpose(left: jax.Array, right: jax.Array) -> jax.Array:
    """The transpose of the left matrix times the right one; in reverse the left one multiplies."""
    return jnp.einsum("...ji,...jk->...ik", left, right)
