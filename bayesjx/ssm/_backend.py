"""Which way through a series is the fastest."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any

import jax
import jax.numpy as jnp

from .._core import FUSE_LOOPS
from ._engine import Plan

BACKENDS = ("auto", "sequential", "chunked")
FEW = 64  # observations below which one step after another is never slower
MOST_STATES = 4  # of parts side by side, whose programs take long to compile beyond
LANES = {"cpu": (16, 1024), "gpu": (64, 65536), "tpu": (128, 65536)}


def plan(backend: str, n: int, d: int, dtype: Any) -> Plan:
    """How to filter a series.

    Args:
        backend: "sequential", "chunked", or "auto": measured on two CPU cores, steps one after
            another are as fast as parts side by side if XLA fuses the loop, see `configure_cpu`,
            and up to twenty times slower if it does not. Parts have at most 4 states.
        n: observations.
        d: states.
        dtype: of the numbers; single precision takes the accurate process noise.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {BACKENDS}, got {backend!r}")
    precise = dtype != jnp.float64
    platform = jax.default_backend()
    fused = platform == "cpu" and loops_are_fused()
    one_by_one = backend == "auto" and (fused or d > MOST_STATES)
    if backend == "sequential" or n < FEW or one_by_one:
        if platform == "cpu" and not fused and n > FEW:
            _hint()
        return Plan(1, precise)
    least, most = LANES.get(platform, LANES["cpu"])
    lanes = 2 ** round(math.log2(math.sqrt(n)))
    return Plan(min(max(lanes, least), most), precise)


def loops_are_fused() -> bool:
    """Whether `configure_cpu`, or the user, has set the option of XLA that fuses small loops."""
    return FUSE_LOOPS in os.environ.get("XLA_FLAGS", "")


def _hint() -> None:
    warnings.warn(
        "filtering one step after another is slow on CPUs unless XLA fuses the loop: call "
        "bayesjx.configure_cpu() before the first computation",
        stacklevel=4,
    )
