"""Abstract base classes of neural processes."""

from __future__ import annotations

import abc
import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from jaxtyping import Array, Bool, Float

from .._core import check_key, whole_number
from ._heads import AbstractHead, NormalHead
from ._network import checked_sizes
from ._pfn_posterior import checked_data
from ._process_posterior import condition, NeuralProcessPosterior

MIN_SCALE = 0.1  # of the normal distribution of a target, as the field has it


class AbstractNeuralProcess(eqx.Module):
    """Abstract base class of neural processes: networks from a context to predictions of targets.

    Attributes:
        head: distribution of a target given what was read of the context.
        num_inputs: number of inputs of a row.
        stochastic: whether predictions are mixtures over draws of the network.
        span: largest extent of the inputs of a data set, context and queries, or None for any.
    """

    head: eqx.AbstractVar[AbstractHead]
    num_inputs: eqx.AbstractVar[int]
    stochastic: eqx.AbstractVar[bool]
    span: eqx.AbstractVar[float | None]

    @abc.abstractmethod
    def encode(
        self,
        key: jax.Array | None,
        x: Float[Array, "*batch n d"],
        y: Float[Array, "*batch n"],
        mask: Bool[Array, "*batch n"],
        num_samples: int,
    ) -> Any:
        """What queries need of contexts: any pytree of arrays.

        Args:
            key: PRNG key of the draws; None for networks that make none.
            x: inputs of contexts.
            y: their targets.
            mask: rows that count.
            num_samples: number of draws.
        """

    @abc.abstractmethod
    def marginals(self, x_new: Float[Array, "*batch m d"], cache: Any) -> dist.Distribution:
        """Distributions of the target of each query by itself, batch shape `(*batch, m)`."""

    @abc.abstractmethod
    def joint(self, x_new: Float[Array, "m d"], cache: Any) -> dist.Distribution:
        """Distribution of the targets of all queries of one data set, event shape `(m,)`."""

    @abc.abstractmethod
    def log_prob(
        self,
        x_new: Float[Array, "*batch m d"],
        y_new: Float[Array, "*batch m"],
        mask: Bool[Array, "*batch m"],
        cache: Any,
    ) -> Float[Array, "*batch"]:
        """Joint log density of the targets that count, in nats."""

    @abc.abstractmethod
    def objective(
        self,
        key: jax.Array,
        x: Float[Array, "*batch n d"],
        y: Float[Array, "*batch n"],
        context: Bool[Array, "*batch n"],
        targets: Bool[Array, "*batch n"],
        num_samples: int,
        ramp: Float[Array, ""],
    ) -> Float[Array, "*batch"]:
        """What training maximises for each data set, in nats a target.

        Args:
            key: PRNG key of the draws.
            x: inputs of rows.
            y: their targets.
            context: rows of the context.
            targets: rows that are predicted.
            num_samples: number of draws.
            ramp: weight, from 0 to 1, of terms that are let in slowly.
        """

    @abc.abstractmethod
    def architecture(self) -> dict[str, Any]:
        """Options that make a network of the same shapes, as plain data."""

    @property
    def dtype(self) -> Any:
        """Type of the parameters, in which everything is computed."""
        kinds = {leaf.dtype for leaf in jax.tree.leaves(self) if eqx.is_inexact_array(leaf)}
        return jnp.result_type(*kinds)

    @property
    def most_inputs(self) -> int:
        """The number of inputs that it takes, all of them."""
        return self.num_inputs

    @property
    def missing(self) -> bool:
        """Inputs may not be NaN."""
        return False

    @property
    def absent(self) -> None:
        """No column may be left out."""
        return None

    def condition(
        self,
        x: Any,
        y: Any,
        *,
        mask: Any = None,
        key: jax.Array | None = None,
        num_samples: int = 50,
    ) -> NeuralProcessPosterior:
        """The predictive distribution given data.

        Rows are padded to a power of two, so that contexts of similar sizes share a compiled
        program.

        Args:
            x: inputs of the context, shape `(n, d)`, or `(n,)` for one input; `n` may be 0.
            y: its targets, shape `(n,)`.
            mask: rows that count, booleans, shape `(n,)`; the others may hold anything.
            key: PRNG key of the draws of a network that makes any; others do not use it.
            num_samples: number of draws, over which predictions are mixtures.

        Raises:
            ValueError: wrong shapes, NaN, no key for a network that draws, no draws.
        """
        x, y, mask = checked_data("condition", self, x, y, mask)
        num_samples = whole_number("condition: num_samples", num_samples)
        check_draws("condition", self, key)
        pad = max(8, 2 ** math.ceil(math.log2(max(len(y), 1)))) - len(y)
        x, y, mask = jnp.pad(x, ((0, pad), (0, 0))), jnp.pad(y, (0, pad)), jnp.pad(mask, (0, pad))
        return condition(key if self.stochastic else None, self, x, y, mask, num_samples)

    def __call__(
        self, x: Any, y: Any, x_new: Any, *, key: jax.Array | None = None, num_samples: int = 50
    ) -> dist.Distribution:
        """Distributions of targets at `x_new` given data, each by itself; see `condition`.

        Args:
            x: inputs of the context, shape `(n, d)`.
            y: its targets, shape `(n,)`.
            x_new: inputs of queries, shape `(m, d)`.
            key: see `condition`.
            num_samples: see `condition`.

        Returns:
            Batch shape `(m,)`.
        """
        return self.condition(x, y, key=key, num_samples=num_samples).predict(x_new)


