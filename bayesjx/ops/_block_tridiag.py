"""Block-tridiagonal matrices: the precisions of Markov chains."""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jaxtyping import Array, Inexact

from .._core import cholesky_each, solve_tril_each
from . import _general as general
from ._checks import checked_arrays, checked_size
from ._factors import check_each, kept, symmetric_solve
from ._operator import AbstractOperator, unknown
from ._tags import psd


class SelectedInverse(NamedTuple):
    """Selected inverse (Takahashi): the blocks of the inverse where the matrix has blocks.

    Attributes:
        diagonal: blocks `(i, i)`, shape `(T, b, b)`.
        lower: blocks `(i + 1, i)`, shape `(T - 1, b, b)`.
    """

    diagonal: Inexact[Array, "T b b"]
    lower: Inexact[Array, "T-1 b b"]


class BlockTridiag(AbstractOperator):
    r"""Symmetric positive definite block-tridiagonal matrix: $A_i$ on the diagonal, $B_i$ below.

    The precision matrix of a Gaussian Markov chain. A Cholesky factor with blocks $L_i$ and
    $C_i = B_i L_{i-1}^{-\top}$ is computed once, when the operator is made, in $O(T b^3)$; then
    solves and draws take $O(T b^2)$ a column. `selected_inverse` gives the covariances of
    neighbours, which are also the derivative of `logdet`. To change the blocks make a new operator:
    a replaced field would not agree with the factor.

    Args:
        diagonal: $A_1, \dots, A_T$, symmetric, shape `(T, b, b)`.
        lower: $B_2, \dots, B_T$, where $B_i$ stands in row $i$ and column $i - 1$, shape
            `(T - 1, b, b)`.
        parallel: factorise and substitute by associative scans of depth $O(\log T)$ in place of
            loops of length $T$. It is the same result by about four times the operations: for
            accelerators.

    Raises:
        ValueError: shapes that do not fit, or types that differ or are not floating-point.
        RuntimeError: the matrix is not positive definite; the text names the first block whose
            pivot is not.

    References:
        Rue and Held (2005), "Gaussian Markov random fields", sections 2.4 and 2.6; Takahashi,
        Fagan and Chen (1973), "Formation of a sparse bus impedance matrix", for the selected
        inverse.
    """

    diagonal: Inexact[Array, "T b b"]
    lower: Inexact[Array, "T-1 b b"]
    factor: BlockBidiag
    tags: frozenset[object] = eqx.field(static=True)
    parallel: bool = eqx.field(static=True)

    def __init__(self, diagonal: Any, lower: Any, parallel: bool = False):
        _check_blocks("BlockTridiag", diagonal, lower, parallel)
        arrays = {"diagonal": diagonal, "lower": lower}
        self.diagonal, self.lower = checked_arrays("BlockTridiag", arrays)
        self.parallel = parallel
        self.tags = frozenset([psd])
        checked_size("BlockTridiag", self.shape[0])
        factor = self._factorise(*jax.lax.stop_gradient((self.diagonal, self.lower)))
        bad = ~jnp.all(jnp.isfinite(_diagonals(factor.diagonal)), axis=1)
        self.factor = check_each(
            factor,
            bad,
            "BlockTridiag is not positive definite: its rows and columns up to and with block {} "
            "(counted from 0) are not, while those before it are",
        )

    @property
    def shape(self) -> tuple[int, int]:
        size = self.diagonal.shape[0] * self.diagonal.shape[1]
        return (size, size)

    @property
    def dtype(self) -> Any:
        return self.diagonal.dtype

    def transpose(self) -> BlockTridiag:
        return self

    def selected_inverse(self) -> SelectedInverse:
        """The blocks of the inverse on and below the diagonal, in $O(T b^3)$; differentiable."""
        factor = self._root()
        eye = jnp.broadcast_to(jnp.eye(self.diagonal.shape[1], dtype=self.dtype), factor.blocks)
        inv_tril = solve_tril_each(factor.diagonal, eye)
        own = inv_tril.mT @ inv_tril
        gain = jnp.pad(factor.lower @ inv_tril[:-1], ((0, 1), (0, 0), (0, 0)))
        diagonal = _congruences(gain, own, self.parallel)
        return SelectedInverse(diagonal, -diagonal[1:] @ gain[:-1])

    def _mm(self, x: jax.Array) -> jax.Array:
        rows = _rows(x, self.diagonal)
        out = self.diagonal @ rows
        out = out.at[1:].add(self.lower @ rows[:-1])
        return out.at[:-1].add(self.lower.mT @ rows[1:]).reshape(x.shape)

    def _solve(self, b: jax.Array) -> jax.Array:
        factor = jax.lax.stop_gradient(self.factor)

        def solve(b: jax.Array) -> jax.Array:
            return factor.transpose()._solve(factor._solve(b))

        return symmetric_solve(self._mm, solve, b)

    def _logdet(self) -> jax.Array:
        return _logdet(self)

    def _diag(self) -> jax.Array:
        return _diagonals(self.diagonal).reshape(-1)

    def _root(self) -> BlockBidiag:
        return kept((self.diagonal, self.lower), self.factor, factorise=self._factorise)

    @property
    def _factorise(self) -> Any:
        return functools.partial(_cholesky, parallel=self.parallel)


