"""Sparse Bayesian learning: relevance determination, structured sparsity and dictionaries."""

from ._fista import fista as fista, ProximalFit as ProximalFit
from ._kron_marginal import KroMarginal as KroMarginal
from ._kron_posterior import KroPosterior as KroPosterior
from ._kron_pursuit import (
    kron_orthogonal_matching_pursuit as kron_orthogonal_matching_pursuit,
    KroPursuit as KroPursuit,
    oracle_least_squares as oracle_least_squares,
)
from ._kron_sbl import kron_sbl as kron_sbl
from ._learned import SBLPosterior as SBLPosterior
from ._marginal import SBLMarginal as SBLMarginal
from ._omp import orthogonal_matching_pursuit as orthogonal_matching_pursuit, Pursuit as Pursuit
from ._priors import (
    ard_weights as ard_weights,
    horseshoe as horseshoe,
    regularized_horseshoe as regularized_horseshoe,
    Shrinkage as Shrinkage,
    shrinkage as shrinkage,
    spike_and_slab_weights as spike_and_slab_weights,
)
from ._products import (
    condition_products as condition_products,
    ProductsPosterior as ProductsPosterior,
)
from ._prox import (
    AbstractPenalty as AbstractPenalty,
    CEL0 as CEL0,
    L0 as L0,
    L1 as L1,
    Lq as Lq,
)
from ._sbl import sbl as sbl
from ._sparse_coding import (
    AbstractSparseCoding as AbstractSparseCoding,
    BSC as BSC,
    CodePosterior as CodePosterior,
    DSC as DSC,
    GSC as GSC,
    learn_dictionary as learn_dictionary,
    LearnedDictionary as LearnedDictionary,
    MCA as MCA,
    MMCA as MMCA,
    truncated_em as truncated_em,
    TruncatedEMInfo as TruncatedEMInfo,
    TruncatedEMState as TruncatedEMState,
    TSC as TSC,
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
