"""Matrices whose rows and columns stand in another order."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from . import _general as general
from ._operator import AbstractOperator
from ._tags import psd, symmetric


class Reordered(AbstractOperator):
    r"""$P A P^\top$: element $i$ of the vectors of $A$ is element `order[i]` of its own.

    For structure over parameters that lie apart, as the weights and the biases of a layer.

    Args:
        operator: $A$, square, with `n` rows.
        order: a permutation of `0, ..., n - 1`; believed where it is traced.

    Raises:
        ValueError: the operator is not square, or `order` is no permutation.
    """

    operator: AbstractOperator
    order: Int[Array, " n"]
    inverse: Int[Array, " n"]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, operator: AbstractOperator, order: Any):
        if not isinstance(operator, AbstractOperator) or len(set(operator.shape)) != 1:
            raise ValueError("Reordered: operator must be a square operator of bayesjx.ops")
        size = operator.shape[0]
        good = np.shape(order) == (size,)
        if good and not isinstance(order, jax.core.Tracer):
            good = np.array_equal(np.sort(np.asarray(order)), np.arange(size))
        if not good:
            raise ValueError(f"Reordered: order must be a permutation of 0, ..., {size - 1}")
        self.operator = operator
        self.order = jnp.asarray(order, jnp.int32)
        self.inverse = jnp.argsort(self.order).astype(self.order.dtype)
        self.tags = operator.tags & {psd, symmetric}

    @property
    def shape(self) -> tuple[int, int]:
        return self.operator.shape

    @property
    def dtype(self) -> Any:
        return self.operator.dtype

    def transpose(self) -> Reordered:
        return Reordered(self.operator.transpose(), self.order)

    def _mm(self, x: jax.Array) -> jax.Array:
        return self.operator._mm(x[self.order])[self.inverse]

    def _solve(self, b: jax.Array) -> jax.Array:
        return self.operator._solve(b[self.order])[self.inverse]

    def _logdet(self) -> jax.Array:
        return self.operator._logdet()

    def _diag(self) -> jax.Array:
        return self.operator._diag()[self.inverse]

    def _root(self) -> Reordered:
        return Reordered(self.operator._root(), self.order)


@general.psd_logdet.register
def _(operator: Reordered) -> jax.Array:
    return general.psd_logdet(operator.operator)


@general.inverse_diag.register
def _(operator: Reordered) -> jax.Array:
    return general.inverse_diag(operator.operator)[operator.inverse]
