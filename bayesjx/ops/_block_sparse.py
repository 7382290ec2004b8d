"""Sparse matrices made of dense blocks."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact, Int

from .._core import whole_number
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
    precise,
    Products,
    rows_of,
    sparse_products,
    sum_chunks,
)
from ._tags import checked_tags


class BlockSparse(AbstractSparse):
    """Block-sparse matrix of `S` dense blocks of equal size on a grid.

    To prefer over `bayesjx.ops.GroupedColumns` when activity comes in blocks; as fast as that from
    blocks of 32 × 32 on.

    Attributes:
        values: shape `(S, bk, bn)`.
        rows: row of each block on the grid, counted in blocks, shape `(S,)`. Traced ones are not
            checked here, nor whether positions repeat; see `from_indices`.
        cols: as `rows`.
        size: `(K, N)`.
        transposed: whether this is the transpose of the matrix described.
        tags: what is known of the matrix, see Lineax.

    References:
        Gray, Radford & Kingma (2017), "GPU kernels for block-sparse weights", OpenAI: the three
        products of training, each of which skips what is zero.
    """

    values: Inexact[Array, "S bk bn"]
    rows: Int[Array, " S"]
    cols: Int[Array, " S"]
    size: tuple[int, int] = eqx.field(static=True)
    transposed: bool = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(
        self,
        values: Any,
        rows: Any,
        cols: Any,
        size: Any,
        transposed: bool = False,
        tags: object = (),
    ):
        self.size = checked_shape("BlockSparse", size)
        self.values, self.rows, self.cols = _checked(
            "BlockSparse", values, rows, cols, self.size, known_index
        )
        self.transposed, self.tags = transposed, checked_tags("BlockSparse", tags)

    @classmethod
    def from_indices(
        cls, shape: tuple[int, int], rows: Any, cols: Any, values: Any, tags: object = ()
    ) -> BlockSparse:
        """A checked operator.

        Args:
            shape: `(K, N)`, multiples of the sizes of a block.
            rows: the row of each block, counted in blocks, integers of shape `(S,)`, any order.
            cols: its column, likewise.
            values: the blocks, shape `(S, bk, bn)`.
            tags: what is known of the matrix, see Lineax.

        Raises:
            ValueError: the shapes do not fit, there is no block, a position is out of range or
                taken twice, or types are wrong.
            RuntimeError: positions are wrong, raised when a jitted function runs.
        """
        size = checked_shape("BlockSparse", shape)
        values, rows, cols = _checked("BlockSparse", values, rows, cols, size, checked_index)
        rows, cols = checked_distinct(
            "BlockSparse", "two blocks have the same row and column", (rows, cols)
        )
        return cls(values, rows, cols, size, tags=tags)

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns that are active or not as one."""
        return self.values.shape[1], self.values.shape[2]

    def _products(self) -> Products:
        return _PRODUCTS

    def _operands(self) -> tuple[jax.Array, ...]:
        return self.values, self.rows, self.cols

    def _diag(self) -> jax.Array:
        bk, bn = self.block
        row = self.rows[:, None] * bk + jnp.arange(bk, dtype=jnp.int32)
        col = self.cols[:, None] * bn + jnp.arange(bn, dtype=jnp.int32)
        on_diagonal = jnp.where(row[:, :, None] == col[:, None, :], self.values, 0).sum(2)
        return jnp.zeros(self.size[0], self.dtype).at[row].add(on_diagonal)


def block_product(
    values: jax.Array,
    rows: Any,
    cols: Any,
    x: jax.Array,
    num_cols: int,
    *,
    kernels: str | None = None,
) -> Inexact[Array, "N M"]:
    r"""$W^\top x$ for a block-sparse matrix; blocks at the same position are summed.

    Args:
        values: the blocks, shape `(S, bk, bn)`.
        rows: the row of each block, counted in blocks, integers of shape `(S,)`.
        cols: its column, likewise.
        x: shape `(K, M)`: features first, then the batch.
        num_cols: `N`.
        kernels: see `bayesjx.ops.kernel_mode`.

    Returns:
        Shape `(N, M)`.

    Raises:
        ValueError: the shapes do not fit, types differ, or a position is out of range.
        RuntimeError: a position is out of range, raised when a jitted function runs.
    """
    values, x = checked_arrays("block_product", {"values": values, "x": x})
    if x.ndim != 2:
        raise ValueError(f"block_product: x must have shape (K, M), got {x.shape}")
    size = (x.shape[0], whole_number("block_product: num_cols", num_cols))
    values, rows, cols = _checked("block_product", values, rows, cols, size, checked_index)
    params = {"shape": size, "block": values.shape[1:]}
    return _PRODUCTS.forward.bind(values, rows, cols, x, mode=kernel_mode(kernels), **params)


