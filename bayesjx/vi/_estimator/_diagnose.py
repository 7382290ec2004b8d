"""Which site made an objective non-finite: what `Objective.diagnose` looks at."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions import constraints, Distribution
from numpyro.util import not_jax_tracer as is_concrete

from ..._core import path_name
from ._cost import (
    Term,
)
from ._distributions import (
    elementwise_family,
)
from ._masks import (
    visible,
)


class Scored(eqx.Module):
    """A sample statement as one run met it; inside particles with an axis for each of them.

    Attributes:
        distribution: the distribution, without its strategy.
        value: drawn, given or observed.
        log_prob: of the value.
        label: `"call/site"`.
        drawn: whether the value is a draw from `distribution` itself.
        observed: whether it is data.
        particles: number of leading axes that belong to particles.
    """

    distribution: Distribution
    value: Any
    log_prob: jax.Array
    label: str = eqx.field(static=True)
    drawn: bool = eqx.field(static=True)
    observed: bool = eqx.field(static=True)
    particles: int = eqx.field(static=True, default=0)

    @property
    def title(self) -> str:
        """Name and family."""
        return (
            f"site {_name(self.label)!r} ({type(elementwise_family(self.distribution)).__name__})"
        )

    def is_concrete(self) -> bool:
        """Whether there are numbers to look at."""
        return all(
            is_concrete(x) for x in jax.tree.leaves((self.distribution, self.value, self.log_prob))
        )

    def problem(self) -> str | None:
        """What is not finite or not valid, in the order in which one leads to the other."""
        family = elementwise_family(self.distribution)
        for field, leaf in _parameters(family).items():
            if problem := _not_finite(leaf) or _invalid(family, field, leaf):
                return f"{self.title}: its parameter {field!r} has {problem}"
        if self.drawn and (problem := _not_finite(self.value)):
            return f"{self.title}: its draw has {problem}"
        if problem := _not_finite(self.log_prob):
            outside = self.outside()
            return outside or f"{self.title}: its log density has {problem}"
        return None

    def outside(self) -> str | None:
        """Whether values that were given or observed lie outside the support."""
        if self.drawn:
            return None
        check: Callable[..., Any] = _outside
        for _ in range(self.particles):
            check = jax.vmap(check)
        try:
            bad = np.asarray(check(self.distribution, self.value))
        except NotImplementedError:
            return None
        if not bad.any():
            return None
        value = np.asarray(self.value)
        example = f", {value[bad].flat[0]:.6g} for one" if value.shape == bad.shape else ""
        remedy = (
            "check the data and the distribution's parameters"
            if self.observed
            else "draw it in the guide from a distribution with that support"
        )
        return (
            f"{self.title}: its log density is -inf, since {bad.sum()} of {bad.size} values lie "
            f"outside its support ({_describe(self.distribution)}){example}; {remedy}"
        )


def gradient_problem(
    terms_of: Callable[[Any], Iterable[Term]], params: Any, name: str
) -> str | None:
    """The first term with a gradient that is not finite, and the parameter where it is not.

    Args:
        terms_of: from parameters to the terms of one run.
        params: pytree; its floating-point arrays are looked at.
        name: of the parameters, for the sentence.
    """
    trained, static = eqx.partition(params, eqx.is_inexact_array)
    leaves = jax.tree_util.tree_leaves_with_path(trained)
    if not leaves:
        return None
    for i, label in enumerate([term.label for term in terms_of(params)]):

        def value(trained: Any, i: int = i) -> jax.Array:
            return jnp.sum(tuple(terms_of(eqx.combine(trained, static)))[i].value)

        # One at a time: a cotangent of zero is NaN where it meets an infinite slope.
        gradient = jax.tree.leaves(jax.grad(value)(trained))
        for (path, _), leaf in zip(leaves, gradient, strict=True):
            if problem := _not_finite(leaf):
                return (
                    f"site {_name(label)!r}: the gradient of its log density in "
                    f"{path_name(path, name)} has {problem}"
                )
    return None


def _name(label: str) -> str:
    """The site of a label, without the numbers of the calls around it."""
    return re.sub(r"^(\d+/)+", "", label)


def _outside(distribution: Any, value: Any) -> jax.Array:
    family = elementwise_family(distribution)
    if family.is_discrete and jnp.issubdtype(jnp.result_type(value), jnp.floating):
        return jnp.zeros((), bool)  # relaxed
    support: Any = family.support
    return ~support(value) & visible(distribution)


def _describe(distribution: Any) -> str:
    support = elementwise_family(distribution).support
    while isinstance(support, constraints.independent):
        support = support.base_constraint
    bounds = [getattr(support, f"{side}_bound", None) for side in ("lower", "upper")]
    shown = [
        f"{side} {float(np.asarray(bound).flat[0]):g}"
        for side, bound in zip(("above", "below"), bounds, strict=True)
        if bound is not None
    ]
    return " and ".join(shown) or type(support).__name__.strip("_").lower()


def _parameters(family: Any) -> dict[str, Any]:
    return {
        name: value
        for name, value in vars(family).items()
        if isinstance(value, (jax.Array, np.ndarray))
    }


def _not_finite(value: Any) -> str | None:
    value = np.asarray(value)
    if not np.issubdtype(value.dtype, np.inexact) or np.isfinite(value).all():
        return None
    bad = np.argwhere(~np.isfinite(value))
    index = tuple(int(i) for i in bad[0])
    where = f" at index {index}" if index else ""
    return f"{len(bad)} non-finite of {value.size} values, the first is {value[index]}{where}"


def _invalid(family: Any, field: str, value: Any) -> str | None:
    constraint = family.arg_constraints.get(field)
    if constraint is None or constraints.is_dependent(constraint):
        return None
    valid = np.asarray(constraint(value))
    if valid.all():
        return None
    value = np.asarray(value)
    example = f", {value[~valid].flat[0]} for one" if valid.shape == value.shape else ""
    return f"values that violate its constraint {constraint}{example}"
