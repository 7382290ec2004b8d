"""Multiples of operators whose class cannot hold them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Inexact

from . import _general as general
from ._operator import AbstractOperator
from ._tags import psd


class Scaled(AbstractOperator):
    r"""A multiple $c A$ that the class of $A$ cannot hold, as a negative one of a covariance.

    Made by `c * A`, `A / c` and `-A` where those are of another class. It has the methods of `A`:
    solves and determinants come from those of `A`.

    Args:
        base: $A$.
        factor: $c$, scalar, of the type of the operator.
        tags: what is known of the product.
    """

    base: AbstractOperator
    factor: Inexact[Array, ""]
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

    def _diag(self) -> jax.Array:
        return self.factor * self.base._diag()

    def _root(self) -> AbstractOperator:
        if psd not in self.base.tags:
            raise self._unknown("root")
        return self.base._root() * jnp.sqrt(self.factor)


@general.psd_logdet.register
def _(operator: Scaled) -> jax.Array:
    if psd not in operator.base.tags:
        return operator._logdet()
    return general.psd_logdet(operator.base) + operator.shape[0] * jnp.log(operator.factor)


@general.inverse_diag.register
def _(operator: Scaled) -> jax.Array:
    return general.inverse_diag(operator.base) / operator.factor


@general.sample.register
def _(operator: Scaled, key: jax.Array, num: int) -> jax.Array:
    if psd not in operator.base.tags:
        raise operator._unknown("sample")
    return jnp.sqrt(operator.factor) * general.sample(operator.base, key, num)


@general.sample_inverse.register
def _(operator: Scaled, key: jax.Array, num: int) -> jax.Array:
    if psd not in operator.base.tags:
        raise operator._unknown("sample_inverse")
    return general.sample_inverse(operator.base, key, num) / jnp.sqrt(operator.factor)
