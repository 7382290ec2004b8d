"""Networks whose weights are sparse while they are trained."""

from ._costs import Costs as Costs, training_costs as training_costs
from ._criteria import removal_score as removal_score
from ._layers import SparseConv as SparseConv, SparseLinear as SparseLinear
from ._mean_field import (
    sparse_mean_field as sparse_mean_field,
    SparseMeanField as SparseMeanField,
)
from ._reallocate import reallocate as reallocate
from ._sparsify import sparsify as sparsify
from ._ssvi import ssvi as ssvi, SSVIInfo as SSVIInfo, Subspace as Subspace
from ._weight import SparseWeight as SparseWeight
