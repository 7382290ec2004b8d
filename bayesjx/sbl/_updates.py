"""Updates of prior variances and noise: expectation-maximisation, convex bound, fixed point."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._core import compiled, in_turn_under_vmap
from ._statistics import Problem, Statistics, statistics

WARM_UP = 20  # steps of expectation-maximisation before the others, which are greedier
WINDOW = 10  # steps over which the evidence has to rise, or it has converged
RISE_PART = 10.0  # least rise of the log evidence in that window, in units of rtol
NOISE_PART = 0.1  # of the relative change of the noise variance counts


class Options(NamedTuple):
    """What a program of the updates is made for.

    Attributes:
        update: `"em"`, `"convex"`, `"fixed-point"` or `"fast"`.
        learn_noise: whether the noise variance is learned.
        max_steps: at most so many updates.
        rtol: relative change of the prior variances below which they have converged.
        prune: below how many effective degrees of freedom a weight may be dropped.
        shape: of the gamma prior of each precision.
        max_active: number of weights that `"fast"` has room for.
    """

    update: str
    learn_noise: bool
    max_steps: int
    rtol: float
    prune: float
    shape: float
    max_active: int


class State(NamedTuple):
    """Where the updates are.

    Attributes:
        prior_var: shape `(m,)`, 0 for weights that are dropped.
        noise_var: scalar.
        good: the last such pair whose evidence did not fall.
        safe: the pair that expectation-maximisation would go to from there.
        log_evidence: of `good`, scalar.
        trusted: whether the pair is taken as it is, being from `safe`.
        trace: evidence of `good` at each step, shape `(max_steps,)`, NaN from `num_steps` on.
        num_steps: scalar.
        change: relative, of the prior variances in the last step, or a part of the noise's; 0
            once the evidence does not rise any more.
        lost: whether the evidence is NaN at a pair that is taken as it is.
    """

    prior_var: jax.Array
    noise_var: jax.Array
    good: tuple[jax.Array, jax.Array]
    safe: tuple[jax.Array, jax.Array]
    log_evidence: jax.Array
    trusted: jax.Array
    trace: jax.Array
    num_steps: jax.Array
    change: jax.Array
    lost: jax.Array


def start(prior_var: jax.Array, noise_var: jax.Array, max_steps: int) -> State:
    """The state before the first step."""
    pair, dtype = (prior_var, noise_var), noise_var.dtype
    trace = jnp.full(max_steps, jnp.nan, dtype)
    infinite = jnp.asarray(jnp.inf, dtype)
    yes = jnp.asarray(True)
    return State(*pair, pair, pair, -infinite, yes, trace, jnp.asarray(0), infinite, ~yes)


@compiled
def advance(
    problem: Problem, state: State, floor: jax.Array, few: jax.Array, options: Options
) -> State:
    """Steps until convergence, or until no more than `few` weights are left.

    Under `vmap` on CPUs one problem after the other, as some take many times the steps of others.

    Args:
        problem: in its units.
        state: where to start.
        floor: least noise variance, scalar.
        few: number of weights at which it pays to leave out the columns of the others, scalar.
        options: static.
    """

    @in_turn_under_vmap
    def loop(problem: Problem, state: State, floor: jax.Array, few: jax.Array) -> State:
        def go_on(state: State) -> jax.Array:
            busy = (state.num_steps < options.max_steps) & ~state.lost
            busy &= (state.change > options.rtol) & (jnp.sum(state.prior_var > 0) > few)
            return busy

        return jax.lax.while_loop(go_on, lambda state: step(problem, state, floor, options), state)

    return loop(problem, state, floor, few)


def step(problem: Problem, state: State, floor: jax.Array, options: Options) -> State:
    """One update, or expectation-maximisation from the last pair where the evidence has fallen."""
    prior_var, noise_var = state.prior_var, state.noise_var
    found = statistics(problem, prior_var, noise_var)
    finite = jnp.isfinite(found.log_evidence)
    active = prior_var > 0
    objective = found.log_evidence - _penalty(problem, prior_var, active, options)
    before = state.log_evidence - _penalty(problem, state.good[0], active, options)
    slack = 100 * jnp.finfo(noise_var.dtype).eps * (1 + jnp.abs(found.log_evidence))
    back = ~(objective >= before - slack) & ~state.trusted
    safe = _proposal(problem, found, prior_var, noise_var, options._replace(update="em"))
    proposed = _proposal(problem, found, prior_var, noise_var, options)
    warm = (state.num_steps < WARM_UP) & (options.update != "em")
    proposed = jax.tree.map(lambda a, b: jnp.where(warm, a, b), safe, proposed)
    dropped = _deletable(problem, found, prior_var, options)
    proposed = jnp.where(dropped, 0, proposed[0]), jnp.maximum(proposed[1], floor)
    safe = safe[0], jnp.maximum(safe[1], floor)
    lost = ~finite & state.trusted
    stay = back | lost  # nothing is learned from this pair
    choose = lambda old, new: jax.tree.map(lambda a, b: jnp.where(stay, a, b), old, new)  # noqa: E731
    evidence = choose(state.log_evidence, found.log_evidence)
    change = choose(jnp.inf, _change((prior_var, noise_var), proposed))
    if options.update == "em":
        change = jnp.where(_settled(state, evidence, slack), 0, change)
    else:  # single steps may change little while weights still go to 0
        early = state.num_steps < WARM_UP + WINDOW
        settled = _settled(state, evidence, jnp.maximum(slack, RISE_PART * options.rtol))
        change = jnp.where(early, jnp.inf, jnp.where(settled, 0, change))
    return State(
        *choose(state.safe, proposed),
        good=choose(state.good, (prior_var, noise_var)),
        safe=choose(state.safe, safe),
        log_evidence=evidence,
        trusted=stay,
        trace=state.trace.at[state.num_steps].set(evidence),
        num_steps=state.num_steps + 1,
        change=change.astype(noise_var.dtype),
        lost=lost,
    )


def _proposal(
    problem: Problem,
    found: Statistics,
    prior_var: jax.Array,
    noise_var: jax.Array,
    options: Options,
) -> tuple[jax.Array, jax.Array]:
    n, num = problem.y.shape
    per = num * (2 if jnp.iscomplexobj(problem.y) else 1)
    shape, power = 2 * options.shape / per, found.power + 2 * problem.rate / per
    dof = found.known + shape
    ratio = jnp.where(dof > 0, power / jnp.where(dof > 0, dof, 1), 0)
    if options.update == "em":
        new = (power + prior_var * (1 - found.known)) / (1 + shape)
        noise = (found.error + noise_var * (n - found.free)) / n
    elif options.update == "fixed-point":
        new, noise = ratio, found.error / found.free
    else:  # both sides of the bound are met where the logarithms are averaged
        new = jnp.sqrt(prior_var * ratio)
        noise = jnp.sqrt(noise_var * found.error / found.free)
    new = jnp.where(prior_var > 0, new, 0)
    return new, noise if options.learn_noise else noise_var


def _settled(state: State, evidence: jax.Array, least: jax.Array) -> jax.Array:
    """Whether the evidence has risen by no more than this over a number of steps."""
    past = state.trace[jnp.maximum(state.num_steps - WINDOW, 0)]
    return (state.num_steps >= WINDOW) & (evidence - past <= least)


def _change(old: tuple[jax.Array, jax.Array], new: tuple[jax.Array, jax.Array]) -> jax.Array:
    size = jnp.linalg.norm(old[0])
    of_weights = jnp.linalg.norm(new[0] - old[0]) / jnp.where(size > 0, size, 1)
    return jnp.maximum(of_weights, NOISE_PART * jnp.abs(new[1] / old[1] - 1))


def _deletable(
    problem: Problem, found: Statistics, prior_var: jax.Array, options: Options
) -> jax.Array:
    """Weights that data hardly determine, and without which the evidence is no lower."""
    known = jnp.minimum(found.known, 0.5)
    loss = found.power / jnp.where(prior_var > 0, prior_var * (1 - known), 1) + jnp.log1p(-known)
    return (found.known < options.prune) & (loss <= 0)


def _penalty(
    problem: Problem, prior_var: jax.Array, active: jax.Array, options: Options
) -> jax.Array:
    """Minus the log density of the gamma priors, up to a constant, over the active weights."""
    safe = jnp.where(active & (prior_var > 0), prior_var, 1)
    return jnp.sum(jnp.where(active, options.shape * jnp.log(safe) + problem.rate / safe, 0))
