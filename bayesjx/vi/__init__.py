"""Programmable variational inference over NumPyro programs.

Objectives are ordinary functions: `simulate` a guide, take the `log_density` of a model, and
return any combination of the two. `expectation` turns such a function into an estimator with
unbiased gradients, whatever mixture of gradient strategies its sites carry.
"""

from ._auto_discrete import AutoDiscrete as AutoDiscrete
from ._batch_and_match import (
    batch_and_match as batch_and_match,
    BatchMatchInfo as BatchMatchInfo,
    BatchMatchState as BatchMatchState,
)
from ._check_reparam import check_reparam as check_reparam, ReparamCheck as ReparamCheck
from ._collapse import (
    HierarchicalCollapse as HierarchicalCollapse,
    linear_cvae_collapse as linear_cvae_collapse,
    linear_hvae_collapse as linear_hvae_collapse,
    linear_vae_collapse as linear_vae_collapse,
    LinearCollapse as LinearCollapse,
)
from ._context import BiasedGradientWarning as BiasedGradientWarning
from ._continuation import Branches as Branches, Continuation as Continuation
from ._cost import Cost as Cost, Term as Term
from ._detached import draw as draw, frozen as frozen
from ._diagnostics import psis as psis
from ._enumerate import Enum as Enum, Leg as Leg
from ._expectation import (
    Expectation as Expectation,
    expectation as expectation,
    SiteInfo as SiteInfo,
)
from ._families import GaussianGuide as GaussianGuide
from ._filtering import fivo as fivo
from ._fit_posterior import fit_posterior as fit_posterior
from ._flows import FlowGuide as FlowGuide, FlowJAXDistribution as FlowJAXDistribution
from ._functional import Functional as Functional, functional as functional
from ._gradient_report import gradient_report as gradient_report
from ._gradient_table import GradientReport as GradientReport, GradientRow as GradientRow
from ._hierarchical import (
    diwhvi as diwhvi,
    hvi as hvi,
    iwhvi as iwhvi,
    marginal_guide as marginal_guide,
)
from ._inference import (
    AbstractEvidenceEstimator as AbstractEvidenceEstimator,
    Exact as Exact,
    exact as exact,
    SIR as SIR,
    sir as sir,
    Target as Target,
)
from ._latent_usage import (
    active_units as active_units,
    latent_usage as latent_usage,
    LatentUsage as LatentUsage,
)
from ._law import WithStrategy as WithStrategy
from ._marginal import (
    marginal as marginal,
    normalize as normalize,
    ProgramDistribution as ProgramDistribution,
)
from ._measure_valued import MVD as MVD
from ._multi_bounds import (
    chi_square as chi_square,
    iwelbo as iwelbo,
    renyi as renyi,
    thermodynamic as thermodynamic,
)
from ._multi_sample import DisARM as DisARM, Importance as Importance, RLOO as RLOO
from ._objectives import elbo as elbo
from ._optimise import (
    fit as fit,
    optimise as optimise,
    VIResult as VIResult,
)
from ._particles import log_mean_exp as log_mean_exp, particles as particles
from ._pathfinder import (
    PathfinderResult as PathfinderResult,
    PathfinderWarning as PathfinderWarning,
)
from ._pathfinder_guide import (
    init_from_pathfinder as init_from_pathfinder,
    PathfinderGuide as PathfinderGuide,
)
from ._pathwise import (
    GumbelSoftmax as GumbelSoftmax,
    Reparam as Reparam,
    StraightThrough as StraightThrough,
)
from ._posterior_fit import PosteriorFit as PosteriorFit
from ._programs import log_density as log_density, sample as sample, simulate as simulate
from ._prox import prox_scale as prox_scale, ProxScaleState as ProxScaleState
from ._score import EMA as EMA, LearnedBaseline as LearnedBaseline, Reinforce as Reinforce
from ._site import Site as Site
from ._smc import SMC as SMC, smc as smc
from ._strategy import (
    AbstractPathwise as AbstractPathwise,
    AbstractReplay as AbstractReplay,
    AbstractScore as AbstractScore,
    AbstractStrategy as AbstractStrategy,
)
from ._svi import SVILoss as SVILoss
from ._trace import Trace as Trace
from ._wake_sleep import (
    forward_kl as forward_kl,
    sleep as sleep,
    symmetric_kl as symmetric_kl,
    wake_guide as wake_guide,
    wake_model as wake_model,
    wake_posterior as wake_posterior,
)
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
