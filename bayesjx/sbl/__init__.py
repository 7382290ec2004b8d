"""Sparse Bayesian learning: automatic relevance determination and its structured kin."""

from ._fista import fista as fista, ProximalFit as ProximalFit
from ._priors import (
    ard_weights as ard_weights,
    horseshoe as horseshoe,
    regularized_horseshoe as regularized_horseshoe,
    Shrinkage as Shrinkage,
    shrinkage as shrinkage,
    spike_and_slab_weights as spike_and_slab_weights,
)
from ._prox import (
    AbstractPenalty as AbstractPenalty,
    CEL0 as CEL0,
    L0 as L0,
    L1 as L1,
    Lq as Lq,
)
from ._spike_slab import spike_and_slab as spike_and_slab, SpikeSlabPosterior as SpikeSlabPosterior
from ._spike_slab_gibbs import (
    spike_and_slab_gibbs as spike_and_slab_gibbs,
    SpikeSlabInfo as SpikeSlabInfo,
    SpikeSlabState as SpikeSlabState,
)
from ._weights import (
    condition as condition,
    DataSpace as DataSpace,
    WeightPosterior as WeightPosterior,
    WeightSpace as WeightSpace,
)
