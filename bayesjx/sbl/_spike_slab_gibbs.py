"""Collapsed Gibbs sampling of which weights are not zero."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Bool, Float, Int

from .._core import Algorithm, is_array, whole_number
from ._spike_slab_problem import chosen, spike_slab_problem, SpikeSlabProblem

MOVES = 4  # exchanges of an active column for another one, tried after each sweep
SLOTS = 64  # of more columns than that, so many may be active by default


class SpikeSlabState(NamedTuple):
    """State of the collapsed Gibbs sampler.

    Attributes:
        active: which weights are not zero, booleans of shape `(m,)`.
    """

    active: Bool[Array, " m"]


class SpikeSlabInfo(NamedTuple):
    """What a sweep of the collapsed Gibbs sampler gives.

    Attributes:
        inclusion_prob: probability of each weight to be non-zero given the others, at the time that
            it was drawn, shape `(m,)`; their means over sweeps vary less than those of draws.
        mean: of the weights given the new state, shape `(m,)`.
        variance: of the weights given the new state, shape `(m,)`.
        noise_var: mean of the variance of the noise given the new state, scalar.
        num_active: how many weights are not zero in the new state, scalar.
        at_limit: whether it is as many as may be.
    """

    inclusion_prob: Float[Array, " m"]
    mean: Float[Array, " m"]
    variance: Float[Array, " m"]
    noise_var: Float[Array, ""]
    num_active: Int[Array, ""]
    at_limit: Bool[Array, ""]


def spike_and_slab_gibbs(
    design: Any,
    y: Any,
    *,
    noise_var: Any,
    slab_var: Any,
    prior_prob: Any = 0.5,
    max_active: int | None = None,
) -> Algorithm:
    r"""Collapsed Gibbs sampling for linear regression with spike-and-slab weights.

    Draws $s$ from $p(s \mid y)$ where $w_j = s_j v_j$; weights, and the variance of the noise where
    it is unknown, are integrated out. A step is a sweep over all `m` columns and some exchanges of
    an active column for another, without which correlated columns keep a chain where it is. The
    Cholesky factor of the active columns is computed once a step, then changed by pivots of the
    sweep operator: a step takes $O(n k^2 + nm + (n + k) m f)$ time for $k$ slots and $f$ changes,
    and the odds of all columns come with each. `spike_and_slab` runs chains of it and summarises.

    Args:
        design: shape `(n, m)`.
        y: responses, shape `(n,)`, centred.
        noise_var: variance of the noise, or its prior, `numpyro.distributions.InverseGamma(a, b)`.
        slab_var: prior variance of weights that are not zero, a scalar or `(m,)`; in units of the
            variance of the noise where that is unknown.
        prior_prob: prior probability that a weight is not zero, a scalar or `(m,)`, 1 for columns
            that are always there; or `numpyro.distributions.Beta(a, b)` for one that is unknown.
        max_active: the most weights that are not zero; larger sets have prior probability 0. By
            default all, or 64 of more than 64 columns. See `SpikeSlabInfo.at_limit`.

    Returns:
        `init(active=None) -> SpikeSlabState`, booleans of shape `(m,)`, by default all false;
        `step(key, state) -> (SpikeSlabState, SpikeSlabInfo)`.

    Raises:
        ValueError: shapes that disagree, data that are empty or not finite, complex data, variances
            that are not positive; under `jit` values are a `RuntimeError`.

    References:
        Geweke (1996), "Variable selection and model comparison in regression"; Tipping and Faul
        (2003) for the odds; Goodnight (1979), "A tutorial on the SWEEP operator".
    """
    owner = "spike_and_slab_gibbs"
    problem = spike_slab_problem(owner, design, y, noise_var, slab_var, prior_prob)
    size = problem.design.shape[1]
    slots = checked_slots(owner, max_active, size)

    def init(active: Any = None) -> SpikeSlabState:
        if active is None:
            return SpikeSlabState(jnp.zeros(size, bool))
        if not is_array(active) or active.shape != (size,) or active.dtype != bool:
            raise ValueError(f"{owner}: active must be booleans of shape ({size},)")
        text = f"{owner}: active has more columns than max_active = {slots}"
        return SpikeSlabState(eqx.error_if(jnp.asarray(active), jnp.sum(active) > slots, text))

    def step(key: Any, state: SpikeSlabState) -> tuple[SpikeSlabState, SpikeSlabInfo]:
        return sweep(key, problem, state, slots)

    return Algorithm(init, step)


def checked_slots(owner: str, max_active: Any, size: int) -> int:
    """How many columns may be active at a time."""
    if max_active is None:
        return min(size, SLOTS)
    return min(whole_number(f"{owner}: max_active", max_active, 1), size)


def sweep(
    key: Any, problem: SpikeSlabProblem, state: SpikeSlabState, slots: int
) -> tuple[SpikeSlabState, SpikeSlabInfo]:
    """One sweep over all columns and `MOVES` exchanges."""
    first, second = random.split(key)
    tableau = _tableau(problem, state.active, slots)
    tableau, prob = _flips(first, problem, tableau)
    tableau = _exchanges(second, problem, tableau)
    active, noise_var = tableau.active, problem.noise_var_given(tableau.rss)
    info = SpikeSlabInfo(
        prob,
        jnp.where(active, tableau.coef * problem.weight_scale, 0),
        jnp.where(active, tableau.diag * problem.weight_scale**2 * noise_var, 0),
        noise_var * problem.y_scale**2,
        jnp.sum(active),
        jnp.sum(active) == slots if slots < active.size else jnp.zeros((), bool),
    )
    return SpikeSlabState(active), info


class _Tableau(NamedTuple):
    r"""$[I + \Phi^\top \Phi, \Phi^\top y]$ after a sweep of the active columns, as far as needed.

    Attributes:
        active: shape `(m,)`.
        index: the columns in the slots, shape `(k,)`; `m` for a free one.
        rows: those of the slots, shape `(k, m)`: the posterior covariance of the scaled weights in
            active columns, coefficients of the ridge regression of each column on them in others.
        diag: the diagonal, shape `(m,)`: posterior variances in active columns, $1 + \phi_j^\top
            C^{-1} \phi_j$ in others.
        coef: the last column, shape `(m,)`: posterior means in active columns, $\phi_j^\top C^{-1}
            y$ in others.
        rss: the last element, $y^\top C^{-1} y$.
    """

    active: Bool[Array, " m"]
    index: Int[Array, " k"]
    rows: Float[Array, "k m"]
    diag: Float[Array, " m"]
    coef: Float[Array, " m"]
    rss: Float[Array, ""]


def _tableau(problem: SpikeSlabProblem, active: jax.Array, slots: int) -> _Tableau:
    at = chosen(problem, active, slots)
    products = problem.columns_times(at.index)
    half = at.inverse_tril @ products
    inverse = at.inverse_tril.T @ at.inverse_tril
    rows = (at.inverse_tril.T @ half).at[:, at.index].set(inverse, mode="drop")
    squares = jnp.sum(problem.design**2, axis=0) if problem.gram is None else jnp.diag(problem.gram)
    diag = jnp.maximum(1 + squares - jnp.sum(half**2, axis=0), 1)
    diag = diag.at[at.index].set(jnp.diag(inverse), mode="drop")
    coef = (at.residual @ problem.design).at[at.index].set(at.mean, mode="drop")
    return _Tableau(active, at.index, rows, diag, coef, at.rss)


def _pivot(problem: SpikeSlabProblem, tableau: _Tableau, column: jax.Array) -> _Tableau:
    """The tableau with one column more, or less if it is active."""
    active, index, rows, diag, coef, rss = tableau
    size, enters = active.size, ~active[column]
    slot = jnp.argmax(index == jnp.where(enters, size, column))
    products = problem.columns_times(column[None])[0]
    inside = products.at[index].get(mode="fill", fill_value=0)
    entering = jnp.where(active, 0, products) - inside @ rows
    row = jnp.where(enters, entering, rows[slot])
    pivot, value = diag[column], coef[column]
    share = row / pivot
    signed = jnp.where(active == active[column], row, -row)
    crossing = rows[:, column]
    rows = (rows - crossing[:, None] * share).at[:, column].set(-crossing / pivot)
    own = jnp.where(enters, share.at[column].set(1 / pivot), 0)
    now = active.at[column].set(enters)
    diag = (diag - signed * share).at[column].set(1 / pivot)
    return _Tableau(
        now,
        index.at[slot].set(jnp.where(enters, column, size).astype(index.dtype)),
        rows.at[slot].set(own),
        jnp.where(now, diag, jnp.maximum(diag, 1)),
        (coef - signed * value / pivot).at[column].set(value / pivot),
        rss + jnp.where(enters, -1, 1) * value**2 / pivot,
    )


def _inclusion_prob(problem: SpikeSlabProblem, tableau: _Tableau) -> jax.Array:
    """Probability of each column given the others."""
    active, index, _, diag, coef, rss = tableau
    over = jnp.where(active, 1 / diag, 1)
    without = jnp.where(active, rss + coef**2 * over, rss)
    odds = problem.log_bayes_factor(jnp.where(active, over, diag), coef * over, without)
    prob = jax.nn.sigmoid(odds + problem.prior_log_odds(active))
    full = jnp.all(index < active.size)
    return jnp.where(active | ~full, prob, 0)


def _flips(key: Any, problem: SpikeSlabProblem, tableau: _Tableau) -> tuple[_Tableau, jax.Array]:
    """A systematic scan: nothing changes before the first column whose draw is another than now."""
    size = tableau.active.size
    draws = random.uniform(key, (size,), tableau.diag.dtype)
    places = jnp.arange(size)

    def look(tableau: _Tableau, begin: Any, seen: jax.Array) -> tuple[jax.Array, jax.Array]:
        prob = _inclusion_prob(problem, tableau)
        ahead = places >= begin
        other = ahead & ((draws < prob) != tableau.active)
        following = jnp.where(jnp.any(other), jnp.argmax(other), size)
        return following, jnp.where(ahead & (places <= following), prob, seen)

    def flip(carry: Any) -> Any:
        tableau, column, seen = carry
        tableau = _pivot(problem, tableau, column)
        return tableau, *look(tableau, column + 1, seen)

    start = (tableau, *look(tableau, 0, jnp.zeros_like(draws)))
    tableau, _, seen = jax.lax.while_loop(lambda carry: carry[1] < size, flip, start)
    return tableau, seen


def _exchanges(key: Any, problem: SpikeSlabProblem, tableau: _Tableau) -> _Tableau:
    """Gibbs updates of which column stands in an active one's place, the others given."""

    def exchange(i: Any, tableau: _Tableau) -> _Tableau:
        place, choice = random.split(random.fold_in(key, i))
        active, index, rows, diag, coef, rss = tableau
        slot = jnp.argmax(jnp.where(index < active.size, random.uniform(place, index.shape), -1))
        column = jnp.minimum(index[slot], active.size - 1)
        row, pivot, value = rows[slot], diag[column], coef[column]
        out = jnp.maximum(diag + row**2 / pivot, 1).at[column].set(1 / pivot)
        left = (coef + row * value / pivot).at[column].set(value / pivot)
        score = problem.log_bayes_factor(out, left, rss + value**2 / pivot)
        if not problem.is_beta:
            score = score + problem.log_odds
        score = jnp.where(active, -jnp.inf, score).at[column].set(score[column])
        new = jnp.argmax(score + random.gumbel(choice, score.shape, score.dtype))
        moves = (new != column) & jnp.any(active)
        both = lambda t: _pivot(problem, _pivot(problem, t, column), new)  # noqa: E731
        return jax.lax.cond(moves, both, lambda t: t, tableau)

    return jax.lax.fori_loop(0, MOVES, exchange, tableau)
