"""Estimators with a planted mistake, to show that the comparison finds mistakes.

Some are strategies of a user's own, others replace a piece of the library while they are measured.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, ExitStack, nullcontext
from typing import Any, NamedTuple
from unittest.mock import patch

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from bayesjx import vi
from bayesjx.vi._estimator import _cost, _surrogate
from bayesjx.vi._estimator._context import current
from bayesjx.vi._estimator._site import Site
from bayesjx.vi._programs import _handlers

from . import _chain, _lanes, _loops, _particles, _plates, _scalars
from ._cell import Cell, STRATEGIES


class Broken(NamedTuple):
    """A cell whose estimator is wrong while `plant()` is active."""

    mistake: str
    cell: Cell
    plant: Callable[[], AbstractContextManager[Any]] = nullcontext


class _Scaled(vi.AbstractScore):
    """The score multiplied by the plate's subsampling scale, as the cost already is."""

    factor: float = eqx.field(static=True)

    def why_not(self, distribution: dist.Distribution) -> str | None:
        return None

    def signal(self, local: Any, frames: Any, state: Any) -> Any:
        return {plates: self.factor * value for plates, value in local.items()}, None, None


class _Altered(vi.AbstractReplay):
    """Another strategy with its own gradient term multiplied by a factor."""

    strategy: vi.AbstractReplay
    factor: float = eqx.field(static=True)

    def why_not(self, distribution: dist.Distribution) -> str | None:
        return self.strategy.why_not(distribution)

    def combine(self, site: vi.Site, key: jax.Array, rest: vi.Continuation) -> vi.Cost:
        cost = self.strategy.combine(site, key, rest)
        own = f"{site.address}:gradient"
        return vi.Cost(
            tuple(t.times(self.factor) if t.label == own else t for t in cost.terms), cost.records
        )


class _WrongBranch(vi.AbstractReplay):
    """Enumeration that gives each branch the probability of another."""

    def why_not(self, distribution: dist.Distribution) -> str | None:
        return vi.enum().why_not(distribution)

    def combine(self, site: vi.Site, key: jax.Array, rest: vi.Continuation) -> vi.Cost:
        support = site.support()
        probs = jnp.exp(jax.vmap(site.log_prob)(support))
        return rest.surrogate(support).weighted(jnp.roll(probs, 1, axis=0))


class _CountsPerElement(vi.AbstractReplay):
    """Enumeration that broadcasts costs without a plate into it, and so counts them repeatedly."""

    def why_not(self, distribution: dist.Distribution) -> str | None:
        return vi.enum().why_not(distribution)

    def combine(self, site: vi.Site, key: jax.Array, rest: vi.Continuation) -> vi.Cost:
        support = site.support()
        probs = jnp.exp(jax.vmap(site.log_prob)(support))
        cost = rest.surrogate(support).cost
        padded = (t.value.reshape(len(support), -1) for t in cost.terms)
        return vi.Cost(tuple(vi.Term(jnp.sum(probs * value)) for value in padded))


class _TemperedLeg(vi.AbstractReplay):
    """Local expectation gradients with the square roots of the probabilities as weights."""

    def why_not(self, distribution: dist.Distribution) -> str | None:
        return vi.leg().why_not(distribution)

    def combine(self, site: vi.Site, key: jax.Array, rest: vi.Continuation) -> vi.Cost:
        support = site.support()
        probs = jnp.exp(0.5 * jax.vmap(site.log_prob)(support))
        costs, frames = rest.phantoms(support)
        zero = probs - jax.lax.stop_gradient(probs)
        term = site.zero_term(jnp.sum(zero * costs, axis=0), frames)
        return rest.surrogate(site.value[None]).weighted(1.0) + vi.Cost((term,))


class _OneSidedDisARM(vi.AbstractReplay):
    """DisARM with weight sigmoid(logit) in place of sigmoid(|logit|)."""

    def why_not(self, distribution: dist.Distribution) -> str | None:
        return vi.disarm().why_not(distribution)

    def combine(self, site: vi.Site, key: jax.Array, rest: vi.Continuation) -> vi.Cost:
        cost = vi.disarm().combine(site, key, rest)
        logits = jax.lax.stop_gradient(site.parameter("logits"))
        factor = site.to_plates(jax.nn.sigmoid(logits) / jax.nn.sigmoid(jnp.abs(logits)))
        own = f"{site.address}:gradient"
        return vi.Cost(
            tuple(
                dataclasses.replace(t, value=t.value * factor) if t.label == own else t
                for t in cost.terms
            )
        )


class _InverseRatio(vi.AbstractReplay):
    """Importance sampling with the density ratio upside down."""

    proposal: dist.Distribution

    def why_not(self, distribution: dist.Distribution) -> str | None:
        return vi.importance(proposal=self.proposal).why_not(distribution)

    def combine(self, site: vi.Site, key: jax.Array, rest: vi.Continuation) -> vi.Cost:
        swapped = Site(
            site.address, self.proposal, site.frames, site.strategy, site.key, site.value
        )
        return vi.importance(proposal=site.distribution).combine(swapped, key, rest)


