"""Checks of arguments that the files of this folder share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..._core import whole_number


def real(name: str, value: Any, low: float | int, high: float | int, wanted: str) -> float:
    """A number in `(low, high]`, as Python's.

    Raises:
        ValueError: it is none, or out of range; the text says `wanted`.
    """
    numeric = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not numeric or not low < value <= high:
        raise ValueError(f"{name} must be {wanted}, got {value!r:.60}")
    return float(value)


def one_of(name: str, value: Any, choices: Sequence[str]) -> str:
    """One of several words.

    Raises:
        ValueError: it is another one.
    """
    if value not in choices:
        raise ValueError(f"{name} must be one of {', '.join(choices)}; got {value!r:.60}")
    return value


def block_of(group: Any, block: Any) -> tuple[int, int]:
    """Rows and columns that are active as one: `block`, or one row of `group` columns.

    Raises:
        ValueError: they are no positive integers.
    """
    if block is None:
        return 1, whole_number("group", group, 1)
    if not isinstance(block, tuple | list) or len(block) != 2:
        raise ValueError(f"block must be two positive integers (rows, columns), got {block!r:.60}")
    return whole_number("block", block[0], 1), whole_number("block", block[1], 1)


def check_optimizer(optimizer: Any) -> None:
    """Refuses what is no gradient transformation of Optax.

    Raises:
        ValueError: it is not.
    """
    if not (hasattr(optimizer, "init") and hasattr(optimizer, "update")):
        raise ValueError(
            "optimizer must be a gradient transformation of Optax such as optax.adam(1e-3), got "
            f"{optimizer!r:.60}"
        )
