"""The one place through which the library takes densities of NumPyro distributions.

NumPyro's derivatives are wrong, or not a number, at points that models start from or reach: a logit
of zero, equal concentrations, a probability of 0 or 1. `repaired` puts densities in their place
that are right there, to second order, and are NumPyro's everywhere else.
"""

from __future__ import annotations

import copy
from typing import Any

import numpyro.distributions as dist
from numpyro.distributions.distribution import Distribution

from . import _repair_continuous as continuous, _repair_discrete as discrete, _repair_tails as tails
from ._repair_continuous import Normal as Normal
from ._repair_discrete import BernoulliLogits as BernoulliLogits

_MENDED = {
    getattr(dist, name): getattr(module, name)
    for module in (continuous, discrete, tails)
    for name in module.MENDED
}


def repaired(d: Distribution) -> Distribution:
    """`d` with the densities of every NumPyro distribution in it mended, whatever wraps them.

    Everything but the density, and distribution functions that other densities are made of, stays;
    classes are subclasses of NumPyro's. A distribution that needs nothing is returned itself.
    """
    changed = {name: new for name, old in vars(d).items() if (new := _within(old)) is not old}
    mended_class = _MENDED.get(type(d))
    if not changed and mended_class is None:
        return d
    mended = copy.copy(d)
    vars(mended).update(changed)
    if mended_class is not None:
        mended.__class__ = mended_class
    return mended


def _within(value: Any) -> Any:
    """An attribute with the distributions in it mended; the very same if there are none."""
    if isinstance(value, Distribution):
        return repaired(value)
    if type(value) in (list, tuple):
        mended = [_within(x) for x in value]
        if any(new is not old for new, old in zip(mended, value, strict=True)):
            return type(value)(mended)
    return value
