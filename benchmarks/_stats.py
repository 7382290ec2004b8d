"""Medians, ratios of paired samples, and their spread.

Machines that run benchmarks are shared and drift: the clock changes, a neighbour wakes up. All
candidates are therefore timed once in every round, and a ratio is the *median over rounds of the
ratio within the round*; drift slower than a round cancels. The spread is the 95 % percentile
bootstrap interval of that median, rounds being resampled.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from benchmarks._declare import Figure

_RESAMPLES = 2000


def median(samples: Any, unit: str = "", note: str = "") -> Figure:
    """Median of the samples with its 95 % bootstrap interval; NaN samples make it NaN."""
    samples = np.asarray(samples, dtype=float).ravel()
    if samples.size == 0 or not np.all(np.isfinite(samples)):
        return Figure(float("nan"), unit=unit, note=note)
    # A fixed seed: the same samples always give the same interval.
    index = np.random.default_rng(0).integers(samples.size, size=(_RESAMPLES, samples.size))
    low, high = np.quantile(np.median(samples[index], axis=1), [0.025, 0.975])
    return Figure(float(np.median(samples)), float(low), float(high), unit, note)


def quartiles(samples: Any) -> tuple[float, float]:
    """First and third quartile, the spread of single samples."""
    low, high = np.quantile(np.asarray(samples, dtype=float), [0.25, 0.75])
    return float(low), float(high)


def paired_ratio(numerator: Any, denominator: Any, note: str = "") -> Figure:
    """Median over rounds of `numerator / denominator`.

    Args:
        numerator: one sample per round.
        denominator: one sample per round, of the same rounds.
        note: goes into the figure.
    """
    numerator, denominator = np.asarray(numerator, float), np.asarray(denominator, float)
    if numerator.shape != denominator.shape:
        raise ValueError(
            f"paired samples must come from the same rounds; got {numerator.shape} and "
            f"{denominator.shape}. Were they measured by different calls of compare?"
        )
    return median(numerator / denominator, "×", note)
