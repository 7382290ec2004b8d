"""Latent neural processes: one latent variable of each data set makes its predictions coherent."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from ._heads import AbstractHead
from ._neural_process import (
    AbstractMixtureProcess,
    checked_options,
    described,
    log_probs,
    num_counted,
)
from ._process_paths import (
    AbstractPath,
    AttentivePath,
    Decoder,
    Deep,
    drawn,
    masked_mean,
    MeanPath,
    rows_of,
)

LATENT_SCALES = (0.1, 1.0)  # bounds of the standard deviations of the latent variable


class LatentPath(eqx.Module):
    """Normal distribution of the latent variable of a data set, given some of its rows.

    Attributes:
        encoder: of a row by itself.
        empty: what stands for the mean of no rows.
        moments: from the mean over rows to location and scale.
        scales: bounds of the scale.
    """

    encoder: Deep
    empty: Float[Array, " e"]
    moments: Deep
    scales: tuple[float, float] = eqx.field(static=True)

    def __init__(
        self, num_inputs: int, width: int, depth: int, scales: tuple[float, float], *, key: Any
    ):
        keys = jax.random.split(key, 3)
        self.encoder = Deep(num_inputs + 1, width, width, depth, key=keys[0])
        self.empty = 0.02 * jax.random.normal(keys[1], (width,))
        self.moments = Deep(width, width, 2 * width, 2, key=keys[2])
        self.scales = scales

    def __call__(
        self,
        x: Float[Array, "*batch n d"],
        y: Float[Array, "*batch n"],
        mask: Bool[Array, "*batch n"],
    ) -> tuple[Float[Array, "*batch z"], Float[Array, "*batch z"]]:
        """Location and scale."""
        mean = masked_mean(self.encoder(rows_of(x, y)), mask, self.empty)
        loc, raw = jnp.split(self.moments(mean), 2, axis=-1)
        low, high = self.scales
        return loc, low + (high - low) * jax.nn.sigmoid(raw)


class AbstractLatentProcess(AbstractMixtureProcess):
    """Abstract base class of neural processes with a latent path beside the deterministic one."""

    path: eqx.AbstractVar[AbstractPath]
    latent: eqx.AbstractVar[LatentPath]
    decoder: eqx.AbstractVar[Decoder]

    def encode(self, key: Any, x: Any, y: Any, mask: Any, num_samples: int) -> Any:
        z = _draws(key, *self.latent(x, y, mask), num_samples)
        return self.path.tokens(x, y, mask), mask, z

    def outputs(self, x_new: Any, cache: Any) -> Any:
        tokens, mask, z = cache
        num_samples, m = z.shape[-2], x_new.shape[-2]
        read = drawn(self.path.read(x_new, tokens, mask), num_samples)
        z = jnp.broadcast_to(z[..., None, :], (*z.shape[:-1], m, z.shape[-1]))
        return self.decoder(drawn(x_new, num_samples), jnp.concatenate([read, z], axis=-1))

    def objective(
        self, key: Any, x: Any, y: Any, context: Any, targets: Any, num_samples: int, ramp: Any
    ) -> Any:
        """The evidence lower bound: the latent variable is drawn given context and targets."""
        loc, scale = self.latent(x, y, context | targets)
        prior_loc, prior_scale = self.latent(x, y, context)
        z = _draws(key, loc, scale, num_samples)
        outputs = self.outputs(x, (self.path.tokens(x, y, context), context, z))
        expected = jnp.mean(log_probs(self.head, outputs, y, targets), axis=-1)
        ratio = scale / prior_scale
        gap = (loc - prior_loc) / prior_scale
        divergence = jnp.sum(0.5 * (ratio**2 + gap**2 - 1) - jnp.log(ratio), axis=-1)
        return (expected - divergence) / num_counted(targets, x.dtype)

    def architecture(self) -> dict[str, Any]:
        scales = list(self.latent.scales)
        return described(self, latent_scales=scales, **self.path.architecture())


class NP(AbstractLatentProcess):
    """Neural process: a `CNP` with a latent variable, whose draws are functions.

    Trained by the evidence lower bound, in which the distribution of the latent variable given the
    context is the prior of that given context and targets. Predictions are mixtures over draws.

    Args:
        num_inputs: `d`, the number of inputs of a row.
        key: PRNG key of the initial weights.
        head: distribution of a target; see `CNP`.
        width: of hidden layers, representations and the latent variable.
        depth: number of affine maps of each encoder, and of the decoder.
        latent_scales: bounds of the standard deviations of the latent variable.

    Raises:
        ValueError: sizes that are no positive integers, bounds that are not, a head of classes, no
            key.

    References:
        Garnelo, Schwarz, Rosenbaum, Viola, Rezende, Eslami and Teh (2018), "Neural processes",
        ICML workshop: equation 9. The deterministic path beside it is that of Kim et al. (2019).
    """

    path: AbstractPath
    latent: LatentPath
    decoder: Decoder
    head: AbstractHead
    num_inputs: int = eqx.field(static=True)
    stochastic: bool = eqx.field(static=True)
    span: float | None = eqx.field(static=True)

    def __init__(
        self,
        num_inputs: int,
        *,
        key: jax.Array,
        head: AbstractHead | None = None,
        width: int = 64,
        depth: int = 4,
        latent_scales: Sequence[float] = LATENT_SCALES,
    ):
        d, self.head, width, depth, _ = checked_options("NP", key, num_inputs, head, width, depth)
        scales = _checked_scales("NP", latent_scales)
        keys = jax.random.split(key, 3)
        self.path = MeanPath(d, width, depth, key=keys[0])
        self.latent = LatentPath(d, width, depth, scales, key=keys[1])
        self.decoder = Decoder(d + 2 * width, width, self.head.size, depth, key=keys[2])
        self.num_inputs, self.stochastic, self.span = d, True, None


class ANP(AbstractLatentProcess):
    """Attentive neural process: a `CANP` with a latent variable, whose draws are functions.

    Args:
        num_inputs: `d`, the number of inputs of a row.
        key: PRNG key of the initial weights.
        head: distribution of a target; see `CNP`.
        width: of hidden layers, representations and the latent variable.
        depth: number of layers; see `CANP`.
        heads: number of heads of attention, which divides `width`.
        num_layers: number of layers of attention among rows.
        latent_scales: bounds of the standard deviations of the latent variable.

    Raises:
        ValueError: sizes that are no positive integers or do not divide, bounds that are not, a
            head of classes, no key.

    References:
        Kim, Mnih, Schwarz, Garnelo, Eslami, Rosenbaum, Vinyals and Teh (2019), "Attentive neural
        processes", ICLR: equation 3.
    """

    path: AbstractPath
    latent: LatentPath
    decoder: Decoder
    head: AbstractHead
    num_inputs: int = eqx.field(static=True)
    stochastic: bool = eqx.field(static=True)
    span: float | None = eqx.field(static=True)

    def __init__(
        self,
        num_inputs: int,
        *,
        key: jax.Array,
        head: AbstractHead | None = None,
        width: int = 64,
        depth: int = 4,
        heads: int = 8,
        num_layers: int = 2,
        latent_scales: Sequence[float] = LATENT_SCALES,
    ):
        d, self.head, width, depth, heads = checked_options(
            "ANP", key, num_inputs, head, width, depth, heads, num_layers
        )
        scales = _checked_scales("ANP", latent_scales)
        keys = jax.random.split(key, 3)
        self.path = AttentivePath(d, width, depth, heads, num_layers, key=keys[0])
        self.latent = LatentPath(d, width, depth, scales, key=keys[1])
        self.decoder = Decoder(d + 2 * width, width, self.head.size, depth, key=keys[2])
        self.num_inputs, self.stochastic, self.span = d, True, None


def _draws(key: Any, loc: Any, scale: Any, num_samples: int) -> Float[Array, "*batch s z"]:
    shape = (*loc.shape[:-1], num_samples, loc.shape[-1])
    noise = jax.random.normal(key, shape, loc.dtype)
    return loc[..., None, :] + scale[..., None, :] * noise


def _checked_scales(owner: str, scales: Any) -> tuple[float, float]:
    try:
        low, high = map(float, scales)
    except (TypeError, ValueError):
        low, high = math.nan, math.nan
    if not 0 <= low < high < math.inf:
        raise ValueError(
            f"{owner}: latent_scales must be two increasing numbers, not negative, got "
            f"{scales!r:.60}"
        )
    return low, high
