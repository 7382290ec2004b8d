"""Covariance functions and their algebra."""

from __future__ import annotations

import abc
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp

from .._core import positive_field, refuse_where


class AbstractKernel(eqx.Module):
    r"""A covariance function $k(x, x')$ of points, which are vectors of shape `(d,)`.

    Sums and products of kernels are kernels; a number times a kernel scales the variance.
    Parameters are plain arrays with the constraint that their name says (lengthscales, variances
    and the like are positive); what uses a kernel chooses how to keep to it.

    A kernel knows nothing of its users: how a Gram matrix is structured on a grid, or which state
    space stands for a kernel of time, is decided by those, on its type.
    """

    @abc.abstractmethod
    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        """Covariances of all points of `x` `(n, d)` with all of `y` `(m, d)`, shape `(n, m)`."""

    @abc.abstractmethod
    def variances(self, x: jax.Array) -> jax.Array:
        """Variances at the points of `x` `(n, d)`, shape `(n,)`."""

    def __call__(self, x: Any, y: Any) -> jax.Array:
        """The covariance of two points, scalar; numbers stand for points with `d = 1`."""
        return self.pairwise(_point(x), _point(y))[0, 0]

    def gram(self, x: Any, y: Any = None) -> jax.Array:
        """The matrix of covariances, dense.

        Args:
            x: shape `(n, d)`, or `(n,)` for `d = 1`.
            y: shape `(m, d)` or `(m,)`; by default `x`.

        Returns:
            Shape `(n, m)`.

        Raises:
            ValueError: wrong ranks, or points of different dimensions.
        """
        x = points("x", x)
        y = x if y is None else points("y", y)
        if x.shape[1] != y.shape[1]:
            raise ValueError(
                f"x and y must hold points of the same dimension, got {x.shape[1]} and {y.shape[1]}"
            )
        return self.pairwise(x, y)

    def diag(self, x: Any) -> jax.Array:
        """The variances at points of shape `(n, d)` or `(n,)`; shape `(n,)`."""
        return self.variances(points("x", x))

    def on(self, dims: int | slice | Sequence[int]) -> OnDims:
        """The kernel of some coordinates of the input.

        Args:
            dims: one of them, a slice, or a list.
        """
        if isinstance(dims, int):
            dims = (dims,)
        return OnDims(self, dims if isinstance(dims, slice) else tuple(dims))

    def transform(self, function: Callable[[jax.Array], jax.Array]) -> Transformed:
        """The kernel of transformed points, as of the features of a network (a deep kernel).

        Args:
            function: from one point `(d,)` to another `(e,)`; Equinox modules keep their
                parameters trainable.
        """
        return Transformed(self, function)

    def __add__(self, other: Any) -> AbstractKernel:
        return Sum(_terms(self, Sum) + _terms(_as_kernel(other), Sum))

    def __radd__(self, other: Any) -> AbstractKernel:
        return _as_kernel(other) + self

    def __mul__(self, other: Any) -> AbstractKernel:
        if isinstance(other, AbstractKernel):
            return Product(_terms(self, Product) + _terms(other, Product))
        return Scaled(self, other)

    def __rmul__(self, other: Any) -> AbstractKernel:
        return self * other


class Sum(AbstractKernel):
    """The sum of independent processes."""

    terms: tuple[AbstractKernel, ...]

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return sum_all(term.pairwise(x, y) for term in self.terms)

    def variances(self, x: jax.Array) -> jax.Array:
        return sum_all(term.variances(x) for term in self.terms)


class Product(AbstractKernel):
    """The product of kernels; over disjoint coordinates, Kronecker structure on a grid."""

    terms: tuple[AbstractKernel, ...]

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        first, *rest = (term.pairwise(x, y) for term in self.terms)
        for term in rest:
            first = first * term
        return first

    def variances(self, x: jax.Array) -> jax.Array:
        first, *rest = (term.variances(x) for term in self.terms)
        for term in rest:
            first = first * term
        return first


