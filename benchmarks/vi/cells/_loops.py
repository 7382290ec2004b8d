"""NumPyro's scan and cond: a hidden Markov model, and branches with different distributions."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.contrib.control_flow import cond, scan

from bayesjx import vi

from ._cell import Cell, given, log_bernoulli, log_normal, STRATEGIES

T = 4
Y = np.array([2.1, 0.5, 1.2, -0.7])
POINT = (0.2, -0.3, 0.6)


def hmm_guide(p: jax.Array, step_strategy: Any, start_strategy: Any = None) -> None:
    """Without `start_strategy` the chain starts at 0, else at a site before the loop."""
    if start_strategy is None:
        start: Any = jnp.array(0)
    else:
        start = numpyro.sample("b0", given(dist.Bernoulli(logits=p[1]), start_strategy))

    def step(previous: Any, _: Any) -> Any:
        distribution = dist.Bernoulli(logits=p[0] + p[1] * previous)
        state = numpyro.sample("b", given(distribution, step_strategy))
        return state, state

    scan(step, start, jnp.arange(T))


def hmm_model(p: jax.Array, with_start: bool = False) -> None:
    start: Any = jnp.array(0)
    if with_start:
        start = numpyro.sample("b0", dist.Bernoulli(probs=0.4))

    def step(previous: Any, y: Any) -> Any:
        state = numpyro.sample("b", dist.Bernoulli(probs=0.3 + 0.4 * previous))
        numpyro.sample("y", dist.Normal(p[2] * state, 1.0), obs=y)
        return state, None

    scan(step, start, jnp.asarray(Y))


def hmm_objective(step_strategy: Any, start_strategy: Any = None) -> vi.Objective:
    @vi.expectation
    def elbo(p: jax.Array) -> vi.Cost:
        trace, log_q = vi.simulate(hmm_guide, p, step_strategy, start_strategy)
        return vi.log_density(hmm_model, trace, p, start_strategy is not None) - log_q

    return elbo


def hmm_exact(p: jax.Array, with_start: bool = False) -> jax.Array:
    total = jnp.zeros(())
    for states in itertools.product((0, 1), repeat=T + 1):
        if states[0] and not with_start:
            continue
        log_q = log_p = jnp.zeros(())
        if with_start:
            log_q += log_bernoulli(p[1], states[0])
            log_p += np.log((0.6, 0.4)[states[0]])
        for previous, state, y in zip(states, states[1:], Y, strict=False):
            prob = 0.3 + 0.4 * previous
            log_q += log_bernoulli(p[0] + p[1] * previous, state)
            log_p += np.log(prob if state else 1 - prob) + log_normal(y, p[2] * state, 1.0)
        total += jnp.exp(log_q) * (log_p - log_q)
    return total


def started_exact(p: jax.Array) -> jax.Array:
    return hmm_exact(p, with_start=True)


ROWS = np.array([[2.1, 0.5, 1.2, -0.7], [0.3, -0.5, 1.0, 0.9], [-1.2, 0.1, 0.4, 2.0]])


def rows_guide(p: jax.Array, strategy: Any) -> None:
    """Independent chains: a plate inside a scan, as NumPyro wants it."""

    def step(previous: Any, _: Any) -> Any:
        with numpyro.plate("rows", len(ROWS)):
            distribution = dist.Bernoulli(logits=p[0] + p[1] * previous)
            state = numpyro.sample("b", given(distribution, strategy))
        return state, state

    scan(step, jnp.zeros(len(ROWS), int), jnp.arange(T))


def rows_model(p: jax.Array) -> None:
    def step(previous: Any, y: Any) -> Any:
        with numpyro.plate("rows", len(ROWS)):
            state = numpyro.sample("b", dist.Bernoulli(probs=0.3 + 0.4 * previous))
            numpyro.sample("y", dist.Normal(p[2] * state, 1.0), obs=y)
        return state, None

    scan(step, jnp.zeros(len(ROWS), int), jnp.asarray(ROWS).T)


def rows_objective(strategy: Any) -> vi.Objective:
    return vi.elbo(rows_model, lambda p: rows_guide(p, strategy))


def rows_exact(p: jax.Array) -> jax.Array:
    total = jnp.zeros(())
    for row in ROWS:
        for states in itertools.product((0, 1), repeat=T):
            log_q = log_p = jnp.zeros(())
            for previous, state, y in zip((0, *states), states, row, strict=False):
                prob = 0.3 + 0.4 * previous
                log_q += log_bernoulli(p[0] + p[1] * previous, state)
                log_p += np.log(prob if state else 1 - prob) + log_normal(y, p[2] * state, 1.0)
            total += jnp.exp(log_q) * (log_p - log_q)
    return total


def walk_objective(strategy: Any) -> vi.Objective:
    """A random walk of normal steps in a scan, reparameterised or not."""

    def guide(p: jax.Array) -> None:
        def step(x: Any, _: Any) -> Any:
            x = numpyro.sample("x", given(dist.Normal(p[0] + 0.5 * x, jnp.exp(p[1])), strategy))
            return x, x

        scan(step, jnp.zeros((), p.dtype), jnp.arange(3))

    def model(p: jax.Array) -> None:
        def step(x: Any, y: Any) -> Any:
            x = numpyro.sample("x", dist.Normal(0.8 * x, 1.0))
            numpyro.sample("y", dist.Normal(x, 0.5), obs=y)
            return x, None

        scan(step, jnp.zeros((), p.dtype), jnp.asarray(Y[:3]))

    return vi.elbo(model, guide)


def walk_exact(p: jax.Array) -> jax.Array:
    """Quadratic in normals: means and variances of the walk are enough."""
    var_step = jnp.exp(2 * p[1])
    mean, var, total = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
    for y in Y[:3]:
        next_mean, next_var = p[0] + 0.5 * mean, 0.25 * var + var_step
        # x' - 0.8 x = p0 - 0.3 x + step
        square = (p[0] - 0.3 * mean) ** 2 + 0.09 * var + var_step
        total += -0.5 * square - 0.5 * jnp.log(2 * jnp.pi)
        total += -0.5 * ((next_mean - y) ** 2 + next_var) / 0.25 - jnp.log(0.5)
        total += -0.5 * jnp.log(2 * jnp.pi)
        total += p[1] + 0.5 * jnp.log(2 * jnp.pi) + 0.5
        mean, var = next_mean, next_var
    return total


def branch_objective(strategy: Any) -> vi.Objective:
    """A score-function site that decides a `cond` with another one in both branches."""

    def guide(p: jax.Array) -> None:
        a: Any = numpyro.sample("a", vi.reinforce(dist.Bernoulli(logits=p[0])))

        def left(x: Any) -> Any:
            return numpyro.sample("b", given(dist.Bernoulli(logits=p[1]), strategy))

        def right(x: Any) -> Any:
            return numpyro.sample("b", given(dist.Bernoulli(logits=p[2] - 0.5), strategy))

        cond(a == 1, left, right, jnp.zeros(()))

    def model(p: jax.Array) -> None:
        a = numpyro.sample("a", dist.Bernoulli(probs=0.3))
        b = numpyro.sample("b", dist.Bernoulli(probs=0.2 + 0.5 * a))
        numpyro.sample("y", dist.Normal(a + 2.0 * a * b - b, 1.0), obs=jnp.asarray(1.3))

    return vi.elbo(model, guide)


def branch_exact(p: jax.Array) -> jax.Array:
    total = jnp.zeros(())
    for a, b in itertools.product((0, 1), repeat=2):
        log_q = log_bernoulli(p[0], a) + log_bernoulli(p[1] if a else p[2] - 0.5, b)
        prob = 0.2 + 0.5 * a
        log_p = np.log((0.7, 0.3)[a]) + np.log(prob if b else 1 - prob)
        log_p += log_normal(1.3, a + 2.0 * a * b - b, 1.0)
        total += jnp.exp(log_q) * (log_p - log_q)
    return total


def cells() -> list[Cell]:
    point = jnp.array(POINT)
    rows = [
        Cell("scan", name, hmm_objective(STRATEGIES[name]), hmm_exact, point, name in _QUICK)
        for name in ("reinforce", "enum lanes", "leg lanes", "mvd lanes")
    ]
    rows += [
        Cell("scan after a site", f"{name}, {step}", _started(name, step), started_exact, point)
        for name, step in (("reinforce", "reinforce"), ("enum", "reinforce"), ("mvd", "leg lanes"))
    ]
    rows += [
        Cell("plate in a scan", name, rows_objective(STRATEGIES[name]), rows_exact, point)
        for name in ("reinforce", "enum lanes")
    ]
    start = jnp.array([0.3, -0.5])
    rows += [
        Cell("walk in a scan", name, walk_objective(STRATEGIES[name]), walk_exact, start)
        for name in ("reparam", "reinforce", "mvd lanes")
    ]
    rows += [
        Cell("cond", name, branch_objective(STRATEGIES[name]), branch_exact, point, name in _QUICK)
        for name in ("reinforce", "enum", "leg", "mvd", "disarm", "rloo", "importance")
    ]
    return rows


_QUICK = ("enum lanes", "reinforce")


def _started(start: str, step: str) -> vi.Objective:
    return hmm_objective(STRATEGIES[step], STRATEGIES[start])
