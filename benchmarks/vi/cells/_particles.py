"""Importance-weighted bounds and averages over particles."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp

from bayesjx import vi

from ._cell import Cell, gauss_hermite, given, log_bernoulli, log_normal, STRATEGIES

POINT = (-0.3,)
PRIOR = float(np.log(0.3 / 0.7))
Y = np.array([1.0, 0.2])


def model(p: jax.Array) -> None:
    b = numpyro.sample("b", dist.Bernoulli(logits=PRIOR))
    numpyro.sample("y", dist.Normal(1.5 * b, 1.0), obs=jnp.asarray(Y[0]))


def guide(p: jax.Array, strategy: Any) -> None:
    numpyro.sample("b", given(dist.Bernoulli(logits=p[0]), strategy))


def log_weight(p: jax.Array, b: Any, y: Any) -> jax.Array:
    return log_bernoulli(PRIOR, b) + log_normal(y, 1.5 * b, 1.0) - log_bernoulli(p[0], b)


def bound_objective(strategy: Any, num_particles: int) -> vi.Objective:
    return vi.iwelbo(model, lambda p: guide(p, strategy), num_particles)


def plain_objective(strategy: Any, num_particles: int) -> vi.Objective:
    """The bound by hand, so that its score sites get no baselines."""

    @vi.expectation
    def objective(p: jax.Array) -> jax.Array:
        weights = vi.particles(num_particles)(lambda: _weight(p, strategy).total)()
        return logsumexp(weights) - jnp.log(num_particles)

    return objective


def mean_objective(strategy: Any, num_particles: int) -> vi.Objective:
    """The plain bound, averaged over particles."""

    @vi.expectation
    def objective(p: jax.Array) -> vi.Cost:
        return vi.particles(num_particles)(lambda: _weight(p, strategy))() / num_particles

    return objective


def nested_objective(strategy: Any) -> vi.Objective:
    """Twice the bound of three particles, averaged."""

    @vi.expectation
    def objective(p: jax.Array) -> vi.Cost:
        def bound() -> vi.Cost:
            return vi.log_mean_exp(vi.particles(3)(lambda: _weight(p, strategy))())

        return vi.particles(2)(bound)() / 2

    return objective


def _weight(p, strategy):
    trace, log_q = vi.simulate(guide, p, strategy)
    return vi.log_density(model, trace, p) - log_q


@cache
def bound_exact(num_particles: int) -> Callable[[jax.Array], jax.Array]:
    def exact(p: jax.Array) -> jax.Array:
        total = jnp.zeros(())
        for draws in itertools.product((0, 1), repeat=num_particles):
            log_q = sum(log_bernoulli(p[0], b) for b in draws)
            weights = jnp.stack([log_weight(p, b, Y[0]) for b in draws])
            total += jnp.exp(log_q) * (logsumexp(weights) - jnp.log(num_particles))
        return total

    return exact


def plate_model(p: jax.Array, batch: int | None = None) -> None:
    with numpyro.plate("N", 2, subsample_size=batch) as index:
        b = numpyro.sample("b", dist.Bernoulli(logits=PRIOR))
        numpyro.sample("y", dist.Normal(1.5 * b, 1.0), obs=jnp.asarray(Y)[index])


def plate_guide(p: jax.Array, strategy: Any, batch: int | None = None) -> None:
    with numpyro.plate("N", 2, subsample_size=batch):
        numpyro.sample("b", given(dist.Bernoulli(logits=p[0]), strategy))


def plate_objective(strategy: Any, local: bool, batch: int | None = None) -> vi.Objective:
    return vi.iwelbo(
        lambda p: plate_model(p, batch),
        lambda p: plate_guide(p, strategy, batch),
        2,
        local_plate="N" if local else None,
    )


def plate_exact(p: jax.Array, local: bool) -> jax.Array:
    """Two particles of two elements: all sixteen outcomes."""
    total = jnp.zeros(())
    for draws in itertools.product(itertools.product((0, 1), repeat=2), repeat=2):
        log_q = sum(log_bernoulli(p[0], b) for particle in draws for b in particle)
        weights = jnp.stack(
            [jnp.stack([log_weight(p, b, y) for b, y in zip(k, Y, strict=True)]) for k in draws]
        )
        bounds = logsumexp(weights if local else weights.sum(axis=1), axis=0) - jnp.log(2.0)
        total += jnp.exp(log_q) * jnp.sum(bounds)
    return total


def joint_exact(p: jax.Array) -> jax.Array:
    return plate_exact(p, local=False)


def local_exact(p: jax.Array) -> jax.Array:
    return plate_exact(p, local=True)


def mixed_objective(strategy: Any) -> vi.Objective:
    """Two particles of a score-function flag and a normal that depends on it."""

    def mixed_model(p: jax.Array) -> None:
        b = numpyro.sample("b", dist.Bernoulli(logits=PRIOR))
        z = numpyro.sample("z", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(1.5 * b + z, 1.0), obs=jnp.asarray(Y[0]))

    def mixed_guide(p: jax.Array) -> None:
        b = numpyro.sample("b", given(dist.Bernoulli(logits=p[0]), strategy))
        numpyro.sample("z", dist.Normal(p[1] * (1 - b), jnp.exp(p[2])))

    return vi.iwelbo(mixed_model, mixed_guide, 2)


def mixed_exact(p: jax.Array) -> jax.Array:
    scale, total = jnp.exp(p[2]), jnp.zeros(())
    for first, second in itertools.product((0, 1), repeat=2):
        log_weights, rules = [], []
        for b in (first, second):
            z, rule = gauss_hermite(p[1] * (1 - b), scale)
            rules.append(rule)
            likelihood = log_normal(Y[0], 1.5 * b + z, 1.0) + log_normal(z, 0.0, 1.0)
            log_q = log_bernoulli(p[0], b) + log_normal(z, p[1] * (1 - b), scale)
            log_weights.append(log_bernoulli(PRIOR, b) + likelihood - log_q)
        bound = jnp.logaddexp(log_weights[0][:, None], log_weights[1][None]) - jnp.log(2.0)
        prob = jnp.exp(log_bernoulli(p[0], first) + log_bernoulli(p[0], second))
        total += prob * (rules[0] @ bound @ rules[1])
    return total


def cells() -> list[Cell]:
    point, rf = jnp.array(POINT), STRATEGIES["reinforce"]
    rows = [
        Cell(
            "bound of 3 particles",
            name,
            bound_objective(STRATEGIES[name], 3),
            bound_exact(3),
            point,
            quick=name == "disarm",
        )
        for name in ("reinforce", "enum lanes", "leg lanes", "mvd lanes", "disarm", "rloo")
    ]
    rows += [
        Cell("the same by hand", "reinforce", plain_objective(rf, 3), bound_exact(3), point),
        Cell("bounds of 3, averaged", "reinforce", nested_objective(rf), bound_exact(3), point),
        Cell(
            "bound of 2, normal and flag",
            "reparam, reinforce",
            mixed_objective(rf),
            mixed_exact,
            jnp.array([-0.3, 0.4, -0.2]),
        ),
    ]
    rows += [
        Cell("bound of a plate", "reinforce", plate_objective(rf, False), joint_exact, point),
        Cell("bound per element", "reinforce", plate_objective(rf, True), local_exact, point, True),
        Cell("bound per element", "disarm", plate_objective(vi.disarm(), True), local_exact, point),
        Cell(
            "bound per element, 1 of 2",
            "reinforce",
            plate_objective(rf, True, 1),
            local_exact,
            point,
        ),
    ]
    rows += [
        Cell(
            "average of 4 particles",
            name,
            mean_objective(STRATEGIES[name], 4),
            bound_exact(1),
            point,
            quick=name in ("enum", "disarm"),
        )
        for name in ("reinforce", "enum", "leg", "mvd", "disarm", "rloo", "importance")
    ]
    return rows
