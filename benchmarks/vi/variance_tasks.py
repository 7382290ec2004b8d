"""Variance of the gradient times the seconds it takes, per strategy, beside NumPyro's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random
from numpyro.infer import TraceGraph_ELBO

from bayesjx import vi
from benchmarks import compare
from benchmarks._report import Report
from benchmarks.vi import _hand, _programs, _tied_mixture as mixture

PEER = "TraceGraph_ELBO"
DRAWS = 1000
POINTS, BATCH = 500, 50
Loss = Callable[..., jax.Array]  # of (params, key, *data)


def tasks(quick: bool, report: Report) -> dict[str, Any]:
    """Figures of tasks C and D.

    Args:
        quick: fewer draws, strategies and steps.
        report: gets a table for each task.
    """
    report.note(
        f"Variance × time: the total variance over all parameters of one gradient, "
        f"{100 if quick else DRAWS} draws at the same parameters, times the seconds of one value "
        "and gradient. C: attend-infer-repeat in small, three chained presences, 128 × 64 pixels, "
        "with random weights and after training with enum; average: reinforce with a moving "
        "average as baseline, so three names are the strategies of the three presences. D: mixture "
        "of five components, "
        f"{POINTS} points, with all of them and with {BATCH} subsampled; there NumPyro multiplies "
        "scores by the subsampling scale twice, so ours under reinforce is the score-function "
        "estimator to judge the others by."
    )
    return {**_task_c(quick, report), **_task_d(quick, report)}


def _task_c(quick: bool, report: Report) -> dict[str, Any]:
    images = jnp.asarray(_digits(), jnp.float32)
    params = _hand.scene_params(64, 128)
    # Judged where training begins; as presences get decided, only the noise of the continuous
    # latents remains, which no strategy for the presences can lower.
    losses = _scene_losses(params, images, quick)
    figures = {"C": _compare("C, random weights", losses, params, (images,), quick, report)}
    if not quick:
        for steps in (50, 300):
            trained = _climb(losses["enum"], params, (images,), steps, 1e-3)
            losses = _scene_losses(trained, images, quick, few=True)
            title = f"C, after {steps} steps"
            figure = _compare(title, losses, trained, (images,), quick, report)
            figures[f"C_after_{steps}"] = figure
    return figures


def _scene_losses(
    params: Any, images: jax.Array, quick: bool, few: bool = False
) -> dict[str, Loss]:
    def average(distribution: Any) -> Any:
        return vi.reinforce(distribution, baseline=vi.EMA())

    wraps: dict[str, tuple] = {"average, average, enum": (average, average, vi.enum)}
    if not quick:
        names = (
            ("reinforce", "enum") if few else ("reinforce", "enum", "mvd", "leg", "disarm", "rloo")
        )
        wraps |= {name: (getattr(vi, name),) for name in names}
        wraps |= {"average": (average,), "mvd, mvd, enum": (vi.mvd, vi.mvd, vi.enum)}
    losses = {name: _scene_loss(params, images, *each) for name, each in wraps.items()}
    plain = _programs.scene_guide(lambda distribution: distribution)
    return losses | {PEER: _peer(_programs.scene_model, plain)}


def _task_d(quick: bool, report: Report) -> dict[str, Any]:
    y = mixture.data(POINTS)
    names = ("enum",) if quick else ("enum", "leg", "rloo")
    figures: dict[str, Any] = {}
    for label, batch in (("D", BATCH), ("D_all", None)):
        losses = {name: _mixture_loss(getattr(vi, name), batch) for name in ("reinforce", *names)}
        losses[PEER] = _peer(mixture.model, mixture.guide(lambda distribution: distribution), batch)
        params = _climb(losses["enum"], mixture.start(), (y,), 200, 0.02)
        title = f"D, {batch or POINTS} of {POINTS} points, after 200 steps"
        if batch is not None or not quick:
            figures[label] = _compare(title, losses, params, (y,), quick, report)
        if batch is not None and not quick:
            figures.update(_final_bounds(losses, y, report))
    return figures


def _final_bounds(losses: Mapping[str, Loss], y: jax.Array, report: Report) -> dict[str, Any]:
    """The bound that each loss ends with, taken exactly on all points."""
    steps, draws = 6000, 2000
    names = ("reinforce", "enum", PEER)
    found, rows = {}, []
    for name in names:
        trained = _climb(losses[name], mixture.start(), (y,), steps, 0.02)
        found[name] = float(mixture.exact_bound(trained, random.key(5), y, draws))
        rows.append([name, found[name], float(jnp.exp(trained["log_precision"]))])
    report.table(
        f"D, after {steps} steps of Adam on {BATCH} of {POINTS} points",
        ["", "bound on all points", "precision of assignments"],
        rows,
    )
    return {
        "D_bound_lost": found["reinforce"] - found[PEER],
        "D_bound_enum": found["enum"] - found["reinforce"],
    }


def _compare(
    title: str,
    losses: Mapping[str, Loss],
    params: Any,
    data: tuple,
    quick: bool,
    report: Report,
) -> Any:
    """The least variance × time among ours, divided by NumPyro's."""
    draws = 100 if quick else DRAWS
    gradients = {name: jax.jit(jax.value_and_grad(loss)) for name, loss in losses.items()}
    args = (params, random.key(0), *data)
    times = compare(
        {name: (gradient, args) for name, gradient in gradients.items()},
        rounds=40 if quick else 150,
        seconds=4.0 if quick else 15.0,
    )
    variances = {name: _variance(loss, params, data, draws) for name, loss in losses.items()}
    products = {
        name: variances[name] / variances[PEER] * times.ratio(name, PEER).value for name in losses
    }
    report.table(
        f"Task {title}",
        ["", "variance", "µs", f"time ÷ {PEER}", f"variance × time ÷ {PEER}"],
        [
            [
                name,
                variances[name],
                1e6 * times.median(name).value,
                times.ratio(name, PEER),
                products[name],
            ]
            for name in losses
        ],
    )
    best = min((name for name in losses if name != PEER), key=products.__getitem__)
    ratio, factor = times.ratio(best, PEER), variances[best] / variances[PEER]
    low, high = (None if end is None else end * factor for end in (ratio.low, ratio.high))
    return type(ratio)(products[best], low, high, "×", f"{best}; the spread is of the time")