def _checked(
    owner: str, values: Any, rows: Any, cols: Any, size: tuple[int, int], checked: Any
) -> tuple[Any, ...]:
    """Values, rows and columns that fit, the latter two as `checked` (an index) makes them."""
    (values,) = checked_arrays(owner, {"values": values})
    rows, cols = listed(rows), listed(cols)
    _check_shapes(owner, values, rows, cols, size)
    _, height, width = values.shape
    rows = checked(owner, "rows", rows, size[0] // height)
    return values, rows, checked(owner, "cols", cols, size[1] // width)


def _check_shapes(owner: str, values: Any, rows: Any, cols: Any, size: tuple[int, int]) -> None:
    count = values.shape[:1] if values.ndim == 3 else None
    if count is None or jnp.shape(rows) != count or jnp.shape(cols) != count or not values.size:
        raise ValueError(
            f"{owner} takes rows (S,), cols (S,) and values (S, bk, bn), with at least one "
            f"block; got {jnp.shape(rows)}, {jnp.shape(cols)} and {values.shape}"
        )
    for name, array in (("rows", rows), ("cols", cols)):
        if not jnp.issubdtype(jnp.result_type(array), jnp.integer):
            raise ValueError(f"{owner}: {name} must hold integers, got {jnp.result_type(array)}")
    if size[0] % values.shape[1] or size[1] % values.shape[2]:
        raise ValueError(
            f"{owner}: shape {size} of the matrix is not a whole number of blocks as of values, "
            f"{values.shape[1:]}; pad the matrix"
        )


# The twins of the kernels.


def _forward(values: Any, rows: Any, cols: Any, x: Any, *, shape: Any, block: Any) -> jax.Array:
    return _sum_blocks("skn,skm->snm", values, rows, cols, x, block[0], shape[1], block[1])


def _backward(values: Any, rows: Any, cols: Any, y: Any, *, shape: Any, block: Any) -> jax.Array:
    return _sum_blocks("skn,snm->skm", values, cols, rows, y, block[1], shape[0], block[0])


def _sum_blocks(
    axes: str, values: Any, source: Any, target: Any, x: Any, depth: int, size: int, height: int
) -> jax.Array:
    x = x.reshape(-1, depth, x.shape[1])

    def add(total: Any, values: Any, source: Any, target: Any) -> jax.Array:
        return add_rows(total, target, precise(axes, values, rows_of(x, source)))

    wide = jnp.promote_types(x.dtype, jnp.float32)
    total = jnp.zeros((size // height, height, x.shape[2]), wide)
    at_once = chunk(values.shape[0], max(depth, height) * x.shape[2], x.size)
    total = sum_chunks(add, total, (values, source, target), at_once)
    return total.astype(x.dtype).reshape(size, -1)


def _weights(rows: Any, cols: Any, x: Any, y: Any, *, shape: Any, block: Any) -> jax.Array:
    x, y = (a.reshape(-1, b, a.shape[1]) for a, b in zip((x, y), block, strict=True))

    def some(rows: Any, cols: Any) -> jax.Array:
        return precise("skm,snm->skn", rows_of(x, rows), rows_of(y, cols)).astype(x.dtype)

    return map_chunks(
        some, (rows, cols), chunk(rows.shape[0], sum(block) * x.shape[2], x.size + y.size)
    )


_PRODUCTS = sparse_products(
    "block_sparse",
    Layout(sides=(0, 1), axis=0, values_shape=lambda rows, cols, *, block: (*rows, *block)),
    _forward,
    _backward,
    _weights,
    {
        kind: {p: kernel_of("block_sparse", p, kind) for p in ("tpu", "cuda")}
        for kind in ("forward", "backward", "weights")
    },
)
