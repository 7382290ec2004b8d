"""Distributions that NumPyro lacks, as `numpyro.distributions.Distribution` subclasses."""

from ._one_hot import OneHotCategorical as OneHotCategorical
from ._repair import (
    BernoulliLogits as BernoulliLogits,
    Normal as Normal,
    repaired as repaired,
)
