"""Products with single entries: rows gathered on GPUs, one-hot tiles of W multiplied on TPUs."""

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
    tpu_call,
    triton_call,
    up,
    VECTOR_MEMORY,
)

_TILE = 128  # on a TPU


def fits_forward_tpu(values: Any, index: Any, x: Any, **_: Any) -> bool:
    """Whether values and indices of a tile of columns fit into vector memory."""
    return 4 * (4 * up(values[0], 8) + 8 * _TILE) * _TILE <= VECTOR_MEMORY


def run_forward_tpu(values: Any, index: Any, x: Any, *, interpret: Any, **_: Any) -> jax.Array:
    """Values and index `(E, N)`, x `(K, M)` to `W^T x`, `(N, M)`.

    Entries cannot be gathered in vector memory, so a tile of W is made by comparing indices with
    row numbers, and the matrix unit does the rest.
    """
    (entries, columns), items = values.shape, x.shape[1]
    acc = accumulator(x.dtype)
    slots = up(entries, 8)
    values = pad(values.astype(acc), slots, up(columns, _TILE))  # zeros add nothing to row 0
    index = pad(index, slots, up(columns, _TILE))
    x = pad(x, up(x.shape[0], _TILE), up(items, _TILE))
    steps = x.shape[0] // _TILE

    def kernel(v_ref: Any, i_ref: Any, x_ref: Any, y_ref: Any, sum_ref: Any) -> None:
        step = pl.program_id(2)

        @pl.when(step == 0)
        def _() -> None:
            sum_ref[...] = jnp.zeros_like(sum_ref)

        row = lax.broadcasted_iota(jnp.int32, (_TILE, _TILE), 0) + step * _TILE

        def add_entry(e: Any, tile: Any) -> Any:
            here = row == i_ref[pl.ds(e, 1), :]
            return tile + jnp.where(here, v_ref[pl.ds(e, 1), :], jnp.zeros((), acc))

        zeros = jnp.zeros((_TILE, _TILE), acc)
        tile = lax.fori_loop(int32(0), int32(entries), add_entry, zeros)
        sum_ref[...] += dot(tile, x_ref[...].astype(acc), (0, 0))

        @pl.when(step == steps - 1)
        def _() -> None:
            y_ref[...] = sum_ref[...].astype(y_ref.dtype)

    y = tpu_call(
        kernel,
        (values, index, x),
        like((values.shape[1], x.shape[1]), x.dtype),
        grid=(values.shape[1] // _TILE, x.shape[1] // _TILE, steps),
        semantics="ppa",
        in_specs=[
            pl.BlockSpec((slots, _TILE), lambda n, m, k: (int32(0), n)),
            pl.BlockSpec((slots, _TILE), lambda n, m, k: (int32(0), n)),
            pl.BlockSpec((_TILE, _TILE), lambda n, m, k: (k, m)),
        ],
        out_specs=pl.BlockSpec((_TILE, _TILE), lambda n, m, k: (n, m)),
        scratch=[((_TILE, _TILE), acc)],
        interpret=interpret,
    )
    return y[:columns, :items]


def run_forward_cuda(values: Any, index: Any, x: Any, *, interpret: Any, **_: Any) -> jax.Array:
    """Values and index `(E, N)`, x `(K, M)` to `W^T x`, `(N, M)`."""
    (entries, columns), items = values.shape, x.shape[1]
    tn, tm = power(columns, 32), power(items, 64)
    values, index = (pad(a, None, up(columns, tn)) for a in (values, index))
    x, acc = pad(x, None, up(items, tm)), accumulator(x.dtype)

    def kernel(v_ref: Any, i_ref: Any, x_ref: Any, y_ref: Any) -> None:
        n, m = pl.ds(pl.program_id(0) * tn, tn), pl.ds(pl.program_id(1) * tm, tm)

        def add_entry(e: Any, total: Any) -> Any:
            rows = x_ref[i_ref[e, n], m].astype(acc)
            return total + v_ref[e, n].astype(acc)[:, None] * rows

        total = lax.fori_loop(int32(0), int32(entries), add_entry, jnp.zeros((tn, tm), acc))
        y_ref[n, m] = total.astype(y_ref.dtype)

    y = triton_call(
        kernel,
        (values, index, x),
        like((values.shape[1], x.shape[1]), x.dtype),
        grid=(values.shape[1] // tn, x.shape[1] // tm),
        interpret=interpret,
    )
    return y[:columns, :items]
