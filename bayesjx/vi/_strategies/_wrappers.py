"""Functions that put a gradient strategy on a distribution: `vi.enum(dist.Bernoulli(p))`."""

from __future__ import annotations

from typing import Any

from numpyro.distributions import Distribution

from .._estimator import (
    AbstractStrategy,
    check_strategy,
    WithStrategy,
)
from ._enumerate import (
    Enum,
    Leg,
)
from ._measure_valued import (
    MVD,
)
from ._multi_sample import (
    DisARM,
    Importance,
    RLOO,
)
from ._pathwise import (
    GumbelSoftmax,
    Reparam,
    StraightThrough,
)
from ._score import (
    Reinforce,
)


def with_strategy(d: Distribution, strategy: AbstractStrategy) -> WithStrategy:
    """`d` with any gradient strategy, your own included.

    Raises:
        TypeError: `d` is no NumPyro distribution, or `strategy` is not an instance of a strategy.
    """
    if not isinstance(d, Distribution):
        raise TypeError(f"expected a NumPyro distribution, got {type(d).__name__}")
    check_strategy("strategy", strategy)
    return WithStrategy(d.base if isinstance(d, WithStrategy) else d, strategy)


def reparam(d: Distribution) -> WithStrategy:
    """`d` with the pathwise gradient, the default where there is one. See `Reparam`."""
    return with_strategy(d, Reparam())


def reinforce(d: Distribution, baseline: Any = None) -> WithStrategy:
    """`d` with the score-function gradient and an optional baseline. See `Reinforce`."""
    return with_strategy(d, Reinforce(baseline))


def enum(d: Distribution, lanes: bool = False) -> WithStrategy:
    """`d` summed exactly over its finite support. See `Enum`."""
    return with_strategy(d, Enum(lanes))


def leg(d: Distribution, lanes: bool = False) -> WithStrategy:
    """`d` with local expectation gradients. See `Leg`."""
    return with_strategy(d, Leg(lanes))


def mvd(d: Distribution, lanes: bool = False) -> WithStrategy:
    """`d` with measure-valued derivatives. See `MVD`."""
    return with_strategy(d, MVD(lanes))


def rloo(d: Distribution, num_samples: int = 2) -> WithStrategy:
    """`d` with a leave-one-out score function over several draws. See `RLOO`."""
    return with_strategy(d, RLOO(num_samples))


def disarm(d: Distribution) -> WithStrategy:
    """A Bernoulli `d` with the antithetic DisARM gradient. See `DisARM`."""
    return with_strategy(d, DisARM())


def importance(d: Distribution, proposal: Distribution) -> WithStrategy:
    """`d` drawn from `proposal` and reweighted. See `Importance`."""
    return with_strategy(d, Importance(proposal))


def straight_through(d: Distribution) -> WithStrategy:
    """`d` with the biased straight-through gradient. See `StraightThrough`."""
    return with_strategy(d, StraightThrough())


def gumbel_softmax(d: Distribution, temperature: Any = 0.5, hard: bool = False) -> WithStrategy:
    """`d` with the biased Gumbel-softmax relaxation. See `GumbelSoftmax`."""
    return with_strategy(d, GumbelSoftmax(temperature, hard))
