"""A multivariate normal distribution whose covariance or precision keeps its structure."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints, Distribution

from .._core import failures_are_nan, solve_triangular
from ..ops import (
    AbstractOperator,
    BlockDiag,
    BlockTridiag,
    Dense,
    Diag,
    LowRankPlusDiag,
    psd,
    ScaledIdentity,
    Toeplitz,
)


class StructuredNormal(Distribution):
    r"""Normal law with a structured operator as covariance or as precision.

    Densities, draws and moments cost what `inv_quad_logdet`, `sample` or `sample_inverse`, and
    `diag` or `inverse_diag` of the operator cost; nothing of size `(n, n)` is made. A batch of
    values is solved for as columns, with one factorisation for value and gradient. The density is
    NaN, which samplers avoid, where a dense covariance is not positive definite in its precision;
    operators that factorise when they are made raise their error then.

    Args:
        loc: mean, shape `(n,)`, of the operator's type.
        covariance: operator tagged `ops.psd`, shape `(n, n)`.
        precision: its inverse, given in its place.

    Raises:
        ValueError: both or none of `covariance` and `precision` given, not an operator, not tagged
            as positive semi-definite, or a `loc` of another shape or type.
    """

    support = constraints.real_vector
    has_rsample = True
    pytree_data_fields = ("loc", "covariance", "precision")

    def __init__(
        self,
        loc: Any,
        covariance: AbstractOperator | None = None,
        precision: AbstractOperator | None = None,
    ):
        _check(loc, covariance, precision)
        self.loc = jnp.asarray(loc)
        self.covariance = covariance
        self.precision = precision
        super().__init__((), self.loc.shape, validate_args=False)

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        if self.precision is not None:
            return self.loc + self.precision.sample_inverse(key, sample_shape)
        return self.loc + self.covariance.sample(key, sample_shape)  # ty: ignore

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        shape = jnp.shape(value)
        if shape[-1:] != self.event_shape:
            raise ValueError(
                f"StructuredNormal: value must have shape (..., {self.loc.size}), got {shape}"
            )
        columns = (value - self.loc).reshape(-1, self.loc.size).T
        with failures_are_nan():
            if self.precision is not None:
                quad = jnp.sum(columns * self.precision.mm(columns), axis=0)
                logdet = -self.precision._psd_logdet()
            else:
                quad, logdet = self.covariance.inv_quad_logdet(columns)  # ty: ignore
        constant = self.loc.size * jnp.log(2 * jnp.pi).astype(self.loc.dtype)
        return -0.5 * (quad.reshape(shape[:-1]) + logdet + constant)

    def entropy(self) -> jax.Array:
        constant = self.loc.size * (1 + jnp.log(2 * jnp.pi)).astype(self.loc.dtype)
        if self.precision is not None:
            return 0.5 * (constant - self.precision._psd_logdet())
        return 0.5 * (constant + self.covariance._psd_logdet())  # ty: ignore

    @property
    def mean(self) -> jax.Array:
        return self.loc

    @property
    def variance(self) -> jax.Array:
        if self.precision is not None:
            return self.precision.inverse_diag()
        return self.covariance.diag()  # ty: ignore

    @property
    def covariance_matrix(self) -> jax.Array:
        """The dense covariance, shape `(n, n)`: for small sizes."""
        if self.precision is not None:
            return self.precision.solve(jnp.eye(self.loc.size, dtype=self.loc.dtype))
        return self.covariance.as_matrix()  # ty: ignore

    def condition(self, index: Any, value: Any) -> StructuredNormal:
        r"""The exact law of the other components, in their order, given some of them.

        With a precision $Q$ it has the precision $Q_{rr}$, the rows and columns that remain, and
        with a covariance the Schur complement. Structure is kept where it survives:

        - diagonal and low rank plus diagonal: always;
        - block-diagonal and block-tridiagonal precisions: if as many components remain of every
          block of which any remain, for instance when whole blocks are given;
        - a Toeplitz precision: if the rest is evenly spaced.

        Otherwise the rest gets an `ops.Dense` operator: memory is then $n$ times the number of
        components that remain, or that are given of a covariance.

        Args:
            index: positions of the components given, distinct integers known when traced, shape
                `(k,)`, with `0 < k < n`.
            value: what they are, shape `(k,)`.

        Raises:
            ValueError: positions that are not integers, traced, out of range, repeated, none or
                all; a `value` of another shape or type.
        """
        given, rest = _split_index(index, self.loc.size)
        if jnp.shape(value) != given.shape or jnp.result_type(value) != self.loc.dtype:
            raise ValueError(
                f"condition: value must have shape {given.shape} and type {self.loc.dtype}, got "
                f"{jnp.shape(value)} and {jnp.result_type(value)}"
            )
        shift = value - self.loc[given]
        if self.precision is not None:
            remaining = principal(self.precision, rest)
            pull = jnp.zeros_like(self.loc).at[given].set(shift)
            pull = self.precision.mv(pull)[rest]
            return StructuredNormal(self.loc[rest] - remaining.solve(pull), precision=remaining)
        move, remaining = schur(self.covariance, given, rest, shift)
        return StructuredNormal(self.loc[rest] + move, covariance=remaining)


@functools.singledispatch
def principal(operator: AbstractOperator, index: np.ndarray) -> AbstractOperator:
    """Rows and columns `index` (sorted) of a positive definite operator, structured if possible."""
    return Dense(_columns(operator, index)[index], psd)


@principal.register
def _(operator: Dense, index: np.ndarray) -> Dense:
    return Dense(operator.matrix[np.ix_(index, index)], psd)


@principal.register
def _(operator: Diag, index: np.ndarray) -> Diag:
    return Diag(operator.entries[index], psd)


@principal.register
def _(operator: ScaledIdentity, index: np.ndarray) -> ScaledIdentity:
    return ScaledIdentity(operator.scale, index.size)


@principal.register
def _(operator: LowRankPlusDiag, index: np.ndarray) -> LowRankPlusDiag:
    return LowRankPlusDiag(operator.factor[index], operator.diagonal[index])


@principal.register
def _(operator: Toeplitz, index: np.ndarray) -> AbstractOperator:
    gaps = np.unique(np.diff(index))
    if gaps.size > 1:
        return principal.dispatch(AbstractOperator)(operator, index)
    return Toeplitz(operator.column[index - index[0]])


@principal.register
def _(operator: BlockDiag, index: np.ndarray) -> AbstractOperator:
    even = None if isinstance(operator.blocks, tuple) else _even(index, operator.blocks.shape[1])
    if even is None:
        return principal.dispatch(AbstractOperator)(operator, index)
    block, within = even
    return BlockDiag(_inside(operator.blocks, block, within, within), psd)


@principal.register
def _(operator: BlockTridiag, index: np.ndarray) -> AbstractOperator:
    even = _even(index, operator.diagonal.shape[1])
    if even is None:
        return principal.dispatch(AbstractOperator)(operator, index)
    block, within = even
    diagonal = _inside(operator.diagonal, block, within, within)
    lower = _inside(operator.lower, block[:-1], within[1:], within[:-1])
    # Where blocks are missing between two that remain, the chain is cut.
    cut = (np.diff(block) > 1)[:, None, None]
    return BlockTridiag(diagonal, jnp.where(cut, 0, lower), operator.parallel)


@functools.singledispatch
def schur(
    operator: AbstractOperator, given: np.ndarray, rest: np.ndarray, shift: jax.Array
) -> tuple[jax.Array, AbstractOperator]:
    r"""$A_{ro} A_{oo}^{-1} s$ and $A_{rr} - A_{ro} A_{oo}^{-1} A_{or}$ for a covariance $A$."""
    columns = _columns(operator, given)
    tril = Dense(columns[given], psd)._tril("condition")
    half = solve_triangular(tril, columns[rest].T, lower=True)
    move = half.T @ solve_triangular(tril, shift, lower=True)
    own = principal.dispatch(AbstractOperator)(operator, rest).as_matrix()
    return move, Dense(own - half.T @ half, psd)


@schur.register(Diag)
@schur.register(ScaledIdentity)
def _(operator: Any, given: np.ndarray, rest: np.ndarray, shift: jax.Array) -> tuple[Any, Any]:
    return jnp.zeros(rest.size, operator.dtype), principal(operator, rest)


@schur.register
def _(
    operator: LowRankPlusDiag, given: np.ndarray, rest: np.ndarray, shift: jax.Array
) -> tuple[jax.Array, LowRankPlusDiag]:
    # U' (D_o + U_o U_o')⁻¹ U leaves the factors with the covariance C⁻¹, C = I + U_o' D_o⁻¹ U_o.
    observed = LowRankPlusDiag(operator.factor[given], operator.diagonal[given])
    factor = operator.factor[rest]
    move = factor @ (observed.factor.T @ observed.solve(shift))
    left = solve_triangular(observed._tril(), factor.T, lower=True).T
    return move, LowRankPlusDiag(left, operator.diagonal[rest])


def _columns(operator: AbstractOperator, index: np.ndarray) -> jax.Array:
    if isinstance(operator, Dense):
        return operator.matrix[:, index]
    unit = jnp.zeros((operator.shape[1], index.size), operator.dtype)
    return operator.mm(unit.at[index, np.arange(index.size)].set(1.0))


def _even(index: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Blocks of `size` that `index` touches and the places in each, if equally many in all."""
    block, counts = np.unique(index // size, return_counts=True)
    if np.unique(counts).size > 1:
        return None
    return block, (index % size).reshape(block.size, -1)


def _inside(blocks: Any, block: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> jax.Array:
    return blocks[block[:, None, None], rows[:, :, None], columns[:, None, :]]


def _split_index(index: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(index, jax.core.Tracer):
        raise ValueError("condition: index is traced; which components are given must be known")
    given = np.asarray(index)
    if given.ndim != 1 or not (np.issubdtype(given.dtype, np.integer) or given.size == 0):
        raise ValueError(
            "condition: index must hold integers, shape (k,), got "
            f"{given.dtype} of shape {given.shape}; a mask goes through np.flatnonzero"
        )
    if not 0 < given.size < size:
        raise ValueError(
            f"condition: between 1 and {size - 1} components can be given, got {given.size}"
        )
    if given.min() < 0 or given.max() >= size:
        bad = given[(given < 0) | (given >= size)][0]
        raise ValueError(f"condition: index must be in 0, ..., {size - 1}, got {bad}")
    values, counts = np.unique(given, return_counts=True)
    if np.any(counts > 1):
        raise ValueError(f"condition: index holds {values[counts > 1][0]} more than once")
    return given, np.setdiff1d(np.arange(size), given)


def _check(loc: Any, covariance: Any, precision: Any) -> None:
    if (covariance is None) == (precision is None):
        raise ValueError("StructuredNormal takes one of covariance and precision, not both or none")
    name = "covariance" if precision is None else "precision"
    operator = covariance if precision is None else precision
    if not isinstance(operator, AbstractOperator):
        raise ValueError(
            f"StructuredNormal: {name} must be an operator of bayesjx.ops, got "
            f"{type(operator).__name__}; a dense matrix is ops.Dense(matrix, ops.psd)"
        )
    operator._need_psd(f"StructuredNormal: {name}")
    if jnp.shape(loc) != operator.shape[:1]:
        raise ValueError(
            f"StructuredNormal: loc must have shape {operator.shape[:1]}, got {jnp.shape(loc)}"
        )
    if jnp.result_type(loc) != operator.dtype:
        raise ValueError(
            f"StructuredNormal: loc is {jnp.result_type(loc)} and {name} holds "
            f"{np.dtype(operator.dtype)}; they must be the same"
        )
