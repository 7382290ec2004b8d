"""Mistakes in calls of distribution transformers and mixtures of Gaussians."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import optax
from numpyro.distributions import constraints

from bayesjx import amortized
from benchmarks.bad_input._case import Case

S, D, K, N = 2, 3, 3, 5
NAN = float("nan")
KEY = jax.random.key(0)


def _mixture(k: int = K, s: int = S) -> amortized.GaussianMixture:
    rng = np.random.default_rng(0)
    tril = np.broadcast_to(np.eye(s), (k, s, s))
    return amortized.GaussianMixture(np.zeros(k), rng.normal(size=(k, s)), tril)


def _network(*sizes: Any, **options: Any) -> amortized.DistributionTransformer:
    options = {"key": KEY, "width": 4, "depth": 1, "heads": 2} | options
    return amortized.DistributionTransformer(*(sizes or (S, D, K)), **options)


def _z(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).normal(size=shape or (N, D))


def _meta_prior(key: Any) -> Any:
    del key
    return _mixture()


def _simulator(key: Any, x: Any) -> Any:
    del key
    return jnp.zeros((N, D), x.dtype) + x[0]


def _training(network: Any = None, *args: Any, **options: Any) -> Any:
    network = _network() if network is None else network
    return amortized.transformer_training(
        network, *(args or (_meta_prior, _simulator)), optax.adam(1e-3), **options
    )


def _for(*args: Any, **options: Any) -> Any:
    return amortized.DistributionTransformer.for_meta_prior(KEY, *args, **options)


def _condition(mixture: Any = None, z: Any = None, design: Any = None, cov: Any = None) -> Any:
    mixture = _mixture() if mixture is None else mixture
    z = _z(1) if z is None else z
    design = np.ones((1, S)) if design is None else design
    return amortized.condition_mixture(mixture, z, design, np.eye(1) if cov is None else cov)


def _propagate(mixture: Any = None, transition: Any = None, cov: Any = None) -> Any:
    mixture = _mixture() if mixture is None else mixture
    transition = np.eye(S) if transition is None else transition
    return amortized.propagate_mixture(mixture, transition, np.eye(S) if cov is None else cov)


NET, MIX, TRAIN = (
    f"amortized.{name}"
    for name in ("DistributionTransformer", "GaussianMixture", "transformer_training")
)
UPDATE, FOR = f"{NET}.update", f"{NET}.for_meta_prior"
CONDITION, PROPAGATE = "amortized.condition_mixture", "amortized.propagate_mixture"

CASES: tuple[Case, ...] = (
    Case(NET, "num_latents", lambda: _network(0, D, K), "at least 1"),
    Case(NET, "num_observed", lambda: _network(S, 1.5, K), "integer"),
    Case(NET, "num_components", lambda: _network(S, D, -1), "at least 1"),
    Case(NET, "heads", lambda: _network(width=5), "divide width"),
    Case(NET, "depth", lambda: _network(depth=0), "at least 1"),
    Case(NET, "encoder_depth", lambda: _network(encoder_depth=-1), "at least 0"),
    Case(NET, "key", lambda: _network(key=3), "PRNG key"),
    Case(NET, "residual", lambda: _network(residual=1), "True or False"),
    Case(NET, "prior_inputs", lambda: _network(prior_inputs=0), "at least 1"),
    Case(NET, "support", lambda: _network(support=constraints.simplex), "unit_interval"),
    Case(NET, "support", lambda: _network(support="positive"), "unit_interval"),
    Case(NET, "support", lambda: _network(support=(constraints.real,) * 3), "2 latent"),
    Case(NET, "support", lambda: _network(support=constraints.interval(2.0, 1.0)), "not empty"),
    Case(NET, "prior", lambda: _network()(_mixture(K + 1), _z()), "num_components = 3"),
    Case(NET, "prior", lambda: _network()(_mixture(K, 3), _z()), "2 latent variables"),
    Case(NET, "prior", lambda: _network()(dist.Gamma(1.0, 1.0), _z()), "MultivariateNormal"),
    Case(NET, "prior", lambda: _network()(np.zeros(2), _z()), "GaussianMixture"),
    Case(
        NET,
        "prior",
        lambda: _network(support=constraints.positive)(dist.Normal(0, 1).expand([2]), _z()),
        "on the support",
    ),
    Case(NET, "prior", lambda: _network(prior_inputs=2)(np.zeros(3), _z()), "\\(\\*batch, 2\\)"),
    Case(NET, "prior", lambda: _network(prior_inputs=2)(np.full(2, NAN), _z()), "NaN"),
    Case(UPDATE, "z", lambda: _network()(_mixture(), _z(N, 2)), "n, 3"),
    Case(UPDATE, "z", lambda: _network()(_mixture(), _z(D)), "n, 3"),
    Case(UPDATE, "z", lambda: _network()(_mixture(), _z() * NAN), "NaN"),
    Case(UPDATE, "z", lambda: _network()(_mixture(), [["a"] * D]), "array of numbers"),
    Case(UPDATE, "mask", lambda: _network()(_mixture(), _z(), mask=np.ones(N)), "booleans"),
    Case(UPDATE, "mask", lambda: _network()(_mixture(), _z(), mask=np.ones(2, bool)), "\\(5,\\)"),
    Case(
        f"{NET}.filter",
        "support",
        lambda: _network(support=constraints.positive).filter(
            _mixture(), _z(2, N, D), np.eye(S), np.eye(S)
        ),
        "real",
    ),
    Case(FOR, "meta_prior", lambda: _for(_mixture(), _simulator), "callable"),
    Case(FOR, "meta_prior", lambda: _for(lambda k: jnp.zeros((2, 2)), _simulator), "\\(p,\\)"),
    Case(FOR, "simulator", lambda: _for(_meta_prior, 3), "callable"),
    Case(FOR, "simulator", lambda: _for(_meta_prior, lambda k, x: x), "\\(n, d\\)"),
    Case(FOR, "prior", lambda: _for(lambda k: jnp.zeros(2), _simulator), "numpyro"),
    Case(FOR, "prior", lambda: _for(_meta_prior, _simulator, prior=3), "callable"),
    Case(FOR, "num_tasks", lambda: _for(_meta_prior, _simulator, num_tasks=1), "at least 2"),
    Case(TRAIN, "network", lambda: _training(3), "DistributionTransformer"),
    Case(TRAIN, "batch_size", lambda: _training(batch_size=0), "at least 1"),
    Case(TRAIN, "min_observed", lambda: _training(min_observed=N + 1), "0, ..., 5"),
    Case(TRAIN, "num_steps", lambda: _training(num_steps=3), "dynamics"),
    Case(TRAIN, "dynamics", lambda: _training(dynamics=np.eye(S)), "noise_cov"),
    Case(TRAIN, "dynamics", lambda: _training(dynamics=(np.eye(3), np.eye(3))), "\\(2, 2\\)"),
    Case(TRAIN, "meta_prior", lambda: _training(_network(S, D, 2)), "at most 2"),
    Case(TRAIN, "meta_prior", lambda: _training(_network(1, D, K)), "1 latent"),
    Case(TRAIN, "meta_prior", lambda: _training(_network(prior_inputs=2)), "parameters"),
    Case(TRAIN, "simulator", lambda: _training(_network(S, 2, K)), "2 numbers"),
    Case(MIX, "loc", lambda: amortized.GaussianMixture(_z(2), _z(3, 1), _z(3, 1, 1)), "k, s"),
    Case(MIX, "loc", lambda: amortized.GaussianMixture(_z(2), _z(2, 1) * NAN, _z(2, 1, 1)), "NaN"),
    Case(MIX, "scale_tril", lambda: amortized.GaussianMixture(_z(2), _z(2, 1), _z(2)), "s, s"),
    Case(
        MIX,
        "scale_tril",
        lambda: amortized.GaussianMixture(_z(2), _z(2, 1), -np.ones((2, 1, 1))),
        "positive diagonal",
    ),
    Case(
        MIX,
        "log_weights",
        lambda: amortized.GaussianMixture(np.full(2, -np.inf), _z(2, 1), np.ones((2, 1, 1))),
        "not all",
    ),
    Case(CONDITION, "mixture", lambda: _condition(dist.Normal(0, 1)), "GaussianMixture"),
    Case(CONDITION, "z", lambda: _condition(z=np.zeros(0)), "empty"),
    Case(CONDITION, "z", lambda: _condition(z=_z(1) * NAN), "NaN"),
    Case(CONDITION, "design", lambda: _condition(design=np.ones((S, 1))), "\\(\\*batch, 1, 2\\)"),
    Case(CONDITION, "noise_cov", lambda: _condition(cov=np.ones(1)), "\\(\\*batch, 1, 1\\)"),
    Case(PROPAGATE, "mixture", lambda: _propagate(3), "GaussianMixture"),
    Case(PROPAGATE, "transition", lambda: _propagate(transition=np.eye(3)), "2, 2"),
    Case(PROPAGATE, "noise_cov", lambda: _propagate(cov=np.eye(S) * NAN), "NaN"),
)
