"""Sparse Bayesian learning: automatic relevance determination and its structured kin."""

from ._kron_marginal import KroMarginal as KroMarginal
from ._kron_posterior import KroPosterior as KroPosterior
from ._kron_pursuit import (
    kron_orthogonal_matching_pursuit as kron_orthogonal_matching_pursuit,
    KroPursuit as KroPursuit,
    oracle_least_squares as oracle_least_squares,
)
from ._kron_sbl import kron_sbl as kron_sbl
from ._weights import (
    condition as condition,
    DataSpace as DataSpace,
    WeightPosterior as WeightPosterior,
    WeightSpace as WeightSpace,
)
