"""Sparse Bayesian learning: automatic relevance determination and its structured kin."""

from ._learned import SBLPosterior as SBLPosterior
from ._marginal import SBLMarginal as SBLMarginal
from ._omp import orthogonal_matching_pursuit as orthogonal_matching_pursuit, Pursuit as Pursuit
from ._sbl import sbl as sbl
from ._weights import (
    condition as condition,
    DataSpace as DataSpace,
    WeightPosterior as WeightPosterior,
    WeightSpace as WeightSpace,
)
