"""Priors of a network's weights by what they say of its function."""

from ._discrepancies import (
    AbstractDiscrepancy as AbstractDiscrepancy,
    functions_distance as functions_distance,
    MMD as MMD,
    SlicedWasserstein as SlicedWasserstein,
    Wasserstein as Wasserstein,
)
from ._families import (
    hierarchical_prior as hierarchical_prior,
    HierarchicalPrior as HierarchicalPrior,
    normal_prior as normal_prior,
    NormalPrior as NormalPrior,
)
from ._flow import flow_prior as flow_prior, FlowPrior as FlowPrior, PlanarFlow as PlanarFlow
from ._match import (
    match_prior as match_prior,
    MatchedPrior as MatchedPrior,
    prior_matching as prior_matching,
)
from ._prior import AbstractNetworkPrior as AbstractNetworkPrior
from ._target import MeasurementSet as MeasurementSet
