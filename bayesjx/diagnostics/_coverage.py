"""Probability integral transforms, and how often central intervals hold the truth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from .._core import check_key, number_array, refuse_where
from ._samples import as_columns
from ._sbc import random_ranks


class Coverage(eqx.Module):
    """Central intervals of `q` quantities at `k` levels: how often they hold the truth.

    Attributes:
        names: of the quantities.
        levels: shape `(k,)`.
        coverage: share of the truths that are inside, shape `(q, k)`.
        standard_error: of the coverage where it is equal to the level, shape `(k,)`.
        width: mean width of the intervals, in units of the quantity, shape `(q, k)`.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    levels: Float[Array, " k"]
    coverage: Float[Array, "q k"]
    standard_error: Float[Array, " k"]
    width: Float[Array, "q k"]


def coverage(
    predictive: Any, truths: Any, *, levels: Sequence[float] = (0.5, 0.8, 0.9, 0.95)
) -> Coverage:
    """How often central intervals hold the truth, and how wide they are.

    Ends of intervals of draws are their order statistics at `p (s + 1)`, so that intervals of any
    number of draws of the right distribution have the right coverage. Works under `jit` and `vmap`.

    Args:
        predictive: draws of shape `(s, n, ...)`, a pytree of such arrays, or a NumPyro distribution
            with quantiles whose batch shape is that of `truths`.
        truths: shape `(n, ...)`, or the pytree of them.
        levels: of the intervals, between 0 and 1.

    Raises:
        ValueError: shapes or structures that disagree, levels out of range or too high for the
            number of draws, NaN, a distribution without quantiles.
        RuntimeError: under `jit`, NaN.
    """
    wanted = checked_levels("coverage", levels)
    tails = tail_probs(wanted)
    if isinstance(predictive, dist.Distribution):
        y = number_array("coverage: truths", truths)
        try:
            ends = [predictive.icdf(tail) for tail in tails]
        except NotImplementedError as error:
            raise ValueError(
                f"coverage: predictive must have quantiles, which {type(predictive).__name__} has "
                "not; give draws of it, shape (s, *truths.shape)"
            ) from error
        ends = jnp.stack([jnp.broadcast_to(end, y.shape) for end in ends])
        names, ends, truths = as_columns("coverage", ends, y)
    else:
        names, draws, truths = as_columns("coverage", predictive, truths)
        ends = order_statistics(draws, tails)
    return intervals(names, ends, truths, wanted)


def intervals(
    names: tuple[str, ...],
    ends: Float[Array, "q two_k n"],
    truths: Float[Array, "q n"],
    levels: tuple[float, ...],
) -> Coverage:
    """From the lower ends of all intervals, then the upper ones."""
    lower, upper = jnp.split(ends, 2, axis=1)
    at = truths[:, None]
    inside = jnp.mean(((at >= lower) & (at <= upper)).astype(truths.dtype), axis=-1)
    wanted = np.asarray(levels)
    error = np.sqrt(wanted * (1 - wanted) / truths.shape[-1])
    return Coverage(
        names,
        jnp.asarray(wanted, truths.dtype),
        inside,
        jnp.asarray(error, truths.dtype),
        jnp.mean(upper - lower, axis=-1),
    )


