"""Mistakes in calls of the samplers of networks in `bayesjx.bnn`."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import numpy as np
import numpyro.distributions as dist

from bayesjx import bnn, likelihoods
from benchmarks.bad_input._case import Case

N, D = 7, 3
KEY = jax.random.key(0)
NAN = float("nan")


def _x(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape or (N, D))


def _chains(**options: Any) -> Any:
    network = eqx.nn.Linear(D, "scalar", key=KEY)
    arguments: dict[str, Any] = {"network": network, "likelihood": likelihoods.Gaussian(0.1)}
    arguments |= {"num_chains": 2} | options
    key = arguments.pop("key", KEY)
    return bnn.network_chains(
        key, arguments.pop("network"), arguments.pop("likelihood"), **arguments
    )


def _sghmc(**options: Any) -> Any:
    arguments: dict[str, Any] = {"num_data": N} | options
    chains = arguments.pop("chains") if "chains" in arguments else _chains()
    return bnn.sghmc(chains, **arguments)


def _sgld(**options: Any) -> Any:
    arguments: dict[str, Any] = {"num_data": N, "step_size": 1e-3} | options
    return bnn.sgld(_chains(), **arguments)


def _cycles(**options: Any) -> Any:
    arguments: dict[str, Any] = {"num_data": N, "num_steps": 20, "step_size": 1e-3} | options
    return bnn.cyclical_sgld(_chains(), **arguments)


def _joint(x: Any = None, y: Any = None) -> Any:
    x, y = _x() if x is None else x, _x(N) if y is None else y
    chains = _chains()
    return chains.log_joint(jax.tree.map(lambda a: a[0], chains.start), x, y)


def _draws(number: int = 2) -> Any:
    position = jax.tree.map(lambda a: np.repeat(a[None], number, axis=0), _chains().start)
    return bnn.ChainDraws(position, None, np.zeros(number, bool))


CASES: tuple[Case, ...] = (
    Case("bnn.network_chains", "key", lambda: _chains(key=0), "PRNG key"),
    Case("bnn.network_chains", "network", lambda: _chains(network=_x()), "callable Equinox module"),
    Case("bnn.network_chains", "likelihood", lambda: _chains(likelihood=0.1), "function from f"),
    Case(
        "bnn.network_chains",
        "likelihood",
        lambda: _chains(likelihood=dist.Normal(0.0, 1.0)),
        "function from f",
    ),
    Case("bnn.network_chains", "prior", lambda: _chains(prior=-1.0), "positive"),
    Case("bnn.network_chains", "prior", lambda: _chains(prior="flat"), "standard deviation"),
    Case(
        "bnn.network_chains", "where", lambda: _chains(where="weights"), "function of the network"
    ),
    Case("bnn.network_chains", "num_chains", lambda: _chains(num_chains=0), "at least 1"),
    Case("bnn.network_chains", "start", lambda: _chains(start=_x()), "first axis of num_chains"),
    Case(
        "bnn.network_chains",
        "likelihood_prior",
        lambda: _chains(likelihood_prior=1.0),
        "distribution of one number",
    ),
    Case(
        "bnn.network_chains",
        "likelihood_prior",
        lambda: _chains(
            likelihood=lambda f: dist.Poisson(f**2), likelihood_prior=dist.Gamma(1.0, 1.0)
        ),
        "no parameters",
    ),
    Case("bnn.sghmc", "chains", lambda: _sghmc(chains=_x()), "network_chains"),
    Case("bnn.sghmc", "num_data", lambda: _sghmc(num_data=0), "at least 1"),
    Case("bnn.sghmc", "batch_size", lambda: _sghmc(batch_size=0), "at least 1"),
    Case("bnn.sghmc", "step_size", lambda: _sghmc(step_size=NAN), "positive"),
    Case("bnn.sghmc", "friction", lambda: _sghmc(friction=1.5), "0, 1"),
    Case("bnn.sghmc", "burn_in", lambda: _sghmc(burn_in=2.5), "integer"),
    Case("bnn.sghmc", "temperature", lambda: _sghmc(temperature=0.0), "positive"),
    Case("bnn.sghmc", "gibbs_every", lambda: _sghmc(gibbs_every=5), "hierarchical"),
    Case("bnn.NetworkChains", "x", lambda: _joint(x=_x() * NAN), "NaN"),
    Case("bnn.NetworkChains", "y", lambda: _joint(y=_x(N, 2)), "shape"),
    Case("bnn.sgld", "step_size", lambda: _sgld(step_size=-1.0), "positive"),
    Case("bnn.sgld", "burn_in", lambda: _sgld(burn_in=-1), "at least 0"),
    Case("bnn.sgld", "temperature", lambda: _sgld(temperature="hot"), "number"),
    Case("bnn.cyclical_sgld", "num_steps", lambda: _cycles(num_steps=0), "at least 1"),
    Case("bnn.cyclical_sgld", "num_cycles", lambda: _cycles(num_cycles=30), "at most"),
    Case("bnn.cyclical_sgld", "exploration", lambda: _cycles(exploration=1.0), "0, 1"),
    Case("bnn.cyclical_sgld", "step_size", lambda: _cycles(step_size=_x(2)), "number"),
    Case("bnn.chain_draws", "state", lambda: bnn.chain_draws(_x()), "ChainState"),
    Case("bnn.NetworkChains", "draws", lambda: _chains().posterior(_x()), "chain_draws"),
    Case("bnn.NetworkChains", "draws", lambda: _chains().posterior(_draws()), "after burn-in"),
    Case(
        "bnn.NetworkChains",
        "chain_axis",
        lambda: _chains().posterior(_draws(), chain_axis=2),
        "0 or 1",
    ),
    Case(
        "bnn.NetworkChains",
        "draws",
        lambda: _chains().diagnostics(_draws()._replace(sampling=np.ones(2, bool)), _x()),
        "at least 4",
    ),
)
