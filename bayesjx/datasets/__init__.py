"""Simulators and small data sets, each a pure function of a key that returns arrays."""

from ._bars import Bars as Bars, bars as bars
from ._images import digits as digits, Images as Images, mnist as mnist
from ._irs_mimo import irs_mimo as irs_mimo, IRSMIMO as IRSMIMO
from ._kron_sparse import kron_sparse as kron_sparse, KronSparse as KronSparse
