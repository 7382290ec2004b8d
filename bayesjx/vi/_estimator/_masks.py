"""Which elements of a site a mask hides."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpyro.distributions.distribution import (
    ExpandedDistribution,
    Independent,
    MaskedDistribution,
)
from numpyro.util import not_jax_tracer as is_concrete

from ._distributions import (
    elementwise,
    elementwise_family,
    unmasked,
    WithStrategy,
)


def hides(fn: Any) -> bool:
    """Whether an array masks some elements, or may do so: its values are not known yet."""
    return any(
        not isinstance(mask, bool) and (not is_concrete(mask) or not np.asarray(mask).all())
        for mask in _masks(fn)
    )


def is_silenced(fn: Any) -> bool:
    """Whether the whole density is masked away by `mask=False`."""
    return any(mask is False for mask in _masks(fn))


def visible(fn: Any) -> jax.Array:
    """Whether each element is scored, of the shape of the grid of elements: batch and `to_event`.

    What `mask=False` silences counts as visible; see `is_silenced`.
    """
    shape = elementwise(unmasked(fn)).batch_shape
    return jnp.broadcast_to(_visible(fn), shape)


def _visible(fn: Any) -> Any:
    """Broadcasts against the grid from the right."""
    if isinstance(fn, WithStrategy):
        return _visible(fn.base)
    if not isinstance(fn, (ExpandedDistribution, Independent, MaskedDistribution)):
        return np.ones((), bool)
    inner = _visible(fn.base_dist)
    if not isinstance(fn, MaskedDistribution) or isinstance(fn._mask, bool):
        return inner
    undone = fn.event_dim - elementwise_family(fn).event_dim
    return inner & jnp.reshape(fn._mask, jnp.shape(fn._mask) + (1,) * undone)


def _masks(fn: Any) -> list[Any]:
    masks = []
    while isinstance(fn, (ExpandedDistribution, Independent, MaskedDistribution, WithStrategy)):
        if isinstance(fn, MaskedDistribution):
            masks.append(fn._mask)
        fn = fn.base if isinstance(fn, WithStrategy) else fn.base_dist
    return masks
