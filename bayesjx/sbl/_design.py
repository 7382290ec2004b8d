"""Products with a design matrix, an array or an operator, real or complex."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._core import solve_triangular
from ..ops import AbstractOperator


def dense(design: Any) -> jax.Array:
    """The matrix as an array."""
    return design.as_matrix() if isinstance(design, AbstractOperator) else jnp.asarray(design)


def times(design: Any, x: jax.Array) -> jax.Array:
    r"""$\Phi X$ for `x` of shape `(m, k)`."""
    return design.mm(x) if isinstance(design, AbstractOperator) else design @ x


def adjoint_times(design: Any, x: jax.Array) -> jax.Array:
    r"""$\Phi^H X$ for `x` of shape `(n, k)`."""
    if isinstance(design, AbstractOperator):
        return design.transpose().mm(x.conj()).conj()
    return design.mT.conj() @ x


def gram(design: Any) -> jax.Array:
    r"""$\Phi^H \Phi$, shape `(m, m)`."""
    return adjoint_times(design, dense(design))


def outer(design: Any, prior_var: jax.Array) -> jax.Array:
    r"""$\Phi \,\mathrm{diag}(g)\, \Phi^H$, shape `(n, n)`."""
    if isinstance(design, AbstractOperator):
        identity = jnp.eye(design.shape[0], dtype=design.dtype)
        return times(design, prior_var[:, None] * adjoint_times(design, identity))
    return (design * prior_var) @ design.mT.conj()


def square(x: jax.Array) -> jax.Array:
    """Squared absolute values, real."""
    return jnp.real(x) ** 2 + jnp.imag(x) ** 2 if jnp.iscomplexobj(x) else x**2


def solve_tril(tril: jax.Array, b: jax.Array) -> jax.Array:
    r"""$L^{-1} B$ for `b` of shape `(n, k)`."""
    return solve_triangular(tril, b, lower=True)


def solve_adjoint(tril: jax.Array, b: jax.Array) -> jax.Array:
    r"""$L^{-H} B$ for `b` of shape `(n, k)`."""
    return solve_triangular(tril, b.conj(), trans=1, lower=True).conj()
