"""Jacobians of functions of parameter pytrees, matrix-free, over all data or some at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Inexact

from .._core import (
    compiled,
    map_chunks,
    num_data,
    number_array,
    path_name,
    run_traced,
    sum_chunks,
    traced,
    TracedFunction,
    whole_number,
)
from . import _general as general
from ._checks import checked_size
from ._operator import AbstractOperator, unknown


class Jacobian(AbstractOperator):
    r"""Jacobian $J = \partial f / \partial \theta$ of a function of a parameter pytree.

    Nothing of size `rows x columns` is formed: a product is a Jacobian-vector product in forward
    mode, one of the transpose is a vector-Jacobian product in reverse mode. Vectors are the leaves
    of the parameters, and the values of the function, flattened one after the other in C order.

    With data the function is of one datum, $f(\theta, x_i)$, and the rows of all data stand one
    below the other. `chunk` data are treated at a time, in whose number memory is linear.

    Args:
        function: `function(params)`, or `function(params, datum)`, to an array; pure. What it reads
            beside its arguments is data of the operator, and derivatives reach it.
        params: where it is linearised, arrays of one real floating-point type in any pytree.
        data: a pytree of arrays whose leading axis runs over the data.
        chunk: how many data are treated at a time; by default all.

    Raises:
        ValueError: no parameters, some that are not real floating-point numbers or have several
            types, data without a common leading axis, a function that does not return one
            array of the parameters' type, or a chunk below 1.
    """

    function: TracedFunction
    params: Any
    data: Any
    chunk: int | None = eqx.field(static=True)
    out_shape: tuple[int, ...] = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(
        self,
        function: Callable[..., Any],
        params: Any,
        data: Any = None,
        *,
        chunk: int | None = None,
    ):
        if not callable(function):
            raise ValueError(f"Jacobian: function must be callable, got {function!r:.80}")
        self.params = _checked_params(params)
        self.data = _checked_data(data)
        if chunk is not None:
            chunk = whole_number("Jacobian: chunk", chunk)
        self.chunk = chunk
        first = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), self.data)
        args = (self.params,) if data is None else (self.params, first)
        out = jax.eval_shape(function, *args)
        _check_out(out, leaf_type(self.params))
        self.function = traced(function, *args, source=function)
        self.out_shape = out.shape
        self.tags = frozenset()
        checked_size("Jacobian", max(self.shape))

    @property
    def shape(self) -> tuple[int, int]:
        rows = math.prod(self.out_shape) * (1 if self.data is None else num_data(self.data))
        return rows, sum(leaf.size for leaf in jax.tree.leaves(self.params))

    @property
    def dtype(self) -> Any:
        return leaf_type(self.params)

    def transpose(self) -> JacobianTranspose:
        return JacobianTranspose(self)

    def value(self) -> Inexact[Array, " rows"]:
        """The function's values, flattened, shape `(rows,)`."""
        return run_traced(_value, self.function, self)

    def dense(self) -> Inexact[Array, "rows columns"]:
        """The Jacobian as an array, whose memory is that of the result and of a chunk."""
        return run_traced(_dense, self.function, self)

    def _mm(self, x: jax.Array) -> jax.Array:
        return run_traced(_pushed, self.function, self, x)

    _solve, _logdet, _root = map(unknown, ("solve", "logdet", "root"))

    def _diag(self) -> jax.Array:
        return jnp.diag(self.dense())


class JacobianTranspose(AbstractOperator):
    r"""$J^\top$, whose products are vector-Jacobian products.

    Args:
        jacobian: $J$.
    """

    jacobian: Jacobian
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, jacobian: Jacobian):
        self.jacobian = jacobian
        self.tags = frozenset()

    @property
    def shape(self) -> tuple[int, int]:
        return self.jacobian.shape[::-1]

    @property
    def dtype(self) -> Any:
        return self.jacobian.dtype

    def transpose(self) -> Jacobian:
        return self.jacobian

    def _mm(self, x: jax.Array) -> jax.Array:
        return run_traced(_pulled, self.jacobian.function, self.jacobian, x)

    _solve, _logdet, _root = map(unknown, ("solve", "logdet", "root"))

    def _diag(self) -> jax.Array:
        return self.jacobian._diag()


def leaf_type(params: Any) -> Any:
    """Type of the parameters."""
    return jax.tree.leaves(params)[0].dtype


