"""Whether candidates estimate the same thing: moments of their values and gradients over keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

Moments = list[tuple[float, float]]  # mean and standard error, of the value and of the gradient


def moments(function: Any, args: Sequence[Any], draws: int) -> Moments:
    """Mean and standard error of a value and of its gradient along one random direction.

    Args:
        function: `(params, key, data)` to `(value, gradient)`.
        args: the three arguments; the key is replaced.
        draws: how many keys; the same ones in every process.
    """
    params, _, data = args
    rng = np.random.default_rng(0)
    direction = [rng.normal(size=leaf.shape) for leaf in jax.tree.leaves(params)]
    samples = []
    for key in jax.random.split(jax.random.key(1), draws):
        value, gradient = function(params, key, data)
        leaves = jax.tree.leaves(gradient)
        slope = sum(np.vdot(d, leaf) for d, leaf in zip(direction, leaves, strict=True))
        samples.append((float(value), float(slope)))
    columns = np.asarray(samples).T
    return [(float(c.mean()), float(c.std() / draws**0.5)) for c in columns]


def largest_z(found: Mapping[str, Moments], reference: str) -> tuple[float, str]:
    """The largest distance from the reference in standard errors, and whose it is."""
    worst = (0.0, reference)
    for name, pairs in found.items():
        for (mean, error), (want, want_error) in zip(pairs, found[reference], strict=True):
            z = abs(mean - want) / max((error**2 + want_error**2) ** 0.5, 1e-6 * abs(want))
            worst = max(worst, (z, name))
    return worst
