"""Sparse Bayesian learning: relevance determination, structured sparsity and dictionaries."""

from ._kron_marginal import KroMarginal as KroMarginal
from ._kron_posterior import KroPosterior as KroPosterior
from ._kron_pursuit import (
    kron_orthogonal_matching_pursuit as kron_orthogonal_matching_pursuit,
    KroPursuit as KroPursuit,
    oracle_least_squares as oracle_least_squares,
)
from ._kron_sbl import kron_sbl as kron_sbl
from ._sparse_coding import (
    AbstractSparseCoding as AbstractSparseCoding,
    BSC as BSC,
    CodePosterior as CodePosterior,
    DSC as DSC,
    GSC as GSC,
    learn_dictionary as learn_dictionary,
    LearnedDictionary as LearnedDictionary,
    MCA as MCA,
    MMCA as MMCA,
    truncated_em as truncated_em,
    TruncatedEMInfo as TruncatedEMInfo,
    TruncatedEMState as TruncatedEMState,
    TSC as TSC,
)
from ._weights import (
    condition as condition,
    DataSpace as DataSpace,
    WeightPosterior as WeightPosterior,
    WeightSpace as WeightSpace,
)