@general.inverse_diag.register
def _(operator: BlockTridiag) -> jax.Array:
    return _diagonals(operator.selected_inverse().diagonal).reshape(-1)


class BlockBidiag(AbstractOperator):
    r"""Lower block-bidiagonal matrix, or its transpose: blocks on and just below the diagonal.

    The Cholesky factor of `BlockTridiag`. Products and solves take $O(T b^2)$ a column.

    Args:
        diagonal: lower triangular blocks $L_i$, shape `(T, b, b)`.
        lower: blocks $C_i$ in row $i$ and column $i - 1$, shape `(T - 1, b, b)`.
        parallel: substitute by an associative scan.
        transposed: stand for the transpose, which is upper triangular.

    Raises:
        ValueError: shapes that do not fit, or types that differ or are not floating-point.
    """

    diagonal: Inexact[Array, "T b b"]
    lower: Inexact[Array, "T-1 b b"]
    parallel: bool = eqx.field(static=True)
    transposed: bool = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, diagonal: Any, lower: Any, parallel: bool = False, transposed: bool = False):
        _check_blocks("BlockBidiag", diagonal, lower, parallel)
        arrays = {"diagonal": diagonal, "lower": lower}
        self.diagonal, self.lower = checked_arrays("BlockBidiag", arrays)
        self.parallel = parallel
        self.transposed = transposed
        tag = lx.upper_triangular_tag if transposed else lx.lower_triangular_tag
        self.tags = frozenset([tag])

    @property
    def blocks(self) -> tuple[int, int, int]:
        """Number of blocks, rows and columns of each."""
        return self.diagonal.shape  # ty: ignore

    @property
    def shape(self) -> tuple[int, int]:
        size = self.blocks[0] * self.blocks[1]
        return (size, size)

    @property
    def dtype(self) -> Any:
        return self.diagonal.dtype

    def transpose(self) -> BlockBidiag:
        return BlockBidiag(self.diagonal, self.lower, self.parallel, not self.transposed)

    def _mm(self, x: jax.Array) -> jax.Array:
        rows = _rows(x, self.diagonal)
        if self.transposed:
            out = (self.diagonal.mT @ rows).at[:-1].add(self.lower.mT @ rows[1:])
        else:
            out = (self.diagonal @ rows).at[1:].add(self.lower @ rows[:-1])
        return out.reshape(x.shape)

    def _solve(self, b: jax.Array) -> jax.Array:
        # x_i = L_i⁻¹ b_i - (L_i⁻¹ C_i) x_{i-1}: what is solved with L_i is solved for all at once.
        none = [(0, 0), (0, 0)]
        if self.transposed:
            coupling = jnp.pad(self.lower.mT, [(0, 1), *none])
        else:
            coupling = jnp.pad(self.lower, [(1, 0), *none])
        together = jnp.concatenate([coupling, _rows(b, self.diagonal)], axis=2)
        solved = solve_tril_each(self.diagonal, together, transposed=self.transposed)
        step, start = jnp.split(solved, [self.blocks[1]], axis=2)
        return _recursion(-step, start, self.parallel, self.transposed).reshape(b.shape)

    def _logdet(self) -> jax.Array:
        return jnp.sum(jnp.log(jnp.abs(self._diag())))

    def _diag(self) -> jax.Array:
        return _diagonals(self.diagonal).reshape(-1)

    _root = unknown("root")


@eqx.filter_custom_jvp
def _logdet(operator: BlockTridiag) -> jax.Array:
    return 2 * operator.factor._logdet()


@_logdet.def_jvp
def _logdet_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (operator,), (change,) = primals, tangents
    inverse = operator.selected_inverse()
    total = jnp.zeros((), operator.dtype)
    if change.diagonal is not None:
        total += jnp.sum(inverse.diagonal * change.diagonal)
    if change.lower is not None:
        total += 2 * jnp.sum(inverse.lower * change.lower)
    return _logdet(operator), total


