"""Mistakes in calls of `bayesjx.sbl` and its estimator."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from bayesjx import distributions, interop, sbl
from benchmarks.bad_input._case import Case

N, M = 7, 5
NAN = float("nan")


def _x(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def _sbl(**changed: Any) -> Any:
    arguments: dict[str, Any] = {"design": _x(N, M), "y": _x(N)} | changed
    return sbl.sbl(arguments.pop("design"), arguments.pop("y"), **arguments)


def _condition(**changed: Any) -> Any:
    arguments: dict[str, Any] = {"noise_var": 0.1, "prior_var": 1.0} | changed
    design, y = arguments.pop("design", _x(N, M)), arguments.pop("y", _x(N))
    return sbl.condition(design, y, **arguments)


def _pursue(**changed: Any) -> Any:
    arguments: dict[str, Any] = {"num_nonzero": 2} | changed
    design, y = arguments.pop("design", _x(N, M)), arguments.pop("y", _x(N))
    return sbl.orthogonal_matching_pursuit(design, y, **arguments)


def _jitted(function: Any, *args: Any) -> Any:
    return jax.block_until_ready(eqx.filter_jit(function)(*args))


def _nan(*shape: int) -> np.ndarray:
    return np.full(shape, NAN)


_SBL, _CONDITION = "sbl.sbl", "sbl.condition"
_OMP, _MARGINAL = "sbl.orthogonal_matching_pursuit", "sbl.SBLMarginal"

CASES: tuple[Case, ...] = (
    Case(_SBL, "design", lambda: _sbl(design=_x(M, N)), "transposed"),
    Case(_SBL, "design", lambda: _sbl(design=_nan(N, M)), "NaN"),
    Case(_SBL, "design", lambda: _sbl(design=_x(N, 0)), "empty"),
    Case(_SBL, "design", lambda: _sbl(design=[["a"] * M] * N), "numbers"),
    Case(_SBL, "design", lambda: _sbl(design=_x(N, M).astype(np.float32)), "float32 and y float64"),
    Case(_SBL, "y", lambda: _sbl(y=_x(N + 1)), r"\(n,\)"),
    Case(_SBL, "y", lambda: _sbl(y=_x(N, 2, 2)), r"\(n,\)"),
    Case(_SBL, "y", lambda: _sbl(y=_nan(N)), "NaN"),
    Case(_SBL, "y", lambda: _sbl(y=np.zeros(N)), "0 everywhere"),
    Case(_SBL, "y", lambda: _jitted(lambda y: _sbl(y=y).mean, jnp.zeros(N)), "0 everywhere"),
    Case(_SBL, "noise_var", lambda: _sbl(noise_var=-1.0), "positive"),
    Case(_SBL, "noise_var", lambda: _sbl(noise_var=_x(N) ** 2), "scalar"),
    Case(_SBL, "update", lambda: _sbl(update="mackay"), "fixed-point"),
    Case(_SBL, "max_steps", lambda: _sbl(max_steps=1.5), "integer"),
    Case(_SBL, "rtol", lambda: _sbl(rtol=-1.0), "from 0 on"),
    Case(_SBL, "prune", lambda: _sbl(prune=0.9), "0.5"),
    Case(_SBL, "hyper_prior", lambda: _sbl(hyper_prior=1e-6), "shape, rate"),
    Case(_SBL, "hyper_prior", lambda: _sbl(update="fast", hyper_prior=(1.0, 0.0)), "fast"),
    Case(_SBL, "max_active", lambda: _sbl(update="fast", max_active=N + 1), "in 1"),
    Case("sbl.sbl.predict", "design", lambda: _sbl().predict(_x(2, M + 1)), r"\(k, 5\)"),
    Case("sbl.sbl.sample", "sample_shape", lambda: _sbl().sample(jax.random.key(0), 3), "tuple"),
    Case("sbl.sbl.sample", "key", lambda: _sbl().sample(0), "PRNG"),
    Case(_CONDITION, "design", lambda: _condition(design=_x(N)), r"\(n, m\)"),
    Case(_CONDITION, "prior_var", lambda: _condition(prior_var=None), "one of"),
    Case(_CONDITION, "prior_var", lambda: _condition(prior_var=-np.ones(M)), "not negative"),
    Case(_CONDITION, "prior_var", lambda: _condition(prior_var=np.ones(N)), r"\(5,\)"),
    Case(_CONDITION, "prior_precision", lambda: _condition(prior_precision=1.0), "not both"),
    Case(
        _CONDITION,
        "prior_precision",
        lambda: _condition(prior_var=None, prior_precision=0.0),
        "positive",
    ),
    Case(_CONDITION, "noise_var", lambda: _condition(noise_var=0.0), "positive"),
    Case(_CONDITION, "noise_var", lambda: _condition(noise_var=1j), "real"),
    Case(
        _CONDITION,
        "noise_var",
        lambda: _jitted(lambda v: _condition(noise_var=v).mean, jnp.asarray(-1.0)),
        "positive",
    ),
    Case(_OMP, "num_nonzero", lambda: _pursue(num_nonzero=None), "noise_var"),
    Case(_OMP, "num_nonzero", lambda: _pursue(num_nonzero=M + 1), "in 1, ..., 5"),
    Case(_OMP, "noise_var", lambda: _pursue(noise_var=0.0), "positive"),
    Case(_OMP, "y", lambda: _pursue(y=_nan(N)), "NaN"),
    Case(_MARGINAL, "design", lambda: sbl.SBLMarginal(_x(N), 0.0, 0.0), r"\(n, m\)"),
    Case(_MARGINAL, "design", lambda: sbl.SBLMarginal(np.eye(3, dtype=int), 0.0, 0.0), "floating"),
    Case(_MARGINAL, "log_prior_var", lambda: sbl.SBLMarginal(_x(N, M), _x(N), 0.0), r"\(5,\)"),
    Case(_MARGINAL, "log_noise_var", lambda: sbl.SBLMarginal(_x(N, M), 0.0, _x(N)), "scalar"),
    Case(
        _MARGINAL,
        "value",
        lambda: sbl.SBLMarginal(_x(N, M), 0.0, 0.0).log_prob(_x(M)),
        r"\(\.\.\., 7\)",
    ),
    Case(
        "distributions.ComplexNormal",
        "scale",
        lambda: distributions.ComplexNormal(0j, -1.0, validate_args=True),
        "invalid",
    ),
    Case(
        "interop.SBLRegressor",
        "prune",
        lambda: interop.SBLRegressor(prune=2.0).fit(_x(N, M), _x(N)),
        "0.5",
    ),
)