def columns(params: Any, x: jax.Array) -> Any:
    """Columns `(m, k)` as trees like the parameters, with a leading axis of `k`."""
    leaves, structure = jax.tree.flatten(params)
    ends = np.cumsum([leaf.size for leaf in leaves])[:-1]
    parts = jnp.split(x, ends)
    shaped = [p.T.reshape(-1, *leaf.shape) for p, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def flat_columns(tree: Any) -> jax.Array:
    """The inverse of `columns`: trees with a leading axis of `k` as columns `(m, k)`."""
    leaves = jax.tree.leaves(tree)
    return jnp.concatenate([leaf.reshape(len(leaf), -1).T for leaf in leaves])


def of_data(jacobian: Jacobian, data: Any) -> Callable[[Any], jax.Array]:
    """The function of the parameters for some data at once."""
    if data is None:
        return jacobian.function
    return lambda params: jax.vmap(lambda datum: jacobian.function(params, datum))(data)


def linearised(jacobian: Jacobian, data: Any) -> tuple[Any, Any]:
    """The products with the Jacobian of some data and with its transpose, of trees."""
    _, push = jax.linearize(of_data(jacobian, data), jacobian.params)
    pull = jax.linear_transpose(push, jacobian.params)
    return push, lambda out: pull(out)[0]


def of_chunks(function: Callable[[Any], jax.Array], jacobian: Jacobian) -> jax.Array:
    """A function of some data, of each chunk, one result below the other."""
    if jacobian.data is None:
        return function(None)
    return map_chunks(function, jacobian.data, jacobian.chunk)


def sum_of_chunks(function: Callable[[Any], Any], jacobian: Jacobian) -> Any:
    """The sum over chunks of a function of some data."""
    if jacobian.data is None:
        return function(None)
    return sum_chunks(function, jacobian.data, jacobian.chunk)


def dense_rows(jacobian: Jacobian, data: Any) -> jax.Array:
    """Jacobians of some data, shape `(c, p, m)`; without data `(1, rows, m)`."""
    size = sum(leaf.size for leaf in jax.tree.leaves(jacobian.params))
    num_out = math.prod(jacobian.out_shape)
    mode = jax.jacrev if num_out <= size else jax.jacfwd

    def of_one(datum: Any) -> jax.Array:
        args = () if data is None else (datum,)
        tree = mode(lambda params: jacobian.function(params, *args))(jacobian.params)
        return jnp.concatenate([leaf.reshape(num_out, -1) for leaf in jax.tree.leaves(tree)], 1)

    return of_one(None)[None] if data is None else jax.vmap(of_one)(data)


@compiled
def _value(jacobian: Jacobian) -> jax.Array:
    def of_some(data: Any) -> jax.Array:
        return of_data(jacobian, data)(jacobian.params)

    return of_chunks(of_some, jacobian).reshape(-1)


@compiled
def _dense(jacobian: Jacobian) -> jax.Array:
    rows = of_chunks(lambda data: dense_rows(jacobian, data), jacobian)
    return rows.reshape(-1, rows.shape[-1])


@compiled
def _pushed(jacobian: Jacobian, x: jax.Array) -> jax.Array:
    tangents = columns(jacobian.params, x)

    def of_some(data: Any) -> jax.Array:
        push = linearised(jacobian, data)[0]
        return jax.vmap(push, out_axes=-1)(tangents)

    return of_chunks(of_some, jacobian).reshape(-1, x.shape[1])


@compiled
def _pulled(jacobian: Jacobian, x: jax.Array) -> jax.Array:
    if jacobian.data is None:
        out = x.reshape(*jacobian.out_shape, x.shape[1])
        return flat_columns(jax.vmap(linearised(jacobian, None)[1], in_axes=-1)(out))

    def of_some(part: Any) -> Any:
        data, out = part
        return jax.vmap(linearised(jacobian, data)[1], in_axes=-1)(out)

    out = x.reshape(num_data(jacobian.data), *jacobian.out_shape, x.shape[1])
    return flat_columns(sum_chunks(of_some, (jacobian.data, out), jacobian.chunk))


def _checked_params(params: Any) -> Any:
    leaves = jax.tree_util.tree_leaves_with_path(params)
    if not leaves:
        raise ValueError("Jacobian: params holds no array")
    for path, leaf in leaves:
        name = path_name(path, "params")
        if not isinstance(leaf, (jax.Array, np.ndarray, np.generic, float)):
            raise ValueError(f"Jacobian: {name} must be an array, got {type(leaf).__name__}")
        if not jnp.issubdtype(jnp.result_type(leaf), jnp.floating):
            raise ValueError(
                f"Jacobian: {name} must hold real floating-point numbers, got "
                f"{jnp.result_type(leaf)}"
            )
    types = sorted({str(jnp.result_type(leaf)) for _, leaf in leaves})
    if len(types) > 1:
        raise ValueError(f"Jacobian: all of params must have one type, got {', '.join(types)}")
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.result_type(leaf)), params)


def _checked_data(data: Any) -> Any:
    if data is None:
        return None
    data = jax.tree.map(lambda a: a if _is_key(a) else jnp.asarray(number_array("data", a)), data)
    shapes = [jnp.shape(a) for a in jax.tree.leaves(data)]
    if not shapes or any(not shape for shape in shapes) or len({s[0] for s in shapes}) != 1:
        raise ValueError(
            f"Jacobian: data must be arrays with one leading axis for all, got shapes {shapes}"
        )
    if shapes[0][0] == 0:
        raise ValueError("Jacobian: data is empty")
    return data


def _is_key(a: Any) -> bool:
    return isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key)


def _check_out(out: Any, dtype: Any) -> None:
    if not isinstance(out, jax.ShapeDtypeStruct):
        raise ValueError(f"Jacobian: function must return one array, got {type(out).__name__}")
    if out.dtype != dtype:
        raise ValueError(
            f"Jacobian: function must return the type of params, {dtype}, got {out.dtype}"
        )
    if math.prod(out.shape) == 0:
        raise ValueError(f"Jacobian: function must return some values, got shape {out.shape}")


@general.as_matrix.register
def _(operator: Jacobian) -> jax.Array:
    return operator.dense()


@general.as_matrix.register
def _(operator: JacobianTranspose) -> jax.Array:
    return operator.jacobian.dense().T