def _variance(loss: Loss, params: Any, data: tuple, draws: int) -> float:
    """Total variance of the gradient of one draw, over all parameters."""

    def gradient(key: jax.Array) -> jax.Array:
        leaves = jax.tree.leaves(jax.grad(loss)(params, key, *data))
        return jnp.concatenate([leaf.ravel() for leaf in leaves])

    @jax.jit
    def sums(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        shift = gradient(keys[0])  # any point near the mean, against cancellation

        def add(total: Any, key: jax.Array) -> tuple[Any, None]:
            g = gradient(key) - shift
            return (total[0] + g, total[1] + g**2), None

        return jax.lax.scan(add, (0 * shift, 0 * shift), keys)[0]

    first, second = (np.asarray(s, float) for s in sums(random.split(random.key(1), draws)))
    return float(np.sum(second - first**2 / draws) / (draws - 1))


def _climb(loss: Loss, params: Any, data: tuple, steps: int, rate: float) -> Any:
    """Parameters after some steps of Adam, and the mean over the last half of them."""
    optimiser = optax.adam(rate)

    def step(state: Any, key: jax.Array) -> tuple[Any, None]:
        params, opt_state, mean = state
        updates, opt_state = optimiser.update(jax.grad(loss)(params, key, *data), opt_state)
        params = optax.apply_updates(params, updates)
        mean = jax.tree.map(lambda m, p: 0.998 * m + 0.002 * p, mean, params)
        return (params, opt_state, mean), None

    @jax.jit
    def run(params: Any) -> Any:
        state = (params, optimiser.init(params), params)
        return jax.lax.scan(step, state, random.split(random.key(2), steps))[0]

    last, _, mean = run(params)
    return mean if steps > 2000 else last


def _scene_loss(params: Any, images: jax.Array, *wraps: Any) -> Loss:
    """Minus the bound, with the moving averages (if any) that 30 draws at `params` lead to."""
    bound = vi.elbo(_programs.scene_model, _programs.scene_guide(*wraps))

    @jax.jit
    def averages(key: jax.Array, states: Any) -> Any:
        return bound.surrogate_with_records(key, states, params, images)[1][1]

    states = None
    for key in random.split(random.key(3), 30):
        states = averages(key, states)

    def loss(params: Any, key: jax.Array, images: jax.Array) -> jax.Array:
        return -bound.surrogate_with_records(key, states, params, images)[0]

    return loss


def _mixture_loss(wrap: Any, batch: int | None) -> Loss:
    bound = vi.elbo(mixture.model, mixture.guide(wrap))
    return lambda params, key, y: -bound.surrogate(key, params, y, batch)


def _peer(model: Any, guide: Any, *more: Any) -> Loss:
    def loss(params: Any, key: jax.Array, *data: Any) -> jax.Array:
        return TraceGraph_ELBO().loss(key, {}, model, guide, params, *data, *more)

    return loss


def _digits() -> Any:
    from sklearn.datasets import load_digits

    return load_digits().data[:128] / 16
