"""Amortised posteriors: networks that were taught the predictions and posteriors of a prior."""

from ._distribution_transformer import DistributionTransformer as DistributionTransformer
from ._gaussian_mixture import (
    condition_mixture as condition_mixture,
    GaussianMixture as GaussianMixture,
    propagate_mixture as propagate_mixture,
)
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
from ._saving import (
    about_network as about_network,
    load_network as load_network,
    NetworkError as NetworkError,
    pretrained as pretrained,
    pretrained_names as pretrained_names,
    save_network as save_network,
)
from ._table_network import TablePFN as TablePFN
from ._table_priors import TablePrior as TablePrior
from ._tasks import from_numpyro as from_numpyro, NumPyroPrior as NumPyroPrior, Task as Task
from ._transformer_training import transformer_training as transformer_training
