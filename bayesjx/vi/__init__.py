"""Programmable variational inference over NumPyro programs.

Objectives are ordinary functions: `simulate` a guide, take the `log_density` of a model, and
return any combination of the two. `expectation` turns such a function into an estimator with
unbiased gradients, whatever mixture of gradient strategies its sites carry.
"""

from ._auto_discrete import AutoDiscrete as AutoDiscrete
from ._context import BiasedGradientWarning as BiasedGradientWarning
from ._continuation import Branches as Branches, Continuation as Continuation
from ._cost import Cost as Cost, Term as Term
from ._enumerate import Enum as Enum, Leg as Leg
from ._expectation import (
    Expectation as Expectation,
    expectation as expectation,
    SiteInfo as SiteInfo,
)
from ._inference import (
    AbstractEvidenceEstimator as AbstractEvidenceEstimator,
    Exact as Exact,
    exact as exact,
    SIR as SIR,
    sir as sir,
    Target as Target,
)
from ._law import WithStrategy as WithStrategy
from ._marginal import (
    marginal as marginal,
    normalize as normalize,
    ProgramDistribution as ProgramDistribution,
)
from ._measure_valued import MVD as MVD
from ._multi_sample import DisARM as DisARM, Importance as Importance, RLOO as RLOO
from ._objectives import elbo as elbo, iwelbo as iwelbo
from ._optimise import (
    fit as fit,
    optimise as optimise,
    OptimiseInfo as OptimiseInfo,
    OptimiseState as OptimiseState,
    VIResult as VIResult,
)
from ._particles import log_mean_exp as log_mean_exp, particles as particles
from ._pathwise import (
    GumbelSoftmax as GumbelSoftmax,
    Reparam as Reparam,
    StraightThrough as StraightThrough,
)
from ._programs import log_density as log_density, simulate as simulate
from ._score import EMA as EMA, LearnedBaseline as LearnedBaseline, Reinforce as Reinforce
from ._site import Site as Site
from ._strategy import (
    AbstractPathwise as AbstractPathwise,
    AbstractReplay as AbstractReplay,
    AbstractScore as AbstractScore,
    AbstractStrategy as AbstractStrategy,
)
from ._svi import SVILoss as SVILoss
from ._trace import Trace as Trace
from ._wrappers import (
    disarm as disarm,
    enum as enum,
    gumbel_softmax as gumbel_softmax,
    importance as importance,
    leg as leg,
    mvd as mvd,
    reinforce as reinforce,
    reparam as reparam,
    rloo as rloo,
    straight_through as straight_through,
    with_strategy as with_strategy,
)
