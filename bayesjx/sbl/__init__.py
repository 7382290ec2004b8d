"""Sparse Bayesian learning: automatic relevance determination and its structured kin."""

from ._weights import (
    condition as condition,
    DataSpace as DataSpace,
    WeightPosterior as WeightPosterior,
    WeightSpace as WeightSpace,
)
