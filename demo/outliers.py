"""Outlier-robust regression: murders in 51 American states, each of which may be an outlier.

One binary latent per state says whether it is an outlier; the line, the noise and the rate of
outliers are continuous. The guide sees the residual of each state under the line that it has just
drawn. NUTS gets the same model with the binary latents summed out by hand.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from statsmodels.datasets import statecrime

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

LATENTS = ["intercept", "slope", "log_noise", "logit_rate"]
WIDER = 5.0  # the noise of an outlier, in that of an ordinary state
CENTRE, UNIT = 25.0, 5.0  # of the covariate, in per cent


def load() -> tuple[list[str], np.ndarray, np.ndarray]:
    """States, households of single parents (%) and murders per 100,000 inhabitants, in 2009."""
    table = statecrime.load_pandas().data
    return list(table.index), table["single"].values, table["murder"].values


def sample_line() -> Any:
    """The continuous latents: intercept, slope, noise and the log odds of an outlier."""
    intercept = numpyro.sample("intercept", dist.Normal(5.0, 5.0))
    slope = numpyro.sample("slope", dist.Normal(0.0, 5.0))
    noise = jnp.exp(numpyro.sample("log_noise", dist.Normal(0.0, 1.0)))
    return intercept, slope, noise, numpyro.sample("logit_rate", dist.Normal(-2.0, 1.0))


def model(params: Any, x: jax.Array, y: jax.Array) -> None:
    """A line through the states; an outlier is five times as noisy as the others."""
    intercept, slope, noise, logit_rate = sample_line()
    with numpyro.plate("state", len(y)):
        outlier = numpyro.sample("outlier", dist.Bernoulli(logits=logit_rate))
        scale = jnp.where(outlier == 1, WIDER * noise, noise)
        numpyro.sample("y", dist.Normal(intercept + slope * x, scale), obs=y)


def marginal(params: Any, x: jax.Array, y: jax.Array) -> None:
    """The same model without its binary latents."""
    intercept, slope, noise, logit_rate = sample_line()
    rate = jax.nn.sigmoid(logit_rate)
    which = dist.Categorical(probs=jnp.stack([1 - rate, rate]))
    with numpyro.plate("state", len(y)):
        line = (intercept + slope * x)[:, None]
        distribution = dist.Normal(line, noise * jnp.array([1.0, WIDER]))
        numpyro.sample("y", dist.MixtureSameFamily(which, distribution), obs=y)


def guide(strategies: Strategies) -> Callable[..., None]:
    """Independent Normals, then the outliers given the residuals."""

    def program(params: Any, x: jax.Array, y: jax.Array) -> None:
        def sample(name: str) -> Any:
            distribution = dist.Normal(params[name]["loc"], jnp.exp(params[name]["log_scale"]))
            return numpyro.sample(name, strategies.get(name, vi.reparam)(distribution))

        latents = {name: sample(name) for name in LATENTS}
        residual = y - latents["intercept"] - latents["slope"] * x
        squared = (residual * jnp.exp(-latents["log_noise"])) ** 2
        logits = params["outlier"]["bias"] + params["outlier"]["weight"] * squared
        with numpyro.plate("state", len(y)):
            strategy = strategies.get("outlier", vi.enum)
            numpyro.sample("outlier", strategy(dist.Bernoulli(logits=logits)))

    return program


def tempered(model: Any, guide: Any) -> vi.Objective:
    """An ELBO that lets the data in slowly: their log likelihood is multiplied by `heat`, which
    the loop raises from 0 to 1. Not in the library: this is all that it takes."""

    @vi.expectation
    def bound(params, x, y, heat):
        trace, log_q = vi.simulate(guide, params, x, y)
        log_p = vi.log_density(model, trace, params, x, y)
        return log_p.weight_sites({"y": heat}) - log_q

    return bound


def warm_up(step: int) -> tuple[np.ndarray]:
    """The argument `heat` of `tempered` at a step."""
    return (np.asarray(min(1.0, step / 1000), dtype=jnp.result_type(float)),)


def outlier(strategy: Callable[..., Any]) -> Strategies:
    """The strategy of the binary latents; the others are reparameterised."""
    return {"outlier": strategy}


SCORE = functools.partial(vi.reinforce, baseline=vi.EMA())
LOO = functools.partial(vi.rloo, num_samples=4)
MIXTURE = {"slope": vi.mvd, "log_noise": LOO, "outlier": vi.enum}  # the others: reparam
IWELBO = functools.partial(vi.iwelbo, num_particles=8)
CHOICES = [
    Choice("ELBO", "enum", vi.elbo, outlier(vi.enum), tour=True),
    Choice("ELBO", "reinforce + EMA", vi.elbo, outlier(SCORE)),
    Choice("ELBO", "rloo", vi.elbo, outlier(LOO)),
    Choice("ELBO", "mvd", vi.elbo, outlier(vi.mvd)),
    Choice("ELBO", "disarm", vi.elbo, outlier(vi.disarm)),
    Choice("ELBO", "mvd, rloo, enum, reparam", vi.elbo, MIXTURE),
    Choice("IWELBO-8", "reinforce (VIMCO)", IWELBO, outlier(vi.reinforce), tour=True),
    Choice("tempered ELBO", "enum", tempered, outlier(vi.enum), batches=warm_up),
]


def problem() -> Problem:
    """The data and programs of this part."""
    states, x, y = load()
    start = {"intercept": 5.0, "slope": 0.0, "log_noise": 1.0, "logit_rate": -2.0}
    params = normals(dict.fromkeys(LATENTS, ()), start, log_scale=-1.0)
    params["outlier"] = {"bias": jnp.asarray(-2.0), "weight": jnp.asarray(0.0)}
    return Problem(
        name="outliers",
        title="Murders in 51 American states: robust regression, 51 binary + 4 continuous latents",
        model=model,
        reference=marginal,
        guide=guide,
        params=params,
        data=(jnp.asarray((x - CENTRE) / UNIT, dtype=float), jnp.asarray(y, dtype=float)),
        dims={"outlier": ["state"]},
        coords={"state": states},
    )


def draw_outliers(this: Problem, key: jax.Array, draws: dict) -> dict[str, jax.Array]:
    """Binary latents given the others: their exact conditional, drawn for NUTS."""
    x, y = this.data
    intercept, slope, log_noise, logit = (jnp.asarray(draws[name])[..., None] for name in LATENTS)
    squared = ((y - intercept - slope * x) * jnp.exp(-log_noise)) ** 2
    logits = logit - jnp.log(WIDER) + 0.5 * (1 - WIDER**-2) * squared
    return {"outlier": dist.Bernoulli(logits=logits).sample(key)}


def probabilities(row: Row) -> Any:
    """P(outlier) of each state, a labelled array."""
    return row.tree["posterior"]["outlier"].mean(("chain", "draw"))


def run(study: Study) -> Report:
    """NUTS, then every choice of objective and strategy."""
    this = problem()
    tasks = [("NUTS", lambda: study.nuts(this, functools.partial(draw_outliers, this)))]
    for choice in study.select(CHOICES):
        label = f"{choice.objective}, {choice.strategy}"
        tasks.append((label, functools.partial(study.fit, this, choice)))
    reference, *fits = run_all(tasks)
    truth, rows = probabilities(reference), [reference]
    for row in fits:
        worst = float(abs(probabilities(row) - truth).max())
        row = dataclasses.replace(row, extra={"P(outlier) error": worst})
        rows.append(against(row, reference, LATENTS))
    top = truth.sortby(-truth)[:3]
    likely = ", ".join(f"{s} {p:.2f}" for s, p in zip(top.state.values, top.values, strict=True))
    return Report(this, rows, [quality(reference, LATENTS), f"likeliest outliers: {likely}"])
