"""Block-sparse products: blocks of W are read once, its zeros never."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

from ._tiles import (
    accumulator,
    dot,
    int32,
    like,
    pad,
    power,
    SCALAR_MEMORY,
    tpu_call,
    triton_call,
    up,
    VECTOR_MEMORY,
)

_ITEMS = 128  # of the batch in a tile, on a TPU


def _blocks(x: Any, block: int, size: int, width: int) -> Any:
    """`(K, M)` as blocks of rows, `(K / block, size, width)`, with zeros where it grew."""
    return pad(x.reshape(-1, block, x.shape[1]), None, size, width)


def _sizes_tpu(block: Any, dtype: Any, width: int) -> tuple[int, int, int]:
    """Rows and columns of a block, and the batch, as tiles of a TPU have them."""
    rows = 32 // min(dtype.itemsize, 4)
    return up(block[0], rows), up(block[1], rows), up(width, _ITEMS)


def _sizes_cuda(block: Any, width: int) -> tuple[int, int, int]:
    """The same as multiples of a GPU's tiles: powers of two up to the largest one."""
    tall, wide, items = (up(size, power(size, 64)) for size in (*block, width))
    return tall, wide, items


def _fits_tpu(count: int, block: Any) -> bool:
    rows, columns = (up(b, 16) for b in block)
    words = 4 * rows * up(columns, 128) + 4 * (rows + columns) * _ITEMS
    return 12 * count <= SCALAR_MEMORY and 4 * words <= VECTOR_MEMORY


