"""Borders for bar distributions, from draws of targets and from those of several distributions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .._core import number_array, refuse_where, whole_number
from ._bar import BarDistribution
from ._bars import Bars, UPPER_QUARTILE

_LEAST_PER_BAR = 5


def equal_mass_borders(samples: Any, num_bars: int) -> jax.Array:
    r"""Borders of `BarDistribution` that cut draws of a prior into equal groups.

    An inner border lies midway between the last draw of a group and the first of the next, the
    outermost two at the smallest and the largest draw. Equal draws stay in one group: each border
    is put at the nearest place between two different draws, and no place is used twice, so that
    targets with few values or with clipped ones get fewer bars than asked for, never one without
    width. Borders that the type of the draws can hardly tell apart are left out too.

    Args:
        samples: draws of targets, any shape, 100 or more for each bar; used as NumPy.
        num_bars: how many bars $k \ge 2$ are wanted; 100 for a quick look, 1000 as published.

    Returns:
        Increasing borders, shape `(k + 1,)` or, as above, fewer, of the type of the draws.

    Raises:
        ValueError: fewer than five draws for a bar, NaN or infinite ones, draws that are all the
            same (or nearly, for their type), or `samples` that are traced.

    References:
        Müller, Hollmann, Pineda Arango, Grabocka and Hutter (2022), "Transformers can do Bayesian
        inference", ICLR: section 4.
    """
    num_bars = whole_number("equal_mass_borders: num_bars", num_bars, least=2)
    if isinstance(samples, jax.core.Tracer):
        raise ValueError("equal_mass_borders: samples must be known, not traced by jit or vmap")
    samples = number_array("equal_mass_borders: samples", samples)
    if np.iscomplexobj(samples):
        raise ValueError(f"equal_mass_borders: samples must be real, got {samples.dtype}")
    draws = np.asarray(samples).ravel()
    if draws.size == 0 or not np.all(np.isfinite(draws)):
        what = "is empty" if draws.size == 0 else "holds NaN or infinite values"
        raise ValueError(f"equal_mass_borders: samples {what}; got shape {samples.shape}")
    if draws.size < _LEAST_PER_BAR * num_bars:
        raise ValueError(
            f"equal_mass_borders: samples must hold at least {_LEAST_PER_BAR} draws for each of "
            f"{num_bars} bars, better 100; got {draws.size}"
        )
    dtype = draws.dtype if np.issubdtype(draws.dtype, np.floating) else np.dtype(float)
    values, counts = np.unique(draws.astype(dtype), return_counts=True)
    cuts = np.cumsum(counts)[:-1]  # numbers of draws to the left of each place for a border
    wanted = draws.size * np.arange(1, num_bars) / num_bars
    nearest = np.unique([np.argmin(np.abs(cuts - w)) for w in wanted]) if cuts.size else []
    inner = [values[i] / 2 + values[i + 1] / 2 for i in nearest]
    borders = _told_apart(np.array([values[0], *inner, values[-1]], dtype))
    if borders.size < 3:
        raise ValueError(
            "equal_mass_borders: samples must differ from one another; got values from "
            f"{values[0]} to {values[-1]}"
        )
    return jnp.asarray(borders)


def _told_apart(borders: np.ndarray) -> np.ndarray:
    """Without those too close to the one before or to the last; the outermost stay."""
    eps = 16 * np.finfo(borders.dtype).eps
    kept = [borders[0]]
    for border in borders[1:-1]:
        apart = (
            abs(border - other) > eps * max(abs(border), abs(other))
            for other in (kept[-1], borders[-1])
        )
        if all(apart):
            kept.append(border)
    return np.array([*kept, borders[-1]], borders.dtype)


def bar_mixture(
    distributions: Sequence[BarDistribution], weights: Any = None, *, borders: Any = None
) -> BarDistribution:
    r"""Mixture of bar distributions, as one bar distribution on common borders.

    Each of the common bars gets exactly the probability that the mixture has in it, from
    differences of distribution functions; inside of a bar the mixture is flattened.

    Args:
        distributions: sequence of $m$ `BarDistribution`, whose batch shapes broadcast; their
            numbers of bars may differ.
        weights: $m$ numbers, not negative, of any sum; equal ones by default.
        borders: common borders, shape `(..., k + 1)`. By default all borders are sorted and each
            $m$ neighbours averaged, so that borders that were the same stay what they are; the
            outermost two are then put where the tails get the mean that the mixture has there.

    Raises:
        ValueError: no distributions or something else in their place; weights of another length,
            negative, NaN or all zero.
    """
    bars = _checked_bars(distributions)
    dtype = jnp.result_type(*(b.log_probs for b in bars))
    shares = _shares(weights, len(bars), dtype)
    common = _pooled_borders(bars) if borders is None else _given(borders, dtype)
    groups = _stacked(bars, shares)
    probs = _average(lambda b: _probs_between(b, common), groups)
    if borders is None:
        common = _with_tails(groups, common, probs)
    some = probs > 0
    logits = jnp.where(some, jnp.log(jnp.where(some, probs, 1)), -jnp.inf)
    return BarDistribution(common, logits)


def _checked_bars(distributions: Any) -> list[Bars]:
    if not isinstance(distributions, list | tuple) or not distributions:
        raise ValueError("bar_mixture: distributions must be a sequence of BarDistribution")
    for one in distributions:
        if not isinstance(one, BarDistribution):
            raise ValueError(
                "bar_mixture: distributions must be a sequence of BarDistribution; it holds "
                f"{type(one).__name__}"
            )
    return [Bars(one.borders, one.logits) for one in distributions]


def _shares(weights: Any, count: int, dtype: Any) -> jax.Array:
    if weights is None:
        return jnp.full(count, 1 / count, dtype)
    if jnp.shape(weights) != (count,):
        raise ValueError(
            f"bar_mixture: weights must have shape ({count},), got {jnp.shape(weights)}"
        )
    message = "bar_mixture: weights must be finite, not negative, and not all zero"
    weights = refuse_where(weights, lambda w: ~((w >= 0) & (w < np.inf)) | ~(w > 0).any(), message)
    weights = jnp.asarray(weights, dtype)
    return weights / jnp.sum(weights)


def _given(borders: Any, dtype: Any) -> jax.Array:
    borders = jnp.asarray(number_array("bar_mixture: borders", borders), dtype)
    if borders.shape[-1:] < (3,):
        raise ValueError(
            f"bar_mixture: borders must be those of at least 2 bars, got shape {borders.shape}"
        )
    return borders


def _stacked(bars: list[Bars], shares: jax.Array) -> list[tuple[Bars, jax.Array]]:
    """Those with as many bars each as one batch with a first axis, and their shares."""
    ndim = max(b.log_probs.ndim for b in bars)
    groups = []
    for last in sorted({b.last for b in bars}):
        which = [i for i, b in enumerate(bars) if b.last == last]
        tables = [jnp.broadcast_arrays(*(_with_ndim(t, ndim) for t in same))
                  for same in zip(*(bars[i] for i in which), strict=True)]  # fmt: skip
        groups.append((Bars(*(jnp.stack(same) for same in tables)), shares[np.array(which)]))
    return groups


def _with_ndim(table: jax.Array, ndim: int) -> jax.Array:
    return table.reshape((1,) * (ndim - table.ndim) + table.shape)


def _average(function: Callable[[Bars], jax.Array], groups: list[Any]) -> jax.Array:
    first, *others = (jnp.tensordot(shares, function(b), 1) for b, shares in groups)
    return sum(others, start=first)


def _pooled_borders(bars: list[Bars]) -> jax.Array:
    """Averages of as many neighbours as there are distributions, of all borders in their order.

    They increase: a number stands among all borders once for each distribution at most.
    """
    batch = jnp.broadcast_shapes(*(b.borders.shape[:-1] for b in bars))
    tables = [jnp.broadcast_to(b.borders, (*batch, b.borders.shape[-1])) for b in bars]
    ordered = jnp.sort(jnp.concatenate(tables, axis=-1), axis=-1)
    edges = np.linspace(0, ordered.shape[-1], ordered.shape[-1] // len(bars) + 1).astype(int)
    means = [ordered[..., i:j].mean(axis=-1) for i, j in zip(edges, edges[1:], strict=False)]
    return jnp.stack(means, axis=-1)


def _probs_between(bars: Bars, borders: jax.Array) -> jax.Array:
    """Probabilities between the inner borders and beyond, each from the side where it is small."""
    inner = borders[..., 1:-1]
    wide = Bars(*(jnp.expand_dims(table, -2) for table in bars))  # an axis for the borders
    left, right = wide.cdf(inner), wide.mirrored().cdf(-inner)
    inside = jnp.where(left[..., 1:] < 0.5, jnp.diff(left), -jnp.diff(right))
    return jnp.concatenate([left[..., :1], jnp.maximum(inside, 0), right[..., -1:]], axis=-1)


def _with_tails(groups: list[Any], borders: jax.Array, probs: jax.Array) -> jax.Array:
    """The outermost borders replaced by those whose tails have the mean excess of the mixture."""
    low = _average(lambda b: b.mirrored().excess(-borders[..., 1]), groups)
    high = _average(lambda b: b.excess(borders[..., -2]), groups)
    first = borders[..., 1] - _width(low, probs[..., 0], borders[..., :2])
    last = borders[..., -2] + _width(high, probs[..., -1], borders[..., -2:])
    inner = jnp.broadcast_to(borders[..., 1:-1], (*first.shape, borders.shape[-1] - 2))
    return jnp.concatenate([first[..., None], inner, last[..., None]], axis=-1)


def _width(excess: jax.Array, prob: jax.Array, pair: jax.Array) -> jax.Array:
    some = (prob > 0) & (excess > 0)
    scale = math.sqrt(math.pi / 2) * jnp.where(some, excess, 1) / jnp.where(some, prob, 1)
    return jnp.where(some, UPPER_QUARTILE * scale, jnp.diff(pair)[..., 0])
