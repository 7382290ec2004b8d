"""Gaussian processes: exact, sparse and on grids, as NumPyro distributions."""

from ..distributions._likelihood import (
    AbstractLikelihood as AbstractLikelihood,
    expected_log_prob as expected_log_prob,
    Gaussian as Gaussian,
    log_predictive_prob as log_predictive_prob,
    PoissonExp as PoissonExp,
)
from ._collapsed import fitc as fitc, power_ep as power_ep, sgpr as sgpr
from ._condition import condition as condition
from ._data_units import in_units_of as in_units_of
from ._decoupled import DecoupledSVGP as DecoupledSVGP
from ._exact import ExactPosterior as ExactPosterior
from ._fourier import fourier_features as fourier_features, FourierFeatures as FourierFeatures
from ._grid_posterior import grid_posterior as grid_posterior, GridPosterior as GridPosterior
from ._heteroscedastic import (
    heteroscedastic_bound as heteroscedastic_bound,
    heteroscedastic_posterior as heteroscedastic_posterior,
    HeteroscedasticPosterior as HeteroscedasticPosterior,
)
from ._inducing import (
    greedy_points as greedy_points,
    GreedyPoints as GreedyPoints,
    kmeans_points as kmeans_points,
)
from ._inducing_features import (
    inducing_features as inducing_features,
    InducingFeatures as InducingFeatures,
)
from ._inputs import Grid as Grid
from ._kron_variational import (
    kron_vi as kron_vi,
    KronVariational as KronVariational,
    KronVariationalPosterior as KronVariationalPosterior,
    observed_cells as observed_cells,
)
from ._laplace import laplace as laplace
from ._laplace_posterior import LaplacePosterior as LaplacePosterior
from ._minimise import minimise as minimise, Minimum as Minimum
from ._multi_output import (
    at_output as at_output,
    icm as icm,
    lcm as lcm,
    output_noise as output_noise,
    stack_outputs as stack_outputs,
)
from ._natural_gradient import (
    NaturalNormal as NaturalNormal,
    svgp_adam as svgp_adam,
    svgp_natgrad as svgp_natgrad,
)
from ._pathwise import pathwise as pathwise, PathwiseSamples as PathwiseSamples
from ._posterior import AbstractPosterior as AbstractPosterior
from ._process import GP as GP
from ._sparse_posterior import (
    sparse_posterior as sparse_posterior,
    SparsePosterior as SparsePosterior,
)
from ._structure import covariance as covariance
from ._svgp import AbstractSVGP as AbstractSVGP, SVGP as SVGP, WhitenedNormal as WhitenedNormal
from ._time_inputs import Times as Times
from ._times import TimesPosterior as TimesPosterior
