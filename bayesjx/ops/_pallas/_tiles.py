"""Helpers of the kernels: products in full precision, padding to tiles, calls of Pallas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl

# Half of what the smallest TPU core has of vector memory (16 MiB): two copies of each block are
# kept, to load one while computing with the other.
VECTOR_MEMORY = 7 * 2**20
SCALAR_MEMORY = 2**18  # bytes of indices; TPUs have 1 MiB


def accumulator(dtype: Any) -> Any:
    """The type that sums are taken in."""
    return jnp.float64 if dtype == jnp.float64 else jnp.float32


def dot(a: Any, b: Any, contract: tuple[int, int] = (1, 0)) -> Any:
    """Product of two tiles over one axis of each, in full precision.

    Without the highest precision the matrix units of both platforms round float32 operands.
    """
    if a.dtype != b.dtype:
        a, b = (t.astype(accumulator(a.dtype)) for t in (a, b))
    single = a.dtype.itemsize < 4
    return lax.dot_general(
        a,
        b,
        (((contract[0],), (contract[1],)), ((), ())),
        precision=None if single else lax.Precision.HIGHEST,
        preferred_element_type=accumulator(a.dtype),
    )


def up(size: int, multiple: int) -> int:
    """The least multiple that is not below `size`."""
    return -(-size // multiple) * multiple


def power(size: int, largest: int, least: int = 16) -> int:
    """A tile for `size`: the next power of two, within bounds. Triton takes no other tiles."""
    return min(max(pl.next_power_of_2(size), least), largest)


def pad(x: Any, *sizes: int | None) -> Any:
    """Zeros after the end of each axis up to the given size; None leaves an axis alone."""
    widths = [(0, 0 if s is None else s - n) for n, s in zip(x.shape, sizes, strict=True)]
    return jnp.pad(x, widths) if any(w for _, w in widths) else x


def tpu_call(
    kernel: Callable[..., None],
    operands: Sequence[Any],
    out_shape: Any,
    *,
    grid: tuple[int, ...],
    semantics: str,
    in_specs: Sequence[Any],
    out_specs: Any,
    scratch: Sequence[tuple[tuple[int, ...], Any]] = (),
    prefetch: int = 0,
    interpret: Any = False,
) -> Any:
    """Run a kernel on a TPU.

    Args:
        kernel: takes references to prefetched operands, operands, results and scratch memory.
        operands: the first `prefetch` of them are integers, which the index maps take as well.
        out_shape: shapes of the results.
        grid: sizes of the grid, the last axis innermost.
        semantics: one letter an axis: `p`, steps may run in any order, or `a`, in sequence.
        in_specs: blocks of the operands that are not prefetched.
        out_specs: blocks of the results.
        scratch: shapes and types of vector memory that is kept through the grid.
        prefetch: how many operands are loaded into scalar memory beforehand.
        interpret: as for `pallas_call`.
    """
    from jax.experimental.pallas import tpu as pltpu

    words: dict[str, Any] = {"p": "parallel", "a": "arbitrary"}
    spec = pltpu.PrefetchScalarGridSpec(
        num_scalar_prefetch=prefetch,
        grid=grid,
        in_specs=in_specs,
        out_specs=out_specs,
        scratch_shapes=[pltpu.VMEM(shape, dtype) for shape, dtype in scratch],
    )
    call = pl.pallas_call(
        kernel,
        out_shape=out_shape,
        grid_spec=spec,
        compiler_params=pltpu.CompilerParams(dimension_semantics=[words[s] for s in semantics]),
        interpret=interpret,
    )
    return call(*operands)


def triton_call(
    kernel: Callable[..., None],
    operands: Sequence[Any],
    out_shape: Any,
    *,
    grid: tuple[int, ...],
    warps: int = 4,
    stages: int = 2,
    interpret: Any = False,
) -> Any:
    """Run a kernel on a GPU; it gets references to whole arrays and indexes them itself.

    The parameters are Triton's on purpose: without them Pallas takes another compiler.
    """
    from jax.experimental.pallas import triton as plgpu

    call = pl.pallas_call(
        kernel,
        out_shape=out_shape,
        grid=grid,
        compiler_params=plgpu.CompilerParams(num_warps=warps, num_stages=stages),
        interpret=interpret,
    )
    return call(*operands)


def like(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """A result of a kernel."""
    return jax.ShapeDtypeStruct(shape, dtype)


def int32(value: int) -> Any:
    """A 32-bit index, whatever the default: the only integers of TPUs."""
    return jnp.int32(value)
