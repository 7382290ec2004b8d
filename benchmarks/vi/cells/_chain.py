"""A normal and four discrete sites, each feeding all later ones; the cost couples all five."""

from __future__ import annotations

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist

from bayesjx import vi

from ._cell import Cell, gauss_hermite, given, log_bernoulli, log_normal, STRATEGIES

# Two logits are exactly zero at some draws, where NumPyro 0.22's own score is wrong.
POINT = (0.3, -0.2, 0.4, 0.1, -0.3, 0.5)
SITES = ("z", "b1", "b2", "c", "b3")

MIXTURES = (
    ("reparam", "reinforce", "reinforce", "reinforce", "reinforce"),
    ("reparam", "mvd", "mvd", "enum", "disarm"),
    ("reparam", "enum", "enum", "enum", "enum"),
    ("reparam", "reinforce", "enum", "rloo 3", "mvd"),
    ("reparam", "disarm", "reinforce", "reinforce", "enum"),
    ("reparam", "rloo 3", "disarm", "enum", "reinforce"),
    ("reparam", "leg", "leg", "leg", "leg"),
    ("reparam", "importance", "leg", "importance", "mvd"),
    ("mvd", "enum", "mvd", "leg", "reinforce"),
    ("reinforce", "reinforce", "disarm", "rloo", "leg"),
)
QUICK = frozenset({1})


def guide(p: jax.Array, strategies: Any) -> None:
    z_, b1_, b2_, c_, b3_ = strategies
    z = numpyro.sample("z", given(dist.Normal(p[0], jnp.exp(p[1])), z_))
    b1 = numpyro.sample("b1", given(dist.Bernoulli(logits=p[2]), b1_))
    b2 = numpyro.sample("b2", given(dist.Bernoulli(logits=p[3] + 0.7 * b1 - 0.3 * z), b2_))
    c = numpyro.sample("c", given(dist.Categorical(logits=_c_logits(p, z, b1, b2)), c_))
    numpyro.sample("b3", given(dist.Bernoulli(logits=p[5] * c - b2), b3_))


def _c_logits(p, z, b1, b2):
    return jnp.stack(jnp.broadcast_arrays(p[4] + b1, 0.3 * b2, 0.2 * z), axis=-1)


def cost(z: Any, b1: Any, b2: Any, c: Any, b3: Any) -> jax.Array:
    return 0.5 * (z * b1 - b2 * c) ** 2 + jnp.sin(z + b3) * c + b1 * b3


def objective(strategies: Any) -> vi.Objective:
    @vi.expectation
    def chain(p: jax.Array) -> vi.Cost:
        trace, log_q = vi.simulate(guide, p, strategies)
        return cost(*(trace[name] for name in SITES)) + 0.3 * log_q

    return chain


def exact(p: jax.Array) -> jax.Array:
    scale = jnp.exp(p[1])
    z, weights = gauss_hermite(p[0], scale)
    log_z = log_normal(z, p[0], scale)
    total = jnp.zeros(())
    for b1, b2, c, b3 in itertools.product((0, 1), (0, 1), (0, 1, 2), (0, 1)):
        log_q = (
            log_bernoulli(p[2], b1)
            + log_bernoulli(p[3] + 0.7 * b1 - 0.3 * z, b2)
            + jax.nn.log_softmax(_c_logits(p, z, b1, b2))[:, c]
            + log_bernoulli(p[5] * c - b2, b3)
        )
        total += weights @ (jnp.exp(log_q) * (cost(z, b1, b2, c, b3) + 0.3 * (log_q + log_z)))
    return total


def strategies_of(names: tuple[str, ...]) -> list[Any]:
    """Strategies by name; importance sampling of the three-way site draws uniformly."""
    chosen = [STRATEGIES[name] for name in names]
    if names[3] == "importance":
        chosen[3] = vi.importance(proposal=dist.Categorical(logits=jnp.zeros(3)))
    return chosen


def cells() -> list[Cell]:
    return [
        Cell(
            "chain",
            ", ".join(f"{site} {name}" for site, name in zip(SITES, names, strict=True)),
            objective(strategies_of(names)),
            exact,
            jnp.array(POINT),
            quick=i in QUICK,
        )
        for i, names in enumerate(MIXTURES)
    ]
