"""Sparse matrices of single entries."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, Bool, Inexact, Int

from ._checks import checked_arrays
from ._primitive import kernel_mode, kernel_of
from ._sparse_operator import (
    AbstractSparse,
    checked_distinct,
    checked_index,
    checked_shape,
    known_index,
    listed,
)
from ._sparse_products import (
    add_rows,
    chunk,
    Layout,
    map_chunks,
    Products,
    rows_of,
    sparse_products,
    sum_chunks,
)
from ._tags import checked_tags

# Gathered elements at a time where a gathered row is used only once: they stay in cache.
_CACHED = 2**17


class EntrySparse(AbstractSparse):
    """Sparse matrix with up to `E` entries in each column, in any rows.

    A product reads every input row `E` times and uses it once, so this takes several times what
    `bayesjx.ops.GroupedColumns` does for as many entries: it is for patterns without structure.

    Attributes:
        values: shape `(E, N)`; those that are padding are ignored.
        index: the row of each entry, shape `(E, N)`; traced ones are not checked here, see
            `from_columns`. Repeated rows are summed.
        active: which of the values are not padding, shape `(E, N)`; None if all are.
        size: `(K, N)`.
        transposed: whether this is the transpose of the matrix described.
        tags: what is known of the matrix, see Lineax.
    """

    values: Inexact[Array, "E N"]
    index: Int[Array, "E N"]
    active: Bool[Array, "E N"] | None
    size: tuple[int, int] = eqx.field(static=True)
    transposed: bool = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(
        self,
        values: Any,
        index: Any,
        active: Any,
        size: Any,
        transposed: bool = False,
        tags: object = (),
    ):
        self.size = checked_shape("EntrySparse", size)
        self.values, self.index = _checked("EntrySparse", values, index, self.size, known_index)
        if active is not None and (
            jnp.shape(active) != self.values.shape
            or not jnp.issubdtype(jnp.result_type(active), jnp.bool_)
        ):
            raise ValueError(
                f"EntrySparse: active must hold booleans of shape {self.values.shape} or be None, "
                f"got {jnp.result_type(active)} of shape {jnp.shape(active)}"
            )
        self.active = None if active is None else jnp.asarray(active)
        self.transposed, self.tags = transposed, checked_tags("EntrySparse", tags)

    @classmethod
    def from_indices(
        cls, shape: tuple[int, int], rows: Any, cols: Any, values: Any, tags: object = ()
    ) -> EntrySparse:
        """A checked operator from a list of entries, in any order.

        The fullest column sets `E`, and with it memory and time of all. `values` may be traced;
        rows and columns, which decide on shapes, may not.

        Args:
            shape: `(K, N)`.
            rows: integers of shape `(nnz,)`.
            cols: integers of shape `(nnz,)`.
            values: shape `(nnz,)`.
            tags: what is known of the matrix, see Lineax.

        Raises:
            ValueError: the shapes do not fit, there is no entry, a position is out of range or
                taken twice, or types are wrong.
        """
        size = checked_shape("EntrySparse", shape)
        (values,) = checked_arrays("EntrySparse", {"values": values})
        rows, cols = listed(rows), listed(cols)
        if (
            values.ndim != 1
            or not values.size
            or not (jnp.shape(rows) == jnp.shape(cols) == values.shape)
        ):
            raise ValueError(
                "EntrySparse.from_indices takes rows, cols and values of one shape (nnz,), with at "
                f"least one entry; got {jnp.shape(rows)}, {jnp.shape(cols)} and {values.shape}"
            )
        if isinstance(rows, Tracer) or isinstance(cols, Tracer):
            raise ValueError(
                "EntrySparse.from_indices: rows and cols decide on shapes, so they cannot be "
                "traced; make the operator outside of jit, or use EntrySparse.from_columns"
            )
        checked = (
            checked_index("EntrySparse", "rows", rows, size[0]),
            checked_index("EntrySparse", "cols", cols, size[1]),
        )
        checked_distinct("EntrySparse", "two entries have the same row and column", checked)
        row, col = checked
        order = np.lexsort([row, col])
        counts = np.bincount(col, minlength=size[1])
        first = np.concatenate([[0], np.cumsum(counts)[:-1]])
        slot = np.arange(len(row)) - np.repeat(first, counts)
        at, full = (slot, col[order]), (int(counts.max()), size[1])
        index, active = np.zeros(full, np.int32), np.zeros(full, bool)
        index[at], active[at] = row[order], True
        filled = jnp.zeros(full, values.dtype).at[at].set(values[order])
        mask = None if active.all() else jnp.asarray(active)
        return cls(filled, jnp.asarray(index), mask, size, tags=tags)

    @classmethod
    def from_columns(
        cls, shape: tuple[int, int], index: Any, values: Any, tags: object = ()
    ) -> EntrySparse:
        """A checked operator with `E` entries in every column, traced indices included.

        Args:
            shape: `(K, N)`.
            index: the rows of the entries of each column, integers of shape `(E, N)`.
            values: shape `(E, N)`.
            tags: what is known of the matrix, see Lineax.

        Raises:
            ValueError: the shapes do not fit, there is no entry, a row is out of range or repeated
                in a column, or types are wrong.
            RuntimeError: rows are wrong, raised when a jitted function runs.
        """
        size = checked_shape("EntrySparse", shape)
        values, index = _checked("EntrySparse.from_columns", values, index, size, checked_index)
        (by_column,) = checked_distinct("EntrySparse", "a column has a row twice", (index.T,))
        return cls(values, by_column.T, None, size, tags=tags)

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns that are active or not as one."""
        return 1, 1

    def _products(self) -> Products:
        return _PRODUCTS

    def _operands(self) -> tuple[jax.Array, ...]:
        return self._entries(), self.index

    def _entries(self) -> jax.Array:
        """The values without padding, which thereby has no gradient either."""
        return self.values if self.active is None else jnp.where(self.active, self.values, 0)

    def _diag(self) -> jax.Array:
        column = jnp.arange(self.size[1], dtype=jnp.int32)
        return jnp.sum(jnp.where(self.index == column, self._entries(), 0), 0)


