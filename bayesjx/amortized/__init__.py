"""Amortised posteriors: networks that were taught the predictions and posteriors of a prior."""

from ._heads import (
    AbstractHead as AbstractHead,
    BarHead as BarHead,
    CategoricalHead as CategoricalHead,
    NormalHead as NormalHead,
)
from ._network import AbstractPFN as AbstractPFN
from ._pfn import PFN as PFN
from ._pfn_posterior import PFNPosterior as PFNPosterior
from ._pfn_training import pfn_training as pfn_training
from ._table_priors import TablePrior as TablePrior
from ._tasks import from_numpyro as from_numpyro, NumPyroPrior as NumPyroPrior, Task as Task
