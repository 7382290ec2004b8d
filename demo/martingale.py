"""Progression of diabetes: coefficients of a regression as martingale posteriors, beside NUTS.

442 patients, ten columns. The rows that are missing are drawn from two rules: the posterior
predictive of the fitted model itself, under which the posterior of NUTS must come back, and Pólya's
urn, the Bayesian bootstrap, which assumes neither a line nor normal noise of one size.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
from sklearn.datasets import load_diabetes

from bayesjx import amortized

from . import _plots
from ._study import against, Problem, quality, Report, Row, run_all, Study

LATENTS = ("slope", "scale")
DRAWS, AHEAD, SAMPLES, WEIGHTED = 400, 2500, 100, 2000


@functools.cache
def load() -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Standardised columns and progression, and the names of the columns."""
    table, y = load_diabetes(return_X_y=True, as_frame=True)
    x = table.to_numpy(np.float32)
    y = y.to_numpy(np.float32)
    return (x - x.mean(axis=0)) / x.std(axis=0), (y - y.mean()) / y.std(), list(table.columns)


def line(x: Any, y: Any = None) -> None:
    """Linear regression of standardised columns."""
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0).expand([10]).to_event(1))
    scale = numpyro.sample("scale", dist.HalfNormal(1.0))
    with numpyro.plate("patient", len(x)):
        numpyro.sample("y", dist.Normal(x @ slope, scale), obs=y)


def problem() -> Problem:
    """What NUTS needs."""
    x, y, columns = load()
    return Problem(
        "martingale",
        f"Progression of diabetes: {len(y)} patients, coefficients from rows that are drawn",
        model=lambda params, x, y: line(x, y),
        reference=lambda params, x, y: line(x, y),
        guide=lambda strategies: lambda params, x, y: None,
        params=None,
        data=(jnp.asarray(x), jnp.asarray(y)),
        dims={"slope": ["column"]},
        coords={"column": columns},
    )


def coefficients(rows: Any, weights: Any = None) -> dict[str, jax.Array]:
    """Slopes of least squares, and the standard deviation of what is left."""
    x, y = rows
    weights = jnp.full(len(y), 1 / len(y), y.dtype) if weights is None else weights
    found = amortized.least_squares(rows, weights=weights)
    left = y - found[0] - x @ found[1:]
    return {"slope": found[1:], "scale": jnp.sqrt(weights @ left**2)}


def ahead(study: Problem, reference: Row) -> Row:
    """By the posterior predictive of draws of NUTS."""
    start = time.perf_counter()
    posterior = reference.tree["posterior"]
    draws = {name: _thinned(posterior[name].values) for name in LATENTS}
    rule = amortized.PosteriorPredictive(line, draws)
    found = amortized.predictive_resample(
        jax.random.key(1), rule, study.data, coefficients, num_forward=AHEAD,
        num_samples=SAMPLES, num_records=2, correct=True,
    )  # fmt: skip
    return _row("martingale", "its own predictive", found, study, start)


def bootstrap(study: Problem) -> Row:
    """By Pólya's urn, with infinitely many rows."""
    start = time.perf_counter()
    found = amortized.bayesian_bootstrap(
        jax.random.key(2), study.data, coefficients, num_samples=WEIGHTED
    )
    return _row("martingale", "Pólya's urn", found, study, start)


def run(study: Study) -> Report:
    """NUTS, then both rules."""
    asked = problem()
    if not study.is_tour:
        study = dataclasses.replace(study, chains=2, warmup=300, samples=500)
    reference = run_all([("NUTS", lambda: study.nuts(asked))])[0]
    fits = run_all(
        [
            ("its own predictive", lambda: ahead(asked, reference)),
            ("Pólya's urn", lambda: bootstrap(asked)),
        ]
    )
    rows = [reference, *(against(row, reference, LATENTS) for row in fits)]
    remarks = [
        quality(reference, LATENTS),
        f"its own predictive: {AHEAD} rows drawn ahead, {SAMPLES} times, from {DRAWS} draws of "
        "NUTS; the urn: infinitely many",
    ]
    return Report(asked, rows, remarks)


def picture(report: Report, folder: Path) -> list[Path]:
    """Posterior intervals of all coefficients."""
    columns = load()[2]
    with plt.rc_context(_plots.STYLE):
        figure, axes = plt.subplots(figsize=(9, 4.5), layout="constrained")
        for place, row in enumerate(report.rows):
            values = row.tree["posterior"]["slope"].values.reshape(-1, len(columns))
            low, middle, high = np.quantile(values, [0.05, 0.5, 0.95], axis=0)
            at = np.arange(len(columns)) + 0.22 * (place - 1)
            colour = _plots.COLOURS[place]
            axes.vlines(at, low, high, color=colour, lw=3, alpha=0.7, label=row.label)
            axes.plot(at, middle, "o", color="white", mec=colour, ms=5)
        axes.axhline(0, color=_plots.GREY, lw=0.8)
        axes.set_xticks(range(len(columns)), columns)
        axes.set(ylabel="coefficient, standardised: median, 90 %", title=report.problem.title)
        axes.legend()
        return [_plots.save(figure, folder / "martingale.png")]


def _thinned(values: np.ndarray) -> np.ndarray:
    flat = values.reshape(-1, *values.shape[2:])
    return flat[:: max(1, len(flat) // DRAWS)][:DRAWS]


def _row(objective: str, rule: str, found: Any, asked: Problem, start: float) -> Row:
    tree = found.to_datatree(dims=asked.dims, coords=asked.coords)
    return Row(objective, rule, tree, seconds=time.perf_counter() - start)
