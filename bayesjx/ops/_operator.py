"""Abstract base class of structured matrices."""

from __future__ import annotations

import abc
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
from jaxtyping import Array, Inexact

from . import _general as general
from ._arithmetic import checked_scalar, fitted, multiple, plus, times
from ._checks import checked_draws
from ._tags import psd


class InvQuadLogdet(NamedTuple):
    r"""Quadratic form and log-determinant of a covariance $A$, for a Gaussian density.

    Attributes:
        inv_quad: $y^\top A^{-1} y$, a scalar, or one for each column of `y`.
        logdet: $\log\det A$, a scalar.
    """

    inv_quad: Inexact[Array, ...]
    logdet: Inexact[Array, ""]


class AbstractOperator(lx.AbstractLinearOperator):
    r"""Abstract base class of structured matrices, Lineax operators on vectors of shape `(n,)`.

    `A @ x` takes a vector, a matrix or another operator. `x @ A` takes an array whose last axis is
    multiplied. Methods for symmetric positive semi-definite matrices need the tag `ops.psd`,
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

    # A structure without one of these raises, by `unknown`.

    @abc.abstractmethod
    def _solve(self, b: jax.Array) -> jax.Array:
        """The solution for right-hand sides of shape `(n, k)`."""

    @abc.abstractmethod
    def _logdet(self) -> jax.Array:
        """The logarithm of the absolute determinant."""

    @abc.abstractmethod
    def _diag(self) -> jax.Array:
        """The diagonal of a square matrix."""

    @abc.abstractmethod
    def _root(self) -> AbstractOperator:
        """A root of a positive semi-definite matrix."""

    def mv(self, vector: Inexact[Array | np.ndarray, " n"]) -> Inexact[Array, " m"]:
        """The product with a vector of shape `(n,)`."""
        return self._mm(self._checked(vector, 1, "vector", self.shape[1])[:, None])[:, 0]

    def mm(self, x: Inexact[Array | np.ndarray, "n k"]) -> Inexact[Array, "m k"]:
        """The product with a matrix of shape `(n, k)`."""
        return self._mm(self._checked(x, 2, "x", self.shape[1]))

    def solve(
        self, b: Inexact[Array | np.ndarray, " n *k"], solver: lx.AbstractLinearSolver | None = None
    ) -> Inexact[Array, " n *k"]:
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

    def logdet(self) -> Inexact[Array, ""]:
        r"""$\log|\det A|$, scalar."""
        self._need_square("logdet")
        return self._logdet()

    def psd_logdet(self) -> Inexact[Array, ""]:
        r"""$\log\det A$ of a positive definite matrix, scalar, as the density of a normal takes it.

        NaN, or an error at run time, where the matrix turns out to be none; `logdet` is that of the
        absolute determinant.

        Raises:
            ValueError: the operator is not tagged as positive semi-definite.
        """
        self.require_psd("psd_logdet")
        return general.psd_logdet(self)

    def diag(self) -> Inexact[Array, " n"]:
        """The diagonal, shape `(n,)`."""
        self._need_square("diag")
        return self._diag()

    def inverse_diag(self) -> Inexact[Array, " n"]:
        """The diagonal of the inverse, shape `(n,)`: the variances that belong to a precision.

        Where the structure has no formula it takes `n` solves, 64 at a time.
        """
        self._need_square("inverse_diag")
        return general.inverse_diag(self)

    def root(self) -> AbstractOperator:
        r"""An operator $R$ with $R R^\top = A$.

        Raises:
            ValueError: the operator is not tagged as positive semi-definite.
        """
        self.require_psd("root")
        return self._root()

    def sample(self, key: jax.Array, shape: tuple[int, ...] = ()) -> Inexact[Array, "*shape n"]:
        r"""Draws from $N(0, A)$, shape `(*shape, n)`, differentiable.

        Raises:
            ValueError: the operator is not tagged as positive semi-definite.
        """
        self.require_psd("sample")
        checked_draws("sample", key, shape)
        return general.sample(self, key, math.prod(shape)).T.reshape(*shape, self.shape[0])

    def sample_inverse(
        self, key: jax.Array, shape: tuple[int, ...] = ()
    ) -> Inexact[Array, "*shape n"]:
        r"""Draws from $N(0, A^{-1})$, shape `(*shape, n)`: the operator is a precision.

        Raises:
            ValueError: the operator is not tagged as positive semi-definite.
        """
        self.require_psd("sample_inverse")
        checked_draws("sample_inverse", key, shape)
        draws = general.sample_inverse(self, key, math.prod(shape))
        return draws.T.reshape(*shape, self.shape[0])

    def inv_quad_logdet(self, y: Inexact[Array | np.ndarray, " n *k"]) -> InvQuadLogdet:
        r"""The quadratic form $y^\top A^{-1} y$ and $\log\det A$, with one solve for both.

        The derivative of the first is $2 \alpha^\top dy - \alpha^\top dA\, \alpha$ with
        $\alpha = A^{-1} y$; the second has that of `logdet`.

        Args:
            y: shape `(n,)`, or `(n, k)` for `k` vectors at once.

        Raises:
            ValueError: the operator is not tagged as positive semi-definite.
        """
        self.require_psd("inv_quad_logdet")
        y = self._checked(y, jnp.ndim(y), "y", self.shape[0])
        return InvQuadLogdet(*general.inv_quad_logdet(self, y))

    def as_matrix(self) -> Inexact[Array, "m n"]:
        """The dense matrix. For tests and small sizes: it takes the memory that structure saves."""
        return general.as_matrix(self)

    def in_structure(self) -> jax.ShapeDtypeStruct:
        """Shape and type of the vectors that `mv` takes."""
        return jax.ShapeDtypeStruct((self.shape[1],), self.dtype)

    def out_structure(self) -> jax.ShapeDtypeStruct:
        """Shape and type of the vectors that `mv` returns."""
        return jax.ShapeDtypeStruct((self.shape[0],), self.dtype)

    def __add__(self, other: Any) -> Any:
        left, right = fitted(self, other, "+")
        total = plus(left, right)
        if total is None and isinstance(right, AbstractOperator):
            total = plus(right, left)
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
        return multiple(self, factor, sign)

    def __truediv__(self, other: Any) -> AbstractOperator:
        factor, sign = checked_scalar(self, other, "/")
        return multiple(self, 1 / factor, sign)

    def __matmul__(self, other: Any) -> Any:
        if isinstance(other, lx.AbstractLinearOperator):
            left, right = fitted(self, other, "@")
            product = times(left, right)
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
        general.check_size(self, name)
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
        general.check_size(self, what)
        if self.shape[0] != self.shape[1]:
            raise ValueError(f"{what} needs a square operator, this one is {self.shape}")

    def require_psd(self, what: str) -> None:
        """Refuses an operator that is not tagged as positive semi-definite.

        Args:
            what: what needs it, for the text of the error.

        Raises:
            ValueError: it is not square or has no such tag.
        """
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


def unknown(what: str) -> Any:
    """A method that raises, for what a structure has no algorithm for."""
    by_solver = "pass a Lineax solver: solve(b, solver=lineax.CG(1e-8, 1e-8))"

    def refuse(self: AbstractOperator, *_: Any) -> Any:
        raise self._unknown(what, by_solver if what == "solve" else "")

    return refuse
