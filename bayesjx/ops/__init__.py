"""Structured matrices: products, solves, determinants and draws that never form the matrix."""

from ._dense import Dense as Dense, Diag as Diag, ScaledIdentity as ScaledIdentity
from ._kron import HStack as HStack, Kron as Kron, KronSum as KronSum
from ._kron_noise import KronPlusNoise as KronPlusNoise
from ._masked import KronPlusDiag as KronPlusDiag, Masked as Masked
from ._operator import (
    AbstractOperator as AbstractOperator,
    InvQuadLogdet as InvQuadLogdet,
    psd as psd,
    symmetric as symmetric,
)
