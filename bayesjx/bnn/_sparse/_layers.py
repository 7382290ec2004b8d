"""Layers of Equinox models whose weights are normal on an active subspace and zero elsewhere."""

from __future__ import annotations

import abc
import itertools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from ..._core import check_key, safe_sqrt, whole_number
from .._noise import layer_noise
from ._arguments import block_of
from ._budgets import unit_of, units_of_density
from ._start import random_weight
from ._weight import sparse_weight, SparseWeight


class AbstractSparseLayer(eqx.Module):
    """Abstract base class of layers with a `SparseWeight`, of one input as Equinox's are."""

    weight: eqx.AbstractVar[SparseWeight]
    bias: eqx.AbstractVar[Float[Array, " N"] | None]

    @abc.abstractmethod
    def columns(self, x: jax.Array) -> Float[Array, "p K"]:
        """The inputs of the product with the weights, `p` of them for one input of the layer."""

    @abc.abstractmethod
    def shaped(self, out: Float[Array, "p N"], x: jax.Array) -> jax.Array:
        """The output of the layer from that of the product."""

    def __call__(self, x: jax.Array, *, key: Any = None) -> jax.Array:
        """The output of mean weights, or with a key one draw of it.

        Args:
            x: one input.
            key: for a draw from the output's normal distribution given `x`, by local
                reparameterisation; not used by weights that are known.
        """
        x = jnp.asarray(x)
        if not jnp.issubdtype(x.dtype, jnp.inexact):  # squares of integers would overflow
            x = x.astype(self.weight.dtype)
        columns = self.columns(x)
        if key is None or self.weight.scale is None:
            out = self.weight.product(columns)
        else:
            mean, var = self.weight.moments(columns)
            out = mean + safe_sqrt(var) * layer_noise(key, mean.shape, mean.dtype)
        return self.shaped(out if self.bias is None else out + self.bias, x)


class SparseLinear(AbstractSparseLayer):
    r"""Linear layer $x \mapsto x W + b$ of sparse normal weights; `b` is a parameter, not random.

    Forward and backward passes touch the active weights only. Under `jax.vmap` over data the
    product is one of a matrix.

    Args:
        key: for rows that are active, at random, and means, $N(0, 2 / k)$ for `k` inputs.
        in_features: $K$.
        out_features: $N$.
        density: share of the weights that is active.
        group: columns that share their active rows; the last group may be smaller. 32 and more run
            at the speed of dense products; 1 is sparsity by entries.
        block: rows and columns of the units that are active as one, in place of `group`.
        use_bias: whether there is a bias.
        relative_scale: initial standard deviations of the weights in units of that of their means.
        dtype: of the weights, by default float.

    Raises:
        ValueError: sizes that are no positive integers, a density that leaves no unit active or
            is above 1.

    References:
        Li, Miao, Qiu and Zhang (2024), "Training Bayesian neural networks with sparse subspace
        variational inference", ICLR; Kingma, Salimans and Welling (2015), "Variational dropout and
        the local reparameterization trick", NeurIPS.
    """

    weight: SparseWeight
    bias: Float[Array, " N"] | None
    scalars: tuple[bool, bool] = eqx.field(static=True)

    def __init__(
        self,
        key: Any,
        in_features: int,
        out_features: int,
        *,
        density: float = 0.1,
        group: int = 32,
        block: Any = None,
        use_bias: bool = True,
        relative_scale: float = 0.05,
        dtype: Any = float,
    ):
        check_key(key)
        size = (
            whole_number("in_features", in_features, 1),
            whole_number("out_features", out_features, 1),
        )
        self.weight = _new_weight(key, size, density, group, block, relative_scale, dtype)
        self.bias = jnp.zeros(size[1], self.weight.dtype) if use_bias else None
        self.scalars = (False, False)

    @classmethod
    def from_indices(
        cls,
        size: tuple[int, int],
        block: tuple[int, int],
        index: Any,
        mean: Any,
        scale: Any = None,
        bias: Any = None,
    ) -> SparseLinear:
        """A layer of given weights.

        Args:
            size: `(K, N)`.
            block: rows and columns of a unit; `(1, g)` for groups of `g` columns.
            index: the row of each unit, integers of shape `(groups, k)`, distinct in a group; of
                blocks the position on the grid, counted row by row, `(1, S)`.
            mean: shape `(groups, k, g)`, of blocks `(1, S, bk bn)`.
            scale: of that shape, positive; None for weights that are known.
            bias: shape `(N,)`, or None.

        Raises:
            ValueError: shapes or types that do not fit, an index out of range or repeated in a
                group, scales that are not positive, NaN.
            RuntimeError: under `jit`, such values.
        """
        if not isinstance(size, tuple | list) or len(size) != 2:
            raise ValueError(f"size must be two positive integers (K, N), got {size!r:.60}")
        size = whole_number("size", size[0], 1), whole_number("size", size[1], 1)
        weight = sparse_weight(size, block, index, mean, scale)
        if bias is not None and jnp.shape(bias) != (size[1],):
            raise ValueError(f"bias must have shape ({size[1]},), got {jnp.shape(bias)}")
        bias = None if bias is None else jnp.asarray(bias, weight.dtype)
        return _linear(weight, bias, (False, False))

    def columns(self, x: jax.Array) -> Float[Array, "p K"]:
        """The input itself, as a row."""
        wanted = () if self.scalars[0] else (self.weight.size[0],)
        if x.shape != wanted:
            raise ValueError(
                f"x must be one input of shape {wanted}, got {x.shape}; use jax.vmap for more"
            )
        return x.reshape(1, -1)

    def shaped(self, out: Float[Array, "p N"], x: jax.Array) -> jax.Array:
        """The output as a vector."""
        return out.reshape(() if self.scalars[1] else (-1,))


