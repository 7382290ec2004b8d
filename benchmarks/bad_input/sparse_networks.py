"""Mistakes in calls of the sparse networks of `bayesjx.bnn`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax

from bayesjx import bnn
from benchmarks.bad_input._case import Case

N, D, C = 12, 6, 3
KEY = jax.random.key(0)


def _x(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape or (N, D))


def _labels() -> np.ndarray:
    return np.arange(N) % C


def _model() -> Any:
    return eqx.nn.MLP(D, C, 8, 2, key=KEY)


def _sparsify(model: Any = None, density: Any = 0.5, **options: Any) -> Any:
    return bnn.sparsify(KEY, _model() if model is None else model, density, **options)


def _field(**options: Any) -> Any:
    given = {"likelihood": lambda f: dist.Categorical(logits=f)} | options
    return bnn.sparse_mean_field(_sparsify(group=4), given.pop("likelihood"), **given)


def _ssvi(**options: Any) -> Any:
    given = {"num_data": N, "num_steps": 20, "move_every": 5} | options
    return bnn.ssvi(given.pop("q", _field()), given.pop("optimizer", optax.adam(1e-2)), **given)


def _elbo(x: Any = None, y: Any = None, **options: Any) -> Any:
    x, y = _x() if x is None else x, _labels() if y is None else y
    return _field().elbo(x, y, **({"key": KEY} | options))


def _stepped(y: Any) -> Any:
    algorithm = _ssvi()
    return _jitted(lambda y: algorithm.step(KEY, algorithm.init(), _x(), y), y)


def _layer(**changed: Any) -> Any:
    index = np.array([[0, 2], [5, 1]])
    given: dict[str, Any] = {"index": index, "mean": _x(2, 2, 4), "scale": np.ones((2, 2, 4))}
    return bnn.SparseLinear.from_indices((D, 7), (1, 4), **(given | changed))


def _jitted(function: Any, *args: Any) -> Any:
    return jax.block_until_ready(eqx.filter_jit(function)(*args))


def _groups() -> Any:
    return eqx.nn.Conv2d(4, 4, 3, groups=2, key=KEY)


_SPARSIFY, _FIELD, _SSVI = "bnn.sparsify", "bnn.sparse_mean_field", "bnn.ssvi"
_ELBO, _LAYER = "bnn.sparse_mean_field.elbo", "bnn.SparseLinear.from_indices"
_LINEAR, _CONV = "bnn.SparseLinear", "bnn.SparseConv"
_MOVE, _SCORE, _COSTS = "bnn.reallocate", "bnn.removal_score", "bnn.training_costs"

CASES: tuple[Case, ...] = (
    Case(_SPARSIFY, "density", lambda: _sparsify(density=0.01), "no unit of layers"),
    Case(_SPARSIFY, "density", lambda: _sparsify(density=0.0), "above 0"),
    Case(_SPARSIFY, "density", lambda: _sparsify(density=1.5), "at most 1"),
    Case(_SPARSIFY, "density", lambda: _sparsify(density=[0.5, 0.5]), "3 layers"),
    Case(_SPARSIFY, "density", lambda: _sparsify(density="half"), "a number"),
    Case(_SPARSIFY, "group", lambda: _sparsify(group=0), "at least 1"),
    Case(_SPARSIFY, "block", lambda: _sparsify(block=4), "two positive integers"),
    Case(_SPARSIFY, "block", lambda: _sparsify(block=(2, 1.5)), "an integer"),
    Case(_SPARSIFY, "budget", lambda: _sparsify(budget="even"), "uniform, erk, global"),
    Case(_SPARSIFY, "start", lambda: _sparsify(start="zeros"), "random, weights"),
    Case(_SPARSIFY, "relative_scale", lambda: _sparsify(relative_scale=-1.0), "above 0"),
    Case(_SPARSIFY, "model", lambda: _sparsify(jnp.tanh), "equinox.nn.Linear"),
    Case(_SPARSIFY, "layers", lambda: _sparsify(eqx.nn.GRUCell(3, 5, key=KEY)), "GRUCell"),
    Case(_SPARSIFY, "layers", lambda: _sparsify(_groups()), "2 groups of channels"),
    Case(_SPARSIFY, "layers", lambda: _sparsify(layers=lambda m: m.activation), "no sparse form"),
    Case(_SPARSIFY, "layers", lambda: _sparsify(layers=[0]), "function of the model"),
    Case(_SPARSIFY, "key", lambda: bnn.sparsify(0, _model()), "PRNG"),
    Case(_LINEAR, "in_features", lambda: bnn.SparseLinear(KEY, 0, 3), "at least 1"),
    Case(_LINEAR, "density", lambda: bnn.SparseLinear(KEY, 5, 3, density=0.01), "no unit"),
    Case(_LINEAR, "x", lambda: bnn.SparseLinear(KEY, 5, 3, density=0.5)(_x(4)), r"\(5,\)"),
    Case(_LAYER, "index", lambda: _layer(index=np.array([[0, 2]])), r"\(2, k\)"),
    Case(_LAYER, "index", lambda: _layer(index=np.array([[0.0, 2], [5, 1]])), "integers"),
    Case(_LAYER, "index", lambda: _layer(index=np.array([[0, 2], [6, 1]])), "0, ..., 5"),
    Case(_LAYER, "index", lambda: _layer(index=np.array([[0, 2], [1, 1]])), "distinct"),
    Case(
        _LAYER,
        "index",
        lambda: _jitted(lambda i: _layer(index=i).weight.index, jnp.array([[0, 2], [1, 1]])),
        "distinct",
    ),
    Case(_LAYER, "mean", lambda: _layer(mean=_x(2, 2, 3)), r"\(2, 2, 4\)"),
    Case(_LAYER, "mean", lambda: _layer(mean=np.full((2, 2, 4), np.nan)), "NaN"),
    Case(_LAYER, "scale", lambda: _layer(scale=-np.ones((2, 2, 4))), "positive"),
    Case(_LAYER, "bias", lambda: _layer(bias=np.zeros(D)), r"\(7,\)"),
    Case(_CONV, "kernel_size", lambda: bnn.SparseConv(KEY, 2, 3, 5), "tuple"),
    Case(
        _CONV,
        "x",
        lambda: bnn.SparseConv(KEY, 2, 3, (3, 3), density=0.5)(_x(2, 2, 2)),
        "smaller than the kernel",
    ),
    Case(_FIELD, "network", lambda: bnn.sparse_mean_field(_model()), "sparse layers"),
    Case(_FIELD, "prior_scale", lambda: _field(prior_scale=0.0), "positive"),
    Case(_FIELD, "estimator", lambda: _field(estimator="flipout"), "local, weights"),
    Case(_ELBO, "y", lambda: _elbo(y=_labels() + 1), "outside of the support"),
    Case(_ELBO, "y", lambda: _stepped(_labels() + 1), "outside of the support"),
    Case(_ELBO, "y", lambda: _elbo(y=_labels()[:5]), "shape"),
    Case(_ELBO, "x", lambda: _elbo(x=np.full((N, D), np.nan)), "NaN"),
    Case(_ELBO, "x", lambda: _elbo(x=_x(N, D + 1)), r"shape \(6,\)"),
    Case(_ELBO, "num_data", lambda: _elbo(num_data=3), "less than the 12"),
    Case(_ELBO, "kl_weight", lambda: _elbo(kl_weight=-1.0), "not negative"),
    Case(_SSVI, "distribution", lambda: _ssvi(q=_model()), "sparse_mean_field"),
    Case(_SSVI, "optimizer", lambda: _ssvi(optimizer=1e-3), "Optax"),
    Case(_SSVI, "num_data", lambda: _ssvi(num_data=0), "at least 1"),
    Case(_SSVI, "num_steps", lambda: _ssvi(num_steps=1.5), "integer"),
    Case(_SSVI, "move_every", lambda: _ssvi(move_every=0), "at least 1"),
    Case(_SSVI, "swap", lambda: _ssvi(swap=2.0), "number in"),
    Case(_SSVI, "stop", lambda: _ssvi(stop=0.0), "above 0"),
    Case(_SSVI, "criterion", lambda: _ssvi(criterion="magnitude"), "snr_mean_abs"),
    Case(_SSVI, "rate", lambda: _ssvi(rate=-1.0), "positive"),
    Case(_SSVI, "growth", lambda: _ssvi(growth="dense"), "sampled, mean"),
    Case(_SSVI, "growth_batches", lambda: _ssvi(growth_batches=5), "below move_every"),
    Case(_SSVI, "new_scale", lambda: _ssvi(new_scale=0.0), "positive"),
    Case(_SSVI, "kl_weight", lambda: _ssvi(kl_weight=-1.0), "not negative"),
    Case(_MOVE, "distribution", lambda: bnn.reallocate(KEY, 0, _x(), _labels()), "sparse_mean"),
    Case(_MOVE, "swap", lambda: bnn.reallocate(KEY, _field(), _x(), _labels(), swap=0.0), "above"),
    Case(_SCORE, "scale", lambda: bnn.removal_score(_x(3), _x(2) ** 2), r"\(3,\)"),
    Case(_SCORE, "criterion", lambda: bnn.removal_score(_x(3), _x(3) ** 2, "l2"), "mean_abs"),
    Case(
        _COSTS,
        "algorithm",
        lambda: bnn.training_costs(_field(), optax.adam(1.0), None, _x(), _labels()),
        "ssvi",
    ),
)
