"""Multiples of an operator that has no multiples of its own kind."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx

from ._operator import AbstractOperator
from ._tags import psd, scaled_tags


class Scaled(AbstractOperator):
    r"""$c A$ for an operator whose kind holds no such multiple, as a negative one of a covariance.

    Made by `c * A`, `A / c` and `-A` where those are no operator of the same kind. It can do what
    `A` can: solves and determinants come from those of `A`.

    Args:
        base: $A$.
        factor: $c$, scalar, of the type of the operator.
        tags: what is known of the product.
    """

    base: AbstractOperator
    factor: jax.Array
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, base: AbstractOperator, factor: jax.Array, tags: frozenset[object]):
        self.base = base
        self.factor = jnp.asarray(factor, base.dtype)
        self.tags = tags

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape

    @property
    def dtype(self) -> Any:
        return self.base.dtype

    def transpose(self) -> Scaled:
        return Scaled(self.base.transpose(), self.factor, lx.transpose_tags(self.tags))

    def _mm(self, x: jax.Array) -> jax.Array:
        return self.factor * self.base._mm(x)

    def _solve(self, b: jax.Array) -> jax.Array:
        return self.base._solve(b / self.factor)

    def _logdet(self) -> jax.Array:
        return self.base._logdet() + self.shape[0] * jnp.log(jnp.abs(self.factor))

    def _psd_logdet(self) -> jax.Array:
        if psd not in self.base.tags:
            return self._logdet()
        return self.base._psd_logdet() + self.shape[0] * jnp.log(self.factor)

    def _diag(self) -> jax.Array:
        return self.factor * self.base._diag()

    def _inverse_diag(self) -> jax.Array:
        return self.base._inverse_diag() / self.factor

    def _root(self) -> AbstractOperator:
        if psd not in self.base.tags:
            raise self._unknown("root")
        return self.base._root() * jnp.sqrt(self.factor)

    def _sample(self, key: jax.Array, num: int) -> jax.Array:
        if psd not in self.base.tags:
            raise self._unknown("sample")
        return jnp.sqrt(self.factor) * self.base._sample(key, num)

    def _sample_inverse(self, key: jax.Array, num: int) -> jax.Array:
        if psd not in self.base.tags:
            raise self._unknown("sample_inverse")
        return self.base._sample_inverse(key, num) / jnp.sqrt(self.factor)

    def _multiple(self, factor: jax.Array, sign: int) -> AbstractOperator:
        return Scaled(self.base, factor * self.factor, scaled_tags(self.tags, sign))
