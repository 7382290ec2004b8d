"""Checks of inference results: arrays in, arrays out, whatever method made them."""

from ._bands import ecdf_band as ecdf_band, ECDFBand as ECDFBand
from ._classification import (
    auroc as auroc,
    brier_score as brier_score,
    calibration_error as calibration_error,
    log_score as log_score,
    mutual_information as mutual_information,
    predictive_entropy as predictive_entropy,
    Reliability as Reliability,
    reliability as reliability,
)
from ._coverage import Coverage as Coverage, coverage as coverage, pit as pit
from ._model_problem import model_problem as model_problem, ModelProblem as ModelProblem
from ._psis import PSIS as PSIS, psis as psis
from ._report import (
    calibration_report as calibration_report,
    CalibrationReport as CalibrationReport,
)
from ._sbc import SBC as SBC, sbc as sbc
from ._scores import (
    compare_scores as compare_scores,
    crps as crps,
    energy_score as energy_score,
    ScoreDifference as ScoreDifference,
    variogram_score as variogram_score,
)
from ._simulate import simulate as simulate, Simulation as Simulation
from ._tarp import (
    ExpectedCoverage as ExpectedCoverage,
    highest_density_coverage as highest_density_coverage,
    tarp as tarp,
)
from ._two_samples import c2st as c2st, TwoSampleTest as TwoSampleTest
from ._uniformity import Uniformity as Uniformity, uniformity as uniformity
