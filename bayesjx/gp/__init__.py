"""Gaussian processes: exact, sparse and on grids, as NumPyro distributions."""

from ._collapsed import (
    fitc as fitc,
    power_ep as power_ep,
    sgpr as sgpr,
    sparse_posterior as sparse_posterior,
    SparsePosterior as SparsePosterior,
)
from ._condition import condition as condition
from ._data_units import in_units_of as in_units_of
from ._decoupled import DecoupledSVGP as DecoupledSVGP
from ._exact import ExactPosterior as ExactPosterior, TimesPosterior as TimesPosterior
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
    inducing_features as inducing_features,
    InducingFeatures as InducingFeatures,
    kmeans_points as kmeans_points,
)
from ._inputs import covariance as covariance, Grid as Grid, Times as Times
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
from ._posterior import AbstractGPPosterior as AbstractGPPosterior
from ._process import GP as GP
from ._svgp import AbstractSVGP as AbstractSVGP, SVGP as SVGP, WhitenedNormal as WhitenedNormal