class SparseConv(AbstractSparseLayer):
    r"""Convolution with sparse normal weights, the matrix of which has $C\,\prod k_i$ rows.

    Rows are counted by input channel and position in the kernel, columns are output channels. The
    patches of an input are laid out, so that the product is that of `SparseLinear`; the draws of
    the output are independent between positions, as is usual, though these share weights.

    Args:
        key: see `SparseLinear`.
        in_channels: $C$.
        out_channels: $N$.
        kernel_size: lengths of the kernel, one for each spatial axis.
        stride: of each axis, or of all.
        padding: of all axes, or `"SAME"` or `"VALID"`.
        density: see `SparseLinear`, as all that follow.
        group: columns that share their active rows.
        block: rows and columns of a unit.
        use_bias: whether there is a bias.
        relative_scale: of the initial standard deviations.
        dtype: of the weights.

    Raises:
        ValueError: as `SparseLinear`; as `equinox.nn.Conv` for its arguments.
    """

    weight: SparseWeight
    bias: Float[Array, " N"] | None
    window: Any = eqx.field(static=True)

    def __init__(
        self,
        key: Any,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        *,
        stride: int | tuple[int, ...] = 1,
        padding: int | str = 0,
        density: float = 0.1,
        group: int = 32,
        block: Any = None,
        use_bias: bool = True,
        relative_scale: float = 0.05,
        dtype: Any = float,
    ):
        check_key(key)
        if not isinstance(kernel_size, tuple) or not kernel_size:
            raise ValueError(f"kernel_size must be a tuple of integers, got {kernel_size!r:.60}")
        lengths = [whole_number("kernel_size", length, 1) for length in kernel_size]
        rows = whole_number("in_channels", in_channels, 1) * math.prod(lengths)
        size = rows, whole_number("out_channels", out_channels, 1)
        self.weight = _new_weight(key, size, density, group, block, relative_scale, dtype)
        self.bias = jnp.zeros(size[1], self.weight.dtype) if use_bias else None
        like = eqx.filter_eval_shape(
            eqx.nn.Conv, len(lengths), in_channels, 1, lengths, stride, padding, key=key
        )
        self.window = Window(like)

    def columns(self, x: jax.Array) -> Float[Array, "p K"]:
        """Its patches, shape `(positions, K)`."""
        return self.window.patches(x).T

    def shaped(self, out: Float[Array, "p N"], x: jax.Array) -> jax.Array:
        """The output as an image, channels first."""
        return out.T.reshape(-1, *self.window.shape(x))


