"""Mistakes with fits without options, batch and match, Pathfinder and importance weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

import bayesjx
from bayesjx import vi
from bayesjx.diagnostics import psis
from benchmarks.bad_input._case import Case, COUNT

_ANY: Any = None  # stands where a wrong type is passed on purpose
_HALF: Any = 1.5
_sample: Any = numpyro.sample


def _key() -> jax.Array:
    return jax.random.key(0)


def _model(y: Any = 0.3) -> None:
    x = _sample("x", dist.Normal(0.0, 1.0))
    _sample("y", dist.Normal(x, 1.0), obs=y)


def _count() -> None:
    n = _sample("n", dist.Poisson(3.0))
    _sample("x", dist.Normal(n, 1.0))


def _coupled() -> None:
    c = _sample("c", dist.Categorical(jnp.ones(3) / 3).expand([40]))
    _sample("x", dist.Normal(c.sum(), 1.0))


def _leaking() -> None:
    with numpyro.plate("items", 4):
        c = _sample("c", dist.Bernoulli(0.5))
        _sample("x", dist.Normal(c.sum(), 1.0))


def _bounded() -> None:
    c = _sample("c", dist.Bernoulli(0.5))
    _sample("x", dist.Uniform(0.0, 1.0 + c))


def _observed() -> None:
    _sample("y", dist.Normal(0.0, 1.0), obs=0.3)


def _local() -> None:
    with numpyro.plate("data", 5, subsample_size=2):
        _sample("z", dist.Normal(0.0, 1.0))


def _nowhere() -> None:
    x = _sample("x", dist.Normal(0.0, 1.0))
    numpyro.factor("never", jnp.where(x > 100.0, 0.0, -jnp.inf))


def _flat(name: str, shape: tuple[int, ...] = ()) -> Any:
    return _sample(name, dist.ImproperUniform(dist.constraints.real, shape, ()))


def _redundant() -> None:
    _sample("y", dist.Normal(_flat("a") + _flat("b"), 1.0), obs=0.3)


def _unused() -> None:
    _flat("unused")
    _model()


def _twice() -> None:
    _sample("x", dist.Normal(0.0, 1.0))
    _sample("x", dist.Normal(0.0, 1.0))


def _narrow() -> None:
    _sample("x", dist.Normal(1.0, 1e-25))


def _log_density(z: Any) -> Any:
    return -0.5 * jnp.sum(z**2)


def _fitted() -> vi.PosteriorFit:
    if not _KEPT:
        _KEPT.append(vi.fit_posterior(_key(), _model))
    return _KEPT[0]


_KEPT: list[vi.PosteriorFit] = []


def _bam(**options: Any) -> Any:
    return vi.batch_and_match(_log_density, **options)


def _step(log_density: Any) -> Any:
    algorithm = vi.batch_and_match(log_density)
    return algorithm.step(_key(), algorithm.init(jnp.zeros(2)))


def _guide(**options: Any) -> vi.PathfinderGuide:
    return vi.PathfinderGuide(_model, **options)


def _start(guide: Any, **options: Any) -> Any:
    return vi.init_from_pathfinder(_key(), guide, **options)


def _bound() -> Any:
    return vi.elbo(_model, vi.GaussianGuide(_model))


def _subsampled() -> None:
    with numpyro.plate("data", 5, subsample_size=2):
        _sample("z", dist.Normal(0.0, 1.0))


_FIT, _BAM, _PSIS = "vi.fit_posterior", "vi.batch_and_match", "diagnostics.psis"
_INIT, _PATH, _VPSIS = "vi.batch_and_match(...).init", "vi.PathfinderGuide", "vi.psis"

CASES: tuple[Case, ...] = (
    Case(_FIT, "key", lambda: vi.fit_posterior(_ANY, _model), "PRNG key"),
    Case(_FIT, "key", lambda: vi.fit_posterior(jnp.zeros(3), _model), "PRNG key"),
    Case(_FIT, "key", lambda: vi.fit_posterior(jax.random.split(_key()), _model), "one"),
    Case(_FIT, "model", lambda: vi.fit_posterior(_key(), _ANY), "NumPyro program"),
    Case(_FIT, "model", lambda: vi.fit_posterior(_key(), _observed), "no latent site"),
    Case(_FIT, "model", lambda: vi.fit_posterior(_key(), _model, 0.1, 0.2), "arguments"),
    Case(_FIT, "model", lambda: vi.fit_posterior(_key(), _model, z=1.0), "arguments"),
    Case(_FIT, "n", lambda: vi.fit_posterior(_key(), _count), "no finite support"),
    Case(_FIT, "c", lambda: vi.fit_posterior(_key(), _coupled), "AutoDiscrete"),
    Case(_FIT, "c", lambda: vi.fit_posterior(_key(), _leaking), "other elements"),
    Case(_FIT, "c", lambda: vi.fit_posterior(_key(), _bounded), "support"),
    Case(_FIT, "z", lambda: vi.fit_posterior(_key(), _local), "subsample_size"),
    Case(_FIT, "x", lambda: vi.fit_posterior(_key(), _twice), "twice|unique|name"),
    Case(_FIT, "density", lambda: vi.fit_posterior(_key(), _nowhere), "finite at none"),
    Case(_FIT, "density", lambda: vi.fit_posterior(_key(), _model, jnp.nan), "look at the data"),
    Case(_FIT, "a", lambda: vi.fit_posterior(_key(), _redundant), "proper priors"),
    Case(_FIT, "unused", lambda: vi.fit_posterior(_key(), _unused), "proper priors"),
    Case("PosteriorFit.sample", "key", lambda: _fitted().sample(_ANY, 3), "PRNG key"),
    Case("PosteriorFit.sample", "num_samples", lambda: _fitted().sample(_key(), 0), COUNT),
    Case("PosteriorFit.sample", "num_samples", lambda: _fitted().sample(_key(), -2), COUNT),
    Case("PosteriorFit.sample", "num_samples", lambda: _fitted().sample(_key(), _HALF), "integer"),
    Case("PosteriorFit.sample", "num_samples", lambda: _fitted().sample(_key(), True), "integer"),
    Case("PosteriorFit.log_density", "values", lambda: _fitted().log_density({}), r"\['x'\]"),
    Case(
        "PosteriorFit.log_density",
        "values",
        lambda: _fitted().log_density({"x": 0.0, "w": 0.0}),
        r"\['x'\]",
    ),
    Case(
        "PosteriorFit.log_density",
        "values",
        lambda: _fitted().log_density({"x": jnp.zeros(3)}),
        "jax.vmap",
    ),
    Case("PosteriorFit.log_density", "values", lambda: _fitted().log_density(_ANY), r"\['x'\]"),
    Case(
        "to_datatree",
        "dims",
        lambda: bayesjx.to_datatree(_fitted(), dims={"w": ["a"]}),
        "variables are",
    ),
    Case(_BAM, "log_density", lambda: vi.batch_and_match(_ANY), "function"),
    Case(_BAM, "log_density", lambda: _step(lambda z: z), "scalar"),
    Case(_BAM, "log_density", lambda: _step(lambda z: jnp.sum(z[None], 1)), "scalar"),
    Case(_BAM, "log_density", lambda: _step(lambda z: "high"), "scalar"),
    Case(_BAM, "log_density", lambda: _step(lambda z: 1), "floating-point"),
    Case(_BAM, "num_draws", lambda: _bam(num_draws=1), "at least 2"),
    Case(_BAM, "num_draws", lambda: _bam(num_draws=8.0), "integer"),
    Case(_BAM, "num_draws", lambda: _bam(num_draws=True), "integer"),
    Case(_BAM, "rank", lambda: _bam(rank=0), COUNT),
    Case(_BAM, "rank", lambda: _bam(rank=2.0), COUNT),
    Case(_BAM, "rank", lambda: _bam(rank=9).init(jnp.zeros(3)), "3 dimensions"),
    Case(_BAM, "rate", lambda: _bam(rate=-1.0), "positive"),
    Case(_BAM, "rate", lambda: _bam(rate="fast"), "positive number"),
    Case(_BAM, "rate", lambda: _bam(rate=jnp.nan), "positive number"),
    Case(_INIT, "loc", lambda: _bam().init(0.0), "vector"),
    Case(_INIT, "loc", lambda: _bam().init(jnp.zeros((2, 2))), "vector"),
    Case(_INIT, "loc", lambda: _bam().init(jnp.zeros(0)), "vector"),
    Case(_INIT, "loc", lambda: _bam().init(jnp.zeros(2, int)), "floating-point"),
    Case(_INIT, "loc", lambda: _bam().init(jnp.array([0.0, jnp.nan])), "finite"),
    Case(_INIT, "covariance", lambda: _bam().init(jnp.zeros(2), jnp.ones(3)), "variances"),
    Case(_INIT, "covariance", lambda: _bam().init(jnp.zeros(2), -1.0), "positive"),
    Case(_INIT, "covariance", lambda: _bam().init(jnp.zeros(2), jnp.nan), "finite"),
    Case(_INIT, "covariance", lambda: _bam().init(jnp.zeros(2), -jnp.eye(2)), "positive definite"),
    Case(_PATH, "num_paths", lambda: _guide(num_paths=0), COUNT),
    Case(_PATH, "num_samples", lambda: _guide(num_samples=2.5), COUNT),
    Case(_PATH, "max_steps", lambda: _guide(max_steps=-1), COUNT),
    Case(_PATH, "memory", lambda: _guide(memory=0), COUNT),
    Case(_PATH, "prepare", lambda: _guide().resample(_key(), 3), "first"),
    Case(_PATH, "num_draws", lambda: _prepared().resample(_key(), 0), COUNT),
    Case(_PATH, "num_draws", lambda: _prepared().resample(_key(), _HALF), COUNT),
    Case(_PATH, "num_paths", lambda: vi.PathfinderGuide(_narrow).prepare(_key()), "collapsed"),
    Case("vi.init_from_pathfinder", "guide", lambda: _start(_model), "GaussianGuide"),
    Case(
        "vi.init_from_pathfinder",
        "max_steps",
        lambda: _start(vi.GaussianGuide(_model), max_steps=0),
        COUNT,
    ),
    Case(_VPSIS, "objective", lambda: vi.psis(_key(), _ANY), "Objective"),
    Case(_VPSIS, "num_draws", lambda: vi.psis(_key(), _bound(), num_draws=0), COUNT),
    Case(_VPSIS, "num_draws", lambda: vi.psis(_key(), _bound(), num_draws=_HALF), "integer"),
    Case(_VPSIS, "batch_size", lambda: vi.psis(_key(), _bound(), batch_size=-1), COUNT),
    Case(
        _VPSIS,
        "plate",
        lambda: vi.psis(_key(), vi.elbo(_model, _own), plate="rows"),
        "outside plate",
    ),
    Case(
        _VPSIS,
        "subsampled",
        lambda: vi.psis(_key(), vi.elbo(_subsampled, _subsampled)),
        "all data",
    ),
    Case(_PSIS, "log_weights", lambda: psis(jnp.zeros(())), "shape"),
    Case(_PSIS, "log_weights", lambda: psis(jnp.zeros((3, 0))), "at least|>= 1"),
    Case(_PSIS, "log_weights", lambda: psis(jnp.ones(9, int)), "floating-point"),
    Case(_PSIS, "log_weights", lambda: psis(jnp.ones(9, complex)), "floating-point"),
    Case(_PSIS, "log_weights", lambda: psis(_ANY), "floating-point"),
    Case(_PSIS, "relative_efficiency", lambda: psis(jnp.zeros(9), 0.0), "positive"),
    Case(_PSIS, "relative_efficiency", lambda: psis(jnp.zeros(9), jnp.nan), "positive"),
    Case(_PSIS, "relative_efficiency", lambda: psis(jnp.zeros(9), _ANY), "positive"),
)


def _own() -> None:
    _sample("x", dist.Normal(0.0, 1.0))


def _prepared() -> vi.PathfinderGuide:
    guide = _guide(num_paths=1, max_steps=5, num_samples=5)
    guide.prepare(_key())
    return guide
