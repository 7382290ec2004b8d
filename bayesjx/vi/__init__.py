"""Programmable variational inference over NumPyro programs.

Objectives are ordinary functions: `simulate` a guide, take the `log_density` of a model, and
return any combination of the two. `expectation` turns such a function into an estimator with
unbiased gradients, whatever mixture of gradient strategies its sites carry.
"""

from ._diagnostics import (
    active_units as active_units,
    check_reparam as check_reparam,
    gradient_report as gradient_report,
    GradientReport as GradientReport,
    GradientRow as GradientRow,
    HierarchicalCollapse as HierarchicalCollapse,
    latent_usage as latent_usage,
    LatentUsage as LatentUsage,
    linear_cvae_collapse as linear_cvae_collapse,
    linear_hvae_collapse as linear_hvae_collapse,
    linear_vae_collapse as linear_vae_collapse,
    LinearCollapse as LinearCollapse,
    psis as psis,
    ReparamCheck as ReparamCheck,
)
from ._estimator import (
    AbstractPathwise as AbstractPathwise,
    AbstractReplay as AbstractReplay,
    AbstractScore as AbstractScore,
    AbstractStrategy as AbstractStrategy,
    BiasedGradientWarning as BiasedGradientWarning,
    Branches as Branches,
    Continuation as Continuation,
    Cost as Cost,
    expectation as expectation,
    log_mean_exp as log_mean_exp,
    Objective as Objective,
    particles as particles,
    Site as Site,
    SiteInfo as SiteInfo,
    Term as Term,
    WithStrategy as WithStrategy,
)
from ._fit import (
    fit as fit,
    optimise as optimise,
    prox_scale as prox_scale,
    ProxScaleState as ProxScaleState,
    SVILoss as SVILoss,
    VIResult as VIResult,
)
from ._guides import (
    AutoDiscrete as AutoDiscrete,
    FlowGuide as FlowGuide,
    FlowJAXDistribution as FlowJAXDistribution,
    GaussianGuide as GaussianGuide,
    init_from_pathfinder as init_from_pathfinder,
    PathfinderGuide as PathfinderGuide,
    PathfinderResult as PathfinderResult,
    PathfinderWarning as PathfinderWarning,
)
from ._marginals import (
    AbstractEvidenceEstimator as AbstractEvidenceEstimator,
    exact as exact,
    marginal as marginal,
    normalize as normalize,
    ProgramDistribution as ProgramDistribution,
    sir as sir,
    smc as smc,
    Target as Target,
)
from ._objectives import (
    chi_square as chi_square,
    diwhvi as diwhvi,
    elbo as elbo,
    fivo as fivo,
    forward_kl as forward_kl,
    hvi as hvi,
    iwelbo as iwelbo,
    iwhvi as iwhvi,
    marginal_guide as marginal_guide,
    renyi as renyi,
    sleep as sleep,
    symmetric_kl as symmetric_kl,
    thermodynamic as thermodynamic,
    wake_guide as wake_guide,
    wake_model as wake_model,
    wake_posterior as wake_posterior,
)
from ._posterior import (
    batch_and_match as batch_and_match,
    BatchMatchInfo as BatchMatchInfo,
    BatchMatchState as BatchMatchState,
    fit_posterior as fit_posterior,
    PosteriorFit as PosteriorFit,
)
from ._programs import (
    draw as draw,
    frozen as frozen,
    functional as functional,
    FunctionalPrograms as FunctionalPrograms,
    log_density as log_density,
    sample as sample,
    simulate as simulate,
    Trace as Trace,
)
from ._strategies import (
    disarm as disarm,
    EMA as EMA,
    enum as enum,
    gumbel_softmax as gumbel_softmax,
    importance as importance,
    LearnedBaseline as LearnedBaseline,
    leg as leg,
    mvd as mvd,
    reinforce as reinforce,
    reparam as reparam,
    rloo as rloo,
    straight_through as straight_through,
    with_strategy as with_strategy,
)
