"""Which latent coordinates of a model share plates."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...distributions import NestedGroup, NestedLayout


def nested_layout(sites: dict[str, Any], values: dict[str, Any]) -> NestedLayout:
    """Groups the coordinates of the flat latent vector by their plates.

    Args:
        sites: NumPyro's messages of the latent sites, in the order of the flat vector.
        values: unconstrained values by name.
    """
    rank = max((-f.dim for site in sites.values() for f in site["cond_indep_stack"]), default=0)
    blocks: dict[frozenset, list[np.ndarray]] = {}
    start = 0
    for name, site in sites.items():
        shape = np.shape(values[name])
        index = np.asarray(start + np.arange(np.prod(shape, dtype=int)).reshape(shape))
        start += index.size
        frames = frozenset(site["cond_indep_stack"])
        blocks.setdefault(frames, []).append(_split_axes(index, site, frames, rank))
    order = sorted(blocks, key=len)  # fewer plates first, so that parents come first
    groups = []
    for frames in order:
        parents = tuple(i for i, other in enumerate(order) if other < frames)
        groups.append(NestedGroup(np.concatenate(blocks[frames], axis=-1), parents))
    return NestedLayout(tuple(groups))


def _split_axes(index: np.ndarray, site: Any, frames: frozenset, rank: int) -> np.ndarray:
    """From the shape of a site's value to the grid of its plates and one axis for the rest."""
    batch = len(site["fn"].batch_shape)
    axes = {batch + frame.dim: frame for frame in frames}
    plates = sorted(axes)
    rest = [axis for axis in range(index.ndim) if axis not in axes]
    grid = [1] * rank
    for frame in frames:
        grid[frame.dim] = frame.size
    return index.transpose(*plates, *rest).reshape(*grid, -1)
