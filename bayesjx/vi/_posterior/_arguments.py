"""Arguments of models: arrays are traced, and anything else is part of what is compiled."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np

TO_NUMPY = "pass or make such, e.g. jnp.asarray(column.to_numpy(float))"


class _Held:
    """An argument that cannot be hashed (a table, an array of objects), equal to itself only."""

    def __init__(self, value: Any):
        self.value = value


def is_table(leaf: Any) -> bool:
    """Whether an argument is a table, a column of one, or an array of objects."""
    return hasattr(leaf, "to_numpy") or (isinstance(leaf, np.ndarray) and leaf.dtype.kind == "O")


def hold(leaf: Any) -> Any:
    """A leaf of the arguments as an array, or as something with a hash."""
    if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "fiub":
        return jnp.asarray(leaf)
    try:
        hash(leaf)
    except TypeError:
        return leaf if eqx.is_array(leaf) else _Held(leaf)
    return leaf


def released(leaf: Any) -> Any:
    """What `hold` was given."""
    return leaf.value if isinstance(leaf, _Held) else leaf