class Scaled(AbstractKernel):
    """A kernel times a variance.

    Args:
        kernel: what is scaled.
        variance: not negative, scalar.
    """

    kernel: AbstractKernel
    variance: jax.Array = positive_field()

    def __init__(self, kernel: AbstractKernel, variance: Any):
        self.kernel = kernel
        self.variance = scalar("variance", variance)

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return self.variance.astype(x.dtype) * self.kernel.pairwise(x, y)

    def variances(self, x: jax.Array) -> jax.Array:
        return self.variance.astype(x.dtype) * self.kernel.variances(x)


class OnDims(AbstractKernel):
    """A kernel of some coordinates."""

    kernel: AbstractKernel
    dims: tuple[int, ...] | slice = eqx.field(static=True)

    def select(self, x: jax.Array) -> jax.Array:
        """Those coordinates of points `(n, d)`."""
        dims = self.dims if isinstance(self.dims, slice) else jnp.asarray(self.dims)
        size = x.shape[1]
        if not isinstance(self.dims, slice) and not all(-size <= d < size for d in self.dims):
            raise ValueError(
                f"the kernel is of coordinates {self.dims} and points have {x.shape[1]}"
            )
        return x[:, dims]

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return self.kernel.pairwise(self.select(x), self.select(y))

    def variances(self, x: jax.Array) -> jax.Array:
        return self.kernel.variances(self.select(x))


class Transformed(AbstractKernel):
    """A kernel of transformed points.

    References:
        Wilson, Hu, Salakhutdinov and Xing (2016), "Deep kernel learning", AISTATS.
    """

    kernel: AbstractKernel
    function: Callable[[jax.Array], jax.Array]

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        there = jax.vmap(self.function)(x)
        return self.kernel.pairwise(there, there if y is x else jax.vmap(self.function)(y))

    def variances(self, x: jax.Array) -> jax.Array:
        return self.kernel.variances(jax.vmap(self.function)(x))


class Constant(AbstractKernel):
    """The same covariance everywhere: an unknown constant.

    Args:
        variance: not negative, scalar.
    """

    variance: jax.Array = positive_field()

    def __init__(self, variance: Any = 1.0):
        self.variance = scalar("variance", variance)

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.full((len(x), len(y)), self.variance, x.dtype)

    def variances(self, x: jax.Array) -> jax.Array:
        return jnp.full(len(x), self.variance, x.dtype)


def points(name: str, x: Any) -> jax.Array:
    """Points as `(n, d)`.

    Raises:
        ValueError: not one or two axes.
    """
    if jnp.ndim(x) not in (1, 2):
        raise ValueError(f"{name} must have shape (n, d) or (n,), got {jnp.shape(x)}")
    x = jnp.asarray(x)
    x = x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(float)
    return x[:, None] if x.ndim == 1 else x


def scalar(name: str, value: Any) -> jax.Array:
    """A number as an array, floating-point.

    Raises:
        ValueError: it is not a scalar, or known and negative.
    """
    if jnp.ndim(value) != 0:
        raise ValueError(f"{name} must be a scalar, got shape {jnp.shape(value)}")
    return floating(name, value)


def floating(name: str, value: Any) -> jax.Array:
    """A parameter that is not negative, as an array of floating-point numbers.

    Raises:
        ValueError: a value that is known is negative or NaN.
    """
    if not isinstance(value, jax.core.Tracer):  # traced ones belong to a density, see `valid`
        refuse_where(value, lambda v: ~(v >= 0), f"{name} must not be negative, got {value}")
    dtype = jnp.result_type(value)  # named, so that plain numbers do not become weak types
    return jnp.asarray(value, dtype if jnp.issubdtype(dtype, jnp.inexact) else float)


def sum_all(arrays: Any) -> jax.Array:
    """The sum of several arrays."""
    first, *rest = arrays
    for array in rest:
        first = first + array
    return first


def _point(x: Any) -> jax.Array:
    if jnp.ndim(x) > 1:
        raise ValueError(f"a point must be a number or have shape (d,), got {jnp.shape(x)}")
    return points("x", jnp.reshape(jnp.asarray(x), (1, -1)))


def _as_kernel(other: Any) -> AbstractKernel:
    return other if isinstance(other, AbstractKernel) else Constant(other)


def _terms(kernel: AbstractKernel, kind: Any) -> tuple[AbstractKernel, ...]:
    return kernel.terms if isinstance(kernel, kind) else (kernel,)
