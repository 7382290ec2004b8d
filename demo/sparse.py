"""The progression of diabetes: a regression on 36 columns, of which few matter.

Ten covariates, nine squares and 17 products with `bmi` or `s5`, which matter most by themselves;
each group has a prior variance of its own. The weights are integrated out by `sbl.SBLMarginal`, and
NUTS and guides see four numbers only; the weights of any draw of these are then exact. Half of the
patients are kept back and predicted.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from sklearn.datasets import load_diabetes

from bayesjx import sbl, vi

from ._study import against, Choice, normals, Problem, quality, Report, Row, run_all, Study
from .processes import independent, judged, NUM_CURVES, predictions

START = {"log_covariates": -4.0, "log_squares": -6.0, "log_products": -6.0, "log_noise": -0.5}
SLAB_VAR, PRIOR_PROB = 0.1, 0.2  # of the probabilities beside, in units of the noise


@dataclasses.dataclass(frozen=True)
class Patients:
    """Columns and progression, standardised by the patients given.

    Attributes:
        names: of the columns.
        groups: of the columns: 0 a covariate, 1 a square, 2 a product.
        design: all patients' columns.
        y: their progression after a year.
        given: which patients the fits see.
    """

    names: list[str]
    groups: np.ndarray
    design: np.ndarray
    y: np.ndarray
    given: np.ndarray


@functools.cache
def load() -> Patients:
    """Of 442 patients, with every second one kept back."""
    table = load_diabetes(scaled=False)
    given = np.arange(len(table.target)) % 2 == 0
    x = standardised(table.data, given)
    labels = table.feature_names
    first, second = np.triu_indices(x.shape[1])
    square = (first == second) & (first != labels.index("sex"))
    main = [labels.index(name) for name in ("bmi", "s5")]
    product = (first != second) & (np.isin(first, main) | np.isin(second, main))
    first, second = (part[square | product] for part in (first, second))
    products = standardised(x[:, first] * x[:, second], given)
    names = [f"{labels[i]}·{labels[j]}" for i, j in zip(first, second, strict=True)]
    groups = np.concatenate([np.zeros(x.shape[1], int), np.where(first == second, 1, 2)])
    return Patients(
        [*labels, *names],
        groups,
        np.concatenate([x, products], axis=1),
        standardised(table.target, given),
        given,
    )


def standardised(values: np.ndarray, given: np.ndarray) -> np.ndarray:
    """The values in units in which those given have mean 0 and variance 1."""
    return (values - values[given].mean(axis=0)) / values[given].std(axis=0)


def log_prior_var(p: Any) -> jax.Array:
    """Of each weight, that of its group."""
    of_group = jnp.stack([p["log_covariates"], p["log_squares"], p["log_products"]])
    return of_group[load().groups]


def model(params: Any, design: jax.Array, y: jax.Array) -> None:
    """The regression with its weights integrated out."""
    p = {name: numpyro.sample(name, dist.Normal(at, 2.0)) for name, at in START.items()}
    numpyro.sample("y", sbl.SBLMarginal(design, log_prior_var(p), p["log_noise"]), obs=y)


CHOICES = [
    Choice("ELBO", "exact weights", vi.elbo, {}, tour=True),
]


def problem() -> Problem:
    """The data and programs of this part."""
    patients = load()
    data = tuple(jnp.asarray(part[patients.given]) for part in (patients.design, patients.y))
    return Problem(
        name="sparse",
        title="Progression of diabetes: 36 columns, few of which matter",
        model=model,
        reference=model,
        guide=independent(list(START)),
        params=normals(dict.fromkeys(START, ()), START, log_scale=-1.0),
        data=data,
        dims={},
        coords={},
    )


def marginals(p: Any) -> dist.Normal:
    """The weights one by one, given their variances."""
    found = posterior(p)
    return dist.Normal(found.mean, jnp.sqrt(found.variance))


def progression(p: Any) -> dist.Distribution:
    """The predictive distribution of every patient, given the variances of the weights."""
    return posterior(p).predict(load().design)


def weights(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of the weights, for draws of the variances."""
    return predictions(row, list(START), marginals)


def predict(row: Row) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every patient's progression, for draws of the variances."""
    return predictions(row, list(START), progression)


def posterior(p: Any) -> sbl.WeightPosterior:
    """The weights given their variances."""
    design, y = problem().data
    noise_var, prior_var = jnp.exp(p["log_noise"]), jnp.exp(log_prior_var(p))
    return sbl.condition(design, y, noise_var=noise_var, prior_var=prior_var)


@functools.cache
def inclusion() -> sbl.SpikeSlabPosterior:
    """The same regression with spike and slab: a probability for each column."""
    design, y = problem().data
    return sbl.spike_and_slab(
        design,
        y,
        noise_var=dist.InverseGamma(1.0, 0.5),
        slab_var=SLAB_VAR,
        prior_prob=PRIOR_PROB,
        key=jax.random.key(3),
        num_samples=300,
        num_warmup=100,
    )


def run(study: Study) -> Report:
    """NUTS, then guides, each judged by the patients kept back."""
    this = problem()
    tasks: list[Any] = [("NUTS", lambda: study.nuts(this))]
    for choice in study.select(CHOICES):
        label = f"{choice.objective}, {choice.strategy}"
        tasks.append((label, functools.partial(study.fit, this, choice)))
    reference, *fits = (judged(row, load(), predict) for row in run_all(tasks))
    rows = [reference, *(against(row, reference, list(START)) for row in fits)]
    return Report(this, rows, [quality(reference, list(START)), *remarks()])


def remarks() -> list[str]:
    """What the columns of `judged` are, and which columns of the design matter."""
    patients, found = load(), inclusion()
    order = np.argsort(-np.asarray(found.inclusion_prob))[:6]
    likely = ", ".join(f"{patients.names[j]} {found.inclusion_prob[j]:.2f}" for j in order)
    return [
        f"held out: mean log density of {np.sum(~patients.given)} patients by {NUM_CURVES} draws "
        "of the variances; in 90 %: share of them in that interval",
        f"spike and slab, likeliest columns: {likely}; chains agree: {bool(found.converged)}",
    ]
