"""Which way through a series is the fastest."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._core import FUSE_LOOPS

BACKENDS = ("auto", "sequential", "chunked", "associative", "square-root", "steady")
LONG = 50_000  # observations from which on parts are faster, of one or two states
FEW = 64  # observations below which one step after another is never slower
MOST_STATES = 4  # that are written out entry by entry; programs of more take long to compile
LANES = {"cpu": (16, 1024), "gpu": (64, 65536), "tpu": (128, 65536)}
ARRAY_LANES = 16  # on CPUs, of states that are arrays
ARRAY_STATES = 12  # up to which parts side by side are faster there


class Plan(NamedTuple):
    """How to go through a series; static.

    Attributes:
        lanes: parts that are filtered side by side; 1 for one step after another.
        precise: see `predict`.
        arrays: whether matrices are arrays, and not written out entry by entry.
        associative: whether parts are joined by a scan that takes a logarithmic number of steps.
        roots: whether the filter carries roots of covariances.
        steady: whether the filter's gain is held at its limit.
    """

    lanes: int
    precise: bool
    arrays: bool = False
    associative: bool = False
    roots: bool = False
    steady: bool = False


def plan(backend: str, n: int, d: int, dtype: Any, arrays: bool = False) -> Plan:
    """How to filter a series.

    Args:
        backend: see `MarkovGP`. What "auto" does was measured on two CPU cores: up to four states
            are written out entry by entry; then steps one after another are as fast as parts side
            by side if XLA fuses the loop, see `configure_cpu`, and up to twenty times slower if it
            does not; of one or two states long series are always faster in parts. States that are
            arrays go side by side, 16 parts, up to 12 of them.
        n: observations.
        d: states.
        dtype: of the numbers; single precision takes the accurate process noise.
        arrays: whether states must be arrays, as several outputs need them.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    precise = dtype != jnp.float64
    if backend == "associative":
        return Plan(n, precise, arrays=True, associative=True)
    if backend in ("square-root", "steady"):
        roots, steady = backend == "square-root", backend == "steady"
        return Plan(1, precise, arrays=True, roots=roots, steady=steady)
    arrays = arrays or d > MOST_STATES
    platform = jax.default_backend()
    fused = platform == "cpu" and loops_are_fused()
    short = d > 2 or n < LONG
    better_in_turn = d > ARRAY_STATES if arrays else fused and short
    if backend == "sequential" or n < FEW or (backend == "auto" and better_in_turn):
        if platform == "cpu" and not fused and not arrays and n > FEW:
            _hint()
        return Plan(1, precise, arrays)
    if arrays and platform == "cpu":
        return Plan(ARRAY_LANES, precise, arrays)
    least, most = LANES.get(platform, LANES["cpu"])
    lanes = 2 ** round(math.log2(math.sqrt(n)))
    return Plan(min(max(lanes, least), most), precise, arrays)


def loops_are_fused() -> bool:
    """Whether `configure_cpu`, or the user, has set the option of XLA that fuses small loops."""
    return FUSE_LOOPS in os.environ.get("XLA_FLAGS", "")


def _hint() -> None:
    warnings.warn(
        "filtering one step after another is slow on CPUs unless XLA fuses the loop: call "
        "bayesjx.configure_cpu() before the first computation",
        stacklevel=4,
    )
