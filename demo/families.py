"""Families of Gaussian guides on the firms of `demo.hierarchical`, started by Pathfinder.

Nobody writes these guides. They differ in what they know of the posterior's correlations, and the
Pareto k-hat of the weights says which of them cover it.
"""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpyro.infer import init_to_value

from bayesjx import to_datatree, vi

from . import hierarchical
from ._study import against, mean_and_error, Problem, quality, Report, Row, run_all, Study

SCALES = {"meanfield": "mean-field", "structured": "structured", "fullrank": "full-rank"}
K_HAT = "Pareto k-hat"


def pathfind(study: Study, this: Problem) -> tuple[Row, dict[str, jax.Array]]:
    """Pathfinder's own draws, and where the other guides start: its mean and widths.

    `vi.init_from_pathfinder` hands on correlations, too; this runs Pathfinder once for all.
    """
    args, start = (None, *this.data), time.perf_counter()
    guide = vi.PathfinderGuide(this.model)
    normal = guide.prepare(jax.random.key(0), *args).normal
    resample = jax.jit(lambda key: guide.resample(key, study.posterior_draws, *args))
    draws, k_hat = resample(jax.random.key(1))
    tree = to_datatree(draws, dims=this.dims, coords=this.coords)
    seconds = time.perf_counter() - start
    row = Row("Pathfinder", "resampled", tree, seconds=seconds, extra={K_HAT: float(k_hat)})
    return row, {"auto_loc": normal.loc, "auto_scale": 1 / jnp.sqrt(normal.precision_diagonal)}


def fit(study: Study, this: Problem, scale: str, start: dict[str, jax.Array]) -> Row:
    """Fit one family, from where Pathfinder ended or from where all other fits start."""
    args = (None, *this.data)  # the model does not use its first argument
    rough = init_to_value(values={name: site["loc"] for name, site in this.params.items()})
    guide = vi.GaussianGuide(this.model, scale=scale, init_loc_fn=rough)
    program = vi.functional(jax.random.key(0), this.model, guide, *args, init_params=start)
    bound = vi.elbo(program.model, program.guide, entropy="stl")
    result = vi.fit(
        jax.random.key(1),
        bound,
        program.params,
        optax.adam(optax.cosine_decay_schedule(0.01, study.steps)),
        study.steps + study.measure,
        data=args,
        num_draws=study.draws_per_step,
    )
    params, shape = program.constrain(result.params), (study.posterior_draws,)

    # Under jit both are one program to compile in place of many small ones.
    @jax.jit
    def draw(key):
        return guide.sample_posterior(key, params, *args, sample_shape=shape)

    @jax.jit
    def k_hat(key):
        return vi.psis(key, bound, result.params, *args, num_draws=4000).k_hat

    draws = draw(jax.random.key(2))
    squared = np.mean(result.info.gradient_norm[-study.measure :] ** 2)
    return Row(
        "ELBO, stl",
        SCALES[scale],
        to_datatree(draws, dims=this.dims, coords=this.coords),
        bound=mean_and_error(result.info.objective[-study.measure :]),
        gradient_variance=float(squared * study.draws_per_step),
        seconds=result.seconds,
        compile_seconds=result.compile_seconds,
        history=result.info.objective,
        extra={K_HAT: float(k_hat(jax.random.key(3)))},
    )


def problem() -> Problem:
    """The problem of `demo.hierarchical`, under a title of its own."""
    title = "Investment of 11 firms: families of guides, started by Pathfinder"
    return dataclasses.replace(hierarchical.problem(), name="families", title=title)


def run(study: Study) -> Report:
    """NUTS (run once for both parts), then every family."""
    this = problem()
    start: dict[str, jax.Array] = {}

    def first() -> Row:
        row, found = pathfind(study, this)
        start.update(found)
        return row

    def family(scale: str) -> Row:
        return fit(study, this, scale, start)

    tasks: list[tuple[str, Callable[[], Row]]] = [("NUTS", lambda: hierarchical.reference(study))]
    tasks.append(("Pathfinder", first))
    for scale in SCALES:
        tasks.append((scale, functools.partial(family, scale)))
    reference, *fits = run_all(tasks)
    rows = [reference, *(against(row, reference, hierarchical.LATENTS) for row in fits)]
    remark = "Pareto k-hat up to 0.7: the guide covers the posterior, once weighted"
    return Report(this, rows, [quality(reference, hierarchical.LATENTS), remark])