class Window:
    """The geometry of a convolution: kernel, stride, padding and dilation.

    Args:
        conv: an `equinox.nn.Conv`, whose weights are not looked at.
    """

    def __init__(self, conv: eqx.nn.Conv):
        self.channels, self.lengths = conv.in_channels, tuple(conv.kernel_size)
        self.stride, self.dilation = tuple(conv.stride), tuple(conv.dilation)
        self.padding, self.mode = conv.padding, _MODES[conv.padding_mode]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Window) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash(tuple(vars(self).values()))

    def shape(self, x: jax.Array) -> tuple[int, ...]:
        """The spatial shape of the output for an input."""
        sides = [n + sum(pad) for n, pad in zip(x.shape[1:], self._pads(x), strict=True)]
        spans = self._spans()
        return tuple((n - s) // t + 1 for n, s, t in zip(sides, spans, self.stride, strict=True))

    def patches(self, x: jax.Array) -> Float[Array, "K p"]:
        """What the kernel meets at each position: copies of the input, shifted."""
        dims = len(self.lengths)
        if x.ndim != dims + 1 or x.shape[0] != self.channels:
            axes = ", ".join(f"n{i + 1}" for i in range(dims))
            raise ValueError(
                f"x must be one input of shape ({self.channels}, {axes}), got {x.shape}; use "
                "jax.vmap for more"
            )
        out = self.shape(x)
        if min(out) < 1:
            raise ValueError(f"x of shape {x.shape} is smaller than the kernel, {self.lengths}")
        wide = jnp.pad(x, [(0, 0), *self._pads(x)], mode=self.mode)
        shifted = []
        for offset in itertools.product(*map(range, self.lengths)):
            first = [o * d for o, d in zip(offset, self.dilation, strict=True)]
            last = [f + (n - 1) * s + 1 for f, n, s in zip(first, out, self.stride, strict=True)]
            limits = (self.channels, *last)
            shifted.append(lax.slice(wide, (0, *first), limits, (1, *self.stride)))
        return jnp.stack(shifted, 1).reshape(self.channels * math.prod(self.lengths), -1)

    def _spans(self) -> list[int]:
        return [d * (k - 1) + 1 for k, d in zip(self.lengths, self.dilation, strict=True)]

    def _pads(self, x: jax.Array) -> list[tuple[int, int]]:
        if isinstance(self.padding, str):
            return list(lax.padtype_to_pads(x.shape[1:], self._spans(), self.stride, self.padding))
        return list(self.padding)


_MODES = {"ZEROS": "constant", "REFLECT": "reflect", "REPLICATE": "edge", "CIRCULAR": "wrap"}


def linear_of(weight: SparseWeight, layer: eqx.nn.Linear) -> SparseLinear:
    """The sparse layer in place of a dense one, with its bias."""
    scalars = layer.in_features == "scalar", layer.out_features == "scalar"
    return _linear(weight, None if layer.bias is None else layer.bias.reshape(-1), scalars)


def conv_of(weight: SparseWeight, layer: eqx.nn.Conv) -> SparseConv:
    """The sparse layer in place of a dense one, with its bias."""
    bias = None if layer.bias is None else layer.bias.reshape(-1)
    return _made(SparseConv, weight=weight, bias=bias, window=Window(layer))


def _linear(weight: SparseWeight, bias: Any, scalars: tuple[bool, bool]) -> SparseLinear:
    return _made(SparseLinear, weight=weight, bias=bias, scalars=scalars)


def _made(cls: Any, **fields: Any) -> Any:
    """A layer of given fields, as JAX makes it from leaves."""
    layer = object.__new__(cls)
    for name, value in fields.items():
        object.__setattr__(layer, name, value)
    return layer


def _new_weight(
    key: jax.Array,
    size: tuple[int, int],
    density: Any,
    group: Any,
    block: Any,
    relative_scale: Any,
    dtype: Any,
) -> SparseWeight:
    unit = unit_of(size, block_of(group, block))
    k = units_of_density("the layer", size, unit, density)
    return random_weight(key, size, unit, k, relative_scale, jnp.result_type(dtype))
