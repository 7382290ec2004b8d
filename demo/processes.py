"""The flow of the Nile: a Gaussian process, its hyper-parameters, and a sparse bound.

Lengthscale, variance and noise are sampled by NUTS with the exact marginal likelihood and
approximated by guides, with that and with the tightened bound of a few inducing points in its
place. Every other year is kept back and predicted, by all draws of the parameters.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from statsmodels.datasets import nile

from bayesjx import gp, kernels, vi

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

START = {"log_lengthscale": -1.0, "log_variance": -0.5, "log_noise": -0.5}
POINTS = 10  # inducing points of the sparse bound
NUM_CURVES = 50  # draws of the parameters that predict
HELD_OUT, COVERED = "held out (nats)", "in 90 %"


@dataclasses.dataclass(frozen=True)
class Years:
    """A number a year, standardised by the years given.

    Attributes:
        year: all years.
        y: the numbers.
        given: which years the fits see.
    """

    year: np.ndarray
    y: np.ndarray
    given: np.ndarray

    @property
    def when(self) -> np.ndarray:
        """The years in units of 50, from 1920."""
        return (self.year - 1920) / 50


def standardised(year: np.ndarray, y: np.ndarray, given: np.ndarray) -> Years:
    """The series of some numbers."""
    return Years(year, (y - y[given].mean()) / y[given].std(), given)


@functools.cache
def load() -> Years:
    """Volumes at Aswan, with every second year kept back."""
    table = nile.load_pandas().data
    year, volume = (table[name].to_numpy(float) for name in ("year", "volume"))
    return standardised(year, volume, np.arange(len(year)) % 2 == 0)


def prior(p: Any) -> gp.GP:
    """The process of some parameters."""
    kernel = kernels.Matern32(jnp.exp(p["log_lengthscale"]), jnp.exp(p["log_variance"]))
    return gp.GP(kernel, noise_var=jnp.exp(p["log_noise"]))


def model(params: Any, x: jax.Array, y: jax.Array) -> None:
    """The exact marginal likelihood."""
    p = {name: numpyro.sample(name, dist.Normal(at, 1.0)) for name, at in START.items()}
    numpyro.sample("y", prior(p)(x), obs=y)


def sparse_model(params: Any, x: jax.Array, y: jax.Array) -> None:
    """Its tightened lower bound by a few inducing points."""
    p = {name: numpyro.sample(name, dist.Normal(at, 1.0)) for name, at in START.items()}
    points = jnp.linspace(x.min(), x.max(), POINTS)
    numpyro.sample("y", gp.sgpr(prior(p), x, inducing_points=points), obs=y)


def independent(names: Sequence[str]) -> Callable[[Strategies], Callable[..., None]]:
    """A family of guides with a Normal for each parameter."""

    def guide(strategies: Strategies) -> Callable[..., None]:
        def program(params: Any, *data: jax.Array) -> None:
            for name in names:
                normal = dist.Normal(params[name]["loc"], jnp.exp(params[name]["log_scale"]))
                numpyro.sample(name, strategies.get(name, vi.reparam)(normal))

        return program

    return guide


CHOICES = [
    Choice("ELBO", "exact process", vi.elbo, {}, tour=True),
    Choice(
        "ELBO", f"{POINTS} points", lambda _, guide: vi.elbo(sparse_model, guide), {}, tour=True
    ),
]


def problem() -> Problem:
    """The data and programs of this part."""
    river = load()
    data = (jnp.asarray(river.when[river.given]), jnp.asarray(river.y[river.given]))
    return Problem(
        name="processes",
        title="The Nile at Aswan: a Gaussian process and its hyper-parameters",
        model=model,
        reference=model,
        guide=independent(list(START)),
        params=normals(dict.fromkeys(START, ()), START, log_scale=-2.0),
        data=data,
        dims={},
        coords={},
    )


def volume(p: Any) -> dist.Distribution:
    """The predictive distribution of every year, for some parameters."""
    return gp.condition(prior(p), *problem().data).predict(load().when)


def predict(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the volume in every year, for draws of the parameters."""
    return predictions(row, list(START), volume)


def predictions(
    row: Row, names: list[str], predictive: Callable[[Any], dist.Distribution]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of new observations, for some draws of the parameters.

    Args:
        row: whose posterior they come from.
        names: of the parameters.
        predictive: distribution of new observations given the parameters; its program is kept.
    """
    posterior = row.tree["posterior"]
    draws = {name: posterior[name].values.reshape(-1) for name in names}
    pick = np.linspace(0, len(draws[names[0]]) - 1, NUM_CURVES).astype(int)
    chosen = {name: jnp.asarray(values[pick]) for name, values in draws.items()}
    mean, scale = _moments(predictive)(chosen)
    return np.asarray(mean), np.asarray(scale)


@functools.cache
def _moments(predictive: Callable[[Any], dist.Distribution]) -> Callable[[Any], Any]:
    """Means and standard deviations for stacked parameters, compiled once for all rows."""

    def one(p: Any) -> tuple[jax.Array, jax.Array]:
        observed = predictive(p)
        return observed.mean, jnp.sqrt(observed.variance)

    return jax.jit(lambda chosen: jax.lax.map(one, chosen))


def judged(row: Row, series: Any, predict: Callable[[Row], tuple[np.ndarray, np.ndarray]]) -> Row:
    """The row with its log density at what was kept back, and how much is in its interval."""
    mean, scale = (jnp.asarray(part[:, ~series.given]) for part in predict(row))
    truth = series.y[~series.given]
    log_density = dist.Normal(mean, scale).log_prob(truth)
    mixture = jax.nn.logsumexp(log_density, axis=0) - jnp.log(len(mean))
    below = dist.Normal(mean, scale).cdf(truth).mean(axis=0)
    extra = {
        HELD_OUT: float(mixture.mean()),
        COVERED: float(jnp.mean((below > 0.05) & (below < 0.95))),
    }
    return dataclasses.replace(row, extra=extra)


def run(study: Study) -> Report:
    """NUTS with the exact process, then guides with that and with the sparse bound."""
    return compared(study, problem(), CHOICES, load(), predict)


def compared(
    study: Study, this: Problem, choices: Sequence[Choice], series: Any, predict: Callable
) -> Report:
    """NUTS and the guides, each judged by what was kept back of the series."""
    tasks: list[tuple[str, Callable[[], Row]]] = [("NUTS", lambda: study.nuts(this))]
    for choice in study.select(choices):
        label = f"{choice.objective}, {choice.strategy}"
        tasks.append((label, functools.partial(study.fit, this, choice)))
    reference, *fits = (judged(row, series, predict) for row in run_all(tasks))
    names = list(this.params)
    rows = [reference, *(against(row, reference, names) for row in fits)]
    return Report(this, rows, [quality(reference, names), remark(series)])


def remark(series: Any) -> str:
    """What the two columns of `judged` are."""
    years = int(np.sum(~series.given))
    return (
        f"held out: mean log density of {years} years by {NUM_CURVES} draws of the parameters; "
        "in 90 %: share of them in that interval"
    )
