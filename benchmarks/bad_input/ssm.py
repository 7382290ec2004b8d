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
LOCATIONS = np.array([[0.0, 0.3], [1.0, 0.1], [0.4, 0.9]])
FIELD = np.outer(Y, [1.0, 0.5, -0.5])
MIXING = np.array([[1.0, 0.3], [-0.5, 0.8], [0.2, -1.1]])
KERNEL = kernels.Matern32(1.0)
PAIR = (kernels.Matern32(1.0), kernels.Matern12(2.0))
NAN = np.where(np.arange(N) == 2, np.nan, Y)


def _process(**changed: Any) -> Any:
    given: dict[str, Any] = {"kernel": KERNEL, "times": TIMES, "noise_var": 0.1, **changed}
    return ssm.MarkovGP(given.pop("kernel"), given.pop("times"), **given)


def _posterior() -> Any:
    return _process().condition(Y)


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
    given |= {"locations": LOCATIONS, "times": TIMES, "noise_var": 0.1, **changed}
    return ssm.SpaceTimeGP(**given)


def _traced_times(times: Any) -> Any:
    return eqx.filter_jit(lambda t: _process(times=t).log_prob(Y))(jnp.asarray(times))


def _case(function: str, argument: str, expected: str, call: Callable[[], object]) -> Case:
    def quietly() -> object:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return jax.block_until_ready(call())

    return Case(f"ssm.{function}", argument, quietly, expected)


