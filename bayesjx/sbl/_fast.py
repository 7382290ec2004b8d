"""Fast marginal likelihood maximisation: one column added, re-estimated or deleted in a step."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._core import cholesky_each, first_of, RESULTS
from ._design import square
from ._statistics import Problem
from ._triangular import small_inverse
from ._updates import Options
from ._weight_space import root
from ._weights import normal_log_prob

NOISE_EVERY = 4  # steps, of which one is over the noise variance


class FastState(NamedTuple):
    """Where the updates are.

    Attributes:
        index: columns in use, shape `(k,)`; any where `own` is 0.
        own: their prior variances, shape `(k,)`.
        cross: products of these with all columns, shape `(k, m)`.
        noise_var: scalar.
        trace: log evidence at each step, shape `(max_steps,)`.
        num_steps: scalar.
        gain: by how much the best change of a column raises the evidence.
        drift: relative change of the noise variance in its last step.
        full: whether the best change is to add a column, for which there is no room.
    """

    index: jax.Array
    own: jax.Array
    cross: jax.Array
    noise_var: jax.Array
    trace: jax.Array
    num_steps: jax.Array
    gain: jax.Array
    drift: jax.Array
    full: jax.Array


class FastResult(NamedTuple):
    """Prior variances of all columns, shape `(m,)`, the noise variance, and how they were found."""

    prior_var: jax.Array
    noise_var: jax.Array
    trace: jax.Array
    num_steps: jax.Array


class _Terms(NamedTuple):
    r"""$S_j = \Phi_j^H C^{-1} \Phi_j$ and $\|\Phi_j^H C^{-1} Y\|^2 / L$, and the like of columns.

    `own` has the prior variance of each column, 0 where it is not in use.
    """

    own: jax.Array
    sensitivity: jax.Array
    score: jax.Array
    error: jax.Array
    free: jax.Array
    log_evidence: jax.Array


def fast_marginal(
    problem: Problem, noise_var: jax.Array, floor: jax.Array, options: Options
) -> tuple[FastResult, RESULTS]:
    """The updates of Tipping and Faul (2003) from a single column, until none gains any more."""
    design, y = problem.design, problem.y
    m, room = design.shape[1], options.max_active
    real = noise_var.dtype
    rhs = design.mT.conj() @ y
    infinite, none = jnp.asarray(jnp.inf, real), jnp.asarray(0)

    def add(state: FastState, column: jax.Array, variance: jax.Array) -> FastState:
        slot = jnp.argmin(state.own > 0)
        products = design[:, column].conj() @ design
        return state._replace(
            index=state.index.at[slot].set(column),
            own=state.own.at[slot].set(variance),
            cross=state.cross.at[slot].set(products),
        )

    power = jnp.mean(square(rhs), axis=1)
    column = jnp.argmax(power)
    variance = jnp.maximum(power[column] - noise_var, 0.1 * power[column])
    empty = FastState(
        jnp.zeros(room, int), jnp.zeros(room, real), jnp.zeros((room, m), y.dtype), noise_var,
        jnp.full(options.max_steps, jnp.nan, real), none, infinite, infinite, jnp.asarray(False),
    )  # fmt: skip

    def go_on(state: FastState) -> jax.Array:
        busy = (state.gain > options.rtol) | (state.drift > options.rtol)
        return busy & (state.num_steps < options.max_steps)

    def step(state: FastState) -> FastState:
        terms = _terms(problem, rhs, state)
        column, new, gain, full = _best(terms, state, y)
        noise = jnp.maximum(jnp.sqrt(state.noise_var * terms.error / terms.free), floor)
        drift = jnp.abs(noise - state.noise_var) / state.noise_var
        turn = (state.num_steps % NOISE_EVERY == NOISE_EVERY - 1) | ~(gain > options.rtol)
        of_noise = turn & options.learn_noise
        slots = (state.index == column) & (state.own > 0)
        used = jnp.any(slots)
        changed = state._replace(own=jnp.where(slots, new, state.own))
        added = add(state, column, new)
        moved = jax.tree.map(lambda a, b: jnp.where(used, a, b), changed, added)
        moved = jax.tree.map(lambda a, b: jnp.where(of_noise | ~(gain > 0), a, b), state, moved)
        return moved._replace(
            noise_var=jnp.where(of_noise, noise, state.noise_var),
            trace=state.trace.at[state.num_steps].set(terms.log_evidence),
            num_steps=state.num_steps + 1,
            gain=gain,
            drift=drift if options.learn_noise else jnp.zeros_like(drift),
            full=full,
        )

    last = jax.lax.while_loop(go_on, step, add(empty, column, variance))
    prior_var = jnp.zeros(m, real).at[last.index].add(last.own)
    result = first_of(
        (~jnp.isfinite(last.gain), RESULTS.breakdown),
        ((last.gain > options.rtol) | (last.drift > options.rtol), RESULTS.max_steps_reached),
        (last.full, RESULTS.stagnation),
        otherwise=RESULTS.successful,
    )
    return FastResult(prior_var, last.noise_var, last.trace, last.num_steps), result


def _terms(problem: Problem, rhs: jax.Array, state: FastState) -> _Terms:
    design, y = problem.design, problem.y
    (n, num), noise_var, half = y.shape, state.noise_var, root(state.own)
    inside = half[:, None] * state.cross[:, state.index] * half / noise_var
    tril = cholesky_each(inside + jnp.eye(half.size, dtype=y.dtype))
    inverse = small_inverse(tril)
    unknown = jnp.sum(square(inverse), axis=0)
    right = half[:, None] * rhs[state.index] / noise_var
    white = inverse.mT.conj() @ (inverse @ right)
    mean = half[:, None] * white
    residual = y - design[:, state.index] @ mean
    error = jnp.sum(square(residual), axis=0)
    # Of the other columns by what those in use leave of them; of these by what data say of them.
    through = inverse @ (half[:, None] * state.cross)
    length = jnp.sum(square(design), axis=0)
    sensitivity = (length - jnp.sum(square(through), axis=0) / noise_var) / noise_var
    score = jnp.mean(square(design.mT.conj() @ residual), axis=1) / noise_var**2
    used = state.own > 0
    safe = jnp.where(used, state.own, 1)
    least = 10 * n * jnp.finfo(safe.dtype).eps
    target = jnp.where(used, state.index, len(length))  # beyond the end: dropped
    known = 1 - unknown
    # Where that is a rounding, the others hardly touch the column: its own length is all of it.
    hardly = known <= least
    alone = length[state.index] / noise_var
    sensitivity = sensitivity.at[target].set(jnp.where(hardly, alone, known / safe), mode="drop")
    power = jnp.mean(square(mean), axis=1)
    score = score.at[target].set(power / safe**2, mode="drop")
    own = jnp.zeros_like(length).at[target].set(state.own, mode="drop")
    quadratic = error / noise_var + jnp.sum(square(white), axis=0)
    logdet = n * jnp.log(noise_var) + 2 * jnp.sum(jnp.log(jnp.real(jnp.diag(tril))))
    evidence = jnp.sum(normal_log_prob(quadratic, logdet, y))
    free = jnp.maximum(n - jnp.sum(jnp.where(used, 1 - unknown, 0)), least)
    tiny = least / noise_var  # what is left of a column is rounding
    sensitivity = jnp.where((own > 0) | (sensitivity > tiny), sensitivity, 0)
    return _Terms(own, sensitivity, score, jnp.sum(error) / num, free, evidence)


def _best(terms: _Terms, state: FastState, y: jax.Array) -> tuple[jax.Array, ...]:
    """Column, its new prior variance, gain of the evidence, and whether room for it is missing."""
    own, S, Q2 = terms.own, terms.sensitivity, terms.score
    used = own > 0
    left = jnp.where(used, jnp.maximum(1 - own * S, jnp.finfo(S.dtype).eps), 1)
    s, q2 = S / left, Q2 / left**2
    theta = q2 - s
    stays = theta > 0
    possible = jnp.where(S > 0, S, 1)
    new = jnp.where(stays & (S > 0), theta / jnp.where(S > 0, s, 1) ** 2, 0)
    change = jnp.where(used & stays, new - own, 0)
    again = Q2 * change / (1 + S * change) - jnp.log1p(S * change)
    added = (Q2 - S) / possible + jnp.log(possible / jnp.where(Q2 > 0, Q2, 1))
    deleted = -own * Q2 / left - jnp.log(left)
    gain = jnp.where(used, jnp.where(stays, again, deleted), jnp.where(stays, added, 0))
    gain = jnp.where(S > 0, gain, 0)
    full = jnp.all(state.own > 0)
    allowed = jnp.where(used | ~full, gain, 0)
    column = jnp.argmax(allowed)
    per = y.shape[1] * (1 if jnp.iscomplexobj(y) else 0.5)
    wanted = full & (jnp.max(gain) > allowed[column])
    return column, new[column], per * allowed[column], wanted
