"""Many chains of draws ahead, recorded on the way, in one compiled program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._core import compiled, run_traced, traced, TracedFunction, whole_number

MOST_NUMBERS = 2**24  # of states and rows at a time


class Horizon(NamedTuple):
    """Steps in segments of the same length, the last of which may be cut short.

    Attributes:
        num_data: rows before the first step.
        num_forward: steps.
        length: of a segment.
        number: of segments.
    """

    num_data: int
    num_forward: int
    length: int
    number: int

    @property
    def num_rows(self) -> np.ndarray:
        """Rows in all after each segment."""
        ends = np.minimum(self.length * np.arange(1, self.number + 1), self.num_forward)
        return self.num_data + ends


def horizon_of(owner: str, num_data: int, num_forward: Any, num_records: Any) -> Horizon:
    """Steps in about `num_records` segments.

    Raises:
        ValueError: numbers that are no positive integers.
    """
    num_forward = whole_number(f"{owner}: num_forward", num_forward)
    records = min(whole_number(f"{owner}: num_records", num_records), num_forward)
    length = -(-num_forward // records)
    return Horizon(num_data, num_forward, length, -(-num_forward // length))


def run_segments(
    horizon: Horizon, carry: Any, step: Callable[[Any, Any], Any], observe: Callable[[Any], Any]
) -> tuple[Any, Any]:
    """The carry after all steps, and what was observed after each segment, stacked.

    Args:
        horizon: how many steps.
        carry: pytree of arrays.
        step: from the number of a step, from 0 on, and a carry to the next.
        observe: from a carry to a pytree of arrays.
    """

    def one(carry: Any, t: Any) -> tuple[Any, None]:
        if horizon.number * horizon.length == horizon.num_forward:
            return step(t, carry), None
        later = lambda c: step(t, c)  # noqa: E731
        return jax.lax.cond(t < horizon.num_forward, later, lambda c: c, carry), None

    def segment(carry: Any, first: Any) -> tuple[Any, Any]:
        carry, _ = jax.lax.scan(one, carry, first + jnp.arange(horizon.length))
        return carry, observe(carry)

    return jax.lax.scan(segment, carry, horizon.length * jnp.arange(horizon.number))


def batch_of(owner: str, batch_size: Any, num_samples: int, room: int) -> int:
    """How many chains run side by side.

    Args:
        owner: for errors.
        batch_size: what was asked for, or None.
        num_samples: chains.
        room: numbers that one takes.
    """
    if batch_size is None:
        batch_size = max(1, MOST_NUMBERS // max(room, 1))
    return min(whole_number(f"{owner}: batch_size", batch_size), num_samples)


def run_chains(
    one: Callable[..., Any], keys: Any, arrays: Any, batch_size: int, source: Any = None
) -> Any:
    """A function of a key for each of them, compiled once for functions that do the same.

    Args:
        one: `one(key, arrays)`, which may close over further arrays.
        keys: PRNG keys.
        arrays: pytree of arrays.
        batch_size: how many side by side.
        source: function of a user that it is made of, or None.
    """
    of_one = traced(one, keys[0], arrays, source=source)
    return run_traced(_chains, of_one, of_one, keys, arrays, batch_size)


def applied(function: Callable[..., Any], *args: Any, source: Any = None) -> Any:
    """What a function returns, compiled once for functions that do the same.

    Args:
        function: of pytrees of arrays.
        args: these.
        source: function of a user that it is made of, or None.
    """
    of = traced(function, *args, source=source)
    return run_traced(_applied, of, of, args)


@compiled
def _applied(of: TracedFunction, args: tuple[Any, ...]) -> Any:
    return of(*args)


@compiled
def _chains(of_one: TracedFunction, keys: Any, arrays: Any, batch_size: int) -> Any:
    return jax.lax.map(lambda key: of_one(key, arrays), keys, batch_size=batch_size)
