"""Covariance functions (kernels) of Gaussian processes, and their algebra."""

from ._coregion import Coregion as Coregion
from ._kernel import (
    AbstractConstantVariance as AbstractConstantVariance,
    AbstractKernel as AbstractKernel,
    Constant as Constant,
    OnDims as OnDims,
    Product as Product,
    Scaled as Scaled,
    Sum as Sum,
    Transformed as Transformed,
)
from ._linear import ArcCosine as ArcCosine, Linear as Linear, Polynomial as Polynomial
from ._parameters import (
    check_coordinates as check_coordinates,
    real_points as real_points,
    valid_variance as valid_variance,
)
from ._spectral import (
    AbstractMixture as AbstractMixture,
    SpectralMixture as SpectralMixture,
    StudentMixture as StudentMixture,
)
from ._spectrum import (
    check_one_coordinate as check_one_coordinate,
    HARMONICS as HARMONICS,
    has_spectrum as has_spectrum,
    log_harmonics as log_harmonics,
    parameter_dtype as parameter_dtype,
    sample_spectrum as sample_spectrum,
)
from ._stationary import (
    AbstractStationary as AbstractStationary,
    Cosine as Cosine,
    Matern12 as Matern12,
    Matern32 as Matern32,
    Matern52 as Matern52,
    Matern72 as Matern72,
    Periodic as Periodic,
    RationalQuadratic as RationalQuadratic,
    RBF as RBF,
    White as White,
)
from ._temporal import (
    AbstractFromOrigin as AbstractFromOrigin,
    damped_waves as damped_waves,
    IntegratedWiener as IntegratedWiener,
    SHO as SHO,
    Wiener as Wiener,
)
