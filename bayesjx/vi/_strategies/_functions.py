"""Gradient strategies as functions: `vi.enum(dist.Bernoulli(p))`, or `vi.enum()` by itself.

Each returns a distribution with the strategy, a `WithStrategy`, or without a distribution the
strategy, an `AbstractStrategy`.
"""

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


def _on(d: Distribution | None, strategy: AbstractStrategy) -> Any:
    """`d` with the strategy, or the strategy by itself."""
    return strategy if d is None else with_strategy(d, strategy)


def reparam(d: Distribution | None = None) -> Any:
    """The reparameterisation (pathwise) gradient, the default where a distribution has one.

    The draw is a differentiable function of noise and parameters; Gamma, Beta, Dirichlet and
    Student's t use JAX's implicit derivatives. Unbiased if the cost is differentiable almost
    everywhere and has no jumps: comparing a reparameterised value with a threshold silently
    loses the gradient of the jump.

    Args:
        d: the distribution of the site; without it, the strategy itself is returned, for
            `infer={"strategy": ...}` and arguments that take one.

    References:
        Kingma and Welling (2014), "Auto-encoding variational Bayes"; Figurnov, Mohamed and Mnih
        (2018), "Implicit reparameterization gradients".
    """
    return _on(d, Reparam())


def reinforce(d: Distribution | None = None, baseline: Any = None) -> Any:
    """The score-function (REINFORCE) gradient; valid for every distribution with a density.

    The score of each draw is multiplied with the costs that depend on it, element by element of
    the plates that they share, minus a baseline.

    Args:
        d: the distribution of the site; without it, the strategy itself is returned, for
            `infer={"strategy": ...}` and arguments that take one.
        baseline: None, a number or array over the site's plates that does not depend on the
            site's value, `vi.EMA()` or `vi.LearnedBaseline(prediction)`. The scores of all steps of
            a scan share the baseline of the step that runs first.

    References:
        Williams (1992), "Simple statistical gradient-following algorithms for connectionist
        reinforcement learning"; Schulman, Heess, Weber and Abbeel (2015), "Gradient estimation
        using stochastic computation graphs".
    """
    return _on(d, Reinforce(baseline))


def enum(d: Distribution | None = None, lanes: bool = False) -> Any:
    """Exact summation over the support: no variance from the site in value or gradient.

    The rest of the program runs once per value (all elements of a plate at once), so chained
    sites cost the product of their support sizes. Elements that no plate separates need
    `lanes=True`, which keeps the draw and takes the exact local expectation gradient of one
    element at a time (support size times number of elements of plain runs).

    Args:
        d: the distribution of the site; without it, the strategy itself is returned, for
            `infer={"strategy": ...}` and arguments that take one.
        lanes: treat coupled elements one at a time.

    References:
        Lew, Huot, Staton and Mansinghka (2023), "ADEV", the `enum` estimator.
    """
    return _on(d, Enum(lanes))


def leg(d: Distribution | None = None, lanes: bool = False) -> Any:
    """Local expectation gradients: the value is sampled, its gradient summed over the support.

    Costs one surrogate run and as many plain runs as the support is large; chained sites add up
    instead of multiplying as with `enum`.

    Args:
        d: the distribution of the site; without it, the strategy itself is returned, for
            `infer={"strategy": ...}` and arguments that take one.
        lanes: treat coupled elements one at a time.

    References:
        Titsias and Lázaro-Gredilla (2015), "Local expectation gradients for black box
        variational inference".
    """
    return _on(d, Leg(lanes))


def mvd(d: Distribution | None = None, lanes: bool = False) -> Any:
    """Measure-valued derivatives for Bernoulli, Poisson and Normal sites.

    The derivative of the distribution in each parameter is a difference of two distributions; the
    cost's gradient is the scaled difference of its values at draws from these. Needs no
    derivative of the cost, so it serves costs with jumps. One plain run for Bernoulli and
    Poisson, two per parameter for Normal.

    Args:
        d: the distribution of the site; without it, the strategy itself is returned, for
            `infer={"strategy": ...}` and arguments that take one.
        lanes: treat elements that no plate separates one at a time.

    References:
        Mohamed, Rosca, Figurnov and Mnih (2020), "Monte Carlo gradient estimation in machine
        learning", JMLR 21, section 6 and table 1.
    """
    return _on(d, MVD(lanes))


def rloo(d: Distribution | None = None, num_samples: int = 2) -> Any:
    """Score function with several draws, each one's baseline being the mean of the others.

    Args:
        d: the distribution of the site; without it, the strategy itself is returned, for
            `infer={"strategy": ...}` and arguments that take one.
        num_samples: number of draws, at least 2; the rest of the program runs once for each.

    References:
        Kool, van Hoof and Welling (2019), "Buy 4 REINFORCE samples, get a baseline for free!";
        Salimans and Knowles (2014).
    """
    return _on(d, RLOO(num_samples))


def disarm(d: Distribution | None = None) -> Any:
    """The DisARM gradient: an antithetic pair of Bernoulli vectors, the uniforms integrated out.

    Two runs of the rest of the program, whatever the number of elements; the elements may be
    coupled by the cost.

    Args:
        d: the distribution of the site; without it, the strategy itself is returned, for
            `infer={"strategy": ...}` and arguments that take one.

    References:
        Dong, Mnih and Tucker (2020), "DisARM: an antithetic gradient estimator for binary latent
        variables", equation 7; Yin, Ho, Yan, Qian and Zhou (2020), "Probabilistic best subset
        selection via gradient-based optimization" (U2G).
    """
    return _on(d, DisARM())


def importance(d: Distribution | None = None, proposal: Any = None) -> Any:
    """Draws from a proposal, with all dependent costs weighted by the density ratio.

    Useful where rare values of a site matter, or to explore while the distribution concentrates.
    The weights of coupled elements multiply, so their variance grows with the number of them.

    Args:
        d: the distribution of the site; without it, the strategy itself is returned, for
            `infer={"strategy": ...}` and arguments that take one.
        proposal: distribution whose support covers that of the site; its gradient is stopped.
            It has to be given.
    """
    return _on(d, Importance(proposal))


def straight_through(d: Distribution | None = None) -> Any:
    """Hard draws forward, the gradient of the probabilities backward. Biased.

    For Bernoulli and `bayesjx.distributions.OneHotCategorical` sites. Cheap, low variance, and
    the expected gradient is not that of the objective unless the cost is linear in the value.

    Args:
        d: the distribution of the site; without it, the strategy itself is returned, for
            `infer={"strategy": ...}` and arguments that take one.

    References:
        Bengio, Léonard and Courville (2013), "Estimating or propagating gradients through
        stochastic neurons for conditional computation".
    """
    return _on(d, StraightThrough())


def gumbel_softmax(
    d: Distribution | None = None, temperature: Any = 0.5, hard: bool = False
) -> Any:
    """A softened draw at a temperature (Concrete relaxation). Biased.

    For Bernoulli and `bayesjx.distributions.OneHotCategorical` sites; values are then real
    numbers in (0, 1), and model and guide score them with the discrete formulas.

    Args:
        d: the distribution of the site; without it, the strategy itself is returned, for
            `infer={"strategy": ...}` and arguments that take one.
        temperature: positive; the bias vanishes and the variance grows as it falls.
        hard: round the draw forward and keep the soft gradient backward.

    References:
        Jang, Gu and Poole (2017), "Categorical reparameterization with Gumbel-softmax";
        Maddison, Mnih and Teh (2017), "The Concrete distribution".
    """
    return _on(d, GumbelSoftmax(temperature, hard))
