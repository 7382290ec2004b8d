"""Samplers of networks' posteriors: Markov chains of their weights."""

from ._chains import network_chains as network_chains, NetworkChains as NetworkChains
from ._draws import ChainDiagnostics as ChainDiagnostics
from ._langevin import cyclical_sgld as cyclical_sgld, sgld as sgld
from ._sghmc import ScaleAdaptation as ScaleAdaptation, sghmc as sghmc
from ._state import (
    chain_draws as chain_draws,
    ChainDraws as ChainDraws,
    ChainInfo as ChainInfo,
    ChainPosition as ChainPosition,
    ChainState as ChainState,
)
