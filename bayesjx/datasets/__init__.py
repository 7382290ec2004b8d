"""Simulators, each a pure function of a key that returns arrays and the truth behind them."""

from ._bars import Bars as Bars, bars as bars
from ._irs_mimo import irs_mimo as irs_mimo, IRSMIMO as IRSMIMO
from ._kron_sparse import kron_sparse as kron_sparse, KronSparse as KronSparse
