"""Products with grouped columns: inputs are gathered on the chip, once for mean and variance."""

from __future__ import annotations

from collections.abc import Sequence
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


def _gather(index_ref: Any, x_ref: Any, rows_ref: Any, group: Any) -> None:
    """Copy the rows of `x_ref` that a group reads to `rows_ref`."""
    slots = rows_ref.shape[0]

    def copy(slot: Any, _: Any) -> None:
        source = index_ref[group * slots + slot]
        rows_ref[pl.ds(slot, 1), :] = x_ref[pl.ds(source, 1), :]

    lax.fori_loop(jnp.int32(0), jnp.int32(slots), copy, None)


def _fits_tpu(k: int, index: Any, group: int) -> bool:
    slots = up(index[1], 8)
    words = (2 * k + slots + 6 * up(group, 8)) * _ITEMS + 4 * slots * up(group, 128)
    return 4 * index[0] * slots <= SCALAR_MEMORY and 4 * words <= VECTOR_MEMORY


def _single(x: Any) -> Any:
    """Rows of 16 bits share a register on TPUs and cannot be copied one by one."""
    return x.astype(jnp.float32) if x.dtype.itemsize < 4 else x


def _products_tpu(values: Any, index: Any, x: Any, interpret: Any) -> Sequence[jax.Array]:
    """The product of each of `values` with x, x², …, all `(groups, g, M)`."""
    (groups, slots), (k, items), g = index.shape, x.shape, values[0].shape[2]
    slots, dtype = up(slots, 8), x.dtype
    values = [pad(v, None, slots, None) for v in values]
    index = pad(index, None, slots).reshape(-1)
    x = pad(_single(x), None, up(items, _ITEMS))
    count = len(values)

    def kernel(index_ref: Any, *refs: Any) -> None:
        x_ref, rows_ref = refs[count], refs[-1]
        _gather(index_ref, x_ref, rows_ref, pl.program_id(1))
        rows, powers = rows_ref[...], rows_ref[...]
        for i in range(count):
            out_ref = refs[count + 1 + i]
            out_ref[...] = dot(refs[i][...], powers, (0, 0)).astype(out_ref.dtype)
            powers = powers * rows

    return tpu_call(
        kernel,
        (index, *values, x),
        [like((groups, g, x.shape[1]), dtype)] * count,
        grid=(x.shape[1] // _ITEMS, groups),
        semantics="pa",
        prefetch=1,
        in_specs=[pl.BlockSpec((None, slots, g), lambda m, n, _: (n, int32(0), int32(0)))] * count
        + [pl.BlockSpec((k, _ITEMS), lambda m, n, _: (int32(0), m))],
        out_specs=[pl.BlockSpec((None, g, _ITEMS), lambda m, n, _: (n, int32(0), m))] * count,
        scratch=[((slots, _ITEMS), x.dtype)],
        interpret=interpret,
    )


def _products_cuda(values: Any, index: Any, x: Any, interpret: Any) -> Sequence[jax.Array]:
    """The product of each of `values` with x, x², …, all `(groups, g, M)`."""
    (groups, slots), items, g = index.shape, x.shape[1], values[0].shape[2]
    tk, tg, tm = power(slots, 32), power(g, 64), power(items, 64)
    values = [pad(v, None, up(slots, tk), up(g, tg)) for v in values]
    index, x = pad(index, None, up(slots, tk)), pad(x, None, up(items, tm))
    count, acc = len(values), accumulator(x.dtype)

    def kernel(*refs: Any) -> None:
        index_ref, x_ref = refs[count], refs[count + 1]
        group, out = pl.program_id(0), pl.ds(pl.program_id(1) * tg, tg)
        m = pl.ds(pl.program_id(2) * tm, tm)

        def step(t: Any, sums: Any) -> Any:
            at = pl.ds(t * tk, tk)
            rows = x_ref[index_ref[group, at], m]
            powers, updated = rows, []
            for i in range(count):
                updated.append(sums[i] + dot(refs[i][group, at, out], powers, (0, 0)))
                powers = powers * rows
            return tuple(updated)

        start = tuple(jnp.zeros((tg, tm), acc) for _ in range(count))
        sums = lax.fori_loop(int32(0), int32(index.shape[1] // tk), step, start)
        for i in range(count):
            refs[count + 2 + i][group, out, m] = sums[i].astype(x.dtype)

    shape = (groups, values[0].shape[2], x.shape[1])
    return triton_call(
        kernel,
        (*values, index, x),
        [like(shape, x.dtype)] * count,
        grid=(groups, shape[1] // tg, shape[2] // tm),
        interpret=interpret,
    )


def _flat(product: Any, values: Any, index: Any, x: Any, interpret: Any) -> list[jax.Array]:
    """The products of each of `values` with x, x², …, all `(n g, M)`."""
    g, items = values[0].shape[2], x.shape[1]
    out = product(values, index, x, interpret)
    return [o[:, :g, :items].reshape(-1, items) for o in out]


def fits_forward_tpu(values: Any, index: Any, x: Any, *, shape: Any, **_: Any) -> bool:
    """Whether indices fit into scalar memory and a tile of x into vector memory."""
    return _fits_tpu(shape[0], index, values[2])


def run_forward_tpu(values: Any, index: Any, x: Any, *, interpret: Any, **_: Any) -> jax.Array:
    """Values `(n, k, g)`, index `(n, k)`, x `(K, M)` to `(n g, M)`."""
    return _flat(_products_tpu, [values], index, x, interpret)[0]


def run_forward_cuda(values: Any, index: Any, x: Any, *, interpret: Any, **_: Any) -> jax.Array:
    """Values `(n, k, g)`, index `(n, k)`, x `(K, M)` to `(n g, M)`."""
    return _flat(_products_cuda, [values], index, x, interpret)[0]


def fits_moments_tpu(mean: Any, var: Any, index: Any, x: Any, *, shape: Any, **_: Any) -> bool:
    """Whether indices fit into scalar memory and a tile of x into vector memory."""
    return _fits_tpu(shape[0], index, mean[2])


def run_moments_tpu(
    mean: Any, var: Any, index: Any, x: Any, *, interpret: Any, **_: Any
) -> list[jax.Array]:
    """Products of `mean` with x and of `var` with x², both `(n g, M)`."""
    return _flat(_products_tpu, [mean, var], index, x, interpret)


def run_moments_cuda(
    mean: Any, var: Any, index: Any, x: Any, *, interpret: Any, **_: Any
) -> list[jax.Array]:
    """Products of `mean` with x and of `var` with x², both `(n g, M)`."""
    return _flat(_products_cuda, [mean, var], index, x, interpret)


def fits_weights_tpu(index: Any, x: Any, y: Any, *, shape: Any, **_: Any) -> bool:
    """Whether indices fit into scalar memory and a tile of x into vector memory."""
    return _fits_tpu(shape[0], index, shape[1] // index[0])


def run_weights_tpu(index: Any, x: Any, y: Any, *, interpret: Any, **_: Any) -> jax.Array:
    """Index `(n, k)`, x `(K, M)`, y `(n g, M)` to `(n, k, g)`."""
    (groups, wanted), items, dtype = index.shape, x.shape[1], x.dtype
    slots, width = up(wanted, 8), up(items, _ITEMS)
    index = pad(index, None, slots).reshape(-1)
    x, y = pad(_single(x), None, width), pad(_single(y), None, width)
    y = y.reshape(groups, -1, width)
    g, steps = y.shape[1], width // _ITEMS

    def kernel(index_ref: Any, x_ref: Any, y_ref: Any, out_ref: Any, rows_ref: Any, sum_ref: Any):
        step = pl.program_id(1)

        @pl.when(step == 0)
        def _() -> None:
            sum_ref[...] = jnp.zeros_like(sum_ref)

        _gather(index_ref, x_ref, rows_ref, pl.program_id(0))
        sum_ref[...] += dot(rows_ref[...], y_ref[...], (1, 1))

        @pl.when(step == steps - 1)
        def _() -> None:
            out_ref[...] = sum_ref[...].astype(out_ref.dtype)

    out = tpu_call(
        kernel,
        (index, x, y),
        like((groups, slots, g), dtype),
        grid=(groups, steps),
        semantics="pa",
        prefetch=1,
        in_specs=[
            pl.BlockSpec((x.shape[0], _ITEMS), lambda n, m, _: (int32(0), m)),
            pl.BlockSpec((None, g, _ITEMS), lambda n, m, _: (n, int32(0), m)),
        ],
        out_specs=pl.BlockSpec((None, slots, g), lambda n, m, _: (n, int32(0), int32(0))),
        scratch=[((slots, _ITEMS), x.dtype), ((slots, g), accumulator(dtype))],
        interpret=interpret,
    )
    return out[:, :wanted]


def run_weights_cuda(index: Any, x: Any, y: Any, *, interpret: Any, **_: Any) -> jax.Array:
    """Index `(n, k)`, x `(K, M)`, y `(n g, M)` to `(n, k, g)`."""
    (groups, wanted), items = index.shape, x.shape[1]
    g = y.shape[0] // groups
    tk, tg, tm = power(wanted, 32), power(g, 64), power(items, 32)
    index, x = pad(index, None, up(wanted, tk)), pad(x, None, up(items, tm))
    y = pad(y.reshape(groups, g, items), None, up(g, tg), x.shape[1])
    steps, acc = x.shape[1] // tm, accumulator(x.dtype)

    def kernel(index_ref: Any, x_ref: Any, y_ref: Any, out_ref: Any) -> None:
        group = pl.program_id(0)
        at, out = pl.ds(pl.program_id(1) * tk, tk), pl.ds(pl.program_id(2) * tg, tg)
        sources = index_ref[group, at]

        def step(t: Any, total: Any) -> Any:
            m = pl.ds(t * tm, tm)
            return total + dot(x_ref[sources, m], y_ref[group, out, m], (1, 1))

        total = lax.fori_loop(int32(0), int32(steps), step, jnp.zeros((tk, tg), acc))
        out_ref[group, at, out] = total.astype(out_ref.dtype)

    out = triton_call(
        kernel,
        (index, x, y),
        like((groups, index.shape[1], y.shape[1]), x.dtype),
        grid=(groups, index.shape[1] // tk, y.shape[1] // tg),
        interpret=interpret,
    )
    return out[:, :wanted, :g]
