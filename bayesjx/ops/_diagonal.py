"""Diagonal matrices and multiples of the identity as operators."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Inexact

from .._core import whole_number
from . import _general as general
from ._arithmetic import sized
from ._checks import checked_arrays
from ._operator import AbstractOperator
from ._tags import checked_tags, psd, symmetric


class Diag(AbstractOperator):
    """A diagonal matrix.

    Args:
        entries: the diagonal, shape `(n,)`.
        tags: further properties; `ops.psd` if no entry is negative.

    Raises:
        ValueError: `entries` is not a vector of floating-point numbers.
    """

    entries: Inexact[Array, " n"]
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


@general.psd_logdet.register
def _(operator: Diag) -> jax.Array:
    return jnp.sum(jnp.log(operator.entries))


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

    scale: Inexact[Array, ""]
    size: int = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, scale: Any, size: int = 0, tags: object = psd):
        (self.scale,) = checked_arrays("ScaledIdentity", {"scale": scale})
        if self.scale.ndim != 0:
            raise ValueError(f"ScaledIdentity: scale must be a scalar, got {self.scale.shape}")
        self.size = whole_number("ScaledIdentity: size", size, 0)
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

    def _root(self) -> ScaledIdentity:
        return ScaledIdentity(jnp.sqrt(self.scale), self.size)


@general.psd_logdet.register
def _(operator: ScaledIdentity) -> jax.Array:
    return operator.shape[0] * jnp.log(operator.scale)


@general.check_size.register
def _(operator: ScaledIdentity, what: str) -> None:
    if not operator.size:
        raise ValueError(
            f"{what}: this ScaledIdentity leaves its size open, which only a sum or a product "
            "with another operator gives it; say size=n"
        )


@sized.register
def _(operator: ScaledIdentity, size: int, dtype: Any) -> ScaledIdentity:
    scale = operator.scale.astype(dtype) if operator.scale.weak_type else operator.scale
    return ScaledIdentity(scale, operator.size or size, operator.tags)


@sized.register
def _(operator: lx.IdentityLinearOperator, size: int, dtype: Any) -> Any:
    """Lineax's identity as one of ours, if it is of vectors."""
    rows = jax.tree.leaves(operator.out_structure())
    columns = jax.tree.leaves(operator.in_structure())
    if len(rows) == len(columns) == 1 and rows[0].shape == columns[0].shape[:1]:
        return ScaledIdentity(jnp.ones((), rows[0].dtype), rows[0].shape[0])
    return operator
