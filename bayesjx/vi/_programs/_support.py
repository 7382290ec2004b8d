"""Supports of a program's sites, and whether a proposal's support covers them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import constraints
from numpyro.primitives import Messenger
from numpyro.util import not_jax_tracer as is_concrete

from .._estimator import (
    elementwise_family,
)

Constraint = constraints.Constraint


class Supports:
    """A program that remembers the supports of its latent sites.

    Attributes:
        by_site: support of each site, after a run.
    """

    def __init__(self, program: Callable[..., Any]):
        self._program = program
        self.by_site: dict[str, Constraint] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _Watch(self.by_site):
            return self._program(*args, **kwargs)


class _Watch(Messenger):
    def __init__(self, by_site: dict[str, Constraint]):
        super().__init__()
        self.by_site = by_site

    def process_message(self, msg: Any) -> None:
        if msg["type"] != "sample" or msg["is_observed"]:
            return
        if not isinstance(elementwise_family(msg["fn"]), dist.Delta):
            try:
                self.by_site[msg["name"]] = msg["fn"].support
            except NotImplementedError:
                pass


def refuse_narrower(proposed: Mapping[str, Constraint], target: Mapping[str, Constraint]) -> None:
    """Raises `ValueError` if a proposal is seen to miss part of the support of a site."""
    for name in target.keys() & proposed.keys():
        ours, theirs = proposed[name], target[name]
        if _is_narrower(ours, theirs):
            raise ValueError(
                f"the proposal's support at site {name!r}, {_show(ours)}, does not cover that of "
                f"the program, {_show(theirs)}; its weights would be infinite. Propose {name!r} "
                "from a distribution over the same values"
            )


def _is_narrower(ours: Constraint, theirs: Constraint) -> bool:
    if ours.is_discrete != theirs.is_discrete:
        return True
    own, wanted = _bounds(ours), _bounds(theirs)
    if own is None or wanted is None:
        return False
    slack = [1e-6 * np.where(np.isfinite(bound), np.abs(bound), 0) for bound in wanted]
    return bool(np.any(own[0] > wanted[0] + slack[0]) or np.any(own[1] < wanted[1] - slack[1]))


def _bounds(constraint: Constraint) -> tuple[np.ndarray, np.ndarray] | None:
    """Lower and upper bounds of the elements; None where unknown or not elementwise."""
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    low = getattr(constraint, "lower_bound", None)
    high = getattr(constraint, "upper_bound", None)
    if constraint is constraints.boolean:
        low, high = 0.0, 1.0
    elif constraint is not constraints.real and low is None and high is None:
        return None
    low = -math.inf if low is None else low
    high = math.inf if high is None else high
    if not (is_concrete(low) and is_concrete(high)):
        return None
    return np.asarray(low, float), np.asarray(high, float)


def _show(constraint: Constraint) -> str:
    bounds = _bounds(constraint)
    if bounds is None:
        return repr(constraint)
    kind = "integers" if constraint.is_discrete else "reals"
    return f"the {kind} from {bounds[0].min():g} to {bounds[1].max():g}"
