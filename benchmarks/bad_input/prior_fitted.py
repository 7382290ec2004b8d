"""Mistakes in calls of prior-data fitted networks, `bayesjx.amortized`."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax

from bayesjx import amortized, interop
from benchmarks.bad_input._case import Case

N, M, D = 7, 5, 3
KEY = jax.random.key(0)
NAN = float("nan")
SIZES: dict[str, Any] = {"width": 8, "depth": 1, "heads": 2}


def _x(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


@functools.cache
def _network(kind: str = "PFN", classes: int | None = None) -> Any:
    head = amortized.NormalHead() if classes is None else amortized.CategoricalHead(classes)
    return getattr(amortized, kind)(D, head, key=KEY, **SIZES)


def _make(kind: str = "PFN", **changed: Any) -> Any:
    arguments = {"num_inputs": D, "head": amortized.NormalHead(), "key": KEY} | SIZES | changed
    return getattr(amortized, kind)(arguments.pop("num_inputs"), arguments.pop("head"), **arguments)


def _condition(kind: str = "PFN", classes: int | None = None, **changed: Any) -> Any:
    y = _x(N) if classes is None else np.zeros(N, int)
    arguments = {"x": _x(N, D), "y": y} | changed
    network = _network(kind, classes)
    return network.condition(arguments.pop("x"), arguments.pop("y"), **arguments)


def _model(x: Any, noise_scale: Any = 0.5) -> None:
    slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(slope * x[:, 0], noise_scale))


def _random_rows(x: Any) -> None:
    count = numpyro.sample("count", dist.Poisson(3.0))
    numpyro.sample("y", dist.Normal(jnp.zeros(int(count)), 1.0))


def _with_factor(x: Any) -> None:
    numpyro.factor("f", -1.0)
    numpyro.sample("y", dist.Normal(x[:, 0], 1.0))


def _counted(counts: Any, shift: int = 0) -> Any:
    def program(x: Any) -> None:
        numpyro.deterministic("y", numpyro.sample("n", counts.expand([len(x)])) + shift)

    return amortized.PFN.for_prior(KEY, _program(program), num_queries=3)


def _inputs(key: Any) -> Any:
    return jax.random.normal(key, (11, D))


def _program(model: Any = _model, **changed: Any) -> Any:
    return amortized.from_numpyro(model, **({"inputs": _inputs} | changed))


def _training(**changed: Any) -> Any:
    arguments: dict[str, Any] = {
        "network": _network(),
        "prior": _program(),
        "optimizer": optax.adam(1e-3),
        "num_queries": 3,
    } | changed
    given = [arguments.pop(name) for name in ("network", "prior", "optimizer")]
    return amortized.pfn_training(*given, **arguments)


def _loaded(damage: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.network"
        amortized.save_network(path, _network())
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-8])
        if damage == "other":
            path.write_text("weights")
        like = _make(depth=2) if damage == "architecture" else None
        return amortized.load_network(path, like=like)


def _save(**changed: Any) -> Any:
    arguments = {"network": _network(), "about": None} | changed
    with tempfile.TemporaryDirectory() as folder:
        return amortized.save_network(
            Path(folder) / "a.network", arguments["network"], arguments["about"]
        )


def _bars() -> Any:
    return amortized.BarHead(np.linspace(-2.0, 2.0, 5))


def _estimator(kind: str, network: Any, **options: Any) -> Any:
    return getattr(interop, kind)(network, **options).fit(_x(N, D), np.arange(N))


_PFN, _TABLE, _CONDITION = "amortized.PFN", "amortized.TablePFN", "amortized.PFN.condition"
_PREDICT, _TRAINING = "amortized.PFNPosterior.predict", "amortized.pfn_training"
_PROGRAM, _FOR_PRIOR = "amortized.from_numpyro", "amortized.PFN.for_prior"

CASES: tuple[Case, ...] = (
    Case(_PFN, "num_inputs", lambda: _make(num_inputs=-1), "at least 0"),
    Case(_PFN, "head", lambda: _make(head="bar"), "BarHead"),
    Case(_PFN, "key", lambda: _make(key=0), "PRNG key"),
    Case(_PFN, "width", lambda: _make(width=0), "at least 1"),
    Case(_PFN, "heads", lambda: _make(width=9), "divide"),
    Case(_PFN, "standardise", lambda: _make(standardise=True, causal=True), "causal"),
    Case(_TABLE, "width", lambda: _make("TablePFN", width=10), "divide"),
    Case(_TABLE, "group", lambda: _make("TablePFN", group=0), "at least 1"),
    Case(_TABLE, "baselines", lambda: _make("TablePFN", baselines="yes"), "True or False"),
    Case("amortized.TablePrior", "num_rows", lambda: amortized.TablePrior(1, D), "at least 2"),
    Case("amortized.TablePrior", "num_features", lambda: amortized.TablePrior(N, 0), "at least 1"),
    Case("amortized.TablePrior", "num_classes", lambda: amortized.TablePrior(N, D, 1), "2"),
    Case(
        "amortized.TablePrior",
        "missing_prob",
        lambda: amortized.TablePrior(N, D, missing_prob=1.5),
        "probability",
    ),
    Case("amortized.BarHead", "borders", lambda: amortized.BarHead([0.0, NAN, 1.0]), "NaN"),
    Case("amortized.BarHead", "borders", lambda: amortized.BarHead([0.0, 2.0, 1.0]), "borders"),
    Case("amortized.NormalHead", "min_scale", lambda: amortized.NormalHead(0.0), "positive"),
    Case("amortized.CategoricalHead", "num_classes", lambda: amortized.CategoricalHead(1), "2"),
    Case(_CONDITION, "x", lambda: _condition(x=_x(N, D + 1)), "3 columns"),
    Case(_CONDITION, "x", lambda: _condition(x=_x(N, D) * NAN), "NaN"),
    Case(_CONDITION, "x", lambda: _condition("TablePFN", x=_x(N, D) * np.inf), "missing"),
    Case(_CONDITION, "x", lambda: _condition("TablePFN", x=_x(N, 0)), "columns"),
    Case(_CONDITION, "y", lambda: _condition(y=_x(N - 1)), r"\(7,\)"),
    Case(_CONDITION, "y", lambda: _condition(y=_x(N) * NAN), "NaN"),
    Case(_CONDITION, "y", lambda: _condition(classes=3, y=np.full(N, 3)), "classes 0"),
    Case(_CONDITION, "y", lambda: _condition(classes=3, y=_x(N)), "classes 0"),
    Case(_CONDITION, "style", lambda: _condition(style=[1.0]), "num_styles"),
    Case(_CONDITION, "mask", lambda: _condition(mask=np.ones(N)), "booleans"),
    Case(_CONDITION, "capacity", lambda: _condition(capacity=2), "at least 7"),
    Case(_PREDICT, "x", lambda: _condition().predict(_x(M, D - 1)), "3 columns"),
    Case(_PREDICT, "x", lambda: _condition("TablePFN").predict(_x(M, D - 1)), "3 columns"),
    Case(_PREDICT, "x", lambda: _condition().predict(_x(0, D)), "no rows"),
    Case(_PREDICT, "batch_size", lambda: _condition().predict(_x(M, D), batch_size=0), "1"),
    Case("amortized.PFNPosterior.log_predictive_prob", "y",
         lambda: _condition().log_predictive_prob(_x(M, D), _x(M + 1)), r"\(5,\)"),
    Case("amortized.PFNPosterior.append", "x", lambda: _condition().append(_x(2), 0.0), "columns"),
    Case("amortized.PFNPosterior.append", "y", lambda: _condition().append(_x(D), NAN), "NaN"),
    Case(_PROGRAM, "model", lambda: _program("model"), "callable"),
    Case(_PROGRAM, "y", lambda: _program(y="z"), "'slope', 'y'"),
    Case(_PROGRAM, "style", lambda: _program(style="slope"), "tuple"),
    Case(_PROGRAM, "theta", lambda: _program(theta=("a",)), "names the site 'a'"),
    Case(_PROGRAM, "inputs", lambda: _program(x="x"), "without x"),
    Case(_PROGRAM, "model", lambda: _program(_with_factor), "factor 'f'"),
    Case(_FOR_PRIOR, "prior", lambda: _counted(dist.Poisson(1000.0)), "integer targets"),
    Case(_FOR_PRIOR, "prior", lambda: _counted(dist.Poisson(5.0), -9), "integer targets"),
    Case(_PROGRAM, "shapes", lambda: _program(_random_rows), "random values"),
    Case(_PROGRAM, "y", lambda: _program(y="slope"), r"\(n,\)"),
    Case(_FOR_PRIOR, "prior", lambda: amortized.PFN.for_prior(KEY, lambda key: key), "Task"),
    Case("interop.PFNRegressor", "network", lambda: _estimator("PFNRegressor", 3), "TablePFN"),
    Case(
        "interop.PFNRegressor",
        "n_estimators",
        lambda: _estimator("PFNRegressor", _make("TablePFN", head=_bars()), n_estimators=0),
        "at least 1",
    ),
    Case(
        "interop.PFNRegressor",
        "network",
        lambda: _estimator("PFNRegressor", _network("TablePFN")),
        "BarHead",
    ),
    Case(
        "interop.PFNClassifier",
        "network",
        lambda: _estimator("PFNClassifier", _network("TablePFN")),
        "not one of classes",
    ),
    Case(
        "interop.PFNClassifier",
        "y",
        lambda: _estimator("PFNClassifier", _network("TablePFN", 2)),
        "7 classes",
    ),
    Case(_FOR_PRIOR, "num_queries",
         lambda: amortized.PFN.for_prior(KEY, _program(), num_queries=11), "11 rows"),
    Case(_TRAINING, "network", lambda: _training(network="net"), "amortized.PFN"),
    Case(_TRAINING, "prior", lambda: _training(prior=3), "callable"),
    Case(_TRAINING, "num_queries", lambda: _training(num_queries=11), "11 rows"),
    Case(_TRAINING, "batch_size", lambda: _training(batch_size=0), "at least 1"),
    Case(_TRAINING, "min_context", lambda: _training(min_context=9), "8"),
    Case(_TRAINING, "style_dropout", lambda: _training(style_dropout=1.5), r"\[0, 1\]"),
    Case(_TRAINING, "prior", lambda: _training(network=_network(classes=3)), "CategoricalHead"),
    Case("amortized.load_network", "checksum", lambda: _loaded("cut"), "damaged"),
    Case("amortized.load_network", "load_network", lambda: _loaded("other"), "save_network"),
    Case("amortized.load_network", "depth", lambda: _loaded("architecture"), "'depth': 2"),
    Case("amortized.save_network", "network", lambda: _save(network="net"), "one of PFN"),
    Case("amortized.save_network", "about", lambda: _save(about={1}), "plain data"),
    Case("amortized.pretrained", "name", lambda: amortized.pretrained("none"), "one of"),
)  # fmt: skip
