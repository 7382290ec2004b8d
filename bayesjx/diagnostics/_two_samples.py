"""Are two sets of draws from the same distribution?"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.stats import binom

from .._core import check_key, checked_finite, compiled, number_array

_CHUNK = 128  # rows whose distances are held at once


class TwoSampleTest(NamedTuple):
    """Result of `c2st`.

    Attributes:
        accuracy: share of the held-out draws that are told apart rightly; near 0.5 if both sets are
            from the same distribution, 1 if they never mix.
        p_value: probability of so high an accuracy or a higher one, if they are.
    """

    accuracy: Float[Array, ""]
    p_value: Float[Array, ""]


def c2st(
    key: jax.Array, first: Any, second: Any, *, num_neighbours: int | None = None
) -> TwoSampleTest:
    """Classifier two-sample test with nearest neighbours.

    Half of the draws of each set vote on the others: a held-out draw is said to be of the set to
    which most of its nearest neighbours belong. Coordinates are divided by their standard
    deviations first. For one data set whose posterior is known, as from long chains; for many data
    sets use `sbc` and `tarp`. Works under `jit` and `vmap`.

    Args:
        key: for the halves.
        first: shape `(n, d)`.
        second: shape `(n, d)`, as many.
        num_neighbours: how many vote, an odd number; near the root of `n` by default.

    Raises:
        ValueError: shapes that disagree, fewer than 4 draws, values that are not finite, an even
            number of neighbours or too high a one.
        RuntimeError: under `jit`, values that are not finite.

    References:
        Lopez-Paz and Oquab (2017), "Revisiting classifier two-sample tests", ICLR, sections 3, 5.
    """
    check_key(key)
    sets = []
    for name, value in (("first", first), ("second", second)):
        value = number_array(f"c2st: {name}", value)
        sets.append(jnp.asarray(checked_finite(f"c2st: {name}", value)))
    shapes = [array.shape for array in sets]
    if shapes[0] != shapes[1] or len(shapes[0]) != 2 or shapes[0][0] < 4:
        raise ValueError(
            f"c2st: first and second must both have shape (n, d) with n of at least 4, got "
            f"{shapes[0]} and {shapes[1]}"
        )
    number = shapes[0][0]
    half = number // 2
    votes = 2 * (math.isqrt(number) // 2) + 1 if num_neighbours is None else num_neighbours
    whole = isinstance(votes, int | np.integer) and not isinstance(votes, bool)
    if not whole or votes < 1 or votes % 2 == 0 or votes > 2 * half:
        raise ValueError(
            f"c2st: num_neighbours must be an odd integer of at most {2 * half}, got {votes!r}"
        )
    sets = [a if jnp.issubdtype(a.dtype, jnp.floating) else a.astype(float) for a in sets]
    dtype = jnp.promote_types(*(array.dtype for array in sets))
    return _nearest(key, jnp.concatenate([array.astype(dtype) for array in sets]), int(votes))


@compiled
def _nearest(key: jax.Array, both: Float[Array, "two_n d"], votes: int) -> TwoSampleTest:
    """Of two sets of the same number, one after the other."""
    number = len(both) // 2
    half = number // 2
    scale = jnp.std(both, axis=0)
    both = both / jnp.where(scale > 0, scale, 1.0)
    order = [
        jax.random.permutation(k, number) + i * number for i, k in enumerate(jax.random.split(key))
    ]
    known = both[jnp.concatenate([rows[:half] for rows in order])]
    held = both[jnp.concatenate([rows[half:] for rows in order])]

    def is_second(x: jax.Array) -> jax.Array:
        distance = jnp.sum((known - x) ** 2, axis=-1)
        return 2 * jnp.sum(jax.lax.top_k(-distance, votes)[1] >= half) > votes

    said = jax.lax.map(is_second, held, batch_size=_CHUNK)
    right = jnp.sum(said == (jnp.arange(len(held)) >= len(held) // 2))
    number = len(held)
    # of a binomial distribution with probability one half; at least `right` of them
    tail = jnp.asarray(binom.sf(np.arange(number + 1) - 1, number, 0.5), both.dtype)
    return TwoSampleTest(right.astype(both.dtype) / number, tail[right])
