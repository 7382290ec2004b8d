"""Mistakes in calls of the curvature of functions and networks, and of Laplace's approximation."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from bayesjx import bnn, likelihoods, ops, sbl
from benchmarks.bad_input._case import Case

N, D, P = 7, 3, 2


def _x(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).normal(size=shape))


def _function(params: Any, x: Any) -> jax.Array:
    return jnp.sin(params @ x)


def _jacobian(**changed: Any) -> Any:
    arguments: dict[str, Any] = {"function": _function, "params": _x(P, D), "data": _x(N, D)}
    arguments |= changed
    return ops.Jacobian(
        arguments.pop("function"), arguments.pop("params"), arguments.pop("data"), **arguments
    )


def _gauss_newton(weight: Any) -> Any:
    return ops.gauss_newton(_function, _x(P, D), weight, _x(N, D))


def _network() -> Any:
    return eqx.nn.MLP(D, P, 4, 1, key=jax.random.key(0))


def _classes(f: jax.Array) -> Any:
    return dist.Categorical(logits=f)


def _of(function: Any, **changed: Any) -> Any:
    arguments: dict[str, Any] = {
        "network": _network(), "x": _x(N, D), "y": jnp.zeros(N, int), "likelihood": _classes,
    }  # fmt: skip
    arguments |= changed
    given = [arguments.pop(name) for name in ("network", "x", "y", "likelihood")]
    if function is bnn.fisher:
        del given[2]
    return function(*given, **arguments)


def _fitted() -> Any:
    return _of(bnn.laplace)


def _student(f: jax.Array) -> Any:
    return dist.StudentT(3.0, f[..., 0])


def _poisson(f: jax.Array) -> Any:
    return dist.Poisson(jnp.exp(f))


def _double(f: jax.Array) -> Any:
    return dist.Laplace(f, 1.0)


_JACOBIAN, _GN, _LAPLACE = "ops.Jacobian", "ops.gauss_newton", "bnn.laplace"
_OBSERVED, _FISHER = "likelihoods.observed_information", "likelihoods.fisher_information"
_SCORES, _CALIBRATE = "likelihoods.scores", "bnn.calibrate_laplace"
_KFAC, _PRODUCTS = "bnn.kronecker_factors", "sbl.condition_products"

CASES: tuple[Case, ...] = (
    Case(_JACOBIAN, "function", lambda: _jacobian(function=None), "callable"),
    Case(_JACOBIAN, "function", lambda: _jacobian(function=lambda p, x: (x, x)), "one array"),
    Case(_JACOBIAN, "params", lambda: _jacobian(params={}), "no array"),
    Case(_JACOBIAN, "params", lambda: _jacobian(params=jnp.ones((P, D), int)), "floating-point"),
    Case(_JACOBIAN, "data", lambda: _jacobian(data=_x(0, D)), "empty"),
    Case(_JACOBIAN, "data", lambda: _jacobian(data=(_x(N), _x(2))), "leading axis"),
    Case(_JACOBIAN, "chunk", lambda: _jacobian(chunk=0), "at least 1"),
    Case("ops.GaussNewton", "jacobian", lambda: ops.GaussNewton(_x(3, 3)), "ops.Jacobian"),
    Case(_GN, "weight", lambda: _gauss_newton(_x(14, 14)), "operator"),
    Case(_GN, "weight", lambda: _gauss_newton(ops.Diag(_x(3))), "shape"),
    Case(_GN, "weight", lambda: _gauss_newton(ops.Dense(jnp.eye(14), ops.psd)), "BlockDiag"),
    Case("ops.CategoricalCovariance", "probs", lambda: ops.CategoricalCovariance(_x(3)), "shape"),
    Case("ops.Reordered", "order", lambda: ops.Reordered(ops.Diag(_x(3)), [0, 0, 1]), "permut"),
    Case("ops.weight_roots", "weight", lambda: ops.weight_roots(_x(3), 3), "ops.Diag"),
    Case("ops.times_root", "root", lambda: ops.times_root(_x(2, 3, 3), _x(3)), "one datum"),
    Case("ops.times_root", "f", lambda: ops.times_root(_x(3), _x(2)), r"shape \(3,\)"),
    Case("ops.times_root", "root", lambda: ops.times_root(
        ops.weight_roots(ops.CategoricalCovariance(jnp.full((1, 3), 1 / 3)), 1), _x(3)),
         "one datum"),
    Case(_SCORES, "f", lambda: likelihoods.scores(_classes, 3, 0), "shape"),
    Case(_SCORES, "f", lambda: likelihoods.scores(_poisson, jnp.nan * _x(2), [0, 1]), "finite"),
    Case(_SCORES, "y", lambda: likelihoods.scores(_poisson, _x(2), [0, -1]), "support"),
    Case(_SCORES, "y", lambda: likelihoods.scores(_poisson, _x(2), [0, 1, 1]), "shape"),
    Case(_SCORES, "likelihood", lambda: likelihoods.scores(3, _x(2), [0, 1]), "function"),
    Case(_OBSERVED, "f", lambda: likelihoods.observed_information(_classes, 3, 0), "shape"),
    Case(_OBSERVED, "y", lambda: likelihoods.observed_information(_classes, _x(2, 3), [0, 3]),
         "support"),
    Case(_OBSERVED, "likelihood",
         lambda: likelihoods.observed_information(_double, _x(N), _x(N)), "second derivatives"),
    Case(_FISHER, "key", lambda: likelihoods.fisher_information(_student, _x(N, 2)), "draws"),
    Case(_FISHER, "likelihood", lambda: likelihoods.fisher_information(3, _x(N)), "function"),
    Case(_PRODUCTS, "gram", lambda: sbl.condition_products(
        _x(3, 2), _x(3), noise_var=1.0, prior_var=1.0), r"\(m, m\)"),
    Case(_PRODUCTS, "noise_var", lambda: sbl.condition_products(
        jnp.eye(3), _x(3), noise_var=-1.0, prior_var=1.0), "positive"),
    Case("bnn.gauss_newton", "network", lambda: _of(bnn.gauss_newton, network=3), "callable"),
    Case("bnn.gauss_newton", "where", lambda: _of(bnn.gauss_newton, where=lambda m: []), "none"),
    Case("bnn.gauss_newton", "y", lambda: _of(bnn.gauss_newton, y=jnp.full(N, P)), "support"),
    Case("bnn.fisher", "x", lambda: _of(bnn.fisher, x=jnp.nan * _x(N, D)), "NaN"),
    Case("bnn.fisher", "key", lambda: _of(bnn.fisher, likelihood=_student), "draws"),
    Case("bnn.empirical_fisher", "x", lambda: _of(bnn.empirical_fisher, x=_x(N, D + 1)), "shape"),
    Case(_KFAC, "sharing", lambda: _of(bnn.kronecker_factors, sharing="both"), "expand"),
    Case(_KFAC, "curvature", lambda: _of(bnn.kronecker_factors, curvature="newton"), "ggn"),
    Case(_KFAC, "where", lambda: _of(
        bnn.kronecker_factors, network=eqx.nn.LayerNorm(D), likelihood=likelihoods.Gaussian(1.0),
        y=_x(N, D)), "LayerNorm"),
    Case(_LAPLACE, "structure", lambda: _of(bnn.laplace, structure="block"), "last_layer"),
    Case(_LAPLACE, "mean", lambda: _of(bnn.laplace, mean="mode"), "linear"),
    Case(_LAPLACE, "prior_precision", lambda: _of(bnn.laplace, prior_precision=0), "positive"),
    Case(_LAPLACE, "prior_precision", lambda: _of(bnn.laplace, prior_precision=[1.0] * 5), "one"),
    Case(_LAPLACE, "subnetwork", lambda: _of(bnn.laplace, structure="subnetwork"), "how many"),
    Case(_LAPLACE, "subnetwork", lambda: _of(bnn.laplace, subnetwork=3), "structure"),
    Case(_LAPLACE, "chunk_size", lambda: _of(bnn.laplace, chunk_size=0), "at least 1"),
    Case(_LAPLACE, "throw", lambda: _of(bnn.laplace, throw="yes"), "True or False"),
    Case("bnn.LaplacePosterior.predict", "method",
         lambda: _fitted().predict(_x(2, D), method="mc"), "probit"),
    Case("bnn.LaplacePosterior.mean", "x", lambda: _fitted().mean(jnp.nan * _x(2, D)), "NaN"),
    Case("bnn.LaplacePosterior.at", "noise_var", lambda: _fitted().at(noise_var=1.0), "Gaussian"),
    Case(_CALIBRATE, "LaplacePosterior",
         lambda: bnn.calibrate_laplace(3, _x(2, D), [0, 1]), "takes"),
    Case(_CALIBRATE, "x",
         lambda: bnn.calibrate_laplace(_fitted(), jnp.nan * _x(2, D), [0, 1]), "NaN"),
    Case(_CALIBRATE, "y", lambda: bnn.calibrate_laplace(_fitted(), _x(2, D), [0, P]), "support"),
    Case(_CALIBRATE, "factors",
         lambda: bnn.calibrate_laplace(_fitted(), _x(2, D), [0, 1], factors=[]), "positive"),
    Case("bnn.tune_laplace", "LaplacePosterior", lambda: bnn.tune_laplace(3), "takes"),
)  # fmt: skip
