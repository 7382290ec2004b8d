"""The effect handlers behind `simulate` and `log_density`."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
from jax import random

from .._estimator import (
    AbstractPathwise,
    AbstractReplay,
    AbstractScore,
    AbstractStrategy,
    Context,
    Cost,
    draw,
    one_dtype,
    replaced_strategy,
    Site,
    split,
    tag,
    Term,
    unmasked,
    WithStrategy,
)
from .._strategies import (
    Enum,
    Reinforce,
    Reparam,
)
from ._loops import (
    enter_keyed,
    expand_to_samples,
    GivenInLoops,
    is_from_loop,
    is_reversed,
    is_scan,
)
from ._matching import (
    as_values,
    check_given,
    check_match,
)
from ._recorder import (
    AbstractRecorder,
)
from ._trace import (
    Drawn,
    Trace,
)

_PLAIN_REPARAM = Reparam()
_PLAIN_REINFORCE = Reinforce()
_ENUM = Enum()
_ENUMERATED_IN_MODEL = (
    ". infer={'enumerate': ...} of a model is honoured in its guide: vi.AutoDiscrete makes one, or "
    "sum the site out by vi.marginal(program, keep, vi.exact())"
)


class SimulateHandler(AbstractRecorder):
    """Gives every latent site its value and tells the context about it."""

    def __init__(
        self,
        context: Context,
        prefix: str,
        change_term: Callable[[Any, Term], Term] | None = None,
    ):
        super().__init__(context, prefix, change_term)
        self.run = context
        self.values: dict[str, jax.Array] = {}
        self.plates: dict[str, jax.Array] = {}
        self.sizes: dict[str, int] = {}
        self.auxiliary: set[str] = set()
        self.drawn: list[Drawn] = []
        self.detached: set[str] = set()
        self.loop: str | None = None

    def process_message(self, msg: Any) -> None:
        kind = msg["type"]
        if kind == "control_flow":
            self.enter_loop(msg)
        elif kind == "plate":
            self.subsample(msg)
        elif kind == "sample" and not msg["is_observed"]:
            if msg["value"] is None:
                self.draw(msg)
            elif is_from_loop(msg):
                self.register_emitted(msg)
            # else: the program's own substitute handler put the value there

    def draw(self, msg: Any) -> None:
        expand_to_samples(msg)
        fn, strategy = split(msg["fn"], msg["infer"])
        strategy = strategy or _enumerated(msg)
        strategy = replaced_strategy(self.prefix + msg["name"]) or strategy
        site = self.new_site(msg, fn, strategy or _default(fn))
        fixed = self.run.fixed.get(site.address)
        with self.run.within(self.prefix, msg["name"]), _drawable(site):
            if isinstance(site.strategy, AbstractPathwise):
                value, msg["intermediates"] = draw(WithStrategy(fn, site.strategy), site.key)
            else:
                distribution = WithStrategy(site.distribution, site.strategy)
                value = draw(distribution, site.key)[0] if fixed is None else fixed
                msg["intermediates"] = []
                self.detached.add(msg["name"])
        if isinstance(site.strategy, AbstractScore):
            value = tag(value, site.address)
        site.stacked_value = value
        msg["value"] = value
        self.run.add(site)

    def new_site(self, msg: Any, fn: Any, strategy: AbstractStrategy) -> Site:
        frames = frozenset(msg["cond_indep_stack"])
        key = self.run.site_key(self.prefix, msg["name"])
        address = self.prefix + msg["name"]
        site = Site(address, unmasked(fn), frames, strategy, key, jnp.zeros(()))
        if reason := strategy.why_not(site.distribution):
            raise site.explain("it cannot have this strategy", reason)
        return site

    def enter_loop(self, msg: Any) -> None:
        """Hands keys, and the values of replayed sites, to the body of NumPyro's scan or cond."""
        enter_keyed(msg, self.run.site_key(self.prefix, ""), self.prefix)
        self.loop = None
        if is_scan(msg):
            self.loop = "reverse scan" if is_reversed(msg) else "scan"
        fixed = {
            address.removeprefix(self.prefix): value
            for address, value in self.run.fixed.items()
            if address.startswith(self.prefix)
        }
        GivenInLoops(fixed, self.subsample).enter(msg, self)

    def register_emitted(self, msg: Any) -> None:
        fn, given = split(msg["fn"], {})
        strategy = given or _default(fn)
        if self.loop and isinstance(strategy, AbstractScore):
            # A scan stacks the baselines of its steps. That of the step that runs first depends on
            # no draw of the loop, and may be subtracted from the cost of the whole path.
            first = -1 if self.loop == "reverse scan" else 0
            strategy = jax.tree.map(lambda x: x[first], strategy)
        site = self.new_site(msg, fn, strategy)
        site.stacked_value, site.in_loop, site.loop = msg["value"], True, self.loop
        for option in ("strategy", "enumerate"):
            if msg["infer"].get(option) is not None:
                raise site.explain(
                    f"infer={{{option!r}: ...}} does not reach sites inside scan or cond",
                    "Wrap the distribution instead, e.g. vi.reinforce(dist.Bernoulli(p)), or "
                    "vi.enum(..., lanes=True)",
                )
        if given is None and not fn.has_rsample and jnp.issubdtype(site.value.dtype, jnp.floating):
            raise site.explain(
                "its draws inside scan or cond may carry a gradient of their own",
                "Wrap the distribution: vi.reinforce(...) stops it",
            )
        if site.loop and isinstance(strategy, AbstractReplay):
            if not getattr(strategy, "lanes", False):
                raise site.explain(
                    "the steps of a scan depend on each other and cannot be replayed all at once",
                    "Use vi.enum, vi.leg or vi.mvd with lanes=True, or vi.reinforce",
                )
        if not isinstance(strategy, AbstractPathwise):
            self.detached.add(msg["name"])
            value = jax.lax.stop_gradient(site.value)
            if isinstance(strategy, AbstractScore):
                # What a loop reports of its sites has passed by the tag that its body sees.
                value = tag(value, site.address)
            msg["value"] = site.stacked_value = value
            msg["intermediates"] = []
        self.run.add(site)

    def check_latent(self, msg: Any, fn: Any) -> None:
        """Draws fit their sites."""

    def is_drawn(self, msg: Any) -> bool:
        return not msg["is_observed"]

    def is_detached(self, msg: Any) -> bool:
        return msg["name"] in self.detached

    def needs_no_validation(self, msg: Any) -> bool:
        """Draws lie in the support, relaxed ones as near to it as they are meant to."""
        return not msg["is_observed"]

    def postprocess_message(self, msg: Any) -> None:
        super().postprocess_message(msg)
        if msg["type"] == "plate":
            self.sizes[msg["name"]] = size = msg["args"][0]
            if len(msg["value"]) != size:
                self.plates[msg["name"]] = msg["value"]
        elif msg["type"] == "sample" and not msg["is_observed"]:
            self.values[msg["name"]] = msg["value"]
            self.drawn.append(Drawn.of(msg))
            if msg["infer"].get("is_auxiliary"):
                self.auxiliary.add(msg["name"])

    def result(self) -> tuple[Trace, Cost]:
        frames = frozenset(self.frames.values())
        sizes = frozenset(self.sizes.items())
        auxiliary, drawn = frozenset(self.auxiliary), tuple(self.drawn)
        trace = Trace(self.values, self.plates, sizes, frames, auxiliary, drawn)
        return trace, Cost(one_dtype(tuple(self.terms)))


