"""Varying-intercept, varying-slope regression: how 11 firms invest (Grunfeld's panel).

All latents are continuous, so every one of them may be reparameterised; here they also meet other
unbiased estimators, other objectives and NumPyro's automatic guides.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import init_to_median
from numpyro.infer.autoguide import AutoMultivariateNormal
from statsmodels.datasets import grunfeld

from bayesjx import vi

from ._study import (
    against,
    Choice,
    normals,
    Problem,
    quality,
    Report,
    Row,
    run_all,
    Strategies,
    Study,
)

EFFECTS = ["level", "slope"]
LATENTS = ["mean", "log_spread", "log_noise", "coef"]


def load() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Firms, capital stock and investment (millions of dollars), shape (firm, year)."""
    table = grunfeld.load_pandas().data
    capital = table.pivot(index="firm", columns="year", values="capital")
    invest = table.pivot(index="firm", columns="year", values="invest")
    return list(invest.index), capital.values, invest.values


def model(params: Any, x: jax.Array, y: jax.Array) -> None:
    """Every firm has its own level and slope; both are drawn from a population of firms."""
    effects = numpyro.plate("effect", 2, dim=-1)
    with effects:
        mean = numpyro.sample("mean", dist.Normal(jnp.array([4.0, 0.5]), jnp.array([2.0, 1.0])))
        log_spread = numpyro.sample("log_spread", dist.Normal(jnp.array([0.0, -1.0]), 1.0))
    log_noise = numpyro.sample("log_noise", dist.Normal(-1.0, 1.0))
    with numpyro.plate("firm", x.shape[0], dim=-2):
        with effects:
            coef: Any = numpyro.sample("coef", dist.Normal(mean, jnp.exp(log_spread)))
        level, slope = coef[:, :1], coef[:, 1:]
        with numpyro.plate("year", x.shape[1], dim=-1):
            numpyro.sample("y", dist.Normal(level + slope * x, jnp.exp(log_noise)), obs=y)


def guide(strategies: Strategies) -> Callable[..., None]:
    """Independent Normals, each with the gradient strategy that it is given."""

    def program(params: Any, x: jax.Array, y: jax.Array) -> None:
        def sample(name: str) -> Any:
            distribution = dist.Normal(params[name]["loc"], jnp.exp(params[name]["log_scale"]))
            return numpyro.sample(name, strategies.get(name, vi.reparam)(distribution))

        effects = numpyro.plate("effect", 2, dim=-1)
        with effects:
            sample("mean")
            sample("log_spread")
        sample("log_noise")
        with numpyro.plate("firm", x.shape[0], dim=-2), effects:
            sample("coef")

    return program


def renyi(model: Any, guide: Any, num_particles: int = 8, alpha: float = 0.5) -> vi.Objective:
    """Rényi's bound, between the ELBO (alpha = 1) and IWELBO (alpha = 0). Not in the library:
    this is all that it takes."""

    @vi.expectation
    def bound(*args):
        def log_weight():
            trace, log_q = vi.simulate(guide, *args)
            return (vi.log_density(model, trace, *args) - log_q).total

        weights = (1 - alpha) * vi.particles(num_particles)(log_weight)()
        return (jax.nn.logsumexp(weights) - jnp.log(num_particles)) / (1 - alpha)

    return bound


# Each site's gradient is estimated in the way that its entry says, all of them in one objective.
SCORE = functools.partial(vi.reinforce, baseline=vi.EMA())
LOO = functools.partial(vi.rloo, num_samples=4)
MIXTURE = {"mean": vi.mvd, "log_spread": LOO, "log_noise": LOO, "coef": vi.reparam}
IWELBO = functools.partial(vi.iwelbo, num_particles=8)
CHOICES = [
    Choice("ELBO", "reparam", vi.elbo, {}),
    Choice("ELBO", "reinforce + EMA", vi.elbo, dict.fromkeys(LATENTS, SCORE)),
    Choice("ELBO", "rloo", vi.elbo, dict.fromkeys(LATENTS, LOO)),
    Choice("ELBO", "mvd, rloo, reparam", vi.elbo, MIXTURE),
    Choice("IWELBO-8", "reparam", IWELBO, {}),
    Choice("Rényi-8", "reparam", renyi, {}),
]


def problem() -> Problem:
    """The data and programs of this part."""
    firms, capital, invest = load()
    x, y = np.log(capital), np.log(invest)
    x -= x.mean(axis=1, keepdims=True)
    shapes = {"mean": (2,), "log_spread": (2,), "log_noise": (), "coef": (len(firms), 2)}
    start = {"mean": [4.0, 0.5], "log_spread": 0.0, "log_noise": 0.0, "coef": [4.0, 0.5]}
    return Problem(
        name="hierarchical",
        title="Investment of 11 firms, 1935-1954: hierarchical regression, 27 continuous latents",
        model=model,
        reference=model,
        guide=guide,
        params=normals(shapes, start, log_scale=-1.0),
        data=(jnp.asarray(x, dtype=float), jnp.asarray(y, dtype=float)),
        dims={"mean": ["effect"], "log_spread": ["effect"], "coef": ["firm", "effect"]},
        coords={"effect": EFFECTS, "firm": firms},
    )


@functools.cache
def reference(study: Study) -> Row:
    """NUTS on this problem; `demo.families` compares with it too."""
    return study.nuts(problem())


def run(study: Study) -> Report:
    """NUTS, then every choice of objective and strategy."""
    this = problem()
    tasks = [("NUTS", lambda: reference(study))]
    for choice in study.select(CHOICES):
        label = f"{choice.objective}, {choice.strategy}"
        tasks.append((label, functools.partial(study.fit, this, choice)))
    # From random places it may end where the scale of the slopes is wrong, 50 nats below.
    auto = AutoMultivariateNormal(model, init_loc_fn=init_to_median)
    tasks.append(("SVI", lambda: study.fit_svi(this, auto, "SVI, full-rank guide")))
    truth, *fits = run_all(tasks)
    rows = [truth, *(against(row, truth, LATENTS) for row in fits)]
    return Report(this, rows, [quality(truth, LATENTS)])
