"""Bootstrapping neural processes: uncertainty of a function from resampled contexts."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ._attention import Dense
from ._heads import AbstractHead
from ._neural_process import (
    AbstractMixtureProcess,
    checked_options,
    described,
    joint_log_prob,
    num_counted,
)
from ._process_paths import AbstractPath, AttentivePath, Decoder, drawn, MeanPath


class AbstractBootstrapProcess(AbstractMixtureProcess):
    """Abstract base class of neural processes that bootstrap their context.

    The decoder reads the context, and is shifted by what differs in a bootstrapped context: where
    that is the context itself, the prediction is that of the base.
    """

    path: eqx.AbstractVar[AbstractPath]
    adapt: eqx.AbstractVar[Dense]
    decoder: eqx.AbstractVar[Decoder]

    def encode(self, key: Any, x: Any, y: Any, mask: Any, num_samples: int) -> Any:
        return self.encode_with(self.bootstrap(key, x, y, mask, num_samples), x, y, mask)

    def encode_with(
        self,
        resampled: Float[Array, "*batch s n"],
        x: Float[Array, "*batch n d"],
        y: Float[Array, "*batch n"],
        mask: Bool[Array, "*batch n"],
    ) -> Any:
        """What queries need of contexts and of those with `resampled` targets."""
        masks = _each(mask, resampled)
        tokens = self.path.tokens(drawn(x, resampled.shape[-2]), resampled, masks)
        return self.path.tokens(x, y, mask), mask, tokens, masks

    def base(self, x_new: Any, cache: Any) -> Any:
        """Outputs for the head that do not use the bootstrapped contexts."""
        return self.decoder(x_new, self.path.read(x_new, *cache[:2]))[..., None, :, :]

    def outputs(self, x_new: Any, cache: Any) -> Any:
        tokens, mask, others, masks = cache
        num_samples = others.shape[-3]
        x_each = drawn(x_new, num_samples)
        read = drawn(self.path.read(x_new, tokens, mask), num_samples)
        shift = self.adapt(self.path.read(x_each, others, masks)) - self.adapt(read)
        return self.decoder(x_each, read, shift)

    def bootstrap(
        self,
        key: jax.Array,
        x: Float[Array, "*batch n d"],
        y: Float[Array, "*batch n"],
        mask: Bool[Array, "*batch n"],
        num_samples: int,
    ) -> Float[Array, "*batch s n"]:
        """Targets of bootstrapped contexts at the inputs of the context.

        The paired bootstrap draws rows with replacement; the base that is given those predicts the
        targets of the context, and its standardised residuals are drawn with replacement. No
        gradient goes through.
        """
        keys = jax.random.split(key)
        rows, residuals = (_resampled(k, mask, num_samples) for k in keys)
        x_each, y_each, masks = drawn(x, num_samples), _each(y, rows), _each(mask, rows)
        paired_x = jnp.take_along_axis(x_each, rows[..., None], axis=-2)
        paired_y = jnp.take_along_axis(y_each, rows, axis=-1)
        tokens = self.path.tokens(paired_x, paired_y, masks)
        outputs = self.decoder(x_each, self.path.read(x_each, tokens, masks))
        predicted = self.head.distribution(self.head.parameters(outputs))
        loc, scale = jnp.asarray(predicted.mean), jnp.sqrt(jnp.asarray(predicted.variance))
        rest = jnp.take_along_axis((y_each - loc) / scale, residuals, axis=-1)
        return jax.lax.stop_gradient(loc + scale * rest)

    def objective(
        self, key: Any, x: Any, y: Any, context: Any, targets: Any, num_samples: int, ramp: Any
    ) -> Any:
        """Log density under the base, and under the mixture over bootstrapped contexts."""
        cache = self.encode(key, x, y, context, num_samples)
        total = joint_log_prob(self.head, self.base(x, cache), y, targets)
        total = total + joint_log_prob(self.head, self.outputs(x, cache), y, targets)
        return total / num_counted(targets, x.dtype)

    def architecture(self) -> dict[str, Any]:
        return described(self, **self.path.architecture())


class BNP(AbstractBootstrapProcess):
    """Bootstrapping neural process: a `CNP` whose predictions are mixtures over bootstraps.

    Args:
        num_inputs: `d`, the number of inputs of a row.
        key: PRNG key of the initial weights.
        head: distribution of a target; see `CNP`.
        width: of hidden layers and representations.
        depth: number of affine maps of the encoder, and of the decoder.

    Raises:
        ValueError: sizes that are no positive integers, a head of classes, no key.

    References:
        Lee, Lee, Kim, Yang, Hwang and Teh (2020), "Bootstrapping neural processes", NeurIPS:
        section 3.
    """

    path: AbstractPath
    adapt: Dense
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
    ):
        d, self.head, width, depth, _ = checked_options("BNP", key, num_inputs, head, width, depth)
        keys = jax.random.split(key, 3)
        self.path = MeanPath(d, width, depth, key=keys[0])
        self.adapt = Dense(width, width, key=keys[1], zero=True)
        self.decoder = Decoder(d + width, width, self.head.size, depth, key=keys[2])
        self.num_inputs, self.stochastic, self.span = d, True, None


class BANP(AbstractBootstrapProcess):
    """Bootstrapping attentive neural process: a `CANP` that bootstraps its context; see `BNP`.

    Args:
        num_inputs: `d`, the number of inputs of a row.
        key: PRNG key of the initial weights.
        head: distribution of a target; see `CNP`.
        width: of hidden layers and representations.
        depth: number of layers; see `CANP`.
        heads: number of heads of attention, which divides `width`.
        num_layers: number of layers of attention among rows.

    Raises:
        ValueError: sizes that are no positive integers or do not divide, a head of classes, no key.

    References:
        Lee, Lee, Kim, Yang, Hwang and Teh (2020), "Bootstrapping neural processes", NeurIPS.
    """

    path: AbstractPath
    adapt: Dense
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
    ):
        d, self.head, width, depth, heads = checked_options(
            "BANP", key, num_inputs, head, width, depth, heads, num_layers
        )
        keys = jax.random.split(key, 3)
        self.path = AttentivePath(d, width, depth, heads, num_layers, key=keys[0])
        self.adapt = Dense(width, width, key=keys[1], zero=True)
        self.decoder = Decoder(d + width, width, self.head.size, depth, key=keys[2])
        self.num_inputs, self.stochastic, self.span = d, True, None


def _resampled(
    key: jax.Array, mask: Bool[Array, "*batch n"], num_samples: int
) -> Int[Array, "*batch s n"]:
    """Rows that count, drawn uniformly with replacement; the first where none counts."""
    shape = (*mask.shape[:-1], num_samples, mask.shape[-1])
    uniform = jax.random.uniform(key, shape, jnp.float32)
    count = jnp.sum(mask, axis=-1)[..., None, None]
    ranks = jnp.minimum(
        jnp.floor(uniform * count.astype(uniform.dtype)).astype(count.dtype), count - 1
    )
    order = jnp.argsort(~mask, axis=-1, stable=True)  # rows that count come first
    return jnp.take_along_axis(_each(order, ranks), jnp.maximum(ranks, 0), axis=-1)


def _each(rows: Array, like: Array) -> Array:
    """Rows of shape `(*batch, n)` for each draw of `like`, of shape `(*batch, s, n)`."""
    return jnp.broadcast_to(rows[..., None, :], (*like.shape[:-1], rows.shape[-1]))
