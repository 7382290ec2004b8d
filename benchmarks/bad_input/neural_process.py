"""Mistakes in calls of neural processes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bayesjx import amortized
from bayesjx.amortized import Task
from benchmarks.bad_input._case import Case

D, N, M = 2, 5, 3
NAN = float("nan")
KEY = jax.random.key(0)
CLASSES = amortized.CategoricalHead(3)
SMALL = {"CNP": {}, "NP": {}, "BNP": {}, "ConvCNP": {"points_per_unit": 4, "span": 2.0}}

RULE = "amortized.NeuralProcessPredictive"


def _rule(**options: Any) -> Any:
    return amortized.NeuralProcessPredictive(**({"network": _network()} | options))


def _wide() -> Any:
    return _rule(network=_network("ConvCNP")).init((np.array([[0.0], [5.0]]), np.zeros(2)))


def _network(name: str = "CNP", *sizes: Any, **options: Any) -> Any:
    own = SMALL.get(name, {"heads": 2})
    sizes = sizes or (1 if name == "ConvCNP" else D,)
    options = {"key": KEY, "width": 4, "depth": 2} | own | options
    return getattr(amortized, name)(*sizes, **options)


def _rows(n: int = N, d: int = D) -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, size=(n, d))


def _y(n: int = N) -> np.ndarray:
    return np.random.default_rng(1).normal(size=n)


def _prior(key: Any) -> Task:
    x = jax.random.uniform(key, (9, D))
    return Task(x, jnp.sum(x, axis=1))


def _line(key: Any) -> Task:
    x = 5 * jax.random.uniform(key, (9, 1))
    return Task(x, x[:, 0])


def _labels(key: Any) -> Task:
    return Task(jnp.zeros((9, D)), jax.random.randint(key, (9,), 0, 3))


def _condition(name: str = "CNP", x: Any = None, y: Any = None, **options: Any) -> Any:
    network = _network(name)
    x = _rows() if x is None else x
    return network.condition(x, _y() if y is None else y, **options)


def _training(network: Any = None, prior: Any = _prior, **options: Any) -> Any:
    network = _network() if network is None else network
    return amortized.neural_process_training(network, prior, optax.adam(1e-3), **options)


def _scores(network: Any = None, tasks: Any = None, key: Any = KEY, **options: Any) -> Any:
    network = _network() if network is None else network
    tasks = Task(np.zeros((2, N, D)), np.zeros((2, N))) if tasks is None else tasks
    return amortized.log_likelihoods(key, network, tasks, **({"num_context": 2} | options))


def _chain(name: str = "CNP", x_new: Any = None, **options: Any) -> Any:
    x_new = _rows(M) if x_new is None else x_new
    return amortized.autoregressive(_network(name), _rows(), _y(), x_new, **options)


def _far(name: str, call: Callable[[Any, Any], Any]) -> Any:
    return call(_network(name).condition([-1.0], [0.0]), [5.0])


def _name(function: str) -> str:
    return f"amortized.{function}"


NAMES = ("CNP", "NP", "CANP", "ANP", "BNP", "BANP", "ConvCNP", "MPNP", "MPANP", "TNPD", "TNPA")
DRAWING = ("NP", "ANP", "BNP", "BANP", "MPNP", "MPANP")
ATTENTIVE = ("CANP", "ANP", "BANP", "MPNP", "MPANP", "TNPD", "TNPA", "TNPND")
TRAIN, SCORES, CHAIN = map(_name, ("neural_process_training", "log_likelihoods", "autoregressive"))
POSTERIOR, JOINT = map(_name, ("NeuralProcessPosterior", "AutoregressiveDistribution"))
CONDITION = _name("CNP.condition")

CASES: tuple[Case, ...] = (
    *(Case(_name(n), "head", lambda n=n: _network(n, head=CLASSES), "real") for n in NAMES),
    *(Case(_name(n), "key", lambda n=n: _network(n, key=3), "PRNG key") for n in NAMES),
    *(Case(_name(n), "num_inputs", lambda n=n: _network(n, 0), "at least 1") for n in NAMES),
    *(Case(_name(n), "heads", lambda n=n: _network(n, heads=3), "divide") for n in ATTENTIVE),
    *(Case(_name(n), "key", lambda n=n: _condition(n), "PRNG key") for n in DRAWING),
    Case(_name("CNP"), "width", lambda: _network(width=2.5), "integer"),
    Case(_name("CNP"), "depth", lambda: _network(depth=0), "at least 1"),
    Case(_name("CNP"), "head", lambda: _network(head="normal"), "NormalHead"),
    Case(_name("CANP"), "num_layers", lambda: _network("CANP", num_layers=0), "at least 1"),
    Case(_name("NP"), "latent_scales", lambda: _network("NP", latent_scales=0.1), "two"),
    Case(_name("ANP"), "latent_scales", lambda: _network("ANP", latent_scales=(1, 0)), "increas"),
    Case(_name("MPNP"), "num_pseudo", lambda: _network("MPNP", num_pseudo=0), "at least 1"),
    Case(_name("MPANP"), "num_pseudo", lambda: _network("MPANP", num_pseudo=1.0), "integer"),
    Case(_name("TNPND"), "rank", lambda: _network("TNPND", rank=0), "at least 1"),
    Case(_name("ConvCNP"), "num_inputs", lambda: _network("ConvCNP", 2), "must be 1"),
    Case(_name("ConvCNP"), "span", lambda: _network("ConvCNP", span=0), "positive"),
    Case(_name("ConvCNP"), "taps", lambda: _network("ConvCNP", taps=4), "odd"),
    Case(
        _name("ConvCNP"), "points_per_unit", lambda: _network("ConvCNP", points_per_unit=0), "least"
    ),
    Case(CONDITION, "x", lambda: _condition(x=_rows(N, 3)), "with 2 columns"),
    Case(CONDITION, "x", lambda: _condition(x=_rows() * NAN), "NaN"),
    Case(CONDITION, "y", lambda: _condition(y=_y(3)), "\\(5,\\)"),
    Case(CONDITION, "y", lambda: _condition(y=_y() * NAN), "NaN"),
    Case(CONDITION, "y", lambda: _condition(y=["a"] * N), "array of numbers"),
    Case(CONDITION, "mask", lambda: _condition(mask=np.ones(N)), "booleans"),
    Case(CONDITION, "num_samples", lambda: _condition("NP", key=KEY, num_samples=0), "at least 1"),
    Case(f"{POSTERIOR}.predict", "x", lambda: _condition().predict(_rows(M, 3)), "2 columns"),
    Case(f"{POSTERIOR}.predict", "x", lambda: _condition().predict(_rows(0)), "no rows"),
    Case(f"{POSTERIOR}.predict", "x", lambda: _far("ConvCNP", lambda p, x: p.predict(x)), "span"),
    Case(f"{POSTERIOR}.joint", "x", lambda: _condition().joint(_rows() * NAN), "NaN"),
    Case(f"{POSTERIOR}.sample", "key", lambda: _condition().sample(3, _rows()), "PRNG key"),
    Case(
        f"{POSTERIOR}.log_predictive_prob",
        "y",
        lambda: _condition().log_predictive_prob(_rows(M), _y()),
        "\\(3,\\)",
    ),
    Case(TRAIN, "network", lambda: _training(3), "neural process"),
    Case(TRAIN, "prior", lambda: _training(prior=3), "callable"),
    Case(TRAIN, "prior", lambda: _training(prior=_line), "1 inputs"),
    Case(TRAIN, "prior", lambda: _training(prior=_labels), "labels"),
    Case(TRAIN, "x", lambda: _training(_network("ConvCNP"), _line), "span"),
    Case(TRAIN, "batch_size", lambda: _training(batch_size=0), "at least 1"),
    Case(TRAIN, "min_context", lambda: _training(min_context=7), "9 rows"),
    Case(TRAIN, "min_targets", lambda: _training(min_targets=0), "at least 1"),
    Case(TRAIN, "include_context", lambda: _training(include_context="yes"), "True or False"),
    Case(TRAIN, "num_samples", lambda: _training(_network("NP"), num_samples=0), "at least 1"),
    Case(TRAIN, "ramp_steps", lambda: _training(_network("MPNP"), ramp_steps=0.2), "integer"),
    Case(SCORES, "network", lambda: _scores("CNP"), "neural process"),
    Case(SCORES, "tasks", lambda: _scores(tasks=_rows()), "Task"),
    Case(SCORES, "tasks", lambda: _scores(tasks=Task(_rows(), _y())), "\\(b, n, 2\\)"),
    Case(
        SCORES, "y", lambda: _scores(tasks=Task(np.zeros((2, N, D)), np.full((2, N), NAN))), "NaN"
    ),
    Case(
        SCORES,
        "tasks",
        lambda: _scores(tasks=Task(np.zeros((2, N, D)), np.zeros((2, N), int))),
        "labels",
    ),
    Case(SCORES, "key", lambda: _scores(_network("NP"), key=None), "PRNG key"),
    Case(SCORES, "num_context", lambda: _scores(num_context=N), "0, ..., 4"),
    Case(SCORES, "num_context", lambda: _scores(num_context=[1, 2, 3]), "\\(2,\\)"),
    Case(SCORES, "num_samples", lambda: _scores(num_samples=0), "at least 1"),
    Case(CHAIN, "x", lambda: _chain(x_new=_rows(M, 1)), "2 columns"),
    Case(CHAIN, "x_new", lambda: _chain(x_new=_rows(0)), "no rows"),
    Case(CHAIN, "key", lambda: _chain("NP"), "PRNG key"),
    Case(CHAIN, "num_samples", lambda: _chain("NP", key=KEY, num_samples=-1), "at least 1"),
    Case(JOINT, "value", lambda: _chain().log_prob(_y(2)), "\\(\\*batch, 3\\)"),
    Case(JOINT, "key", lambda: _chain().sample(0), "PRNG key"),
    Case(RULE, "network", lambda: _rule(network="CNP"), "neural process"),
    Case(RULE, "key", lambda: _rule(network=_network("NP")), "PRNG key"),
    Case(RULE, "num_samples", lambda: _rule(num_samples=0), "at least 1"),
    Case(RULE, "data", lambda: _rule().init(_y(N)), "pair \\(x, y\\)"),
    Case(RULE, "x", lambda: _rule().init((_rows(N, 1), _y(N))), "2 columns"),
    Case(RULE, "data", lambda: _rule().init((_rows(N), NAN * _y(N))), "NaN"),
    Case(RULE, "x", _wide, "span"),
)
