"""Single sites: normals with a smooth cost and with a jump, Poisson, one-hot, two runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import gammaln, ndtr

from bayesjx import vi
from bayesjx.distributions import OneHotCategorical

from ._cell import Cell, gauss_hermite, given, log_normal, STRATEGIES

Strategy = Any


def _one_site(
    distribution: Callable[[jax.Array], dist.Distribution],
    strategy: Strategy,
    cost: Callable[..., Any],
) -> vi.Objective:
    def guide(p: jax.Array) -> None:
        numpyro.sample("x", given(distribution(p), strategy))

    @vi.expectation
    def objective(p: jax.Array) -> vi.Cost:
        trace, log_q = vi.simulate(guide, p)
        return cost(trace["x"]) + 0.2 * log_q

    return objective


def _normal(p: jax.Array) -> dist.Normal:
    return dist.Normal(p[0], jnp.exp(p[1]))


def smooth(x: Any) -> jax.Array:
    return jnp.sin(2 * x) + 0.3 * x**2


def smooth_exact(p: jax.Array) -> jax.Array:
    scale = jnp.exp(p[1])
    x, weights = gauss_hermite(p[0], scale)
    return weights @ (smooth(x) + 0.2 * log_normal(x, p[0], scale))


def jump(x: Any) -> jax.Array:
    """Zero derivative wherever it has one: the pathwise gradient would be zero."""
    return 1.0 * (x > 0.4) + 0.5 * (x < -1.0)


def jump_exact(p: jax.Array) -> jax.Array:
    scale = jnp.exp(p[1])
    log_q = -jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi) - 0.5
    return ndtr((p[0] - 0.4) / scale) + 0.5 * ndtr((-1.0 - p[0]) / scale) + 0.2 * log_q


def _poisson(p: jax.Array) -> dist.Poisson:
    return dist.Poisson(jnp.exp(p[0]))


def count_cost(x: Any) -> jax.Array:
    return 0.1 * (x - 2.0) ** 2 + jnp.sin(1.0 * x)


def count_exact(p: jax.Array) -> jax.Array:
    x = jnp.arange(80.0)  # the rest has a probability below 1e-60
    log_q = x * p[0] - jnp.exp(p[0]) - gammaln(x + 1)
    return jnp.exp(log_q) @ (count_cost(x) + 0.2 * log_q)


_TABLE = np.array([[0.5, -1.0, 2.0], [1.5, 0.3, -0.7], [0.1, 0.9, 0.4]])


def _one_hot(p: jax.Array) -> OneHotCategorical:
    return OneHotCategorical(logits=p)


def one_hot_objective(strategy: Strategy) -> vi.Objective:
    """Three one-hot vectors in a plate, each with its own costs."""

    def guide(p: jax.Array) -> None:
        with numpyro.plate("rows", 3):
            numpyro.sample("x", given(_one_hot(p * jnp.arange(1.0, 4.0)[:, None]), strategy))

    def costs(trace: vi.Trace) -> None:
        with numpyro.plate("rows", 3):
            numpyro.factor("costs", jnp.sum(trace["x"] * _TABLE, axis=-1) ** 2)

    @vi.expectation
    def objective(p: jax.Array) -> vi.Cost:
        trace, log_q = vi.simulate(guide, p)
        return vi.log_density(lambda: costs(trace), {}) - 0.5 * log_q

    return objective


def one_hot_exact(p: jax.Array) -> jax.Array:
    log_q = jax.nn.log_softmax(p * jnp.arange(1.0, 4.0)[:, None])
    return jnp.sum(jnp.exp(log_q) * (_TABLE**2 - 0.5 * log_q))


def two_runs_objective(strategy: Strategy) -> vi.Objective:
    """The same program run twice: two independent draws of a site of one name."""

    def guide(p: jax.Array) -> None:
        numpyro.sample("b", given(dist.Bernoulli(logits=p[0]), strategy))

    @vi.expectation
    def objective(p: jax.Array) -> jax.Array:
        first, _ = vi.simulate(guide, p)
        second, _ = vi.simulate(guide, p)
        return (first["b"] - 0.3) * (second["b"] + p[1])

    return objective


def two_runs_exact(p: jax.Array) -> jax.Array:
    prob = jax.nn.sigmoid(p[0])
    return (prob - 0.3) * (prob + p[1])


def cells() -> list[Cell]:
    normal, rate = jnp.array([0.3, -0.4]), jnp.array([0.8])
    rows = [
        Cell(
            "normal, smooth cost",
            name,
            _one_site(_normal, STRATEGIES[name], smooth),
            smooth_exact,
            normal,
        )
        for name in ("reparam", "mvd", "reinforce", "rloo")
    ]
    rows += [
        Cell(
            "normal, cost with jumps",
            name,
            _one_site(_normal, strategy, jump),
            jump_exact,
            normal,
            quick=name == "mvd",
        )
        for name, strategy in (
            ("mvd", STRATEGIES["mvd"]),
            ("reinforce", STRATEGIES["reinforce"]),
            ("importance", vi.importance(proposal=dist.Normal(0.0, 1.5))),
        )
    ]
    rows += [
        Cell(
            "Poisson",
            name,
            _one_site(_poisson, strategy, count_cost),
            count_exact,
            rate,
            quick=name in ("importance", "rloo 3"),
        )
        for name, strategy in (
            ("mvd", STRATEGIES["mvd"]),
            ("reinforce", STRATEGIES["reinforce"]),
            ("rloo 3", STRATEGIES["rloo 3"]),
            ("importance", vi.importance(proposal=dist.Poisson(4.0))),
        )
    ]
    logits = jnp.array([0.2, -0.5, 0.1])
    rows += [
        Cell(
            "one-hot plate",
            name,
            one_hot_objective(STRATEGIES[name]),
            one_hot_exact,
            logits,
            quick=name == "enum",
        )
        for name in ("enum", "leg", "reinforce")
    ]
    rows += [
        Cell(
            "program run twice",
            name,
            two_runs_objective(STRATEGIES[name]),
            two_runs_exact,
            jnp.array([0.4, 0.2]),
            quick=name == "reinforce",
        )
        for name in ("reinforce", "disarm", "enum")
    ]
    return rows
