"""Checks of inference results: arrays in, arrays out, whatever method made them."""

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
from ._psis import PSIS as PSIS, psis as psis
