r"""The product of a Kronecker pair with many matrices, $Y_b = A X_b B^\top$."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

from ._checks import checked_arrays
from ._primitive import (
    kernel_mode,
    kernel_of,
    mapped_size,
    multilinear,
    with_axis,
)

_HIGHEST = lax.Precision.HIGHEST


def kron_pair(
    a: jax.Array, b: jax.Array, x: jax.Array, *, kernels: str | None = None
) -> Inexact[Array, "*z m_a m_b"]:
    r"""Product of a Kronecker pair, $A X B^\top = (A \otimes B)\,\mathrm{vec}(X)$ in C order.

    One kernel on GPUs and TPUs, two matrix products elsewhere. Linear in each argument, with
    derivatives of any order in both modes.

    Args:
        a: shape `(m_a, n_a)`.
        b: shape `(m_b, n_b)`.
        x: shape `(..., n_a, n_b)`.
        kernels: see `bayesjx.ops.kernel_mode`.

    Returns:
        Shape `(..., m_a, m_b)`.

    Raises:
        ValueError: the shapes do not compose, or the types differ or are not floating-point.
    """
    shapes = jnp.shape(a), jnp.shape(b), jnp.shape(x)
    if len(shapes[0]) != 2 or len(shapes[1]) != 2 or len(shapes[2]) < 2:
        raise ValueError(
            "kron_pair takes matrices a (m_a, n_a) and b (m_b, n_b) and x (..., n_a, n_b); "
            f"got {shapes[0]}, {shapes[1]} and {shapes[2]}"
        )
    if shapes[2][-2:] != (shapes[0][1], shapes[1][1]):
        raise ValueError(
            f"x must end in {(shapes[0][1], shapes[1][1])}, the columns of a and of b; got shape "
            f"{shapes[2]}. Were a and b exchanged, or is x a flat vector?"
        )
    a, b, x = checked_arrays("kron_pair", {"a": a, "b": b, "x": x})
    stacked = x.reshape(1, math.prod(x.shape[:-2]), *x.shape[-2:])
    y = kron_pair_p.bind(a[None], b[None], stacked, mode=kernel_mode(kernels))
    return y.reshape(*x.shape[:-2], a.shape[0], b.shape[0])


def _xla(a: jax.Array, b: jax.Array, x: jax.Array) -> jax.Array:
    """The kernels' twin: A `(g, m_a, n_a)`, B `(g, m_b, n_b)`, X `(g, z, n_a, n_b)`."""
    (m_a, n_a), (m_b, n_b) = a.shape[1:], b.shape[1:]
    right_first = n_a * m_b * (n_b + m_a) <= m_a * n_b * (n_a + m_b)
    dtype, acc = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    a, b, x = (t[0] if a.shape[0] == 1 else t for t in (a, b, x))
    if x.ndim == 3 and x.shape[0] == 1:  # plain matrices, which XLA multiplies fastest
        x = x[0]
    a_axes, b_axes, x_axes = ("gij", "gkl", "gzjl")
    if a.ndim == 2:
        a_axes, b_axes, x_axes = a_axes[1:], b_axes[1:], "zjl" if x.ndim == 3 else "jl"
    if right_first:
        half, out = x_axes.replace("l", "k"), x_axes.replace("l", "k").replace("j", "i")
        x = _einsum(f"{x_axes},{b_axes}->{half}", x, b, acc)
        y = _einsum(f"{a_axes},{half}->{out}", a.astype(acc), x, acc)
    else:
        half, out = x_axes.replace("j", "i"), x_axes.replace("l", "k").replace("j", "i")
        x = _einsum(f"{a_axes},{x_axes}->{half}", a, x, acc)
        y = _einsum(f"{half},{b_axes}->{out}", x, b.astype(acc), acc)
    shape = (1,) * (4 - y.ndim) + y.shape
    return y.reshape(shape).astype(dtype)


def _einsum(axes: str, a: jax.Array, b: jax.Array, acc: Any) -> jax.Array:
    return jnp.einsum(axes, a, b, precision=_HIGHEST, preferred_element_type=acc)


def _shape(a: Any, b: Any, x: Any) -> tuple[int, ...]:
    return (*x[:2], a[1], b[1])


def _to_a(ct: Any, a: Any, b: Any, x: Any, *, mode: str) -> jax.Array:
    half = jnp.einsum("gzjl,gkl->gzjk", x, b, precision=_HIGHEST)
    return jnp.einsum("gzik,gzjk->gij", ct, half, precision=_HIGHEST)


def _to_b(ct: Any, a: Any, b: Any, x: Any, *, mode: str) -> jax.Array:
    half = jnp.einsum("gij,gzjl->gzil", a, x, precision=_HIGHEST)
    return jnp.einsum("gzik,gzil->gkl", ct, half, precision=_HIGHEST)


def _to_x(ct: Any, a: Any, b: Any, x: Any, *, mode: str) -> jax.Array:
    return kron_pair_p.bind(a.mT, b.mT, ct, mode=mode)


def _batch(bind: Any, operands: Any, axes: Any, *, mode: str) -> tuple[jax.Array, int]:
    (a, b, x), (a_axis, b_axis, x_axis) = operands, axes
    size = mapped_size(operands, axes)
    if a_axis is None and b_axis is None:  # more matrices for the same pair
        x = jnp.moveaxis(x, x_axis, 1)
        shape = x.shape
        flat = x.reshape(shape[0], shape[1] * shape[2], *shape[3:])
        y = bind(a, b, flat, mode=mode)
        return y.reshape(*shape[:3], *y.shape[2:]), 1
    stacked = [with_axis(o, axis, size) for o, axis in zip(operands, axes, strict=True)]
    groups = stacked[0].shape[1]
    y = bind(*(t.reshape(size * groups, *t.shape[2:]) for t in stacked), mode=mode)
    return y.reshape(size, groups, *y.shape[1:]), 0


kron_pair_p = multilinear(
    "kron_pair",
    _xla,
    transposes={0: _to_a, 1: _to_b, 2: _to_x},
    shapes=_shape,
    floating=2,
    batch=_batch,
    kernels={platform: kernel_of("kron_pair", platform) for platform in ("tpu", "cuda")},
)
