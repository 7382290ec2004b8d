"""Mistakes in calls of the calibration checks of `bayesjx.diagnostics`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesjx import diagnostics
from benchmarks.bad_input._case import Case

S, N, D = 7, 5, 3
KEY = jax.random.key(0)
NAN = float("nan")


def _x(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape)


def _call(name: str, **changed: Any) -> Any:
    """A check of draws with one argument changed."""
    arguments: dict[str, Any] = {"key": KEY, "draws": _x(S, N, D), "truths": _x(N, D)} | changed
    given = [arguments.pop(key) for key in ("key", "draws", "truths")]
    return getattr(diagnostics, name)(*given, **arguments)


def _coverage(**changed: Any) -> Any:
    arguments: dict[str, Any] = {"predictive": _x(99, N), "truths": _x(N)} | changed
    return diagnostics.coverage(arguments.pop("predictive"), arguments.pop("truths"), **arguments)


def _simulate(**changed: Any) -> Any:
    arguments: dict[str, Any] = {
        "prior": lambda key: jax.random.normal(key, (D,)),
        "simulator": lambda key, params: params,
        "posterior": lambda key, data: jax.random.normal(key, (S, D)),
        "num_datasets": 2,
    } | changed
    given = [arguments.pop(name) for name in ("prior", "simulator", "posterior")]
    return diagnostics.simulate(KEY, *given, **arguments)


def _program(y: Any = None) -> None:
    numpyro.sample("y", dist.Normal(numpyro.sample("mean", dist.Normal(0, 1)), 1), obs=y)


def _factor() -> None:
    numpyro.factor("bonus", numpyro.sample("mean", dist.Normal(0, 1)))


def _subsampled() -> None:
    with numpyro.plate("rows", 9, subsample_size=3):
        _program(jnp.zeros(3))


def _problem() -> Any:
    return diagnostics.model_problem(_program, 1.0)


_SBC, _TARP, _REPORT = "diagnostics.sbc", "diagnostics.tarp", "diagnostics.calibration_report"
_DENSE, _SIMULATE = "diagnostics.highest_density_coverage", "diagnostics.simulate"
_MODEL, _SCORE = "diagnostics.model_problem", "diagnostics.variogram_score"

CASES: tuple[Case, ...] = (
    Case("diagnostics.ecdf_band", "num_values", lambda: diagnostics.ecdf_band(1), "at least 2"),
    Case("diagnostics.ecdf_band", "num_points",
         lambda: diagnostics.ecdf_band(9, num_points=1), "at least 2"),
    Case("diagnostics.ecdf_band", "prob", lambda: diagnostics.ecdf_band(9, prob=95.0), "between"),
    Case("diagnostics.uniformity", "values", lambda: diagnostics.uniformity([1, 2, 3]), "ranks"),
    Case("diagnostics.uniformity", "values", lambda: diagnostics.uniformity([0.5]), "at least 3"),
    Case("diagnostics.uniformity", "values", lambda: diagnostics.uniformity(_x(9)), "between 0"),
    Case("diagnostics.uniformity", "values", lambda: diagnostics.uniformity([0.1, NAN, 0.2]), "0"),
    Case("diagnostics.uniformity", "values",
         lambda: eqx.filter_jit(diagnostics.uniformity)(_x(9)), "between 0"),
    Case("diagnostics.uniformity", "num_bins",
         lambda: diagnostics.uniformity([0.1] * 5, num_bins=1), "at least 2"),
    Case(_SBC, "key", lambda: _call("sbc", key=0), "PRNG key"),
    Case(_SBC, "draws", lambda: _call("sbc", draws=_x(N, S, D)), "first"),
    Case(_SBC, "draws", lambda: _call("sbc", draws={"a": _x(S, N, D)}), "same structure"),
    Case(_SBC, "draws", lambda: _call("sbc", draws=_x(S, N, D) * NAN), "NaN"),
    Case(_SBC, "draws", lambda: _call("sbc", draws=_x(0, N, D)), "at least 1"),
    Case(_SBC, "truths", lambda: _call("sbc", truths=_x(N, D) * NAN), "NaN"),
    Case(_SBC, "truths", lambda: _call("sbc", draws=_x(S, 2), truths=_x(2)), "3 data sets"),
    Case(_SBC, "truths", lambda: _call("sbc", draws={}, truths={}), "empty"),
    Case(_SBC, "truths", lambda: _call("sbc", truths=_x(N, D) * 1j), "real"),
    Case(_SBC, "num_bins", lambda: _call("sbc", num_bins=2.5), "integer"),
    Case(_TARP, "draws", lambda: _call("tarp", draws=_x(S, N, D) * np.inf), "finite"),
    Case(_TARP, "draws", lambda: _call("tarp", draws=_x(1, N, D), references="posterior"), "2"),
    Case(_TARP, "references", lambda: _call("tarp", references="prior"), "random, posterior"),
    Case(_TARP, "references", lambda: _call("tarp", references=_x(D, N)), r"\(n, d\)"),
    Case(_TARP, "num_bootstrap", lambda: _call("tarp", num_bootstrap=0), "at least 2"),
    Case(_TARP, "prob", lambda: _call("tarp", prob=1.5), "between 0 and 1"),
    Case(_DENSE, "log_prob_draws",
         lambda: diagnostics.highest_density_coverage(KEY, _x(S, N, D), _x(N, D)), "shape"),
    Case(_REPORT, "names", lambda: _call("calibration_report", names=["a"]), "3 different"),
    Case(_REPORT, "level", lambda: _call("calibration_report", level=5), "between 0 and 1"),
    Case(_REPORT, "levels", lambda: _call("calibration_report", levels=(50, 90)), "between 0"),
    Case(_REPORT, "levels", lambda: _call("calibration_report", levels=(0.99,)), "at most"),
    Case(_REPORT, "references", lambda: _call("calibration_report", references="x"), "one of"),
    Case(_REPORT, "draws", lambda: _call("calibration_report", draws=_x(1, N, D)), "2 or more"),
    Case(_REPORT, "draws",
         lambda: jax.jit(lambda d: _call("calibration_report", draws=d).crps)(_x(S, N, D)), "sbc"),
    Case("diagnostics.coverage", "levels", lambda: _coverage(levels=(1.0,)), "between 0 and 1"),
    Case("diagnostics.coverage", "levels", lambda: _coverage(levels=(0.99,)), "at most"),
    Case("diagnostics.coverage", "predictive",
         lambda: _coverage(predictive=dist.Poisson(np.ones(N))), "quantiles"),
    Case("diagnostics.pit", "predictive", lambda: diagnostics.pit(KEY, _x(N, S), _x(N)), "shape"),
    Case("diagnostics.pit", "predictive",
         lambda: diagnostics.pit(KEY, dist.Normal(_x(3), 1.0), _x(N)), "batch shape"),
    Case("diagnostics.pit", "predictive",
         lambda: diagnostics.pit(KEY, dist.VonMises(np.zeros(N), 1.0).mask(True), _x(N)), "draws"),
    Case("diagnostics.pit", "y",
         lambda: diagnostics.pit(KEY, dist.Normal(0.0, 1.0), [NAN, 1.0]), "NaN"),
    Case("diagnostics.crps", "predictive", lambda: diagnostics.crps(_x(N, S), _x(N)), "shape"),
    Case("diagnostics.crps", "predictive", lambda: diagnostics.crps(_x(1, N), _x(N)), "at least 2"),
    Case("diagnostics.crps", "predictive",
         lambda: diagnostics.crps(dist.Poisson(np.ones(N)), _x(N)), "quantiles"),
    Case("diagnostics.crps", "y", lambda: diagnostics.crps(_x(S, 0), _x(0)), "empty"),
    Case("diagnostics.crps", "num_quantiles",
         lambda: diagnostics.crps(dist.Cauchy(0.0, 1.0), _x(N), num_quantiles=0), "at least 1"),
    Case("diagnostics.energy_score", "draws",
         lambda: diagnostics.energy_score(_x(N, D), _x(N, D)), "shape"),
    Case("diagnostics.energy_score", "y", lambda: diagnostics.energy_score(_x(S), 1.0), "number"),
    Case(_SCORE, "order",
         lambda: diagnostics.variogram_score(_x(S, D), _x(D), order=0), "positive"),
    Case(_SCORE, "weights",
         lambda: diagnostics.variogram_score(_x(S, D), _x(D), weights=_x(D)), "shape"),
    Case("diagnostics.compare_scores", "others",
         lambda: diagnostics.compare_scores(_x(3), _x(4)), "shape"),
    Case("diagnostics.compare_scores", "scores",
         lambda: diagnostics.compare_scores(_x(3) * NAN, _x(3)), "NaN"),
    Case(_SIMULATE, "prior", lambda: _simulate(prior=None), "callable"),
    Case(_SIMULATE, "posterior",
         lambda: _simulate(posterior=lambda key, data: jnp.zeros((S, 2))), "leading axis"),
    Case(_SIMULATE, "posterior", lambda: _simulate(posterior=lambda key, data: [data]), "leading"),
    Case(_SIMULATE, "num_datasets", lambda: _simulate(num_datasets=0), "at least 1"),
    Case(_SIMULATE, "batch_size", lambda: _simulate(batch_size=1.5), "integer"),
    Case(_SIMULATE, "compile", lambda: _simulate(compile="no"), "True or False"),
    Case(_SIMULATE, "log_lik", lambda: _simulate(test_quantities={"log_lik": 3}), "callable"),
    Case(_MODEL, "model", lambda: diagnostics.model_problem(3), "callable"),
    Case(_MODEL, "model", lambda: diagnostics.model_problem(_factor), "factor"),
    Case(_MODEL, "model", lambda: diagnostics.model_problem(_subsampled), "subsampled"),
    Case(_MODEL, "model",
         lambda: diagnostics.model_problem(_program, observed=["y", "mean"]), "no parameters"),
    Case(_MODEL, "observed", lambda: diagnostics.model_problem(_program), "obs="),
    Case(_MODEL, "observed", lambda: diagnostics.model_problem(_program, observed=["z"]), "sites"),
    Case(_MODEL, "observed", lambda: diagnostics.model_problem(_program, observed="y"), "list"),
    Case("diagnostics.ModelProblem.nuts", "thinning", lambda: _problem().nuts(thinning=0), "1"),
    Case("diagnostics.c2st", "second", lambda: diagnostics.c2st(KEY, _x(9, 2), _x(8, 2)), "shape"),
    Case("diagnostics.c2st", "first", lambda: diagnostics.c2st(KEY, _x(9, 2) * NAN, _x(9, 2)),
         "NaN"),
    Case("diagnostics.c2st", "num_neighbours",
         lambda: diagnostics.c2st(KEY, _x(9, 2), _x(9, 2), num_neighbours=2), "odd"),
)  # fmt: skip
