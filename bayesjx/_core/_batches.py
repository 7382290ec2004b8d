"""Batches of `fit`: one per step, moved to the device in stacks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bayesjx._core._tree import is_array, path_name, shape_text

_STACK_BYTES = 64 * 2**20  # of a stack, where the user leaves the chunk size to us


class Batches:
    """Checks and stacks what the user's `batches(step)` returns.

    Attributes:
        first: the batch of step 0, NumPy arrays.
    """

    first: tuple

    def __init__(self, batches: Callable[[int], tuple] | None):
        self._batches = batches or (lambda step: ())
        self.first = self.at(0)

    def at(self, step: int) -> tuple:
        """The batch of one step, as NumPy arrays."""
        batch = self._batches(step)
        if not isinstance(batch, tuple):
            raise ValueError(
                f"batches({step}) must return a tuple, one entry per argument of step after the "
                f"state; got {type(batch).__name__}. For one argument write (x,)."
            )
        batch = jax.tree_util.tree_map_with_path(
            lambda path, x: _as_numpy(x, path_name(path, f"batches({step})")), batch
        )
        if step and not self._matches_first(batch):
            raise ValueError(
                f"batches({step}) has {_tree_text(batch)}, but batches(0) has "
                f"{_tree_text(self.first)}. All batches need the same shapes: drop or pad the "
                "last batch of an epoch."
            )
        return batch

    def stack(self, first: int, count: int, capacity: int) -> tuple:
        """Batches of `count` steps on a leading axis of length `capacity`; the rest is zero."""
        if not self.first:
            return ()
        stacked = jax.tree.map(
            lambda x: np.zeros((capacity, *x.shape), x.dtype), self.first, is_leaf=is_array
        )
        for i in range(count):
            jax.tree.map(lambda out, x, i=i: _put(out, i, x), stacked, self.at(first + i))
        return stacked

    def default_limit(self) -> int:
        """How many batches fit in a stack of moderate size."""
        size = sum(x.nbytes for x in jax.tree.leaves(self.first))
        return max(1, _STACK_BYTES // max(1, size))

    def _matches_first(self, batch: tuple) -> bool:
        if jax.tree.structure(batch) != jax.tree.structure(self.first):
            return False
        pairs = zip(jax.tree.leaves(batch), jax.tree.leaves(self.first), strict=True)
        return all(x.shape == y.shape and x.dtype == y.dtype for x, y in pairs)


def _as_numpy(x: Any, name: str) -> np.ndarray:
    if not is_array(x):
        raise ValueError(f"{name} must be an array; got {type(x).__name__}.")
    if x.size == 0:
        raise ValueError(f"{name} is empty: its shape is {x.shape}.")
    x = np.asarray(x)
    return x.astype(jnp.result_type(x), copy=False)  # float64 is float32 unless x64 is on


def _put(out: np.ndarray, i: int, x: np.ndarray) -> None:
    out[i] = x


def _tree_text(tree: Any) -> str:
    return "(" + ", ".join(shape_text(x) for x in jax.tree.leaves(tree)) + ")"
