"""Densities of programs with their auxiliary variables summed out, and inference for it."""

from ._inference import (
    AbstractEvidenceEstimator as AbstractEvidenceEstimator,
    exact as exact,
    sir as sir,
    Target as Target,
)
from ._marginal import (
    exact_densities as exact_densities,
    marginal as marginal,
    normalize as normalize,
    ProgramDistribution as ProgramDistribution,
)
from ._smc import (
    smc as smc,
)
