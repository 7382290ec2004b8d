"""From an objective to a cost whose gradient is unbiased: the heart of `bayesjx.vi`.

Sites are treated in the order in which the program meets them. A replay site hands the rest of
the program to its strategy as a `Continuation`. A score site multiplies its score with the terms
that depend on it, once everything after it has been treated. So each strategy sees the later
ones as one cost, and strategies compose freely.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import random

from ._context import (
    activate,
    Context,
    DrawKey,
    Restage,
    ScoreRecord,
    Suspend,
)
from ._continuation import (
    Continuation,
)
from ._cost import (
    as_cost,
    Cost,
    Frames,
    local_costs,
    reduce_to,
    Term,
)
from ._provenance import (
    Staged,
)


class Settings(NamedTuple):
    """Settings that all runs of one estimate share.

    Attributes:
        plate_key: see `Context`.
        states: baseline states by address.
        maximise: whether the caller climbs the objective; learned baselines need the sign.
        prefix: address prefix, non-empty inside particles.
    """

    plate_key: jax.Array | None = None
    states: dict[str, jax.Array] | None = None
    maximise: bool = True
    prefix: str = ""

    def context(self, key: jax.Array | DrawKey, **kwargs: Any) -> Context:
        """A fresh context."""
        return Context(
            key,
            plate_key=self.plate_key,
            states=self.states,
            prefix=self.prefix,
            maximise=self.maximise,
            **kwargs,
        )


def surrogate_cost(
    objective: Callable[[], Any],
    key: jax.Array | DrawKey,
    settings: Settings,
    fixed: dict[str, jax.Array] | None = None,
    done: frozenset[str] = frozenset(),
) -> Cost:
    """A cost with the value of one run of `objective` and an unbiased gradient.

    Args:
        objective: function without arguments that returns a `Cost` or a scalar.
        key: randomness of the run.
        settings: see `Settings`.
        fixed: values of replayed sites, by address.
        done: score sites that an enclosing call takes care of.
    """

    def level(stage: bool) -> tuple[Cost, list[ScoreRecord]]:
        context = settings.context(key, fixed=fixed, done=done, suspend=True, stage=stage)
        output, records, _ = run_level(objective, context, settings, key)
        return as_cost(output, "objective").linear(), records

    try:
        return level(stage=False)[0]
    except Restage:
        pass
    # There are score sites: trace once more, now abstractly, to see which terms depend on which.
    staged = Staged(lambda: level(stage=True))
    cost, records = staged()
    dependence, _ = staged.depends()
    return with_scores(cost, records, dependence, settings)


def run_level(
    objective: Callable[[], Any], context: Context, settings: Settings, key: jax.Array | DrawKey
) -> tuple[Any, list[ScoreRecord], bool]:
    """Runs to the end, or to the first replay site and then through its strategy.

    Returns:
        what `objective` returned, or the cost that the replay site's strategy made of it; the
        score sites met before that site, not yet accounted for; whether there was such a site.
    """
    site = None
    output = None
    with activate(context):
        try:
            output = objective()
        except Suspend as stop:
            site = stop.site
    records = context.records()
    if site is None:
        return output, records, False
    done = context.done | {record.address for record in records}
    address = site.address

    def surrogate(value: jax.Array) -> Cost:
        fixed = {**context.fixed, address: site.unpad(value)}
        return surrogate_cost(objective, key, settings, fixed, done)

    def pure(value: jax.Array) -> Cost:
        return pure_cost(objective, key, settings, {**context.fixed, address: site.unpad(value)})

    def distribution(value: jax.Array) -> tuple[Cost, jax.Array]:
        fixed = {**context.fixed, address: site.unpad(value)}
        return pure_cost_and_log_prob(objective, key, settings, fixed, address)

    rest = Continuation(site, surrogate, pure, distribution)
    cost = site.strategy.combine(site, random.fold_in(site.key, 1), rest)  # ty: ignore
    return cost, records, True


def pure_cost(
    objective: Callable[[], Any],
    key: jax.Array | DrawKey,
    settings: Settings,
    fixed: dict[str, jax.Array] | None = None,
) -> Cost:
    """The cost of a plain forward run; its gradient means nothing."""
    with activate(settings.context(key, fixed=fixed)):
        return as_cost(objective(), "objective")


def pure_cost_and_log_prob(
    objective: Callable[[], Any],
    key: jax.Array | DrawKey,
    settings: Settings,
    fixed: dict[str, jax.Array],
    address: str,
) -> tuple[Cost, jax.Array]:
    """A plain forward run, and the elementwise log probability of one site's value in it."""
    context = settings.context(key, fixed=fixed)
    with activate(context):
        cost = as_cost(objective(), "objective")
    (site,) = [site for site in context.sites if site.address == address]
    return cost, site.log_prob(site.value)


def with_scores(
    cost: Cost, records: list[ScoreRecord], dependence: Cost, settings: Settings
) -> Cost:
    """Adds the score terms of `records`, each times the terms of `cost` that depend on it."""
    addresses_of_terms = [
        frozenset().union(*jax.tree.leaves(t, is_leaf=_is_set)) for t in dependence.terms
    ]
    terms: list[Term] = []
    kept_records = dict(cost.records)
    for record in records:
        keep = [record.address in addresses for addresses in addresses_of_terms]
        local = local_costs(cost, record.frames, keep)
        state = (settings.states or {}).get(record.address)
        signals, kept, loss = _signal(record, local, state)
        terms += [_score_term(record, frames, signal) for frames, signal in signals.items()]
        if kept is not None:
            kept_records[record.address] = jax.lax.stop_gradient(kept)
        if loss is not None:
            zero = loss - jax.lax.stop_gradient(loss)
            terms.append(
                Term(-zero if settings.maximise else zero, label=f"{record.address}:baseline")
            )
    return Cost(cost.terms + tuple(terms), kept_records)


def _signal(record: ScoreRecord, local: dict[Frames, jax.Array], state: Any) -> Any:
    """What the strategy of a score site returns, checked."""
    signal: Any = record.strategy.signal(local, record.frames, state)
    if not isinstance(signal, tuple) or len(signal) != 3 or not isinstance(signal[0], dict):
        came = type(signal).__name__
        if isinstance(signal, tuple):
            came = f"({', '.join(type(part).__name__ for part in signal)})"
        raise TypeError(
            f"site {record.address.rpartition('/')[2]!r}: signal of {record.strategy.name} must "
            "return (signals, record, baseline_loss), signals being a dict like `local` and the "
            f"others None if there are none; it returned {came}"
        )
    return signal


def _score_term(record: ScoreRecord, frames: Frames, signal: jax.Array) -> Term:
    score = reduce_to(record.log_prob, frames)
    zero = score - jax.lax.stop_gradient(score)
    # An infinite cost shows in the value; zero times it would turn the value into NaN.
    signal = jnp.where(jnp.isinf(signal), 0.0, signal)
    return Term(zero * signal, frames=frames, label=f"{record.address}:gradient")


def _is_set(leaf: object) -> bool:
    return isinstance(leaf, frozenset)
