"""Three centuries of sunspots: a damped oscillator as a state-space model, and its forecast.

Period, quality, variance and noise are sampled by NUTS with the exact marginal likelihood, which a
Kalman filter gives, and approximated by a guide. The last years are kept back and forecast.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from statsmodels.datasets import sunspots

from bayesjx import kernels, ssm, vi

from ._study import Choice, normals, Problem, Report, Row, Study
from .processes import compared, independent, predictions, standardised, Years

# Medians and standard deviations of the prior: the period is known to about a tenth.
PRIOR = {
    "log_period": (np.log(11.0), 0.1),
    "log_quality": (np.log(5.0), 1.0),
    "log_variance": (0.0, 1.0),
    "log_noise": (-2.0, 1.0),
}
START = {name: float(median) for name, (median, _) in PRIOR.items()}
AHEAD = 11  # years that are forecast, a cycle


@functools.cache
def load() -> Years:
    """Roots of the numbers, whose scatter does not grow with their level; the last kept back."""
    table = sunspots.load_pandas().data
    year, number = (table[name].to_numpy(float) for name in ("YEAR", "SUNACTIVITY"))
    return standardised(year, np.sqrt(number), np.arange(len(year)) < len(year) - AHEAD)


def series(p: Any) -> ssm.MarkovGP:
    """The years given, for some parameters."""
    spots = load()
    kernel = kernels.SHO(*(jnp.exp(p[f"log_{name}"]) for name in ("period", "quality", "variance")))
    return ssm.MarkovGP(kernel, spots.year[spots.given], noise_var=jnp.exp(p["log_noise"]))


def model(params: Any, y: jax.Array) -> None:
    """The exact marginal likelihood, by a filter."""
    p = {name: numpyro.sample(name, dist.Normal(*prior)) for name, prior in PRIOR.items()}
    numpyro.sample("y", series(p), obs=y)


CHOICES = [
    Choice("ELBO", "reparam", vi.elbo, {}, tour=True),
    Choice("IWELBO-8", "reparam", functools.partial(vi.iwelbo, num_particles=8), {}),
]


def problem() -> Problem:
    """The data and programs of this part."""
    spots = load()
    return Problem(
        name="cycles",
        title="Sunspots since 1700: an oscillator in state space, and its forecast",
        model=model,
        reference=model,
        guide=independent(list(START)),
        params=normals(dict.fromkeys(START, ()), START, log_scale=-2.0),
        data=(jnp.asarray(spots.y[spots.given]),),
        dims={},
        coords={},
    )


def forecast(p: Any) -> dist.Normal:
    """The predictive distribution of every year, for some parameters."""
    return series(p).condition(*problem().data).predict(load().year)


def predict(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every year, for draws of the parameters."""
    return predictions(row, list(START), forecast)


def run(study: Study) -> Report:
    """NUTS, then guides, with the same marginal likelihood."""
    return compared(study, problem(), CHOICES, load(), predict)
