"""Martingale posterior neural processes: uncertainty of a function from a generated context."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._core import whole_number
from ._attention import Attention, Dense, normed
from ._heads import AbstractHead
from ._neural_process import (
    AbstractMixtureProcess,
    checked_options,
    described,
    joint_log_prob,
    log_probs,
    num_counted,
)
from ._process_paths import AbstractPath, AttentivePath, Decoder, drawn, MeanPath


class AttentionBlock(eqx.Module):
    """Multi-head attention block with norms behind: what attends is added, then a layer of its own.

    Attributes:
        attention: to given tokens, with a learned key and value beside them.
        feed: of each token.
        norms: layer normalisation after each of the two.
    """

    attention: Attention
    feed: Dense
    norms: tuple[eqx.nn.LayerNorm, eqx.nn.LayerNorm]

    def __init__(self, width: int, heads: int, *, key: jax.Array):
        keys = jax.random.split(key)
        self.attention = Attention(width, heads, key=keys[0])
        self.feed = Dense(width, width, key=keys[1])
        self.norms = (eqx.nn.LayerNorm(width), eqx.nn.LayerNorm(width))

    def __call__(
        self,
        tokens: Float[Array, "*batch m e"],
        to: Float[Array, "*batch n e"],
        mask: Bool[Array, "*#batch 1 n"] | None = None,
    ) -> Float[Array, "*batch m e"]:
        """What `tokens` become, given the tokens of `to` that `mask` allows."""
        kept = self.attention(tokens, self.attention.keys_values(to), mask)
        tokens = normed(self.norms[0], tokens + kept)
        return normed(self.norms[1], tokens + jax.nn.relu(self.feed(tokens)))


class Generator(eqx.Module):
    """Representations of a pseudo-context, exchangeable given those of a context.

    An induced set attention block whose inducing points are random: the context attends to them,
    and they attend to what it became.

    Attributes:
        context_block: the block in which the context attends to the inducing points.
        points_block: the block in which these attend to the context.
        num_pseudo: size of a pseudo-context.
    """

    context_block: AttentionBlock
    points_block: AttentionBlock
    num_pseudo: int = eqx.field(static=True)

    def __init__(self, size: int, heads: int, num_pseudo: int, *, key: jax.Array):
        keys = jax.random.split(key)
        self.context_block = AttentionBlock(size, heads, key=keys[0])
        self.points_block = AttentionBlock(size, heads, key=keys[1])
        self.num_pseudo = num_pseudo

    def __call__(
        self,
        key: jax.Array,
        tokens: Float[Array, "*batch n t"],
        mask: Bool[Array, "*batch n"],
        num_samples: int,
    ) -> Float[Array, "*batch s p t"]:
        """Pseudo-contexts, one for each draw."""
        shape = (*tokens.shape[:-2], num_samples, self.num_pseudo, tokens.shape[-1])
        points = jax.random.normal(key, shape, tokens.dtype)
        rows = self.context_block(drawn(tokens, num_samples), points)
        return self.points_block(points, rows, mask[..., None, None, :])


class AbstractMartingaleProcess(AbstractMixtureProcess):
    """Abstract base class of neural processes that generate the rest of their population.

    A draw adds a pseudo-context to the context; the decoder reads both.
    """

    path: eqx.AbstractVar[AbstractPath]
    generator: eqx.AbstractVar[Generator]
    decoder: eqx.AbstractVar[Decoder]

    def encode(self, key: Any, x: Any, y: Any, mask: Any, num_samples: int) -> Any:
        tokens = self.path.tokens(x, y, mask)
        return tokens, mask, self.generator(key, tokens, mask, num_samples)

    def outputs(self, x_new: Any, cache: Any) -> Any:
        tokens, mask, pseudo = cache
        whole = jnp.concatenate([drawn(tokens, pseudo.shape[-3]), pseudo], axis=-2)
        real = jnp.broadcast_to(mask[..., None, :], (*pseudo.shape[:-2], mask.shape[-1]))
        counted = jnp.concatenate([real, jnp.ones(pseudo.shape[:-1], bool)], axis=-1)
        return self._decoded(drawn(x_new, pseudo.shape[-3]), whole, counted)

    def base(self, x_new: Any, cache: Any) -> Any:
        """Outputs for the head that use the context alone."""
        tokens, mask, _ = cache
        return self._decoded(x_new, tokens, mask)[..., None, :, :]

    def pseudo(self, x_new: Any, cache: Any) -> Any:
        """Outputs for the head that use a pseudo-context alone, for each draw."""
        made = cache[2]
        counted = jnp.ones(made.shape[:-1], bool)
        return self._decoded(drawn(x_new, made.shape[-3]), made, counted)

    def objective(
        self, key: Any, x: Any, y: Any, context: Any, targets: Any, num_samples: int, ramp: Any
    ) -> Any:
        """The sum of the marginal, the amortised and the pseudo log likelihood."""
        cache = self.encode(key, x, y, context, num_samples)
        marginal = joint_log_prob(self.head, self.outputs(x, cache), y, targets)
        amortised = joint_log_prob(self.head, self.base(x, cache), y, targets)
        pseudo = jnp.mean(log_probs(self.head, self.pseudo(x, cache), y, targets), axis=-1)
        return (marginal + amortised + ramp * pseudo) / num_counted(targets, x.dtype)

    def _decoded(self, x_new: Any, tokens: Any, mask: Any) -> Any:
        return self.decoder(x_new, self.path.read(x_new, tokens, mask))

    def architecture(self) -> dict[str, Any]:
        heads, size = self.generator.context_block.attention.heads, self.generator.num_pseudo
        options = {"heads": heads, "num_pseudo": size}
        return described(self, **(options | self.path.architecture()))


class MPNP(AbstractMartingaleProcess):
    """Martingale posterior neural process: a `CNP` whose context is completed at random.

    There is no latent variable: a generator turns noise and the representations of the context into
    those of more data, and predictions given both are a mixture over the noise. It maximises the
    log likelihood under that mixture, under the context alone, and under the pseudo-context alone;
    the last is let in slowly, see `ramp_steps` of `neural_process_training`.

    Args:
        num_inputs: `d`, the number of inputs of a row.
        key: PRNG key of the initial weights.
        head: distribution of a target; see `CNP`.
        width: of hidden layers and representations.
        depth: number of affine maps of the encoder, and of the decoder.
        heads: number of heads of attention of the generator, which divides `width`.
        num_pseudo: number of rows that a draw adds.

    Raises:
        ValueError: sizes that are no positive integers or do not divide, a head of classes, no key.

    References:
        Lee, Yun, Nam, Fong and Lee (2023), "Martingale posterior neural processes", ICLR: sections
        3.2 and 3.3. Fong, Holmes and Walker (2023), "Martingale posterior distributions", JRSS B.
    """

    path: AbstractPath
    generator: Generator
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
        num_pseudo: int = 10,
    ):
        d, self.head, width, depth, heads = checked_options(
            "MPNP", key, num_inputs, head, width, depth, heads
        )
        keys = jax.random.split(key, 3)
        size = whole_number("MPNP: num_pseudo", num_pseudo)
        self.path = MeanPath(d, width, depth, key=keys[0])
        self.generator = Generator(self.path.token_size, heads, size, key=keys[1])
        self.decoder = Decoder(d + width, width, self.head.size, depth, key=keys[2])
        self.num_inputs, self.stochastic, self.span = d, True, None


class MPANP(AbstractMartingaleProcess):
    """Martingale posterior attentive neural process: a `CANP` whose context is completed at random.

    The generator makes keys and values of attention, so that pseudo-rows lie somewhere among the
    inputs; see `MPNP`.

    Args:
        num_inputs: `d`, the number of inputs of a row.
        key: PRNG key of the initial weights.
        head: distribution of a target; see `CNP`.
        width: of hidden layers and representations.
        depth: number of layers; see `CANP`.
        heads: number of heads of attention, which divides `width`.
        num_layers: number of layers of attention among rows.
        num_pseudo: number of rows that a draw adds.

    Raises:
        ValueError: sizes that are no positive integers or do not divide, a head of classes, no key.

    References:
        Lee, Yun, Nam, Fong and Lee (2023), "Martingale posterior neural processes", ICLR: sections
        3.2 and 3.3.
    """

    path: AbstractPath
    generator: Generator
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
        num_pseudo: int = 10,
    ):
        d, self.head, width, depth, heads = checked_options(
            "MPANP", key, num_inputs, head, width, depth, heads, num_layers
        )
        keys = jax.random.split(key, 3)
        size = whole_number("MPANP: num_pseudo", num_pseudo)
        self.path = AttentivePath(d, width, depth, heads, num_layers, key=keys[0])
        self.generator = Generator(self.path.token_size, heads, size, key=keys[1])
        self.decoder = Decoder(d + width, width, self.head.size, depth, key=keys[2])
        self.num_inputs, self.stochastic, self.span = d, True, None