@contextmanager
def no_time_axis() -> Generator[None]:
    """Time steps of a scan taken for elements of a plate: score at t times cost at t."""

    def keep_all(value: jax.Array, keep: Any) -> jax.Array:
        return value

    def unsummed(site: Site, values: jax.Array) -> jax.Array:
        return values

    with ExitStack() as stack:
        stack.enter_context(patch.object(_cost, "reduce_to", keep_all))
        stack.enter_context(patch.object(_surrogate, "reduce_to", keep_all))
        stack.enter_context(patch.object(Site, "to_plates", unsummed))
        yield


@contextmanager
def cut_chains() -> Generator[None]:
    """Dependence of a cost on a site through a later site is overlooked."""
    right = _surrogate.with_scores

    def wrong(cost: Any, records: Any, dependence: Any, settings: Any) -> Any:
        order = [record.address for record in records]

        def last(found: frozenset[str]) -> frozenset[str]:
            return frozenset(sorted(found & set(order), key=order.index)[-1:])

        cut = jax.tree.map(last, dependence, is_leaf=lambda leaf: isinstance(leaf, frozenset))
        return right(cost, records, cut, settings)

    with patch.object(_surrogate, "with_scores", wrong):
        yield


@contextmanager
def always_detached() -> Generator[None]:
    """The gradient of log q dropped although the cost is used non-linearly."""

    def total(cost: vi.Cost) -> jax.Array:
        return sum((jnp.sum(term.linear().value) for term in cost.terms), jnp.zeros(()))

    with patch.object(vi.Cost, "total", property(total)):
        yield


@contextmanager
def shared_keys() -> Generator[None]:
    """All sites of an objective draw from one key."""
    right = _handlers.draw

    def wrong(distribution: dist.Distribution, key: jax.Array) -> Any:
        return right(distribution, current("shared_keys").key)

    with patch.object(_handlers, "draw", wrong):
        yield


def broken() -> list[Broken]:
    """Every planted mistake. Needs float64."""
    rf, plate, chain = vi.reinforce(), jnp.array(_plates.POINT), jnp.array(_chain.POINT)

    def on_plate(strategy: Any, batch: int | None = None) -> Cell:
        return Cell("plate", "", _plates.objective(strategy, batch), _plates.exact, plate)

    def on_chain(**strategies: Any) -> Cell:
        chosen = [strategies.get(site, STRATEGIES["enum"]) for site in _chain.SITES[1:]]
        return Cell("chain", "", _chain.objective([None, *chosen]), _chain.exact, chain)

    # A chain with memory: what a step does to later ones must matter for the mistake to show.
    memory = jnp.array([-1.0, 2.5, 1.5])
    scan = Cell("scan", "", _loops.hmm_objective(rf), _loops.hmm_exact, memory)
    power = Cell(
        "power",
        "",
        _lanes.vector_objective(vi.disarm(), 0.3),
        _lanes.power_exact,
        jnp.array(_lanes.POINT),
    )
    twice = Cell(
        "twice",
        "",
        _scalars.two_runs_objective(rf),
        _scalars.two_runs_exact,
        jnp.array([0.4, 0.2]),
    )
    bound = Cell(
        "bound",
        "",
        _particles.bound_objective(_Scaled(0.0), 3),
        _particles.bound_exact(3),
        jnp.array(_particles.POINT),
    )
    every = dict.fromkeys(_chain.SITES[1:], rf)
    return [
        Broken("reinforce forgets the time axis of a scan", scan, no_time_axis),
        Broken("score times the subsampling scale", on_plate(_Scaled(4.0), 2)),
        Broken("no score term in an importance-weighted bound", bound),
        Broken("enum that counts plate-free costs per element", on_plate(_CountsPerElement())),
        Broken("dependence through a later site overlooked", on_chain(**every), cut_chains),
        Broken("log q detached in a non-linear objective", power, always_detached),
        Broken("one key for two sites", twice, shared_keys),
        Broken("mvd with the wrong sign", on_plate(_Altered(vi.mvd(), -1.0))),
        Broken("leg with the wrong weights", on_plate(_TemperedLeg())),
        Broken("enum with p of the wrong branch", on_chain(c=_WrongBranch())),
        Broken("disarm with the one-sided weight", on_plate(_OneSidedDisARM())),
        Broken("rloo whose baseline contains the draw itself", on_plate(_Altered(vi.rloo(), 0.5))),
        Broken("importance with the ratio upside down", on_chain(b1=_InverseRatio(_HALF))),
    ]


_HALF = dist.Bernoulli(logits=-0.3)
