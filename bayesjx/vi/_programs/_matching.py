"""Whether values fit the sites that they are scored at: shapes, plates and kinds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from .._estimator import (
    Frames,
)
from ._trace import (
    Drawn,
    is_discrete,
)


def as_values(values: Any) -> dict[str, jax.Array]:
    """A mapping from site names to arrays, made of what a user hands in.

    Raises:
        TypeError: it is none.
    """
    if not isinstance(values, Mapping):
        raise TypeError(
            "values must be a mapping from site names to arrays, or a vi.Trace; got "
            f"{type(values).__name__}"
        )
    arrays = {}
    for name, value in values.items():
        try:
            arrays[name] = jnp.asarray(value)
        except (TypeError, ValueError):
            raise TypeError(
                f"values[{name!r}] must be a number or an array, got {value!r}"
            ) from None
        if jnp.iscomplexobj(arrays[name]):
            raise TypeError(f"values[{name!r}] must be real, got dtype {arrays[name].dtype}")
    return arrays


def check_observed(name: str, fn: Any, value: Any, frames: Frames) -> None:
    """Refuses data that would broadcast into something nobody asked for."""
    shape, want = jnp.shape(value), fn.shape()
    if 0 in shape and 0 not in want:
        raise ValueError(f"site {name!r}: the observed value is empty, of shape {shape}")
    try:
        joint = jnp.broadcast_shapes(shape, want)
    except ValueError:
        joint = None
    if joint is None or (joint != shape and joint != want):
        raise _wrong_shape(name, "observed", shape, fn)
    _check_plates(name, "observed", shape, joint[: len(joint) - fn.event_dim], frames)


def check_given(name: str, fn: Any, value: Any, frames: Frames) -> None:
    """Refuses values of latent sites whose shape is not that of the distribution."""
    shape = jnp.shape(value)
    if shape != fn.shape():
        raise _wrong_shape(name, "given", shape, fn)
    _check_plates(name, "given", shape, fn.batch_shape, frames)


def check_match(
    drawn: Drawn, fn: Any, frames: Frames, sizes: Mapping[str, int], looped: bool
) -> None:
    """Refuses a value that another program drew in a way that its site here does not have.

    Args:
        drawn: how it was drawn.
        fn: the distribution that scores it.
        frames: the plates around the site here.
        sizes: of plates, before subsampling.
        looped: the site is one of a scan, whose steps may be drawn as one event elsewhere.
    """
    name, here = drawn.name, is_discrete(fn)
    kinds = {True: "discrete", False: "continuous", None: "of unknown kind"}
    if None not in (here, drawn.discrete) and here != drawn.discrete:
        raise ValueError(
            f"site {name!r} is {kinds[drawn.discrete]} in the guide, but {kinds[here]} in the "
            f"model; draw {name!r} in the guide from a distribution over the model's values"
        )
    event = drawn.event_dim if drawn.fixed_event else fn.event_dim
    excess = event - fn.event_dim
    if drawn.shape != fn.shape() or not (excess == 0 or (looped and excess == 1)):
        raise ValueError(
            f"site {name!r} has shape {drawn.shape} and event dimension {drawn.event_dim} in the "
            f"guide, but shape {fn.shape()} and event dimension {fn.event_dim} (batch "
            f"{fn.batch_shape}, event {fn.event_shape}) in the model; give it the same "
            "parameters' shapes, plates and to_event in both"
        )
    _check_plates(name, "given", drawn.shape, fn.batch_shape, frames)
    for frame in frames ^ drawn.frames:
        if sizes.get(frame.name, frame.size) != frame.size:
            have, lack = ("model", "guide") if frame in frames else ("guide", "model")
            raise ValueError(
                f"site {name!r} is in the subsampled plate {frame.name!r} ({frame.size} of "
                f"{sizes[frame.name]}) in the {have} but not in the {lack}, where its log density "
                "would not be scaled; put it in the same plate in both"
            )


def _wrong_shape(name: str, kind: str, shape: tuple[int, ...], fn: Any) -> ValueError:
    return ValueError(
        f"site {name!r}: the {kind} value has shape {shape} but the distribution has shape "
        f"{fn.shape()} (batch {fn.batch_shape}, event {fn.event_shape}); reshape the "
        f"{'data' if kind == 'observed' else 'value'}, or check the plate's dim and to_event"
    )


def _check_plates(
    name: str, kind: str, shape: tuple[int, ...], batch: tuple[int, ...], frames: Frames
) -> None:
    for frame in frames:
        size = batch[frame.dim] if -frame.dim <= len(batch) else 1
        if size != frame.size:
            raise ValueError(
                f"site {name!r}: the {kind} value has shape {shape}, which has {size} elements "
                f"along dim {frame.dim} of plate {frame.name!r} of size {frame.size}"
            )
