"""Strategies for sites with a small finite support: exact sums over the support."""

from __future__ import annotations

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
    """Exact summation over the support: no variance from the site in value or gradient.

    The rest of the program runs once per value (all elements of a plate at once), so chained
    sites cost the product of their support sizes. Elements that no plate separates need
    `lanes=True`, which keeps the draw and takes the exact local expectation gradient of one
    element at a time (support size times number of elements of plain runs).

    Args:
        lanes: treat coupled elements one at a time.

    References:
        Lew, Huot, Staton and Mansinghka (2023), "ADEV", the `enum` estimator.
    """

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
    """Local expectation gradients: the value is sampled, its gradient summed over the support.

    Costs one surrogate run and as many plain runs as the support is large; chained sites add up
    instead of multiplying as with `Enum`.

    Args:
        lanes: treat coupled elements one at a time.

    References:
        Titsias and Lázaro-Gredilla (2015), "Local expectation gradients for black box
        variational inference".
    """

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
