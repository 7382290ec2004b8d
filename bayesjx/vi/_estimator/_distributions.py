"""Distributions that carry a gradient strategy, and those of the single elements of a site."""

from __future__ import annotations

import copy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.distribution import (
    Distribution,
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)
from numpyro.distributions.kl import kl_divergence

from ...distributions import Normal, repaired
from ._strategy import (
    AbstractPathwise,
    AbstractStrategy,
)


class WithStrategy(Distribution):
    """`base` with the gradient strategy of the sites it is sampled at.

    Behaves as `base` in every respect but sampling, which is the strategy's: gradients flow
    through the draw of a pathwise strategy and stop at all others. `expand`, `to_event` and
    `mask` keep the strategy on the outside, so plates do not hide it.
    """

    pytree_data_fields = ("base", "strategy")
    pytree_aux_fields = ("has_enumerate_support",)

    def __init__(self, base: Distribution, strategy: AbstractStrategy):
        self.base = base
        self.strategy = strategy
        self.has_enumerate_support = bool(base.has_enumerate_support)
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def support(self) -> Any:
        return self.base.support

    @property
    def has_rsample(self) -> bool:
        """Whether gradients flow through draws: the strategy is pathwise."""
        return isinstance(self.strategy, AbstractPathwise)

    @property
    def mean(self) -> Any:
        return self.base.mean

    @property
    def variance(self) -> Any:
        return self.base.variance

    @property
    def is_discrete(self) -> bool:
        """Whether `base` is discrete."""
        return self.base.is_discrete

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.sample_with_intermediates(key, sample_shape)[0]

    def sample_with_intermediates(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return draw(self, key, sample_shape)

    def log_prob(self, value: Any, intermediates: Any = None) -> Any:
        base = repaired(self.base)
        return base.log_prob(value, intermediates) if intermediates else base.log_prob(value)

    def cdf(self, value: Any) -> Any:
        return self.base.cdf(value)

    def icdf(self, q: Any) -> Any:
        return self.base.icdf(q)

    def entropy(self) -> Any:
        return self.base.entropy()

    def enumerate_support(self, expand: bool = True) -> Any:
        return self.base.enumerate_support(expand=expand)

    def expand(self, batch_shape: Any) -> WithStrategy:
        if tuple(batch_shape) == self.batch_shape:
            return self
        return WithStrategy(self.base.expand(batch_shape), self.strategy)

    def to_event(self, reinterpreted_batch_ndims: int | None = None) -> WithStrategy:
        return WithStrategy(self.base.to_event(reinterpreted_batch_ndims), self.strategy)

    def mask(self, mask: Any) -> WithStrategy:  # ty: ignore[incompatible-method-override]
        """`base` with its density silenced where `mask` is false; draws are not affected."""
        return WithStrategy(self.base.mask(mask), self.strategy)


@promote_batch_shape.register
def _promote(d: WithStrategy):
    return WithStrategy(promote_batch_shape(d.base), d.strategy)


def _plain_kl(p: Distribution, q: Distribution) -> Any:
    """The strategy plays no part in a divergence."""
    plain = [d.base if isinstance(d, WithStrategy) else d for d in (p, q)]
    return kl_divergence(*plain)


# Every pair is named, since multipledispatch warns about pairs that two rules fit equally well.
for _other in (Distribution, ExpandedDistribution, WithStrategy, dist.Delta):
    kl_divergence.register(WithStrategy, _other)(_plain_kl)
    kl_divergence.register(_other, WithStrategy)(_plain_kl)


def split(fn: Distribution, infer: dict[str, Any]) -> tuple[Distribution, AbstractStrategy | None]:
    """The plain distribution of a site and the strategy the user gave it, if any."""
    fn, strategy = _split(fn)
    return repaired(fn), strategy if strategy is not None else infer.get("strategy")


def _split(fn: Distribution) -> tuple[Distribution, AbstractStrategy | None]:
    strategy = None
    if isinstance(fn, WithStrategy):
        fn, strategy = fn.base, fn.strategy
    elif isinstance(fn, (ExpandedDistribution, MaskedDistribution, Independent)):
        # A wrapper that NumPyro put around ours (e.g. dist.Independent(vi.enum(d), 1)).
        inner, strategy = _split(fn.base_dist)
        if strategy is not None:
            fn = _rewrap(fn, inner)
    return fn, strategy


def _rewrap(fn: Any, inner: Distribution) -> Distribution:
    if isinstance(fn, ExpandedDistribution):
        return inner.expand(fn.batch_shape)
    if isinstance(fn, MaskedDistribution):
        return inner.mask(fn._mask)
    return inner.to_event(fn.reinterpreted_batch_ndims)


def draw(fn: Distribution, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> Any:
    """One draw `(value, intermediates)` by the strategy of `fn`; reparameterised if it has none."""
    strategy = fn.strategy if isinstance(fn, WithStrategy) else None
    base = fn.base if isinstance(fn, WithStrategy) else fn
    if isinstance(strategy, AbstractPathwise):
        value, intermediates = strategy.sample(base, key, sample_shape)
    else:
        value, intermediates = base.sample_with_intermediates(key, sample_shape)
        if strategy is not None:
            value, intermediates = jax.lax.stop_gradient(value), []
    return match_dtype((value, intermediates), base)


def match_dtype(values: Any, inputs: Any) -> Any:
    """Casts floats to the dtype of the float arrays in `inputs`, a distribution and what it scores.

    NumPyro's samplers, and log probabilities of counts, are float64 under x64 whatever comes in.
    """
    dtype = float_dtype(inputs)
    if dtype is None:
        return values

    def cast(x: Any) -> Any:
        return x.astype(dtype) if _is_floating(x) else x

    return jax.tree.map(cast, values)


def float_dtype(inputs: Any) -> Any:
    """The dtype of the float arrays in a tree; None if there are only Python numbers and counts.

    NumPyro makes NumPy arrays of one element from Python numbers.
    """
    leaves = [x for x in jax.tree.leaves(inputs) if _is_floating(x) and x.size]
    strong = [x for x in leaves if not _was_python_number(x)]
    return jnp.result_type(*strong) if strong else None


def _was_python_number(x: Any) -> bool:
    return getattr(x, "weak_type", False) or (isinstance(x, np.ndarray) and x.size == 1)


def unvalidated(d: Distribution) -> Distribution:
    """`d` whose density takes its values as they are: draws of its own, or relaxed ones."""
    if isinstance(d, (ExpandedDistribution, Independent, MaskedDistribution)):
        d = copy.copy(d)
        d.base_dist = unvalidated(d.base_dist)
    elif d._validate_args:
        d = copy.copy(d)
        d._validate_args = False
    return d


def _is_floating(x: Any) -> bool:
    return hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.floating)


def unmasked(fn: Distribution) -> Distribution:
    """The distribution that a site is sampled from: `fn` without masks, which silence densities."""
    if isinstance(fn, WithStrategy):
        return unmasked(fn.base)
    if isinstance(fn, MaskedDistribution):
        return unmasked(fn.base_dist)
    if isinstance(fn, ExpandedDistribution):
        inner = unmasked(fn.base_dist)
        return fn if inner is fn.base_dist else inner.expand(fn.batch_shape)
    if isinstance(fn, Independent):
        inner = unmasked(fn.base_dist)
        return fn if inner is fn.base_dist else inner.to_event(fn.reinterpreted_batch_ndims)
    return fn


def elementwise(distribution: Distribution) -> Distribution:
    """`distribution` with `to_event` undone, so that its independent elements are batch axes."""
    if isinstance(distribution, Independent):
        return elementwise(distribution.base_dist)
    if isinstance(distribution, ExpandedDistribution):
        inner = elementwise(distribution.base_dist)
        if inner is distribution.base_dist:
            return distribution
        undone = inner.batch_shape[len(inner.batch_shape) - _undone_dims(distribution) :]
        return inner.expand(distribution.batch_shape + undone)
    return distribution


def _undone_dims(distribution: Distribution) -> int:
    return distribution.event_dim - elementwise_family(distribution).event_dim


def elementwise_family(distribution: Distribution) -> Distribution:
    """The family that all elements share, stripped of every wrapper; its parameters broadcast."""
    while isinstance(
        distribution, (ExpandedDistribution, Independent, MaskedDistribution, WithStrategy)
    ):
        distribution = (
            distribution.base if isinstance(distribution, WithStrategy) else distribution.base_dist
        )
    return distribution


def is_normal(distribution: Distribution) -> bool:
    """Whether the elements are exactly normal (not a subclass that changes the density)."""
    return type(elementwise_family(distribution)) in (dist.Normal, Normal)


def is_bernoulli(distribution: Distribution) -> bool:
    """Whether the elements are Bernoulli, in either parameterisation."""
    return isinstance(elementwise_family(distribution), (dist.BernoulliLogits, dist.BernoulliProbs))