class AbstractMixtureProcess(AbstractNeuralProcess):
    """Abstract base class of neural processes whose targets are independent given a draw.

    The joint distribution of targets is a mixture over draws of products over targets: its log
    density is the logsumexp over draws of sums over targets.
    """

    @abc.abstractmethod
    def outputs(
        self, x_new: Float[Array, "*batch m d"], cache: Any
    ) -> Float[Array, "*batch s m o"]:
        """Outputs for the head at queries, for each draw; one for networks without draws."""

    def marginals(self, x_new: Any, cache: Any) -> dist.Distribution:
        outputs = self.outputs(x_new, cache)
        if not self.stochastic:
            return _distribution(self.head, outputs[..., 0, :, :])
        each = _distribution(self.head, jnp.swapaxes(outputs, -3, -2))
        return _mixture(each, outputs.dtype)

    def joint(self, x_new: Any, cache: Any) -> dist.Distribution:
        outputs = self.outputs(x_new, cache)
        if not self.stochastic:
            return _distribution(self.head, outputs[..., 0, :, :]).to_event(1)
        return _mixture(_distribution(self.head, outputs).to_event(1), outputs.dtype)

    def log_prob(self, x_new: Any, y_new: Any, mask: Any, cache: Any) -> Any:
        return joint_log_prob(self.head, self.outputs(x_new, cache), y_new, mask)


def described(network: Any, **options: Any) -> dict[str, Any]:
    """Inputs, head and further options of a network."""
    return {"num_inputs": network.num_inputs, "head": network.head.architecture(), **options}


def log_probs(
    head: AbstractHead,
    outputs: Float[Array, "*batch s m o"],
    y: Float[Array, "*batch m"],
    mask: Bool[Array, "*batch m"],
) -> Float[Array, "*batch s"]:
    """Joint log density of the targets that count under each draw."""
    each = jnp.asarray(_distribution(head, outputs).log_prob(y[..., None, :]))
    return jnp.sum(jnp.where(mask[..., None, :], each, 0), axis=-1)


def joint_log_prob(head: AbstractHead, outputs: Any, y: Any, mask: Any) -> Any:
    """Joint log density of the targets that count under the mixture of all draws.

    The logarithm of the mean over draws is outside of the sum over targets.
    """
    each = log_probs(head, outputs, y, mask)
    return logsumexp(each, axis=-1) - math.log(each.shape[-1])


def num_counted(mask: Bool[Array, "*batch n"], dtype: Any) -> Float[Array, "*batch"]:
    """The number of rows that count, at least 1."""
    return jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(dtype)


def check_network(owner: str, network: Any) -> None:
    """Whether a network is a neural process.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(network, AbstractNeuralProcess):
        raise ValueError(
            f"{owner}: network must be a neural process, such as amortized.CNP, got "
            f"{type(network).__name__}"
        )


def check_draws(owner: str, network: AbstractNeuralProcess, key: Any) -> None:
    """Whether there is a key where one is needed.

    Raises:
        ValueError: there is none.
    """
    if not network.stochastic:
        return
    if key is None:
        raise ValueError(
            f"{owner}: key must be a PRNG key, as predictions of a {type(network).__name__} are "
            "mixtures over draws; got None"
        )
    check_key(key)


class Options(NamedTuple):
    """Checked options that all neural processes have."""

    num_inputs: int
    head: AbstractHead
    width: int
    depth: int
    heads: int


def checked_options(
    owner: str,
    key: Any,
    num_inputs: Any,
    head: Any,
    width: Any,
    depth: Any,
    heads: Any = 1,
    num_layers: Any = 1,
) -> Options:
    """Options of a network; the head is a normal one where it is None.

    Raises:
        ValueError: sizes are no positive integers or do not divide, no key, or a head of classes.
    """
    check_key(key)
    num_inputs = whole_number(f"{owner}: num_inputs", num_inputs)
    head = NormalHead(MIN_SCALE) if head is None else head
    width, depth, heads, _ = checked_sizes(owner, head, width, depth, heads, None)
    whole_number(f"{owner}: num_layers", num_layers)
    if head.num_classes is not None:
        raise ValueError(
            f"{owner}: head must be of real targets, such as NormalHead or BarHead, got "
            f"{type(head).__name__}: for classes there is amortized.PFN"
        )
    return Options(num_inputs, head, width, depth, heads)


def _distribution(head: AbstractHead, outputs: Any) -> Any:
    return head.distribution(head.parameters(outputs))


def _mixture(each: Any, dtype: Any) -> dist.MixtureSameFamily:
    weights = dist.Categorical(logits=jnp.zeros(each.batch_shape, dtype))
    return dist.MixtureSameFamily(weights, each)
