"""Inputs with structure, and which operator stands for a kernel on them."""

from __future__ import annotations

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import kernels, ops
from .._core import checked_finite, known_field
from ..kernels import check_coordinates, real_points, valid_variance
from ._arguments import real_array


class Grid(eqx.Module):
    """All combinations of points along several axes; the last axis runs fastest.

    Args:
        *axes: points of each axis, shape `(n_i,)`, or `(n_i, d_i)` for an axis of several
            coordinates, as positions of sensors are.

    Raises:
        ValueError: no axis, or one that is empty, has more than two dimensions or holds NaN.
    """

    axes: tuple[Float[Array, "_ _"], ...] = known_field()

    def __init__(self, *axes: Any):
        if not axes:
            raise ValueError("Grid: at least one axis is needed")
        checked = [real_points(f"axis {i}", axis) for i, axis in enumerate(axes)]
        self.axes = tuple(checked_finite(f"Grid: axis {i}", axis) for i, axis in enumerate(checked))

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
        starts, dims = 0, []
        for axis in self.axes:
            dims.append(tuple(range(starts, starts + axis.shape[1])))
            starts += axis.shape[1]
        return tuple(dims)

    def points(self) -> Float[Array, "size d"]:
        """The points, shape `(size, d)`: for small grids."""
        index = jnp.indices(self.shape).reshape(len(self.axes), -1)
        return jnp.concatenate([axis[i] for axis, i in zip(self.axes, index, strict=True)], axis=1)


class Times(eqx.Module):
    """Points in time, at which processes are filtered by their state spaces, in linear time.

    Args:
        times: shape `(n,)`, irregular or not; best a NumPy array in double precision.
        backend: see `ssm.MarkovGP`.
        harmonics: of `Periodic` kernels, see `ssm.state_space`.

    Raises:
        ValueError: not one axis, or empty.
    """

    times: Any
    backend: str = eqx.field(static=True)
    harmonics: int = eqx.field(static=True)

    def __init__(self, times: Any, backend: str = "auto", harmonics: int = 6):
        if jnp.ndim(times) != 1 or jnp.size(times) == 0:
            raise ValueError(f"Times: shape (n,), not empty, is needed; got {jnp.shape(times)}")
        self.times, self.backend, self.harmonics = times, backend, harmonics

    def __len__(self) -> int:
        return len(self.times)

    @property
    def dtype(self) -> Any:
        """Type of the numbers that densities at these times have."""
        dtype = jnp.asarray(self.times[:1]).dtype
        return dtype if jnp.issubdtype(dtype, jnp.inexact) else jnp.asarray(0.0).dtype

    def points(self) -> Any:
        """The points, shape `(n, 1)`."""
        return jnp.asarray(self.times, self.dtype)[:, None]


def covariance(kernel: kernels.AbstractKernel, x: Any) -> ops.AbstractOperator:
    r"""The prior covariance at some inputs, as the operator that its structure allows.

    On a `Grid` a product of kernels of its axes is `ops.Kron`, which takes $\sum_d n_d^2$ memory
    for $\prod_d n_d$ points: products over disjoint coordinates, kernels that are such products
    though not written as one (`RBF`, `Periodic`), and any kernel of a grid with one axis. Else it
    is `ops.Dense`.

    Args:
        kernel: the covariance function.
        x: points, shape `(n, d)` or `(n,)`, or a `Grid`.

    Raises:
        ValueError: on a grid of several axes, a kernel that is no product over them.
    """
    if isinstance(x, Grid):
        return ops.Kron(*axis_factors(kernel, x, x), tags=ops.psd)
    return ops.Dense(kernel.gram(x), ops.psd)


def cross_covariance(kernel: kernels.AbstractKernel, x: Any, y: Any) -> ops.AbstractOperator:
    """Covariances of the points of `x` with those of `y`: `ops.Kron` between two grids."""
    if isinstance(x, Grid) and isinstance(y, Grid):
        return ops.Kron(*axis_factors(kernel, x, y))
    return ops.Dense(kernel.gram(all_points(x), all_points(y)))


def all_points(x: Any, name: str = "x", dtype: Any = None) -> Float[Array, "n d"]:
    """Points as `(n, d)`, those of a grid and times too.

    Args:
        x: points.
        name: of the argument, for errors.
        dtype: of the result, that of a posterior whose points these are; by default their own.

    Raises:
        ValueError: not numbers, not one or two axes, empty, or NaN.
    """
    points = x.points() if isinstance(x, Grid | Times) else checked_finite(name, as_points(x, name))
    return points if dtype is None else points.astype(dtype)


def as_points(x: Any, name: str = "x") -> Float[Array, "n d"]:
    """The same without a look for NaN, which costs time where `x` is traced.

    Raises:
        ValueError: not numbers, or not one or two axes.
    """
    return x.points() if isinstance(x, Grid | Times) else real_points(name, real_array(name, x))


