r"""Fused product $Y_b = A X_b B^\top$: the intermediate $X_b B^\top$ never leaves the chip."""

from __future__ import annotations

from typing import Any

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

_TILE = 128  # of the reduction over rows of X and of the columns of Y, on a TPU
_ROWS = 64  # rows of Y in a program, on a GPU


def fits_tpu(a: Any, b: Any, x: Any, *, dtype: Any) -> bool:
    """Whether whole columns of A and Y and whole rows of B and X fit into vector memory."""
    rows, columns = up(a[-2], 8), up(b[-1], _TILE)
    words = 2 * rows * _TILE + 2 * _TILE * columns + rows * _TILE // 2
    return words * max(dtype.itemsize, 4) <= VECTOR_MEMORY


def run_tpu(a: Any, b: Any, x: Any, *, interpret: Any) -> Any:
    """A `(g, m_a, n_a)`, B `(g, m_b, n_b)`, X `(g, z, n_a, n_b)` to Y `(g, z, m_a, m_b)`."""
    g, z, n_a, n_b = x.shape
    m_a, m_b = a.shape[1], b.shape[1]
    rows, columns = up(m_a, 16), up(n_b, _TILE)
    a = pad(a, None, rows, up(n_a, _TILE))
    b = pad(b, None, up(m_b, _TILE), columns)
    x = pad(x, None, None, up(n_a, _TILE), columns)
    steps, acc = x.shape[2] // _TILE, accumulator(x.dtype)

    def kernel(a_ref: Any, b_ref: Any, x_ref: Any, y_ref: Any, sum_ref: Any) -> None:
        step = pl.program_id(2)

        @pl.when(step == 0)
        def _() -> None:
            sum_ref[...] = jnp.zeros_like(sum_ref)

        inner = dot(x_ref[...], b_ref[...], (1, 1))  # each tile of X B^T is computed once
        sum_ref[...] += dot(a_ref[...].astype(acc), inner)

        @pl.when(step == steps - 1)
        def _() -> None:
            y_ref[...] = sum_ref[...].astype(y_ref.dtype)

    y = tpu_call(
        kernel,
        (a, b, x),
        like((g, z, rows, b.shape[1]), x.dtype),
        grid=(g * z, b.shape[1] // _TILE, steps),
        semantics="ppa",
        in_specs=[
            pl.BlockSpec((None, rows, _TILE), lambda p, j, k: (lax.div(p, int32(z)), int32(0), k)),
            pl.BlockSpec(
                (None, _TILE, columns), lambda p, j, k: (lax.div(p, int32(z)), j, int32(0))
            ),
            pl.BlockSpec(
                (None, None, _TILE, columns),
                lambda p, j, k: (lax.div(p, int32(z)), lax.rem(p, int32(z)), k, int32(0)),
            ),
        ],
        out_specs=pl.BlockSpec(
            (None, None, rows, _TILE),
            lambda p, j, k: (lax.div(p, int32(z)), lax.rem(p, int32(z)), int32(0), j),
        ),
        scratch=[((rows, _TILE), acc)],
        interpret=interpret,
    )
    return y[:, :, :m_a, :m_b]


def fits_cuda(a: Any, b: Any, x: Any, *, dtype: Any) -> bool:
    """Whether recomputing the intermediate for every tile of rows is cheaper than storing it."""
    return a[-2] <= 4 * _ROWS


def run_cuda(a: Any, b: Any, x: Any, *, interpret: Any) -> Any:
    """A `(g, m_a, n_a)`, B `(g, m_b, n_b)`, X `(g, z, n_a, n_b)` to Y `(g, z, m_a, m_b)`."""
    g, z, n_a, n_b = x.shape
    m_a, m_b = a.shape[1], b.shape[1]
    ti, tj = power(m_a, _ROWS), power(m_b, 64)
    tk, tl = power(n_a, 32), power(n_b, 32)
    a = pad(a, None, up(m_a, ti), up(n_a, tk))
    b = pad(b, None, up(m_b, tj), up(n_b, tl))
    x = pad(x, None, None, up(n_a, tk), up(n_b, tl))
    acc = accumulator(x.dtype)
    outer, inner = x.shape[2] // tk, x.shape[3] // tl

    def kernel(a_ref: Any, b_ref: Any, x_ref: Any, y_ref: Any) -> None:
        group, item = lax.div(pl.program_id(0), int32(z)), lax.rem(pl.program_id(0), int32(z))
        i, j = pl.ds(pl.program_id(1) * ti, ti), pl.ds(pl.program_id(2) * tj, tj)

        def add_rows(k: Any, total: Any) -> Any:
            at = pl.ds(k * tk, tk)

            def add_columns(l: Any, part: Any) -> Any:  # noqa: E741
                over = pl.ds(l * tl, tl)
                return part + dot(x_ref[group, item, at, over], b_ref[group, j, over], (1, 1))

            part = lax.fori_loop(int32(0), int32(inner), add_columns, jnp.zeros((tk, tj), acc))
            return total + dot(a_ref[group, i, at].astype(acc), part)

        total = lax.fori_loop(int32(0), int32(outer), add_rows, jnp.zeros((ti, tj), acc))
        y_ref[group, item, i, j] = total.astype(y_ref.dtype)

    y = triton_call(
        kernel,
        (a, b, x),
        like((g, z, a.shape[1], b.shape[1]), x.dtype),
        grid=(g * z, a.shape[1] // ti, b.shape[1] // tj),
        interpret=interpret,
    )
    return y[:, :, :m_a, :m_b]
