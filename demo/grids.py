"""Carbon dioxide at Mauna Loa: a grid of years and weeks with gaps, and its covariance.

The covariance is a product of one between years and one between weeks, plus noise. Its six
parameters are sampled by NUTS and approximated by guides, on the years without gaps; then each
draw of them fills the gaps of all 44 years by `bayesjx.ops.Masked`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer.autoguide import AutoMultivariateNormal
from statsmodels.datasets import co2

from bayesjx import distributions, ops, vi

from ._study import (
    against,
    Choice,
    normals,
    Problem,
    quality,
    Report,
    Row,
    run_all,
    Strategies,
    Study,
)

FIRST, NUM_YEARS, NUM_WEEKS = 1958, 44, 52
WHOLE, EVERY = 1986 - FIRST, 2  # from this row on no week is missing; the fits take every second
NUM_FILLED = 60  # draws of the parameters that fill the gaps
START = {
    "log_season": 0.5,  # size of the season, in ppm
    "log_offset": 0.0,  # of what all weeks of a year share
    "log_drift": -1.0,  # how much of both changes from year to year
    "log_years": 1.0,  # over how many years
    "log_weeks": 0.0,  # how smooth the season is
    "log_noise": -1.0,
}
GAP_ERROR, COVERED = "gap error (ppm)", "in 90 %"


@dataclasses.dataclass(frozen=True)
class Grid:
    """Weekly concentrations, in ppm above a cubic trend.

    Attributes:
        when: in years, shape (year, week).
        y: NaN where never measured.
        given: which weeks the fills see.
        hidden: which were measured but kept back, in 12 stretches of 10 weeks.
    """

    when: np.ndarray
    y: np.ndarray
    given: np.ndarray
    hidden: np.ndarray


@functools.cache
def load() -> Grid:
    """The series on a grid, with the weeks to be hidden."""
    series = co2.load_pandas().data["co2"].dropna()
    shape = (NUM_YEARS, NUM_WEEKS)
    week = np.minimum((series.index.day_of_year.values - 1) // 7, NUM_WEEKS - 1)
    at = (series.index.year.values - FIRST, week)
    total, count = np.zeros(shape), np.zeros(shape)
    np.add.at(total, at, series.values)
    np.add.at(count, at, 1)
    known = count > 0
    level = np.where(known, total / np.maximum(count, 1), np.nan)
    when = FIRST + np.arange(NUM_YEARS)[:, None] + (np.arange(NUM_WEEKS) + 0.5) / NUM_WEEKS
    y = level - np.polynomial.Polynomial.fit(when[known], level[known], 3)(when)
    hidden = np.zeros(y.size, bool)
    for start in np.random.default_rng(0).choice(np.arange(60, y.size - 20), 12, replace=False):
        hidden[start : start + 10] = True
    hidden = hidden.reshape(shape) & known
    return Grid(when, y, known & ~hidden, hidden)


def signal(p: Any, num_years: int, every: int = 1) -> ops.Kron:
    """The covariance of the season and its drift: years × weeks."""
    years = jnp.arange(float(num_years))
    weeks = jnp.arange(0.0, NUM_WEEKS, every) / NUM_WEEKS
    scaled = jnp.sqrt(3.0) * jnp.abs(years[:, None] - years) / jnp.exp(p["log_years"])
    drift = jnp.exp(2 * p["log_drift"]) * (1 + scaled) * jnp.exp(-scaled)
    turn = jnp.sin(jnp.pi * (weeks[:, None] - weeks)) / jnp.exp(p["log_weeks"])
    season = jnp.exp(2 * p["log_season"] - 2 * turn**2)
    return ops.Kron(1 + drift, jnp.exp(2 * p["log_offset"]) + season, tags=ops.psd)


def noise(p: Any) -> ops.ScaledIdentity:
    """What is independent from week to week."""
    return ops.ScaledIdentity(jnp.exp(2 * p["log_noise"]))


def model(params: Any, y: jax.Array) -> None:
    """A separable Gaussian, whose parameters are the latents."""
    p = {name: numpyro.sample(name, dist.Normal(at, 1.0)) for name, at in START.items()}
    covariance = signal(p, y.shape[0], EVERY) + noise(p)
    distribution = distributions.StructuredNormal(jnp.zeros(y.size, y.dtype), covariance)
    numpyro.sample("y", distribution, obs=y.reshape(-1))


def guide(strategies: Strategies) -> Callable[..., None]:
    """Independent Normals."""

    def program(params: Any, y: jax.Array) -> None:
        for name in START:
            distribution = dist.Normal(params[name]["loc"], jnp.exp(params[name]["log_scale"]))
            numpyro.sample(name, strategies.get(name, vi.reparam)(distribution))

    return program


CHOICES = [Choice("ELBO", "reparam", vi.elbo, {}, tour=True)]


def problem() -> Problem:
    """The data and programs of this part."""
    y = load().y[WHOLE:, ::EVERY]
    return Problem(
        name="grids",
        title="Carbon dioxide at Mauna Loa: a separable covariance of 44 years x 52 weeks",
        model=model,
        reference=model,
        guide=guide,
        params=normals(dict.fromkeys(START, ()), START, log_scale=-2.0),
        data=(jnp.asarray(y, dtype=float),),
        dims={},
        coords={},
    )


@jax.jit
def _fill(key: jax.Array, parameters: Any, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    """For each draw of the parameters: the mean of the signal, and a draw of new measurements."""
    grid = load()
    seen = np.flatnonzero(grid.given)

    def one(inputs: Any) -> tuple[jax.Array, jax.Array]:
        key, p = inputs
        keys = jax.random.split(key, 3)
        prior, scale = signal(p, NUM_YEARS), jnp.exp(p["log_noise"])
        drawn = prior.sample(keys[0])
        error = scale * jax.random.normal(keys[1], y.shape)
        columns = jnp.stack([y, y - drawn[seen] - error], axis=1)
        solved = ops.Masked(prior + noise(p), grid.given).solve(columns)
        mean, change = (prior @ jnp.zeros((grid.y.size, 2)).at[seen].set(solved)).T
        again = drawn + change + scale * jax.random.normal(keys[2], change.shape)
        return mean.reshape(grid.y.shape), again.reshape(grid.y.shape)

    return jax.lax.map(one, (jax.random.split(key, NUM_FILLED), parameters))


def fill(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Means of the signal and draws of new measurements, both of shape (draw, year, week)."""
    grid, posterior = load(), row.tree["posterior"]
    draws = {name: posterior[name].values.reshape(-1) for name in START}
    pick = np.linspace(0, len(draws["log_noise"]) - 1, NUM_FILLED).astype(int)
    parameters = {name: jnp.asarray(values[pick]) for name, values in draws.items()}
    given = jnp.asarray(grid.y[grid.given], dtype=float)
    mean, again = _fill(jax.random.key(5), parameters, given)
    return np.asarray(mean), np.asarray(again)


