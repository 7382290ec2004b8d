"""Structured matrices: products, solves, determinants and draws that never form the matrix."""

from .._core import failures_are_nan as failures_are_nan
from . import _queries as _queries
from ._block_diag import BlockDiag as BlockDiag
from ._block_sparse import block_product as block_product, BlockSparse as BlockSparse
from ._block_tridiag import (
    BlockBidiag as BlockBidiag,
    BlockTridiag as BlockTridiag,
    SelectedInverse as SelectedInverse,
)
from ._dense import Dense as Dense, Diag as Diag, ScaledIdentity as ScaledIdentity
from ._entry_sparse import entry_product as entry_product, EntrySparse as EntrySparse
from ._grouped_columns import (
    grouped_moments as grouped_moments,
    grouped_product as grouped_product,
    GroupedColumns as GroupedColumns,
)
from ._iterative import CGSolve as CGSolve
from ._khatri_rao import KhatriRao as KhatriRao
from ._kron import HStack as HStack, Kron as Kron, KronSum as KronSum, VStack as VStack
from ._kron_noise import KronPlusNoise as KronPlusNoise
from ._kron_pair import kron_pair as kron_pair
from ._lanczos import stochastic_logdet as stochastic_logdet, StochasticLogdet as StochasticLogdet
from ._low_rank import LowRank as LowRank, LowRankPlusDiag as LowRankPlusDiag
from ._masked import KronPlusDiag as KronPlusDiag, Masked as Masked
from ._operator import (
    AbstractOperator as AbstractOperator,
    InvQuadLogdet as InvQuadLogdet,
)
from ._primitive import kernel_mode as kernel_mode
from ._scaled import Scaled as Scaled
from ._sparse_operator import AbstractSparse as AbstractSparse
from ._subspace_linear import SubspaceLinear as SubspaceLinear
from ._tags import psd as psd, symmetric as symmetric
from ._toeplitz import Toeplitz as Toeplitz