class DensityHandler(AbstractRecorder):
    """Hands given values to a program's latent sites."""

    def __init__(self, context: Context | None, prefix: str, values: Trace | Mapping[str, Any]):
        super().__init__(context, prefix)
        self.given: dict[str, Any]
        if isinstance(values, Trace):
            self.given = {k: v for k, v in values.values.items() if k not in values.auxiliary}
            self.plates, self.sizes = values.plates, dict(values.sizes)
            self.frames = {frame.name: frame for frame in values.frames}
            self.drawn = {drawn.name: drawn for drawn in values.drawn}
        else:
            self.given = as_values(values)
            self.plates, self.sizes, self.drawn = {}, {}, {}
        self.used: set[str] = set()
        self.own_sizes: dict[str, int] = {}  # of the plates met here, before subsampling

    def process_message(self, msg: Any) -> None:
        kind, name = msg["type"], msg.get("name")
        if kind == "control_flow":
            GivenInLoops(self.given, self.enter_plate).enter(msg, self)
            if msg["kwargs"]["rng_key"] is None:
                # NumPyro draws before it replaces; the draws are thrown away.
                msg["kwargs"]["rng_key"] = random.key(0)
        elif kind == "plate":
            self.enter_plate(msg)
        elif kind == "sample" and not msg["is_observed"]:
            expand_to_samples(msg)
            if name in self.given:
                self.used.add(name)
                msg["value"] = self.given[name]
            elif msg["value"] is None or is_from_loop(msg):
                raise ValueError(
                    f"latent site {name!r} of the model has no value; the given sites are "
                    f"{sorted(self.given)}. Sample {name!r} in the guide too, or observe it"
                    + _ENUMERATED_IN_MODEL
                    * bool(msg["infer"].get("enumerate"))
                )

    def enter_plate(self, msg: Any) -> None:
        """Hands on the minibatch of the other program, if the plates agree."""
        name, (size, batch) = msg["name"], msg["args"]
        self.own_sizes[name] = size
        if name not in self.sizes:
            return self.subsample(msg)
        known = self.sizes[name], len(self.plates.get(name, range(self.sizes[name])))
        if (size, size if batch is None else batch) != known:
            raise ValueError(
                f"plate {name!r} has size {size} and subsample_size {batch} here, but there are "
                f"values for {known[1]} of {known[0]} elements from the other program; give it "
                "the same size and subsample_size in model and guide"
            )
        msg["value"] = self.plates.get(name, msg["value"])

    def is_drawn(self, msg: Any) -> bool:
        return False

    def is_detached(self, msg: Any) -> bool:
        return False

    def needs_no_validation(self, msg: Any) -> bool:
        """Relaxed values of a discrete site are scored by the formula of its support."""
        floating = jnp.issubdtype(jnp.result_type(msg["value"]), jnp.floating)
        return not msg["is_observed"] and floating and msg["fn"].is_discrete

    def check_latent(self, msg: Any, fn: Any) -> None:
        if msg["name"] not in self.used:
            return
        frames = frozenset(msg["cond_indep_stack"])
        drawn = self.drawn.get(msg["name"])
        if drawn is None:
            check_given(msg["name"], fn, msg["value"], frames)
        else:
            sizes = {**self.sizes, **self.own_sizes}
            check_match(drawn, fn, frames, sizes, is_from_loop(msg))

    def check_all_used(self) -> None:
        if unused := sorted(set(self.given) - self.used):
            observed = [name for name in unused if name in self.names]
            raise ValueError(
                f"the values of {unused} fit no latent site of the model, which has "
                f"{sorted(self.used)}; rename them, or mark guide-only sites with "
                "infer={'is_auxiliary': True}"
                + f". The sites {observed} are observed there: leave them out"
                * bool(observed)
            )


def _enumerated(msg: Any) -> AbstractStrategy | None:
    """What NumPyro's `infer={"enumerate": "parallel"}` asks for: a sum over the support."""
    asked = msg["infer"].get("enumerate")
    if asked not in (None, "parallel", "sequential"):
        raise ValueError(
            f"site {msg['name']!r}: infer={{'enumerate': ...}} must be 'parallel' or 'sequential', "
            f"got {asked!r}"
        )
    return None if asked is None else _ENUM


@contextmanager
def _drawable(site: Site) -> Generator[None]:
    """Says which site it is whose distribution has no sampler."""
    try:
        yield
    except NotImplementedError as error:
        raise site.explain(
            f"{type(site.family).__name__} cannot be sampled {error}".rstrip(),
            "An improper prior of the model is fine; draw the site in the guide from a "
            "distribution with a sampler",
        ) from None


def _default(fn: Any) -> AbstractStrategy:
    return _PLAIN_REPARAM if fn.has_rsample else _PLAIN_REINFORCE
