"""Budgets of active weights: how many units each layer has."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ._arguments import real
from ._weight import grid

BUDGETS = ("uniform", "erk", "global")


def unit_of(size: tuple[int, int], block: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of a unit, no more than the matrix has."""
    return min(block[0], size[0]), min(block[1], size[1])


def units_of_density(name: str, size: tuple[int, int], block: tuple[int, int], density: Any) -> int:
    """Units of each group that are active.

    Raises:
        ValueError: none are, or the density is no number in (0, 1].
    """
    share = real(f"density of {name}", density, 0, 1, "a number above 0 and at most 1")
    candidates = grid(size, block)[1]
    k = round(share * candidates)
    if k < 1:
        raise ValueError(
            f"density {share:g} leaves no unit of {name} active, a matrix of {size[0]} × {size[1]} "
            f"in units of {block[0]} × {block[1]}; raise it, make units smaller, or keep the layer "
            "dense"
        )
    return k


def erk_densities(shapes: Sequence[tuple[int, ...]], density: float) -> list[float]:
    r"""Erdős-Rényi kernel densities, $\epsilon \sum_i n_i / \prod_i n_i$ of a layer, at most 1.

    Args:
        shapes: of the kernels, `(N, C, k1, ...)`; of linear layers `(N, K)`.
        density: of all of them together, in (0, 1].

    References:
        Evci, Gale, Menick, Castro and Elsen (2020), "Rigging the lottery", ICML, section 3.
    """
    sizes = np.array([math.prod(shape) for shape in shapes], float)
    raw = np.array([sum(shape) for shape in shapes]) / sizes
    full = np.zeros(len(shapes), bool)
    while True:
        left = density * sizes.sum() - sizes[full].sum()
        scale = left / np.sum((raw * sizes)[~full]) if not full.all() else 0.0
        densities = np.where(full, 1.0, scale * raw)
        above = (densities > 1) & ~full
        if not above.any():
            return [float(d) for d in densities]
        full |= above


def global_densities(norms: Sequence[np.ndarray], units: Sequence[int], density: float) -> list:
    """Densities of layers that keep the largest units of all layers together.

    Args:
        norms: for each layer the mean square of a weight in each unit.
        units: the number of weights in a unit of each layer.
        density: of all of them together.
    """
    value = np.concatenate([np.ravel(n) for n in norms])
    layer = np.repeat(np.arange(len(norms)), [n.size for n in norms])
    weight = np.asarray(units)[layer]
    order = np.argsort(-value, kind="stable")
    kept = order[np.cumsum(weight[order]) <= density * weight.sum() * (1 + 1e-12)]
    counts = np.bincount(layer[kept], minlength=len(norms))
    return [float(c / n.size) for c, n in zip(counts, norms, strict=True)]
