"""Mistakes with programs, sites, guides and marginals of `bayesjx.vi`."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from numpyro.contrib.control_flow import scan

from bayesjx import distributions as _distributions, vi as _vi

from ._case import Case, COUNT

# Mistakes on purpose, which a type checker would name.
vi: Any = _vi
distributions: Any = _distributions

KEY = jax.random.key(0)
STANDARD = dist.Normal(0.0, 1.0)
FLAG = dist.Bernoulli(0.3)


def _program(d=STANDARD, name="z", **options):
    return lambda *args: numpyro.sample(name, d, **options)


def _normal(params):
    numpyro.sample("z", dist.Normal(params["loc"], 1.0))


def _model(params):
    z = numpyro.sample("z", STANDARD)
    numpyro.sample("y", dist.Normal(z, 1.0), obs=0.5)


def _plated(size, batch=None, obs=None):
    def program(*args):
        with numpyro.plate("rows", size, subsample_size=batch):
            z = numpyro.sample("z", STANDARD)
            if obs is not None:
                numpyro.sample("y", dist.Normal(z, 1.0), obs=obs)

    return program


def _chain():
    step = lambda x, _: (numpyro.sample("x", dist.Normal(x, 1.0)), None)  # noqa: E731
    scan(step, jnp.zeros(()), jnp.arange(3))


def _twice():
    numpyro.sample("z", STANDARD)
    numpyro.sample("z", STANDARD)


def _pair():
    a = numpyro.sample("a", FLAG)
    numpyro.sample("b", dist.Bernoulli(0.2 + 0.5 * a))


def _params(**other):
    return {"loc": jnp.zeros(()), **other}


def _bound():
    return vi.elbo(_model, _normal)


def _estimate(model, guide):
    return vi.elbo(model, guide).estimate(KEY, _params())


def _fit(**options):
    given = {"objective": _bound(), "params": _params(), "optimizer": optax.adam(0.1)}
    given |= {"num_steps": 3, **options}
    return vi.fit(KEY, **given)


def _optimise(**options):
    given = {"objective": _bound(), "params": _params(), "optimizer": optax.adam(0.1), **options}
    return vi.optimise(**given)


def _check_reparam(**options):
    given = {"objective": _bound(), "num_draws": 8, **options}
    return vi.check_reparam(KEY, given.pop("objective"), _params(), **given)


def _guide(make, model, *args):
    guide = make(model)
    with numpyro.handlers.seed(rng_seed=0):
        return guide(*args)


def _flow(key, d):
    import flowjax.distributions

    return flowjax.distributions.StandardNormal((d,))


def _flow_guide(flow, model=_model):
    return _guide(lambda model: vi.FlowGuide(model, flow), model, _params())


def _both():
    numpyro.sample("z", STANDARD)
    numpyro.sample("flag", FLAG)


def _target(given=None):
    return vi.Target(_pair, given or {}, (), {})


def _marginal(*args, program=_pair, **options):
    return vi.marginal(program, *args)(key=KEY, **options)


def _inside(fn):
    return vi.expectation(fn).estimate(KEY)


def _one_hot(value):
    d = distributions.OneHotCategorical(probs=jnp.ones(3) / 3, validate_args=True)
    return d.log_prob(jnp.asarray(value))


CASES: tuple[Case, ...] = (
    # Running and scoring programs
    Case("vi.simulate", "program", lambda: _inside(lambda: vi.simulate(3.0)[1]), "callable"),
    Case("vi.simulate", "z", lambda: _inside(lambda: vi.simulate(_twice)[1]), "sampled twice"),
    Case("vi.simulate", "simulate", lambda: vi.simulate(_program()), "inside an objective"),
    Case("vi.log_density", "program", lambda: vi.log_density(None, {}), "callable"),
    Case("vi.log_density", "values", lambda: vi.log_density(_program(), 1.0), "mapping"),
    Case("vi.log_density", "values", lambda: vi.log_density(_program(), [1.0]), "mapping"),
    Case("vi.log_density", "z", lambda: vi.log_density(_program(), {"z": "high"}), "number"),
    Case("vi.log_density", "z", lambda: vi.log_density(_program(), {"z": None}), "number"),
    Case("vi.log_density", "z", lambda: vi.log_density(_program(), {}), "has no value"),
    Case("vi.log_density", "w", lambda: vi.log_density(_program(), {"z": 0.0, "w": 0.0}), "fit no"),
    Case(
        "vi.log_density",
        "z",
        lambda: vi.log_density(_program(), {"z": jnp.zeros(3)}),
        r"shape \(3,\).*shape \(\)",
    ),
    Case(
        "vi.log_density",
        "z",
        lambda: vi.log_density(_plated(4), {"z": jnp.zeros((4, 1))}),
        r"shape \(4, 1\).*shape \(4,\)",
    ),
    Case(
        "vi.log_density",
        "z",
        lambda: vi.log_density(_program(), {"z": jnp.array(1j)}),
        "real",
    ),
    Case(
        "vi.log_density",
        "x",
        lambda: vi.log_density(_chain, {"x": jnp.zeros(2)}),
        "scan of 3 steps.*leading axis",
    ),
    Case(
        "vi.log_density",
        "rows",
        lambda: vi.log_density(_plated(6, 2), {"z": jnp.zeros(2)}),
        "random key",
    ),
    Case(
        "vi.log_density",
        "y",
        lambda: vi.log_density(_plated(4, obs=jnp.zeros(0)), {"z": jnp.zeros(4)}),
        "empty",
    ),
    Case(
        "vi.log_density",
        "y",
        lambda: vi.log_density(_plated(4, obs=jnp.zeros((4, 1))), {"z": jnp.zeros(4)}),
        "reshape the data",
    ),
    Case("vi.sample", "program", lambda: vi.sample(KEY, "guide"), "callable"),
    Case("vi.sample", "key", lambda: vi.sample(0, _program()), "PRNG key"),
    Case("vi.sample", "num_samples", lambda: vi.sample(KEY, _program(), num_samples=0), COUNT),
    Case(
        "vi.sample", "num_samples", lambda: vi.sample(KEY, _program(), num_samples=2.5), "integer"
    ),
    # Guides that do not match
    Case("vi.elbo", "model", lambda: vi.elbo(1.0, _program()), "callable"),
    Case("vi.elbo", "guide", lambda: vi.elbo(_program(), None), "callable"),
    Case("vi.elbo", "entropy", lambda: vi.elbo(_model, _normal, "exact"), "must be one of"),
    Case(
        "vi.elbo",
        "z",
        lambda: _estimate(_program(), _program(dist.Normal(jnp.zeros(3), 1.0))),
        r"shape \(3,\).*in the guide, but shape \(\)",
    ),
    Case(
        "vi.elbo",
        "z",
        lambda: _estimate(_plated(3), _program(dist.Normal(jnp.zeros(3), 1.0).to_event(1))),
        "event dimension 1 in the guide.*event dimension 0",
    ),
    Case(
        "vi.elbo",
        "z",
        lambda: _estimate(_plated(6, 2), _program(dist.Normal(jnp.zeros(2), 1.0))),
        "subsampled plate 'rows'",
    ),
    Case("vi.elbo", "rows", lambda: _estimate(_plated(4), _plated(5)), "same size"),
    Case("vi.elbo", "z", lambda: _estimate(_program(), _program(FLAG)), "discrete in the guide"),
    Case("vi.elbo", "z", lambda: _estimate(_program(FLAG), _program()), "continuous in the guide"),
    Case("vi.elbo", "w", lambda: _estimate(_program(), _program(name="w")), "z"),
    Case("vi.iwelbo", "num_particles", lambda: vi.iwelbo(_model, _normal, 0), COUNT),
    # Training
    Case("vi.fit", "objective", lambda: _fit(objective=_model), "Objective"),
    Case("vi.fit", "params", lambda: _fit(params={"loc": 1}), "floating-point"),
    Case("vi.fit", "optimizer", lambda: _fit(optimizer=0.1), "optax"),
    Case("vi.fit", "optimizer", lambda: _fit(optimizer=numpyro.optim.Adam(0.1)), "optax"),
    Case("vi.fit", "num_steps", lambda: _fit(num_steps=-1), "num_steps"),
    Case("vi.fit", "num_draws", lambda: _fit(num_draws=0), COUNT),
    Case("vi.fit", "average", lambda: _fit(average=1.0), r"\(0, 1\)"),
    Case("vi.fit", "data", lambda: _fit(data=jnp.zeros(3)), "tuple"),
    Case("vi.fit", "step", lambda: _fit(params={"loc": jnp.array(np.nan)}), "parameter 'loc'"),
    Case("vi.optimise", "num_draws", lambda: _optimise(num_draws=2.5), COUNT),
    Case("vi.optimise", "average", lambda: _optimise(average="yes"), "finite number"),
    Case("vi.optimise", "objective", lambda: _optimise(objective=None), "Objective"),
    Case("vi.check_reparam", "objective", lambda: _check_reparam(objective=_model), "Objective"),
    Case("vi.check_reparam", "num_draws", lambda: _check_reparam(num_draws=1), "at least 2"),
    Case("vi.check_reparam", "argnums", lambda: _check_reparam(argnums=3), "arguments"),
    Case("vi.check_reparam", "threshold", lambda: _check_reparam(threshold=-1.0), "positive"),
    Case(
        "vi.Objective.value_and_grad",
        "argnums",
        lambda: _bound().value_and_grad(KEY, _params(), argnums=2),
        "arguments",
    ),
    Case(
        "vi.Objective.value_and_grad",
        "num_draws",
        lambda: _bound().value_and_grad(KEY, _params(), num_draws=0),
        COUNT,
    ),
    Case("vi.Objective.estimate", "key", lambda: _bound().estimate(0, _params()), "PRNG key"),
    # Guides that make themselves
    Case(
        "vi.AutoDiscrete",
        "AutoDiscrete",
        lambda: _guide(vi.AutoDiscrete, _model, {}),
        "no discrete",
    ),
    Case(
        "vi.AutoDiscrete",
        "z",
        lambda: _guide(vi.AutoDiscrete, _program(dist.Poisson(2.0))),
        "not finite",
    ),
    Case("vi.AutoDiscrete", "model", lambda: vi.AutoDiscrete("model"), "callable"),
    Case(
        "vi.AutoDiscrete", "init_scale", lambda: vi.AutoDiscrete(_pair, init_scale=-1.0), "negative"
    ),
    Case("vi.AutoDiscrete", "strategy", lambda: vi.AutoDiscrete(_pair, strategy="enum"), "vi.enum"),
    Case("vi.GaussianGuide", "model", lambda: vi.GaussianGuide(None), "callable"),
    Case(
        "vi.GaussianGuide",
        "scale",
        lambda: vi.GaussianGuide(_model, scale="full"),
        "must be one of",
    ),
    Case(
        "vi.GaussianGuide",
        "rank",
        lambda: vi.GaussianGuide(_model, scale="lowrank", rank=0),
        COUNT,
    ),
    Case("vi.GaussianGuide", "rank", lambda: vi.GaussianGuide(_model, rank=2), "lowrank"),
    Case(
        "vi.GaussianGuide",
        "conditioner",
        lambda: vi.GaussianGuide(_model, conditioner="log"),
        "one of",
    ),
    Case(
        "vi.GaussianGuide",
        "init_scale",
        lambda: vi.GaussianGuide(_model, init_scale=0.0),
        "positive",
    ),
    Case(
        "vi.GaussianGuide",
        "init_scale",
        lambda: vi.GaussianGuide(_model, init_scale="small"),
        "finite number",
    ),
    Case("vi.GaussianGuide", "flag", lambda: _guide(vi.GaussianGuide, _both), "AutoDiscrete"),
    Case("vi.GaussianGuide", "rows", lambda: _guide(vi.GaussianGuide, _plated(6, 2)), "subsampled"),
    Case("vi.FlowGuide", "flow", lambda: _flow_guide(3.0), "FlowJAX distribution"),
    Case("vi.FlowGuide", "flow", lambda: _flow_guide(_flow(None, 4)), "4.*1 dimensions|shape"),
    Case("vi.FlowGuide", "flow", lambda: _flow_guide(lambda key, d: d), "FlowJAX distribution"),
    Case("vi.FlowGuide", "flag", lambda: _flow_guide(_flow, lambda p: _both()), "AutoDiscrete"),
    Case("vi.FlowJAXDistribution", "flow", lambda: vi.FlowJAXDistribution(STANDARD), "FlowJAX"),
    Case(
        "vi.FlowJAXDistribution",
        "condition",
        lambda: vi.FlowJAXDistribution(_flow(None, 2), 1.0),
        "no condition",
    ),
    Case(
        "vi.functional",
        "init_params",
        lambda: vi.functional(
            KEY, _model, vi.GaussianGuide(_model), _params(), init_params={"loc": 1.0}
        ),
        "parameters are",
    ),
    Case(
        "vi.functional",
        "functional",
        lambda: vi.functional(KEY, _model, _normal, _params()),
        "no.*param|neither",
    ),
    # Programs as distributions
    Case("vi.marginal", "program", lambda: vi.marginal(None, "a"), "callable"),
    Case("vi.marginal", "keep", lambda: vi.marginal(_pair, ()), "at least one site"),
    Case("vi.marginal", "keep", lambda: _marginal("c"), "latent sites are"),
    Case("vi.marginal", "keep", lambda: _marginal(["a", "a"]), "twice"),
    Case("vi.marginal", "algorithm", lambda: vi.marginal(_pair, "b", 5), "vi.sir"),
    Case(
        "vi.marginal",
        "value",
        lambda: _marginal(["a", "b"]).log_prob(jnp.zeros(3)),
        r"shape \(2,\).*\(3,\)",
    ),
    Case("vi.marginal", "key", lambda: vi.marginal(_pair, "b")().log_prob(1), "needs a key"),
    Case("vi.normalize", "algorithm", lambda: vi.normalize(_pair, "exact"), "vi.sir"),
    Case("vi.normalize", "program", lambda: vi.normalize(0, vi.exact()), "callable"),
    Case("vi.sir", "num_particles", lambda: vi.sir(-1), COUNT),
    Case("vi.sir", "proposal", lambda: vi.sir(2, "prior"), "callable"),
    Case("vi.sir", "index_strategy", lambda: vi.sir(2, index_strategy=vi.reinforce), "instance"),
    Case("vi.exact", "index_strategy", lambda: vi.exact("enum"), "instance"),
    Case(
        "vi.exact",
        "z",
        lambda: _marginal("b", vi.exact(), program=lambda: (_pair(), _both())).log_prob(1),
        "finite support",
    ),
    Case("vi.Target", "values", lambda: _inside(lambda: _target().density(1.0)), "mapping"),
    Case("vi.Target", "b", lambda: _inside(lambda: _target().density({"a": 1})), "has no value"),
    # Distributions
    Case(
        "distributions.OneHotCategorical", "value", lambda: _one_hot([1.0, 1.0, 0.0]), "sum to one"
    ),
    Case("distributions.OneHotCategorical", "value", lambda: _one_hot([1.0, 0.0]), "length 3"),
    Case("distributions.OneHotCategorical", "value", lambda: _one_hot(2), "one_hot"),
    Case(
        "distributions.OneHotCategorical",
        "probs",
        lambda: distributions.OneHotCategorical(),
        "exactly one",
    ),
    Case(
        "distributions.OneHotCategorical",
        "probs",
        lambda: distributions.OneHotCategorical(probs=jnp.array([-0.5, 1.5])),
        "negative",
    ),
)
