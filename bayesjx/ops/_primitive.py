"""JAX primitives for multilinear functions, with kernels of our own for TPUs and GPUs.

A primitive, because it alone has all of `jit`, `vmap`, forward and reverse derivatives of any
order, and lowering for several platforms at once (`jax.export`). `custom_vjp` with
`platform_dependent` has neither forward derivatives nor the export; `linear_call` has no `vmap`.
"""

from __future__ import annotations

import functools
import math
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ._pallas import load

# Whose kernels a mode interprets on the CPU.
_INTERPRETED = {"interpret": "tpu", "interpret-tpu": "tpu", "interpret-cuda": "cuda"}
MODES = ("auto", "xla", *_INTERPRETED)

# What the compilers of the platforms take; complex numbers are for XLA everywhere.
_TYPES = {
    "tpu": ("bfloat16", "float32"),
    "cuda": ("bfloat16", "float16", "float32", "float64"),
}

# Below this many elements of operands and results, launching a kernel costs more than it saves.
SMALL = 16_384


class Kernel(NamedTuple):
    """A Pallas implementation for one platform.

    Attributes:
        run: takes the operands, the primitive's parameters and `interpret`.
        fits: of shapes and parameters, whether the kernel takes them; XLA does what it does not.
    """

    run: Callable[..., Any]
    fits: Callable[..., bool]


def kernel_of(module: str, platform: str, name: str = "") -> Kernel:
    """The kernel `run_…` of a module in `bayesjx.ops._pallas`, with its condition `fits_…` if any.

    Loaded with the first call, which a CPU never makes.
    """

    def function(kind: str) -> Callable[..., Any] | None:
        return getattr(load(module), "_".join(filter(None, (kind, name, platform))), None)

    def run(*operands: Any, **options: Any) -> Any:
        kernel: Any = function("run")
        return kernel(*operands, **options)

    def fits(*shapes: Any, **options: Any) -> bool:
        condition = function("fits")
        return condition is None or condition(*shapes, **options)

    return Kernel(run, fits)


def kernel_mode(kernels: str | None = None) -> str:
    """The mode that `kernels` or, if it is None, the environment variable `BAYESJX_KERNELS` sets.

    Read while a function is traced: a function that is compiled already keeps its mode.

    Args:
        kernels: `"auto"` (a kernel of ours where the platform has one and the sizes suit it),
            `"xla"` (never), `"interpret"` or `"interpret-tpu"`, `"interpret-cuda"` (on the CPU, the
            kernel of that platform interpreted: for tests).

    Raises:
        ValueError: for any other word.
    """
    mode = os.environ.get("BAYESJX_KERNELS", "auto") if kernels is None else kernels
    if mode not in MODES:
        origin = "BAYESJX_KERNELS" if kernels is None else "kernels"
        raise ValueError(f"{origin} must be one of {', '.join(MODES)}; got {mode!r}")
    return mode


