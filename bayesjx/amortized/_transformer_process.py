"""Transformer neural processes, around the transformer of prior-data fitted networks."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float

from .._core import whole_number
from ._attention import KeysValues, normed
from ._autoregressive import AutoregressiveDistribution
from ._heads import AbstractHead
from ._neural_process import (
    AbstractMixtureProcess,
    AbstractNeuralProcess,
    checked_options,
    described,
    joint_log_prob,
    MIN_SCALE,
    num_counted,
)
from ._pfn import PFN


class TNPD(AbstractMixtureProcess):
    """Transformer neural process with independent targets (diagonal): a `PFN` as a neural process.

    Rows of the context attend to each other, queries to them alone. With a `BarHead` it is the
    network of Müller et al. (2022).

    Args:
        num_inputs: `d`, the number of inputs of a row.
        key: PRNG key of the initial weights.
        head: distribution of a target; see `CNP`.
        width: size of a token.
        depth: number of layers.
        heads: number of heads of attention, which divides `width`.

    Raises:
        ValueError: sizes that are no positive integers or do not divide, a head of classes, no key.

    References:
        Nguyen and Grover (2022), "Transformer neural processes: uncertainty-aware meta learning via
        sequence modeling", ICML: section 3.2.
    """

    pfn: PFN
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
        heads: int = 4,
    ):
        d, self.head, *sizes = checked_options("TNPD", key, num_inputs, head, width, depth, heads)
        self.pfn = _transformer(d, self.head, key, *sizes)
        self.num_inputs, self.stochastic, self.span = d, False, None

    def encode(self, key: Any, x: Any, y: Any, mask: Any, num_samples: int) -> Any:
        return self.pfn.encode(x, y, mask)

    def outputs(self, x_new: Any, cache: Any) -> Any:
        return self.pfn.decode(x_new, cache)[..., None, :, :]

    def architecture(self) -> dict[str, Any]:
        return described(self, **_sizes(self.pfn))

    def objective(
        self, key: Any, x: Any, y: Any, context: Any, targets: Any, num_samples: int, ramp: Any
    ) -> Any:
        cache = self.encode(key, x, y, context, num_samples)
        return self.log_prob(x, y, targets, cache) / num_counted(targets, x.dtype)


class TNPA(AbstractNeuralProcess):
    """Transformer neural process with autoregressive targets.

    A target attends to the context and to the targets before it, of which the context sees nothing.
    The joint density of targets depends on their order. `predict` gives each target by itself.

    Args:
        num_inputs: `d`, the number of inputs of a row.
        key: PRNG key of the initial weights.
        head: distribution of a target; see `CNP`.
        width: size of a token.
        depth: number of layers.
        heads: number of heads of attention, which divides `width`.

    Raises:
        ValueError: sizes that are no positive integers or do not divide, a head of classes, no key.

    References:
        Nguyen and Grover (2022), "Transformer neural processes: uncertainty-aware meta learning via
        sequence modeling", ICML: section 3.1.
    """

    pfn: PFN
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
        heads: int = 4,
    ):
        d, self.head, *sizes = checked_options("TNPA", key, num_inputs, head, width, depth, heads)
        self.pfn = _transformer(d, self.head, key, *sizes)
        self.num_inputs, self.stochastic, self.span = d, False, None

    def encode(self, key: Any, x: Any, y: Any, mask: Any, num_samples: int) -> Any:
        return self.pfn.encode(x, y, mask)

    def marginals(self, x_new: Any, cache: Any) -> dist.Distribution:
        outputs = self.pfn.decode(x_new, cache)
        return self.head.distribution(self.head.parameters(outputs))

    def joint(self, x_new: Any, cache: Any) -> dist.Distribution:
        return AutoregressiveDistribution(Causal(self, x_new, cache), len(x_new), x_new.dtype)

    def log_prob(self, x_new: Any, y_new: Any, mask: Any, cache: Any) -> Any:
        outputs = self.chain(x_new, y_new, mask, cache)
        return joint_log_prob(self.head, outputs[..., None, :, :], y_new, mask)

    def architecture(self) -> dict[str, Any]:
        return described(self, **_sizes(self.pfn))

    def objective(
        self, key: Any, x: Any, y: Any, context: Any, targets: Any, num_samples: int, ramp: Any
    ) -> Any:
        cache = self.encode(key, x, y, context, num_samples)
        return self.log_prob(x, y, targets, cache) / num_counted(targets, x.dtype)

    def chain(
        self,
        x_new: Float[Array, "*batch m d"],
        y_new: Float[Array, "*batch m"],
        mask: Bool[Array, "*#batch m"],
        cache: Any,
    ) -> Float[Array, "*batch m o"]:
        """Outputs for the head at each query, given the targets before it that count."""
        caches, seen = cache
        m = x_new.shape[-2]
        rows, queries = self.pfn.embed(x_new, y_new), self.pfn.embed(x_new, None)
        context = jnp.broadcast_to(seen[..., None, :], (*seen.shape[:-1], m, seen.shape[-1]))

        def allowed(offset: int) -> Any:
            before = jnp.tril(jnp.ones((m, m), bool), offset) & mask[..., None, :]
            before = jnp.broadcast_to(before, (*context.shape[:-1], m))
            return jnp.concatenate([context, before], axis=-1)

        own, earlier = allowed(0), allowed(-1)
        for layer, old in zip(self.pfn.layers, caches, strict=True):
            new = layer.keys_values(rows)
            to = KeysValues(*(jnp.concatenate(both, -2) for both in zip(old, new, strict=True)))
            queries, rows = layer(queries, to, earlier), layer(rows, to, own)
        return self.pfn.decoder(normed(self.pfn.norm, queries))


class Causal(eqx.Module):
    """Distribution of each target of a `TNPA` given those before it."""

    network: TNPA
    x_new: Float[Array, "m d"]
    cache: Any

    def __call__(self, i: Any, y_new: Float[Array, " m"]) -> dist.Distribution:
        """Of target `i`, batch shape `(1,)`; later elements of `y_new` may be anything."""
        mask = jnp.ones(len(y_new), bool)
        outputs = self.network.chain(self.x_new, y_new, mask, self.cache)[i][None]
        return self.network.head.distribution(self.network.head.parameters(outputs))


class LowRankHead(AbstractHead):
    """Normal distribution of a target, with factors by which targets of a data set are correlated.

    Args:
        rank: number of factors.
        min_scale: the smallest standard deviation of a target beside the factors.
    """

    min_scale: float = eqx.field(static=True)
    size: int = eqx.field(static=True)
    num_classes: int | None = eqx.field(static=True)

    def __init__(self, rank: int, min_scale: float = MIN_SCALE):
        self.size, self.num_classes, self.min_scale = 2 + rank, None, min_scale

    def architecture(self) -> dict[str, Any]:
        return {"kind": "LowRankHead", "rank": self.size - 2, "min_scale": self.min_scale}

    def parameters(self, outputs: Float[Array, "*batch k"]) -> Float[Array, "*batch k"]:
        return outputs

    def moments(self, outputs: Float[Array, "*batch k"]) -> tuple[Any, Any, Any]:
        """Means, factors and variances beside those of the factors."""
        scale = self.min_scale + jax.nn.softplus(outputs[..., 1])
        factors = outputs[..., 2:] / math.sqrt(self.size - 2)
        return outputs[..., 0], factors, scale**2

    def distribution(
        self, parameters: Float[Array, "*batch k"], loc: Any = 0.0, scale: Any = 1.0
    ) -> dist.Normal:
        mean, factors, variance = self.moments(parameters)
        deviation = jnp.sqrt(variance + jnp.sum(factors**2, axis=-1))
        return dist.Normal(loc + scale * mean, scale * deviation)


class TNPND(AbstractNeuralProcess):
    """Transformer neural process with a joint normal distribution of targets (non-diagonal).

    The covariance is diagonal plus of low rank. The factors of a query depend on the context and on
    its own input, so that leaving out queries leaves out their rows and columns: finite-dimensional
    distributions are consistent.

    Args:
        num_inputs: `d`, the number of inputs of a row.
        key: PRNG key of the initial weights.
        rank: number of factors.
        width: size of a token.
        depth: number of layers.
        heads: number of heads of attention, which divides `width`.

    Raises:
        ValueError: sizes that are no positive integers or do not divide, no key.

    References:
        Nguyen and Grover (2022), "Transformer neural processes: uncertainty-aware meta learning via
        sequence modeling", ICML: section 3.3, without attention among targets. Markou, Requeima,
        Bruinsma, Vaughan and Turner (2022), "Practical conditional neural processes via tractable
        dependent predictions", ICLR: the linear covariance.
    """

    pfn: PFN
    head: AbstractHead
    num_inputs: int = eqx.field(static=True)
    stochastic: bool = eqx.field(static=True)
    span: float | None = eqx.field(static=True)

    def __init__(
        self,
        num_inputs: int,
        *,
        key: jax.Array,
        rank: int = 16,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
    ):
        head = LowRankHead(whole_number("TNPND: rank", rank))
        d, _, *sizes = checked_options("TNPND", key, num_inputs, head, width, depth, heads)
        self.head = head
        self.pfn = _transformer(d, head, key, *sizes)
        self.num_inputs, self.stochastic, self.span = d, False, None

    def encode(self, key: Any, x: Any, y: Any, mask: Any, num_samples: int) -> Any:
        return self.pfn.encode(x, y, mask)

    def marginals(self, x_new: Any, cache: Any) -> dist.Distribution:
        return self.head.distribution(self.pfn.decode(x_new, cache))

    def joint(self, x_new: Any, cache: Any) -> dist.Distribution:
        return dist.LowRankMultivariateNormal(*self._moments(x_new, cache))

    def log_prob(self, x_new: Any, y_new: Any, mask: Any, cache: Any) -> Any:
        loc, factors, variance = self._moments(x_new, cache)
        # A target that does not count is one whose log density is 0.
        loc, factors = jnp.where(mask, loc, y_new), jnp.where(mask[..., None], factors, 0)
        variance = jnp.where(mask, variance, 1 / (2 * math.pi))
        return dist.LowRankMultivariateNormal(loc, factors, variance).log_prob(y_new)

    def architecture(self) -> dict[str, Any]:
        rank = self.head.size - 2
        return {"num_inputs": self.num_inputs, "rank": rank, **_sizes(self.pfn)}

    def objective(
        self, key: Any, x: Any, y: Any, context: Any, targets: Any, num_samples: int, ramp: Any
    ) -> Any:
        cache = self.encode(key, x, y, context, num_samples)
        return self.log_prob(x, y, targets, cache) / num_counted(targets, x.dtype)

    def _moments(self, x_new: Any, cache: Any) -> Any:
        return self.head.moments(self.pfn.decode(x_new, cache))  # ty: ignore


def _transformer(d: int, head: AbstractHead, key: Any, width: int, depth: int, heads: int) -> PFN:
    return PFN(d, head, key=key, width=width, depth=depth, heads=heads)


def _sizes(pfn: PFN) -> dict[str, Any]:
    return {name: pfn.architecture()[name] for name in ("width", "depth", "heads")}
