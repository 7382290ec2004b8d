"""Whether a guide covers the posterior: Pareto smoothed importance weights of an objective."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax import random

from ..._core import check_key, in_chunks, whole_number
from ...diagnostics import PSIS, psis as smooth
from .._estimator import (
    Context,
    Cost,
    Objective,
    reduce_to,
)


def psis(
    key: jax.Array,
    objective: Objective,
    *args: Any,
    num_draws: int = 1000,
    plate: str | None = None,
    batch_size: int | None = None,
    **kwargs: Any,
) -> PSIS:
    r"""Pareto $\hat k$ of model against guide: whether the guide covers the posterior.

    Up to about 0.7 the guide, weighted, gives posterior expectations; above it misses part of
    the posterior, or the posterior has heavier tails, and a better bound need not mean better
    moments. It grows with the dimension for every approximation that is off in each coordinate.

    Args:
        key: randomness.
        objective: `vi.elbo(model, guide)`, or any objective whose value at a draw is
            $\log p(x, z) - \log q(z)$; `vi.iwelbo` tells of its particles taken together.
        *args: the objective's arguments, as are **kwargs**.
        num_draws: number of draws of the guide.
        plate: name of a plate that holds all sites, for guides with a posterior per data point:
            gives one $\hat k$ for each of its elements.
        batch_size: draws computed at once, by default all; less needs less memory.

    Returns:
        a `bayesjx.diagnostics.PSIS`, with a leading axis for `plate`; `log_weights` belong to
        the draws in turn.

    Raises:
        TypeError: `objective` is no `Objective`.
        ValueError: a plate is subsampled, so the weights are noisy; a term lies outside `plate`.

    References:
        Yao, Vehtari, Simpson and Gelman (2018), "Yes, but did it work? Evaluating variational
        inference".
    """
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective must be an Objective such as vi.elbo(model, guide), "
            f"got {type(objective).__name__}"
        )
    check_key(key)
    whole_number("num_draws", num_draws)
    if batch_size is not None:
        whole_number("batch_size", batch_size)

    def log_weight(key: jax.Array) -> jax.Array:
        cost, _ = objective._run(Context(key), args, kwargs)
        _require_whole(cost)
        return jnp.asarray(cost.total) if plate is None else _over_plate(cost, plate)

    keys = random.split(key, num_draws)
    log_weights = in_chunks(jax.vmap(log_weight), keys, batch_size or num_draws)
    return smooth(jnp.moveaxis(log_weights, 0, -1))


def _require_whole(cost: Cost) -> None:
    for term in cost.terms:
        if term.scale != 1.0:
            raise ValueError(
                f"the term {term.label!r} is scaled, by a subsampled plate or handlers.scale, so "
                "its weights are not those of model and guide; run them on all data at scale 1"
            )


def _over_plate(cost: Cost, plate: str) -> jax.Array:
    values = []
    for term in cost.terms:
        frame = {f for f in term.frames if f.name == plate}
        if not frame:
            raise ValueError(
                f"the term {term.label!r} lies outside plate {plate!r}, so its elements have no "
                "weights of their own; leave out plate="
            )
        values.append(reduce_to(term.value, frame).reshape(-1))
    return sum(values[1:], values[0])


__all__ = ["psis"]
