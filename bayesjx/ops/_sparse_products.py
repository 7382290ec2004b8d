r"""The three products of a sparse layout, as primitives.

A layout holds a $K \times N$ matrix $W$ on its active set only, as `values` and integer indices.
The form $t = \sum_{m} y_m^\top W^\top x_m$ is linear in the values, in $x$ and in $y$, and its
partial derivatives are all there is to compute:

- `forward(values, *indices, x)` is $W^\top x$: `x` of shape `(K, M)`, result `(N, M)`;
- `backward(values, *indices, y)` is $W y$: `y` of shape `(N, M)`, result `(K, M)`;
- `weights(*indices, x, y)` is $x y^\top$ on the active set, of the shape of the values.

The transpose of each in either of its arguments is one of the other two, so derivatives of every
order stay among these, and so does `vmap`: matrices side by side are one block-diagonal matrix.
Activations are feature-major, so that gathering an input copies a contiguous row.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive

from ._primitive import Kernel, mapped_size, multilinear, with_axis

# Gathered rows are kept below this many elements at a time (4 MiB in single precision): they bound
# the memory of a product, and the CPU takes twice the time when they leave its cache.
MAX_GATHERED = 2**20


class Layout(NamedTuple):
    """Description of a layout for the rules of `vmap`.

    Attributes:
        sides: for each index array, 0 if it addresses the rows of W, 1 if the columns.
        axis: the axis of values and indices that enumerates what is active.
        values_shape: shape of the values, given those of the indices and the parameters.
    """

    sides: tuple[int, ...]
    axis: int
    values_shape: Callable[..., tuple[int, ...]]


class Products(NamedTuple):
    """The primitives of a layout; see the module's text.

    All take the parameters `shape`, `(K, N)`, `block`, the rows and columns of W that an index
    stands for, and `mode`.
    """

    forward: Primitive
    backward: Primitive
    weights: Primitive


def sparse_products(
    name: str,
    layout: Layout,
    forward: Callable[..., jax.Array],
    backward: Callable[..., jax.Array],
    weights: Callable[..., jax.Array],
    kernels: Mapping[str, Mapping[str, Kernel]],
) -> Products:
    """Make the three primitives of a layout.

    Args:
        name: of the layout.
        layout: its description.
        forward: the product in plain `jax.numpy`; as `backward` and `weights`, see the module.
        backward: the product with W itself.
        weights: the gradient of the values.
        kernels: for each of the three, kernels by platform.
    """
    last = 1 + len(layout.sides)  # position of x or y among the operands of a product

    def forward_to_values(ct: Any, _: Any, *rest: Any, **params: Any) -> jax.Array:
        return weights_p.bind(*rest, ct, **params)

    def forward_to_x(ct: Any, *rest: Any, **params: Any) -> jax.Array:
        return backward_p.bind(*rest[:-1], ct, **params)

    def backward_to_values(ct: Any, _: Any, *rest: Any, **params: Any) -> jax.Array:
        return weights_p.bind(*rest[:-1], ct, rest[-1], **params)

    def backward_to_y(ct: Any, *rest: Any, **params: Any) -> jax.Array:
        return forward_p.bind(*rest[:-1], ct, **params)

    def weights_to_x(ct: Any, *rest: Any, **params: Any) -> jax.Array:
        return backward_p.bind(ct, *rest[:-2], rest[-1], **params)

    def weights_to_y(ct: Any, *rest: Any, **params: Any) -> jax.Array:
        return forward_p.bind(ct, *rest[:-1], **params)

    def options(kind: str) -> dict[str, Any]:
        return {"kernels": kernels.get(kind, {}), "floating": last - (kind == "weights")}

    forward_p = multilinear(
        f"{name}_forward",
        forward,
        transposes={0: forward_to_values, last: forward_to_x},
        shapes=lambda *shapes, shape, block: (shape[1], shapes[-1][1]),
        batch=functools.partial(batch_product, layout, True),
        **options("forward"),
    )
    backward_p = multilinear(
        f"{name}_backward",
        backward,
        transposes={0: backward_to_values, last: backward_to_y},
        shapes=lambda *shapes, shape, block: (shape[0], shapes[-1][1]),
        batch=functools.partial(batch_product, layout, False),
        **options("backward"),
    )
    weights_p = multilinear(
        f"{name}_weights",
        weights,
        transposes={last - 1: weights_to_x, last: weights_to_y},
        shapes=lambda *shapes, shape, block: layout.values_shape(*shapes[:-2], block=block),
        batch=functools.partial(_batch_weights, layout),
        **options("weights"),
    )
    return Products(forward_p, backward_p, weights_p)


def batch_product(
    layout: Layout,
    forward: bool,
    bind: Callable[..., Any],
    operands: Any,
    axes: Any,
    *,
    shape: tuple[int, int],
    several: int = 1,
    **params: Any,
) -> tuple[Any, Any]:
    """The rule of `vmap` for a product with W or its transpose.

    Args:
        layout: the layout.
        forward: whether it is the product with the transpose.
        bind: binds the primitive.
        operands: values (as many as `several`), indices, and the dense operand.
        axes: the mapped axis of each operand, or None.
        shape: of W.
        several: number of values and of results.
        **params: the other parameters of the primitive.
    """
    size, (n_in, n_out) = mapped_size(operands, axes), shape
    dense, axis = operands[-1], axes[-1]
    if all(a is None for a in axes[:-1]):  # more columns for the same W
        dense = jnp.moveaxis(dense, axis, 1)
        flat = dense.reshape(dense.shape[0], -1)
        out = bind(*operands[:-1], flat, shape=shape, **params)
        unfold = lambda y: y.reshape(y.shape[0], *dense.shape[1:])  # noqa: E731
        return _each(unfold, out), (1,) * several if several > 1 else 1
    shared = forward and axis is None  # all of the matrices read the same rows
    steps = (0 if shared else n_in, n_out)
    stacked = [with_axis(o, a, size) for o, a in zip(operands[:-1], axes[:-1], strict=True)]
    values = [_merged(v, layout.axis) for v in stacked[:several]]
    indices = _offset(layout, stacked[several:], steps, params["block"])
    if not shared:
        dense = _merged(with_axis(dense, axis, size), 0)
    grown = (n_in if shared else size * n_in, size * n_out)
    out = bind(*values, *indices, dense, shape=grown, **params)
    unfold = lambda y: y.reshape(size, y.shape[0] // size, *y.shape[1:])  # noqa: E731
    return _each(unfold, out), (0,) * several if several > 1 else 0


def _batch_weights(
    layout: Layout,
    bind: Callable[..., Any],
    operands: Any,
    axes: Any,
    *,
    shape: tuple[int, int],
    **params: Any,
) -> tuple[jax.Array, int]:
    size, (n_in, n_out) = mapped_size(operands, axes), shape
    shared = axes[-2] is None
    stacked = [with_axis(o, a, size) for o, a in zip(operands[:-2], axes[:-2], strict=True)]
    indices = _offset(layout, stacked, (0 if shared else n_in, n_out), params["block"])
    x, y = operands[-2:]
    if not shared:
        x = _merged(with_axis(x, axes[-2], size), 0)
    y = _merged(with_axis(y, axes[-1], size), 0)
    grown = (n_in if shared else size * n_in, size * n_out)
    values = bind(*indices, x, y, shape=grown, **params)
    shape_of_one = list(values.shape)
    shape_of_one[layout.axis : layout.axis + 1] = [size, values.shape[layout.axis] // size]
    return values.reshape(shape_of_one), layout.axis


def _each(function: Callable[[Any], Any], out: Any) -> Any:
    return [function(y) for y in out] if isinstance(out, (list, tuple)) else function(out)


def _merged(array: jax.Array, axis: int) -> jax.Array:
    """The first axis put before `axis` of what remains, and the two made one."""
    array = jnp.moveaxis(array, 0, axis)
    shape = array.shape
    return array.reshape(*shape[:axis], shape[axis] * shape[axis + 1], *shape[axis + 2 :])


def _offset(
    layout: Layout, indices: Sequence[jax.Array], steps: tuple[int, int], block: tuple[int, int]
) -> list[jax.Array]:
    """Indices of the block-diagonal matrix that has the given ones as its blocks."""
    offset_indices = []
    for array, side in zip(indices, layout.sides, strict=True):
        size, step = array.shape[0], steps[side] // block[side]
        if size * step >= 2**31:
            raise ValueError(
                f"vmap over {size} sparse matrices of {step} {'columns' if side else 'rows'} each "
                "passes 2³¹ - 1, what 32-bit indices can address; use lax.map for the outer axis"
            )
        offsets = np.arange(size, dtype=np.int32) * np.int32(step)
        array = array + offsets.reshape(-1, *(1,) * (array.ndim - 1))
        offset_indices.append(_merged(array, layout.axis))
    return offset_indices


def rows_of(x: jax.Array, index: jax.Array) -> jax.Array:
    """`x[index]` for indices known to be in range: XLA emits no test."""
    return x.at[index].get(mode="promise_in_bounds")


def add_rows(total: jax.Array, index: jax.Array, rows: jax.Array) -> jax.Array:
    """`total` with rows added, at repeated indices too."""
    return total.at[index].add(rows, mode="promise_in_bounds")


def precise(axes: str, a: jax.Array, b: jax.Array) -> jax.Array:
    """An einsum in full precision, with sums of at least 32 bits."""
    wide = jnp.promote_types(a.dtype, jnp.float32)
    return jnp.einsum(axes, a, b, precision=lax.Precision.HIGHEST, preferred_element_type=wide)


def chunk(items: int, elements: int, source: int, limit: int = MAX_GATHERED) -> int:
    """How many of `items`, each gathering as many elements, are done at once.

    At most half if they gather more than the array that they read holds. Inside a loop XLA gathers
    from an array that it has made; outside it fuses the transpose of a batch into the gather, which
    then reads with strides. On the CPU that doubles the time of a product with 10 % of a matrix,
    and saves one copy with 1 %.
    """
    once = items if items * elements <= source else math.ceil(items / 2)
    most = max(1, min(once, limit // max(elements, 1)))
    divisors = (size for size in range(most, most // 2, -1) if items % size == 0)
    return next(divisors, most)  # rather a whole number of chunks than padding


def map_chunks(
    function: Callable[..., jax.Array], arrays: Sequence[jax.Array], size: int
) -> jax.Array:
    """`function(*arrays)` along the first axis, `size` items at a time."""
    items = arrays[0].shape[0]
    if size >= items:
        return function(*arrays)
    out = lax.map(lambda part: function(*part), _split(arrays, size))
    return out.reshape(-1, *out.shape[2:])[:items]


def sum_chunks(
    add: Callable[..., jax.Array], total: jax.Array, arrays: Sequence[jax.Array], size: int
) -> jax.Array:
    """`add(total, *arrays)` along the first axis, `size` items at a time.

    The last chunk is filled up with zeros, which must add nothing.
    """
    if size >= arrays[0].shape[0]:
        return add(total, *arrays)
    return lax.scan(lambda t, part: (add(t, *part), None), total, _split(arrays, size))[0]


def _split(arrays: Sequence[jax.Array], size: int) -> list[jax.Array]:
    parts = math.ceil(arrays[0].shape[0] / size)
    widths = [[(0, parts * size - a.shape[0])] + [(0, 0)] * (a.ndim - 1) for a in arrays]
    padded = [jnp.pad(a, w) for a, w in zip(arrays, widths, strict=True)]
    return [a.reshape(parts, size, *a.shape[1:]) for a in padded]
