"""A mixture with a global mean: a plate of eight, whole and subsampled."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist

from bayesjx import vi

from ._cell import Cell, gauss_hermite, given, log_bernoulli, log_normal, STRATEGIES

N, B = 8, 2
Y = np.array([2.1, 0.5, 1.2, 2.7, 2.2, -1.2, 1.1, -0.2])
MASK = np.array([1, 1, 0, 1, 0, 1, 1, 0], bool)
POINT = (0.2, -0.3, 0.6)
PRIOR = float(np.log(0.4 / 0.6))


def model(p: jax.Array, batch: int | None = None, mask: Any = True) -> None:
    mu = numpyro.sample("mu", dist.Normal(0.0, 1.0))
    with numpyro.plate("N", N, subsample_size=batch) as index:
        c = numpyro.sample("c", dist.Bernoulli(logits=PRIOR).mask(_part(mask, index)))
        numpyro.sample(
            "y", dist.Normal(mu + 2.0 * c - 1.0, 0.8), obs=jnp.asarray(Y, p.dtype)[index]
        )


def guide(
    p: jax.Array,
    strategy: Any,
    batch: int | None = None,
    mask: Any = True,
    mu_strategy: Any = None,
    infer: dict[str, Any] | None = None,
) -> None:
    mu = numpyro.sample("mu", given(dist.Normal(p[0], 0.5), mu_strategy))
    with numpyro.plate("N", N, subsample_size=batch) as index:
        logits = p[1] + p[2] * (jnp.asarray(Y, p.dtype)[index] - mu)
        d = given(dist.Bernoulli(logits=logits).mask(_part(mask, index)), strategy)
        numpyro.sample("c", d, infer=infer)


def _part(mask, index):
    return mask if mask is True else jnp.asarray(mask)[index]


def objective(
    strategy: Any, batch: int | None = None, mask: Any = True, total: bool = False, **options: Any
) -> vi.Objective:
    @vi.expectation
    def elbo(p: jax.Array) -> Any:
        trace, log_q = vi.simulate(guide, p, strategy, batch, mask, **options)
        bound = vi.log_density(model, trace, p, batch, mask) - log_q
        return bound.total if total else bound

    return elbo


def exact_with(mask: Any = True) -> Callable[[jax.Array], jax.Array]:
    kept = np.broadcast_to(mask, (N,)).astype(float)

    def exact(p: jax.Array) -> jax.Array:
        mu, weights = gauss_hermite(p[0], 0.5)
        total = log_normal(mu, 0.0, 1.0) - log_normal(mu, p[0], 0.5)
        for n, c in itertools.product(range(N), (0, 1)):
            log_q = log_bernoulli(p[1] + p[2] * (Y[n] - mu), c)
            prior = kept[n] * (log_bernoulli(PRIOR, c) - log_q)
            total += jnp.exp(log_q) * (prior + log_normal(Y[n], mu + 2 * c - 1, 0.8))
        return weights @ total

    return exact


exact = exact_with()


def learned_objective() -> vi.Objective:
    """A baseline that is a fourth parameter, trained beside the others."""

    @vi.expectation
    def elbo(p: jax.Array) -> vi.Cost:
        strategy = vi.reinforce(baseline=vi.LearnedBaseline(p[3]))
        trace, log_q = vi.simulate(guide, p, strategy)
        return vi.log_density(model, trace, p) - log_q

    return elbo


def learned_exact(p: jax.Array) -> jax.Array:
    """The bound, and minus half the expected squared error of the baseline (gradient only)."""
    bound = exact(p)
    mu, weights = gauss_hermite(p[0], 0.5)
    local = bound - weights @ (log_normal(mu, 0.0, 1.0) - log_normal(mu, p[0], 0.5))
    loss = 0.5 * N * p[3] ** 2 - p[3] * jax.lax.stop_gradient(local)
    return bound - loss + jax.lax.stop_gradient(loss)


def cells() -> list[Cell]:
    point = jnp.array(POINT)
    names = ("reinforce", "rloo", "mvd", "disarm", "leg", "enum", "importance")
    rows = [
        Cell("plate of 8", name, objective(STRATEGIES[name]), exact, point, name in _QUICK)
        for name in names
    ]
    rows += [
        Cell(
            "subsampled 2 of 8", name, objective(STRATEGIES[name], B), exact, point, name in _QUICK
        )
        for name in names[:-1]
    ]
    rf, enum, mvd = (STRATEGIES[name] for name in ("reinforce", "enum", "mvd"))
    rows += [
        Cell("plate, scalar cost", "reinforce", objective(rf, total=True), exact, point),
        Cell("2 of 8", "enum by infer=", _by_infer(B), exact, point),
        Cell("plate", "mu mvd, c enum", objective(enum, mu_strategy=mvd), exact, point),
        Cell("plate", "mu reinforce, c disarm", _mixed("reinforce", "disarm"), exact, point),
        Cell("2 of 8", "mu rloo, c reinforce", _mixed("rloo", "reinforce", B), exact, point),
        Cell(
            "plate",
            "reinforce, constant baseline",
            objective(vi.reinforce(baseline=-2.0)),
            exact,
            point,
        ),
        Cell(
            "plate",
            "reinforce, moving average",
            objective(vi.reinforce(baseline=vi.EMA())),
            exact,
            point,
            quick=True,
            states={"0/c": jnp.asarray(-1.5)},
        ),
        Cell(
            "plate",
            "reinforce, learned baseline",
            learned_objective(),
            learned_exact,
            jnp.append(point, -1.0),
            quick=True,
        ),
    ]
    masked = exact_with(MASK)
    rows += [
        Cell("masked plate", name, objective(STRATEGIES[name], None, MASK), masked, point, i == 0)
        for i, name in enumerate(("reinforce", "enum", "mvd", "disarm"))
    ]
    rows.append(Cell("masked, 2 of 8", "leg", objective(vi.leg(), B, MASK), masked, point))
    return rows


_QUICK = frozenset({"reinforce", "mvd", "leg"})


def _by_infer(batch: int) -> vi.Objective:
    return objective(None, batch, infer={"strategy": vi.enum()})


def _mixed(mu: str, c: str, batch: int | None = None) -> vi.Objective:
    return objective(STRATEGIES[c], batch, mu_strategy=STRATEGIES[mu])
