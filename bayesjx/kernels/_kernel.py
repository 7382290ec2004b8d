"""Covariance functions and their algebra."""

from __future__ import annotations

import abc
import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._core import check_known, constrained_field
from ._parameters import point, real_points, scalar, valid_variance


class AbstractKernel(eqx.Module):
    r"""Abstract base class of covariance functions $k(x, x')$ of points of shape `(d,)`.

    Sums and products of kernels are kernels; a number times a kernel scales the variance.
    Parameters are plain arrays; their fields declare a constraint (lengthscales are positive, say),
    which optimisers satisfy. Values that are known to break it are an error; where they are known
    only at run time, covariances are NaN.

    How a Gram matrix is structured on a grid, or which state space a kernel of time has, is
    dispatched on its type in `bayesjx.gp` and `bayesjx.ssm`.
    """

    __array_ufunc__ = None  # so that NumPy leaves `array * kernel` to the kernel

    def __check_init__(self):
        check_known(self)

    @abc.abstractmethod
    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        """Covariances of all points of `x` `(n, d)` with all of `y` `(m, d)`, shape `(n, m)`."""

    @abc.abstractmethod
    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        """Variances at the points of `x` `(n, d)`, shape `(n,)`."""

    def __call__(self, x: Any, y: Any) -> Float[Array, ""]:
        """The covariance of two points, scalar; numbers stand for points with `d = 1`.

        Raises:
            ValueError: they are no points, or of different dimensions.
        """
        return self.pairwise(*_alike(point("x", x), point("y", y)))[0, 0]

    def gram(self, x: Any, y: Any = None) -> Float[Array, "n m"]:
        """The matrix of covariances, dense.

        Args:
            x: shape `(n, d)`, or `(n,)` for `d = 1`.
            y: shape `(m, d)` or `(m,)`; by default `x`.

        Returns:
            Shape `(n, m)`.

        Raises:
            ValueError: wrong ranks, points of different dimensions, or of another dimension than
                parameters of the kernel.
        """
        x = real_points("x", x)
        return self.pairwise(x, x) if y is None else self.pairwise(*_alike(x, real_points("y", y)))

    def diag(self, x: Any) -> Float[Array, " n"]:
        """The variances at points of shape `(n, d)` or `(n,)`; shape `(n,)`."""
        return self.variances(real_points("x", x))

    def on(self, dims: int | slice | Sequence[int]) -> OnDims:
        """The kernel of some coordinates of the input.

        Args:
            dims: one of them, a slice, or a list; negative ones count from the last.

        Raises:
            ValueError: it is none of these. Whether points have these coordinates is checked when
                the kernel is evaluated.
        """
        return OnDims(self, dims)

    def transform(self, function: Callable[[jax.Array], jax.Array]) -> Transformed:
        """The kernel of transformed points, as of the features of a network (a deep kernel).

        Args:
            function: from one point `(d,)` to another `(e,)`; Equinox modules keep their
                parameters trainable.

        Raises:
            ValueError: it cannot be called. Whether it returns points is checked when the kernel
                is evaluated.
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


class AbstractConstantVariance(AbstractKernel):
    """Abstract base class of kernels that have the same variance at all points."""

    @abc.abstractmethod
    def amplitude(self, x: Float[Array, "n d"]) -> Float[Array, ""]:
        """The variance at points `(n, d)`, scalar, in their precision.

        NaN where a parameter breaks its constraint.

        Raises:
            ValueError: a parameter has another number of values than points have coordinates.
        """

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return jnp.full(len(x), self.amplitude(x))


def _dims(dims: Any) -> tuple[int, ...] | slice:
    """Coordinates as Python numbers, or a slice."""
    if isinstance(dims, slice):
        bounds = (dims.start, dims.stop, dims.step)
        if all(b is None or _is_integer(b) for b in bounds) and dims.step != 0:
            return slice(*(b if b is None else operator.index(b) for b in bounds))
    elif _is_integer(dims):
        return (operator.index(dims),)
    elif not isinstance(dims, str) and np.iterable(dims):
        listed = tuple(dims)
        if listed and all(_is_integer(d) for d in listed):
            return tuple(operator.index(d) for d in listed)
    raise ValueError(
        "dims must be the number of a coordinate, a list of at least one, or a slice of them, got "
        f"{dims!r:.80}"
    )


def _is_integer(value: Any) -> bool:
    if isinstance(value, bool | jax.core.Tracer):
        return False
    try:
        operator.index(value)
    except TypeError:
        return False
    return True


def _check_kernels(name: str, *given: Any) -> None:
    if not given or not all(isinstance(kernel, AbstractKernel) for kernel in given):
        raise ValueError(f"{name} must be kernels, at least one, got {given!r:.80}")


class Sum(AbstractKernel):
    """Sum of kernels: the covariance of a sum of independent processes."""

    terms: tuple[AbstractKernel, ...]

    def __check_init__(self):
        _check_kernels("terms", *self.terms)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return functools.reduce(operator.add, (term.pairwise(x, y) for term in self.terms))

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return functools.reduce(operator.add, (term.variances(x) for term in self.terms))


class Product(AbstractKernel):
    """Product of kernels; over disjoint coordinates it has Kronecker structure on a grid."""

    terms: tuple[AbstractKernel, ...]

    def __check_init__(self):
        _check_kernels("terms", *self.terms)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return functools.reduce(operator.mul, (term.pairwise(x, y) for term in self.terms))

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return functools.reduce(operator.mul, (term.variances(x) for term in self.terms))


class Scaled(AbstractKernel):
    """Kernel times a variance.

    Args:
        kernel: the kernel.
        variance: not negative, scalar.
    """

    kernel: AbstractKernel
    variance: Float[Array, ""] = constrained_field(constraints.nonnegative)

    def __init__(self, kernel: AbstractKernel, variance: Any):
        _check_kernels("kernel", kernel)
        self.kernel = kernel
        self.variance = scalar("variance", variance)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return valid_variance(self, x.dtype) * self.kernel.pairwise(x, y)

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return valid_variance(self, x.dtype) * self.kernel.variances(x)


class OnDims(AbstractKernel):
    """Kernel of some coordinates of the input."""

    kernel: AbstractKernel
    dims: tuple[int, ...] | slice = eqx.field(static=True, converter=_dims)

    def __check_init__(self):
        _check_kernels("kernel", self.kernel)

    def columns(self, size: int) -> tuple[int, ...]:
        """The chosen ones of `size` coordinates, counted from 0.

        Raises:
            ValueError: there are fewer, none is chosen, or one twice.
        """
        if isinstance(self.dims, slice):
            named = [d for d in (self.dims.start, self.dims.stop) if d is not None]
            chosen = tuple(range(size)[self.dims])
            beyond = not all(-size <= d <= size for d in named)
        else:
            beyond = not all(-size <= d < size for d in self.dims)
            chosen = tuple(d % size for d in self.dims) if size else ()
        if beyond or len(set(chosen)) != len(chosen) or not chosen:
            raise ValueError(
                f"dims: the kernel is .on coordinates {self.dims} and points have {size}"
                + ("" if beyond else "; none is chosen" if not chosen else "; one is chosen twice")
            )
        return chosen

    def select(self, x: Float[Array, "n _"]) -> Float[Array, "n e"]:
        """The chosen coordinates of points `(n, d)`; see `columns`."""
        return x[:, np.asarray(self.columns(x.shape[1]))]

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        chosen = self.select(x)
        return self.kernel.pairwise(chosen, chosen if y is x else self.select(y))

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return self.kernel.variances(self.select(x))


class Transformed(AbstractKernel):
    """Kernel of transformed points, as of the features of a network (deep kernel).

    References:
        Wilson, Hu, Salakhutdinov and Xing (2016), "Deep kernel learning", AISTATS.
    """

    kernel: AbstractKernel
    function: Callable[[jax.Array], jax.Array]

    def __check_init__(self):
        _check_kernels("kernel", self.kernel)
        if not callable(self.function):
            raise ValueError(f"function must be callable with a point, got {self.function!r:.80}")

    def transformed(self, x: Float[Array, "n _"]) -> Float[Array, "n e"]:
        """The transformed points, shape `(n, e)`.

        Raises:
            ValueError: the function gives something else than a point.
        """
        images: Any = jax.vmap(self.function)(x)
        shape = getattr(images, "shape", None)
        if shape is None or len(shape) != 2:
            raise ValueError(
                "function of a transformed kernel must give a point, shape (e,), for one of shape "
                f"({x.shape[1]},); it gave {'no array' if shape is None else shape[1:]}"
            )
        return images

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        transformed = self.transformed(x)
        same = y is x
        return self.kernel.pairwise(transformed, transformed if same else self.transformed(y))

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return self.kernel.variances(self.transformed(x))


class Constant(AbstractConstantVariance):
    """Constant kernel: the same covariance everywhere, of an unknown constant.

    Args:
        variance: not negative, scalar.
    """

    variance: Float[Array, ""] = constrained_field(constraints.nonnegative)

    def __init__(self, variance: Any = 1.0):
        self.variance = scalar("variance", variance)

    def amplitude(self, x: Float[Array, "n d"]) -> Float[Array, ""]:
        return valid_variance(self, x.dtype)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return jnp.full((len(x), len(y)), self.amplitude(x))


def _alike(x: jax.Array, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both sets of points in the wider of their precisions."""
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"x and y must hold points of the same dimension, got {x.shape[1]} and {y.shape[1]}"
        )
    dtype = jnp.result_type(x, y)
    return x.astype(dtype), y.astype(dtype)


def _as_kernel(other: Any) -> AbstractKernel:
    return other if isinstance(other, AbstractKernel) else Constant(other)


def _terms(kernel: AbstractKernel, kind: Any) -> tuple[AbstractKernel, ...]:
    return kernel.terms if isinstance(kernel, kind) else (kernel,)
