"""Values for the sites inside NumPyro's scan and cond, whose bodies run out of sight."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpyro
from jax import random
from numpyro import handlers
from numpyro.contrib.control_flow.scan import scan_wrapper
from numpyro.primitives import _PYRO_STACK, Messenger

from .._estimator import (
    named,
    tag,
)

Values = Mapping[str, Any]


def is_scan(msg: Any) -> bool:
    """Whether a control-flow message is a scan, not a cond."""
    return msg["fn"] is scan_wrapper


def is_reversed(msg: Any) -> bool:
    """Whether a control-flow message is a scan that runs backwards."""
    return is_scan(msg) and bool(msg["args"][4])


def is_from_loop(msg: Any) -> bool:
    """Whether the site was drawn in the body of NumPyro's scan or cond and is reported now."""
    return bool(msg.get("_control_flow_done"))


def of_all_steps(msg: Any) -> Any:
    """The distribution of a site; NumPyro's scan leaves the steps out of one without parameters."""
    fn = msg["fn"]
    if not is_from_loop(msg) or jax.tree.leaves(fn):
        return fn
    shape, own = jnp.shape(msg["value"]), fn.shape()
    return fn.expand(shape[: len(shape) - len(own)] + fn.batch_shape)


def expand_to_samples(msg: Any) -> None:
    """Turns the `sample_shape` of a sample statement into leading batch axes."""
    if sample_shape := msg["kwargs"].pop("sample_shape", ()):
        msg["fn"] = msg["fn"].expand(sample_shape + msg["fn"].batch_shape)


class GivenInLoops(Messenger):
    """Hands values to the sites in the bodies of loops, by wrapping the bodies themselves.

    NumPyro's own ways reach less far: what it replays does not arrive inside a cond, what it
    substitutes not inside a scan within a scan, and either in the wrong order in a reversed scan.

    Args:
        values: by site name, all steps of a scan along the leading axis.
        plates: handles the message of a plate, which draws its indices; None leaves it alone.
        observed: the values are data: their sites are no latent ones.
        place: from a site's message and what `values` hold for it to its value; by default they
            hold values, whose shapes have to be right.
        rename: from the name of a site here to its name in `values`.
        unfit: names whose values do not have as many steps as a scan around, with the reason.
    """

    def __init__(
        self,
        values: Values,
        plates: Callable[[Any], None] | None = None,
        observed: bool = False,
        place: Callable[[Any, Any], Any] | None = None,
        rename: Callable[[str], str] = lambda name: name,
        unfit: Mapping[str, str] | None = None,
    ):
        super().__init__()
        self.values, self.plates, self.observed = values, plates, observed
        self.place, self.rename, self.unfit = place, rename, unfit or {}

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "control_flow":
            self.enter(msg, self)
        elif msg["type"] == "plate" and self.plates is not None:
            self.plates(msg)
        elif msg["type"] == "sample" and not is_from_loop(msg):
            if not msg["is_observed"]:
                expand_to_samples(msg)
            if self.observed or not msg["is_observed"]:
                self._give(msg)

    def enter(self, msg: Any, handler: Messenger) -> None:
        """Wraps the body of a loop that is about to run.

        Args:
            msg: NumPyro's control-flow message.
            handler: who processes it; scopes that were entered after it rename the sites.
        """
        rename = _within_scopes(handler, self.rename)
        if not is_scan(msg):
            pred, true_fun, false_fun, operand = msg["args"]
            inner = self._inner(self.values, rename, self.unfit)
            msg["args"] = (pred, _under(inner, true_fun), _under(inner, false_fun), operand)
            return
        f, init, xs, length, reverse = msg["args"]
        if length is None and jax.tree.leaves(xs):
            length = jnp.shape(jax.tree.leaves(xs)[0])[0]
        shapes = {name: jnp.shape(value) for name, value in self.values.items()}
        series = {k: v for k, v in self.values.items() if shapes[k][:1] == (length,)}
        unfit = {
            k: f"is in a scan of {length} steps, but the given value has shape {shape}; the values "
            "of all steps are expected along the leading axis"
            for k, shape in shapes.items()
            if k not in series
        }

        def body(carry: Any, inputs: Any) -> Any:
            x, step = inputs
            every = {**self.unfit, **unfit}
            inner = self._inner(step, rename, every)
            return _under(inner, f)(carry, x)

        msg["args"] = (body, init, (xs, series), length, reverse)

    def _inner(self, values: Values, rename: Any, unfit: Any) -> GivenInLoops:
        return GivenInLoops(values, self.plates, self.observed, self.place, rename, unfit)

    def _give(self, msg: Any) -> None:
        name = self.rename(msg["name"])
        if name in self.unfit:
            raise ValueError(f"site {name!r} {self.unfit[name]}")
        if name not in self.values:
            return
        value = self.values[name]
        if self.place is not None:
            value = self.place(msg, value)
        shape = msg["kwargs"].get("sample_shape", ()) + msg["fn"].shape()
        if jnp.shape(value) != shape:
            raise ValueError(
                f"site {name!r} inside scan or cond: the given value has shape "
                f"{jnp.shape(value)} at each step, but the distribution has shape {shape}"
            )
        if msg["kwargs"].get("rng_key") is None:
            # So that the sites after this one get the keys that they have if it is drawn.
            msg["kwargs"]["rng_key"] = numpyro.prng_key()
        msg["value"] = value
        msg["is_observed"] = msg["is_observed"] or self.observed


