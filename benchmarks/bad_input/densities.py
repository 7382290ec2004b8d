"""Mistakes in distributions, likelihoods, Laplace's approximation and `minimise`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from numpyro.distributions import kl_divergence

from bayesjx import distributions, gp, kernels, likelihoods, ops
from benchmarks.bad_input._case import Case

N = 5
X = np.linspace(0.0, 1.0, N)
LABELS = np.array([0, 1, 1, 0, 1])
COUNTS = np.array([0, 3, 1, 2, 4])
ONES = np.ones(N)


def _prior(noise: Any = 0.0) -> gp.GP:
    return gp.GP(kernels.RBF(jnp.asarray(0.5)), noise_var=noise)


def _bernoulli(f: Any) -> Any:
    return dist.Bernoulli(logits=f)


def _softmax(f: Any) -> Any:
    return dist.Categorical(logits=f)


def _laplace(**changed: Any) -> Any:
    arguments: dict[str, Any] = {
        "prior": _prior(),
        "x": X,
        "y": LABELS,
        "likelihood": _bernoulli,
    } | changed
    return gp.laplace(**arguments)


def _posterior() -> Any:
    return _laplace()


def _expected(function: Any = likelihoods.expected_log_prob, **changed: Any) -> Any:
    arguments: dict[str, Any] = {
        "likelihood": _bernoulli,
        "y": LABELS,
        "mean": 0 * ONES,
        "variance": ONES,
    }
    return jax.block_until_ready(function(**(arguments | changed)))


def _predictive(**changed: Any) -> Any:
    return _expected(likelihoods.log_predictive_prob, **changed)


def _three(**changed: Any) -> Any:
    wide = np.ones((N, 3))
    return _expected(**({"likelihood": _softmax, "mean": wide, "variance": wide} | changed))


def _objective(prior: Any) -> Any:
    return -prior(X).log_prob(jnp.sin(X))


def _minimise(**changed: Any) -> Any:
    arguments: dict[str, Any] = {
        "objective": _objective,
        "params": _prior(0.1),
        "max_steps": 2,
    } | changed
    return gp.minimise(**arguments)


def _normal(**changed: Any) -> Any:
    arguments: dict[str, Any] = {
        "loc": jnp.zeros(N),
        "covariance": ops.Diag(jnp.ones(N), ops.psd),
    } | changed
    return distributions.StructuredNormal(**arguments)


def _subspace(**changed: Any) -> Any:
    arguments: dict[str, Any] = {
        "loc": jnp.zeros(N), "scale": jnp.ones(N), "basis": jnp.eye(N)[:, :2],
        "inner_tril": jnp.eye(2),
    } | changed  # fmt: skip
    return distributions.SubspaceNormal(**arguments)


_LAYOUT = distributions.NestedLayout(
    (
        distributions.NestedGroup(np.array([0]), ()),
        distributions.NestedGroup(np.array([[1, 2], [3, 4]]), (0,)),
    )
)


def _nested(**changed: Any) -> Any:
    arguments: dict[str, Any] = {
        "loc": jnp.zeros(N), "scale": jnp.ones(N),
        "lowers": (jnp.zeros((1, 1)), jnp.zeros((2, 2, 2))),
        "links": ((), (jnp.zeros((2, 2, 1)),)), "layout": _LAYOUT,
    } | changed  # fmt: skip
    return distributions.NestedNormal(**arguments)


def _jitted(call: Any, array: Any) -> Any:
    return jax.block_until_ready(eqx.filter_jit(call)(jnp.asarray(array)))


_STRUCTURED = "distributions.StructuredNormal"
_ONE_HOT = "distributions.OneHotCategorical"
_HALF = np.array([1.0, -0.1, 1.0, 1.0, 1.0])
_NAN = np.array([1.0, np.nan, 1.0, 1.0, 1.0])

_DISTRIBUTIONS = (
    Case(_STRUCTURED, "covariance", lambda: _normal(covariance=None), "one of covariance"),
    Case(_STRUCTURED, "precision",
          lambda: _normal(precision=ops.Diag(jnp.ones(N), ops.psd)), "not both"),
    Case(_STRUCTURED, "covariance", lambda: _normal(covariance=jnp.eye(N)), "must be an operator"),
    Case(_STRUCTURED, "covariance", lambda: _normal(covariance=ops.Diag(jnp.ones(N))), "positive"),
    Case(_STRUCTURED, "loc", lambda: _normal(loc=jnp.zeros(N - 1)), r"shape \(5,\)"),
    Case(_STRUCTURED, "loc", lambda: _normal(loc=0.0), r"shape \(5,\)"),
    Case(_STRUCTURED, "loc", lambda: _normal(loc=jnp.zeros(N, jnp.float32)), "the same"),
    Case(_STRUCTURED, "loc", lambda: _normal(loc=np.zeros(N, int)), "the same"),
    Case(_STRUCTURED, "loc", lambda: _normal(loc="zero"), r"shape \(5,\)"),
    Case(_STRUCTURED, "loc", lambda: _normal(loc=jnp.asarray(_NAN), validate_args=True), "invalid"),
    Case(_STRUCTURED + ".log_prob", "value",
          lambda: _normal().log_prob(jnp.zeros(N - 1)), r"\(\.\.\., 5\)"),
    Case(_STRUCTURED + ".log_prob", "value", lambda: _normal().log_prob(0.0), r"\(\.\.\., 5\)"),
    Case(_STRUCTURED + ".log_prob", "value",
          lambda: _normal(loc=jnp.zeros((2, N))).log_prob(jnp.zeros((3, N))), "broadcasts"),
    Case(_STRUCTURED + ".condition", "index",
          lambda: _normal().condition([7], jnp.zeros(1)), "0, ..., 4"),
    Case(_STRUCTURED + ".condition", "index",
          lambda: _normal().condition([1, 1], jnp.zeros(2)), "more than once"),
    Case(_STRUCTURED + ".condition", "index",
          lambda: _normal().condition([0.5], jnp.zeros(1)), "integers"),
    Case(_STRUCTURED + ".condition", "value",
          lambda: _normal().condition([1], jnp.zeros(2)), r"shape \(1,\)"),
    Case(_STRUCTURED + ".condition", "loc",
          lambda: _normal(loc=jnp.zeros((2, N))).condition([1], jnp.zeros(1)), "batch"),
    Case("numpyro.distributions.kl_divergence", "kl_divergence",
          lambda: kl_divergence(_normal(), _normal(
              loc=jnp.zeros(2), covariance=ops.Diag(jnp.ones(2), ops.psd))), r"\(2,\)"),
    Case("numpyro.distributions.kl_divergence", "kl_divergence",
          lambda: kl_divergence(_normal(), dist.Cauchy(jnp.zeros(N), 1.0).to_event(1)),
          "no divergence"),
    Case("distributions.CollapsedNormal", "correction",
          lambda: distributions.CollapsedNormal(
              jnp.zeros(N), ops.Diag(jnp.ones(N), ops.psd), jnp.zeros(N)), "scalar"),
    Case("distributions.SubspaceNormal", "basis",
          lambda: _subspace(basis=jnp.eye(N)[0]), r"\(d, k\)"),
    Case("distributions.SubspaceNormal", "inner_tril",
          lambda: _subspace(inner_tril=jnp.eye(3)), r"\(k, k\)"),
    Case("distributions.SubspaceNormal", "scale",
          lambda: _subspace(scale=jnp.asarray(_HALF), validate_args=True), "invalid"),
    Case("distributions.SubspaceNormal.log_prob", "value",
          lambda: _subspace().log_prob(jnp.zeros(3)), r"\(\.\.\., 5\)"),
    Case("distributions.NestedNormal", "scale",
          lambda: _nested(scale=jnp.ones(N - 1)), r"shape \(5,\)"),
    Case("distributions.NestedNormal", "lowers",
          lambda: _nested(lowers=(jnp.zeros((1, 1)),)), "2 elements"),
    Case("distributions.NestedNormal", "links",
          lambda: _nested(links=((), ())), "1 elements"),
    Case("distributions.NestedNormal.log_prob", "value",
          lambda: _nested().log_prob(jnp.zeros(4)), r"\(\.\.\., 5\)"),
    Case(_ONE_HOT, "probs", lambda: distributions.OneHotCategorical(), "exactly one"),
    Case(_ONE_HOT, "probs",
          lambda: distributions.OneHotCategorical(jnp.ones(2) / 2, jnp.zeros(2)), "exactly one"),
    Case(_ONE_HOT, "probs", lambda: distributions.OneHotCategorical(0.5), "scalar"),
    Case(_ONE_HOT, "probs",
          lambda: distributions.OneHotCategorical(jnp.array([1.5, -0.5])), "not be negative"),
    Case(_ONE_HOT, "logits",
          lambda: distributions.OneHotCategorical(logits=jnp.array([0.0, jnp.nan])), "invalid"),
    Case(_ONE_HOT + ".log_prob", "value",
          lambda: distributions.OneHotCategorical(jnp.ones(3) / 3).log_prob(jnp.ones(2)),
          "length 3"),
    Case("distributions.BernoulliLogits", "logits",
          lambda: distributions.BernoulliLogits(jnp.asarray(np.nan), validate_args=True),
         "invalid"),
    Case("distributions.Normal", "scale",
          lambda: distributions.Normal(0.0, -1.0, validate_args=True), "invalid"),
)  # fmt: skip

_LIKELIHOODS = (
    Case("likelihoods.Gaussian", "noise_var", lambda: likelihoods.Gaussian(0.0), "positive"),
    Case("likelihoods.Gaussian", "noise_var", lambda: likelihoods.Gaussian(-1.0), "positive"),
    Case("likelihoods.Gaussian", "noise_var", lambda: likelihoods.Gaussian(np.nan), "positive"),
    Case("likelihoods.Gaussian", "noise_var", lambda: likelihoods.Gaussian(ONES), "scalar"),
    Case("likelihoods.Gaussian", "noise_var", lambda: likelihoods.Gaussian("a"), "number"),
    Case("likelihoods.expected_log_prob", "variance",
          lambda: _expected(variance=_HALF), "not negative"),
    Case("likelihoods.expected_log_prob", "variance",
          lambda: _expected(variance=_NAN), "finite"),
    Case("likelihoods.expected_log_prob", "variance",
          lambda: _jitted(lambda v: _expected(variance=v), _HALF), "not negative"),
    Case("likelihoods.expected_log_prob", "variance",
          lambda: _expected(variance=ONES[:3]), r"\(n,\)"),
    Case("likelihoods.expected_log_prob", "mean",
          lambda: _expected(mean=_NAN), "finite"),
    Case("likelihoods.expected_log_prob", "mean",
          lambda: _expected(mean=0.0, variance=1.0), r"\(n,\)"),
    Case("likelihoods.expected_log_prob", "mean",
          lambda: _expected(mean=1j * ONES), "real"),
    Case("likelihoods.expected_log_prob", "y",
          lambda: _expected(y=LABELS[:3]), r"shape \(3,\)"),
    Case("likelihoods.expected_log_prob", "y",
          lambda: _expected(y=2 * LABELS), "support"),
    Case("likelihoods.expected_log_prob", "y",
          lambda: _jitted(lambda y: _expected(y=y), 2 * LABELS), "support"),
    Case("likelihoods.expected_log_prob", "likelihood",
          lambda: _expected(likelihood=jnp.exp), "NumPyro"),
    Case("likelihoods.expected_log_prob", "likelihood",
          lambda: _expected(likelihood=None), "function"),
    Case("likelihoods.expected_log_prob", "likelihood",
          lambda: _expected(likelihood=dist.Bernoulli(0.5)), "function"),
    Case("likelihoods.expected_log_prob", "key",
          lambda: _three(), "need a key"),
    Case("likelihoods.expected_log_prob", "key",
          lambda: _three(key=jax.random.split(jax.random.key(0))), "one PRNG key"),
    Case("likelihoods.expected_log_prob", "num_samples",
          lambda: _three(key=jax.random.key(0), num_samples=0), "at least 1"),
    Case("likelihoods.expected_log_prob", "num_samples",
          lambda: _three(key=jax.random.key(0), num_samples=2.5), "integer"),
    Case("likelihoods.log_predictive_prob", "variance",
          lambda: _predictive(variance=_HALF), "negative"),
    Case("likelihoods.log_predictive_prob", "mean",
          lambda: _predictive(mean=_NAN), "finite"),
    Case("likelihoods.log_predictive_prob", "y",
          lambda: _predictive(y=_NAN), "support"),
    Case("likelihoods.log_predictive_prob", "variance",
          lambda: _predictive(likelihood=likelihoods.Gaussian(0.1), variance=-ONES),
          "not negative"),
)  # fmt: skip

_LAPLACE = (
    Case("gp.laplace", "solver", lambda: _laplace(solver="cholesky"), '"dense"'),
    Case("gp.laplace", "solver", lambda: _laplace(solver="cg"), "Grid"),
    Case("gp.laplace", "throw", lambda: _laplace(throw="yes"), "True or False"),
    Case("gp.laplace", "noise_var", lambda: _laplace(prior=_prior(0.1)), "likelihood"),
    Case("gp.laplace", "prior", lambda: _laplace(prior=kernels.RBF(jnp.asarray(0.5))), "gp.GP"),
    Case("gp.laplace", "y", lambda: _laplace(y=LABELS[:3]), r"shape \(5,\)"),
    Case("gp.laplace", "y", lambda: _laplace(y=2 * LABELS), "support"),
    Case("gp.laplace", "y", lambda: _laplace(y=_NAN), "NaN"),
    Case("gp.laplace", "y",
          lambda: _jitted(lambda y: _laplace(y=y).log_evidence(), 2 * LABELS), "support"),
    Case("gp.laplace", "x", lambda: _laplace(x=X[None, :, None]), r"\(n, d\)"),
    Case("gp.laplace", "x", lambda: _laplace(x=np.where(X > 0.5, np.nan, X)), "NaN"),
    Case("gp.laplace", "mask", lambda: _laplace(mask=np.ones(3, bool)), r"shape \(5,\)"),
    Case("gp.laplace", "mask", lambda: _laplace(mask=np.zeros(N, bool)), "True"),
    Case("gp.laplace", "mask", lambda: _laplace(mask=ONES), "booleans"),
    Case("gp.laplace", "likelihood", lambda: _laplace(likelihood=jnp.exp), "NumPyro"),
    Case("gp.laplace", "likelihood", lambda: _laplace(likelihood="bernoulli"), "function"),
    Case("gp.laplace", "max_steps", lambda: _laplace(max_steps=0), "at least 1"),
    Case("gp.laplace", "max_steps", lambda: _laplace(max_steps=2.5), "integer"),
    Case("gp.laplace", "rtol", lambda: _laplace(rtol=-1.0), "positive"),
    Case("gp.laplace", "cg_rtol", lambda: _laplace(cg_rtol=np.nan), "positive"),
    Case("gp.laplace", "cg_max_steps", lambda: _laplace(cg_max_steps=0), "at least 1"),
    Case("gp.LaplacePosterior.evidence_bounds", "evidence_bounds",
          lambda: _posterior().evidence_bounds(), "Grid"),
    Case("gp.LaplacePosterior.sample", "key", lambda: _posterior().sample(0, X), "PRNG key"),
)  # fmt: skip

_MINIMISE = (
    Case("gp.minimise", "params", lambda: _minimise(params={"a": 1}), "no floating-point array"),
    Case("gp.minimise", "params",
         lambda: _minimise(params=_prior(X), trainable=lambda p: p.noise_var), "zeros"),
    Case("gp.minimise", "objective", lambda: _minimise(objective=lambda p: p(X).mean), "scalar"),
    Case("gp.minimise", "objective", lambda: _minimise(objective=lambda p: jnp.nan * p.noise_var),
          "at every start"),
    Case("gp.minimise", "objective", lambda: _minimise(objective=1.0), "function"),
    Case("gp.minimise", "objective", lambda: _minimise(objective=lambda p: 1), "floating"),
    Case("gp.minimise", "key", lambda: _minimise(restarts=2), "need a key"),
    Case("gp.minimise", "key", lambda: _minimise(restarts=2, key=3), "one PRNG key"),
    Case("gp.minimise", "restarts", lambda: _minimise(restarts=0), "at least 1"),
    Case("gp.minimise", "restarts", lambda: _minimise(restarts=1.5), "integer"),
    Case("gp.minimise", "max_steps", lambda: _minimise(max_steps=-1), "at least 0"),
    Case("gp.minimise", "max_steps", lambda: _minimise(max_steps="many"), "integer"),
    Case("gp.minimise", "rtol", lambda: _minimise(rtol=-1e-6), "from 0"),
    Case("gp.minimise", "rtol", lambda: _minimise(rtol=np.nan), "from 0"),
    Case("gp.minimise", "restart_scale", lambda: _minimise(restart_scale=-1.0), "from 0"),
    Case("gp.minimise", "trainable",
          lambda: _minimise(trainable=lambda p: p.lengthscale), "node of params"),
    Case("gp.minimise", "trainable", lambda: _minimise(trainable="kernel"), "function"),
    Case("gp.minimise", "params", lambda: _minimise(trainable=lambda p: []), "no floating-point"),
)  # fmt: skip

CASES = _DISTRIBUTIONS + _LIKELIHOODS + _LAPLACE + _MINIMISE