def judged(row: Row) -> Row:
    """The row with its error at the hidden weeks, and the share of them in a 90 % interval."""
    grid = load()
    mean, again = (values[:, grid.hidden] for values in fill(row))
    truth = grid.y[grid.hidden]
    low, high = np.quantile(again, [0.05, 0.95], axis=0)
    extra = {
        GAP_ERROR: rms(mean.mean(axis=0) - truth),
        COVERED: float(np.mean((low < truth) & (truth < high))),
    }
    return dataclasses.replace(row, extra=extra)


def rms(errors: np.ndarray) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(errors**2)))


def simple() -> str:
    """What two simple ways to fill a gap achieve, in one line."""
    grid = load()
    given = np.where(grid.given, grid.y, np.nan)
    usual = np.broadcast_to(np.nanmean(given, axis=0), given.shape)
    seen, flat = np.flatnonzero(grid.given), grid.y.reshape(-1)
    line = np.interp(np.arange(flat.size), seen, flat[seen]).reshape(given.shape)
    errors = [rms((guess - grid.y)[grid.hidden]) for guess in (line, usual)]
    return (
        f"gap error at {grid.hidden.sum()} hidden weeks; a line across each gap: {errors[0]:.3f}, "
        f"the usual week: {errors[1]:.3f}; in 90 %: share of them in that interval"
    )


def run(study: Study) -> Report:
    """NUTS, then a mean-field guide and NumPyro's full-rank one; each fills the gaps."""
    this = problem()
    tasks: list[tuple[str, Callable[[], Row]]] = [("NUTS", lambda: study.nuts(this))]
    for choice in study.select(CHOICES):
        tasks.append((choice.strategy, functools.partial(study.fit, this, choice)))
    if not study.is_tour:
        full = AutoMultivariateNormal(model)
        tasks.append(("full rank", lambda: study.fit_svi(this, full, "AutoMultivariateNormal")))
    reference, *fits = (judged(row) for row in run_all(tasks))
    rows = [reference, *(against(row, reference, list(START)) for row in fits)]
    return Report(this, rows, [quality(reference, list(START)), simple()])
