"""Preconditioned conjugate gradients, and the operators that they take."""

from __future__ import annotations

import numbers
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Bool, Inexact, Int

from .._core import first_of, is_successful, on_failure, RESULTS, whole_number
from ._operator import AbstractOperator, unknown
from ._tags import psd, symmetric


class CGSolve(NamedTuple):
    """Result of conjugate gradients.

    Attributes:
        value: shape `(n,)` or `(n, k)`.
        num_steps: iterations, an integer or one for each column.
        result: whether the tolerance was met, likewise.
    """

    value: Inexact[Array, "n ..."]
    num_steps: Int[Array, ...]
    result: RESULTS

    @property
    def converged(self) -> Bool[Array, ...]:
        """Whether each `result` is successful."""
        return is_successful(self.result)


def cg_solve(
    operator: AbstractOperator,
    b: Inexact[Array, "n k"],
    preconditioner: lx.AbstractLinearOperator,
    rtol: float,
    max_steps: int,
) -> CGSolve:
    """Solves by preconditioned conjugate gradients, with the derivative of the exact solution.

    Args:
        operator: positive definite, `(n, n)`.
        b: shape `(n, k)`.
        preconditioner: positive definite, close to the inverse of the operator.
        rtol: relative to the largest element of each column of `b`.
        max_steps: iterations at most.
    """
    options = {"preconditioner": jax.lax.stop_gradient(preconditioner)}

    def one(column: jax.Array) -> tuple[jax.Array, jax.Array, RESULTS]:
        # Lineax compares element by element, which zeros in b would make impossible without atol.
        atol = rtol * jax.lax.stop_gradient(jnp.max(jnp.abs(column)))
        solver = lx.CG(rtol=rtol, atol=atol, max_steps=max_steps)  # ty: ignore
        solution = lx.linear_solve(operator, column, solver, options=options, throw=False)
        result = first_of(
            (solution.result == lx.RESULTS.successful, RESULTS.successful),
            (solution.result == lx.RESULTS.max_steps_reached, RESULTS.max_steps_reached),
            otherwise=RESULTS.breakdown,
        )
        return solution.value, jnp.asarray(solution.stats["num_steps"]), result

    return CGSolve(*jax.vmap(one, in_axes=1, out_axes=(1, 0, 0))(b))


def check_cg(owner: str, rtol: Any, max_steps: Any) -> None:
    """Refuses options that conjugate gradients do not have.

    Raises:
        ValueError: a tolerance or a number of steps that is not positive.
    """
    if not isinstance(rtol, numbers.Real) or not rtol > 0:
        raise ValueError(f"{owner}: rtol must be a positive number, got {rtol!r:.40}")
    whole_number(f"{owner}: max_steps", max_steps)


def converged_value(solve: CGSolve, owner: str) -> Inexact[Array, " n *k"]:
    """The solution, checked to have converged.

    Raises:
        RuntimeError: the iteration did not converge.
    """
    return eqx.error_if(
        solve.value,
        ~jnp.all(solve.converged),
        f"{owner}: conjugate gradients did not converge; allow more max_steps, a larger rtol or "
        "more noise, or use the exact solver where there is one",
        on_error=on_failure(),
    )


class Inverse(AbstractOperator):
    """The inverse of a symmetric positive definite operator, applied by its solve."""

    base: AbstractOperator
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, base: AbstractOperator):
        self.base = base
        self.tags = frozenset([psd])

    @property
    def shape(self) -> tuple[int, int]:
        return self.base.shape

    @property
    def dtype(self) -> Any:
        return self.base.dtype

    def transpose(self) -> Inverse:
        return self

    def _mm(self, x: jax.Array) -> jax.Array:
        return self.base._solve(x)

    def _solve(self, b: jax.Array) -> jax.Array:
        return self.base._mm(b)

    def _logdet(self) -> jax.Array:
        return -self.base._logdet()

    def _diag(self) -> jax.Array:
        return self.base.inverse_diag()

    _root = unknown("root")


class Submatrix(AbstractOperator):
    """Principal submatrix of a symmetric operator: rows and columns `index`."""

    base: AbstractOperator
    index: Int[Array, " k"]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, base: AbstractOperator, index: Int[Array, " k"]):
        self.base = base
        self.index = index
        self.tags = base.tags & {psd, symmetric}

    @property
    def shape(self) -> tuple[int, int]:
        return (self.index.size, self.index.size)

    @property
    def dtype(self) -> Any:
        return self.base.dtype

    def transpose(self) -> Submatrix:
        return self

    def _mm(self, x: jax.Array) -> jax.Array:
        return self.base._mm(scatter_rows(x, self.index, self.base.shape[0]))[self.index]

    def _diag(self) -> jax.Array:
        return self.base._diag()[self.index]

    _solve, _logdet, _root = map(unknown, ("solve", "logdet", "root"))


def scatter_rows(
    x: Inexact[Array, "k c"], index: Int[Array, " k"], size: int
) -> Inexact[Array, "{size} c"]:
    """A zero matrix of `size` rows with those of `x` at distinct, sorted positions."""
    full = jnp.zeros((size, x.shape[1]), x.dtype)
    return full.at[index].set(x, indices_are_sorted=True, unique_indices=True)
