"""Which gradient strategy pays at each site: variance and time, measured."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random

from ..._core import check_key, path_name, whole_number
from .._estimator import (
    AbstractStrategy,
    BiasedGradientWarning,
    check_argnums,
    check_strategy,
    Context,
    Objective,
    replace_strategies,
    Site,
)
from .._strategies import (
    DisARM,
    Enum,
    Leg,
    MVD,
    Reinforce,
    Reparam,
    RLOO,
)
from ._gradient_table import (
    GradientReport,
    GradientRow,
)

ALTERNATIVES = (Reparam(), Reinforce(), Enum(), Leg(), MVD(), DisARM(), RLOO())
_WORTHWHILE = 0.8  # variance x time that a recommendation must beat, of the present one
_ROUNDS = 3  # of timing, in turn


def gradient_report(
    key: jax.Array,
    objective: Objective,
    *args: Any,
    num_draws: int = 200,
    argnums: int | tuple[int, ...] = 0,
    alternatives: Sequence[AbstractStrategy] | None = None,
    sites: Sequence[str] | None = None,
    states: dict[str, jax.Array] | None = None,
    **kwargs: Any,
) -> GradientReport:
    """Measures the gradient's variance and time under each strategy that each site could have.

    One site is changed at a time, then the best ones together. Use it at parameters from the
    middle of a run, since variances change as the guide learns. Compiles each variant.

    Args:
        key: randomness; all variants share it.
        objective: an `Objective`.
        *args: the objective's arguments, as are **kwargs**.
        num_draws: gradients per variant, at least 2; the variance of the variance falls with it.
        argnums: which arguments to differentiate.
        alternatives: strategies to try; by default all unbiased ones without options of their
            own: `reparam`, `reinforce`, `enum`, `leg`, `mvd`, `disarm`, `rloo`. Where elements
            are coupled, `lanes=True` is tried too. `reparam` is unbiased only if the cost has
            no jumps in the value, which this cannot see.
        sites: names of the sites to change; by default all outside of scan and cond.
        states: records of moving-average baselines, `result.state.records` of `vi.fit`.

    Returns:
        a `GradientReport`; `print` it.

    Raises:
        TypeError: `objective` is no `Objective`.
        ValueError: a name in `sites` fits none, there is nothing to differentiate, or the
            objective as written fails.
    """
    if not isinstance(objective, Objective):
        raise TypeError(f"objective must be an Objective, got {type(objective).__name__}")
    whole_number("num_draws", num_draws, least=2)
    check_argnums(argnums, args)
    check_key(key)
    tried = ALTERNATIVES if alternatives is None else tuple(alternatives)
    for strategy in tried:
        check_strategy("alternatives", strategy)
    choices_of_sites = _sites(objective, args, kwargs, tried, sites)
    measure = _Measure(key, objective, args, kwargs, argnums, num_draws, states)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BiasedGradientWarning)
        variants = [_Variant("", "", {}, all(site.unbiased for site in choices_of_sites))]
        measure.add(variants[0])
        for site in choices_of_sites:
            for strategy in site.choices:
                variants.append(measure.first_that_serves(site, strategy))
        measure.time(variants)
        best = {
            site.address: min(usable, key=lambda v: v.product)
            for site in choices_of_sites
            if (usable := _worthwhile(site.address, variants))
        }
        if len(best) > 1:
            joint = {a: s for v in best.values() for a, s in v.replaced.items()}
            together = _Variant("together", ", ".join(v.strategy for v in best.values()), joint)
            variants.append(measure.try_to_add(together))
            measure.time(variants)
    chosen = min([variants[0], *(_worthwhile(None, variants))], key=lambda variant: variant.product)
    rows = tuple(variant.row() for variant in variants)
    text = _recommend(variants[0], chosen, choices_of_sites)
    return GradientReport(rows, text, dict(chosen.replaced), num_draws)


@dataclasses.dataclass
class _SiteChoices:
    """A site with the strategies that could serve it."""

    name: str
    address: str
    strategy: str
    unbiased: bool
    choices: list[AbstractStrategy]


@dataclasses.dataclass
class _Variant:
    """The objective with some strategies replaced, and what was measured of it."""

    site: str
    strategy: str
    replaced: dict[str, AbstractStrategy]
    unbiased: bool = True
    program: Callable[[], Any] | None = None
    problem: str = ""
    leaves: dict[str, float] = dataclasses.field(default_factory=dict)
    signal: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = float("nan")

    @property
    def variance(self) -> float:
        return sum(self.leaves.values())

    @property
    def product(self) -> float:
        return self.variance * self.seconds

    def row(self) -> GradientRow:
        measured = () if self.problem else (self.variance, self.seconds, self.leaves, self.signal)
        row = GradientRow(self.site, self.strategy, self.unbiased, *measured)
        return dataclasses.replace(row, problem=self.problem)


class _Measure:
    """Compiles and runs the gradient under replaced strategies."""

    def __init__(
        self,
        key: jax.Array,
        objective: Objective,
        args: Any,
        kwargs: Any,
        argnums: int | tuple[int, ...],
        num_draws: int,
        states: dict[str, jax.Array] | None,
    ):
        self.objective, self.states, self.num_draws = objective, states, num_draws
        self.keys = random.split(key, num_draws)
        chosen = (argnums,) if isinstance(argnums, int) else tuple(argnums)
        wanted = args[argnums] if isinstance(argnums, int) else tuple(args[i] for i in chosen)
        self.trained, static = eqx.partition(wanted, eqx.is_inexact_array)
        paths = jax.tree_util.tree_leaves_with_path(self.trained)
        if not paths:
            raise ValueError(f"the arguments {chosen} hold no floating-point array")
        root = "params" if isinstance(argnums, int) else "args"
        self.names = [path_name(path, root) for path, _ in paths]
        self.given, fixed = eqx.partition((args, kwargs), eqx.is_array)

        def assemble(trained: Any, given: Any) -> Any:
            args, kwargs = eqx.combine(given, fixed)
            full, wanted = list(args), eqx.combine(trained, static)
            new = (wanted,) if isinstance(argnums, int) else wanted
            for position, value in zip(chosen, new, strict=True):
                full[position] = value
            return full, kwargs

        self.assemble = assemble

    def add(self, variant: _Variant) -> _Variant:
        """Compiles the variant and takes its variances."""

        def surrogate(trained: Any, given: Any, key: jax.Array) -> jax.Array:
            args, kwargs = self.assemble(trained, given)
            return self.objective.surrogate_with_records(key, self.states, *args, **kwargs)[0]

        def moments(trained: Any, given: Any, keys: jax.Array) -> Any:
            def step(carry: Any, key: jax.Array) -> Any:
                count, mean, squares = carry
                value, gradient = jax.value_and_grad(surrogate)(trained, given, key)
                gap = jax.tree.map(lambda g, m: g - m, gradient, mean)
                mean = jax.tree.map(lambda m, d: m + d / (count + 1), mean, gap)
                squares = jax.tree.map(
                    lambda s, g, m, d: s + d * (g - m), squares, gradient, mean, gap
                )
                return (count + 1, mean, squares), value

            zero = jax.tree.map(jnp.zeros_like, trained)
            (_, mean, squares), values = jax.lax.scan(step, (0, zero, zero), keys)
            variances = [jnp.sum(s) / (self.num_draws - 1) for s in jax.tree.leaves(squares)]
            means = [jnp.sum(m**2) for m in jax.tree.leaves(mean)]
            return variances, means, values

        with replace_strategies(variant.replaced):
            compiled = jax.jit(moments).lower(self.trained, self.given, self.keys).compile()
        variant.program = lambda: compiled(self.trained, self.given, self.keys)
        variances, means, _ = jax.block_until_ready(variant.program())
        variant.leaves = dict(zip(self.names, map(float, variances), strict=True))
        for name, mean in zip(self.names, means, strict=True):  # the square of a mean is too large
            noise = variant.leaves[name] / self.num_draws
            variant.signal[name] = max(0.0, float(mean) - noise)
        if not np.isfinite(variant.variance):
            variant.problem = "the gradient is not finite"
        return variant

    def try_to_add(self, variant: _Variant) -> _Variant:
        """Like `add`; a strategy that does not serve leaves its reason in `problem`."""
        try:
            return self.add(variant)
        except ValueError as error:
            variant.problem = _short(str(error))
            return variant

    def first_that_serves(self, site: _SiteChoices, strategy: AbstractStrategy) -> _Variant:
        """The variant with `strategy`, or with its lanes if elements are coupled."""
        variant = _Variant(site.name, show(strategy), {site.address: strategy}, strategy.unbiased)
        variant = self.try_to_add(variant)
        if not variant.problem or getattr(strategy, "lanes", True):
            return variant
        lanes = dataclasses.replace(strategy, lanes=True)
        other = _Variant(site.name, show(lanes), {site.address: lanes}, strategy.unbiased)
        other = self.try_to_add(other)
        return variant if other.problem else other

    def time(self, variants: list[_Variant]) -> None:
        """Times all variants in turn; the median of a few rounds."""
        samples: dict[int, list[float]] = {}
        for _ in range(_ROUNDS):
            for i, variant in enumerate(variants):
                if variant.program is not None and not variant.problem:
                    begun = time.perf_counter()
                    jax.block_until_ready(variant.program())
                    samples.setdefault(i, []).append(time.perf_counter() - begun)
        for i, taken in samples.items():
            variants[i].seconds = float(np.median(taken)) / self.num_draws


def _sites(
    objective: Objective,
    args: Any,
    kwargs: Any,
    tried: Sequence[AbstractStrategy],
    wanted: Sequence[str] | None,
) -> list[_SiteChoices]:
    """The sites of one run outside loops, with what they could be given."""
    choices_of_sites: list[_SiteChoices] = []

    def run() -> jax.Array:
        context = Context(random.key(0))
        cost, _ = objective._run(context, args, kwargs)
        choices_of_sites.extend(_choices(site, tried) for site in context.sites)
        return sum((jnp.sum(term.value) for term in cost.terms), jnp.zeros(()))

    jax.eval_shape(run)
    names = {site.name for site in choices_of_sites}
    if unknown := sorted(set(wanted or ()) - names):
        raise ValueError(
            f"sites: no site is called {' or '.join(unknown)}; there are {sorted(names)}"
        )
    for site in choices_of_sites:
        if sum(site.name == other.name for other in choices_of_sites) > 1:
            site.name = site.address
        if wanted is not None and site.address.rpartition("/")[2] not in wanted:
            site.choices = []
    return choices_of_sites


def _choices(site: Site, tried: Sequence[AbstractStrategy]) -> _SiteChoices:
    present = site.strategy
    choices = [
        strategy
        for strategy in tried
        if not site.in_loop
        and show(strategy) != show(present)
        and strategy.why_not(site.distribution) is None
    ]
    return _SiteChoices(site.name, site.address, show(present), present.unbiased, choices)


def show(strategy: AbstractStrategy) -> str:
    """`"enum"`, or `"enum(lanes=True)"`."""
    return strategy.name + ("(lanes=True)" if getattr(strategy, "lanes", False) else "")


def _worthwhile(address: str | None, variants: list[_Variant]) -> list[_Variant]:
    """Unbiased variants that beat the objective as written, of one site or of all."""
    present = variants[0].product
    return [
        variant
        for variant in variants[1:]
        if (address is None or list(variant.replaced) == [address])
        and not variant.problem
        and variant.unbiased
        and variant.product < _WORTHWHILE * present
    ]


def _recommend(present: _Variant, chosen: _Variant, choices_of_sites: list[_SiteChoices]) -> str:
    lines = [
        f"site {site.name!r} has a biased gradient ({site.strategy})."
        for site in choices_of_sites
        if not site.unbiased
    ]
    if not chosen.replaced:
        lines.append("Recommended: keep the strategies as they are.")
    else:
        ratio = chosen.product / present.product
        changes = ", ".join(
            f"vi.{show(strategy)} at {site.name!r} in place of {site.strategy}"
            for site in choices_of_sites
            for address, strategy in chosen.replaced.items()
            if address == site.address
        )
        lines.append(
            f"Recommended: {changes}; variance × time falls to {ratio:.2g} of the present."
        )
    return "\n".join(lines)


def _short(text: str) -> str:
    """The reason in an error of ours, without its site and remedy."""
    reason = text.partition("): ")[2] or text
    return reason.partition(". ")[0][:100]


__all__ = ["gradient_report"]