def pit(key: jax.Array, predictive: Any, y: Any) -> Float[Array, ...]:
    """Probability integral transform of observations, which is uniform if predictions are right.

    `F(y)` under each predictive distribution; for discrete ones, a uniform point between `F(y-)`
    and `F(y)`; for draws, the rank of `y` among them with ties in random order. `uniformity` tests
    it.

    Args:
        key: randomness, which continuous distributions do not need.
        predictive: a NumPyro distribution whose batch shape is that of `y`, with a cumulative
            distribution function or finite support; or draws of shape `(s, *y.shape)`.
        y: observations.

    Returns:
        The shape of `y`, from 0 to 1.

    Raises:
        ValueError: shapes that disagree, no draws, NaN, a distribution with neither.
        RuntimeError: under `jit`, NaN.

    References:
        Dawid (1984), "Present position and potential developments: some personal views. Statistical
        theory: the prequential approach", JRSS A 147; Czado, Gneiting and Held (2009), "Predictive
        model assessment for count data", Biometrics 65, for discrete ones.
    """
    check_key(key)
    if not isinstance(predictive, dist.Distribution):
        shape = np.shape(y)
        flat = jnp.ravel(y)
        if np.shape(predictive)[1:] != shape or np.ndim(predictive) != len(shape) + 1:
            raise ValueError(
                "pit: predictive must be a distribution or draws of shape (s, *y.shape), got "
                f"{np.shape(predictive)} for y of shape {shape}"
            )
        draws = number_array("pit: predictive", predictive).reshape(-1, flat.size)
        _, draws, truths = as_columns("pit", draws, flat)
        return random_ranks(key, draws, truths)[1][0].reshape(shape)
    y = refuse_where(number_array("pit: y", y), lambda a: a != a, "pit: y must not be NaN")
    y = jnp.asarray(y)
    if predictive.event_shape or predictive.batch_shape not in ((), y.shape):
        raise ValueError(
            "pit: predictive must be a distribution of numbers with the batch shape of y, "
            f"{y.shape}, got batch shape {predictive.batch_shape} and event shape "
            f"{predictive.event_shape}"
        )
    if not predictive.support.is_discrete:
        return jnp.clip(_cdf(predictive, y), 0, 1)
    above, below = _cdf(predictive, y), _cdf(predictive, y - 1)
    place = jax.random.uniform(key, y.shape, above.dtype)
    return jnp.clip(below + place * (above - below), 0, 1)


def _cdf(predictive: Any, y: jax.Array) -> jax.Array:
    """The distribution function, summed over a finite support where NumPyro has none."""
    discrete = predictive.support.is_discrete
    try:
        value = predictive.cdf(y)
    except NotImplementedError as error:
        if not (discrete and predictive.has_enumerate_support):
            raise ValueError(
                f"pit: predictive must have a distribution function, which "
                f"{type(predictive).__name__} has not; give draws of it, shape (s, *y.shape)"
            ) from error
        predictive = predictive.expand(y.shape)
        support = predictive.enumerate_support(expand=False)
        probs = jnp.exp(predictive.log_prob(support))
        return jnp.sum(jnp.where(support <= y, probs, 0.0), axis=0)
    return jnp.where(y < 0, 0.0, value) if discrete else value


def checked_levels(owner: str, levels: Any) -> tuple[float, ...]:
    """Levels between 0 and 1."""
    wanted = np.asarray(number_array(f"{owner}: levels", levels), float)
    if wanted.ndim != 1 or wanted.size == 0 or not np.all((wanted > 0) & (wanted < 1)):
        raise ValueError(f"{owner}: levels must be between 0 and 1, got {levels!r}")
    return tuple(wanted.tolist())


def tail_probs(levels: tuple[float, ...]) -> np.ndarray:
    """Probabilities below the lower ends of central intervals, then below the upper ones."""
    wanted = np.asarray(levels)
    return np.concatenate([(1 - wanted) / 2, (1 + wanted) / 2])


def order_statistics(draws: Float[Array, "q s n"], probs: np.ndarray) -> Float[Array, "q k n"]:
    """Quantiles at `p (s + 1)`, between neighbours on a straight line."""
    number = draws.shape[1]
    place = probs * (number + 1) - 1
    if place.min() < -1e-9:
        raise ValueError(
            f"coverage: levels must be at most {1 - 2 / (number + 1):.3g} with {number} draws, got "
            f"{1 - 2 * probs.min():.3g}"
        )
    place = np.clip(place, 0, number - 1)
    below = np.minimum(np.floor(place).astype(int), max(number - 2, 0))
    above = np.minimum(below + 1, number - 1)
    share = jnp.asarray(place - below, draws.dtype)[:, None]
    ordered = jnp.sort(draws, axis=1)
    low, high = ordered[:, below], ordered[:, above]
    return low + share * jnp.where(share > 0, high - low, 0.0)
