"""Which way through a series is the fastest."""

from __future__ import annotations

import math
import os
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from .._core import FUSE_LOOPS
from ._elementary_spaces import ConstantSpace, LineSpace, MaternSpace, WaveSpace, WienerSpace
from ._spaces import AbstractStateSpace, ScaledSpace

BACKENDS = ("auto", "sequential", "chunked", "associative", "square-root", "steady")
FEW = 64  # observations below which one step after another is never slower
MOST_STATES = 4  # that are written out entry by entry; programs of more take long to compile
LANES = {"cpu": (16, 1024), "gpu": (64, 65536), "tpu": (128, 65536)}
ARRAY_LANES = 16  # on CPUs, of states that are arrays
ARRAY_STATES = 12  # up to which parts side by side are faster on CPUs
BRIEF_STATES = 2
BRIEF = (MaternSpace, WaveSpace, ConstantSpace, LineSpace, WienerSpace)  # of few operations


class Plan(NamedTuple):
    """Backend, lanes and algebra of a filter over a series; static.

    Attributes:
        lanes: parts that are filtered side by side; 1 for one step after another.
        precise: accurate process noise and Joseph's form, for single precision.
        arrays: whether matrices are arrays, and not written out entry by entry; see `_algebra`.
        associative: whether parts are combined by a scan that takes a logarithmic number of steps.
        roots: whether the filter carries roots of covariances.
        steady: whether the filter takes its steady-state gain.
        brief: whether the density without derivatives goes one step after another all the same.
    """

    lanes: int
    precise: bool
    arrays: bool = False
    associative: bool = False
    roots: bool = False
    steady: bool = False
    brief: bool = False


def plan(
    backend: str, n: int, d: int, dtype: Any, arrays: bool = False, brief: bool = False
) -> Plan:
    """The plan by which a series is filtered.

    Args:
        backend: see `MarkovGP`. What "auto" does was measured on two CPU cores: up to four states
            are written out entry by entry; then steps one after another are as fast as parts side
            by side if XLA fuses the loop, see `configure_cpu`, and up to twenty times slower if it
            does not. Densities of brief processes, without derivatives, are one loop that it always
            fuses. States that are arrays go side by side, 16 parts, up to 12 of them.
        n: observations.
        d: states.
        dtype: of the numbers; single precision takes the accurate process noise.
        arrays: whether states must be arrays, as several outputs need them.
        brief: see `is_brief`.
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
    better_in_turn = d > ARRAY_STATES if arrays else fused
    if backend == "sequential" or n < FEW or (backend == "auto" and better_in_turn):
        if platform == "cpu" and not fused and not arrays and n > FEW:
            _hint()
        return Plan(1, precise, arrays)
    if arrays and platform == "cpu":
        return Plan(ARRAY_LANES, precise, arrays)
    least, most = LANES.get(platform, LANES["cpu"])
    lanes = 2 ** round(math.log2(math.sqrt(n)))
    brief = brief and backend == "auto" and platform == "cpu" and not (arrays or precise)
    return Plan(min(max(lanes, least), most), precise, arrays, brief=brief)


def is_brief(space: AbstractStateSpace) -> bool:
    """Whether XLA always makes one kernel of the filter's loop, as its body handles little enough.

    Measured in double precision on CPUs.
    """
    return space.size <= BRIEF_STATES and all(isinstance(_bare(b), BRIEF) for b in space.blocks)


def _bare(space: AbstractStateSpace) -> AbstractStateSpace:
    return _bare(space.space) if isinstance(space, ScaledSpace) else space


def loops_are_fused() -> bool:
    """Whether `configure_cpu`, or the user, has set the option of XLA that fuses small loops."""
    return FUSE_LOOPS in os.environ.get("XLA_FLAGS", "")


def _hint() -> None:
    warnings.warn(
        "filtering one step after another is slow on CPUs unless XLA fuses the loop: call "
        "bayesjx.configure_cpu() before the first computation",
        stacklevel=4,
    )
