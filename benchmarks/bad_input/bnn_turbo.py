"""Mistakes in calls of turbo variational inference and of what makes networks smaller."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
import optax

from bayesjx import bnn, likelihoods
from benchmarks.bad_input._case import Case

N, M = 7, 5
KEY = jax.random.key(0)
SUPPORT = bnn.MarkovSupport(0.1, 0.3)


def _numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def _linear(design: Any = None, y: Any = None, **options: Any) -> Any:
    design, y = _numbers(N, M) if design is None else design, _numbers(N) if y is None else y
    return bnn.turbo_vbi(design, y, **({"support": SUPPORT, "num_steps": 8} | options))


def _field() -> Any:
    return bnn.mean_field(eqx.nn.MLP(3, "scalar", 5, 1, key=KEY), likelihoods.Gaussian(0.1))


def _network(distribution: Any = None, **options: Any) -> Any:
    arguments = {"num_data": N, "support": SUPPORT, "num_steps": 8} | options
    optimizer = arguments.pop("optimizer", optax.adam(1e-3))
    return bnn.turbo_mean_field_vi(
        _field() if distribution is None else distribution, optimizer, **arguments
    )


def _tuning(network: Any = None, **options: Any) -> Any:
    arguments = {
        "likelihood": likelihoods.Gaussian(0.1), "optimizer": optax.adam(1e-3), "num_data": N
    } | options  # fmt: skip
    network = eqx.nn.MLP(3, "scalar", 5, 1, key=KEY) if network is None else network
    return bnn.fine_tune(network, **arguments)


def _sequential(*layers: Any) -> Any:
    return bnn.compact(eqx.nn.Sequential(list(layers)))


def _dense(inputs: int, outputs: int) -> Any:
    return eqx.nn.Linear(inputs, outputs, key=KEY)


NAN = np.full((N, M), np.nan)
CASES: tuple[Case, ...] = (
    Case("bnn.MarkovSupport", "p01", lambda: bnn.MarkovSupport(0.0, 0.3), "inside of"),
    Case("bnn.MarkovSupport", "p10", lambda: bnn.MarkovSupport(0.1, 1.5), "inside of"),
    Case("bnn.MarkovSupport", "p01", lambda: bnn.MarkovSupport(np.ones(2) / 2, 0.3), "a number"),
    Case("bnn.MarkovSupport", "evidence", lambda: SUPPORT.messages(1.0), "shape"),
    Case(
        "bnn.MarkovSupport",
        "p01",
        lambda: eqx.filter_jit(lambda p: bnn.MarkovSupport(p, 0.3).density)(np.asarray(2.0)),
        "inside of",
    ),
    Case("bnn.SpikeSlabPrecision", "rate", lambda: bnn.SpikeSlabPrecision(1.0, 0.0), "positive"),
    Case("bnn.turbo_vbi", "design", lambda: _linear(_numbers(M, N)), "transposed|shape"),
    Case("bnn.turbo_vbi", "design", lambda: _linear(_numbers(M)), "real numbers of shape"),
    Case("bnn.turbo_vbi", "design", lambda: _linear(_numbers(0, M), _numbers(0)), "empty"),
    Case("bnn.turbo_vbi", "design", lambda: _linear(NAN), "NaN"),
    Case("bnn.turbo_vbi", "design", lambda: _linear(1j * _numbers(N, M)), "real numbers"),
    Case("bnn.turbo_vbi", "y", lambda: _linear(y=np.zeros(N)), "0 everywhere"),
    Case("bnn.turbo_vbi", "noise_var", lambda: _linear(noise_var=-1.0), "positive"),
    Case("bnn.turbo_vbi", "support", lambda: _linear(support=0.1), "MarkovSupport"),
    Case("bnn.turbo_vbi", "precision", lambda: _linear(precision=1.0), "SpikeSlabPrecision"),
    Case("bnn.turbo_vbi", "num_steps", lambda: _linear(num_steps=1), "at least 4"),
    Case("bnn.turbo_mean_field_vi", "distribution", lambda: _network(_dense(3, 1)), "mean_field"),
    Case("bnn.turbo_mean_field_vi", "support", lambda: _network(support=None), "MarkovSupport"),
    Case("bnn.turbo_mean_field_vi", "axis", lambda: _network(axis="rows"), "'inputs'"),
    Case("bnn.turbo_mean_field_vi", "precision", lambda: _network(precision=1.0), "SpikeSlab"),
    Case("bnn.turbo_mean_field_vi", "num_steps", lambda: _network(num_steps=0), "at least"),
    Case("bnn.turbo_mean_field_vi", "num_data", lambda: _network(num_data=0), "at least"),
    Case("bnn.turbo_mean_field_vi", "update_every", lambda: _network(update_every=0), "at least"),
    Case("bnn.turbo_mean_field_vi", "kl_weight", lambda: _network(kl_weight=-1.0), "negative"),
    Case("bnn.turbo_mean_field_vi", "optimizer", lambda: _network(optimizer=None), "Optax"),
    Case("bnn.pruned", "state", lambda: bnn.pruned(_field(), None), "turbo_mean_field_vi"),
    Case(
        "bnn.pruned",
        "threshold",
        lambda: bnn.pruned(_field(), _network().init(), threshold=1.0),
        "in ",
    ),
    Case("bnn.fine_tune", "network", lambda: _tuning(3), "callable"),
    Case("bnn.fine_tune", "likelihood", lambda: _tuning(likelihood=None), "a function"),
    Case("bnn.fine_tune", "optimizer", lambda: _tuning(optimizer=1e-3), "Optax"),
    Case("bnn.fine_tune", "num_data", lambda: _tuning(num_data=0), "at least 1"),
    Case("bnn.fine_tune", "prior", lambda: _tuning(prior=-1.0), "positive"),
    Case("bnn.fine_tune", "where", lambda: _tuning(prior=1.0, where=lambda n: n.fish), "where"),
    Case("bnn.compact", "network", lambda: bnn.compact(_dense(3, 2)), "MLP or Sequential"),
    Case("bnn.compact", "network", lambda: _sequential(eqx.nn.Lambda(jax.nn.relu)), "begins"),
    Case("bnn.compact", "network", lambda: _sequential(eqx.nn.LayerNorm(3)), "LayerNorm"),
    Case(
        "bnn.compact",
        "layer",
        lambda: _sequential(_dense(3, 4), eqx.nn.Lambda(jax.nn.softmax), _dense(4, 2)),
        "elementwise",
    ),
    Case(
        "bnn.compact",
        "network",
        lambda: eqx.filter_jit(bnn.compact)(eqx.nn.MLP(3, 2, 5, 1, key=KEY)),
        "traced",
    ),
)
