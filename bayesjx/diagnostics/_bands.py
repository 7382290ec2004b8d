"""Simultaneous bands of empirical distribution functions, exact, computed once per size."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from .._core import whole_number

_LEVELS = np.geomspace(0.5, 1e-8, 40)  # pointwise levels whose bands are tabulated
_LARGEST = 1000  # number of values up to which the probabilities are those of the number itself


class ECDFBand(NamedTuple):
    """Simultaneous band of the empirical distribution function of independent uniform values.

    Attributes:
        points: where it is looked at, shape `(k,)`.
        lower: lower end of the band, shape `(k,)`.
        upper: upper end of the band, shape `(k,)`.
        prob: probability that the function is within the band at all points: at least the one that
            was asked for.
    """

    points: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    prob: float


def ecdf_band(num_values: int, *, num_points: int = 50, prob: float = 0.95) -> ECDFBand:
    r"""Band that holds the whole empirical distribution function of uniform values.

    At $z_j = j / k$ the number of values up to $z_j$ is binomial, and the band has the same tail
    probability at each. That is chosen so that all are inside with probability `prob`, which the
    recursion over counts gives exactly: from one point to the next the count is a Markov chain.
    Above 1000 values the tail probability is that of 1000, which has then settled.

    Args:
        num_values: how many values there are.
        num_points: `k + 1`, number of intervals between the points.
        prob: probability that no point is outside.

    Raises:
        ValueError: numbers below 2 or a probability that is not between 0 and 1.

    References:
        Säilynoja, Bürkner and Vehtari (2022), "Graphical test for discrete uniformity and its
        applications in goodness-of-fit evaluation and multiple sample comparison", Statistics and
        Computing 32, algorithm 2.
    """
    num_values = whole_number("ecdf_band: num_values", num_values, 2)
    num_points = whole_number("ecdf_band: num_points", num_points, 2)
    if not isinstance(prob, float | np.floating) or not 0 < prob < 1:
        raise ValueError(f"ecdf_band: prob must be between 0 and 1, got {prob!r}")
    points, lower, upper, inside = _band(num_values, num_points, float(prob))
    return ECDFBand(points, lower / num_values, upper / num_values, inside)


@functools.lru_cache(64)
def tabulated(num_values: int, num_points: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bands of decreasing pointwise levels and the probabilities of leaving them.

    Returns:
        counts at the lower ends and at the upper ends, shapes `(t, k)`, and probabilities `(t,)`.
    """
    points = np.arange(1, num_points) / num_points
    small = min(num_values, _LARGEST)
    leave = [1 - _prob_inside(small, points, *_counts(small, points, g)) for g in _LEVELS]
    bands = [_counts(num_values, points, level) for level in _LEVELS]
    lower, upper = (np.stack([band[i] for band in bands]) for i in (0, 1))
    return lower, upper, np.maximum.accumulate(np.clip(leave, 0, 1)[::-1])[::-1]


@functools.lru_cache(64)
def _band(num_values: int, num_points: int, prob: float) -> tuple:
    points = np.arange(1, num_points) / num_points
    small = min(num_values, _LARGEST)

    def inside(level: float) -> float:
        return _prob_inside(small, points, *_counts(small, points, level))

    low, high = np.log(1e-4 * (1 - prob)), np.log(1 - prob)  # too wide a band, too narrow a one
    for _ in range(14):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if inside(np.exp(middle)) >= prob else (low, middle)
    lower, upper = _counts(num_values, points, np.exp(low))
    return points, lower, upper, inside(np.exp(low))


def _counts(number: int, points: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """The least and the largest count at each point whose tails both have half of the level."""
    lower = binom.ppf(level / 2, number, points).astype(np.int64)
    upper = number - binom.ppf(level / 2, number, 1 - points).astype(np.int64)
    return lower, upper


def _prob_inside(number: int, points: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> float:
    """Probability that the counts of uniform values up to each point are all within bounds."""
    log_factorial = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, number + 1)))])
    before, log_prob, last = np.array([0]), np.array([0.0]), 0.0
    for point, least, most in zip(points, lower, upper, strict=True):
        after = np.arange(least, most + 1)
        step = (point - last) / (1 - last)
        new = after - before[:, None]  # binomial, of those that have not come yet
        log_step = np.where(
            new >= 0,
            (log_factorial[number - before][:, None] - log_factorial[np.maximum(new, 0)])
            - log_factorial[number - after]
            + new * np.log(step)
            + (number - after) * np.log1p(-step),
            -np.inf,
        )
        total = np.exp(log_prob) @ np.exp(log_step)
        with np.errstate(divide="ignore"):
            before, log_prob, last = after, np.log(total), point
    return float(np.exp(log_prob).sum())
