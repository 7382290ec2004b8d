"""Strategies for sites with a small finite support: exact sums over the support."""

from __future__ import annotations

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from numpyro.distributions import Distribution

from .._estimator import (
    AbstractReplay,
    Continuation,
    Cost,
    elementwise_family,
    Site,
)


class Enum(AbstractReplay):
    """The strategy of `enum`."""

    label: ClassVar[str] = "enum"

    lanes: bool = eqx.field(static=True, default=False)

    def why_not(self, distribution: Distribution) -> str | None:
        return needs_finite_support(distribution)

    def combine(self, site: Site, key: jax.Array, rest: Continuation) -> Cost:
        if self.lanes:
            return local_expectation(site, rest, lanes=True)
        support = site.support()
        probs = jnp.exp(jax.vmap(site.log_prob)(support))
        return rest.surrogate(support).weighted(probs)


class Leg(AbstractReplay):
    """The strategy of `leg`."""

    label: ClassVar[str] = "leg"

    lanes: bool = eqx.field(static=True, default=False)

    def why_not(self, distribution: Distribution) -> str | None:
        return needs_finite_support(distribution)

    def combine(self, site: Site, key: jax.Array, rest: Continuation) -> Cost:
        return local_expectation(site, rest, self.lanes)


def local_expectation(site: Site, rest: Continuation, lanes: bool) -> Cost:
    """The cost at the draw plus the exact gradient of each element's expectation."""
    support = site.support()
    probs = jnp.exp(jax.vmap(site.log_prob)(support))
    costs, frames = rest.phantoms(support, lanes)
    costs = jnp.where(probs == 0, 0.0, costs)
    zero = probs - jax.lax.stop_gradient(probs)
    term = site.zero_term(jnp.sum(zero * costs, axis=0), frames)
    return rest.surrogate(site.value[None]).weighted(1.0) + Cost((term,))


def needs_finite_support(distribution: Distribution) -> str | None:
    """The reason why `distribution` cannot be enumerated, or None."""
    family = elementwise_family(distribution)
    if family.has_enumerate_support:
        return None
    kind = "discrete with infinite support" if family.is_discrete else "continuous"
    remedy = "vi.mvd or vi.reinforce" if family.is_discrete else "vi.reparam or vi.reinforce"
    return f"{type(family).__name__} is {kind} and cannot be enumerated. Use {remedy}"


__all__ = ["Enum", "Leg"]
