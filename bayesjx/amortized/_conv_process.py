"""Convolutional conditional neural processes: translation equivariant predictions in one input."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._core import constrained_field, whole_number
from ._attention import Dense
from ._heads import AbstractHead
from ._neural_process import AbstractMixtureProcess, checked_options, described, num_counted
from ._process_paths import Deep
from ._process_posterior import extent

REACH = 12  # of kernels, in points of the grid: six times the length scale that they begin with


class ConvBlock(eqx.Module):
    """Residual block with a dilated convolution along a grid, which it is the identity of at first.

    Beyond the ends of the grid stands `background`, what an endless grid without data would hold
    there: results do not depend on where a window begins and ends.

    Attributes:
        conv: of the values at the taps.
        mix: of channels.
        dilation: distance of taps.
        taps: their number, odd.
    """

    conv: Dense
    mix: Dense
    dilation: int = eqx.field(static=True)
    taps: int = eqx.field(static=True)

    def __init__(self, width: int, dilation: int, taps: int, *, key: jax.Array):
        keys = jax.random.split(key)
        self.conv = Dense(taps * width, width, key=keys[0])
        self.mix = Dense(width, width, key=keys[1], zero=True)
        self.dilation, self.taps = dilation, taps

    def __call__(
        self, grid: Float[Array, "*batch g e"], background: Float[Array, " e"]
    ) -> tuple[Float[Array, "*batch g e"], Float[Array, " e"]]:
        """The next layer's grid and background."""
        size, reach = grid.shape[-2], self.dilation * (self.taps // 2)
        ends = jnp.broadcast_to(background, (*grid.shape[:-2], reach, len(background)))
        wide = jnp.concatenate([ends, grid, ends], axis=-2)
        starts = [self.dilation * i for i in range(self.taps)]
        seen = jnp.concatenate([wide[..., i : i + size, :] for i in starts], axis=-1)
        everywhere = jnp.tile(background, self.taps)
        return grid + self._residual(seen), background + self._residual(everywhere)

    def _residual(self, seen: Any) -> Any:
        return self.mix(jax.nn.gelu(self.conv(jax.nn.gelu(seen))))


class ConvCNP(AbstractMixtureProcess):
    r"""Convolutional conditional neural process of one input: shifts of all inputs change nothing.

    Rows are smoothed onto a grid by a Gaussian kernel $\psi$ of a learned length scale, into a
    density $h_0(t) = \sum_i \psi(t - x_i)$ and a mean $\sum_i y_i \psi(t - x_i) / h_0(t)$; residual
    dilated convolutions follow, and a Gaussian kernel reads at queries. The window moves with the
    data. Kernels end at 12 points of the grid, and what is beyond the window is an endless grid
    without data, so that predictions shift exactly with inputs that
    are shifted by multiples of the grid's pitch, and do not depend on each other.

    With $g$ points of the grid, a context of $n$ rows and $m$ queries cost $O(g (n + m))$ beside
    the convolutions.

    Args:
        num_inputs: 1.
        key: PRNG key of the initial weights.
        span: largest extent of the inputs of a data set, context and queries together.
        points_per_unit: points of the grid in a unit of the inputs.
        head: distribution of a target; see `CNP`.
        width: number of channels.
        depth: number of blocks, whose dilations are 1, 2, 4, ...: with `taps` of 5, a prediction
            depends on data as far as $2 (2^\mathrm{depth} - 1)$ points of the grid away.
        taps: of each convolution, an odd number.

    Raises:
        ValueError: sizes out of range, more than one input, a head of classes, no key.

    References:
        Gordon, Bruinsma, Foong, Requeima, Dubois and Turner (2020), "Convolutional conditional
        neural processes", ICLR: section 4, with dilated convolutions in place of a U-Net.
    """

    lift: Dense
    blocks: tuple[ConvBlock, ...]
    decoder: Deep
    head: AbstractHead
    num_inputs: int = eqx.field(static=True)
    stochastic: bool = eqx.field(static=True)
    span: float | None = eqx.field(static=True)
    points_per_unit: int = eqx.field(static=True)
    lengthscales: Float[Array, " k"] = constrained_field(constraints.positive)

    def __init__(
        self,
        num_inputs: int = 1,
        *,
        key: jax.Array,
        span: float = 4.0,
        points_per_unit: int = 64,
        head: AbstractHead | None = None,
        width: int = 64,
        depth: int = 6,
        taps: int = 5,
    ):
        d, self.head, width, depth, _ = checked_options(
            "ConvCNP", key, num_inputs, head, width, depth
        )
        if d != 1:
            raise ValueError(f"ConvCNP: num_inputs must be 1, the grid is one line, got {d}")
        if whole_number("ConvCNP: taps", taps, 3) % 2 == 0:
            raise ValueError(f"ConvCNP: taps must be odd, got {taps}")
        if not (isinstance(span, float | int) and 0 < span < math.inf):
            raise ValueError(f"ConvCNP: span must be a positive number, got {span!r}")
        self.points_per_unit = whole_number("ConvCNP: points_per_unit", points_per_unit)
        keys = jax.random.split(key, depth + 2)
        self.lift = Dense(2, width, key=keys[0])
        self.blocks = tuple(ConvBlock(width, 2**i, taps, key=k) for i, k in enumerate(keys[2:]))
        self.decoder = Deep(width, width, self.head.size, 2, key=keys[1])
        self.lengthscales = jnp.full(2, 2 / points_per_unit, jnp.result_type(float))
        self.num_inputs, self.stochastic, self.span = 1, False, float(span)

    def encode(self, key: Any, x: Any, y: Any, mask: Any, num_samples: int) -> Any:
        del key, num_samples
        return x, y, mask

    def outputs(self, x_new: Any, cache: Any) -> Any:
        x, y, mask = cache
        start = self._start(x_new, x, mask)
        points = self._points(x.dtype)
        weights = self._kernel(points[:, None], x[..., 0] - start, self.lengthscales[0])
        weights = jnp.where(mask[..., None, :], weights, 0)
        density = jnp.sum(weights, axis=-1)
        mean = (weights @ y[..., None])[..., 0] / (density + 1e-8)
        grid = self.lift(jnp.stack([density, mean], axis=-1))
        background = self.lift(jnp.zeros(2, x.dtype))
        for block in self.blocks:
            grid, background = block(grid, background)
        near = self._kernel((x_new[..., 0] - start)[..., None], points, self.lengthscales[1])
        near = near / (jnp.sum(near, axis=-1, keepdims=True) + 1e-8)
        return self.decoder(near @ grid)[..., None, :, :]

    def objective(
        self, key: Any, x: Any, y: Any, context: Any, targets: Any, num_samples: int, ramp: Any
    ) -> Any:
        cache = self.encode(key, x, y, context, num_samples)
        return self.log_prob(x, y, targets, cache) / num_counted(targets, x.dtype)

    def architecture(self) -> dict[str, Any]:
        return described(
            self,
            span=self.span,
            points_per_unit=self.points_per_unit,
            width=self.lift.linear.out_features,
            depth=len(self.blocks),
            taps=self.blocks[0].taps,
        )

    def _start(self, x_new: Any, x: Any, mask: Any) -> Float[Array, "*batch 1"]:
        """Where the window begins: a multiple of the pitch, with a margin before the data."""
        low = jnp.minimum(extent(x, mask)[0], jnp.min(x_new, axis=-2))
        steps = jnp.floor(jax.lax.stop_gradient(low) * self.points_per_unit)
        return (steps - self._margin) / self.points_per_unit

    @property
    def _margin(self) -> int:
        """Points before and after the data: beyond, values are those of an endless grid without.

        What is wrong there after some blocks is further from all queries than the others reach.
        """
        reaches = [block.dilation * (block.taps // 2) for block in self.blocks]
        sums = [(sum(reaches[:i]), sum(reaches[i:])) for i in range(len(reaches))]
        return REACH + max(min(pair) for pair in sums)

    def _points(self, dtype: Any) -> Float[Array, " g"]:
        """The grid's points from the beginning of the window."""
        size = math.ceil(self.span * self.points_per_unit) + 2 * self._margin + 2  # ty: ignore
        return jnp.arange(size, dtype=dtype) / self.points_per_unit

    def _kernel(self, a: Any, b: Any, lengthscale: Any) -> Any:
        """Gaussian kernel of differences, lowered so that it ends at its reach."""
        squares = ((a - b[..., None, :]) / lengthscale) ** 2
        end = (REACH / self.points_per_unit / lengthscale) ** 2
        return jnp.maximum(jnp.exp(-0.5 * squares) - jnp.exp(-0.5 * end), 0)