def _product_tpu(
    values: Any, source: Any, target: Any, x: Any, count: int, axis: int, interpret: Any
) -> jax.Array:
    """Sum over blocks of V^T x (`axis` 0) or V x (1) from `x[source]` to `count` targets."""
    order = jnp.argsort(target).astype(jnp.int32)
    source, target = source[order], target[order]
    height, width, last = values.shape[2 - axis], x.shape[2], values.shape[0] - 1
    acc = accumulator(x.dtype)

    def kernel(_, __, target_ref: Any, v_ref: Any, x_ref: Any, y_ref: Any, sum_ref: Any) -> None:
        s = pl.program_id(1)
        before, after = jnp.maximum(s - 1, 0), jnp.minimum(s + 1, last)

        @pl.when((s == 0) | (target_ref[s] != target_ref[before]))
        def _() -> None:
            sum_ref[...] = jnp.zeros_like(sum_ref)

        sum_ref[...] += dot(v_ref[...], x_ref[...], (axis, 0))

        @pl.when((s == last) | (target_ref[s] != target_ref[after]))
        def _() -> None:
            y_ref[...] = sum_ref[...].astype(y_ref.dtype)

    y = tpu_call(
        kernel,
        (order, source, target, values, x),
        like((count, height, width), x.dtype),
        grid=(width // _ITEMS, last + 1),
        semantics="pa",
        prefetch=3,
        in_specs=[
            pl.BlockSpec((None, *values.shape[1:]), lambda m, s, o, _, __: (o[s], *_zeros(2))),
            pl.BlockSpec((None, x.shape[1], _ITEMS), lambda m, s, _, i, __: (i[s], int32(0), m)),
        ],
        out_specs=pl.BlockSpec((None, height, _ITEMS), lambda m, s, _, __, t: (t[s], int32(0), m)),
        scratch=[((height, _ITEMS), acc)],
        interpret=interpret,
    )
    written = jnp.zeros(count, bool).at[target].set(True)  # the others hold what memory held
    return jnp.where(written[:, None, None], y, 0)


def _product_cuda(
    values: Any, source: Any, target: Any, x: Any, count: int, axis: int, interpret: Any
) -> jax.Array:
    """Sum over blocks of V^T x (`axis` 0) or V x (1) from `x[source]` to `count` targets."""
    order = jnp.argsort(target).astype(jnp.int32)
    source, target = source[order], target[order]
    starts = jnp.searchsorted(target, jnp.arange(count + 1, dtype=jnp.int32)).astype(jnp.int32)
    depth, height, width = x.shape[1], values.shape[2 - axis], x.shape[2]
    tk, th, tm = power(depth, 32), power(height, 64), power(width, 64)

    def kernel(o_ref: Any, i_ref: Any, start_ref: Any, v_ref: Any, x_ref: Any, y_ref: Any) -> None:
        column = pl.program_id(0)
        out, m = pl.ds(pl.program_id(1) * th, th), pl.ds(pl.program_id(2) * tm, tm)

        def add_block(s: Any, total: Any) -> Any:
            block, row = o_ref[s], i_ref[s]

            def add_part(k: Any, total: Any) -> Any:
                at = pl.ds(k * tk, tk)
                v = v_ref[block, at, out] if axis == 0 else v_ref[block, out, at]
                return total + dot(v, x_ref[row, at, m], (axis, 0))

            return lax.fori_loop(int32(0), int32(depth // tk), add_part, total)

        start = jnp.zeros((th, tm), accumulator(x.dtype))
        total = lax.fori_loop(start_ref[column], start_ref[column + 1], add_block, start)
        y_ref[column, out, m] = total.astype(y_ref.dtype)

    return triton_call(
        kernel,
        (order, source, starts, values, x),
        like((count, height, width), x.dtype),
        grid=(count, height // th, width // tm),
        interpret=interpret,
    )


def _run(
    product: Any, sizes: Any, operands: Any, shape: Any, block: Any, axis: int, interpret: Any
) -> jax.Array:
    """A product with W^T (`axis` 0) or W (1), `(K, M)` or `(N, M)`, through blocks of tiles.

    Args:
        product: `_product_tpu` or `_product_cuda`.
        sizes: of a block and of the batch, as tiles have them.
        operands: values `(S, bk, bn)`, rows, columns, and the dense operand.
        shape: of W.
        block: rows and columns of a block.
        axis: of the blocks that is summed over.
        interpret: as for `pallas_call`.
    """
    values, *index, x = operands
    source, target = index[axis], index[1 - axis]
    v = pad(values, None, *sizes[:2])
    blocks = _blocks(x, block[axis], sizes[axis], sizes[2])
    y = product(v, source, target, blocks, shape[1 - axis] // block[1 - axis], axis, interpret)
    return y[:, : block[1 - axis], : x.shape[1]].reshape(shape[1 - axis], -1)


def fits_forward_tpu(values: Any, rows: Any, cols: Any, x: Any, *, block: Any, **_: Any) -> bool:
    """Whether the indices fit into scalar memory and the blocks into vector memory."""
    return _fits_tpu(values[0], block)


fits_backward_tpu = fits_forward_tpu  # the same blocks and indices


def run_forward_tpu(*operands: Any, shape: Any, block: Any, interpret: Any) -> jax.Array:
    """Values `(S, bk, bn)`, rows, columns, x `(K, M)` to `W^T x`, `(N, M)`."""
    sizes = _sizes_tpu(block, operands[-1].dtype, operands[-1].shape[1])
    return _run(_product_tpu, sizes, operands, shape, block, 0, interpret)


def run_backward_tpu(*operands: Any, shape: Any, block: Any, interpret: Any) -> jax.Array:
    """Values `(S, bk, bn)`, rows, columns, y `(N, M)` to `W y`, `(K, M)`."""
    sizes = _sizes_tpu(block, operands[-1].dtype, operands[-1].shape[1])
    return _run(_product_tpu, sizes, operands, shape, block, 1, interpret)


def run_forward_cuda(*operands: Any, shape: Any, block: Any, interpret: Any) -> jax.Array:
    """Values `(S, bk, bn)`, rows, columns, x `(K, M)` to `W^T x`, `(N, M)`."""
    sizes = _sizes_cuda(block, operands[-1].shape[1])
    return _run(_product_cuda, sizes, operands, shape, block, 0, interpret)


def run_backward_cuda(*operands: Any, shape: Any, block: Any, interpret: Any) -> jax.Array:
    """Values `(S, bk, bn)`, rows, columns, y `(N, M)` to `W y`, `(K, M)`."""
    sizes = _sizes_cuda(block, operands[-1].shape[1])
    return _run(_product_cuda, sizes, operands, shape, block, 1, interpret)


def fits_weights_tpu(rows: Any, cols: Any, x: Any, y: Any, *, block: Any, **_: Any) -> bool:
    """Whether the indices fit into scalar memory and the blocks into vector memory."""
    return _fits_tpu(rows[0], block)


def run_weights_tpu(
    rows: Any, cols: Any, x: Any, y: Any, *, shape: Any, block: Any, interpret: Any
) -> jax.Array:
    """X `(K, M)`, y `(N, M)` to the active blocks of `x y^T`, `(S, bk, bn)`."""
    tall, wide, width = _sizes_tpu(block, x.dtype, x.shape[1])
    x, y = _blocks(x, block[0], tall, width), _blocks(y, block[1], wide, width)
    steps = width // _ITEMS

    def kernel(_, __, x_ref: Any, y_ref: Any, v_ref: Any, sum_ref: Any) -> None:
        step = pl.program_id(1)

        @pl.when(step == 0)
        def _() -> None:
            sum_ref[...] = jnp.zeros_like(sum_ref)

        sum_ref[...] += dot(x_ref[...], y_ref[...], (1, 1))

        @pl.when(step == steps - 1)
        def _() -> None:
            v_ref[...] = sum_ref[...].astype(v_ref.dtype)

    values = tpu_call(
        kernel,
        (rows, cols, x, y),
        like((rows.shape[0], tall, wide), x.dtype),
        grid=(rows.shape[0], steps),
        semantics="pa",
        prefetch=2,
        in_specs=[
            pl.BlockSpec((None, tall, _ITEMS), lambda s, m, r, _: (r[s], int32(0), m)),
            pl.BlockSpec((None, wide, _ITEMS), lambda s, m, _, c: (c[s], int32(0), m)),
        ],
        out_specs=pl.BlockSpec((None, tall, wide), lambda s, m, _, __: (s, *_zeros(2))),
        scratch=[((tall, wide), accumulator(x.dtype))],
        interpret=interpret,
    )
    return values[:, : block[0], : block[1]]


def run_weights_cuda(
    rows: Any, cols: Any, x: Any, y: Any, *, shape: Any, block: Any, interpret: Any
) -> jax.Array:
    """X `(K, M)`, y `(N, M)` to the active blocks of `x y^T`, `(S, bk, bn)`."""
    tall, wide, width = _sizes_cuda(block, x.shape[1])
    x, y = _blocks(x, block[0], tall, width), _blocks(y, block[1], wide, width)
    tk, tn, tm = power(tall, 64), power(wide, 64), power(width, 32)

    def kernel(row_ref: Any, col_ref: Any, x_ref: Any, y_ref: Any, v_ref: Any) -> None:
        s = pl.program_id(0)
        at, out = pl.ds(pl.program_id(1) * tk, tk), pl.ds(pl.program_id(2) * tn, tn)
        row, column = row_ref[s], col_ref[s]

        def step(t: Any, total: Any) -> Any:
            m = pl.ds(t * tm, tm)
            return total + dot(x_ref[row, at, m], y_ref[column, out, m], (1, 1))

        start = jnp.zeros((tk, tn), accumulator(x.dtype))
        total = lax.fori_loop(int32(0), int32(width // tm), step, start)
        v_ref[s, at, out] = total.astype(v_ref.dtype)

    values = triton_call(
        kernel,
        (rows, cols, x, y),
        like((rows.shape[0], tall, wide), x.dtype),
        grid=(rows.shape[0], tall // tk, wide // tn),
        interpret=interpret,
    )
    return values[:, : block[0], : block[1]]


def _zeros(count: int) -> tuple[Any, ...]:
    return (int32(0),) * count
