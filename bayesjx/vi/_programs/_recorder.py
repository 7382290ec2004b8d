"""The cost terms of a program's sample statements."""

from __future__ import annotations

import abc
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import jax.numpy as jnp
from numpyro.distributions.util import is_identically_one
from numpyro.primitives import CondIndepStackFrame as Frame, Messenger

from .._estimator import (
    Context,
    float_dtype,
    match_dtype,
    named,
    Scored,
    split,
    Term,
    unvalidated,
)
from ._loops import (
    of_all_steps,
)
from ._matching import (
    check_observed,
)


class AbstractRecorder(Messenger, abc.ABC):
    """Abstract base class of handlers that make a cost term of each sample statement, and check it.

    Args:
        context: of the running objective, None outside of one.
        prefix: of the addresses of sites.
        change_term: from the message of a site and its term to another term.
    """

    def __init__(
        self,
        context: Context | None,
        prefix: str,
        change_term: Callable[[Any, Term], Term] | None = None,
    ):
        super().__init__()
        self.context = context
        self.prefix = prefix
        self.change_term = change_term
        self.terms: list[Term] = []
        self.names: set[str] = set()
        self.frames: dict[str, Frame] = {}

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "mutable" and self.context is not None:
            self.context.mutables[msg["name"]] = msg["value"]
        if msg["type"] != "sample":
            return
        name = msg["name"]
        if name in self.names:
            raise ValueError(
                f"site {name!r} is sampled twice in one program; every sample site needs a name "
                "of its own (use numpyro.plate or numpyro.handlers.scope for repeated structure)"
            )
        self.names.add(name)
        for frame in msg["cond_indep_stack"]:
            self.check_plate(name, frame)
        term = self.term(msg)
        self.terms.append(term if self.change_term is None else self.change_term(msg, term))

    def subsample(self, msg: Any) -> None:
        """Draws the indices of a subsampled plate from the key that the whole objective shares."""
        if msg["value"] is not None:
            return
        if self.context is None:
            raise ValueError(
                f"plate {msg['name']!r} is subsampled, which needs a random key: call "
                "vi.log_density inside an objective, or pass the Trace of a guide with that plate"
            )
        key = named(self.context.plate_key, msg["name"])
        msg["value"] = msg["fn"](*msg["args"], rng_key=key)

    def check_plate(self, site: str, frame: Frame) -> None:
        known = self.frames.setdefault(frame.name, frame)
        if known != frame:
            raise ValueError(
                f"site {site!r}: plate {frame.name!r} has dim {frame.dim} and size {frame.size} "
                f"here but dim {known.dim} and size {known.size} elsewhere; give the plate the "
                "same dim= and size in model and guide"
            )

    def term(self, msg: Any) -> Term:
        fn, value, name = split(of_all_steps(msg), {})[0], msg["value"], msg["name"]
        frames = frozenset(msg["cond_indep_stack"])
        if msg["is_observed"]:
            check_observed(name, fn, value, frames)
        else:
            self.check_latent(msg, fn)
        if self.needs_no_validation(msg):
            fn = unvalidated(fn)
        with self.context.within(self.prefix, name) if self.context else nullcontext():
            if msg.get("intermediates"):
                log_prob = fn.log_prob(value, msg["intermediates"])
            else:
                log_prob = fn.log_prob(value)
        log_prob = match_dtype(jnp.asarray(log_prob), (fn, value))
        if self.context is not None and self.context.scored is not None:
            source = self.is_drawn(msg), msg["is_observed"]
            self.context.scored.append(Scored(fn, value, log_prob, self.prefix + name, *source))
        scale, weight = msg["scale"], 1.0
        if scale is not None and not is_identically_one(scale):
            log_prob = scale * log_prob
            weight = scale if isinstance(scale, float) else float("nan")
        return Term(
            log_prob,
            frames=frames,
            label=self.prefix + name,
            scale=weight,
            detached=self.is_detached(msg),
            weak=float_dtype((fn, value)) is None,
        )

    @abc.abstractmethod
    def check_latent(self, msg: Any, fn: Any) -> None:
        """Refuses values that do not fit their latent site."""

    @abc.abstractmethod
    def is_drawn(self, msg: Any) -> bool:
        """Whether the value is a draw from the site's own distribution."""

    @abc.abstractmethod
    def is_detached(self, msg: Any) -> bool:
        """Whether the term is the log density of a draw of a score-function or replay site."""

    @abc.abstractmethod
    def needs_no_validation(self, msg: Any) -> bool:
        """Whether the value is in the support by construction."""
