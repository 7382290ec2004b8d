"""Loops of optimisation of an objective."""

from ._optimise import (
    fit as fit,
    optimise as optimise,
    VIResult as VIResult,
)
from ._prox import (
    prox_scale as prox_scale,
    ProxScaleState as ProxScaleState,
)
from ._svi import (
    SVILoss as SVILoss,
)
