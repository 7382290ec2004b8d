"""Dictionaries with discrete and spike-and-slab codes, learnt by truncated EM."""

from ._em import (
    truncated_em as truncated_em,
    TruncatedEMInfo as TruncatedEMInfo,
    TruncatedEMState as TruncatedEMState,
)
from ._gsc import GSC as GSC
from ._learn import learn_dictionary as learn_dictionary, LearnedDictionary as LearnedDictionary
from ._linear import BSC as BSC, DSC as DSC, TSC as TSC
from ._maximal import MCA as MCA, MMCA as MMCA
from ._model import AbstractSparseCoding as AbstractSparseCoding, CodePosterior as CodePosterior
