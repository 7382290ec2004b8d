"""Strategies that compare several joint draws of a site: valid for coupled elements too."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from numpyro.distributions import Distribution

from ..._core import whole_number
from .._estimator import (
    AbstractReplay,
    Branches,
    Continuation,
    Cost,
    draw,
    elementwise_family,
    Frames,
    is_bernoulli,
    Site,
    Term,
)


class RLOO(AbstractReplay):
    """The strategy of `rloo`."""

    label: ClassVar[str] = "rloo"

    num_samples: int = eqx.field(static=True, default=2)

    def __check_init__(self):
        whole_number("num_samples", self.num_samples, least=2)

    def why_not(self, distribution: Distribution) -> str | None:
        return None

    def combine(self, site: Site, key: jax.Array, rest: Continuation) -> Cost:
        k = self.num_samples
        more = jax.vmap(site.draw)(random.split(key, k - 1))
        values = jnp.concatenate([site.value[None], more])
        branches = rest.surrogate(values)
        scores = jax.vmap(site.log_prob)(values)

        def terms(frames: Frames, costs: jax.Array) -> Term:
            advantage = (costs - jnp.mean(costs, axis=0)) / (k - 1)
            score = jax.vmap(lambda s: site.to_frames(s, frames))(scores)
            zero = score - jax.lax.stop_gradient(score)
            value = jnp.sum(_align(zero, advantage) * advantage, axis=0)
            return Term(value, frames=frames, label=f"{site.address}:gradient")

        return branches.weighted(1 / k) + Cost(tuple(terms(*g) for g in branches.local().items()))


class DisARM(AbstractReplay):
    """The strategy of `disarm`."""

    label: ClassVar[str] = "disarm"

    def why_not(self, distribution: Distribution) -> str | None:
        if is_bernoulli(distribution):
            return None
        family = type(elementwise_family(distribution)).__name__
        return f"DisARM is for Bernoulli sites, not {family}. Use vi.rloo or vi.reinforce"

    def combine(self, site: Site, key: jax.Array, rest: Continuation) -> Cost:
        logits = site.parameter("logits")
        uniform = random.uniform(key, site.shape, logits.dtype)
        probs = jax.nn.sigmoid(jax.lax.stop_gradient(logits))
        pair = jnp.stack([uniform < probs, 1 - uniform < probs])
        branches = rest.surrogate(pair.astype(site.value.dtype))
        first, second = pair.astype(logits.dtype)
        differs = jnp.where(second == 1, -1.0, 1.0) * (first != second)
        weight = 0.5 * differs * jax.nn.sigmoid(jnp.abs(logits))

        def term(frames: Frames, costs: jax.Array) -> Term:
            gap = site.from_plates(costs[0] - costs[1])
            return site.gradient_term(logits, weight * gap, frames)

        return branches.weighted(0.5) + Cost(tuple(term(*g) for g in branches.local().items()))


class Importance(AbstractReplay):
    """The strategy of `importance`."""

    label: ClassVar[str] = "importance"

    proposal: Distribution

    def __check_init__(self):
        if not isinstance(self.proposal, Distribution):
            raise TypeError(
                f"proposal must be a NumPyro distribution, got {type(self.proposal).__name__}"
            )

    def why_not(self, distribution: Distribution) -> str | None:
        if self.proposal.event_shape == distribution.event_shape:
            batch, given = distribution.batch_shape, self.proposal.batch_shape
            if given in ((), batch) or _broadcasts(given, batch):
                return None
            return (
                f"the proposal has batch shape {given}, the site {batch}. Use a proposal of the "
                "site's shape"
            )
        return (
            f"the proposal has event shape {self.proposal.event_shape}, the site "
            f"{distribution.event_shape}. Use a proposal of the site's shape"
        )

    def combine(self, site: Site, key: jax.Array, rest: Continuation) -> Cost:
        def propose(
            distribution: Distribution, proposal: Distribution, key: jax.Array
        ) -> jax.Array:
            value = draw(_expanded(proposal, distribution), key)[0]
            return jax.lax.stop_gradient(value).astype(site.stacked_value.dtype)

        def ratio(
            distribution: Distribution, proposal: Distribution, value: jax.Array
        ) -> jax.Array:
            log_q = jnp.asarray(_expanded(proposal, distribution).log_prob(value))
            log_p = jnp.asarray(distribution.log_prob(value))
            return log_p - jax.lax.stop_gradient(log_q)

        value = site.apply(propose, self.proposal, site.keys(key))
        log_ratio = site.apply(ratio, self.proposal, site.unpad(value))
        return _times_ratio(site, rest.surrogate(value[None]), log_ratio)


def _broadcasts(shape: tuple[int, ...], to: tuple[int, ...]) -> bool:
    try:
        return jnp.broadcast_shapes(shape, to) == to
    except ValueError:
        return False


def _expanded(proposal: Distribution, distribution: Distribution) -> Distribution:
    same = proposal.batch_shape == distribution.batch_shape
    return proposal if same else proposal.expand(distribution.batch_shape)


def _times_ratio(site: Site, branches: Branches, log_ratio: jax.Array) -> Cost:
    padded = log_ratio.reshape(log_ratio.shape + (1,) * site.event_axes)
    local = site.to_plates(padded)
    separated = all(
        site.frames <= term.frames
        for term, depends in zip(branches.cost.terms, branches.dependent, strict=True)
        if depends
    )
    weights = jnp.exp(local if separated else jnp.sum(local))
    terms = [
        dataclasses.replace(
            term, value=term.value[0] * weights if depends else term.value[0], signals={}
        )
        for term, depends in zip(branches.cost.terms, branches.dependent, strict=True)
    ]
    return Cost(tuple(terms), {k: v[0] for k, v in branches.cost.records.items()})


def _align(values: jax.Array, to: jax.Array) -> jax.Array:
    """Inserts axes after the leading one so that `values` broadcasts with `to`."""
    missing = to.ndim - values.ndim
    return values.reshape(values.shape[:1] + (1,) * missing + values.shape[1:])


__all__ = ["DisARM", "Importance", "RLOO"]
