"""The states of the causes over which a truncated posterior runs, as tables known when traced."""

from __future__ import annotations

import functools
import itertools
import math
from typing import Any

import numpy as np

from ..._core import whole_number

MOST_STATES = 2**18  # of one datum


def truncation(
    num_causes: int, num_values: int, num_candidates: Any, max_active: Any
) -> tuple[int, int]:
    """The size of a truncated posterior, checked; by default 7 candidates of which 5 are active.

    Args:
        num_causes: of the model.
        num_values: that an active cause has.
        num_candidates: causes for each datum that may be active together, or None.
        max_active: of them at once, or None.

    Raises:
        ValueError: more candidates than causes, more active causes than candidates, or more states
            than fit in memory.
    """
    candidates = _count("num_candidates", num_candidates, min(7, num_causes))
    if candidates > num_causes:
        raise ValueError(f"num_candidates is {candidates}, but there are {num_causes} causes")
    active = _count("max_active", max_active, min(5, candidates))
    if active > candidates:
        raise ValueError(
            f"max_active is {active}, but states have at most {candidates} active causes, those of "
            "num_candidates"
        )
    number = num_states(num_causes, num_values, candidates, active)
    if number > MOST_STATES:
        raise ValueError(
            f"num_candidates={candidates} and max_active={active} make {number} states of each "
            f"datum, more than {MOST_STATES}; take fewer"
        )
    return candidates, active


def num_states(num_causes: int, num_values: int, num_candidates: int, max_active: int) -> int:
    """How many there are: none active, each cause alone, and several of the candidates."""
    several = (math.comb(num_candidates, g) * num_values**g for g in range(2, max_active + 1))
    return 1 + num_causes * num_values + sum(several)


@functools.cache
def subsets(num_candidates: int, size: int) -> np.ndarray:
    """Subsets of so many candidates, by their numbers in ascending order, shape `(k, size)`."""
    rows = list(itertools.combinations(range(num_candidates), size))
    return np.array(rows, dtype=np.int32).reshape(-1, size)


@functools.cache
def several_active(num_candidates: int, max_active: int, values: tuple[float, ...]) -> np.ndarray:
    """States with two and more active candidates, by the value of each, shape `(k, c)`."""
    rows = []
    for size in range(2, max_active + 1):
        for active in subsets(num_candidates, size):
            for chosen in itertools.product(values, repeat=size):
                row = np.zeros(num_candidates)
                row[active] = chosen
                rows.append(row)
    return np.array(rows, dtype=float).reshape(-1, num_candidates)


@functools.cache
def pairs(num_candidates: int) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of candidates, the first not after the second."""
    first, second = np.triu_indices(num_candidates)
    return first.astype(np.int32), second.astype(np.int32)


@functools.cache
def pair_number(num_candidates: int) -> np.ndarray:
    """The number of each pair in `pairs`, either way round, shape `(c, c)`."""
    first, second = pairs(num_candidates)
    numbers = np.zeros((num_candidates, num_candidates), np.int32)
    numbers[first, second] = numbers[second, first] = np.arange(len(first))
    return numbers


def _count(name: str, value: Any, default: int) -> int:
    return default if value is None else whole_number(name, value)
