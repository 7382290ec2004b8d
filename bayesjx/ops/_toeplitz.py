"""Symmetric Toeplitz matrices: stationary covariances on uniform grids."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
from jax.experimental.layout import Layout, with_layout_constraint
from jaxtyping import Array, Inexact
from scipy.fft import next_fast_len

from . import _general as general
from ._checks import checked_arrays, checked_size
from ._factors import check_each, symmetric_solve
from ._operator import AbstractOperator, unknown
from ._tags import checked_tags, psd, symmetric

REFINEMENTS = 2  # of a solve; they take the residual from 1e-7 to rounding at condition 1e11


class Toeplitz(AbstractOperator):
    r"""Symmetric Toeplitz matrix $A_{ij} = r_{\lvert i - j \rvert}$, held by its first column.

    Products are convolutions by FFT, $O(n \log n)$ a column. If positive definite, the
    Levinson-Durbin recursion runs once, when the operator is made, in $O(n^2)$ time and $O(n)$
    memory, and gives the prediction errors, whose product is the determinant, and the first column
    of the inverse, from which the Gohberg-Semencul formula makes every solve a few convolutions,
    refined twice. `root`, `sample` and `sample_inverse` run the recursion again beside their
    columns: exact, $O(n^2)$ a column, $O(n)$ memory, and $O(n^{3/2})$ where they are
    differentiated. To change the column make a new operator: a replaced field would not agree with
    what is kept of the recursion.

    Solves are as accurate as those of a dense Cholesky factor; `logdet` has one to two digits
    fewer (measured at condition numbers of 1e5 to 1e10). Smooth covariances need some noise in
    $r_0$, in float32 at least 1e-2 of it.

    Args:
        column: $r$, shape `(n,)`.
        tags: `ops.psd` if it is positive definite, which the recursion checks. Without it there are
            products only, as for a derivative of a covariance.

    Raises:
        ValueError: `column` is not a vector of floating-point numbers, or is empty.
        RuntimeError: tagged `ops.psd` and not positive definite; the text says how many leading
            rows and columns are.

    References:
        Golub and Van Loan (2013), "Matrix computations", section 4.7, for the recursion; Gohberg
        and Semencul (1972), "On the inversion of finite Toeplitz matrices and their continuous
        analogs", for the inverse and the sums along its diagonals.
    """

    column: Inexact[Array, " n"]
    recursion: Recursion | None
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, column: Any, tags: object = psd):
        if jnp.ndim(column) != 1 or not jnp.size(column):
            raise ValueError(
                f"Toeplitz: column must have shape (n,) with n > 0, got shape {jnp.shape(column)}"
            )
        (self.column,) = checked_arrays("Toeplitz", {"column": column})
        checked_size("Toeplitz", 4 * self.column.size)  # with the padding of its Fourier transforms
        self.tags = checked_tags("Toeplitz", tags) | {symmetric}
        self.recursion = None
        if psd in self.tags:
            recursion = _durbin(jax.lax.stop_gradient(self.column))
            self.recursion = check_each(
                recursion,
                ~(recursion.errors > 0),
                "Toeplitz is not positive definite: its first {} rows and columns are, one more "
                "is too many; add noise to the column's first element, column.at[0].add(noise), or "
                "tag it ops.symmetric",
            )

    @property
    def shape(self) -> tuple[int, int]:
        return (self.column.size, self.column.size)

    @property
    def dtype(self) -> Any:
        return self.column.dtype

    def transpose(self) -> Toeplitz:
        return self

    def _mm(self, x: jax.Array) -> jax.Array:
        return _times(self.column, x)

    def _solve(self, b: jax.Array) -> jax.Array:
        if self.recursion is None:
            raise self._unknown("solve", "tag it ops.psd if it is positive definite")
        fixed, recursion = jax.lax.stop_gradient((self, self.recursion))

        def solve(b: jax.Array) -> jax.Array:
            x = _gohberg_semencul(recursion, b)
            for _ in range(REFINEMENTS):
                x += _gohberg_semencul(recursion, b - fixed._mm(x))
            return x

        return symmetric_solve(self._mm, solve, b)

    def _logdet(self) -> jax.Array:
        if self.recursion is None:
            raise self._unknown("logdet", "tag it ops.psd if it is positive definite")
        return _logdet(self)

    def _diag(self) -> jax.Array:
        return jnp.full(self.shape[0], self.column[0])

    def _root(self) -> ToeplitzRoot:
        return ToeplitzRoot(self.column)

    def _inverse_column(self) -> jax.Array:
        """The first column of the inverse, with its derivatives."""
        unit = jnp.zeros((self.shape[0], 1), self.dtype).at[0].set(1.0)
        return self._solve(unit)[:, 0]


@general.inverse_diag.register
def _(operator: Toeplitz) -> jax.Array:
    first = operator._inverse_column()
    back = jnp.concatenate([jnp.zeros_like(first[:1]), first[:0:-1]])
    return jnp.cumsum(first**2 - back**2) / first[0]


class ToeplitzRoot(AbstractOperator):
    r"""The Cholesky factor $L$ of a Toeplitz matrix, or its transpose, never formed.

    Row $k$ of $L^{-1}$ is the predictor of element $k$ from those before it, over the standard
    deviation of its error; the recursion makes one after the other. Products and solves take
    $O(n^2)$ time a column and $O(n)$ memory.

    Args:
        column: first column of the positive definite matrix, shape `(n,)`.
        transposed: stand for $L^\top$.
    """

    column: Inexact[Array, " n"]
    transposed: bool = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, column: Inexact[Array, " n"], transposed: bool = False):
        self.column = column
        self.transposed = transposed
        tag = lx.upper_triangular_tag if transposed else lx.lower_triangular_tag
        self.tags = frozenset([tag])

    @property
    def shape(self) -> tuple[int, int]:
        return (self.column.size, self.column.size)

    @property
    def dtype(self) -> Any:
        return self.column.dtype

    def transpose(self) -> ToeplitzRoot:
        return ToeplitzRoot(self.column, not self.transposed)

    def _mm(self, x: jax.Array) -> jax.Array:
        if self.transposed:  # L' = L⁻¹ A
            return _whiten(self.column, _times(self.column, x))
        return _colour(self.column, x)

    def _solve(self, b: jax.Array) -> jax.Array:
        return _unwhiten(self.column, b) if self.transposed else _whiten(self.column, b)

    def _logdet(self) -> jax.Array:
        return jnp.sum(jnp.log(self._diag()))

    def _diag(self) -> jax.Array:
        return jnp.sqrt(_durbin(self.column).errors)

    _root = unknown("root")


class Recursion(NamedTuple):
    """Result of the Levinson-Durbin recursion.

    Attributes:
        predictor: coefficients of the last prediction error, the first of them 1, shape `(n,)`.
        errors: variances of the prediction errors of all orders, shape `(n,)`.
    """

    predictor: Inexact[Array, " n"]
    errors: Inexact[Array, " n"]


class _Order(NamedTuple):
    """Predictors of order `k`, zero beyond element `k`: forward, the same reversed, the error."""

    forward: jax.Array
    backward: jax.Array
    error: jax.Array


@eqx.filter_custom_jvp
def _logdet(operator: Toeplitz) -> jax.Array:
    return jnp.sum(jnp.log(operator.recursion.errors))  # ty: ignore


@_logdet.def_jvp
def _logdet_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # The derivative in r_k is the sum of the k-th diagonals of the inverse, by Gohberg-Semencul
    # the sum of (n - k - 2p) x_p x_{p+k} / x_0 over p, with x the first column of the inverse.
    (operator,), (change,) = primals, tangents
    x, n = operator._inverse_column(), operator.shape[0]
    lag = jnp.arange(n, dtype=x.dtype)
    sums = (n - lag) * _correlate(x, x) - 2 * _correlate(lag * x, x)
    both_sides = jnp.where(lag > 0, 2, 1) * sums / x[0]
    return _logdet(operator), jnp.sum(both_sides * change.column)


def _start(column: jax.Array) -> _Order:
    unit = jnp.zeros_like(column).at[0].set(1.0)
    return _Order(unit, unit, column[0])


def _raise_order(tail: jax.Array, order: _Order) -> _Order:
    """One step of the recursion; `tail` is the column without its first element."""
    forward, backward, error = order
    reflection = -jnp.dot(tail, backward) / error
    shifted = jnp.roll(backward, 1).at[0].set(0.0)
    return _Order(
        forward + reflection * shifted,
        shifted + reflection * forward,
        error * (1 - reflection) * (1 + reflection),
    )


def _tail(column: jax.Array) -> jax.Array:
    return jnp.append(column[1:], jnp.zeros((), column.dtype))


@jax.jit
def _durbin(column: jax.Array) -> Recursion:
    tail = _tail(column)

    def step(order: _Order, _: None) -> tuple[_Order, jax.Array]:
        return _raise_order(tail, order), order.error

    last, errors = jax.lax.scan(step, _start(column), None, length=column.size - 1)
    return Recursion(last.forward, jnp.append(errors, last.error))


@jax.jit
def _colour(column: jax.Array, x: jax.Array) -> jax.Array:
    """$L x$ by the recursion: each element is its prediction from those before and an error."""
    tail = _tail(column)

    def step(carry: Any, inputs: Any) -> tuple[Any, None]:
        (order, y), (k, noise) = carry, inputs
        # Element k of y is still zero, so the product takes the elements before it only.
        value = jnp.sqrt(order.error) * noise - order.backward @ y
        return (_raise_order(tail, order), y.at[k].set(value)), None

    steps = (jnp.arange(column.size), x)
    return _scan(step, (_start(column), jnp.zeros_like(x)), steps)[0][1]


@jax.jit
def _whiten(column: jax.Array, x: jax.Array) -> jax.Array:
    """$L^{-1} x$: the errors of all predictions, over their standard deviations."""
    tail = _tail(column)

    def step(order: _Order, _: jax.Array) -> tuple[_Order, jax.Array]:
        return _raise_order(tail, order), order.backward @ x / jnp.sqrt(order.error)

    return _scan(step, _start(column), jnp.arange(column.size))[1]


@jax.jit
def _unwhiten(column: jax.Array, x: jax.Array) -> jax.Array:
    r"""$L^{-\top} x$, the same product from the other side."""
    tail = _tail(column)

    def step(carry: Any, weight: jax.Array) -> tuple[Any, None]:
        order, total = carry
        total += order.backward[:, None] * (weight / jnp.sqrt(order.error))
        return (_raise_order(tail, order), total), None

    return _scan(step, (_start(column), jnp.zeros_like(x)), x)[0][1]


def _scan(step: Any, start: Any, inputs: Any) -> tuple[Any, Any]:
    """`lax.scan` whose backward pass keeps the states of the square root of all steps only."""
    length = jax.tree.leaves(inputs)[0].shape[0]
    chunk = math.isqrt(length)
    whole = length - length % chunk

    @jax.checkpoint
    def several(carry: Any, inputs: Any) -> tuple[Any, Any]:
        return jax.lax.scan(step, carry, inputs)

    cut = jax.tree.map(lambda x: x[:whole].reshape(-1, chunk, *x.shape[1:]), inputs)
    carry, out = jax.lax.scan(several, start, cut)
    carry, rest = jax.lax.scan(step, carry, jax.tree.map(lambda x: x[whole:], inputs))
    joined = lambda a, b: jnp.concatenate([a.reshape(-1, *a.shape[2:]), b])  # noqa: E731
    return carry, jax.tree.map(joined, out, rest)


def _gohberg_semencul(recursion: Recursion, b: jax.Array) -> jax.Array:
    r"""$A^{-1} b = (L_a L_a^\top - L_c L_c^\top) b / v$ with triangular Toeplitz matrices.

    Their first columns are the predictor $a$, and $c = (0, a_{n-1}, \dots, a_1)$.
    """
    a = recursion.predictor
    n = a.size
    c = jnp.concatenate([jnp.zeros_like(a[:1]), a[:0:-1]])
    size = next_fast_len(2 * n - 1, real=True)
    f_a, f_c, f_b = _transform(a, size), _transform(c, size), _transform(b.T, size)
    by_a = f_a * _transform(_inverse_transform(jnp.conj(f_a) * f_b, size, n), size)
    by_c = f_c * _transform(_inverse_transform(jnp.conj(f_c) * f_b, size, n), size)
    return _inverse_transform(by_a - by_c, size, n).T / recursion.errors[-1]


def _times(column: jax.Array, x: jax.Array) -> jax.Array:
    """The product by embedding into a circulant matrix, whose eigenvalues are a transform."""
    n = column.size
    size = next_fast_len(2 * n - 1, real=True)
    gap = jnp.zeros(size - 2 * n + 1, column.dtype)
    eigenvalues = _transform(jnp.concatenate([column, gap, column[:0:-1]]), size).real
    return _inverse_transform(eigenvalues * _transform(x.T, size), size, n).T


def _correlate(x: jax.Array, y: jax.Array) -> jax.Array:
    r"""$\sum_p x_p y_{p+k}$ for every $k \geq 0$."""
    size = next_fast_len(2 * x.size - 1, real=True)
    return _inverse_transform(jnp.conj(_transform(x, size)) * _transform(y, size), size, x.size)


def _transform(x: jax.Array, size: int) -> jax.Array:
    """Fourier transform along the last axis, padded with zeros."""
    padding = [(0, 0)] * (x.ndim - 1) + [(0, size - x.shape[-1])]
    return _row_major(jnp.fft.rfft(_row_major(jnp.pad(x, padding))))


def _inverse_transform(x: jax.Array, size: int, keep: int) -> jax.Array:
    """The inverse of `_transform`, the first `keep` elements."""
    return _row_major(jnp.fft.irfft(_row_major(x), size))[..., :keep]


def _row_major(x: jax.Array) -> jax.Array:
    # XLA on CPU (jax 0.10.2) may lay out a single row otherwise, which its transforms then refuse:
    # "RET_CHECK failure ... IsMonotonicWithDim0Major"; test_single_column_made_inside_a_program.
    # Elsewhere there is no need, and `jax.export` cannot express the constraint.
    return jax.lax.platform_dependent(x, cpu=_constrained, default=_unconstrained)


def _constrained(x: jax.Array) -> jax.Array:
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))


def _unconstrained(x: jax.Array) -> jax.Array:
    return x
