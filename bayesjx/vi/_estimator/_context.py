"""Running programs inside an objective: keys, addresses, values to replay, and what was seen."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from hashlib import blake2b
from typing import Any, NamedTuple
from zlib import crc32

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, Int

from ..._core import check_key
from ._cost import (
    Frames,
)
from ._site import (
    Site,
)
from ._strategy import (
    AbstractReplay,
    AbstractScore,
    AbstractStrategy,
)


def named(key: jax.Array, name: str) -> jax.Array:
    """The key of a name, the same wherever the name appears; not to be named again.

    Its words are those of `key` plus a digest of the name, modulo 2: the generators of JAX make
    independent streams of keys that differ in any bit, so nothing has to be computed.

    References:
        Salmon, Moraes, Dror and Shaw (2011), "Parallel random numbers: as easy as 1, 2, 3", SC.
    """
    typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    words = random.key_data(key) if typed else key
    digest = blake2b(name.encode(), digest_size=4 * words.shape[-1]).digest()
    words = words ^ np.frombuffer(digest, "<u4").astype(np.uint32)
    return random.wrap_key_data(words, impl=random.key_impl(key)) if typed else words


class DrawKey(NamedTuple):
    """Randomness of one of many draws that share a key.

    The keys of a site in all draws then come from one hash of as many numbers as there are draws;
    a key for each draw would take another, which small models feel.
    """

    key: jax.Array
    index: Int[Array, ""]

    def site(self, name: str) -> jax.Array:
        """Key of a site."""
        return random.fold_in(named(self.key, name), self.index)

    def rest(self) -> jax.Array:
        """Key of everything else."""
        return random.fold_in(self.key, self.index)


def map_draws(run: Callable[[DrawKey], Any], key: jax.Array, num: int) -> Any:
    """`jax.vmap` of `run` over the keys of `num` draws."""
    indices = jnp.arange(num, dtype=jnp.uint32)
    return jax.vmap(run, (DrawKey(None, 0),))(DrawKey(key, indices))  # ty: ignore


class BiasedGradientWarning(UserWarning):
    """A site uses a strategy whose gradient is biased."""


class ScoreRecord(eqx.Module):
    """A score site reduced to what its surrogate term needs."""

    log_prob: Float[Array, ...]  # over the site's plates
    strategy: AbstractScore
    address: str = eqx.field(static=True)
    frames: Frames = eqx.field(static=True)

    @staticmethod
    def of(site: Site) -> ScoreRecord:
        """The record of a site that was just drawn."""
        log_prob = site.to_plates(site.log_prob(site.value))
        assert isinstance(site.strategy, AbstractScore)
        return ScoreRecord(log_prob, site.strategy, site.address, site.frames)


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
        key: randomness of the run; the same key gives a site of the same name in the same program
            the same draw, whatever other sites there are and whichever are fixed, so replays share
            random numbers with the first run.
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
            self.key = key.rest()
        else:
            check_key(key)
            self.key = key
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
        self.scored: list[Any] | None = None  # every sample statement, for diagnoses
        self._num_calls = 0
        self._scope = ""  # the site that is being drawn or scored
        self._calls_within: dict[str, int] = {}
        self._programs: dict[str, str] = {}  # what names of keys begin with, by address prefix

    def records(self) -> list[ScoreRecord]:
        """The score sites met so far that this run takes care of."""
        return [ScoreRecord.of(site) for site in self.scores] + self.exported

    def enter_call(self) -> tuple[str, jax.Array]:
        """Address prefix and key of the next program run inside the objective.

        Runs that serve a site, as those of a marginal do, are counted for themselves in what keys
        are made of, so that such a site changes no other's draws.
        """
        prefix = f"{self.prefix}{self._num_calls}/"
        self._num_calls += 1
        number = self._calls_within.get(self._scope, 0)
        self._calls_within[self._scope] = number + 1
        self._programs[prefix] = program = f"{self._scope}{number}/"
        return prefix, random.fold_in(self.key, crc32(b"call " + program.encode()))

    def site_key(self, prefix: str, name: str) -> jax.Array:
        """Key of a latent site of the program with the address prefix."""
        name = self._programs[prefix] + name
        return named(self.key, name) if self._draw is None else self._draw.site(name)

    @contextmanager
    def within(self, prefix: str, name: str) -> Generator[None]:
        """While a site is drawn or scored."""
        before = self._scope
        self._scope = f"{self._programs[prefix]}{name}/"
        try:
            yield
        finally:
            self._scope = before

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
