"""Dense matrices as operators: Cholesky, triangular and LU solves."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Inexact

from .._core import (
    cho_solve,
    cholesky_each,
    inverse_tril,
    needed_jitter,
    on_failure,
    safe_cholesky,
    solve_triangular,
)
from . import _general as general
from ._checks import checked_arrays
from ._operator import AbstractOperator
from ._tags import checked_tags, psd

LEAF = 128  # rows up to which zeros are multiplied too


class Dense(AbstractOperator):
    """Dense matrix, with the interface of the structured ones.

    `solve` and `logdet` use a Cholesky factor if tagged `ops.psd` (no jitter; an indefinite
    matrix is an error at run time), triangular solves if tagged so, else LU. `root` adds jitter
    where needed and reports it in `root().jitter`.

    Args:
        matrix: shape `(m, n)`.
        tags: properties, such as `ops.psd` or `lineax.lower_triangular_tag`; believed.
        jitter: what was added to a diagonal to obtain this matrix, if anything.

    Raises:
        ValueError: `matrix` is not two-dimensional or does not hold floating-point numbers.
    """

    matrix: Inexact[Array, "m n"]
    tags: frozenset[object] = eqx.field(static=True)
    jitter: Inexact[Array, ""]

    def __init__(self, matrix: Any, tags: object = (), jitter: Any = 0.0):
        (self.matrix,) = checked_arrays("Dense", {"matrix": matrix})
        if self.matrix.ndim != 2:
            raise ValueError(f"Dense: matrix must have two axes, got shape {self.matrix.shape}")
        self.tags = checked_tags("Dense", tags)
        if isinstance(jitter, str) or jnp.ndim(jitter) != 0:
            raise ValueError(f"Dense: jitter must be a scalar, got {jitter!r:.40}")
        self.jitter = jnp.asarray(jitter, self.matrix.dtype)

    @property
    def shape(self) -> tuple[int, int]:
        return self.matrix.shape  # ty: ignore

    @property
    def dtype(self) -> Any:
        return self.matrix.dtype

    def transpose(self) -> Dense:
        if lx.is_symmetric(self):
            return self
        return Dense(self.matrix.T, lx.transpose_tags(self.tags), self.jitter)

    def _mm(self, x: jax.Array) -> jax.Array:
        return self.matrix @ x

    def _solve(self, b: jax.Array) -> jax.Array:
        lower, upper = lx.is_lower_triangular(self), lx.is_upper_triangular(self)
        if lower or upper:
            return solve_triangular(self.matrix, b, lower=lower)
        if psd in self.tags:
            return cho_solve((self.cholesky("solve"), True), b)
        return jnp.linalg.solve(self.matrix, b)

    def _logdet(self) -> jax.Array:
        if lx.is_lower_triangular(self) or lx.is_upper_triangular(self):
            return jnp.sum(jnp.log(jnp.abs(jnp.diag(self.matrix))))
        if psd in self.tags:
            return _psd_terms(self.matrix, jnp.zeros((len(self.matrix), 0), self.dtype))[1]
        return jnp.linalg.slogdet(self.matrix)[1]

    def _diag(self) -> jax.Array:
        return jnp.diag(self.matrix)

    def _root(self) -> Dense:
        factor = safe_cholesky(self.matrix)
        tril = _finite(factor.tril, self.matrix, "root")
        return Dense(tril, lx.lower_triangular_tag, self.jitter + factor.jitter)

    def cholesky(self, what: str = "cholesky") -> Inexact[Array, "n n"]:
        """The lower Cholesky factor, shape `(n, n)`, without jitter.

        Args:
            what: what needs it, for the text of the error.

        Raises:
            RuntimeError: the matrix is finite and not positive definite.
        """
        return _tril_of(self.matrix, what)


@general.as_matrix.register
def _(operator: Dense) -> jax.Array:
    return operator.matrix


@general.inv_quad_logdet.register
def _(operator: Dense, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    if lx.is_lower_triangular(operator) or lx.is_upper_triangular(operator):
        return general.inv_quad(operator, y), operator._logdet()
    quad, logdet = _psd_terms(operator.matrix, y if y.ndim == 2 else y[:, None])
    return quad.reshape(y.shape[1:]), logdet


def residual_covariance(matrix: Inexact[Array, "n n"], scale: Inexact[Array, ""]) -> Dense:
    """A posterior covariance, tagged `ops.psd`, with the jitter that its rounding needs.

    Args:
        matrix: a prior covariance minus what the data explain of it, shape `(n, n)`.
        scale: the mean variance before data, scalar.
    """
    jitter = needed_jitter(matrix, scale)
    return Dense(matrix + jitter * jnp.eye(len(matrix), dtype=matrix.dtype), psd, jitter)


@jax.custom_jvp
def _psd_terms(matrix: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""$y_j^\top A^{-1} y_j$ for each column, and $\log\det A$, from one Cholesky factor.

    The derivatives are $2 \alpha^\top dy - \alpha^\top dA\, \alpha$ and $\mathrm{tr}(A^{-1} dA)$:
    with the inverse at hand, that costs a third of differentiating the factor.
    """
    tril = _tril_of(matrix, "inv_quad_logdet")
    half = solve_triangular(tril, y, lower=True)
    return jnp.sum(half**2, axis=0), 2 * jnp.sum(jnp.log(jnp.diag(tril)))


@_psd_terms.defjvp
def _(primals: Any, tangents: Any) -> tuple[Any, Any]:
    (matrix, y), (d_matrix, d_y) = primals, tangents
    tril = _tril_of(matrix, "inv_quad_logdet")
    inverse = inverse_of(tril)
    alpha = cho_solve((tril, True), y)
    d_quad = 2 * jnp.sum(alpha * d_y, axis=0) - jnp.sum(alpha * (d_matrix @ alpha), axis=0)
    logdet = 2 * jnp.sum(jnp.log(jnp.diag(tril)))
    return (jnp.sum(y * alpha, axis=0), logdet), (d_quad, jnp.sum(inverse * d_matrix))


def inverse_of(tril: Inexact[Array, "n n"]) -> Inexact[Array, "n n"]:
    r"""$(L L^\top)^{-1}$ by halves, so that nearly all of it is products of matrices.

    Args:
        tril: lower triangular, shape `(n, n)`.
    """
    return _outer_halves(inverse_tril(tril))


def _outer_halves(tril: jax.Array) -> jax.Array:
    r"""$W^\top W$ of a lower triangular matrix, without the products of its zeros."""
    n = len(tril)
    if n <= LEAF:
        return tril.T @ tril
    half = n // 2
    below, second = tril[half:, :half], tril[half:, half:]
    first = _outer_halves(tril[:half, :half]) + below.T @ below
    across = second.T @ below
    return jnp.block([[first, across.T], [across, _outer_halves(second)]])


def _tril_of(matrix: jax.Array, what: str) -> jax.Array:
    return _finite(cholesky_each(0.5 * (matrix + matrix.T)), matrix, what)


def _finite(tril: jax.Array, matrix: jax.Array, what: str) -> jax.Array:
    # A matrix that holds NaN gives NaN, which samplers know to avoid; a finite one is at fault.
    failed = ~jnp.all(jnp.isfinite(jnp.diag(tril)))
    return eqx.error_if(
        tril,
        failed & jnp.all(jnp.isfinite(matrix)),
        f"{what}: the matrix is not positive definite; add a multiple of the identity",
        on_error=on_failure(),
    )
