"""The exact posterior, by whichever structure the inputs have."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from ._arguments import real_array
from ._exact import exact_posterior
from ._grid_posterior import grid_posterior
from ._inputs import Grid
from ._posterior import AbstractPosterior
from ._process import check_prior, GP, known_mask
from ._structure import as_points
from ._time_inputs import Times
from ._times import times_posterior

OPTIONS = frozenset({"solver", "logdet", "key", "rtol", "max_steps"})  # of `ops.Masked`


def condition(prior: GP, x: Any, y: Any, mask: Any = None, **solver: Any) -> AbstractPosterior:
    """The posterior of a process given noisy observations, exact.

    Args:
        prior: the process, with the variance of the noise.
        x: points, shape `(n, d)` or `(n,)`, a `Grid`, or `Times`.
        y: observations, shape `(n,)`, or of the grid's shape.
        mask: which observations there are, booleans of the shape of `y`, known when traced; where
            it is false `y` may hold NaN.
        solver: for a grid with a mask, options of `ops.Masked` such as `solver="cg"`.

    Returns:
        An `ExactPosterior`, or a `GridPosterior` on a grid, where everything keeps the Kronecker
        structure; both report the jitter that they needed. At times a `TimesPosterior`, all of
        whose answers take linear time.

    Raises:
        ValueError: shapes that disagree, empty or NaN data, a kernel without Kronecker structure on
            a grid; what is only known at run time is a `RuntimeError` under `jit`.
        RuntimeError: the covariance of the observations is not positive definite even with
            jitter, or holds NaN.
    """
    check_prior(prior)
    if unknown := sorted(solver.keys() - OPTIONS):
        raise ValueError(
            f"condition: {', '.join(unknown)} is no option of ops.Masked; those are "
            f"{', '.join(sorted(OPTIONS))}"
        )
    if isinstance(x, Grid):
        return grid_posterior(prior, x, y, mask, **solver)
    if isinstance(x, Times) and not solver:
        return times_posterior(prior, x, y, mask)
    if solver:
        raise ValueError(f"condition: {', '.join(solver)} is for a Grid with a mask")
    if mask is not None:
        x, y = _observed(as_points(x), real_array("y", y), known_mask(mask))
    return exact_posterior(prior, x, y)


def _observed(x: Any, y: Any, mask: Any) -> tuple[Any, Any]:
    if mask.shape != (len(x),):
        raise ValueError(f"condition: mask must have shape ({len(x)},), got {mask.shape}")
    if jnp.shape(y) != (len(x),):
        raise ValueError(f"condition: y must have shape ({len(x)},), as x; got {jnp.shape(y)}")
    if not mask.any():
        raise ValueError("condition: mask is all false, so nothing is observed")
    return x[mask], y[mask]
