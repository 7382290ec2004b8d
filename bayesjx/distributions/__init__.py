"""Distributions that NumPyro lacks, as `numpyro.distributions.Distribution` subclasses."""

from . import _kl as _kl  # registers divergences
from ._bar import BarDistribution as BarDistribution
from ._bar_borders import (
    bar_mixture as bar_mixture,
    equal_mass_borders as equal_mass_borders,
)
from ._collapsed_normal import CollapsedNormal as CollapsedNormal
from ._complex_normal import ComplexNormal as ComplexNormal
from ._kernel_mixture import kernel_mixture as kernel_mixture
from ._nested_normal import (
    NestedGroup as NestedGroup,
    NestedLayout as NestedLayout,
    NestedNormal as NestedNormal,
    noise_log_prob as noise_log_prob,
)
from ._one_hot import OneHotCategorical as OneHotCategorical
from ._repair import (
    BernoulliLogits as BernoulliLogits,
    Normal as Normal,
    repaired as repaired,
)
from ._structured_normal import (
    AbstractStructuredNormal as AbstractStructuredNormal,
    StructuredNormal as StructuredNormal,
)
from ._subspace_normal import SubspaceNormal as SubspaceNormal
from ._vector_normal import AbstractVectorNormal as AbstractVectorNormal
