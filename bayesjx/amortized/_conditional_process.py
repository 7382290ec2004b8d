"""Conditional neural processes: predictions of targets that are independent given the context."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax

from ._heads import AbstractHead
from ._neural_process import AbstractMixtureProcess, checked_options, described, num_counted
from ._process_paths import AbstractPath, AttentivePath, Decoder, MeanPath


class AbstractConditionalProcess(AbstractMixtureProcess):
    """Abstract base class of neural processes with a deterministic path alone."""

    path: eqx.AbstractVar[AbstractPath]
    decoder: eqx.AbstractVar[Decoder]

    def encode(self, key: Any, x: Any, y: Any, mask: Any, num_samples: int) -> Any:
        del key, num_samples
        return self.path.tokens(x, y, mask), mask

    def outputs(self, x_new: Any, cache: Any) -> Any:
        return self.decoder(x_new, self.path.read(x_new, *cache))[..., None, :, :]

    def objective(
        self, key: Any, x: Any, y: Any, context: Any, targets: Any, num_samples: int, ramp: Any
    ) -> Any:
        cache = self.encode(key, x, y, context, num_samples)
        return self.log_prob(x, y, targets, cache) / num_counted(targets, x.dtype)

    def architecture(self) -> dict[str, Any]:
        return described(self, **self.path.architecture())


class CNP(AbstractConditionalProcess):
    """Conditional neural process: each target given the mean of the rows' representations.

    A context of `n` rows and `m` queries cost $O(n + m)$. It is trained by
    `neural_process_training`, as all neural processes are.

    Args:
        num_inputs: `d`, the number of inputs of a row.
        key: PRNG key of the initial weights.
        head: distribution of a target; by default a `NormalHead` whose standard deviation is at
            least 0.1, so that no log density exceeds 1.3836, as the field has it.
        width: of hidden layers and representations.
        depth: number of affine maps of the encoder, and of the decoder.

    Raises:
        ValueError: sizes that are no positive integers, a head of classes, no key.

    References:
        Garnelo, Rosenbaum, Maddison, Ramalho, Saxton, Shanahan, Teh, Rezende and Eslami (2018),
        "Conditional neural processes", ICML.
    """

    path: AbstractPath
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
        d, self.head, width, depth, _ = checked_options("CNP", key, num_inputs, head, width, depth)
        keys = jax.random.split(key)
        self.path = MeanPath(d, width, depth, key=keys[0])
        self.decoder = Decoder(d + width, width, self.head.size, depth, key=keys[1])
        self.num_inputs, self.stochastic, self.span = d, False, None


class CANP(AbstractConditionalProcess):
    """Conditional attentive neural process: each query attends to the rows of the context.

    Rows attend to each other first. A context of `n` rows and `m` queries cost $O(n^2 + nm)$.

    Args:
        num_inputs: `d`, the number of inputs of a row.
        key: PRNG key of the initial weights.
        head: distribution of a target; see `CNP`.
        width: of hidden layers and representations.
        depth: number of layers of the encoder, those of attention too, and of the decoder.
        heads: number of heads of attention, which divides `width`.
        num_layers: number of layers of attention among rows.

    Raises:
        ValueError: sizes that are no positive integers or do not divide, a head of classes, no key.

    References:
        Kim, Mnih, Schwarz, Garnelo, Eslami, Rosenbaum, Vinyals and Teh (2019), "Attentive neural
        processes", ICLR: the deterministic path.
    """

    path: AbstractPath
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
            "CANP", key, num_inputs, head, width, depth, heads, num_layers
        )
        keys = jax.random.split(key)
        self.path = AttentivePath(d, width, depth, heads, num_layers, key=keys[0])
        self.decoder = Decoder(d + width, width, self.head.size, depth, key=keys[1])
        self.num_inputs, self.stochastic, self.span = d, False, None
