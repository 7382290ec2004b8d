"""Mistakes in calls of `bayesjx.bnn`, of scores of classes and of images."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist
import optax
from numpyro.handlers import seed

from bayesjx import bnn, datasets, diagnostics, likelihoods
from benchmarks.bad_input._case import Case

N, D, C = 7, 3, 4
KEY = jax.random.key(0)
NAN = float("nan")


def _x(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape or (N, D))


def _network(out: Any = "scalar") -> Any:
    return eqx.nn.MLP(D, out, 5, 1, key=KEY)


def _make(key: jax.Array) -> Any:
    return eqx.nn.MLP(D, "scalar", 5, 1, key=key)


def _noise() -> Any:
    return likelihoods.Gaussian(0.1)


def _classes(f: jax.Array) -> Any:
    return dist.Categorical(logits=f)


def _field(**options: Any) -> Any:
    arguments: dict[str, Any] = {"network": _network(), "likelihood": _noise()} | options
    return bnn.mean_field(arguments.pop("network"), arguments.pop("likelihood"), **arguments)


def _elbo(x: Any = None, y: Any = None, num_data: Any = None, **options: Any) -> Any:
    x, y = _x() if x is None else x, _x(N) if y is None else y
    return _field().elbo(x, y, num_data, **({"key": KEY} | options))


def _labels(y: Any) -> Any:
    q = _field(network=_network(C), likelihood=_classes)
    return q.elbo(_x(), y, key=KEY)


def _jitted_labels(y: Any) -> Any:
    q = _field(network=_network(C), likelihood=_classes)
    return eqx.filter_jit(lambda y: q.elbo(_x(), y, key=KEY))(y)


def _vi(**options: Any) -> Any:
    arguments: dict[str, Any] = {"optimizer": optax.adam(0.1), "num_data": N} | options
    q = arguments.pop("distribution") if "distribution" in arguments else _field()
    return bnn.mean_field_vi(q, arguments.pop("optimizer"), **arguments)


def _joint(x: Any = None, y: Any = None, **options: Any) -> Any:
    x, y = _x() if x is None else x, _x(N) if y is None else y
    return bnn.log_joint(_network(), _noise(), x, y, **options)


def _samples(**options: Any) -> Any:
    arguments: dict[str, Any] = {"networks": [_network()] * 2, "likelihood": _noise()} | options
    return bnn.NetworkSamples(arguments.pop("networks"), arguments.pop("likelihood"), **arguments)


def _ensemble(**options: Any) -> Any:
    arguments: dict[str, Any] = {"make": _make, "likelihood": _noise()} | options
    make, likelihood = arguments.pop("make"), arguments.pop("likelihood")
    return bnn.deep_ensemble(KEY, make, likelihood, **arguments)


def _map(**options: Any) -> Any:
    arguments: dict[str, Any] = {"optimizer": optax.adam(0.1), "num_data": N} | options
    ensemble = arguments.pop("ensemble") if "ensemble" in arguments else _ensemble()
    return bnn.ensemble_map(ensemble, arguments.pop("optimizer"), **arguments)


def _swag(**options: Any) -> Any:
    arguments: dict[str, Any] = {"network": _network(), "likelihood": _noise()} | options
    return bnn.swag(arguments.pop("network"), arguments.pop("likelihood"), **arguments)


def _sgd(**options: Any) -> Any:
    arguments: dict[str, Any] = {"optimizer": optax.sgd(0.1), "num_data": N} | options
    q = arguments.pop("distribution") if "distribution" in arguments else _swag()
    return bnn.swag_sgd(q, arguments.pop("optimizer"), **arguments)


def _site(name: Any = "net", network: Any = None, **options: Any) -> Any:
    network = _network() if network is None else network
    return seed(lambda: bnn.random_network(name, network, **options), KEY)()


def _probs() -> np.ndarray:
    return np.full((N, C), 1 / C)


def _holes(*shape: int) -> np.ndarray:
    x = _x(*shape)
    x.flat[0] = NAN
    return x


_SCORES = (diagnostics.log_score, diagnostics.brier_score, diagnostics.calibration_error)
CASES: tuple[Case, ...] = (
    Case("bnn.mean_field", "network", lambda: _field(network=_x()), "callable Equinox module"),
    Case("bnn.mean_field", "network", lambda: _field(network=eqx.nn.MLP), "callable Equinox"),
    Case(
        "bnn.mean_field",
        "network",
        lambda: _field(network=eqx.nn.Sequential([eqx.nn.BatchNorm(D, "b", mode="ema")])),
        "BatchNorm",
    ),
    Case("bnn.mean_field", "network", lambda: _field(network=eqx.nn.Identity()), "has none"),
    Case("bnn.mean_field", "where", lambda: _field(where=lambda m: m.layers[9]), "node"),
    Case("bnn.mean_field", "where", lambda: _field(where=lambda m: m.weights), "node"),
    Case("bnn.mean_field", "where", lambda: _field(where="weights"), "function of the network"),
    Case("bnn.mean_field", "where", lambda: _field(where=lambda m: m.activation), "floating"),
    Case("bnn.mean_field", "where", lambda: _field(where=lambda m: 3.0), "node"),
    Case("bnn.mean_field", "prior", lambda: _field(prior=0.0), "positive"),
    Case("bnn.mean_field", "prior", lambda: _field(prior="normal"), "standard deviation"),
    Case("bnn.mean_field", "prior", lambda: _field(prior=NAN), "positive"),
    Case("bnn.mean_field", "prior", lambda: _field(prior={"w": 1.0}), "each random leaf"),
    Case("bnn.mean_field", "prior", lambda: _field(prior=dist.HalfNormal(1.0)), "real numbers"),
    Case(
        "bnn.mean_field",
        "prior",
        lambda: _field(prior=dist.Normal(np.zeros(2), 1.0)),
        "broadcast to its shape",
    ),
    Case("bnn.mean_field", "init_scale", lambda: _field(init_scale=-1.0), "positive"),
    Case("bnn.mean_field", "estimator", lambda: _field(estimator="lrt"), "'flipout'"),
    Case(
        "bnn.mean_field",
        "estimator",
        lambda: _field(network=eqx.nn.LayerNorm(D)),
        "LayerNorm",
    ),
    Case("bnn.MeanField.elbo", "x", lambda: _elbo(_holes(N, D)), "NaN"),
    Case("bnn.MeanField.elbo", "x", lambda: _elbo(_x(0, D), _x(0)), "empty"),
    Case("bnn.MeanField.elbo", "x", lambda: _elbo(_x(N, 2)), "fails at an input"),
    Case("bnn.MeanField.elbo", "x", lambda: _elbo(_x() + 1j), "real inputs"),
    Case("bnn.MeanField.elbo", "y", lambda: _elbo(y=_x(N, 1)), "shape"),
    Case("bnn.MeanField.elbo", "y", lambda: _elbo(y=_x(3)), "shape"),
    Case("bnn.MeanField.elbo", "y", lambda: _elbo(y=_holes(N)), "support"),
    Case("bnn.MeanField.elbo", "y", lambda: _labels(np.full(N, C)), "support"),
    Case("bnn.MeanField.elbo", "y", lambda: _labels(np.full(N, -1)), "support"),
    Case("bnn.MeanField.elbo", "y", lambda: _jitted_labels(np.full(N, C)), "support"),
    Case("bnn.MeanField.elbo", "key", lambda: _elbo(key=3), "PRNG key"),
    Case("bnn.MeanField.elbo", "num_data", lambda: _elbo(num_data=3), "less than"),
    Case("bnn.MeanField.elbo", "kl_weight", lambda: _elbo(kl_weight=-1.0), "not negative"),
    Case("bnn.MeanField.elbo", "num_samples", lambda: _elbo(num_samples=0), "at least 1"),
    Case("bnn.MeanField.kl", "key", lambda: _field().kl(dist.Laplace(0.0, 1.0)), "not normal"),
    Case("bnn.MeanField.posterior", "key", lambda: _field().posterior(3), "PRNG key"),
    Case(
        "bnn.MeanField.posterior",
        "num_samples",
        lambda: _field().posterior(KEY, 2.5),
        "integer",
    ),
    Case("bnn.mean_field_vi", "distribution", lambda: _vi(distribution=_network()), "mean_field"),
    Case("bnn.mean_field_vi", "optimizer", lambda: _vi(optimizer="adam"), "Optax"),
    Case("bnn.mean_field_vi", "num_data", lambda: _vi(num_data=0.5), "integer"),
    Case("bnn.mean_field_vi", "kl_weight", lambda: _vi(kl_weight=NAN), "not negative"),
    Case("bnn.MeanField.elbo", "x", lambda: eqx.filter_jit(_elbo)(_holes(N, D)), "NaN"),
    Case("bnn.mean_field_vi", "trainable", lambda: _vi(trainable=lambda q: q.weights), "node"),
    Case("bnn.FanIn", "weight_scale", lambda: bnn.FanIn(0.0), "positive"),
    Case("bnn.FanIn", "bias_scale", lambda: bnn.FanIn(1.0, _x(2)), "number"),
    Case("bnn.log_joint", "x", lambda: _joint(_holes(N, D)), "NaN"),
    Case("bnn.log_joint", "y", lambda: _joint(y=_x(3)), "shape"),
    Case("bnn.log_joint", "prior", lambda: _joint(prior=-1.0), "positive"),
    Case(
        "bnn.random_leaves", "where", lambda: bnn.random_leaves("f", _network(), 3), "function of"
    ),
    Case("bnn.NetworkSamples", "networks", lambda: _samples(networks=[]), "at least one"),
    Case("bnn.NetworkSamples", "networks", lambda: _samples(networks=_network()), "first axis"),
    Case(
        "bnn.NetworkSamples",
        "networks",
        lambda: _samples(networks=[_network(), _network(C)]),
        "differ only by",
    ),
    Case("bnn.NetworkSamples", "log_weights", lambda: _samples(log_weights=_x(5)), "\\(2,\\)"),
    Case("bnn.NetworkSamples", "log_weights", lambda: _samples(log_weights=_holes(2)), "NaN"),
    Case("bnn.NetworkSamples", "chunk_size", lambda: _samples(chunk_size=0), "at least 1"),
    Case("bnn.NetworkSamples.values", "x", lambda: _samples().values(_holes(N, D)), "NaN"),
    Case("bnn.NetworkSamples.values", "x", lambda: _samples().values(_x(0, D)), "empty"),
    Case("bnn.NetworkSamples.mean", "x", lambda: _samples().mean(3.0), "one a row"),
    Case(
        "bnn.NetworkSamples.predict",
        "likelihood",
        lambda: _samples(likelihood=None).predict(_x()),
        "not known",
    ),
    Case(
        "bnn.NetworkSamples.predict",
        "likelihood",
        lambda: _samples(likelihood=lambda f: dist.Normal(f, np.ones(N))).predict(_x()),
        "data of each observation",
    ),
    Case(
        "bnn.NetworkSamples.sample",
        "sample_shape",
        lambda: _samples().sample(KEY, _x(), 3),
        "tuple",
    ),
    Case(
        "bnn.NetworkSamples.log_predictive_prob",
        "y",
        lambda: _samples().log_predictive_prob(_x(), _x(3)),
        "shape",
    ),
    Case("bnn.deep_ensemble", "make", lambda: _ensemble(make=_network()), "from a key"),
    Case("bnn.deep_ensemble", "num_members", lambda: _ensemble(num_members=0), "at least 1"),
    Case("bnn.deep_ensemble", "likelihood", lambda: _ensemble(likelihood=0.1), "function from f"),
    Case("bnn.deep_ensemble", "prior", lambda: _ensemble(prior=-1.0), "positive"),
    Case("bnn.deep_ensemble", "key", lambda: bnn.deep_ensemble(0, _make, _noise()), "PRNG key"),
    Case("bnn.ensemble_map", "ensemble", lambda: _map(ensemble=_network()), "deep_ensemble"),
    Case("bnn.ensemble_map", "optimizer", lambda: _map(optimizer=0.1), "Optax"),
    Case("bnn.ensemble_map", "num_data", lambda: _map(num_data=None), "integer"),
    Case("bnn.swag", "rank", lambda: _swag(rank=1), "at least 2"),
    Case("bnn.swag", "where", lambda: _swag(where=lambda m: m.layers[9]), "node"),
    Case("bnn.swag_sgd", "distribution", lambda: _sgd(distribution=_field()), "swag"),
    Case("bnn.swag_sgd", "start", lambda: _sgd(start=-1), "at least 0"),
    Case("bnn.swag_sgd", "every", lambda: _sgd(every=0), "at least 1"),
    Case(
        "bnn.swag_sgd",
        "trainable",
        lambda: _sgd(trainable=lambda q: q.likelihood).init(),
        "is random",
    ),
    Case("bnn.SWAG.trained", "start", lambda: _swag().trained(_sgd().init()), "2 points"),
    Case("bnn.random_network", "name", lambda: _site(3), "text"),
    Case("bnn.random_network", "network", lambda: _site(network=_x()), "callable"),
    Case("bnn.random_network", "prior", lambda: _site(prior=[1.0]), "standard deviation"),
    Case("bnn.from_sites", "samples", lambda: bnn.from_sites("net", {}, _network()), "site"),
    Case("bnn.from_sites", "samples", lambda: bnn.from_sites("net", _x(), _network()), "site"),
    *(
        case
        for score in _SCORES
        for case in (
            Case(
                f"diagnostics.{score.__name__}",
                "labels",
                lambda score=score: score(_probs(), np.full(N, C)),
                "0, ..., 3",
            ),
            Case(
                f"diagnostics.{score.__name__}",
                "probs",
                lambda score=score: score(_x(N, C), np.zeros(N, int)),
                "logits",
            ),
        )
    ),
    Case(
        "diagnostics.reliability",
        "num_bins",
        lambda: diagnostics.reliability(_probs(), np.zeros(N, int), 0),
        "at least 1",
    ),
    Case(
        "diagnostics.reliability",
        "labels",
        lambda: eqx.filter_jit(diagnostics.reliability)(_probs(), np.full(N, C)),
        "0, ..., 3",
    ),
    Case("diagnostics.auroc", "positive", lambda: diagnostics.auroc(_x(N), _x(N)), "booleans"),
    Case(
        "diagnostics.auroc",
        "scores",
        lambda: diagnostics.auroc(_holes(N), np.ones(N, bool)),
        "NaN",
    ),
    Case(
        "diagnostics.predictive_entropy",
        "probs",
        lambda: diagnostics.predictive_entropy(_x(N, C)),
        "sum to 1",
    ),
    Case(
        "diagnostics.mutual_information",
        "probs",
        lambda: diagnostics.mutual_information(np.ones(1)),
        "draws",
    ),
    Case("datasets.digits", "key", lambda: datasets.digits(0), "PRNG key"),
    Case(
        "datasets.digits",
        "test_fraction",
        lambda: datasets.digits(KEY, test_fraction=2.0),
        "between 0 and 1",
    ),
    Case("datasets.mnist", "dtype", lambda: datasets.mnist(KEY, dtype=int), "floating-point"),
    Case("datasets.mnist", "images", lambda: datasets.mnist(KEY, images=1), "True or False"),
)
