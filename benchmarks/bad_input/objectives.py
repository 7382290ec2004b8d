"""Mistakes in calls of objectives, bounds, strategies, baselines and what reports on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax

import bayesjx
from benchmarks.bad_input._case import Case, COUNT

vi: Any = bayesjx.vi  # the mistakes are not for the type checker

_NAN = float("nan")


def _key() -> jax.Array:
    return jax.random.key(0)


def _p() -> jax.Array:
    return jnp.array([0.3, -0.2])


def _model(p: Any) -> None:
    z = numpyro.sample("z", dist.Normal(0.0, 1.0))
    numpyro.sample("y", dist.Normal(z, 1.0), obs=jnp.array(0.5))


def _guide(p: Any) -> None:
    numpyro.sample("z", dist.Normal(p[0], 1.0))


def _with_auxiliary(p: Any) -> None:
    a = numpyro.sample("a", dist.Normal(p[0], 1.0))
    numpyro.sample("z", dist.Normal(a, 1.0))


def _discrete(d: Callable[[], Any]) -> Callable[..., Any]:
    """A guide with one site."""

    def guide(p: Any) -> None:
        numpyro.sample("z", d())

    return guide


def _rows(p: Any) -> None:
    with numpyro.plate("rows", 3):
        numpyro.sample("z", dist.Normal(p[0], 1.0))


def _step(p: Any, state: Any, y: Any) -> Any:
    x = numpyro.sample("x", dist.Normal(state, 1.0))
    numpyro.sample("y", dist.Normal(x, 1.0), obs=y)
    return x


def _sum_step(p: Any, state: Any, y: Any) -> Any:
    return _step(p, jnp.sum(state), y)


def _bound() -> Any:
    return vi.elbo(_model, _guide)


def _estimate(bound: Any) -> Any:
    return bound.estimate(_key(), _p())


def _gradient(bound: vi.Objective, **options: Any) -> Any:
    return bound.value_and_grad(_key(), _p(), **options)


def _run(fn: Callable[[Any], Any]) -> Any:
    return vi.expectation(fn).estimate(_key(), _p())


def _particles(p: Any) -> Any:
    return vi.particles(3)(lambda: vi.simulate(_guide, p)[1])()


def _fivo(ys: Any = None, **options: Any) -> Any:
    ys = jnp.arange(3.0) if ys is None else ys
    return vi.fivo(_step, None, **options).estimate(_key(), None, jnp.zeros(()), ys)


def _fit(**options: Any) -> Any:
    given = {"objective": _bound(), "params": _p(), "optimizer": optax.sgd(0.1)} | options
    return vi.fit(_key(), num_steps=2, **given)


def _data() -> Any:
    return np.random.default_rng(0).normal(size=(7, 3))


def _bernoulli() -> Any:
    return dist.Bernoulli(0.3)


def _site(d: Callable[[], Any]) -> Callable[[], object]:
    """An estimate of a bound whose guide samples `d()`."""
    return lambda: _gradient(vi.elbo(_discrete(_bernoulli), _discrete(d)))


_TWO = jax.random.split
_BOUNDS: dict[str, Callable[..., Any]] = {
    "elbo": vi.elbo,
    "iwelbo": vi.iwelbo,
    "renyi": vi.renyi,
    "chi_square": vi.chi_square,
    "thermodynamic": vi.thermodynamic,
    "wake_model": vi.wake_model,
    "wake_guide": vi.wake_guide,
    "forward_kl": vi.forward_kl,
    "wake_posterior": vi.wake_posterior,
    "symmetric_kl": vi.symmetric_kl,
}
_FUNCTION = "must be a function"

_OF_BOUNDS = (
    *(Case(f"vi.{n}", "model", lambda f=f: f(3.0, _guide), _FUNCTION) for n, f in _BOUNDS.items()),
    *(
        Case(f"vi.{n}", "num_particles", lambda f=f: f(_model, _guide, num_particles=0), COUNT)
        for n, f in _BOUNDS.items()
        if n != "elbo"
    ),
    Case("vi.elbo", "guide", lambda: vi.elbo(_model, None), _FUNCTION),
    Case("vi.elbo", "entropy", lambda: vi.elbo(_model, _guide, "exact"), "one of .*'analytic'"),
    Case("vi.iwelbo", "gradient", lambda: vi.iwelbo(_model, _guide, gradient="drep"), "dreg"),
    Case("vi.iwelbo", "num_particles", lambda: vi.iwelbo(_model, _guide, 2.5), COUNT),
    Case("vi.iwelbo", "local_plate", lambda: vi.iwelbo(_model, _guide, 3, 2), "name of a plate"),
    Case(
        "vi.iwelbo",
        "plate",
        lambda: _estimate(vi.iwelbo(_rows, _rows, 3, "columns")),
        "outside that plate",
    ),
    Case("vi.renyi", "alpha", lambda: vi.renyi(_model, _guide, 1.0), "is the ELBO"),
    Case("vi.renyi", "alpha", lambda: vi.renyi(_model, _guide, _NAN), "finite number"),
    Case("vi.renyi", "alpha", lambda: vi.renyi(_model, _guide, "0.5"), "finite number"),
    Case("vi.chi_square", "order", lambda: vi.chi_square(_model, _guide, 0.5), "at least 1"),
    Case("vi.chi_square", "order", lambda: vi.chi_square(_model, _guide, _NAN), "finite number"),
    Case(
        "vi.thermodynamic",
        "inverse_temperatures",
        lambda: vi.thermodynamic(_model, _guide, inverse_temperatures=[0.0, 0.5]),
        "increase from 0 to 1",
    ),
    Case(
        "vi.thermodynamic",
        "inverse_temperatures",
        lambda: vi.thermodynamic(_model, _guide, inverse_temperatures=[0.0, _NAN, 1.0]),
        "increase from 0 to 1",
    ),
    Case(
        "vi.thermodynamic",
        "num_particles",
        lambda: vi.thermodynamic(_model, _guide, 1),
        "two particles or more",
    ),
    Case(
        "vi.sleep",
        "data",
        lambda: vi.sleep(_model, _guide, {"x": 0}).estimate(_key(), _p()),
        "no site 'x'",
    ),
    Case(
        "vi.sleep",
        "data",
        lambda: vi.sleep(_model, _guide, {"y": 3}).estimate(_key(), _p()),
        "1 positional argument",
    ),
    Case("vi.sleep", "data", lambda: vi.sleep(_model, _guide, ["y"]), "mapping"),
    Case("vi.sleep", "data", lambda: vi.sleep(_model, _guide, {"y": 0.5}), "position or name"),
    Case("vi.hvi", "keep", lambda: vi.hvi(_model, _with_auxiliary, ()), "at least one site"),
    Case("vi.hvi", "keep", lambda: _estimate(vi.hvi(_model, _with_auxiliary, "x")), "latent sites"),
    Case("vi.hvi", "proposal", lambda: vi.hvi(_model, _with_auxiliary, "z", "a"), _FUNCTION),
    Case("vi.iwhvi", "num_auxiliary", lambda: vi.iwhvi(_model, _with_auxiliary, "z", 0), COUNT),
    Case(
        "vi.diwhvi", "num_auxiliary", lambda: vi.diwhvi(_model, _with_auxiliary, "z", 2, -1), COUNT
    ),
    Case("vi.diwhvi", "num_particles", lambda: vi.diwhvi(_model, _with_auxiliary, "z", 0.5), COUNT),
    Case("vi.marginal", "keep", lambda: vi.marginal(_with_auxiliary, 3), "name of a site"),
    Case("vi.marginal", "program", lambda: vi.marginal(3, "z"), _FUNCTION),
    Case("vi.marginal", "algorithm", lambda: vi.marginal(_with_auxiliary, "z", 5), "vi.sir"),
    Case("vi.normalize", "algorithm", lambda: vi.normalize(_model, None), "vi.sir"),
    Case("vi.sir", "num_particles", lambda: vi.sir(True), COUNT),
    Case("vi.sir", "proposal", lambda: vi.sir(3, dist.Normal()), _FUNCTION),
    Case("vi.sir", "index_strategy", lambda: vi.sir(3, None, vi.enum), "instance of a strategy"),
    Case("vi.exact", "index_strategy", lambda: vi.exact("enum"), "instance of a strategy"),
    Case("vi.smc", "num_temperatures", lambda: vi.smc(3, num_temperatures=0), COUNT),
    Case("vi.smc", "step_size", lambda: vi.smc(3, step_size=-0.5), "positive"),
    Case("vi.smc", "step_size", lambda: vi.smc(3, step_size=_NAN), "positive"),
    Case("vi.fivo", "resampling", lambda: _fivo(resampling="multinomial"), "drop"),
    Case("vi.fivo", "threshold", lambda: _fivo(threshold=-0.1), "share of the particles"),
    Case("vi.fivo", "threshold", lambda: _fivo(threshold="half"), "finite number"),
    Case("vi.fivo", "num_particles", lambda: _fivo(num_particles=0), COUNT),
    Case("vi.fivo", "ys", lambda: _fivo(jnp.array(1.0)), "time steps"),
    Case("vi.fivo", "ys", lambda: _fivo(jnp.zeros((0,))), "time steps"),
    Case("vi.fivo", "model_step", lambda: vi.fivo(None), _FUNCTION),
    Case("vi.fivo", "guide_step", lambda: vi.fivo(_step, "bootstrap"), _FUNCTION),
    Case(
        "vi.fivo",
        "state",
        lambda: vi.fivo(_sum_step).estimate(_key(), None, jnp.zeros(2), jnp.arange(3.0)),
        "comes back as",
    ),
)

_OF_ESTIMATORS = (
    Case("vi.expectation", "function", lambda: vi.expectation(3), "takes a function"),
    Case("vi.Objective", "key", lambda: _bound().estimate(0, _p()), "one PRNG key"),
    Case("vi.Objective", "key", lambda: _bound().surrogate(_TWO(_key()), _p()), "one PRNG key"),
    Case("vi.Objective", "key", lambda: _bound().value_and_grad(_p(), _p()), "one PRNG key"),
    Case("vi.Objective", "num_draws", lambda: _gradient(_bound(), num_draws=0), COUNT),
    Case("vi.Objective", "num_draws", lambda: _gradient(_bound(), num_draws=2.5), COUNT),
    Case("vi.Objective", "argnums", lambda: _gradient(_bound(), argnums=1), "positions"),
    Case("vi.Objective", "argnums", lambda: _gradient(_bound(), argnums="p"), "positions"),
    Case(
        "vi.Objective",
        "argnums",
        lambda: _bound().value_and_grad(_key(), 3),
        "no floating-point array",
    ),
    Case("vi.expectation", "objective", lambda: _run(lambda p: p), "shape .*sum"),
    Case("vi.expectation", "objective", lambda: _run(lambda p: "bound"), "real scalar"),
    Case("vi.expectation", "objective", lambda: _run(lambda p: p[0] * 1j), "real scalar"),
    Case("vi.expectation", "objective", lambda: _run(lambda p: None), "NoneType"),
    Case(
        "vi.expectation",
        "has_aux",
        lambda: vi.expectation(lambda p: p[0], has_aux=True).estimate(_key(), _p()),
        "pair",
    ),
    Case("vi.simulate", "simulate", lambda: vi.simulate(_guide, _p()), "inside an objective"),
    Case("vi.simulate", "program", lambda: _run(lambda p: vi.simulate(3)[1]), _FUNCTION),
    Case("vi.draw", "draw", lambda: vi.draw(_guide, _p()), "inside an objective"),
    Case("vi.log_density", "program", lambda: vi.log_density(None, {}), _FUNCTION),
    Case("vi.log_density", "values", lambda: vi.log_density(_model, 3.0, _p()), "mapping"),
    Case("vi.log_density", "z", lambda: vi.log_density(_model, {}, _p()), "has no value"),
    Case("vi.log_density", "w", lambda: vi.log_density(_guide, {"z": 0.0, "w": 1.0}, _p()), "fit"),
    Case("vi.log_density", "z", lambda: vi.log_density(_rows, {"z": jnp.zeros(2)}, _p()), "shape"),
    Case("vi.sample", "num_samples", lambda: vi.sample(_key(), _guide, _p(), num_samples=0), COUNT),
    Case("vi.sample", "key", lambda: vi.sample(7, _guide, _p(), num_samples=3), "one PRNG key"),
    Case("vi.sample", "program", lambda: vi.sample(_key(), _p()), _FUNCTION),
    Case("vi.particles", "num_particles", lambda: vi.particles(-1), COUNT),
    Case(
        "vi.log_mean_exp",
        "log_mean_exp",
        lambda: _run(lambda p: vi.log_mean_exp(vi.simulate(_guide, p)[1])),
        "particles",
    ),
    Case(
        "vi.log_mean_exp",
        "cost",
        lambda: _run(lambda p: vi.log_mean_exp(jnp.zeros(3))),
        "vi.particles",
    ),
    Case(
        "vi.log_mean_exp",
        "plate",
        lambda: _run(lambda p: vi.log_mean_exp(_particles(p), "rows")),
        "outside that plate",
    ),
    Case("vi.Cost", "log_mean_exp", lambda: _run(lambda p: jnp.exp(_particles(p))), "particles"),
    Case(
        "vi.Cost",
        "log_mean_exp",
        lambda: _run(lambda p: jax.nn.logsumexp(_particles(p))),
        "sum the particles",
    ),
    Case("vi.Cost", "Cost", lambda: _run(lambda p: _particles(p) * _p()), "scalars only"),
    Case("vi.Cost", "Cost", lambda: _run(lambda p: np.exp(_particles(p))), "NumPy"),
    Case("vi.Cost", "Cost", lambda: _run(lambda p: np.mean(_particles(p))), "NumPy"),
    Case(
        "vi.Cost",
        "weight_sites",
        lambda: _run(lambda p: vi.simulate(_guide, p)[1].weight_sites({"x": 2.0})),
        "no term .*'x'",
    ),
    Case("vi.SVILoss", "objective", lambda: vi.SVILoss(_bound()), "function of model and guide"),
    Case("vi.SVILoss", "num_particles", lambda: vi.SVILoss(num_particles=0), COUNT),
    Case("vi.fit", "optimizer", lambda: _fit(optimizer=numpyro.optim.Adam(0.1)), "optax.adam"),
    Case("vi.fit", "optimizer", lambda: _fit(optimizer=optax.adam), "learning rate"),
    Case("vi.fit", "objective", lambda: _fit(objective=_model), "Objective"),
    Case("vi.fit", "params", lambda: _fit(params=jnp.arange(2)), "no floating-point array"),
    Case("vi.fit", "num_draws", lambda: _fit(num_draws=-1), COUNT),
    Case("vi.fit", "average", lambda: _fit(average=1.5), "decay in"),
    Case("vi.fit", "average", lambda: _fit(average="0.9"), "finite number"),
    Case("vi.fit", "data", lambda: _fit(data=3), "tuple"),
    Case("vi.prox_scale", "learning_rate", lambda: vi.prox_scale(0.0), "positive"),
    Case("vi.prox_scale", "learning_rate", lambda: vi.prox_scale(_NAN), "positive"),
    Case("vi.prox_scale", "learning_rate", lambda: vi.prox_scale("0.1"), "positive"),
    Case("vi.prox_scale", "is_scale", lambda: vi.prox_scale(0.1, "scale"), "function"),
    Case(
        "vi.prox_scale",
        "prox_scale",
        lambda: vi.prox_scale(0.1).init({"loc": jnp.zeros(2)}),
        "is a scale",
    ),
    Case(
        "vi.prox_scale",
        "prox_scale",
        lambda: vi.prox_scale(0.1).update({"scale": jnp.ones(1)}, vi.ProxScaleState(jnp.array(0))),
        "needs the parameters",
    ),
)

_OF_STRATEGIES = (
    Case("vi.EMA", "decay", lambda: vi.EMA(1.0), r"\[0, 1\)"),
    Case("vi.EMA", "decay", lambda: vi.EMA(_NAN), "finite number"),
    Case("vi.EMA", "decay", lambda: vi.EMA("0.9"), "number"),
    Case(
        "vi.reinforce",
        "baseline",
        _site(lambda: vi.reinforce(_bernoulli(), vi.EMA)),
        r"vi\.EMA\(\)",
    ),
    Case(
        "vi.reinforce",
        "baseline",
        _site(lambda: vi.reinforce(_bernoulli(), "mean")),
        r"vi\.EMA\(\)",
    ),
    Case(
        "vi.reinforce", "baseline", _site(lambda: vi.reinforce(_bernoulli(), jnp.zeros(5))), "shape"
    ),
    Case(
        "vi.LearnedBaseline",
        "prediction",
        _site(lambda: vi.reinforce(_bernoulli(), vi.LearnedBaseline(jnp.zeros(5)))),
        "shape",
    ),
    Case(
        "vi.LearnedBaseline",
        "prediction",
        _site(lambda: vi.reinforce(_bernoulli(), vi.LearnedBaseline("net"))),
        "number or array",
    ),
    Case(
        "vi.with_strategy", "strategy", lambda: vi.with_strategy(_bernoulli(), vi.enum), "instance"
    ),
    Case("vi.enum", "distribution", lambda: vi.enum(0.3), "NumPyro distribution"),
    Case("vi.enum", "z", _site(lambda: vi.enum(dist.Normal())), "continuous"),
    Case("vi.leg", "z", _site(lambda: vi.leg(dist.Poisson(2.0))), "infinite support"),
    Case("vi.mvd", "z", _site(lambda: vi.mvd(dist.Gamma(2.0, 1.0))), "Bernoulli, Poisson and"),
    Case("vi.disarm", "z", _site(lambda: vi.disarm(dist.Poisson(2.0))), "for Bernoulli sites"),
    Case("vi.reparam", "z", _site(lambda: vi.reparam(_bernoulli())), "no reparameterised"),
    Case("vi.straight_through", "z", _site(lambda: vi.straight_through(dist.Normal())), "relax"),
    Case("vi.rloo", "num_samples", lambda: vi.rloo(_bernoulli(), 1), "at least 2"),
    Case("vi.rloo", "num_samples", lambda: vi.rloo(_bernoulli(), 2.5), "an integer"),
    Case(
        "vi.gumbel_softmax",
        "temperature",
        lambda: vi.gumbel_softmax(_bernoulli(), -1.0),
        "positive",
    ),
    Case(
        "vi.gumbel_softmax",
        "temperature",
        lambda: vi.gumbel_softmax(_bernoulli(), _NAN),
        "positive",
    ),
    Case("vi.importance", "proposal", lambda: vi.importance(_bernoulli(), 0.5), "distribution"),
    Case(
        "vi.importance",
        "proposal",
        _site(lambda: vi.importance(_bernoulli(), dist.Bernoulli(0.5 * jnp.ones(3)))),
        "batch shape",
    ),
    Case(
        "vi.importance",
        "proposal",
        _site(lambda: vi.importance(_bernoulli(), dist.Normal(jnp.zeros(2)).to_event(1))),
        "event shape",
    ),
)

_OF_REPORTS = (
    Case(
        "vi.gradient_report",
        "objective",
        lambda: vi.gradient_report(_key(), _model, _p()),
        "Objective",
    ),
    Case(
        "vi.gradient_report",
        "num_draws",
        lambda: vi.gradient_report(_key(), _bound(), _p(), num_draws=1),
        "at least 2",
    ),
    Case(
        "vi.gradient_report", "key", lambda: vi.gradient_report(0, _bound(), _p()), "one PRNG key"
    ),
    Case(
        "vi.gradient_report",
        "sites",
        lambda: vi.gradient_report(_key(), _bound(), _p(), sites=["w"]),
        "no site is called w",
    ),
    Case(
        "vi.gradient_report",
        "alternatives",
        lambda: vi.gradient_report(_key(), _bound(), _p(), alternatives=[vi.enum]),
        "instance of a strategy",
    ),
    Case(
        "vi.gradient_report",
        "argnums",
        lambda: vi.gradient_report(_key(), _bound(), _p(), argnums=2),
        "positions",
    ),
    Case("vi.check_reparam", "objective", lambda: vi.check_reparam(_key(), 1.0, _p()), "Objective"),
    Case(
        "vi.check_reparam",
        "threshold",
        lambda: vi.check_reparam(_key(), _bound(), _p(), threshold=_NAN),
        "finite number",
    ),
    Case(
        "vi.check_reparam",
        "num_draws",
        lambda: vi.check_reparam(_key(), _bound(), _p(), num_draws=1),
        "at least 2",
    ),
    Case("vi.psis", "num_draws", lambda: vi.psis(_key(), _bound(), _p(), num_draws=0), COUNT),
    Case("vi.psis", "objective", lambda: vi.psis(_key(), _model, _p()), "Objective"),
    Case(
        "vi.psis", "plate", lambda: vi.psis(_key(), _bound(), _p(), plate="rows"), "outside plate"
    ),
    Case("vi.psis", "key", lambda: vi.psis(0, _bound(), _p()), "one PRNG key"),
    Case(
        "vi.latent_usage",
        "site",
        lambda: vi.latent_usage(_key(), _rows, _rows, _p(), site="w"),
        "no 'w'",
    ),
    Case(
        "vi.latent_usage",
        "site",
        lambda: vi.latent_usage(_key(), _model, _guide, _p()),
        "first axis",
    ),
    Case(
        "vi.latent_usage",
        "num_draws",
        lambda: vi.latent_usage(_key(), _rows, _rows, _p(), num_draws=0),
        COUNT,
    ),
    Case(
        "vi.latent_usage",
        "delta",
        lambda: vi.latent_usage(_key(), _rows, _rows, _p(), delta=2.0),
        r"\[0, 1\]",
    ),
    Case(
        "vi.latent_usage",
        "epsilon",
        lambda: vi.latent_usage(_key(), _rows, _rows, _p(), epsilon=-1.0),
        "not be negative",
    ),
    Case(
        "vi.latent_usage",
        "threshold",
        lambda: vi.latent_usage(_key(), _rows, _rows, _p(), threshold=_NAN),
        "finite number",
    ),
    Case("vi.latent_usage", "key", lambda: vi.latent_usage(3, _rows, _rows, _p()), "one PRNG key"),
    Case("vi.active_units", "means", lambda: vi.active_units(jnp.zeros(3)), r"\(n, k\)"),
    Case("vi.active_units", "means", lambda: vi.active_units(jnp.full((3, 2), _NAN)), "NaN"),
    Case("vi.active_units", "means", lambda: vi.active_units("means"), "array"),
    Case(
        "vi.active_units",
        "threshold",
        lambda: vi.active_units(jnp.ones((3, 2)), _NAN),
        "finite number",
    ),
    Case("vi.linear_vae_collapse", "x", lambda: vi.linear_vae_collapse(jnp.zeros(3)), r"\(n, d\)"),
    Case(
        "vi.linear_vae_collapse", "x", lambda: vi.linear_vae_collapse(np.full((3, 2), _NAN)), "NaN"
    ),
    Case(
        "vi.linear_vae_collapse", "beta", lambda: vi.linear_vae_collapse(_data(), -1.0), "positive"
    ),
    Case(
        "vi.linear_vae_collapse",
        "beta",
        lambda: vi.linear_vae_collapse(_data(), jnp.ones(2)),
        "scalar",
    ),
    Case(
        "vi.linear_vae_collapse",
        "latent_dim",
        lambda: vi.linear_vae_collapse(_data(), latent_dim=0),
        COUNT,
    ),
    Case(
        "vi.linear_vae_collapse",
        "encoder_scale",
        lambda: vi.linear_vae_collapse(_data(), encoder_scale=jnp.ones(2)),
        "shape",
    ),
    Case(
        "vi.linear_vae_collapse",
        "target",
        lambda: vi.linear_vae_collapse(_data(), target=_data()[:5]),
        "rows",
    ),
    Case(
        "vi.linear_vae_collapse",
        "floor",
        lambda: vi.linear_vae_collapse(_data(), target=_data(), floor=-1.0),
        r"\[0, 1\)",
    ),
    Case(
        "vi.linear_cvae_collapse",
        "y",
        lambda: vi.linear_cvae_collapse(_data(), _data()[:5]),
        "rows",
    ),
    Case(
        "vi.linear_cvae_collapse",
        "x",
        lambda: vi.linear_cvae_collapse(_data() * 1j, _data()),
        "real",
    ),
    Case(
        "vi.linear_hvae_collapse", "sigma1", lambda: vi.linear_hvae_collapse(_data(), 0.0), "posit"
    ),
    Case(
        "vi.linear_hvae_collapse",
        "sigma2",
        lambda: vi.linear_hvae_collapse(_data(), 1.0, sigma2=-1.0),
        "positive",
    ),
    Case(
        "vi.functional",
        "functional",
        lambda: vi.functional(_key(), _model, _guide, _p()),
        "numpyro.param",
    ),
    Case("vi.functional", "key", lambda: vi.functional(0, _model, _guide, _p()), "one PRNG key"),
)

CASES: tuple[Case, ...] = (*_OF_BOUNDS, *_OF_ESTIMATORS, *_OF_STRATEGIES, *_OF_REPORTS)
