"""Inputs with structure: full grids."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._core import checked_finite, known_field
from ..kernels._kernel import points


class Grid(eqx.Module):
    """All combinations of points along several axes; the last axis runs fastest.

    Args:
        *axes: points of each axis, shape `(n_i,)`, or `(n_i, d_i)` for an axis of several
            coordinates, as the places of sensors are.

    Raises:
        ValueError: no axis, or one that is empty, has more than two dimensions or holds NaN.
    """

    axes: tuple[jax.Array, ...] = known_field()

    def __init__(self, *axes: Any):
        if not axes:
            raise ValueError("Grid: at least one axis is needed")
        found = [points(f"axis {i}", axis) for i, axis in enumerate(axes)]
        self.axes = tuple(checked_finite(f"Grid: axis {i}", axis) for i, axis in enumerate(found))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of points along each axis."""
        return tuple(len(axis) for axis in self.axes)

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(self.shape)

    @property
    def dtype(self) -> Any:
        """Type of the coordinates."""
        return jnp.result_type(*self.axes)

    @property
    def dims(self) -> tuple[tuple[int, ...], ...]:
        """The coordinates of a point that each axis holds."""
        starts, found = 0, []
        for axis in self.axes:
            found.append(tuple(range(starts, starts + axis.shape[1])))
            starts += axis.shape[1]
        return tuple(found)

    def points(self) -> jax.Array:
        """The points, shape `(size, d)`: for small grids."""
        index = jnp.indices(self.shape).reshape(len(self.axes), -1)
        return jnp.concatenate([axis[i] for axis, i in zip(self.axes, index, strict=True)], axis=1)
