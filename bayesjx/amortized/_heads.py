"""Heads: from what a network returns for a query to a distribution of its target."""

from __future__ import annotations

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float, Num

from .._core import checked_finite, known_field, number_array, whole_number
from ..distributions import BarDistribution


class AbstractHead(eqx.Module):
    """Abstract base class of heads.

    Attributes:
        size: number of outputs of the network.
        num_classes: number of classes, or None for real targets.
    """

    size: eqx.AbstractVar[int]
    num_classes: eqx.AbstractVar[int | None]

    @abc.abstractmethod
    def architecture(self) -> dict[str, Any]:
        """What `make_head` makes a head of this kind and size from; JSON."""

    @abc.abstractmethod
    def parameters(self, outputs: Float[Array, "*batch k"]) -> Float[Array, "*batch k"]:
        """What `distribution` takes of what the network returns, such as log probabilities."""

    @abc.abstractmethod
    def distribution(
        self, parameters: Float[Array, "*batch k"], loc: Any = 0.0, scale: Any = 1.0
    ) -> dist.Distribution:
        """Distribution of `loc + scale * target`; classes ignore both.

        Args:
            parameters: see `parameters`.
            loc: broadcastable with the batch.
            scale: likewise, positive.
        """


class BarHead(AbstractHead):
    """A `distributions.BarDistribution` with these borders, for any density of one number.

    Args:
        borders: such as `distributions.equal_mass_borders` makes of targets of the prior, in the
            units in which the network sees targets, shape `(k + 1,)`.
    """

    borders: Float[Array, " k1"] = known_field()
    size: int = eqx.field(static=True)
    num_classes: int | None = eqx.field(static=True)

    def __init__(self, borders: Any):
        borders = jnp.asarray(number_array("BarHead: borders", borders))
        self.borders = checked_finite("BarHead: borders", borders)
        self.size, self.num_classes = len(self.borders) - 1, None
        BarDistribution(self.borders, jnp.zeros(self.size), validate_args=True)

    def architecture(self) -> dict[str, Any]:
        return {"kind": "BarHead", "num_bars": self.size}

    def parameters(self, outputs: Float[Array, "*batch k"]) -> Float[Array, "*batch k"]:
        return jax.nn.log_softmax(outputs)

    def distribution(
        self, parameters: Float[Array, "*batch k"], loc: Any = 0.0, scale: Any = 1.0
    ) -> BarDistribution:
        loc, scale = (jnp.asarray(v, parameters.dtype)[..., None] for v in (loc, scale))
        borders = loc + scale * self.borders.astype(parameters.dtype)
        return BarDistribution.from_log_probs(borders, parameters)


class NormalHead(AbstractHead):
    """A normal distribution, for targets whose predictive has one mode.

    Args:
        min_scale: the smallest standard deviation, in the units in which the network sees targets.
    """

    min_scale: float = eqx.field(static=True)
    size: int = eqx.field(static=True)
    num_classes: int | None = eqx.field(static=True)

    def __init__(self, min_scale: float = 1e-3):
        if not (isinstance(min_scale, float | int) and 0 < min_scale < math.inf):
            raise ValueError(f"NormalHead: min_scale must be a positive number, got {min_scale!r}")
        self.min_scale = float(min_scale)
        self.size, self.num_classes = 2, None

    def architecture(self) -> dict[str, Any]:
        return {"kind": "NormalHead", "min_scale": self.min_scale}

    def parameters(self, outputs: Float[Array, "*batch k"]) -> Float[Array, "*batch k"]:
        return outputs

    def distribution(
        self, parameters: Float[Array, "*batch 2"], loc: Any = 0.0, scale: Any = 1.0
    ) -> dist.Normal:
        width = self.min_scale + jax.nn.softplus(parameters[..., 1])
        return dist.Normal(loc + scale * parameters[..., 0], scale * width)


class CategoricalHead(AbstractHead):
    """Probabilities of classes `0, ..., num_classes - 1`."""

    size: int = eqx.field(static=True)
    num_classes: int | None = eqx.field(static=True)

    def __init__(self, num_classes: int):
        self.size = whole_number("CategoricalHead: num_classes", num_classes, 2)
        self.num_classes = self.size

    def architecture(self) -> dict[str, Any]:
        return {"kind": "CategoricalHead", "num_classes": self.num_classes}

    def parameters(self, outputs: Float[Array, "*batch k"]) -> Float[Array, "*batch k"]:
        return jax.nn.log_softmax(outputs)

    def distribution(
        self, parameters: Float[Array, "*batch k"], loc: Any = 0.0, scale: Any = 1.0
    ) -> dist.Distribution:
        del loc, scale
        return dist.Categorical(logits=parameters)


def encode_targets(head: AbstractHead, y: Num[Array, "*batch"]) -> Num[Array, "*batch k"]:
    """Targets as a network sees them: one number, or an indicator of each class."""
    if head.num_classes is None:
        return y[..., None]
    return jax.nn.one_hot(y, head.num_classes, dtype=jnp.result_type(float))


def make_head(architecture: dict[str, Any]) -> AbstractHead:
    """A head of that kind and size, with any values; see `AbstractHead.architecture`."""
    options = dict(architecture)
    kind = options.pop("kind")
    if kind == "BarHead":
        return BarHead(jnp.arange(options["num_bars"] + 1.0))
    return {"NormalHead": NormalHead, "CategoricalHead": CategoricalHead}[kind](**options)
