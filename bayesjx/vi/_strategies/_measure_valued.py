"""Measure-valued derivatives: differences of the cost at coupled phantom draws."""

from __future__ import annotations

import math
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import random
from numpyro.distributions import Distribution

from .._estimator import (
    AbstractReplay,
    Continuation,
    Cost,
    elementwise_family,
    is_bernoulli,
    is_normal,
    Site,
    Term,
)


class MVD(AbstractReplay):
    """The strategy of `mvd`."""

    label: ClassVar[str] = "mvd"

    lanes: bool = eqx.field(static=True, default=False)

    def why_not(self, distribution: Distribution) -> str | None:
        if is_bernoulli(distribution) or is_normal(distribution) or _is_poisson(distribution):
            return None
        family = type(elementwise_family(distribution)).__name__
        return (
            f"measure-valued derivatives are known for Bernoulli, Poisson and Normal, not {family}."
            " Use vi.reinforce, or vi.leg for a finite support"
        )

    def combine(self, site: Site, key: jax.Array, rest: Continuation) -> Cost:
        branches = rest.surrogate(site.value[None])
        if is_normal(site.distribution):
            terms = self._normal(site, key, rest)
        else:
            neighbour = 1 - site.value if is_bernoulli(site.distribution) else site.value + 1
            costs, frames = rest.phantoms(neighbour[None], self.lanes)
            here = branches.local_elements(frames if self.lanes else None)
            slope = costs[0] - here[0]
            if is_bernoulli(site.distribution):
                slope = jnp.where(site.value == 0, slope, -slope)
            parameter = "probs" if is_bernoulli(site.distribution) else "rate"
            terms = (site.gradient_term(site.parameter(parameter), slope, frames),)
        return branches.weighted(1.0) + Cost(terms)

    def _normal(self, site: Site, key: jax.Array, rest: Continuation) -> tuple[Term, Term]:
        loc, scale = site.parameter("loc"), site.parameter("scale")
        keys = random.split(key, 4)
        draw = lambda f, k: f(k, site.shape, scale.dtype)  # noqa: E731
        weibull = jnp.sqrt(-2 * jnp.log1p(-draw(random.uniform, keys[0])))
        chi = jnp.sqrt(2 * random.gamma(keys[1], 1.5, site.shape, scale.dtype))
        maxwell = chi * draw(random.rademacher, keys[2])
        # Maxwell times an independent uniform is standard normal: the two phantoms are coupled.
        normal = maxwell * draw(random.uniform, keys[3])
        steps = jnp.stack([weibull, -weibull, maxwell, normal])
        costs, frames = rest.phantoms(jax.lax.stop_gradient(loc + scale * steps), self.lanes)
        in_loc = (costs[0] - costs[1]) / (scale * math.sqrt(2 * math.pi))
        in_scale = (costs[2] - costs[3]) / scale
        return (
            site.gradient_term(loc, in_loc, frames),
            site.gradient_term(scale, in_scale, frames),
        )


def _is_poisson(distribution: Distribution) -> bool:
    return isinstance(elementwise_family(distribution), dist.Poisson)


__all__ = ["MVD"]