def primitive(
    name: str,
    xla: Callable[..., Any],
    *,
    shapes: Callable[..., tuple[int, ...] | tuple[tuple[int, ...], ...]],
    floating: int,
    batch: Callable[..., Any],
    kernels: Mapping[str, Kernel],
    several: bool = False,
) -> Primitive:
    """A primitive that XLA or, where there is one, a kernel computes.

    `bind(*operands, mode=..., **params)`: `mode` is one of `MODES` and chooses when the primitive
    is lowered, so one traced function serves all platforms.

    Args:
        name: name in jaxprs.
        xla: `xla(*operands, **params)` in plain `jax.numpy`.
        shapes: `shapes(*operand_shapes, **params)`, the shape of the result, or one for each.
        floating: position of the operand whose dtype the results have.
        batch: rule for `vmap`: `batch(bind, operands, axes, **params)` gives result and axis.
        kernels: by platform, `"tpu"` or `"cuda"`.
        several: whether there are several results.
    """
    prim = Primitive(name)
    prim.multiple_results = several

    @functools.lru_cache(maxsize=256)
    def compiled(params: tuple[tuple[str, Any], ...]) -> Callable[..., Any]:
        return jax.jit(functools.partial(prim.bind, **dict(params)))

    def evaluate(*operands: Any, **params: Any) -> Any:
        return compiled(tuple(sorted(params.items())))(*operands)

    def abstract(*avals: Any, mode: str, **params: Any) -> Any:
        del mode
        result: Any = shapes(*(aval.shape for aval in avals), **params)
        dtype = avals[floating].dtype
        if several:
            return [ShapedArray(shape, dtype) for shape in result]
        return ShapedArray(result, dtype)

    def lowered(platform: str | None) -> Callable[..., Any]:
        def run(*operands: Any, mode: str, **params: Any) -> Any:
            interpret = platform is None and mode in _INTERPRETED
            target = _INTERPRETED[mode] if interpret else platform
            shaped = [operand.shape for operand in operands]
            sizes = [math.prod(shape) for shape in shaped]
            if not all(sizes):  # an empty sum, whatever the operands
                results = abstract(*operands, mode=mode, **params)
                results = results if several else [results]
                zeros = [jax.numpy.zeros(r.shape, r.dtype) for r in results]
                return zeros if several else zeros[0]
            if target is None or mode == "xla":
                return xla(*operands, **params)
            kernel, dtype = kernels.get(target), operands[floating].dtype
            suits = sum(sizes) >= SMALL and dtype.name in _TYPES[target]
            if kernel is None or dtype.kind == "c" or not (suits or interpret):
                return xla(*operands, **params)
            if not kernel.fits(*shaped, dtype=dtype, **params):
                return xla(*operands, **params)
            return kernel.run(*operands, interpret=interpret, **params)

        return run

    def batched(operands: Any, axes: Any, **params: Any) -> Any:
        return batch(prim.bind, operands, axes, **params)

    prim.def_impl(evaluate)
    prim.def_abstract_eval(abstract)
    batching.primitive_batchers[prim] = batched
    for platform in (None, *kernels):
        rule = mlir.lower_fun(lowered(platform), multiple_results=several)
        mlir.register_lowering(prim, rule, platform=platform)
    return prim


def multilinear(
    name: str,
    xla: Callable[..., Any],
    *,
    transposes: Mapping[int, Callable[..., Any]],
    **options: Any,
) -> Primitive:
    """A primitive, see `primitive`, of a function linear in each of some operands.

    Args:
        name: name in jaxprs.
        xla: the function in plain `jax.numpy`.
        transposes: by position of an operand in which the function is linear,
            `transpose(cotangent, *operands, **params)`, where the operand itself is None; made of
            functions that can be differentiated in turn. All other operands hold integers.
        **options: as for `primitive`.
    """
    prim = primitive(name, xla, **options)

    def jvp(primals: Any, tangents: Any, **params: Any) -> tuple[Any, Any]:
        value = prim.bind(*primals, **params)
        terms = [
            prim.bind(*primals[:i], tangents[i], *primals[i + 1 :], **params)
            for i in transposes
            if type(tangents[i]) is not ad.Zero
        ]
        if not terms:
            return value, no_tangent(value)
        return value, functools.reduce(operator.add, terms)

    def transposed(cotangent: Any, *operands: Any, **params: Any) -> list[Any]:
        unknown = [ad.is_undefined_primal(operand) for operand in operands]
        known = [None if u else o for u, o in zip(unknown, operands, strict=True)]
        results: list[Any] = []
        for i, operand in enumerate(operands):
            if not unknown[i]:
                results.append(None)
            elif type(cotangent) is ad.Zero:
                results.append(ad.Zero(operand.aval))
            else:
                results.append(transposes[i](cotangent, *known, **params))
        return results

    ad.primitive_jvps[prim] = jvp
    ad.primitive_transposes[prim] = transposed
    return prim


def no_tangent(value: Any) -> Any:
    """The tangent of a result that depends on nothing differentiated."""
    zero: Any = ad.Zero
    return zero.from_primal_value(value)


def with_axis(operand: Any, axis: Any, size: int) -> Any:
    """The operand with the mapped axis in front; repeated along a new one if it has none."""
    if axis is None:
        return jax.numpy.broadcast_to(operand, (size, *np.shape(operand)))
    return jax.numpy.moveaxis(operand, axis, 0)


def mapped_size(operands: Any, axes: Any) -> int:
    """Size of the axis that `vmap` maps over."""
    return next(
        np.shape(operand)[axis]
        for operand, axis in zip(operands, axes, strict=True)
        if axis is not None
    )
