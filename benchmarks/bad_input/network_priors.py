"""Mistakes in calls of the network priors of `bayesjx.bnn`, and of what matches them."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.handlers import seed

from bayesjx import bnn, gp, kernels, likelihoods
from benchmarks.bad_input._case import Case

N, D = 7, 3
KEY = jax.random.key(0)


def _x(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape or (N, D))


def _holes() -> np.ndarray:
    x = _x()
    x.flat[0] = np.nan
    return x


def _network(out: Any = "scalar") -> Any:
    return eqx.nn.MLP(D, out, 5, 1, key=KEY)


def _normal(network: Any = None, *args: Any, **options: Any) -> Any:
    return bnn.normal_prior(_network() if network is None else network, *args, **options)


def _hierarchical(network: Any = None, *args: Any, **options: Any) -> Any:
    return bnn.hierarchical_prior(_network() if network is None else network, *args, **options)


def _flow(key: Any = KEY, network: Any = None, **options: Any) -> Any:
    return bnn.flow_prior(key, _network() if network is None else network, **options)


def _process() -> Any:
    return gp.GP(kernels.RBF())


def _match(**options: Any) -> Any:
    given: dict[str, Any] = {
        "key": KEY,
        "prior": _normal(),
        "target": _process(),
        "measure": _x(),
        "discrepancy": bnn.SlicedWasserstein(4),
        "max_steps": 1,
        "num_samples": 4,
        "num_held_out": 2,
    } | options
    first = [given.pop(name) for name in ("key", "prior", "target", "measure")]
    return bnn.match_prior(*first, **given)


def _matching(**options: Any) -> Any:
    given: dict[str, Any] = {
        "prior": _normal(),
        "target": _process(),
        "measure": _x(),
        "optimizer": optax.sgd(0.1),
    } | options
    first = [given.pop(name) for name in ("prior", "target", "measure", "optimizer")]
    return bnn.prior_matching(*first, **given)


def _joint(prior: Any) -> Any:
    noise = likelihoods.Gaussian(0.1)
    return bnn.log_joint(_network(), noise, _x(), _x(N), prior=prior)


_NORMAL, _HIERARCHICAL, _FLOW = "bnn.normal_prior", "bnn.hierarchical_prior", "bnn.flow_prior"
_MATCH, _MATCHING, _DISTANCE = "bnn.match_prior", "bnn.prior_matching", "bnn.functions_distance"
_DRAWS, _SET = "bnn.AbstractNetworkPrior.sample_functions", "bnn.MeasurementSet"
_GIVEN, _GIBBS = "bnn.HierarchicalPrior.given", "bnn.HierarchicalPrior.precisions"
_CRITIC = "bnn.Wasserstein"

CASES: tuple[Case, ...] = (
    Case(_NORMAL, "network", lambda: _normal(_x()), "callable Equinox module"),
    Case(_NORMAL, "network", lambda: _normal(eqx.nn.Identity()), "has none"),
    Case(_NORMAL, "where", lambda: _normal(where=lambda m: m.weights), "node"),
    Case(_NORMAL, "weight_scale", lambda: _normal(None, 0.0), "positive"),
    Case(_NORMAL, "weight_scale", lambda: _normal(None, np.ones(2)), "a number"),
    Case(_NORMAL, "bias_scale", lambda: _normal(None, 1.0, -1.0), "positive"),
    Case(_NORMAL, "bias_scale", lambda: _normal(None, 1.0, float("nan")), "positive"),
    Case(_HIERARCHICAL, "network", lambda: _hierarchical(eqx.nn.MLP), "callable Equinox module"),
    Case(_HIERARCHICAL, "concentration", lambda: _hierarchical(None, 0.0), "positive"),
    Case(_HIERARCHICAL, "rate", lambda: _hierarchical(None, 1.0, "fast"), "numbers"),
    Case(_HIERARCHICAL, "where", lambda: _hierarchical(where="all"), "function of the network"),
    Case(_GIVEN, "precisions", lambda: _hierarchical().given((1.0,)), "4, one for each"),
    Case(_GIVEN, "precisions", lambda: _hierarchical().given((1.0, 0.0, 1.0, 1.0)), "positive"),
    Case(_GIBBS, "network", lambda: _hierarchical().precisions(KEY, _network(2)), "like that of"),
    Case(_GIBBS, "network", lambda: _hierarchical().precisions(KEY, 3.0), "callable"),
    Case(_GIBBS, "key", lambda: _hierarchical().precisions(0), "PRNG"),
    Case(_FLOW, "key", lambda: _flow(0), "PRNG"),
    Case(_FLOW, "network", lambda: _flow(network=jnp.ones(3)), "callable Equinox module"),
    Case(_FLOW, "num_layers", lambda: _flow(num_layers=0), "at least 1"),
    Case(_FLOW, "num_layers", lambda: _flow(num_layers=2.5), "integer"),
    Case(_FLOW, "weight_scale", lambda: _flow(weight_scale=-1.0), "positive"),
    Case(_DRAWS, "key", lambda: _normal().sample_functions(0, _x()), "PRNG"),
    Case(_DRAWS, "x", lambda: _normal().sample_functions(KEY, _holes()), "NaN"),
    Case(_DRAWS, "x", lambda: _normal().sample_functions(KEY, _x(N)), r"shape \(n, ...\)"),
    Case(_DRAWS, "x", lambda: _normal().sample_functions(KEY, _x(0, D)), "empty"),
    Case(_DRAWS, "num_samples", lambda: _normal().sample_functions(KEY, _x(), 0), "at least 1"),
    Case(_MATCH, "key", lambda: _match(key=0), "PRNG"),
    Case(_MATCH, "prior", lambda: _match(prior=bnn.FanIn()), "a whole network"),
    Case(_MATCH, "target", lambda: _match(target=kernels.RBF), "gp.GP"),
    Case(_MATCH, "target", lambda: _match(target=1.0), "gp.GP"),
    Case(_MATCH, "target", lambda: _match(target=lambda key, x: x), r"values \(7,\)"),
    Case(_MATCH, "measure", lambda: _match(measure=None), "function from a key"),
    Case(_MATCH, "measure", lambda: _match(measure=_holes()), "NaN"),
    Case(_MATCH, "measure", lambda: _match(measure=_x(0, D)), "empty"),
    Case(_MATCH, "measure", lambda: _match(measure=lambda key: jnp.ones(())), "one a row"),
    Case(_MATCH, "x", lambda: _match(measure=_x(N, 2)), "fails at an input"),
    Case(_MATCH, "discrepancy", lambda: _match(discrepancy="mmd"), r"bnn.MMD\(\)"),
    Case(_MATCH, "max_steps", lambda: _match(max_steps=0), "at least 1"),
    Case(_MATCH, "num_samples", lambda: _match(num_samples=3), "at least 4"),
    Case(_MATCH, "num_held_out", lambda: _match(num_held_out=1), "at least 2"),
    Case(_MATCH, "optimizer", lambda: _match(optimizer="adam"), "Optax"),
    Case(_MATCHING, "prior", lambda: _matching(prior=1.0), "a whole network"),
    Case(_MATCHING, "optimizer", lambda: _matching(optimizer=None), "Optax"),
    Case(_MATCHING, "discrepancy", lambda: _matching(discrepancy=bnn.MMD), "SlicedWasserstein"),
    Case(_MATCHING, "num_samples", lambda: _matching(num_samples=1.5), "integer"),
    Case(_SET, "x", lambda: bnn.MeasurementSet(_holes()), "NaN"),
    Case(_SET, "x", lambda: bnn.MeasurementSet(_x(0, D)), "empty"),
    Case(_SET, "x", lambda: bnn.MeasurementSet(3.0), "one a row"),
    Case(_SET, "num_points", lambda: bnn.MeasurementSet(_x(), 0), "at least 1"),
    Case(_SET, "uniform", lambda: bnn.MeasurementSet(_x(), uniform=30), "from 0 to 1"),
    Case(_CRITIC, "width", lambda: bnn.Wasserstein(0), "at least 1"),
    Case(_CRITIC, "max_steps", lambda: bnn.Wasserstein(max_steps=0), "at least 1"),
    Case(_CRITIC, "learning_rate", lambda: bnn.Wasserstein(learning_rate=0.0), "positive"),
    Case(_CRITIC, "penalty", lambda: bnn.Wasserstein(penalty=-1.0), "positive"),
    Case(_CRITIC, "one_sided", lambda: bnn.Wasserstein(one_sided="lp"), "True or False"),
    Case(_CRITIC, "tol", lambda: bnn.Wasserstein(tol=-0.1), "not negative"),
    Case("bnn.SlicedWasserstein", "num_projections", lambda: bnn.SlicedWasserstein(0), "least 1"),
    Case("bnn.MMD", "kernel", lambda: bnn.MMD("matern"), "'energy' or 'rbf'"),
    Case(_DISTANCE, "key", lambda: bnn.functions_distance(0, _x(), _x()), "PRNG"),
    Case(_DISTANCE, "f", lambda: bnn.functions_distance(KEY, _x(N), _x()), r"\(s, m\)"),
    Case(_DISTANCE, "g", lambda: bnn.functions_distance(KEY, _x(), _x(5, D)), "as many functions"),
    Case(_DISTANCE, "g", lambda: bnn.functions_distance(KEY, _x(), _holes()), "NaN"),
    Case(
        _DISTANCE,
        "num_projections",
        lambda: bnn.functions_distance(KEY, _x(), _x(), 0),
        "at least 1",
    ),
    Case("bnn.log_joint", "prior", lambda: _joint(_normal(_network(2))), "same random leaves"),
    Case(
        "bnn.random_network",
        "prior",
        lambda: seed(bnn.random_network, KEY)("net", _network(2), _hierarchical()),
        "same random leaves",
    ),
)
