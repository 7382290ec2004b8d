"""A multivariate normal distribution whose covariance or precision keeps its structure."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints

from .._core import failures_are_nan, solve_triangular
from ..ops import (
    AbstractOperator,
    BlockDiag,
    BlockTridiag,
    Dense,
    Diag,
    LowRankPlusDiag,
    psd,
    residual_covariance,
    ScaledIdentity,
    Toeplitz,
)
from ._vector_normal import AbstractVectorNormal, log_two_pi


class _PositiveDefiniteOperator(constraints.ParameterFreeConstraint):
    """Operators that are tagged so, which is checked when a distribution is made of them."""

    event_dim = 2

    def __call__(self, x: Any) -> bool:
        return isinstance(x, AbstractOperator)

    def tree_flatten(self) -> Any:
        return (), ((), {})


_OPERATOR = _PositiveDefiniteOperator()


class AbstractStructuredNormal(AbstractVectorNormal):
    """Abstract base class of normal distributions with an operator as covariance or precision."""

    arg_constraints = {
        "loc": constraints.real_vector,
        "covariance": _OPERATOR,
        "precision": _OPERATOR,
    }
    pytree_data_fields = ("loc", "covariance", "precision")
    pytree_aux_fields = ("_first_ndim",)

    def __init__(
        self,
        loc: Any,
        covariance: AbstractOperator | None = None,
        precision: AbstractOperator | None = None,
        *,
        validate_args: bool | None = False,
    ):
        _check(loc, covariance, precision)
        self.loc = jnp.asarray(loc)
        self.covariance = covariance
        self.precision = precision
        self._first_ndim = jnp.ndim(self._first_leaf())
        super().__init__(self.loc.shape[:-1], self.loc.shape[-1:], validate_args=validate_args)

    def _first_leaf(self) -> Any:
        leaves = jax.tree.leaves((self.covariance, self.precision))
        return leaves[0] if leaves else 0.0

    @property
    def _mapped_ndim(self) -> int:
        return jnp.ndim(self._first_leaf()) - self._first_ndim

    def get_args(self) -> dict[str, Any]:
        """The arguments of the constructor: `loc` and the operator that was given."""
        return {name: x for name, x in super().get_args().items() if x is not None}

    def _sample(self, key: Any, shape: tuple[int, ...]) -> jax.Array:
        shape = shape + self.loc.shape[:-1]
        if self.precision is not None:
            return self.loc + self.precision.sample_inverse(key, shape)
        return self.loc + self.covariance.sample(key, shape)  # ty: ignore

    def _normal_log_prob(self, value: jax.Array) -> jax.Array:
        quad, logdet = quad_logdet(self, value - self.loc)
        return -0.5 * (quad + logdet + self.loc.shape[-1] * log_two_pi(self.loc.dtype))

    def _entropy(self) -> jax.Array:
        constant = self.loc.shape[-1] * (1 + log_two_pi(self.loc.dtype))
        entropy = 0.5 * (constant + log_determinant(self))
        return jnp.broadcast_to(entropy, self.loc.shape[:-1])

    def _variance(self) -> jax.Array:
        if self.precision is not None:
            return jnp.broadcast_to(self.precision.inverse_diag(), self.loc.shape)
        return jnp.broadcast_to(self.covariance.diag(), self.loc.shape)  # ty: ignore

    def _covariance_matrix(self) -> jax.Array:
        dense = dense_covariance(self)
        return jnp.broadcast_to(dense, (*self.loc.shape[:-1], *dense.shape))

    def condition(self, index: Any, value: Any) -> StructuredNormal:
        r"""The conditional distribution of the other components, in their order, given some.

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
                all; a `value` of another shape or type; a batch, for which there is `jax.vmap`.
        """
        if self.loc.ndim != 1:
            raise ValueError(
                f"condition: loc has shape {self.loc.shape}, a batch; condition each of its "
                "distributions under jax.vmap"
            )
        given, rest = _split_index(index, self.loc.size)
        if jnp.shape(value) != given.shape or jnp.result_type(value) != self.loc.dtype:
            raise ValueError(
                f"condition: value must have shape {given.shape} and type {self.loc.dtype}, got "
                f"{jnp.shape(value)} and {jnp.result_type(value)}"
            )
        shift = value - self.loc[given]
        if self.precision is not None:
            remaining = principal(self.precision, rest)
            shifted = jnp.zeros_like(self.loc).at[given].set(shift)
            product = self.precision.mv(shifted)[rest]
            return StructuredNormal(self.loc[rest] - remaining.solve(product), precision=remaining)
        change, remaining = schur(self.covariance, given, rest, shift)
        return StructuredNormal(self.loc[rest] + change, covariance=remaining)


class StructuredNormal(AbstractStructuredNormal):
    r"""Multivariate normal distribution with a structured operator as covariance or precision.

    Densities, draws and moments cost what `inv_quad_logdet`, `sample` or `sample_inverse`, and
    `diag` or `inverse_diag` of the operator cost; nothing of size `(n, n)` is made. A batch of
    values is solved for as columns, with one factorisation for value and gradient. The density is
    NaN, which samplers avoid, where a dense covariance is not positive definite in its precision;
    operators that factorise when they are made raise their error then.

    Args:
        loc: mean, shape `(n,)`, of the operator's type; leading axes make a batch of distributions
            with the same covariance, which costs one factorisation.
        covariance: operator tagged `ops.psd`, shape `(n, n)`.
        precision: its inverse, given in its place.
        validate_args: whether values are checked, as elsewhere in NumPyro.

    Raises:
        ValueError: both or none of `covariance` and `precision` given, not an operator, not tagged
            as positive semi-definite, or a `loc` of another shape or type.
    """

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        return self._batched_log_prob(value)

    def _log_prob(self, value: jax.Array) -> jax.Array:
        return self._normal_log_prob(value)


def quad_logdet(d: AbstractStructuredNormal, shift: jax.Array) -> tuple[jax.Array, jax.Array]:
    r"""$s^\top \Sigma^{-1} s$ for shifts of shape `(..., n)`, and $\log \det \Sigma$.

    NaN where the operator turns out not to be positive definite.
    """
    columns = shift.reshape(-1, shift.shape[-1]).T
    with failures_are_nan():
        if d.precision is not None:
            quad = jnp.sum(columns * d.precision.mm(columns), axis=0)
            logdet = -d.precision.psd_logdet()
        else:
            quad, logdet = d.covariance.inv_quad_logdet(columns)  # ty: ignore
    return quad.reshape(shift.shape[:-1]), logdet


def log_determinant(d: AbstractStructuredNormal) -> jax.Array:
    """The log-determinant of the covariance, scalar."""
    if d.precision is not None:
        return -d.precision.psd_logdet()
    return d.covariance.psd_logdet()  # ty: ignore


def dense_covariance(d: AbstractStructuredNormal) -> jax.Array:
    """The dense covariance, shape `(n, n)`."""
    if d.precision is not None:
        return d.precision.solve(jnp.eye(d.loc.shape[-1], dtype=d.loc.dtype))
    return d.covariance.as_matrix()  # ty: ignore


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
    tril = Dense(columns[given], psd).cholesky("condition")
    half = solve_triangular(tril, columns[rest].T, lower=True)
    change = half.T @ solve_triangular(tril, shift, lower=True)
    own = principal.dispatch(AbstractOperator)(operator, rest).as_matrix()
    return change, residual_covariance(own - half.T @ half, jnp.mean(jnp.diag(own)))


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
    change = factor @ (observed.factor.T @ observed.solve(shift))
    left = solve_triangular(observed.inner_cholesky(), factor.T, lower=True).T
    return change, LowRankPlusDiag(left, operator.diagonal[rest])


def _columns(operator: AbstractOperator, index: np.ndarray) -> jax.Array:
    if isinstance(operator, Dense):
        return operator.matrix[:, index]
    unit = jnp.zeros((operator.shape[1], index.size), operator.dtype)
    return operator.mm(unit.at[index, np.arange(index.size)].set(1.0))


def _even(index: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray] | None:
    """Blocks of `size` that `index` touches and the positions in each, if equally many in all."""
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
    operator.require_psd(f"StructuredNormal: {name}")
    if jnp.shape(loc)[-1:] != operator.shape[:1]:
        raise ValueError(
            f"StructuredNormal: loc must have shape {operator.shape[:1]}, got {jnp.shape(loc)}; "
            "leading axes are a batch"
        )
    if jnp.result_type(loc) != operator.dtype:
        raise ValueError(
            f"StructuredNormal: loc is {jnp.result_type(loc)} and {name} holds "
            f"{np.dtype(operator.dtype)}; they must be the same"
        )