def entry_product(
    values: jax.Array, index: Any, x: jax.Array, *, kernels: str | None = None
) -> Inexact[Array, "N M"]:
    r"""$W^\top x$ for entries in columns; rows that repeat in a column are summed.

    Args:
        values: shape `(E, N)`.
        index: the row of each entry, integers of shape `(E, N)`; anything below `K` at padding,
            where the value is zero.
        x: shape `(K, M)`: features first, then the batch.
        kernels: see `bayesjx.ops.kernel_mode`.

    Returns:
        Shape `(N, M)`.

    Raises:
        ValueError: the shapes do not fit, types differ, or a row is out of range.
        RuntimeError: a row is out of range, raised when a jitted function runs.
    """
    values, x = checked_arrays("entry_product", {"values": values, "x": x})
    index = listed(index)
    fits = values.ndim == x.ndim == 2 and jnp.shape(index) == values.shape and values.size
    if not fits or not jnp.issubdtype(jnp.result_type(index), jnp.integer):
        raise ValueError(
            "entry_product takes values (E, N), integers index (E, N) and x (K, M); got "
            f"{values.shape}, {jnp.shape(index)} of {jnp.result_type(index)} and {x.shape}"
        )
    index = checked_index("entry_product", "index", index, x.shape[0])
    params = {"shape": (x.shape[0], values.shape[1]), "block": (1, 1), "mode": kernel_mode(kernels)}
    return _PRODUCTS.forward.bind(values, index, x, **params)


def _checked(
    owner: str, values: Any, index: Any, size: tuple[int, int], checked: Any
) -> tuple[jax.Array, Any]:
    """Values and indices that fit, the latter as `checked` (an index) makes them."""
    (values,) = checked_arrays(owner, {"values": values})
    index, columns = listed(index), size[1]
    fits = values.ndim == 2 and values.shape[1] == columns and values.size
    if not fits or jnp.shape(index) != values.shape:
        raise ValueError(
            f"{owner} takes index and values of shape (E, {columns}) with at least one entry a "
            f"column; got {jnp.shape(index)} and {values.shape}"
        )
    return values, checked(owner, "index", index, size[0])


# The twins of the kernels.


def _forward(values: Any, index: Any, x: Any, *, shape: Any, block: Any) -> jax.Array:
    def add(total: Any, entries: Any) -> tuple[jax.Array, None]:
        value, row = entries
        return total + value[:, None] * rows_of(x, row), None

    wide = jnp.promote_types(x.dtype, jnp.float32)
    total = jnp.zeros((shape[1], x.shape[1]), wide)
    total, _ = lax.scan(add, total, (values.astype(wide), index), unroll=min(4, len(values)))
    return total.astype(x.dtype)


def _backward(values: Any, index: Any, y: Any, *, shape: Any, block: Any) -> jax.Array:
    def add(total: Any, values: Any, index: Any, y: Any) -> jax.Array:
        rows = values[:, :, None] * y[:, None, :]
        return add_rows(total, index.reshape(-1), rows.reshape(-1, y.shape[1]))

    wide = jnp.promote_types(y.dtype, jnp.float32)
    total = jnp.zeros((shape[0], y.shape[1]), wide)
    arrays = (values.T.astype(wide), index.T, y)
    return sum_chunks(add, total, arrays, _columns(index, y)).astype(y.dtype)


def _weights(index: Any, x: Any, y: Any, *, shape: Any, block: Any) -> jax.Array:
    wide = jnp.promote_types(y.dtype, jnp.float32)

    def some(index: Any, y: Any) -> jax.Array:
        return jnp.sum(rows_of(x, index) * y[:, None, :], 2, dtype=wide).astype(y.dtype)

    return map_chunks(some, (index.T, y), _columns(index, y)).T


def _columns(index: Any, y: Any) -> int:
    """How many columns are done at once."""
    elements = index.shape[0] * y.shape[1]
    # One by one would not do: around each step XLA copies the sums.
    return chunk(index.shape[1], elements, 0, max(_CACHED, 2 * elements))


_PRODUCTS = sparse_products(
    "entry_sparse",
    Layout(sides=(0,), axis=1, values_shape=lambda index, *, block: index),
    _forward,
    _backward,
    _weights,
    {"forward": {p: kernel_of("entry_sparse", p, "forward") for p in ("tpu", "cuda")}},
)
