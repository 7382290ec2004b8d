"""Mistakes in the use of state-space models."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

import bayesjx
from benchmarks.bad_input._case import Case

kernels: Any = bayesjx.kernels  # which are called against their types here
ssm: Any = bayesjx.ssm
N = 5
TIMES = np.arange(N) / 2
Y = np.sin(TIMES)
COUNTS = np.array([1, 0, 3, 2, 1])
PLACES = np.array([[0.0, 0.3], [1.0, 0.1], [0.4, 0.9]])
FIELD = np.outer(Y, [1.0, 0.5, -0.5])
MIXING = np.array([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.1]])
KERNEL = kernels.Matern32(1.0)
PAIR = (kernels.Matern32(1.0), kernels.Matern12(2.0))
NAN = np.where(np.arange(N) == 2, np.nan, Y)


def _law(**changed: Any) -> Any:
    given: dict[str, Any] = {"kernel": KERNEL, "times": TIMES, "noise": 0.1, **changed}
    return ssm.MarkovGP(given.pop("kernel"), given.pop("times"), given.pop("noise"), **given)


def _posterior() -> Any:
    return _law().condition(Y)


def _poisson(f: jax.Array) -> dist.Poisson:
    return dist.Poisson(jnp.exp(f))


def _approximate(**changed: Any) -> Any:
    prior = changed.pop("prior", None)
    prior = ssm.MarkovGP(KERNEL, TIMES) if prior is None else prior
    y, likelihood = changed.pop("y", COUNTS), changed.pop("likelihood", _poisson)
    return ssm.approximate(prior, y, likelihood, **changed)


def _updates(**changed: Any) -> Any:
    return ssm.site_updates(ssm.MarkovGP(KERNEL, TIMES), COUNTS, _poisson, **changed)


def _field(**changed: Any) -> Any:
    given: dict[str, Any] = {"space_kernel": kernels.RBF(1.0), "time_kernel": KERNEL}
    given |= {"places": PLACES, "times": TIMES, "noise": 0.1, **changed}
    return ssm.SpaceTimeGP(**given)


def _traced_times(times: Any) -> Any:
    return eqx.filter_jit(lambda t: _law(times=t).log_prob(Y))(jnp.asarray(times))


def _case(function: str, argument: str, expected: str, call: Callable[[], object]) -> Case:
    def quietly() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return jax.block_until_ready(call())

    return Case(f"ssm.{function}", argument, quietly, expected)


_PROCESS = (
    ("kernel", "kernel or a state space", lambda: _law(kernel="matern")),
    ("kernel", "sequence of q kernels", lambda: _law(kernel=KERNEL, mixing=MIXING)),
    ("kernel", "sequence of q kernels", lambda: _law(kernel=PAIR, mixing=MIXING.T)),
    ("kernel", "kernel or a state space", lambda: _law(kernel=list(PAIR))),
    ("times", r"shape \(n,\)", lambda: _law(times=TIMES[:, None])),
    ("times", r"shape \(n,\)", lambda: _law(times=1.0)),
    ("times", "empty", lambda: _law(times=np.zeros(0))),
    ("times", "NaN or infinite", lambda: _law(times=NAN)),
    ("times", "NaN or infinite", lambda: _law(times=np.array([0.0, 1.0, np.inf]))),
    ("times", "real numbers", lambda: _law(times=np.arange("2020", "2025", dtype="datetime64[Y]"))),
    ("times", "real numbers", lambda: _law(times=np.array(["a", "b"]))),
    ("times", "real numbers", lambda: _law(times=TIMES + 1j)),
    ("times", "exact to", lambda: _law(times=np.float32(1e7) + np.arange(9, dtype=np.float32))),
    ("times", "in order", lambda: _traced_times(TIMES[::-1].copy())),
    ("times", "finite", lambda: _traced_times(NAN)),
    ("noise", "not be negative", lambda: _law(noise=-0.1)),
    ("noise", "not be negative or NaN", lambda: _law(noise=np.nan)),
    ("noise", "scalar or have shape", lambda: _law(noise=np.ones(3))),
    ("noise", "scalar or have shape", lambda: _law(noise=np.eye(N))),
    ("noise", "a number", lambda: _law(noise="small")),
    ("noise", "a number", lambda: _law(noise=None)),
    ("mean", "scalar or have shape", lambda: _law(mean=np.ones(3))),
    ("mean", "a number", lambda: _law(mean=lambda t: t)),
    ("mean", "NaN", lambda: _law(mean=np.nan)),
    ("mask", "booleans of shape", lambda: _law(mask=np.ones(N))),
    ("mask", "booleans of shape", lambda: _law(mask=np.ones(3, bool))),
    ("mask", "booleans of shape", lambda: _law(mask=[1, 0, 1, 1, 1])),
    ("mixing", "finite", lambda: _law(kernel=PAIR, mixing=MIXING * np.nan)),
    ("mixing", r"shape \(p, q\)", lambda: _law(kernel=PAIR, mixing=MIXING[0])),
    ("slopes", "booleans of shape", lambda: _law(slopes=np.ones(3, bool))),
    ("slopes", "one output", lambda: _law(kernel=PAIR, mixing=MIXING, slopes=TIMES > 1)),
    ("Matern12", "no derivative", lambda: _law(kernel=PAIR[1], slopes=TIMES > 1)),
    ("backend", "must be one of", lambda: _law(backend="fast")),
    ("backend", "equally spaced", lambda: _law(backend="steady", times=TIMES**2)),
    ("backend", "without missing", lambda: _law(backend="steady", mask=TIMES > 1)),
    ("harmonics", "positive integer", lambda: _law(harmonics=0)),
    ("harmonics", "positive integer", lambda: _law(kernel=kernels.Periodic(2.0), harmonics=2.5)),
)
_VALUES = (
    ("value", r"shape \(..., 5\)", lambda: _law().log_prob(Y[1:])),
    ("value", r"shape \(..., 5\)", lambda: _law().log_prob(1.0)),
    ("value", "pass mask=", lambda: _law().log_prob(NAN)),
    ("value", "numbers", lambda: _law().log_prob("y")),
    ("value", "numbers", lambda: _law().log_prob(Y + 1j)),
)
_CONDITION = (
    ("value", "must have shape", lambda: _law().condition(Y[:, None])),
    ("value", "pass mask=", lambda: _law().condition(NAN)),
    ("value", "numbers", lambda: _law().condition(None)),
)
_SAMPLE = (
    ("key", "one PRNG key", lambda: _law().sample(0)),
    ("key", "one PRNG key", lambda: _law().sample(None)),
    ("sample_shape", "tuple", lambda: _law().sample(jax.random.key(0), 3)),
)
_POSTERIOR = (
    ("moments", "times", r"shape \(m,\)", lambda: _posterior().moments(TIMES[:, None])),
    ("moments", "times", "not empty", lambda: _posterior().moments(np.zeros(0))),
    ("moments", "times", "NaN", lambda: _posterior().moments(NAN)),
    ("moments", "times", "real numbers", lambda: _posterior().moments(np.array(["a"]))),
    ("moments", "term", "one of the 1", lambda: _posterior().moments(term=1)),
    ("moments", "term", "one of the 1", lambda: _posterior().moments(term=-1)),
    ("moments", "term", "integer", lambda: _posterior().moments(term=0.5)),
    ("predict", "noise", "not be negative", lambda: _posterior().predict(TIMES, -1.0)),
    ("predict", "noise", "scalar or have shape", lambda: _posterior().predict(TIMES, np.ones(3))),
    ("predict", "mean", "scalar or have shape", lambda: _posterior().predict(TIMES, 1.0, Y[1:])),
    ("predict", "predict", "approximation", lambda: _approximate().posterior.predict(TIMES, 0.1)),
    (
        "leave_one_out",
        "leave_one_out",
        "approximation",
        lambda: _approximate().posterior.leave_one_out(),
    ),
    ("sample", "key", "one PRNG key", lambda: _posterior().sample(0, TIMES)),
    ("sample", "shape", "tuple", lambda: _posterior().sample(jax.random.key(0), TIMES, 3)),
    ("sample", "times", "not empty", lambda: _posterior().sample(jax.random.key(0), [])),
    (
        "means_given",
        "values",
        r"\(k, 5\)",
        lambda: _posterior().means_given(jnp.zeros((2, 3)), TIMES),
    ),
    (
        "combinations",
        "rows",
        r"shape \(q, 2\)",
        lambda: _posterior().combinations(jnp.ones((1, 3)), TIMES),
    ),
)
_APPROXIMATE = (
    ("prior", "MarkovGP", lambda: _approximate(prior=KERNEL)),
    ("prior", "no noise", lambda: _approximate(prior=_law())),
    ("prior", "slopes", lambda: _approximate(prior=_law(noise=0.0, slopes=TIMES > 1))),
    ("backend", "no sites", lambda: _approximate(prior=_law(noise=0.0, backend="steady"))),
    ("y", "must have shape", lambda: _approximate(y=COUNTS[1:])),
    ("y", "outside of the support", lambda: _approximate(y=-COUNTS)),
    ("y", "outside of the support", lambda: _approximate(y=COUNTS + 0.5)),
    ("y", "outside of the support", lambda: _approximate(y=NAN)),
    ("y", "numbers", lambda: _approximate(y=np.array(list("abcde")))),
    ("likelihood", "NumPyro distribution", lambda: _approximate(likelihood=lambda f: f)),
    ("likelihood", "function", lambda: _approximate(likelihood=dist.Poisson(1.0))),
    ("likelihood", "function", lambda: _approximate(likelihood="poisson")),
    (
        "likelihood",
        "one for each",
        lambda: _approximate(likelihood=lambda f: dist.Poisson(jnp.exp(f[1:]))),
    ),
    (
        "likelihood",
        "one for each",
        lambda: _approximate(likelihood=lambda f: dist.Poisson(jnp.exp(f)).to_event(1)),
    ),
    (
        "likelihood",
        "values of shape",
        lambda: _approximate(likelihood=lambda f: dist.Poisson(np.ones(3) * jnp.exp(f))),
    ),
    (
        "likelihood",
        "mean and variance",
        lambda: _approximate(
            method="pl", likelihood=lambda f: dist.ImproperUniform(dist.constraints.real, (5,), ())
        ),
    ),
    ("method", "one of", lambda: _approximate(method="laplace")),
    ("method", "one of", lambda: _approximate(method=None)),
    ("rate", r"in \(0, 1\]", lambda: _approximate(rate=0.0)),
    ("rate", r"in \(0, 1\]", lambda: _approximate(rate=1.5)),
    ("rate", r"in \(0, 1\]", lambda: _approximate(rate="fast")),
    ("power", r"in \(0, 1\]", lambda: _approximate(method="ep", power=2.0)),
    ("power", r"in \(0, 1\]", lambda: _approximate(method="ep", power=np.nan)),
    ("residual", "not be negative", lambda: _approximate(residual=-0.1)),
    ("residual", "scalar or have shape", lambda: _approximate(residual=np.ones(3))),
    ("max_steps", "positive integer", lambda: _approximate(max_steps=0)),
    ("max_steps", "positive integer", lambda: _approximate(max_steps=2.5)),
    ("tolerance", "positive", lambda: _approximate(tolerance=-1.0)),
    ("tolerance", "positive", lambda: _approximate(tolerance="small")),
)
_PREDICTIVE = (
    ("times", "not empty", lambda: _approximate().log_predictive_prob([], [])),
    ("y", "must have shape", lambda: _approximate().log_predictive_prob(TIMES, COUNTS[1:])),
    ("y", "outside of the support", lambda: _approximate().log_predictive_prob(TIMES, -COUNTS)),
    ("mean", "scalar or", lambda: _approximate().log_predictive_prob(TIMES, COUNTS, Y[1:])),
)
_SITES = (
    ("method", "one of", lambda: _updates(method="newton")),
    ("rate", r"in \(0, 1\]", lambda: _updates(rate=-1.0)),
    ("power", r"in \(0, 1\]", lambda: _updates(method="ep", power=0.0)),
)
_FIELDS = (
    ("space_kernel", "kernel", lambda: _field(space_kernel=1.0)),
    ("kernel", "kernel or a state space", lambda: _field(time_kernel=None)),
    ("RBF", "no state space", lambda: _field(time_kernel=kernels.RBF(1.0))),
    ("places", "NaN or infinite", lambda: _field(places=PLACES * np.nan)),
    ("places", r"shape \(n, d\)", lambda: _field(places=PLACES[None])),
    ("places", "empty", lambda: _field(places=PLACES[:0])),
    ("times", "empty", lambda: _field(times=TIMES[:0])),
    ("noise", "not be negative", lambda: _field(noise=-1.0)),
    ("noise", "scalar or have shape", lambda: _field(noise=np.ones(4))),
    ("mask", "booleans of shape", lambda: _field(mask=np.ones((3, N), bool))),
    ("inducing", "same dimension", lambda: _field(inducing=PLACES[:2, :1])),
    ("inducing", "NaN or infinite", lambda: _field(inducing=PLACES * np.nan)),
    ("value", "must have shape", lambda: _field().log_prob(FIELD.T)),
    ("value", "pass mask=", lambda: _field().log_prob(FIELD * np.nan)),
    ("value", "must have shape", lambda: _field().condition(FIELD.T)),
    ("inducing", "draws need", lambda: _field(inducing=PLACES[:2]).sample(jax.random.key(0))),
    ("sample_shape", "tuple", lambda: _field().sample(jax.random.key(0), 3)),
    ("places", "same dimension", lambda: _field().condition(FIELD).moments(TIMES, PLACES[:, :1])),
    ("times", "not empty", lambda: _field().condition(FIELD).moments([], PLACES)),
)
_SPACES = (
    ("RBF", "Matern72 is the smoothest", lambda: ssm.state_space(kernels.RBF(1.0))),
    ("White", "noise of the observations", lambda: ssm.state_space(KERNEL + kernels.White(0.1))),
    ("lengthscale", "scalar", lambda: ssm.state_space(kernels.Matern32(np.ones(2)))),
    ("period", "scalar", lambda: ssm.state_space(kernels.Cosine(np.ones(2)))),
    ("kernel", "one coordinate", lambda: ssm.state_space(KERNEL.on(1))),
    ("kernel", "must be a kernel", lambda: ssm.state_space("matern")),
    ("harmonics", "positive integer", lambda: ssm.state_space(kernels.Periodic(1.0), -1)),
    ("harmonics", "positive integer", lambda: ssm.state_space(kernels.Periodic(1.0), True)),
)

CASES: tuple[Case, ...] = (
    *(_case("MarkovGP", name, text, call) for name, text, call in _PROCESS),
    *(_case("MarkovGP.log_prob", name, text, call) for name, text, call in _VALUES),
    *(_case("MarkovGP.condition", name, text, call) for name, text, call in _CONDITION),
    *(_case("MarkovGP.sample", name, text, call) for name, text, call in _SAMPLE),
    *(_case(f"MarkovPosterior.{of}", name, text, call) for of, name, text, call in _POSTERIOR),
    *(_case("approximate", name, text, call) for name, text, call in _APPROXIMATE),
    *(
        _case("MarkovApproximation.log_predictive_prob", name, text, call)
        for name, text, call in _PREDICTIVE
    ),
    *(_case("site_updates", name, text, call) for name, text, call in _SITES),
    *(_case("SpaceTimeGP", name, text, call) for name, text, call in _FIELDS),
    *(_case("state_space", name, text, call) for name, text, call in _SPACES),
)
