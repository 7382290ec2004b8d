"""Sparse Bayesian learning with a Kronecker-structured support."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._core import compiled, first_of, RESULTS, thrown, whole_number
from ..ops import outer_grid
from ._arguments import checked_units, checked_variance, fraction, in_range, one_of, real_of
from ._design import square
from ._kron_arguments import kron_problem
from ._kron_moments import Moments, moments, posterior_moments, Problem
from ._kron_posterior import KroPosterior
from ._kron_scaling import in_users_units, normalised, standardised
from ._kron_updates import (
    am_update,
    change,
    convex_update,
    prior_grid,
    pruned,
    svd_update,
    Variances,
)

UPDATES = {
    "svd+am": ("svd", "am"),
    "svd": ("svd",),
    "am": ("am",),
    "convex": ("convex",),
    "ksbl": ("ksbl",),
}
SWEEPS = 50  # of alternating minimisation within a step, at most
START_NOISE = 0.1  # of the mean square of the measurements


class Options(NamedTuple):
    """What a program is compiled for."""

    update: str
    coupling: tuple[float | None, ...]
    max_steps: int
    rtol: float
    prune: float
    restarts: int


class State(NamedTuple):
    """What an iteration carries.

    Attributes:
        variances: factors of the prior variances, normalised.
        noise_var: scalar.
        moved: relative change of both in the last step.
        num_steps: done.
        trace: log evidence before each step.
        ok: whether all evidences so far are finite.
    """

    variances: Variances
    noise_var: jax.Array
    moved: jax.Array
    num_steps: jax.Array
    trace: jax.Array
    ok: jax.Array


def kron_sbl(
    factors: Any,
    y: Any,
    *,
    update: str = "svd+am",
    noise_var: Any = None,
    coupling: Any = None,
    max_steps: int = 1000,
    rtol: float = 1e-4,
    prune: float = 1e-4,
    restarts: int = 8,
    throw: bool = False,
) -> KroPosterior:
    r"""Kronecker-structured sparse Bayesian learning (KroSBL).

    Recovers $x$ from $y = (H_1 \otimes \dots \otimes H_I) x + \epsilon$, often with fewer
    measurements than unknowns, where the support of $x$ is a Kronecker product: the prior
    $x \sim N(0, \mathrm{diag}(g_1 \otimes \dots \otimes g_I))$ has $\sum_i n_i$ variances, which
    maximise the evidence; those of columns that are not needed go to 0. The values of $x$ need not
    factorise. With one factor it is classic sparse Bayesian learning.

    Neither the dictionary $H$ nor a covariance is ever formed: a step takes an
    eigendecomposition of `(m_i, m_i)` for each axis, Kronecker products, and memory for a few
    grids. It works in units in which columns have norm 1 and measurements mean square 1, so that
    the options need not be tuned to the data.

    Args:
        factors: $H_i$, shape `(m_i, n_i)` each, real or complex; or one matrix, or an `ops.Kron`.
            Columns of zeros are never active; equal columns share their variance.
        y: measurements, shape `(m_1, ..., m_I)`; with a last axis for snapshots, independent
            coefficients with the same variances.
        update: of the variances. `"am"`: alternating minimisation, the exact maximisation step of
            EM. `"svd"`: rank-one approximation of the second moments; fewer steps and sparser
            solutions, but the evidence may fall. `"svd+am"`: the latter until it converges, then
            the former. `"convex"`: by the bound of Wipf and Nagarajan, monotone as EM is, and
            faster. `"ksbl"`: one sweep of alternating minimisation in a step, the earlier KSBL.
        noise_var: variance of the noise if it is known, of both parts together for complex data; by
            default it is estimated.
        coupling: for block-sparse coefficients, how much a column shares in the variances of its
            neighbours along each axis, such as `(0.8, None, 0.8)`, or one number for all axes; the
            pattern-coupled variant.
        max_steps: of the iteration.
        rtol: ends where a step changes variances and noise by less, relatively.
        prune: fraction of the largest variance along its axis below which one is set to 0.
        restarts: how many starts, as the evidence has several maxima. The first is with equal
            variances, the others with log-normal ones, the same in all calls. The end of highest
            evidence is returned; of `"svd+am"`, the best after `"svd"` goes on.
        throw: whether it is an error, or a `result`, that it has not converged.

    Returns:
        The posterior with the variances found; see `result` and `evidence_trace` for how it went.

    Raises:
        ValueError: shapes that disagree, integers or mixed precisions, data that are empty, NaN or
            zero everywhere, or so large or small that variances are out of range, options out of
            range; what is only known at run time is a `RuntimeError` under `jit`.
        RuntimeError: it has not converged and `throw=True`.

    References:
        He and Joseph (2025), "Bayesian algorithms for Kronecker-structured sparse vector recovery
        with application to IRS-MIMO channel estimation", IEEE Transactions on Signal Processing,
        with KSBL as a baseline. Wipf and Nagarajan (2008), "A new view of automatic relevance
        determination".
    """
    arrays, y_ = kron_problem("kron_sbl", factors, y)
    options = Options(
        one_of("kron_sbl", "update", update, tuple(UPDATES)),
        _coupling(coupling, len(arrays)),
        whole_number("kron_sbl: max_steps", max_steps, 0),
        fraction("kron_sbl", "rtol", rtol, 1.0),
        fraction("kron_sbl", "prune", prune, 1.0),
        whole_number("kron_sbl: restarts", restarts, 1),
    )
    if noise_var is not None:
        noise_var = checked_variance("kron_sbl", "noise_var", noise_var, real_of(y_.dtype))
    posterior = _fit(arrays, y_, noise_var, options, jnp.ndim(y) > len(arrays))
    mean = checked_units("kron_sbl", posterior.mean)
    posterior = eqx.tree_at(lambda p: p.mean, posterior, mean)
    return thrown("kron_sbl", posterior.result, posterior) if throw else posterior


@compiled
def _fit(
    factors: Any, y: jax.Array, noise_var: Any, options: Options, snapshots: bool
) -> KroPosterior:
    problem, units = standardised(factors, y)
    unit_sq = units.y**2
    known = None if noise_var is None else noise_var / unit_sq
    first, *others = UPDATES[options.update]

    def end(start: Variances) -> tuple[State, jax.Array]:
        state = _start(problem, start, known, options.max_steps)
        state = _iterate(problem, state, first, options, known is None)
        return state, moments(problem, state.variances, state.noise_var).log_evidence

    starts = _starts(problem, options.restarts)
    if options.restarts == 1:  # without the cost of a loop
        state, ends = end(jax.tree.map(lambda g: g[0], starts))
        ends = ends[None]
    else:
        states, ends = jax.lax.map(end, starts)
        best = jnp.argmax(jnp.nan_to_num(ends, nan=-jnp.inf))
        state = jax.tree.map(lambda x: x[best], states)
    for name in others:
        state = _iterate(problem, state, name, options, known is None)
    found = moments(problem, state.variances, state.noise_var)
    trace = state.trace.at[state.num_steps].set(found.log_evidence)
    mean, variance = posterior_moments(found, state.variances)
    norms = prior_grid(units.norms)
    mean = mean * (units.y / norms[..., None])
    prior = prior_grid(state.variances)
    prior_var, noise_var = prior * unit_sq / norms**2, state.noise_var * unit_sq
    ranged = in_range(prior, prior_var) & in_range(state.noise_var, noise_var)
    mean = jnp.where(ranged | ~state.ok, mean, jnp.inf)
    shift = y.size * jnp.log(units.y) * (2 if jnp.iscomplexobj(y) else 1)
    result = first_of(
        (~(state.ok & jnp.isfinite(found.log_evidence)), RESULTS.nonfinite),
        (state.moved <= options.rtol, RESULTS.successful),
        otherwise=RESULTS.max_steps_reached,
    )
    return KroPosterior(
        factors,
        y if snapshots else y[..., 0],
        in_users_units(state.variances, units),
        noise_var,
        prior_var,
        outer_grid([g > 0 for g in state.variances], jnp.logical_and),
        mean if snapshots else mean[..., 0],
        variance * unit_sq / norms**2,
        found.effective_dof,
        trace - shift,
        ends - shift,
        state.num_steps,
        result,
    )


def _starts(problem: Problem, restarts: int) -> tuple[jax.Array, ...]:
    """Variances to start at, a stack for each factor."""
    rng, starts = np.random.default_rng(0), []
    for factor in problem.factors:
        # A column of zeros says nothing, and would keep the others from changing freely.
        reached = jnp.any(factor != 0, axis=0).astype(problem.rest.dtype)
        multipliers = np.exp(rng.normal(size=(restarts, factor.shape[1])))
        multipliers[0] = 1
        starts.append(reached * jnp.asarray(multipliers, reached.dtype))
    return tuple(starts)


def _start(problem: Problem, start: Variances, known: Any, max_steps: int) -> State:
    dtype = problem.rest.dtype
    noise_var = jnp.asarray(START_NOISE, dtype) if known is None else known
    trace = jnp.full(max_steps + 1, jnp.nan, dtype)
    far, none = jnp.asarray(jnp.inf, dtype), jnp.zeros((), int)
    return State(normalised(start), noise_var, far, none, trace, jnp.asarray(True))


def _iterate(problem: Problem, state: State, update: str, options: Options, learns: bool) -> State:
    """Steps of one kind until they change little."""

    def go_on(state: State) -> jax.Array:
        return (state.moved > options.rtol) & (state.num_steps < options.max_steps) & state.ok

    def step(state: State) -> State:
        found = moments(problem, state.variances, state.noise_var)
        new = pruned(_updated(found, state.variances, update, options), options.prune)
        new = normalised(new)
        noise_var, moved = state.noise_var, change(new, state.variances)
        if learns:
            noise_var = _noise(problem, found, noise_var, update)
            moved += jnp.abs(noise_var / state.noise_var - 1)
        return State(
            new,
            noise_var,
            moved,
            state.num_steps + 1,
            state.trace.at[state.num_steps].set(found.log_evidence),
            state.ok & jnp.isfinite(found.log_evidence),
        )

    again = state._replace(moved=jnp.full_like(state.moved, jnp.inf))
    return jax.lax.while_loop(go_on, step, again)


def _updated(found: Moments, variances: Variances, update: str, options: Options) -> Variances:
    prior = prior_grid(variances)
    solved_sq = jnp.mean(square(found.solved), axis=1).reshape(prior.shape)
    inner: dict[str, Any] = {"max_sweeps": SWEEPS, "rtol": options.rtol / 10}
    if update == "convex":
        mean_sq = prior**2 * solved_sq
        return convex_update(mean_sq, found.leverage, variances, options.coupling, **inner)
    # T = |mean|² + variance, written so that no variance is divided by.
    second_moment = prior * jnp.maximum(1 + prior * (solved_sq - found.leverage), 0)
    if update == "svd":
        return svd_update(second_moment, variances, options.coupling)
    if update == "ksbl":
        inner["max_sweeps"] = 1
    return am_update(second_moment, variances, options.coupling, **inner)


def _noise(problem: Problem, found: Moments, noise_var: jax.Array, update: str) -> jax.Array:
    """The next variance of the noise: by EM, or by the same bound as the prior variances."""
    if update == "convex":
        new = jnp.sqrt(found.residual_sq / found.inverse_trace)
    else:
        new = (found.residual_sq + noise_var * found.effective_dof) / problem.size
    return jnp.maximum(new, least_noise(noise_var.dtype))


def least_noise(dtype: Any) -> float:
    """The smallest variance that is estimated, relative to the mean square of measurements.

    The evidence has no bound where columns explain the measurements entirely.
    """
    return 1e-8 if dtype == jnp.float64 else 1e-6


def _coupling(coupling: Any, axes: int) -> tuple[float | None, ...]:
    if coupling is None or not isinstance(coupling, tuple | list):
        coupling = (coupling,) * axes
    if len(coupling) != axes:
        raise ValueError(
            f"kron_sbl: coupling must have {axes} elements, numbers or None, got {coupling!r}"
        )
    return tuple(
        None if c is None else fraction("kron_sbl", "each coupling", c, 1.0) for c in coupling
    )