class Fixed(Messenger):
    """`program` with some of its sites fixed, those in its loops included.

    Args:
        program: NumPyro program.
        values: by site name.
        observed: the sites count as observed.
    """

    def __init__(self, program: Callable[..., Any], values: Values, observed: bool = True):
        super().__init__(program)
        self.values, self.observed = dict(values), observed

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "control_flow":
            GivenInLoops(self.values, observed=self.observed).enter(msg, self)
        elif msg["type"] == "sample" and not is_from_loop(msg) and msg["name"] in self.values:
            msg["value"] = self.values[msg["name"]]
            msg["is_observed"] = msg["is_observed"] or self.observed


class _InLoop(Messenger):
    """In the body of a loop: keys made of the names of sites and plates, and tagged draws.

    Of what leaves a loop, everything counts as computed from the tagged draws in it.
    """

    def __init__(self, key: jax.Array, prefix: str):
        super().__init__()
        self.key, self.prefix = key, prefix

    def process_message(self, msg: Any) -> None:
        kind, wanted = msg["type"], msg["value"] is None
        if kind == "control_flow":
            enter_keyed(msg, self.key, self.prefix)
        elif kind in ("sample", "plate") and wanted and msg["kwargs"]["rng_key"] is None:
            msg["kwargs"]["rng_key"] = named(self.key, f"{kind} {msg['name']}")
        if kind == "sample" and not msg["is_observed"] and not is_from_loop(msg):
            expand_to_samples(msg)

    def postprocess_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and not msg["is_observed"]:
            msg["value"] = tag(msg["value"], self.prefix + msg["name"])


def enter_keyed(msg: Any, key: jax.Array, prefix: str) -> None:
    """Has the body of NumPyro's scan or cond run with `_InLoop`, under keys made of `key`."""
    key = random.fold_in(key, crc32(b"loop"))
    if not is_scan(msg):
        pred, *branches, operand = msg["args"]
        branches = [_run_with(branch, key, prefix) for branch in branches]
        msg["args"] = (pred, *branches, operand)
        return
    step, init, xs, length, reverse = msg["args"]
    if length is None:
        length = jnp.shape(jax.tree.leaves(xs)[0])[0]

    def body(carry: Any, inputs: Any) -> Any:
        x, key = inputs
        return _run_with(step, key, prefix)(carry, x)

    msg["args"] = (body, init, (xs, random.split(key, length)), length, reverse)


def _run_with(fn: Any, key: jax.Array, prefix: str) -> Any:
    def run(*args: Any) -> Any:
        with _InLoop(key, prefix):
            return fn(*args)

    return run


def _under(handler: Messenger, f: Callable[..., Any]) -> Callable[..., Any]:
    def body(*args: Any) -> Any:
        with handler:
            return f(*args)

    return body


def _within_scopes(handler: Messenger, rename: Callable[[str], str]) -> Callable[[str], str]:
    """`rename` after what the scopes do to a name that were entered after `handler`."""
    inner = _PYRO_STACK[_PYRO_STACK.index(handler) + 1 :]
    scopes = [
        h for h in reversed(inner) if isinstance(h, handlers.scope) and "sample" not in h.hide_types
    ]

    def through(name: str) -> str:
        for scope in scopes:
            name = f"{scope.prefix}{scope.divider}{name}"
        return rename(name)

    return through