@functools.partial(jax.jit, static_argnames="parallel")
def _cholesky(diagonal: jax.Array, lower: jax.Array, parallel: bool) -> BlockBidiag:
    """The factor; its first bad pivot and what follows are NaN."""
    first = jnp.zeros_like(diagonal[:1])
    if parallel:
        tril = cholesky_each(_pivots(diagonal, jnp.concatenate([first, lower])))
        return BlockBidiag(tril, _over_transpose(lower, tril[:-1]), parallel)

    def step(tril: jax.Array, blocks: Any) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        own, coupling = blocks
        below = _over_transpose(coupling, tril)
        tril = cholesky_each(own - below @ below.T)
        return tril, (tril, below)

    start = jnp.eye(diagonal.shape[1], dtype=diagonal.dtype)
    padded = jnp.concatenate([first, lower])
    _, (tril, below) = jax.lax.scan(step, start, (diagonal, padded))
    return BlockBidiag(tril, below[1:], parallel)


def _pivots(diagonal: jax.Array, lower: jax.Array) -> jax.Array:
    r"""$D_i = A_i - B_i D_{i-1}^{-1} B_i^\top$ for all $i$ by an associative scan.

    An element stands for blocks $i, \dots, j$ coupled to block $i - 1$, with those before $j$
    eliminated: what is left on blocks $i - 1$ and $j$ is $[[E, F], [F^\top, G]]$. Joining two
    eliminates the block they share, whose pivot is a Schur complement of the whole matrix, so
    positive definite.
    """

    def join(left: Any, right: Any) -> Any:
        (e, f, g), (e_right, f_right, g_right) = left, right
        tril = cholesky_each(g + e_right)
        to_left = solve_tril_each(tril, f.mT)
        to_right = solve_tril_each(tril, f_right)
        return (
            e - to_left.mT @ to_left,
            -to_left.mT @ to_right,
            g_right - to_right.mT @ to_right,
        )

    elements = (jnp.zeros_like(diagonal), lower.mT, diagonal)
    return jax.lax.associative_scan(join, elements)[2]


@functools.partial(jax.jit, static_argnames=("parallel", "reverse"))
def _recursion(step: jax.Array, start: jax.Array, parallel: bool, reverse: bool) -> jax.Array:
    """$x_i = M_i x_{i-1} + c_i$ from $x_0 = 0$; `step` is `(T, b, b)`, `start` `(T, b, k)`."""
    if parallel:

        def join(first: Any, then: Any) -> Any:
            return then[0] @ first[0], then[0] @ first[1] + then[1]

        return jax.lax.associative_scan(join, (step, start), reverse=reverse)[1]

    def advance(x: jax.Array, blocks: Any) -> tuple[jax.Array, jax.Array]:
        x = blocks[0] @ x + blocks[1]
        return x, x

    zero = jnp.zeros_like(start[0])
    return jax.lax.scan(advance, zero, (step, start), reverse=reverse)[1]


@functools.partial(jax.jit, static_argnames="parallel")
def _congruences(gain: jax.Array, own: jax.Array, parallel: bool) -> jax.Array:
    r"""$V_i = P_i + G_i^\top V_{i+1} G_i$ from the end."""
    if parallel:

        def join(first: Any, then: Any) -> Any:
            return first[0] @ then[0], then[0].mT @ first[1] @ then[0] + then[1]

        return jax.lax.associative_scan(join, (gain, own), reverse=True)[1]

    def back(value: jax.Array, blocks: Any) -> tuple[jax.Array, jax.Array]:
        value = blocks[1] + blocks[0].T @ value @ blocks[0]
        return value, value

    return jax.lax.scan(back, jnp.zeros_like(own[0]), (gain, own), reverse=True)[1]


def _over_transpose(blocks: jax.Array, tril: jax.Array) -> jax.Array:
    """`blocks` times the inverse of the transpose of `tril`."""
    return solve_tril_each(tril, blocks.mT).mT


def _check_blocks(owner: str, diagonal: Any, lower: Any, parallel: Any) -> None:
    shape, below = jnp.shape(diagonal), jnp.shape(lower)
    good = len(shape) == 3 and shape[0] > 0 and shape[1] == shape[2]
    if not isinstance(parallel, bool):
        raise ValueError(f"{owner}: parallel must be a bool, got {parallel!r:.40}")
    if not good or below != (shape[0] - 1, *shape[1:]):
        raise ValueError(
            f"{owner}: diagonal must have shape (T, b, b) and lower (T - 1, b, b); got {shape} "
            f"and {below}"
        )


def _rows(x: jax.Array, blocks: jax.Array) -> jax.Array:
    return x.reshape(*blocks.shape[:2], x.shape[1])


def _diagonals(blocks: jax.Array) -> jax.Array:
    return jnp.diagonal(blocks, axis1=-2, axis2=-1)
