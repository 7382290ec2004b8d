"""Sparse Bayesian learning: sparse weights, structured sparsity, and dictionaries."""

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
