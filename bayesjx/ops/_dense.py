"""Dense, diagonal and scaled identity matrices as operators."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np

from .._core import (
    cho_solve,
    cholesky_each,
    inverse_tril,
    needed_jitter,
    on_failure,
    safe_cholesky,
    solve_triangular,
)
from ._operator import AbstractOperator, checked_arrays
from ._tags import checked_tags, psd, scaled_tags, shared_tags, symmetric

LEAF = 128  # rows up to which zeros are multiplied too


class Dense(AbstractOperator):
    """A dense matrix with the interface of the structured ones, which it serves as oracle.

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

    matrix: jax.Array
    tags: frozenset[object] = eqx.field(static=True)
    jitter: jax.Array

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
            return cho_solve((self._tril("solve"), True), b)
        return jnp.linalg.solve(self.matrix, b)

    def _logdet(self) -> jax.Array:
        if lx.is_lower_triangular(self) or lx.is_upper_triangular(self):
            return jnp.sum(jnp.log(jnp.abs(jnp.diag(self.matrix))))
        if psd in self.tags:
            return _psd_terms(self.matrix, jnp.zeros((len(self.matrix), 0), self.dtype))[1]
        return jnp.linalg.slogdet(self.matrix)[1]

    def _inv_quad_logdet(self, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        if lx.is_lower_triangular(self) or lx.is_upper_triangular(self):
            return super()._inv_quad_logdet(y)
        quad, logdet = _psd_terms(self.matrix, y if y.ndim == 2 else y[:, None])
        return quad.reshape(y.shape[1:]), logdet

    def _diag(self) -> jax.Array:
        return jnp.diag(self.matrix)

    def _root(self) -> Dense:
        factor = safe_cholesky(self.matrix)
        tril = _finite(factor.tril, self.matrix, "root")
        return Dense(tril, lx.lower_triangular_tag, self.jitter + factor.jitter)

    def _plus(self, other: Any) -> AbstractOperator | None:
        if not isinstance(other, AbstractOperator):
            return None
        tags = shared_tags(self, other)
        if isinstance(other, (Diag, ScaledIdentity)):
            n = jnp.arange(self.shape[0])
            return Dense(self.matrix.at[n, n].add(other._diag()), tags)
        return Dense(self.matrix + other.as_matrix(), tags)

    def _multiple(self, factor: jax.Array, sign: int) -> Dense:
        return Dense(factor * self.matrix, scaled_tags(self.tags, sign), factor * self.jitter)

    def _tril(self, what: str) -> jax.Array:
        return _tril_of(self.matrix, what)


def left_of(matrix: jax.Array, scale: jax.Array) -> Dense:
    """A covariance after data, tagged `psd`, with the jitter that its rounding needs.

    Args:
        matrix: a covariance less what data explain of it, shape `(n, n)`.
        scale: the mean variance before data, scalar.
    """
    jitter = needed_jitter(matrix, scale)
    return Dense(matrix + jitter * jnp.eye(len(matrix), dtype=matrix.dtype), psd, jitter)


class Diag(AbstractOperator):
    """A diagonal matrix.

    Args:
        entries: the diagonal, shape `(n,)`.
        tags: further properties; `ops.psd` if no entry is negative.

    Raises:
        ValueError: `entries` is not a vector of floating-point numbers.
    """

    entries: jax.Array
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, entries: Any, tags: object = ()):
        (self.entries,) = checked_arrays("Diag", {"entries": entries})
        if self.entries.ndim != 1:
            raise ValueError(f"Diag: entries must have one axis, got shape {self.entries.shape}")
        self.tags = checked_tags("Diag", tags) | {lx.diagonal_tag}

    @property
    def shape(self) -> tuple[int, int]:
        return (self.entries.size, self.entries.size)

    @property
    def dtype(self) -> Any:
        return self.entries.dtype

    def transpose(self) -> Diag:
        return self

    def _mm(self, x: jax.Array) -> jax.Array:
        return self.entries[:, None] * x

    def _solve(self, b: jax.Array) -> jax.Array:
        return b / self.entries[:, None]

    def _logdet(self) -> jax.Array:
        return jnp.sum(jnp.log(jnp.abs(self.entries)))

    def _diag(self) -> jax.Array:
        return self.entries

    def _root(self) -> Diag:
        return Diag(jnp.sqrt(self.entries), psd)

    def _psd_logdet(self) -> jax.Array:
        return jnp.sum(jnp.log(self.entries))

    def _plus(self, other: Any) -> AbstractOperator | None:
        if isinstance(other, (Diag, ScaledIdentity)):
            return Diag(self.entries + other._diag(), shared_tags(self, other))
        return None

    def _multiple(self, factor: jax.Array, sign: int) -> Diag:
        return Diag(factor * self.entries, scaled_tags(self.tags, sign))


