"""Bayesian neural networks: any Equinox model, by naming the leaves that are random."""

from ._compact import compact as compact, Compacted as Compacted
from ._curvature import (
    empirical_fisher as empirical_fisher,
    fisher as fisher,
    gauss_newton as gauss_newton,
)
from ._distribution import AbstractNetworkDistribution as AbstractNetworkDistribution
from ._ensemble import (
    deep_ensemble as deep_ensemble,
    DeepEnsemble as DeepEnsemble,
    ensemble_map as ensemble_map,
)
from ._fine_tune import fine_tune as fine_tune
from ._functional import (
    AbstractDiscrepancy as AbstractDiscrepancy,
    AbstractNetworkPrior as AbstractNetworkPrior,
    flow_prior as flow_prior,
    FlowPrior as FlowPrior,
    functions_distance as functions_distance,
    hierarchical_prior as hierarchical_prior,
    HierarchicalPrior as HierarchicalPrior,
    match_prior as match_prior,
    MatchedPrior as MatchedPrior,
    MeasurementSet as MeasurementSet,
    MMD as MMD,
    normal_prior as normal_prior,
    NormalPrior as NormalPrior,
    PlanarFlow as PlanarFlow,
    prior_matching as prior_matching,
    SlicedWasserstein as SlicedWasserstein,
    Wasserstein as Wasserstein,
)
from ._kronecker import kronecker_factors as kronecker_factors
from ._laplace import laplace as laplace
from ._laplace_calibrate import (
    calibrate_laplace as calibrate_laplace,
    CalibratedLaplace as CalibratedLaplace,
)
from ._laplace_posterior import LaplacePosterior as LaplacePosterior
from ._laplace_tune import tune_laplace as tune_laplace, TunedLaplace as TunedLaplace
from ._leaves import Leaves as Leaves, random_leaves as random_leaves
from ._mcmc import (
    chain_draws as chain_draws,
    ChainDiagnostics as ChainDiagnostics,
    ChainDraws as ChainDraws,
    ChainInfo as ChainInfo,
    ChainPosition as ChainPosition,
    ChainState as ChainState,
    cyclical_sgld as cyclical_sgld,
    network_chains as network_chains,
    NetworkChains as NetworkChains,
    ScaleAdaptation as ScaleAdaptation,
    sghmc as sghmc,
    sgld as sgld,
)
from ._mean_field import (
    mean_field as mean_field,
    mean_field_vi as mean_field_vi,
    MeanField as MeanField,
)
from ._mixture import NetworkMixture as NetworkMixture
from ._network import log_joint as log_joint
from ._priors import FanIn as FanIn
from ._samples import NetworkSamples as NetworkSamples
from ._sites import from_sites as from_sites, random_network as random_network
from ._sparse import (
    Costs as Costs,
    reallocate as reallocate,
    removal_score as removal_score,
    sparse_mean_field as sparse_mean_field,
    SparseConv as SparseConv,
    SparseLinear as SparseLinear,
    SparseMeanField as SparseMeanField,
    SparseWeight as SparseWeight,
    sparsify as sparsify,
    ssvi as ssvi,
    SSVIInfo as SSVIInfo,
    Subspace as Subspace,
    training_costs as training_costs,
)
from ._spike import SpikeSlabPrecision as SpikeSlabPrecision
from ._support import MarkovSupport as MarkovSupport
from ._swag import SWAG as SWAG, swag as swag, swag_sgd as swag_sgd, SWAGState as SWAGState
from ._turbo_linear import turbo_vbi as turbo_vbi, TurboPosterior as TurboPosterior
from ._turbo_network import (
    pruned as pruned,
    turbo_mean_field_vi as turbo_mean_field_vi,
    TurboState as TurboState,
)
