"""Running programs inside an objective: keys, addresses, values to replay, and what was seen."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, NamedTuple
from zlib import crc32

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random

from ._cost import Frames
from ._options import check_key
from ._site import Site
from ._strategy import AbstractReplay, AbstractScore, AbstractStrategy

_NUM_KEYS = 8  # made by one hash; further sites take one each
_MAX_DRAWS = 2**20  # of a step; more would reuse the keys of sites


class DrawKey(NamedTuple):
    """Randomness of one of many draws that share a key.

    The keys of a site in all draws then come from one hash of as many numbers as there are draws;
    a key for each draw would take another, which small models feel.
    """

    key: jax.Array
    index: jax.Array

    def site(self, number: int) -> jax.Array:
        """Key of the n-th site, counted from 1; 0 is for everything else."""
        return random.fold_in(self.key, self.index + number * _MAX_DRAWS)


def map_draws(run: Callable[[DrawKey], Any], key: jax.Array, num: int) -> Any:
    """`jax.vmap` of `run` over the keys of `num` draws."""
    if num > _MAX_DRAWS:
        raise ValueError(f"num_draws is at most {_MAX_DRAWS}, got {num}")
    indices = jnp.arange(num, dtype=jnp.uint32)
    return jax.vmap(run, (DrawKey(None, 0),))(DrawKey(key, indices))  # ty: ignore


class BiasedGradientWarning(UserWarning):
    """A site uses a strategy whose gradient is biased."""


class ScoreRecord(eqx.Module):
    """A score site reduced to what its surrogate term needs."""

    log_prob: jax.Array  # over the site's plates
    strategy: AbstractScore
    address: str = eqx.field(static=True)
    frames: Frames = eqx.field(static=True)
    since: int | None = eqx.field(static=True)

    @staticmethod
    def of(site: Site) -> ScoreRecord:
        """The record of a site that was just drawn."""
        log_prob = site.to_plates(site.log_prob(site.value))
        assert isinstance(site.strategy, AbstractScore)
        return ScoreRecord(log_prob, site.strategy, site.address, site.frames, site.since)


class Suspend(BaseException):
    """Ends a run at the first replay site; the rest of the program is the site's continuation.

    Not an `Exception`, so that a program's own `except Exception` lets it pass.
    """

    def __init__(self, site: Site):
        super().__init__(site.address)
        self.site = site


class Restage(BaseException):
    """Ends a run at the first score site, to begin again under an abstract trace."""


class Context:
    """State of one run of an objective. Lives as long as the run; holds tracers.

    Args:
        key: randomness of the run; the same key gives the n-th site the same draw, whatever is
            fixed elsewhere, so replays share random numbers with the first run.
        fixed: values of sites that are being replayed, by address.
        done: score sites that an enclosing run takes care of.
        suspend: stop at the first replay site that is not fixed.
        stage: the run is traced abstractly, as score sites need; otherwise they raise `Restage`.
        prefix: prepended to all addresses (non-empty inside `particles`).
        plate_key: key of subsampled plates, shared by all programs and particles, so that
            everything in one objective sees the same minibatch.
        states: baseline states by address.
        maximise: whether the caller climbs the objective.
    """

    def __init__(
        self,
        key: jax.Array | DrawKey,
        *,
        fixed: dict[str, jax.Array] | None = None,
        done: frozenset[str] = frozenset(),
        suspend: bool = False,
        stage: bool = True,
        prefix: str = "",
        plate_key: jax.Array | None = None,
        states: dict[str, jax.Array] | None = None,
        maximise: bool = True,
    ):
        if not isinstance(key, DrawKey):
            check_key(key)
        self._draw = key if isinstance(key, DrawKey) else None
        if isinstance(key, DrawKey):
            self.key, self._keys = key.site(0), ()
        else:
            self.key, self._keys = key, random.split(key, _NUM_KEYS)
        self.fixed = fixed or {}
        self.done = done
        self.suspend = suspend
        self.stage = stage
        self.prefix = prefix
        if plate_key is None:
            plate_key = random.fold_in(self.key, crc32(b"plates"))
        self.plate_key = plate_key
        self.states = states or {}
        self.maximise = maximise
        self.sites: list[Site] = []  # every latent site, in execution order
        self.scores: list[Site] = []  # the score sites that this run takes care of
        self.exported: list[ScoreRecord] = []  # score sites of particles
        self.depth = 0  # how many particles enclose this run
        self.mutables: dict[str, jax.Array] = {}
        self.num_terms = 0
        self.scored: list[Any] | None = None  # every sample statement, for diagnoses
        self._num_calls = 0
        self._num_sites = 0

    def records(self) -> list[ScoreRecord]:
        """The score sites met so far that this run takes care of."""
        return [ScoreRecord.of(site) for site in self.scores] + self.exported

    def enter_call(self) -> tuple[str, jax.Array]:
        """Address prefix and key of the next program run inside the objective."""
        number = self._num_calls
        self._num_calls += 1
        return f"{self.prefix}{number}/", random.fold_in(self.key, crc32(b"call %d" % number))

    def enter_site(self) -> jax.Array:
        """Key of the next latent site; sites count whether they are drawn or fixed."""
        number = self._num_sites
        self._num_sites += 1
        if self._draw is not None:
            return self._draw.site(number + 1)
        if number < len(self._keys):
            return self._keys[number]
        return random.fold_in(self.key, number)

    def add(self, site: Site) -> None:
        """Registers a site. Raises `Suspend` if the run has to stop at it."""
        replay = isinstance(site.strategy, AbstractReplay)
        if not site.strategy.unbiased and all(site.address != s.address for s in self.sites):
            warnings.warn(
                f"site {site.name!r}: the gradient of strategy {site.strategy.name} is biased",
                BiasedGradientWarning,
                stacklevel=2,
            )
        self.sites.append(site)
        if isinstance(site.strategy, AbstractScore) and site.address not in self.done:
            if not self.stage:
                raise Restage
            self.scores.append(site)
        if replay and self.suspend and site.address not in self.fixed:
            raise Suspend(site)


_LOCAL = threading.local()


def current(caller: str) -> Context:
    """The innermost running context.

    Raises:
        RuntimeError: there is none.
    """
    context = peek()
    if context is None:
        raise RuntimeError(
            f"vi.{caller} draws random values and must run inside an objective: "
            "decorate the function that calls it with @vi.expectation and call "
            ".estimate(key, ...), .surrogate(key, ...) or .value_and_grad(key, ...)"
        )
    return context


def peek() -> Context | None:
    """The innermost running context, or None."""
    stack = getattr(_LOCAL, "stack", None)
    return stack[-1] if stack else None


@contextmanager
def activate(context: Context) -> Generator[Context]:
    """Makes `context` the running one."""
    stack = _LOCAL.__dict__.setdefault("stack", [])
    stack.append(context)
    try:
        yield context
    finally:
        stack.pop()


@contextmanager
def replace_strategies(replaced: dict[str, AbstractStrategy]) -> Generator[None]:
    """Gives the sites at some addresses another strategy, in everything traced meanwhile."""
    before = getattr(_LOCAL, "replaced", {})
    _LOCAL.replaced = replaced
    try:
        yield
    finally:
        _LOCAL.replaced = before


def replaced_strategy(address: str) -> AbstractStrategy | None:
    """The strategy that `replace_strategies` gives a site, or None."""
    return getattr(_LOCAL, "replaced", {}).get(address)
