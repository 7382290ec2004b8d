"""Linear operators with structure: products, solves, log-determinants and draws."""

from .._core import failures_are_nan as failures_are_nan
from . import _queries as _queries, _rules as _rules  # register the rules
from ._block_diag import BlockDiag as BlockDiag
from ._block_sparse import block_product as block_product, BlockSparse as BlockSparse
from ._block_tridiag import (
    BlockBidiag as BlockBidiag,
    BlockTridiag as BlockTridiag,
    SelectedInverse as SelectedInverse,
)
from ._categorical import CategoricalCovariance as CategoricalCovariance
from ._dense import Dense as Dense, residual_covariance as residual_covariance
from ._diagonal import Diag as Diag, ScaledIdentity as ScaledIdentity
from ._entry_sparse import entry_product as entry_product, EntrySparse as EntrySparse
from ._factors import symmetric_solve as symmetric_solve
from ._gauss_newton import (
    DiagEstimate as DiagEstimate,
    gauss_newton as gauss_newton,
    GaussNewton as GaussNewton,
)
from ._grouped_columns import (
    grouped_moments as grouped_moments,
    grouped_product as grouped_product,
    GroupedColumns as GroupedColumns,
)
from ._iterative import (
    cg_solve as cg_solve,
    CGSolve as CGSolve,
    converged_value as converged_value,
    Inverse as Inverse,
    scatter_rows as scatter_rows,
    Submatrix as Submatrix,
)
from ._jacobian import Jacobian as Jacobian
from ._khatri_rao import (
    explained_variance as explained_variance,
    KhatriRao as KhatriRao,
    map_rows as map_rows,
)
from ._kron import (
    AbstractKron as AbstractKron,
    contract_grid as contract_grid,
    grid_gram as grid_gram,
    Kron as Kron,
    kron_mm as kron_mm,
    outer_grid as outer_grid,
)
from ._kron_diag import KronPlusDiag as KronPlusDiag
from ._kron_noise import KronPlusNoise as KronPlusNoise
from ._kron_pair import kron_pair as kron_pair
from ._kron_sum import KronSum as KronSum
from ._lanczos import stochastic_logdet as stochastic_logdet, StochasticLogdet as StochasticLogdet
from ._low_rank import LowRank as LowRank, LowRankPlusDiag as LowRankPlusDiag
from ._masked import Masked as Masked
from ._operator import (
    AbstractOperator as AbstractOperator,
    InvQuadLogdet as InvQuadLogdet,
)
from ._primitive import kernel_mode as kernel_mode
from ._reordered import Reordered as Reordered
from ._scaled import Scaled as Scaled
from ._sparse_operator import AbstractSparse as AbstractSparse
from ._stacks import HStack as HStack, VStack as VStack
from ._subspace_linear import SubspaceLinear as SubspaceLinear
from ._tags import psd as psd, symmetric as symmetric
from ._toeplitz import Toeplitz as Toeplitz
from ._weight_roots import (
    times_root as times_root,
    weight_roots as weight_roots,
)
