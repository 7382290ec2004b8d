"""Mistakes in calls of predictive resampling and copula predictives, `bayesjx.amortized`."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesjx import amortized
from bayesjx.distributions import kernel_mixture
from benchmarks.bad_input._case import Case

N = 7
KEY = jax.random.key(0)
NAN = float("nan")
Y, X = np.random.default_rng(0).normal(size=N), np.random.default_rng(1).normal(size=(N, 2))
NORMAL = amortized.NormalNormal(0.0, 1.0, 1.0)
ATOMS = amortized.PolyaUrn(1.0, dist.Normal(0.0, 1.0))


def _resample(rule: Any = NORMAL, data: Any = Y, functional: Any = jnp.mean, **changed: Any) -> Any:
    options: dict[str, Any] = {"num_forward": 3, "num_samples": 2} | changed
    return amortized.predictive_resample(KEY, rule, data, functional, **options)


@functools.cache
def _network() -> Any:
    head = amortized.NormalHead()
    return amortized.PFNPredictive(amortized.PFN(2, head, key=KEY, width=8, depth=1, heads=2))


def _line(x: Any) -> None:
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0).expand([2]).to_event(1))
    numpyro.sample("y", dist.Normal(x @ slope, 1.0))


def _certain(x: Any) -> None:
    numpyro.sample("y", dist.Delta(x @ jnp.ones(2)))


def _posterior(model: Any = _line, draws: Any = None, **options: Any) -> Any:
    draws = {"slope": X} if draws is None else draws
    return amortized.PosteriorPredictive(model, draws, **options).init((X, Y))


def _known(outputs: Any = (0.5,), inputs: Any = (0.5, 0.5)) -> Any:
    convert = lambda r: None if r is None else jnp.asarray(r)  # noqa: E731
    return amortized.CopulaBandwidths(convert(outputs), convert(inputs))


def _density(y: Any = X, known: Any = None, **options: Any) -> Any:
    known = _known((0.5, 0.5), None) if known is None else known
    return amortized.CopulaDensity.fit(KEY, y, bandwidths=known, **options)


def _regression(x: Any = X, y: Any = Y, **options: Any) -> Any:
    return amortized.CopulaRegression.fit(KEY, x, y, **({"bandwidths": _known()} | options))


def _classifier(x: Any = X, y: Any = None, **options: Any) -> Any:
    y = (Y > 0).astype(int) if y is None else y
    return amortized.CopulaClassifier.fit(KEY, x, y, **({"bandwidths": _known()} | options))


_RESAMPLE, _BOOTSTRAP = "amortized.predictive_resample", "amortized.bayesian_bootstrap"
_URN, _CLASSES = "amortized.PolyaUrn", "amortized.CategoricalUrn"
_POSTERIOR, _M = "amortized.PosteriorPredictive", "amortized.m_estimator"
_DENSITY, _REGRESSION = "amortized.CopulaDensity", "amortized.CopulaRegression"
_CLASSIFIER, _KERNELS = "amortized.CopulaClassifier", "distributions.kernel_mixture"

CASES: tuple[Case, ...] = (
    Case(_RESAMPLE, "key", lambda: amortized.predictive_resample(
        0, NORMAL, Y, jnp.mean, num_forward=3), "PRNG key"),
    Case(_RESAMPLE, "rule", lambda: _resample(dist.Normal(0.0, 1.0)), "predictive rule"),
    Case(_RESAMPLE, "num_forward", lambda: _resample(num_forward=0), "at least 1"),
    Case(_RESAMPLE, "num_samples", lambda: _resample(num_samples=0.5), "integer"),
    Case(_RESAMPLE, "functional", lambda: _resample(functional=lambda rows: rows), "do not depend"),
    Case(_RESAMPLE, "functional", lambda: _resample(functional=lambda rows: rows @ X[0]), "shapes"),
    Case(_RESAMPLE, "functional", lambda: _resample(functional=None), "function"),
    Case(_RESAMPLE, "functional", lambda: _resample(functional=np.median), r"jax\.numpy"),
    Case(_RESAMPLE, "functional", lambda: _resample(
        functional=lambda rows: 1j * jnp.mean(rows)), "real numbers"),
    Case(_RESAMPLE, "data", lambda: _resample(data=[0.1, 0.2]), "make an array"),
    Case(_RESAMPLE, "points", lambda: _resample(
        amortized.PolyaUrn(1.0, dist.Normal(np.zeros(2), 1.0).to_event(1)), X, points=X,
        functional=amortized.weighted_mean), "neither a density"),
    Case(_RESAMPLE, "of", lambda: _resample(of="row"), "'rows' or 'state'"),
    Case(_RESAMPLE, "correct", lambda: _resample(correct=None), "True or False"),
    Case(_RESAMPLE, "data", lambda: _resample(data=Y * NAN), "NaN"),
    Case(_RESAMPLE, "data", lambda: _resample(_network()), r"pair \(x, y\)"),
    Case(_RESAMPLE, "data", lambda: _resample(_network(), (X[:0], Y[:0])), "empty"),
    Case(_RESAMPLE, "points", lambda: _resample(points=X), "like those of data"),
    Case(_RESAMPLE, "inputs", lambda: _resample(_network(), (X, Y), inputs="grid"), "'urn'"),
    Case(_RESAMPLE, "inputs", lambda: _resample(_network(), (X, Y), inputs=X[:, 0]), r"\(k, \*"),
    Case(_RESAMPLE, "inputs", lambda: _resample(
        _network(), (X, Y), inputs=lambda key: jnp.zeros(3)), r"shape \(2,\)"),
    Case(_RESAMPLE, "batch_size", lambda: _resample(batch_size=0), "at least 1"),
    Case(_RESAMPLE, "num_records", lambda: _resample(num_records=0), "at least 1"),
    Case(_URN, "concentration", lambda: amortized.PolyaUrn(-1.0), "not negative"),
    Case(_URN, "base", lambda: amortized.PolyaUrn(1.0), "needs a base"),
    Case(_URN, "base", lambda: amortized.PolyaUrn(1.0, dist.Normal(np.zeros(2), 1.0)), "to_event"),
    Case(_URN, "data", lambda: ATOMS.init(X), "draws of the base"),
    Case(_URN, "data", lambda: amortized.PolyaUrn().init(Y[:0]), "empty"),
    Case(_URN, "concentration", lambda: amortized.PolyaUrn(0.0, dist.Normal(0.0, 1.0)).init(Y[:0]),
         "nothing can be drawn"),
    Case(_CLASSES, "concentrations", lambda: amortized.CategoricalUrn([1.0]), "2 classes"),
    Case(_CLASSES, "concentrations", lambda: amortized.CategoricalUrn([1.0, NAN]), "positive"),
    Case(_CLASSES, "data", lambda: amortized.CategoricalUrn([1.0, 1.0]).init(np.full(3, 2)),
         "classes 0"),
    Case("amortized.NormalNormal", "scale", lambda: amortized.NormalNormal(0.0, 0.0, 1.0),
         "positive"),
    Case("amortized.NormalNormal", "loc", lambda: amortized.NormalNormal([0.0], 1.0, 1.0),
         "scalar"),
    Case("amortized.PFNPredictive", "network", lambda: amortized.PFNPredictive(NORMAL), "PFN"),
    Case(_POSTERIOR, "model", lambda: _posterior("line"), "callable"),
    Case(_POSTERIOR, "draws", lambda: _posterior(draws={"slope": X[:0]}), "same length"),
    Case(_POSTERIOR, "draws", lambda: _posterior(draws={"slope": X * NAN}), "NaN"),
    Case(_POSTERIOR, "draws", lambda: _posterior(draws={"other": X}), "all latent sites"),
    Case(_POSTERIOR, "y", lambda: _posterior(y="z"), "'z'"),
    Case(_POSTERIOR, "y", lambda: _posterior(_certain), "density"),
    Case(_BOOTSTRAP, "functional", lambda: amortized.bayesian_bootstrap(KEY, Y, jnp.mean),
         "weights"),
    Case(_BOOTSTRAP, "data", lambda: amortized.bayesian_bootstrap(
        KEY, Y[:0], amortized.weighted_mean), "empty"),
    Case(_BOOTSTRAP, "concentration", lambda: amortized.bayesian_bootstrap(
        KEY, Y, amortized.weighted_mean, concentration=0.0), "positive"),
    Case("amortized.MartingalePosterior", "name", lambda: _resample().distribution("mean"),
         "one of 'theta'"),
    Case(_KERNELS, "samples", lambda: kernel_mixture(X[None]), r"\(s, d\)"),
    Case(_KERNELS, "samples", lambda: kernel_mixture(X[:3]), "at least 4 draws"),
    Case(_KERNELS, "samples", lambda: kernel_mixture(X * NAN), "NaN"),
    Case(_KERNELS, "samples", lambda: kernel_mixture(np.stack([Y, Y], axis=1)), "all directions"),
    Case("amortized.least_squares", "data", lambda: amortized.least_squares((X, X)), r"\(n,\)"),
    Case("amortized.weighted_quantile", "probs", lambda: amortized.weighted_quantile(0.0),
         r"\(0, 1\)"),
    Case(_M, "loss", lambda: amortized.m_estimator(lambda w: w, jnp.zeros(2)), "a row"),
    Case(_M, "loss", lambda: amortized.m_estimator(lambda w, r: w - r, jnp.zeros(()))(X), "one"),
    Case(_M, "start", lambda: amortized.m_estimator(lambda w, r: 0.0, {}), "array"),
    Case(_M, "rtol", lambda: amortized.m_estimator(lambda w, r: 0.0, 0.0, rtol=2), r"\(0, 1\)"),
    Case("amortized.cid_defect", "points", lambda: amortized.cid_defect(KEY, NORMAL, Y, X),
         "like those of data"),
    Case("amortized.cid_defect", "num_draws", lambda: amortized.cid_defect(
        KEY, NORMAL, Y, Y, num_draws=1), "at least 2"),
    Case("amortized.order_sensitivity", "num_permutations", lambda: amortized.order_sensitivity(
        KEY, NORMAL, Y, Y, num_permutations=1), "at least 2"),
    Case("amortized.prequential_log_prob", "log_prob",
         lambda: amortized.prequential_log_prob(ATOMS, Y), "has none"),
    Case(_DENSITY, "y", lambda: _density(X * NAN), "NaN"),
    Case(_DENSITY, "y", lambda: _density(np.ones((N, 2))), "constant"),
    Case(_DENSITY, "y", lambda: amortized.CopulaDensity.fit(KEY, X[:1]), "2 rows"),
    Case(_DENSITY, "y", lambda: _density().log_prob(Y), r"\(n, 2\)"),
    Case(_DENSITY, "bandwidths", lambda: _density(known=_known((1.5, 0.5), None)), r"\(0, 1\)"),
    Case(_DENSITY, "bandwidths", lambda: _density(known=0.5), "CopulaBandwidths"),
    Case(_DENSITY, "num_permutations", lambda: _density(num_permutations=0), "at least 1"),
    Case(_DENSITY, "num_forward", lambda: _density().resample(KEY, X, num_forward=0), "at least 1"),
    Case("amortized.CopulaBandwidths", "outputs", lambda: _density(known=_known(None, None)),
         r"shape \(2,\)"),
    Case(_REGRESSION, "kind", lambda: _regression(kind="marginal"), "'joint'"),
    Case(_REGRESSION, "y", lambda: _regression(y=X), r"\(n,\)"),
    Case(_REGRESSION, "x", lambda: _regression(x=X[:3]), "same number"),
    Case(_REGRESSION, "x", lambda: _regression().log_prob(Y, Y), r"\(n, 2\)"),
    Case(_REGRESSION, "y", lambda: _regression().resample(KEY, X), "x and y"),
    Case(_REGRESSION, "x", lambda: _regression(X[:0], Y[:0]).resample(KEY, X, Y), "empty"),
    Case(_CLASSIFIER, "y", lambda: _classifier(y=Y), "0 and 1"),
    Case(_CLASSIFIER, "x", lambda: _classifier(X[:0], Y[:0]).resample(KEY, X), "empty"),
    Case(_CLASSIFIER, "x", lambda: _classifier().predict(Y), r"\(n, 2\)"),
)  # fmt: skip
