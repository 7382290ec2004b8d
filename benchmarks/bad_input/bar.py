"""Mistakes in bar distributions, their mixtures and their borders."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist

from bayesjx.distributions import bar_mixture, BarDistribution, equal_mass_borders
from benchmarks.bad_input._case import Case

BORDERS = np.array([-2.0, -1.0, 0.5, 2.0])
EVEN = np.zeros(3)
DRAWS = np.linspace(0.0, 1.0, 101)
NAN = np.where(np.arange(101) == 7, np.nan, DRAWS)


def _bars(borders: Any = BORDERS, logits: Any = EVEN, **options: Any) -> BarDistribution:
    return BarDistribution(borders, logits, **options)


def _mixture(**changed: Any) -> BarDistribution:
    return bar_mixture(**({"distributions": [_bars(), _bars()]} | changed))


_BARS, _MIX = "distributions.BarDistribution", "distributions.bar_mixture"
_BORDERS = "distributions.equal_mass_borders"

CASES = (
    Case(_BARS, "borders", lambda: _bars(BORDERS[:3]), r"\(\.\.\., k \+ 1\)"),
    Case(_BARS, "borders", lambda: _bars(0.0), r"got \(\) and \(3,\)"),
    Case(_BARS, "borders", lambda: _bars(np.array([0.0, 1.0, 1.0, 2.0])), "increase"),
    Case(_BARS, "borders", lambda: _bars(BORDERS[::-1]), "increase"),
    Case(_BARS, "borders", lambda: _bars(BORDERS * np.nan), "finite"),
    Case(_BARS, "borders", lambda: _bars(np.float32(1e9) + BORDERS.astype(np.float32),
                                         np.zeros(3, np.float32)), "float32"),
    Case(_BARS, "borders", lambda: _bars("many"), "numbers"),
    Case(_BARS, "logits", lambda: _bars(BORDERS[:2], np.zeros(1)), "at least 2 bars"),
    Case(_BARS, "logits", lambda: _bars(np.stack([BORDERS] * 2), np.zeros((3, 3))), "broadcast"),
    Case(_BARS, "logits", lambda: _bars(logits=np.full(3, np.nan), validate_args=True), "invalid"),
    Case(_BARS, "logits", lambda: _bars(logits=np.full(3, -np.inf), validate_args=True),
         "invalid"),
    Case(_BARS, "logits", lambda: _bars(logits=None), "numbers"),
    Case(f"{_BARS}.affine", "scale", lambda: _bars().affine(0.0, -1.0), "positive"),
    Case(f"{_BARS}.affine", "scale", lambda: _bars().affine(0.0, np.nan), "positive"),
    Case(f"{_BARS}.affine", "scale", lambda: jax.block_until_ready(
        eqx.filter_jit(lambda s: _bars().affine(0.0, s).mean)(np.zeros(()))), "positive"),
    Case(f"{_BARS}.affine", "loc", lambda: _bars().affine(np.inf, 1.0), "finite"),
    Case(_MIX, "distributions", lambda: _mixture(distributions=[]), "sequence"),
    Case(_MIX, "distributions", lambda: _mixture(distributions=_bars()), "sequence"),
    Case(_MIX, "distributions", lambda: _mixture(distributions=[_bars(), dist.Normal()]), "Normal"),
    Case(_MIX, "weights", lambda: _mixture(weights=np.ones(3)), r"shape \(2,\)"),
    Case(_MIX, "weights", lambda: _mixture(weights=np.array([1.0, -0.5])), "negative"),
    Case(_MIX, "weights", lambda: _mixture(weights=np.zeros(2)), "zero"),
    Case(_MIX, "weights", lambda: _mixture(weights=np.array([1.0, np.nan])), "finite"),
    Case(_MIX, "borders", lambda: _mixture(borders=BORDERS[:2]), "at least 2 bars"),
    Case(_MIX, "borders", lambda: _mixture(borders=BORDERS[::-1]), "increase"),
    Case(_BORDERS, "samples", lambda: equal_mass_borders(NAN, 5), "NaN"),
    Case(_BORDERS, "samples", lambda: equal_mass_borders(np.zeros(0), 5), "empty"),
    Case(_BORDERS, "samples", lambda: equal_mass_borders(np.ones(50), 5), "differ"),
    Case(_BORDERS, "samples", lambda: equal_mass_borders(DRAWS, 50), "at least 5 draws"),
    Case(_BORDERS, "samples", lambda: equal_mass_borders(["a"] * 50, 5), "numbers"),
    Case(_BORDERS, "samples", lambda: equal_mass_borders(1j * DRAWS, 5), "real"),
    Case(_BORDERS, "samples", lambda: jax.jit(lambda x: equal_mass_borders(x, 5))(DRAWS),
         "traced"),
    Case(_BORDERS, "num_bars", lambda: equal_mass_borders(DRAWS, 1), "at least 2"),
    Case(_BORDERS, "num_bars", lambda: equal_mass_borders(DRAWS, 5.0), "integer"),
)  # fmt: skip
