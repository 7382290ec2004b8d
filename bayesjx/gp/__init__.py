"""Gaussian processes: exact, sparse and on grids, as NumPyro distributions."""

from ._exact import ExactPosterior as ExactPosterior
from ._inducing_features import (
    inducing_features as inducing_features,
    InducingFeatures as InducingFeatures,
)
from ._inputs import Grid as Grid
from ._minimise import minimise as minimise, Minimum as Minimum
from ._posterior import AbstractPosterior as AbstractPosterior
from ._process import GP as GP
from ._structure import covariance as covariance
