"""Kronecker sums of any number of factors."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Inexact

from ._checks import checked_arrays, checked_size
from ._dense import Dense
from ._diagonal import ScaledIdentity
from ._kron import AbstractKron, factor_arrays, Kron, outer_grid, refuse_tags
from ._kron_noise import KronPlusNoise
from ._stacks import HStack
from ._tags import checked_tags, psd, symmetric


class KronSum(AbstractKron):
    r"""Kronecker sum $K_1 \oplus \dots \oplus K_D = \sum_d I \otimes \dots K_d \dots \otimes I$.

    Eigenvectors are those of the Kronecker product and eigenvalues add up, so `solve` and `logdet`
    take $\sum_d n_d^3 + N \sum_d n_d$, with derivatives that are finite for equal eigenvalues.

    Args:
        *factors: symmetric matrices, shape `(n_d, n_d)`, or operators, which are made dense.
        tags: `ops.psd` if all factors are positive semi-definite; they are taken as symmetric. By
            default those that all factors given as operators share.

    Raises:
        ValueError: no factor, or one that is not square or is known not to be symmetric; integer
            or mixed types.
    """

    factors: tuple[Inexact[Array, "_m _n"], ...]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, *factors: Any, tags: object = ()):
        arrays, shared = factor_arrays("KronSum", factors)
        named = {f"factor {d}": f for d, f in enumerate(arrays)}
        self.factors = checked_arrays("KronSum", named)
        for d, shape in enumerate(factor.shape for factor in self.factors):
            if len(shape) != 2 or shape[0] != shape[1] or 0 in shape:
                raise ValueError(f"KronSum: factor {d} must be a square matrix, got shape {shape}")
            _refuse_asymmetric(d, self.factors[d])
        self.tags = checked_tags("KronSum", tags) | shared | {symmetric}
        refuse_tags("KronSum", self.tags, {lx.tridiagonal_tag, lx.unit_diagonal_tag}, len(arrays))
        checked_size("KronSum", self.shape[0])

    @property
    def shape(self) -> tuple[int, int]:
        n = math.prod(len(f) for f in self.factors)
        return (n, n)

    def combine(self, left: jax.Array, right: jax.Array) -> jax.Array:
        """The sum."""
        return left + right

    def transpose(self) -> KronSum:
        return self

    def _mm(self, x: jax.Array) -> jax.Array:
        grid = x.reshape(*self.grid, x.shape[1])
        total = jnp.zeros_like(grid)
        for axis, factor in enumerate(self.factors):
            product = jnp.tensordot(factor, grid, (1, axis))
            total = total + jnp.moveaxis(product, 0, axis)
        return total.reshape(x.shape)

    def _solve(self, b: jax.Array) -> jax.Array:
        return self._spectrum()._solve(b)

    def _logdet(self) -> jax.Array:
        return self._spectrum()._logdet()

    def _diag(self) -> jax.Array:
        return outer_grid([jnp.diag(f) for f in self.factors], jnp.add).reshape(-1)

    def _root(self) -> HStack:
        roots = []
        for axis, factor in enumerate(self.factors):
            parts = [jnp.eye(n, dtype=self.dtype) for n in self.grid]
            parts[axis] = Dense(factor, psd)._root().matrix
            roots.append(Kron(*parts))
        return HStack(*roots)

    def _spectrum(self) -> KronPlusNoise:
        return KronPlusNoise(self, ScaledIdentity(jnp.zeros((), self.dtype), self.shape[0]))


def _refuse_asymmetric(d: int, factor: jax.Array) -> None:
    if isinstance(factor, jax.core.Tracer):
        return
    known = np.asarray(factor)
    rounding = np.finfo(known.dtype).eps ** 0.5 * np.max(np.abs(known))
    if np.any(np.abs(known - known.T) > rounding):
        raise ValueError(f"KronSum: factor {d} must be a symmetric matrix, got {known}")
