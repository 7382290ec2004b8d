"""Mistakes in calls of few-shot learning, `bayesjx.amortized`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

import bayesjx
from bayesjx import amortized, likelihoods
from benchmarks.bad_input._case import Case

N = 4
KEY = jax.random.key(0)
NAN = float("nan")
X, Y = np.random.default_rng(0).normal(size=(N, 2)), np.arange(N) % 3
NETWORK = eqx.nn.Linear(2, 3, key=KEY)


def _classes(f: Any) -> Any:
    return dist.Categorical(logits=f)


def _meta(network: Any = NETWORK, likelihood: Any = _classes, **options: Any) -> Any:
    return amortized.NIWMeta(network, likelihood, **options)


def _adapt(x: Any = X, y: Any = Y, key: Any = KEY, **options: Any) -> Any:
    return _meta(**options.pop("meta", {})).adapt(key, x, y, **options)


def _train(tasks: Any = lambda key: (X, Y), meta: Any = None, **options: Any) -> Any:
    meta = _meta() if meta is None else meta
    return amortized.niw_meta(meta, optax.adam(0.1), tasks, **options)


def _fit(*data: Any) -> Any:
    algorithm = _train(None)
    return bayesjx.fit(KEY, algorithm, algorithm.init(), 1, data=data)


def _real(network: Any, y: Any) -> Any:
    return _meta(network, likelihoods.Gaussian(0.1)).adapt(KEY, X, y)


def _random_shapes(key: Any) -> Any:
    rows = int(jax.random.randint(key, (), 2, 5))
    return X[:rows], Y[:rows]


_META, _ADAPT, _TRAIN = "amortized.NIWMeta", "amortized.NIWMeta.adapt", "amortized.niw_meta"
_NEW = "amortized.AdaptedNetwork"

CASES: tuple[Case, ...] = (
    Case(_META, "network", lambda: _meta(eqx.nn.Linear), "callable Equinox module"),
    Case(_META, "network", lambda: _meta(lambda x: x), "callable Equinox module"),
    Case(_META, "network", lambda: _meta(eqx.nn.BatchNorm(2, "batch", mode="batch")), "no state"),
    Case(_META, "likelihood", lambda: _meta(likelihood=dist.Normal()), "function"),
    Case(_META, "where", lambda: _meta(where=lambda net: []), "floating-point"),
    Case(_META, "where", lambda: _meta(where=lambda net: net.bad), "NIWMeta: where"),
    Case(_META, "task_scale", lambda: _meta(task_scale=0.0), "positive"),
    Case(_META, "task_scale", lambda: _meta(task_scale=[1.0]), "number"),
    Case(_META, "inner_steps", lambda: _meta(inner_steps=0), "at least 1"),
    Case(_META, "inner_steps", lambda: _meta(inner_steps=1, curvature="iterates"), "at least 2"),
    Case(_META, "inner_lr", lambda: _meta(inner_lr=NAN), "positive"),
    Case(_META, "curvature", lambda: _meta(curvature="full"), "low_rank"),
    Case(_META, "num_probes", lambda: _meta(num_probes=4), "diagonal"),
    Case(_META, "num_probes", lambda: _meta(num_probes=1, curvature="diagonal"), "at least 2"),
    Case(_META, "max_curvature", lambda: _meta(max_curvature=-1.0), "positive"),
    Case(_META, "weights", lambda: _meta().network(jnp.zeros(2)), r"shape \(9,\)"),
    Case(_ADAPT, "key", lambda: _adapt(key=0), "PRNG key"),
    Case(_ADAPT, "y", lambda: _adapt(y=np.zeros(N, int)), "class 1"),
    Case(_ADAPT, "y", lambda: _adapt(y=Y + 1), "support"),
    Case(_ADAPT, "y", lambda: _adapt(y=Y[:-1]), "each of the 4 rows"),
    Case(_ADAPT, "y", lambda: _adapt(y=["a"] * N), "numbers"),
    Case(_ADAPT, "y", lambda: _adapt(y=Y * NAN), "NaN"),
    Case(_ADAPT, "y", lambda: _real(eqx.nn.Linear(2, 1, key=KEY), X[:, 0]), "'scalar'"),
    Case(_ADAPT, "x", lambda: _adapt(x=X[:0], y=Y[:0]), "empty"),
    Case(_ADAPT, "x", lambda: _adapt(x=X * NAN), "NaN"),
    Case(_ADAPT, "x", lambda: _adapt(x=X[:, :1]), "shape"),
    Case(_ADAPT, "x", lambda: _adapt(x=X[0]), "shape"),
    Case(_ADAPT, "mask", lambda: _adapt(mask=np.zeros(N, bool)), "no row"),
    Case(_ADAPT, "mask", lambda: _adapt(mask=np.ones(N)), "booleans"),
    Case(_ADAPT, "num_samples", lambda: _adapt(num_samples=0), "at least 1"),
    Case(_ADAPT, "all_classes", lambda: _adapt(all_classes=None), "True or False"),
    Case(_TRAIN, "meta", lambda: _train(meta=NETWORK), "NIWMeta"),
    Case(_TRAIN, "tasks", lambda: _train(tasks=(X, Y)), "function"),
    Case(_TRAIN, "tasks", lambda: _train(tasks=lambda key: X), "pair"),
    Case(_TRAIN, "tasks", lambda: _train(tasks=lambda key: (X, Y + 1)), "support"),
    Case(_TRAIN, "tasks", lambda: _train(tasks=lambda key: (X[:0], Y[:0])), "empty"),
    Case(_TRAIN, "tasks", lambda: _train(tasks=_random_shapes), "shapes"),
    Case(_TRAIN, "batch_size", lambda: _train(batch_size=0), "at least 1"),
    Case(_TRAIN, "num_tasks", lambda: _train(num_tasks=0), "at least 1"),
    Case(_TRAIN, "num_samples", lambda: _train(num_samples=1.5), "integer"),
    Case(_TRAIN, "prior_scale", lambda: _train(prior_scale=0.0), "positive"),
    Case(_TRAIN, "average", lambda: _train(average=1.0), r"\(0, 1\)"),
    Case(_TRAIN, "data", lambda: _fit(X[None]), "2 arrays|got 1"),
    Case(_TRAIN, "data", lambda: _fit(X, Y), r"\(N, n"),
    Case(_NEW, "x", lambda: _adapt().predict(X[:, :1]), "shape"),
    Case(_NEW, "x", lambda: _adapt().values(X * NAN), "NaN"),
    Case(_NEW, "sample_shape", lambda: _adapt().sample(KEY, X, 3), "tuple"),
    Case(_NEW, "likelihood", lambda: _meta(
        eqx.nn.Linear(2, "scalar", key=KEY), lambda f: dist.Normal(f, jnp.ones(N))
    ).adapt(KEY, X, X[:, 0]).predict(X[:2]), "function of f alone"),
)  # fmt: skip
