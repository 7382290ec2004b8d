"""Elements that no plate separates: coupled by the cost, or by `to_event` inside a plate."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesjx import vi

from ._cell import Cell, given, log_bernoulli, log_normal, STRATEGIES

POINT = (0.5, -0.4, 0.3)
SLOPES = np.array([1.0, -0.6, 0.4])
OFFSETS = np.array([0.0, 0.3, -0.2])


def vector_guide(p: jax.Array, strategy: Any) -> None:
    """Three Bernoulli elements without a plate."""
    numpyro.sample("b", given(dist.Bernoulli(logits=_logits(p)), strategy))


def _logits(p):
    return p + p[0] * SLOPES + OFFSETS


def vector_model(p: jax.Array) -> None:
    b = numpyro.sample("b", dist.Bernoulli(probs=jnp.array([0.3, 0.5, 0.6])))
    numpyro.factor("cost", vector_cost(b))


def vector_cost(b: Any) -> jax.Array:
    return (b[0] + 0.7 * b[1] * b[2] - 0.8 * b[1]) ** 2 + jnp.sin(1.0 * (b[0] + b[1] + b[2]))


def vector_objective(strategy: Any, power: float = 0.0) -> vi.Objective:
    """The bound, or with `power` the expectation of a power of the density ratio."""

    @vi.expectation
    def objective(p: jax.Array) -> Any:
        trace, log_q = vi.simulate(vector_guide, p, strategy)
        bound = vi.log_density(vector_model, trace, p) - log_q
        return jnp.exp(power * bound.total) if power else bound

    return objective


def vector_exact(p: jax.Array, power: float = 0.0) -> jax.Array:
    prior = (np.log([0.7, 0.3]), np.log([0.5, 0.5]), np.log([0.4, 0.6]))
    logits, total = _logits(p), jnp.zeros(())
    for b in itertools.product((0, 1), repeat=3):
        log_q = sum(log_bernoulli(logits[i], b[i]) for i in range(3))
        bound = sum(prior[i][b[i]] for i in range(3)) + vector_cost(b) - log_q
        total += jnp.exp(log_q) * (jnp.exp(power * bound) if power else bound)
    return total


def power_exact(p: jax.Array) -> jax.Array:
    return vector_exact(p, 0.3)


ROWS = 4
Y = np.array([0.4, -1.1, 1.3, 0.2])


def pairs_guide(p: jax.Array, strategy: Any) -> None:
    """A plate of pairs."""
    with numpyro.plate("rows", ROWS):
        logits = _pair_logits(p)
        numpyro.sample("c", given(dist.Bernoulli(logits=logits).to_event(1), strategy))


def _pair_logits(p):
    return jnp.stack([p[0] + p[2] * Y, p[1] - p[2] * Y], axis=-1)


def pairs_model(p: jax.Array) -> None:
    with numpyro.plate("rows", ROWS):
        distribution = dist.Bernoulli(probs=jnp.array([0.3, 0.6])).to_event(1)
        c = jnp.asarray(numpyro.sample("c", distribution))
        numpyro.sample("y", dist.Normal(_pair_mean(c[..., 0], c[..., 1]), 0.8), obs=jnp.asarray(Y))


def _pair_mean(first, second):
    return 2.0 * first * second - second


def pairs_objective(strategy: Any) -> vi.Objective:
    return vi.elbo(pairs_model, lambda p: pairs_guide(p, strategy))


def pairs_exact(p: jax.Array) -> jax.Array:
    logits, total = _pair_logits(p), jnp.zeros(())
    for first, second in itertools.product((0, 1), repeat=2):
        log_q = log_bernoulli(logits[:, 0], first) + log_bernoulli(logits[:, 1], second)
        prior = np.log((0.7, 0.3)[first]) + np.log((0.4, 0.6)[second])
        likelihood = log_normal(jnp.asarray(Y), _pair_mean(first, second), 0.8)
        total += jnp.sum(jnp.exp(log_q) * (prior + likelihood - log_q))
    return total


def cells() -> list[Cell]:
    point = jnp.array(POINT)
    names = ("enum lanes", "leg lanes", "mvd lanes", "disarm", "rloo 3", "reinforce", "importance")
    rows = [
        Cell(
            "3 coupled elements",
            name,
            vector_objective(STRATEGIES[name]),
            vector_exact,
            point,
            quick=name in ("mvd lanes", "disarm"),
        )
        for name in names
    ]
    rows += [
        Cell(
            "power of the weight",
            name,
            vector_objective(STRATEGIES[name], 0.3),
            power_exact,
            point,
            quick=name == "reinforce",
        )
        for name in ("reinforce", "disarm", "leg lanes")
    ]
    rows += [
        Cell(
            "plate of pairs",
            name,
            pairs_objective(STRATEGIES[name]),
            pairs_exact,
            point,
            quick=name == "enum lanes",
        )
        for name in ("enum lanes", "leg lanes", "mvd lanes", "disarm", "rloo", "reinforce")
    ]
    return rows
