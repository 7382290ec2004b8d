"""What every structured matrix can do; the derivatives that all share."""

from __future__ import annotations

import abc
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jax import random

from .._core import check_key, compiled
from ._arithmetic import checked_scalar, fitted
from ._tags import psd, scaled_tags

CHUNK = 64  # columns that are solved for together where all are needed


class InvQuadLogdet(NamedTuple):
    r"""What a Gaussian density needs of its covariance $A$.

    Attributes:
        inv_quad: $y^\top A^{-1} y$, a scalar, or one for each column of `y`.
        logdet: $\log\det A$, a scalar.
    """

    inv_quad: jax.Array
    logdet: jax.Array


class AbstractOperator(lx.AbstractLinearOperator):
    r"""A real matrix held by its structure; a Lineax operator on vectors of shape `(n,)`.

    `A @ x` takes a vector, a matrix or another operator. `x @ A` takes an array whose last axis is
    multiplied. What needs a symmetric positive semi-definite matrix asks for the tag `ops.psd`,
    which is believed, not checked. Derivatives go to the arrays that the operator was made of;
    factorisations made on the way are kept without derivatives.
    """

    tags: eqx.AbstractVar[frozenset[object]]

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    @abc.abstractmethod
    def dtype(self) -> Any:
        """Type of the entries."""

    @abc.abstractmethod
    def transpose(self) -> AbstractOperator:
        """The transpose, also as `.T`."""

    @abc.abstractmethod
    def _mm(self, x: jax.Array) -> jax.Array:
        """The product with a matrix of the right shape."""

    # What a structure does not know is refused, unless a subclass implements it.

    def _solve(self, b: jax.Array) -> jax.Array:
        raise self._unknown("solve", "pass a Lineax solver: solve(b, solver=lineax.CG(1e-8, 1e-8))")

    def _logdet(self) -> jax.Array:
        raise self._unknown("logdet")

    def _inv_quad(self, y: jax.Array) -> jax.Array:
        return inv_quad(self, y)

    def _psd_logdet(self) -> jax.Array:
        """The log-determinant for a density: NaN or an error if it is not positive definite."""
        return self._logdet()

    def _inv_quad_logdet(self, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        return self._inv_quad(y), self._psd_logdet()

    def _diag(self) -> jax.Array:
        raise self._unknown("diag")

    def _inverse_diag(self) -> jax.Array:
        """By solves, some unit vectors at a time."""
        return _inverse_diag_by_solves(self)

    def _root(self) -> AbstractOperator:
        raise self._unknown("root")

    def _sample(self, key: jax.Array, num: int) -> jax.Array:
        """Draws as columns, shape `(n, num)`."""
        root = self._root()
        return root.mm(random.normal(key, (root.shape[1], num), self.dtype))

    def _sample_inverse(self, key: jax.Array, num: int) -> jax.Array:
        """Draws as columns, shape `(n, num)`: the inverse times draws of covariance A."""
        return self._solve(self._sample(key, num))

    def _plus(self, other: Any) -> AbstractOperator | None:
        """The sum with an operator of the same shape and type, where it has a structure."""

    def _times(self, other: Any) -> AbstractOperator | None:
        """The product with an operator that fits, where it has a structure."""

    def _multiple(self, factor: jax.Array, sign: int) -> AbstractOperator:
        """The multiple, of the same kind where it can be; the sign is 0 if it is not known."""
        from ._scaled import Scaled

        return Scaled(self, factor, scaled_tags(self.tags, sign))

    def _need_size(self, what: str) -> None:
        """Refuses what leaves its size open, which few do."""

    def _fitted(self, size: int, dtype: Any) -> AbstractOperator:
        """The operator beside one of this size and type, which some leave open."""
        del size, dtype
        return self

    def mv(self, vector: jax.Array) -> jax.Array:
        """The product with a vector of shape `(n,)`."""
        return self._mm(self._checked(vector, 1, "vector", self.shape[1])[:, None])[:, 0]

    def mm(self, x: jax.Array) -> jax.Array:
        """The product with a matrix of shape `(n, k)`."""
        return self._mm(self._checked(x, 2, "x", self.shape[1]))

    def solve(self, b: jax.Array, solver: lx.AbstractLinearSolver | None = None) -> jax.Array:
        r"""The solution $x$ of $A x = b$.

        Args:
            b: shape `(n,)` or `(n, k)`.
            solver: a Lineax solver to use instead of the structure, such as `lineax.CG`.

        Raises:
            ValueError: the operator is not square, `b` does not fit, or this structure has no
                solver of its own and none was given.
        """
        self._need_square("solve")
        b = self._checked(b, jnp.ndim(b), "b", self.shape[0])
        if solver is not None and not isinstance(solver, lx.AbstractLinearSolver):
            raise ValueError(
                f"{type(self).__name__}: solver must be a solver of Lineax, such as "
                f"lineax.CG(1e-8, 1e-8), got {solver!r:.40}"
            )
        if solver is None:
            return self._solve(b) if b.ndim == 2 else self._solve(b[:, None])[:, 0]
        one = lambda column: lx.linear_solve(self, column, solver).value  # noqa: E731
        return one(b) if b.ndim == 1 else jax.vmap(one, in_axes=1, out_axes=1)(b)

    def logdet(self) -> jax.Array:
        r"""$\log|\det A|$, scalar."""
        self._need_square("logdet")
        return self._logdet()

    def diag(self) -> jax.Array:
        """The diagonal, shape `(n,)`."""
        self._need_square("diag")
        return self._diag()

    def inverse_diag(self) -> jax.Array:
        """The diagonal of the inverse, shape `(n,)`: the variances that belong to a precision.

        Where the structure has no formula it takes `n` solves, 64 at a time.
        """
        self._need_square("inverse_diag")
        return self._inverse_diag()

    def root(self) -> AbstractOperator:
        r"""An operator $R$ with $R R^\top = A$.

        Raises:
            ValueError: the operator is not tagged as positive semi-definite.
        """
        self._need_psd("root")
        return self._root()

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        r"""Draws from $N(0, A)$, shape `(*shape, n)`, differentiable.

        Raises:
            ValueError: the operator is not tagged as positive semi-definite.
        """
        self._need_psd("sample")
        checked_draws("sample", key, shape)
        return self._sample(key, math.prod(shape)).T.reshape(*shape, self.shape[0])

    def sample_inverse(self, key: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
        r"""Draws from $N(0, A^{-1})$, shape `(*shape, n)`: the operator is a precision.

        Raises:
            ValueError: the operator is not tagged as positive semi-definite.
        """
        self._need_psd("sample_inverse")
        checked_draws("sample_inverse", key, shape)
        return self._sample_inverse(key, math.prod(shape)).T.reshape(*shape, self.shape[0])

    def inv_quad_logdet(self, y: jax.Array) -> InvQuadLogdet:
        r"""$y^\top A^{-1} y$ and $\log\det A$, with one solve for value and gradient.

        The derivative of the first is $2 \alpha^\top dy - \alpha^\top dA\, \alpha$ with
        $\alpha = A^{-1} y$; the second has that of `logdet`.

        Args:
            y: shape `(n,)`, or `(n, k)` for `k` vectors at once.

        Raises:
            ValueError: the operator is not tagged as positive semi-definite.
        """
        self._need_psd("inv_quad_logdet")
        y = self._checked(y, jnp.ndim(y), "y", self.shape[0])
        return InvQuadLogdet(*self._inv_quad_logdet(y))

    def as_matrix(self) -> jax.Array:
        """The dense matrix. For tests and small sizes: it takes the memory that structure saves."""
        return self._mm(jnp.eye(self.shape[1], dtype=self.dtype))

    def in_structure(self) -> jax.ShapeDtypeStruct:
        """Shape and type of the vectors that `mv` takes."""
        return jax.ShapeDtypeStruct((self.shape[1],), self.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        """Shape and type of the vectors that `mv` returns."""
        return jax.ShapeDtypeStruct((self.shape[0],), self.dtype)

    def __add__(self, other: Any) -> Any:
        left, right = fitted(self, other, "+")
        total = left._plus(right)
        if total is None and isinstance(right, AbstractOperator):
            total = right._plus(left)
        return lx.AddLinearOperator(left, right) if total is None else total

    def __sub__(self, other: Any) -> Any:
        left, right = fitted(self, other, "-")
        return left + -right

    # Lineax's operators add ours themselves: what comes here is no operator, and is refused.
    def __radd__(self, other: Any) -> Any:
        return self + other

    def __rsub__(self, other: Any) -> Any:
        return -self + other

    def __neg__(self) -> AbstractOperator:
        return self * -1.0

    def __mul__(self, other: Any) -> AbstractOperator:
        """The multiple, of the same kind where it can be, with `solve` and `logdet`.

        The sign of a number decides about `ops.psd`. That of an array in a traced function is not
        known; it is taken for a variance, and one that is negative makes the operator NaN.
        """
        factor, sign = checked_scalar(self, other, "*")
        return self._multiple(factor, sign)

    def __truediv__(self, other: Any) -> AbstractOperator:
        factor, sign = checked_scalar(self, other, "/")
        return self._multiple(1 / factor, sign)

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, lx.AbstractLinearOperator):
            left, right = fitted(self, other, "@")
            product = left._times(right)
            return lx.ComposedLinearOperator(left, right) if product is None else product
        return self.mv(other) if jnp.ndim(other) == 1 else self.mm(other)

    def __rmatmul__(self, other: Any) -> jax.Array:
        shape = jnp.shape(other)
        if not shape or shape[-1] != self.shape[0]:
            raise ValueError(
                f"x @ {type(self).__name__} of shape {self.shape}: x must have shape "
                f"(..., {self.shape[0]}), got {shape}"
            )
        flat = jnp.reshape(jnp.asarray(other), (-1, shape[-1]))
        out = self.transpose().mm(flat.T).T
        return out.reshape(*shape[:-1], self.shape[1])

    __array_priority__ = 1000  # so that NumPy arrays leave `x @ A` to us

    def _checked(self, x: Any, ndim: int, name: str, size: int) -> jax.Array:
        self._need_size(name)
        if ndim not in (1, 2) or jnp.ndim(x) != ndim or jnp.shape(x)[0] != size:
            want = f"({size},)" if ndim == 1 else f"({size}, k)"
            raise ValueError(
                f"{type(self).__name__} of shape {self.shape}: {name} must have shape {want}, "
                f"got {jnp.shape(x)}"
            )
        if jnp.result_type(x) != self.dtype:
            raise ValueError(
                f"{type(self).__name__} holds {np.dtype(self.dtype)} and {name} is "
                f"{jnp.result_type(x)}; convert one of them, nothing is converted silently"
            )
        return jnp.asarray(x)

    def _need_square(self, what: str) -> None:
        self._need_size(what)
        if self.shape[0] != self.shape[1]:
            raise ValueError(f"{what} needs a square operator, this one is {self.shape}")

    def _need_psd(self, what: str) -> None:
        self._need_square(what)
        if psd not in self.tags:
            raise ValueError(
                f"{what} needs a positive semi-definite {type(self).__name__}; if this one is, "
                "say so with tags=ops.psd"
            )

    def _unknown(self, what: str, hint: str = "") -> ValueError:
        dense = "or make it dense: ops.Dense(A.as_matrix(), tags=A.tags)"
        return ValueError(
            f"{type(self).__name__} has no {what} of its own; {hint + ', ' if hint else ''}{dense}"
        )


@compiled
def _inverse_diag_by_solves(operator: AbstractOperator) -> jax.Array:
    size = operator.shape[0]

    def some(start: jax.Array) -> jax.Array:
        index = start + jnp.arange(CHUNK)
        unit = jnp.zeros((size, CHUNK), operator.dtype).at[index, jnp.arange(CHUNK)].set(1.0)
        return operator._solve(unit).at[index, jnp.arange(CHUNK)].get(mode="clip")

    return jax.lax.map(some, jnp.arange(0, size, CHUNK)).reshape(-1)[:size]


@eqx.filter_custom_jvp
def inv_quad(operator: AbstractOperator, y: jax.Array) -> jax.Array:
    r"""$y^\top A^{-1} y$ for each column of `y`; its derivative takes no second solve."""
    return jnp.maximum(jnp.sum(y * operator.solve(y), axis=0), 0)  # rounding may make it negative


@inv_quad.def_jvp
def _inv_quad_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    operator, y = primals
    d_operator, d_y = tangents
    alpha = operator.solve(y)
    value = jnp.maximum(jnp.sum(y * alpha, axis=0), 0)
    change = jnp.zeros_like(value)
    if d_y is not None:
        change += 2 * jnp.sum(alpha * d_y, axis=0)
    if jax.tree.leaves(d_operator):

        def times_alpha(operator: AbstractOperator) -> jax.Array:
            return operator._mm(alpha if alpha.ndim == 2 else alpha[:, None])

        _, d_product = eqx.filter_jvp(times_alpha, (operator,), (d_operator,))
        change -= jnp.sum(alpha * d_product.reshape(alpha.shape), axis=0)
    return value, change


def symmetric_solve(multiply: Any, solve: Any, b: jax.Array) -> jax.Array:
    """A solve whose derivative is that of `multiply`, so that `solve` may use cached factors.

    Args:
        multiply: product with the symmetric matrix, differentiable in what it closes over.
        solve: product with its inverse; no derivative goes through it.
        b: right-hand sides, shape `(n, k)`.
    """
    return jax.lax.custom_linear_solve(multiply, b, lambda _, rhs: solve(rhs), symmetric=True)


def checked_arrays(owner: str, arrays: dict[str, Any]) -> tuple[jax.Array, ...]:
    """The arrays, if all have one floating-point type.

    Raises:
        ValueError: an array holds integers, or types are mixed.
    """
    arrays = {name: _as_array(owner, name, array) for name, array in arrays.items()}
    found = {name: jnp.result_type(array) for name, array in arrays.items()}
    for name, dtype in found.items():
        if not jnp.issubdtype(dtype, jnp.inexact):
            raise ValueError(f"{owner}: {name} must hold floating-point numbers, got {dtype}")
    if len(set(found.values())) > 1:
        listed = ", ".join(f"{name} {dtype}" for name, dtype in found.items())
        raise ValueError(f"{owner}: all arrays must have one type, got {listed}")
    return tuple(jnp.asarray(array) for array in arrays.values())


def _as_array(owner: str, name: str, array: Any) -> Any:
    if isinstance(array, (jax.Array, np.ndarray, np.generic, float, int)):
        return array
    try:
        return jnp.asarray(array)
    except (TypeError, ValueError):
        raise ValueError(
            f"{owner}: {name} must be an array of floating-point numbers, got {array!r:.40}"
        ) from None


def checked_draws(owner: str, key: Any, shape: Any) -> None:
    """Refuses what is no key, or no shape of draws.

    Raises:
        ValueError: one of them is not.
    """
    check_key(key)
    whole = isinstance(shape, (tuple, list)) and all(
        isinstance(s, (int, np.integer)) and s >= 0 for s in shape
    )
    if not whole:
        raise ValueError(f"{owner}: shape must be a tuple of integers, 0 or more, got {shape!r}")


def checked_size(owner: str, size: int) -> None:
    """Refuses vectors that 32-bit indices cannot address.

    Raises:
        ValueError: `size` is 2³¹ or more.
    """
    if size >= 2**31:
        raise ValueError(
            f"{owner}: vectors of {size} elements are beyond 32-bit indexing (2³¹ - 1); split one "
            "axis and treat the parts one after the other"
        )
