"""Matrices of independent normal weights on an active subspace."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Bool, Float, Int
from numpyro.distributions import constraints

from ... import ops
from ..._core import checked_finite, constrained_field, refuse_where
from ._arguments import block_of


class SparseWeight(eqx.Module):
    r"""A $K \times N$ matrix of independent normal weights, zero off the active units.

    Units are single entries, `block=(1, 1)`, one row of a group of `g` columns, `(1, g)`, or
    blocks of a grid. Each group of columns has as many active rows as the others; blocks lie
    anywhere. Where a block does not divide the matrix, the matrix is padded: what lies outside of
    it is held, but is zero, and counts neither in the divergence nor in criteria.

    Attributes:
        mean: means of the active weights, shape `(groups, k, u)` with `u` weights of a unit; of
            blocks `(1, S, bk bn)`.
        index: the row of each unit, shape `(groups, k)`; of blocks the position on the grid,
            counted row by row, `(1, S)`. Distinct in a group.
        size: `(K, N)`.
        block: rows and columns of a unit.
        scale: standard deviations of the weights, of the shape of `mean`; None for weights that
            are known.
    """

    mean: Float[Array, "groups k u"]
    index: Int[Array, "groups k"]
    size: tuple[int, int] = eqx.field(static=True)
    block: tuple[int, int] = eqx.field(static=True)
    scale: Float[Array, "groups k u"] | None = constrained_field(constraints.positive)

    @property
    def dtype(self) -> Any:
        """Type of the weights."""
        return self.mean.dtype

    @property
    def full(self) -> bool:
        """Whether all of the matrix is active, so that its products are dense ones."""
        return self.index.shape == (1, self.size[0]) and self.block == (1, self.size[1])

    @property
    def candidates(self) -> int:
        """The number of units of a group, active ones and others."""
        return grid(self.size, self.block)[1]

    @property
    def density(self) -> float:
        """Share of the matrix that is held."""
        return self.mean.size / math.prod(self.size)

    def product(self, x: Float[Array, "*b K"]) -> Float[Array, "*b N"]:
        """`x @ W` for the means."""
        return self._product(self.mean, self._checked(x))

    def moments(self, x: Float[Array, "*b K"]) -> tuple[Float[Array, "*b N"], Float[Array, "*b N"]]:
        """Mean and variance of `x @ W`."""
        x, var = self._checked(x), self._scale() ** 2
        if self.full or self.block[0] > 1 or self.block[1] == 1:
            return self._product(self.mean, x), self._product(var, x**2)
        operator: Any = self._operator(self.mean)
        mean, var = operator.mean_and_var(var, x)
        return mean[..., : self.size[1]], var[..., : self.size[1]]

    def drawn(self, key: jax.Array) -> SparseWeight:
        """One draw of the weights, which are then known."""
        if self.scale is None:
            return self
        noise = random.normal(key, self.mean.shape, self.dtype)
        return self.replaced(mean=self.mean + self.scale * noise, scale=None)

    def divergence(self, prior_scale: Any) -> Float[Array, ""]:
        r"""Kullback-Leibler divergence from the prior $N(0, s^2)$ of each active weight, scalar."""
        ratio = self._scale() / prior_scale
        each = 0.5 * (ratio**2 + (self.mean / prior_scale) ** 2 - 1) - jnp.log(ratio)
        return jnp.sum(self.masked(each))

    def replaced(self, **changes: Any) -> SparseWeight:
        """The same with other fields, without checks, as JAX makes it from leaves."""
        new = object.__new__(type(self))
        for field in dataclasses.fields(self):
            value = changes.get(field.name, getattr(self, field.name))
            object.__setattr__(new, field.name, value)
        return new

    def masked(self, values: Float[Array, "groups k u"]) -> Float[Array, "groups k u"]:
        """Values of the active weights, zero where a unit reaches beyond the matrix."""
        inside = self.inside()
        return values if inside is None else jnp.where(inside, values, 0)

    def inside(self) -> Bool[Array, "groups k u"] | None:
        """Which weights of the units lie in the matrix; None if all of them do."""
        (bk, bn), (rows, cols) = self.block, self.size
        if rows % bk == 0 and cols % bn == 0:
            return None
        row, col = self.positions()
        return jnp.broadcast_to((row < rows) & (col < cols), self.mean.shape)

    def matrix(self) -> Float[Array, "K N"]:
        """The means as a dense matrix."""
        row, col = jnp.broadcast_arrays(*self.positions())
        rows, cols = padded(self.size, self.block)
        dense = jnp.zeros((rows, cols), self.dtype).at[row, col].set(self.mean)
        return dense[: self.size[0], : self.size[1]]

    def mask(self) -> Bool[Array, "K N"]:
        """Which entries of the matrix are active."""
        ones = self.replaced(mean=jnp.ones_like(self.mean), scale=None)
        return ones.matrix() != 0

    def _scale(self) -> Float[Array, "groups k u"]:
        if self.scale is None:
            raise ValueError("these weights are known, one draw of a posterior: they have no scale")
        return self.scale

    def positions(self) -> tuple[Int[Array, ...], Int[Array, ...]]:
        """Row and column of each active weight, in shapes that broadcast to that of the means."""
        bk, bn = self.block
        within = jnp.arange(bk * bn, dtype=jnp.int32)
        if bk == 1:
            group = jnp.arange(len(self.index), dtype=jnp.int32)[:, None, None]
            return self.index[:, :, None], group * bn + within
        across = padded(self.size, self.block)[1] // bn
        row, col = self.index[:, :, None] // across, self.index[:, :, None] % across
        return row * bk + within // bn, col * bn + within % bn

    def _product(self, values: jax.Array, x: jax.Array) -> jax.Array:
        if self.full:
            return x @ values[0]
        return (x @ self._operator(values))[..., : self.size[1]]

    def _operator(self, values: jax.Array) -> ops.AbstractSparse:
        (bk, bn), size = self.block, padded(self.size, self.block)
        if bk > 1:
            across = size[1] // bn
            blocks, index = values[0].reshape(-1, bk, bn), self.index[0]
            return ops.BlockSparse(blocks, index // across, index % across, size)
        if bn == 1:
            return ops.EntrySparse(values[:, :, 0].T, self.index.T, None, size)
        return ops.GroupedColumns(values, self.index, size)

    def _checked(self, x: Any) -> jax.Array:
        """The inputs in the type of the weights, filled up with zeros to whole blocks."""
        x, rows = jnp.asarray(x), self.size[0]
        if x.ndim == 0 or x.shape[-1] != rows:
            raise ValueError(f"x must have {rows} features, as the weights; got shape {x.shape}")
        if x.dtype != self.dtype:
            raise ValueError(f"x is {x.dtype} and the weights are {self.dtype}; cast one of them")
        more = padded(self.size, self.block)[0] - rows
        return jnp.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, more)]) if more else x


def sparse_weight(
    size: tuple[int, int], block: Any, index: Any, mean: Any, scale: Any = None
) -> SparseWeight:
    """Weights of arrays that are checked, sorted by index; see `SparseWeight`.

    Args:
        size: rows and columns of the matrix.
        block: rows and columns of a unit.
        index: integers of shape `(groups, k)`.
        mean: shape `(groups, k, u)`.
        scale: of the shape of `mean`, positive; None for weights that are known.

    Raises:
        ValueError: shapes that do not fit, an index out of range or repeated in a group, scales
            that are not positive, NaN.
        RuntimeError: under `jit`, such values.
    """
    block = block_of(1, block)
    groups, candidates = grid(size, block)
    index, mean = jnp.asarray(index), jnp.asarray(mean)
    if not jnp.issubdtype(mean.dtype, jnp.floating):
        raise ValueError(f"mean must hold floating-point numbers, got {mean.dtype}")
    what = f"a matrix of {size[0]} × {size[1]} in units of {block[0]} × {block[1]}"
    fits = index.ndim == 2 and len(index) == groups and 1 <= index.shape[1] <= candidates
    if not fits or not jnp.issubdtype(index.dtype, jnp.integer):
        raise ValueError(
            f"{what} takes index ({groups}, k), integers with k in 1, ..., {candidates}; got "
            f"{index.shape} of {index.dtype}"
        )
    wanted = (*index.shape, math.prod(block))
    arrays = {"mean": mean} | ({} if scale is None else {"scale": jnp.asarray(scale)})
    for name, array in arrays.items():
        if array.shape != wanted or array.dtype != mean.dtype:
            got = f"{array.shape} of {array.dtype}"
            raise ValueError(f"{what} takes {name} {wanted} of {mean.dtype}; got {got}")
        arrays[name] = checked_finite(name, array)
    text = f"index must lie in 0, ..., {candidates - 1} and be distinct in each group"
    order = jnp.argsort(index, axis=1)
    index = refuse_where(jnp.take_along_axis(index, order, 1), _unusable(candidates), text)
    arrays = {name: jnp.take_along_axis(a, order[:, :, None], 1) for name, a in arrays.items()}
    if scale is not None:
        arrays["scale"] = refuse_where(arrays["scale"], lambda s: s <= 0, "scale must be positive")
    return SparseWeight(arrays["mean"], index.astype(jnp.int32), size, block, arrays.get("scale"))


def _unusable(candidates: int) -> Any:
    def bad(index: Any) -> Any:
        return ((index < 0) | (index >= candidates)).any() | (index[:, 1:] == index[:, :-1]).any()

    return bad


def padded(size: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns filled up to whole blocks."""
    return math.ceil(size[0] / block[0]) * block[0], math.ceil(size[1] / block[1]) * block[1]


def grid(size: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """Number of groups, and of the units that each of them chooses from."""
    rows, cols = padded(size, block)
    rows, cols = rows // block[0], cols // block[1]
    return (cols, rows) if block[0] == 1 else (1, rows * cols)


def unit_norms(
    matrix: Float[Array, "K N"], block: tuple[int, int]
) -> Float[Array, "groups candidates"]:
    """Sums of squares of a matrix over each unit."""
    (bk, bn), size = block, (matrix.shape[0], matrix.shape[1])
    rows, cols = padded(size, block)
    wide = jnp.pad(matrix**2, [(0, rows - size[0]), (0, cols - size[1])])
    squares = wide.reshape(rows // bk, bk, cols // bn, bn).sum((1, 3))
    return squares.T if bk == 1 else squares.reshape(1, -1)