_PROCESSES = (
    ("kernel", "kernel or a state space", lambda: _process(kernel="matern")),
    ("kernel", "sequence of q kernels", lambda: _process(kernel=KERNEL, mixing=MIXING)),
    ("kernel", "sequence of q kernels", lambda: _process(kernel=PAIR, mixing=MIXING.T)),
    ("kernel", "kernel or a state space", lambda: _process(kernel=list(PAIR))),
    ("times", r"shape \(n,\)", lambda: _process(times=TIMES[:, None])),
    ("times", r"shape \(n,\)", lambda: _process(times=1.0)),
    ("times", "empty", lambda: _process(times=np.zeros(0))),
    ("times", "NaN or infinite", lambda: _process(times=NAN)),
    ("times", "NaN or infinite", lambda: _process(times=np.array([0.0, 1.0, np.inf]))),
    (
        "times",
        "real numbers",
        lambda: _process(times=np.arange("2020", "2025", dtype="datetime64[Y]")),
    ),
    ("times", "real numbers", lambda: _process(times=np.array(["a", "b"]))),
    ("times", "real numbers", lambda: _process(times=TIMES + 1j)),
    ("times", "exact to", lambda: _process(times=np.float32(1e7) + np.arange(9, dtype=np.float32))),
    ("times", "in order", lambda: _traced_times(TIMES[::-1].copy())),
    ("times", "finite", lambda: _traced_times(NAN)),
    ("noise_var", "not be negative", lambda: _process(noise_var=-0.1)),
    ("noise_var", "not be negative or NaN", lambda: _process(noise_var=np.nan)),
    ("noise_var", "scalar or have shape", lambda: _process(noise_var=np.ones(3))),
    ("noise_var", "scalar or have shape", lambda: _process(noise_var=np.eye(N))),
    ("noise_var", "a number", lambda: _process(noise_var="small")),
    ("noise_var", "a number", lambda: _process(noise_var=None)),
    ("mean", "scalar or have shape", lambda: _process(mean=np.ones(3))),
    ("mean", "to a number", lambda: _process(mean=lambda t: jnp.ones(2))),
    ("mean", "NaN", lambda: _process(mean=np.nan)),
    ("mask", "booleans of shape", lambda: _process(mask=np.ones(N))),
    ("mask", "booleans of shape", lambda: _process(mask=np.ones(3, bool))),
    ("mask", "booleans of shape", lambda: _process(mask=[1, 0, 1, 1, 1])),
    ("mixing", "finite", lambda: _process(kernel=PAIR, mixing=MIXING * np.nan)),
    ("mixing", r"shape \(p, q\)", lambda: _process(kernel=PAIR, mixing=MIXING[0])),
    ("slopes", "booleans of shape", lambda: _process(slopes=np.ones(3, bool))),
    ("slopes", "one output", lambda: _process(kernel=PAIR, mixing=MIXING, slopes=TIMES > 1)),
    ("Matern12", "no derivative", lambda: _process(kernel=PAIR[1], slopes=TIMES > 1)),
    ("backend", "must be one of", lambda: _process(backend="fast")),
    ("backend", "equally spaced", lambda: _process(backend="steady", times=TIMES**2)),
    ("backend", "without missing", lambda: _process(backend="steady", mask=TIMES > 1)),
    ("harmonics", "positive integer", lambda: _process(harmonics=0)),
    (
        "harmonics",
        "positive integer",
        lambda: _process(kernel=kernels.Periodic(2.0), harmonics=2.5),
    ),
)
_VALUES = (
    ("value", r"shape \(..., 5\)", lambda: _process().log_prob(Y[1:])),
    ("value", r"shape \(..., 5\)", lambda: _process().log_prob(1.0)),
    ("value", "pass mask=", lambda: _process().log_prob(NAN)),
    ("value", "numbers", lambda: _process().log_prob("y")),
    ("value", "numbers", lambda: _process().log_prob(Y + 1j)),
)
_CONDITION = (
    ("y", "must have shape", lambda: _process().condition(Y[:, None])),
    ("value", "pass mask=", lambda: _process().condition(NAN)),
    ("y", "numbers", lambda: _process().condition(None)),
)
_SAMPLE = (
    ("key", "one PRNG key", lambda: _process().sample(0)),
    ("key", "one PRNG key", lambda: _process().sample(None)),
    ("sample_shape", "tuple", lambda: _process().sample(jax.random.key(0), 3)),
)
_POSTERIOR = (
    ("moments", "x", r"shape \(m,\)", lambda: _posterior().moments(TIMES[:, None])),
    ("moments", "x", "not empty", lambda: _posterior().moments(np.zeros(0))),
    ("moments", "x", "NaN", lambda: _posterior().moments(NAN)),
    ("moments", "x", "real numbers", lambda: _posterior().moments(np.array(["a"]))),
    ("moments", "term", "one of the 1", lambda: _posterior().moments(term=1)),
    ("moments", "term", "one of the 1", lambda: _posterior().moments(term=-1)),
    ("moments", "term", "integer", lambda: _posterior().moments(term=0.5)),
    (
        "predict",
        "noise_var",
        "not be negative",
        lambda: _posterior().predict(TIMES, noise_var=-1.0),
    ),
    (
        "predict",
        "noise_var",
        "scalar or have shape",
        lambda: _posterior().predict(TIMES, noise_var=np.ones(3)),
    ),
    (
        "predict",
        "noise_var",
        "must be given",
        lambda: _process(noise_var=np.ones(N)).condition(Y).predict(TIMES),
    ),
    ("mean", "mean", "number or as a function", lambda: _process(mean=Y).condition(Y).mean(TIMES)),
    ("predict", "predict", "approximation", lambda: _approximate().posterior.predict(TIMES)),
    (
        "leave_one_out",
        "leave_one_out",
        "approximation",
        lambda: _approximate().posterior.leave_one_out(),
    ),
    ("sample", "key", "one PRNG key", lambda: _posterior().sample(0, TIMES)),
    ("sample", "sample_shape", "tuple", lambda: _posterior().sample(jax.random.key(0), TIMES, 3)),
    ("sample", "x", "not empty", lambda: _posterior().sample(jax.random.key(0), [])),
    (
        "combinations",
        "rows",
        r"shape \(q, 2\)",
        lambda: _posterior().combinations(jnp.ones((1, 3)), TIMES),
    ),
)
_APPROXIMATE = (
    ("prior", "MarkovGP", lambda: _approximate(prior=KERNEL)),
    ("prior", "no noise", lambda: _approximate(prior=_process())),
    ("prior", "slopes", lambda: _approximate(prior=_process(noise_var=0.0, slopes=TIMES > 1))),
    ("backend", "no sites", lambda: _approximate(prior=_process(noise_var=0.0, backend="steady"))),
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
    ("residual_var", "not be negative", lambda: _approximate(residual_var=-0.1)),
    ("residual_var", "scalar or have shape", lambda: _approximate(residual_var=np.ones(3))),
    ("max_steps", "positive integer", lambda: _approximate(max_steps=0)),
    ("max_steps", "positive integer", lambda: _approximate(max_steps=2.5)),
    ("atol", "positive", lambda: _approximate(atol=-1.0)),
    ("atol", "positive", lambda: _approximate(atol="small")),
)
_PREDICTIVE = (
    ("x", "not empty", lambda: _approximate().log_predictive_prob([], [])),
    ("y", "must have shape", lambda: _approximate().log_predictive_prob(TIMES, COUNTS[1:])),
    ("y", "outside of the support", lambda: _approximate().log_predictive_prob(TIMES, -COUNTS)),
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
    ("locations", "NaN or infinite", lambda: _field(locations=LOCATIONS * np.nan)),
    ("locations", r"shape \(n, d\)", lambda: _field(locations=LOCATIONS[None])),
    ("locations", "empty", lambda: _field(locations=LOCATIONS[:0])),
    ("times", "empty", lambda: _field(times=TIMES[:0])),
    ("noise_var", "not be negative", lambda: _field(noise_var=-1.0)),
    ("noise_var", "scalar or have shape", lambda: _field(noise_var=np.ones(4))),
    ("mask", "booleans of shape", lambda: _field(mask=np.ones((3, N), bool))),
    ("inducing_points", "same dimension", lambda: _field(inducing_points=LOCATIONS[:2, :1])),
    ("inducing_points", "NaN or infinite", lambda: _field(inducing_points=LOCATIONS * np.nan)),
    ("value", "must have shape", lambda: _field().log_prob(FIELD.T)),
    ("value", "pass mask=", lambda: _field().log_prob(FIELD * np.nan)),
    ("y", "must have shape", lambda: _field().condition(FIELD.T)),
    (
        "inducing_points",
        "draws need",
        lambda: _field(inducing_points=LOCATIONS[:2]).sample(jax.random.key(0)),
    ),
    ("sample_shape", "tuple", lambda: _field().sample(jax.random.key(0), 3)),
    (
        "locations",
        "same dimension",
        lambda: _field().condition(FIELD).moments((TIMES, LOCATIONS[:, :1])),
    ),
    ("x", "not empty", lambda: _field().condition(FIELD).moments(([], LOCATIONS))),
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
    *(_case("MarkovGP", name, text, call) for name, text, call in _PROCESSES),
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
