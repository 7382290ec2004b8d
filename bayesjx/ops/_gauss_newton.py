"""Generalised Gauss-Newton matrices of functions of parameter pytrees, matrix-free."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float

from .._core import check_key, compiled, num_data, run_traced, whole_number
from . import _general as general
from ._jacobian import (
    columns,
    dense_rows,
    flat_columns,
    Jacobian,
    JacobianTranspose,
    linearised,
    sum_of_chunks,
)
from ._operator import AbstractOperator, unknown
from ._tags import psd
from ._weight_roots import times_root, weight_roots


class DiagEstimate(NamedTuple):
    """A diagonal estimated from random probes.

    Attributes:
        value: the estimate, without bias, shape `(m,)`.
        standard_error: of each element, from the variance over the probes, shape `(m,)`.
    """

    value: Float[Array, " m"]
    standard_error: Float[Array, " m"]


class GaussNewton(AbstractOperator):
    r"""Gauss-Newton matrix $J^\top J$ of a function of a parameter pytree, shape `(m, m)`.

    `gauss_newton` makes it of a function and a weight, whose root the function takes with it: the
    generalised Gauss-Newton matrix, the Fisher information. A product takes one forward and one
    reverse pass over the data, `jacobian.chunk` of them at a time, and no memory but theirs. With
    data, `as_matrix` and `diag` form their Jacobians chunk by chunk. Draws of it are exact.

    Args:
        jacobian: $J$.

    Raises:
        ValueError: it is no `ops.Jacobian`.

    References:
        Schraudolph (2002), "Fast curvature matrix-vector products for second-order gradient
        descent", Neural Computation 14.
    """

    jacobian: Jacobian
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, jacobian: Jacobian):
        if not isinstance(jacobian, Jacobian):
            raise ValueError(
                f"GaussNewton: jacobian must be an ops.Jacobian, got {type(jacobian).__name__}"
            )
        self.jacobian = jacobian
        self.tags = frozenset([psd])

    @property
    def shape(self) -> tuple[int, int]:
        return (self.jacobian.shape[1], self.jacobian.shape[1])

    @property
    def dtype(self) -> Any:
        return self.jacobian.dtype

    def transpose(self) -> GaussNewton:
        return self

    def diag_estimate(self, key: jax.Array, num_probes: int = 30) -> DiagEstimate:
        r"""The diagonal from random signs $z$: means of $(J^\top z)^2$, a reverse pass each.

        Never negative, as the estimate by products with the matrix itself may be.

        Args:
            key: for the probes.
            num_probes: their number, at least 2.

        Raises:
            ValueError: no key, or fewer probes.

        References:
            Hutchinson (1990), "A stochastic estimator of the trace of the influence matrix";
            Dangel, Kunstner and Hennig (2020), "BackPACK: packing more into backprop", for the
            factored form.
        """
        check_key(key)
        num_probes = whole_number("diag_estimate: num_probes", num_probes, 2)
        draws = run_traced(_squared_probes, self.jacobian.function, self, key, num_probes)
        error = jnp.std(draws, axis=0, ddof=1) / math.sqrt(num_probes)
        return DiagEstimate(jnp.mean(draws, axis=0), error)

    def _mm(self, x: jax.Array) -> jax.Array:
        return run_traced(_product, self.jacobian.function, self, x)

    _solve, _logdet = map(unknown, ("solve", "logdet"))

    def _diag(self) -> jax.Array:
        return run_traced(_diag, self.jacobian.function, self)

    def _root(self) -> JacobianTranspose:
        return self.jacobian.transpose()


def gauss_newton(
    function: Callable[..., Any],
    params: Any,
    weight: AbstractOperator | None = None,
    data: Any = None,
    *,
    chunk: int | None = None,
) -> GaussNewton:
    r"""The generalised Gauss-Newton matrix $J^\top W J$ of a function of a parameter pytree.

    With minus the Hessian of a log likelihood in the function's values as $W$, as
    `likelihoods.observed_information` has it, it is the Gauss-Newton approximation of minus the
    Hessian of the log likelihood in the parameters; with `likelihoods.fisher_information` it is the
    Fisher information. The weight is taken apart into $R R^\top$ once, and the matrix is that of
    $R^\top f$.

    Args:
        function: `function(params)`, or with data `function(params, datum)`, to an array.
        params: where it is linearised, arrays of one type in any pytree.
        weight: $W$, positive semi-definite, of the flattened values of all data; by default the
            identity. With data it is block-diagonal: `ops.ScaledIdentity`, `ops.Diag`, an
            `ops.BlockDiag` of one array or an `ops.CategoricalCovariance`. Of the first three,
            negative curvature counts as none.
        data: a pytree of arrays whose leading axis runs over the data.
        chunk: how many data are treated at a time; by default all.

    Raises:
        ValueError: see `ops.Jacobian`; a weight of another size, type or structure.
    """
    plain = Jacobian(function, params, data, chunk=chunk)
    if weight is None:
        return GaussNewton(plain)
    _check_weight(weight, plain)
    if data is None:
        root = weight.root() if psd in weight.tags else None
        if root is None:
            raise ValueError(f"gauss_newton: weight must be tagged ops.psd, got {weight.tags}")
        back = root.transpose()

        def whitened(params: Any) -> jax.Array:
            return back.mv(plain.function(params).reshape(-1))

        return GaussNewton(Jacobian(whitened, params))
    roots = weight_roots(weight, num_data(plain.data))

    def of_datum(params: Any, datum: Any) -> jax.Array:
        datum, root = datum
        return times_root(root, plain.function(params, datum).reshape(-1))

    return GaussNewton(Jacobian(of_datum, params, (plain.data, roots), chunk=chunk))


@general.as_matrix.register
def _(operator: GaussNewton) -> jax.Array:
    return run_traced(_matrix, operator.jacobian.function, operator)


@compiled
def _product(operator: GaussNewton, x: jax.Array) -> jax.Array:
    tangents = columns(operator.jacobian.params, x)

    def of_some(data: Any) -> Any:
        push, pull = linearised(operator.jacobian, data)
        if x.shape[1] == 1:  # without the cost of a batch
            single = pull(push(jax.tree.map(lambda t: t[0], tangents)))
            return jax.tree.map(lambda t: t[None], single)
        return jax.vmap(lambda t: pull(push(t)))(tangents)

    return flat_columns(sum_of_chunks(of_some, operator.jacobian))


@compiled
def _matrix(operator: GaussNewton) -> jax.Array:
    def of_some(data: Any) -> jax.Array:
        rows = dense_rows(operator.jacobian, data)
        flat = rows.reshape(-1, rows.shape[-1])
        return flat.T @ flat

    return sum_of_chunks(of_some, operator.jacobian)


@compiled
def _diag(operator: GaussNewton) -> jax.Array:
    def of_some(data: Any) -> jax.Array:
        return jnp.sum(dense_rows(operator.jacobian, data) ** 2, axis=(0, 1))

    return sum_of_chunks(of_some, operator.jacobian)


@compiled
def _squared_probes(operator: GaussNewton, key: jax.Array, num: int) -> jax.Array:
    back = operator.jacobian.transpose()

    def one(key: jax.Array) -> jax.Array:
        signs = random.rademacher(key, (back.shape[1], 1), operator.dtype)
        return back._mm(signs)[:, 0] ** 2

    return jax.lax.map(one, random.split(key, num))


def _check_weight(weight: Any, jacobian: Jacobian) -> None:
    rows = jacobian.shape[0]
    if not isinstance(weight, AbstractOperator):
        raise ValueError(
            f"gauss_newton: weight must be an operator of bayesjx.ops, got {type(weight).__name__}"
        )
    general.check_size(weight, "gauss_newton")
    if weight.shape != (rows, rows):
        raise ValueError(
            f"gauss_newton: weight must have shape {(rows, rows)}, as the function has {rows} "
            f"values; got {weight.shape}"
        )
    if weight.dtype != jacobian.dtype:
        raise ValueError(
            f"gauss_newton: weight holds {weight.dtype} and params {jacobian.dtype}; convert one "
            "of them"
        )