def axis_factors(kernel: kernels.AbstractKernel, x: Grid, y: Grid) -> list[jax.Array]:
    """Matrices of each axis whose Kronecker product holds the covariances of two grids.

    Raises:
        ValueError: the axes differ, or the kernel is no product over them.
    """
    if x.dims != y.dims:
        raise ValueError(
            f"x: grids of the same axes are needed, got coordinates {x.dims}, {y.dims}"
        )
    factors = _factors(kernel, x, y)
    if factors is None:
        raise ValueError(
            f"{type(kernel).__name__} is no product of kernels of the axes (coordinates {x.dims}) "
            "of the grid, so it has no Kronecker structure; multiply kernels .on(...) the axes, or "
            "pass grid.points() for a dense matrix"
        )
    return factors


@functools.singledispatch
def _factors(kernel: Any, x: Grid, y: Grid) -> list[jax.Array] | None:
    """The factors, or None; with one axis any kernel has them."""
    return [kernel.pairwise(x.axes[0], y.axes[0])] if len(x.axes) == 1 else None


@_factors.register
def _(kernel: kernels.Constant, x: Grid, y: Grid) -> list[jax.Array]:
    ones = [jnp.ones((len(a), len(b)), a.dtype) for a, b in zip(x.axes, y.axes, strict=True)]
    return [valid_variance(kernel, x.dtype) * ones[0], *ones[1:]]


@_factors.register
def _(kernel: kernels.Scaled, x: Grid, y: Grid) -> list[jax.Array] | None:
    inner = _factors(kernel.kernel, x, y)
    return inner and [valid_variance(kernel, x.dtype) * inner[0], *inner[1:]]


@_factors.register
def _(kernel: kernels.Product, x: Grid, y: Grid) -> list[jax.Array] | None:
    parts = [_factors(term, x, y) for term in kernel.terms]
    known = [part for part in parts if part is not None]
    if len(known) < len(parts):
        return None
    return [functools.reduce(jnp.multiply, axis) for axis in zip(*known, strict=True)]


@_factors.register
def _(kernel: kernels.OnDims, x: Grid, y: Grid) -> list[jax.Array] | None:
    size = sum(len(dims) for dims in x.dims)
    wanted = list(kernel.columns(size))
    touched = [i for i, dims in enumerate(x.dims) if set(dims) & set(wanted)]
    order = [dim for i in touched for dim in x.dims[i] if dim in wanted]
    if order != wanted:  # coordinates of an axis apart, or in another order
        return None
    sub = _sub_grid(x, touched, wanted)
    inner = _factors(kernel.kernel, sub, sub if y is x else _sub_grid(y, touched, wanted))
    if inner is None:
        return None
    by_axis = dict(zip(touched, inner, strict=True))
    pairs = enumerate(zip(x.axes, y.axes, strict=True))
    return [by_axis.get(i, jnp.ones((len(a), len(b)), x.dtype)) for i, (a, b) in pairs]


@_factors.register
def _(kernel: kernels.White, x: Grid, y: Grid) -> list[jax.Array]:
    pairs = enumerate(zip(x.axes, y.axes, strict=True))
    return [kernels.White(1.0 if i else kernel.variance).pairwise(a, b) for i, (a, b) in pairs]


@_factors.register
def _(kernel: kernels.RBF, x: Grid, y: Grid) -> list[jax.Array]:
    return _ard_factors(kernel, x, y, ("lengthscale",))


@_factors.register
def _(kernel: kernels.Periodic, x: Grid, y: Grid) -> list[jax.Array]:
    return _ard_factors(kernel, x, y, ("lengthscale", "period"))


def _ard_factors(kernel: Any, x: Grid, y: Grid, names: tuple[str, ...]) -> list[jax.Array]:
    """Factors of a kernel whose parameters of each coordinate act on that coordinate alone."""
    size = sum(len(dims) for dims in x.dims)
    for name in names:
        check_coordinates(kernel, name, size)
    values = [jnp.broadcast_to(getattr(kernel, name), (size,)) for name in names]
    factors = []
    for i, dims in enumerate(x.dims):
        own = [value[jnp.asarray(dims)] for value in values]
        one = type(kernel)(*own, kernel.variance if i == 0 else 1.0)
        factors.append(one.pairwise(x.axes[i], y.axes[i]))
    return factors


def _sub_grid(x: Grid, axes: list[int], wanted: list[int]) -> Grid:
    kept = []
    for i in axes:
        columns = [c for c, dim in enumerate(x.dims[i]) if dim in wanted]
        kept.append(x.axes[i][:, jnp.asarray(columns)])
    return Grid(*kept)