class ScaledIdentity(AbstractOperator):
    """A multiple of the identity, as the noise of a Gaussian process.

    Args:
        scale: the multiple, scalar; a variance when it stands for noise.
        size: number of rows; 0, the default, stands for that of the operator it is added to, as in
            `K + ops.ScaledIdentity(0.1)`. A number that was no array takes its type, too.
        tags: `ops.psd`, the default, for a variance; none for a shift that may be negative.

    Raises:
        ValueError: `scale` is not a scalar of floating-point type, or `size` is no size.
    """

    scale: jax.Array
    size: int = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, scale: Any, size: int = 0, tags: object = psd):
        (self.scale,) = checked_arrays("ScaledIdentity", {"scale": scale})
        if self.scale.ndim != 0:
            raise ValueError(f"ScaledIdentity: scale must be a scalar, got {self.scale.shape}")
        if not isinstance(size, (int, np.integer)) or isinstance(size, bool) or size < 0:
            raise ValueError(f"ScaledIdentity: size must be an integer, 0 or more, got {size!r}")
        self.size = int(size)
        self.tags = checked_tags("ScaledIdentity", tags) | {lx.diagonal_tag, symmetric}

    @property
    def shape(self) -> tuple[int, int]:
        return (self.size, self.size)

    @property
    def dtype(self) -> Any:
        return self.scale.dtype

    def transpose(self) -> ScaledIdentity:
        return self

    def _mm(self, x: jax.Array) -> jax.Array:
        return self.scale * x

    def _solve(self, b: jax.Array) -> jax.Array:
        return b / self.scale

    def _logdet(self) -> jax.Array:
        return self.shape[0] * jnp.log(jnp.abs(self.scale))

    def _diag(self) -> jax.Array:
        return jnp.full(self.shape[0], self.scale)

    def _psd_logdet(self) -> jax.Array:
        return self.shape[0] * jnp.log(self.scale)

    def _root(self) -> ScaledIdentity:
        return ScaledIdentity(jnp.sqrt(self.scale), self.size)

    def _plus(self, other: Any) -> AbstractOperator | None:
        if isinstance(other, ScaledIdentity):
            return ScaledIdentity(self.scale + other.scale, self.size, shared_tags(self, other))
        return None

    def _multiple(self, factor: jax.Array, sign: int) -> ScaledIdentity:
        tags = scaled_tags(self.tags, sign)
        return ScaledIdentity(factor * self.scale, self.size, tags)

    def _need_size(self, what: str) -> None:
        if not self.size:
            raise ValueError(
                f"{what}: this ScaledIdentity leaves its size open, which only a sum or a product "
                "with another operator gives it; say size=n"
            )

    def _fitted(self, size: int, dtype: Any) -> ScaledIdentity:
        scale = self.scale.astype(dtype) if self.scale.weak_type else self.scale
        return ScaledIdentity(scale, self.size or size, self.tags)


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


def inverse_of(tril: jax.Array) -> jax.Array:
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
