"""Matrices of low rank, and low rank plus diagonal (Woodbury identity)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Inexact

from .._core import cho_solve, cholesky_each, solve_triangular
from . import _general as general
from ._checks import checked_arrays, checked_size
from ._dense import Dense
from ._diagonal import Diag
from ._factors import check_each, kept, symmetric_solve
from ._operator import AbstractOperator, unknown
from ._stacks import HStack
from ._tags import psd


class LowRankPlusDiag(AbstractOperator):
    r"""Low rank plus diagonal, $\mathrm{diag}(d) + U U^\top$ with $d > 0$: solves by Woodbury.

    With $V = D^{-1/2} U$, everything goes through $C = I + V^\top V = L L^\top$, which is
    $r \times r$ and factorised once, when the operator is made, in $O(n r^2)$. Then products,
    solves and draws take $O(n r)$ a column. In float32 $L$ comes from the QR decomposition of
    $[V; I]$ in place of $C$, which loses half as many digits when $d$ is small.

    Derivatives go to $U$ and $d$; that of `logdet` is $A^{-1}$ on the entries that they touch.
    To change $U$ or $d$ make a new operator: a replaced field would not agree with $L$.

    Args:
        factor: $U$, shape `(n, r)`.
        diagonal: $d$, shape `(n,)`, positive.

    Raises:
        ValueError: shapes that do not fit, or types that differ or are not floating-point.
        RuntimeError: an element of `diagonal` is not positive; the text says which.

    References:
        Rasmussen and Williams (2006), "Gaussian processes for machine learning", appendix A.3
        (Woodbury identity and determinant lemma).
    """

    factor: Inexact[Array, "n r"]
    diagonal: Inexact[Array, " n"]
    inner_tril: Inexact[Array, "r r"]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, factor: Any, diagonal: Any):
        shapes = (jnp.shape(factor), jnp.shape(diagonal))
        if len(shapes[0]) != 2 or shapes[1] != shapes[0][:1]:
            raise ValueError(
                "LowRankPlusDiag: factor must have shape (n, r) and diagonal (n,); got "
                f"{shapes[0]} and {shapes[1]}"
            )
        arrays = checked_arrays("LowRankPlusDiag", {"factor": factor, "diagonal": diagonal})
        self.factor, diagonal = arrays
        checked_size("LowRankPlusDiag", diagonal.size)
        self.diagonal = check_each(
            diagonal, ~(diagonal > 0), "LowRankPlusDiag: diagonal[{}] is not positive"
        )
        self.inner_tril = _inner_tril(*jax.lax.stop_gradient((self.factor, self.diagonal)))
        self.tags = frozenset([psd])

    @property
    def shape(self) -> tuple[int, int]:
        return (self.diagonal.size, self.diagonal.size)

    @property
    def dtype(self) -> Any:
        return self.diagonal.dtype

    def transpose(self) -> LowRankPlusDiag:
        return self

    def _mm(self, x: jax.Array) -> jax.Array:
        return self.diagonal[:, None] * x + self.factor @ (self.factor.T @ x)

    def _solve(self, b: jax.Array) -> jax.Array:
        fixed = jax.lax.stop_gradient(self)
        scale, scaled = fixed._scaled()

        def solve(b: jax.Array) -> jax.Array:
            unit = b / scale[:, None]
            return (unit - scaled @ fixed._least_squares(scaled, unit)) / scale[:, None]

        return symmetric_solve(self._mm, solve, b)

    def _logdet(self) -> jax.Array:
        return _logdet(self)

    def _diag(self) -> jax.Array:
        return self.diagonal + jnp.sum(self.factor**2, axis=1)

    def _root(self) -> HStack:
        """$[D^{1/2}, U]$, shape `(n, n + r)`."""
        return HStack(Diag(jnp.sqrt(self.diagonal), psd), Dense(self.factor))

    def _least_squares(self, scaled: jax.Array, unit: jax.Array) -> jax.Array:
        r"""$C^{-1} V^\top$ times `unit`; corrected once in float32, as QR deserves."""
        inside = cho_solve((self.inner_tril, True), scaled.T @ unit)
        if self.dtype == jnp.float64:
            return inside
        rest = scaled.T @ (unit - scaled @ inside) - inside
        return inside + cho_solve((self.inner_tril, True), rest)

    def _scaled(self) -> tuple[jax.Array, jax.Array]:
        """$D^{1/2}$ as a vector, and $V$."""
        scale = jnp.sqrt(self.diagonal)
        return scale, self.factor / scale[:, None]

    def inner_cholesky(self) -> Inexact[Array, "r r"]:
        """The factor $L$ with its derivatives, shape `(r, r)`."""
        return kept((self.factor, self.diagonal), self.inner_tril, factorise=_inner_tril)


@general.inv_quad_logdet.register
def _(operator: LowRankPlusDiag, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    # The product of y and the solution cancels badly where y is in the span of U, as data are. The
    # same number as the least value of |y - V x|² + |x|² (scaled) hardly feels an error of x.
    # Derivatives are those of the product.
    product = general.inv_quad(operator, y)
    fixed = jax.lax.stop_gradient(operator)
    scale, scaled = fixed._scaled()
    unit = (jax.lax.stop_gradient(y).T / scale).T
    inside = fixed._least_squares(scaled, unit)
    least = jnp.sum((unit - scaled @ inside) ** 2, axis=0) + jnp.sum(inside**2, axis=0)
    return least + (product - jax.lax.stop_gradient(product)), operator._logdet()


@general.inverse_diag.register
def _inverse_diag(operator: LowRankPlusDiag) -> jax.Array:
    _, scaled = operator._scaled()
    half = solve_triangular(operator.inner_cholesky(), scaled.T, lower=True)
    return (1 - jnp.sum(half**2, axis=0)) / operator.diagonal


@general.sample_inverse.register
def _(operator: LowRankPlusDiag, key: jax.Array, num: int) -> jax.Array:
    # With M = V C⁻¹, e - M (Vᵀ e + e') has the covariance I - M Vᵀ = (I + V Vᵀ)⁻¹.
    (n, r), (key_outer, key_inner) = operator.factor.shape, random.split(key)
    outer = random.normal(key_outer, (n, num), operator.dtype)
    inner = random.normal(key_inner, (r, num), operator.dtype)
    scale, scaled = operator._scaled()
    inside = cho_solve((operator.inner_cholesky(), True), scaled.T @ outer + inner)
    return (outer - scaled @ inside) / scale[:, None]


class LowRank(AbstractOperator):
    r"""Matrix of low rank $U V^\top$, or $U U^\top$ if only one factor is given.

    $U U^\top$ plus `ScaledIdentity` or a positive `Diag` is a `LowRankPlusDiag`, which has one.

    Args:
        left: $U$, shape `(n, r)`.
        right: $V$, shape `(m, r)`; by default $U$.

    Raises:
        ValueError: the factors do not have the same number of columns, or types differ.
    """

    left: Inexact[Array, "n r"]
    right: Inexact[Array, "m r"] | None
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, left: Any, right: Any = None):
        shapes = (jnp.shape(left), jnp.shape(left if right is None else right))
        if any(len(shape) != 2 for shape in shapes) or shapes[0][1] != shapes[1][1]:
            raise ValueError(
                f"LowRank: left must have shape (n, r) and right (m, r); got {shapes[0]} and "
                f"{shapes[1]}"
            )
        given = {"left": left} if right is None else {"left": left, "right": right}
        self.left, *rest = checked_arrays("LowRank", given)
        self.right = rest[0] if rest else None
        self.tags = frozenset([psd] if right is None else [])

    @property
    def shape(self) -> tuple[int, int]:
        return (self.left.shape[0], self.second.shape[0])

    @property
    def dtype(self) -> Any:
        return self.left.dtype

    def transpose(self) -> LowRank:
        return self if self.right is None else LowRank(self.right, self.left)

    def _mm(self, x: jax.Array) -> jax.Array:
        return self.left @ (self.second.T @ x)

    def _diag(self) -> jax.Array:
        return jnp.sum(self.left * self.second, axis=1)

    def _root(self) -> Dense:
        return Dense(self.left)

    _solve, _logdet = map(unknown, ("solve", "logdet"))

    @property
    def second(self) -> Inexact[Array, "m r"]:
        """$V$, which may be $U$."""
        return self.left if self.right is None else self.right


@eqx.filter_custom_jvp
def _logdet(operator: LowRankPlusDiag) -> jax.Array:
    inner = jnp.sum(jnp.log(jnp.diag(operator.inner_tril)))
    return jnp.sum(jnp.log(operator.diagonal)) + 2 * inner


@_logdet.def_jvp
def _logdet_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (operator,), (change,) = primals, tangents
    total = jnp.zeros((), operator.dtype)
    if change.diagonal is not None:
        total += jnp.sum(_inverse_diag(operator) * change.diagonal)
    if change.factor is not None:  # A⁻¹ U = D^{-1/2} V C⁻¹
        scale, scaled = operator._scaled()
        solved = cho_solve((operator.inner_cholesky(), True), scaled.T).T / scale[:, None]
        total += 2 * jnp.sum(solved * change.factor)
    return _logdet(operator), total


def _inner_tril(factor: jax.Array, diagonal: jax.Array) -> jax.Array:
    scaled = factor / jnp.sqrt(diagonal)[:, None]
    eye = jnp.eye(factor.shape[1], dtype=factor.dtype)
    if factor.dtype == jnp.float64:
        return cholesky_each(eye + scaled.T @ scaled)
    upper = jnp.linalg.qr(jnp.concatenate([scaled, eye]), mode="r")
    return (jnp.where(jnp.diag(upper) < 0, -1, 1)[:, None] * upper).T.astype(factor.dtype)
