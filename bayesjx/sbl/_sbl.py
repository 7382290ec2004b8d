"""Classic sparse Bayesian learning: automatic relevance determination."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Num

from .._core import compiled, first_of, refuse_where, RESULTS, thrown, whole_number
from ..ops import AbstractOperator
from ._arguments import (
    checked_problem,
    checked_units,
    checked_variance,
    fraction,
    in_range,
    one_of,
    real_of,
)
from ._design import dense, square
from ._fast import fast_marginal
from ._learned import SBLPosterior
from ._statistics import Problem, with_products
from ._updates import advance, Options, start, State
from ._weights import conditioned

UPDATES = ("fixed-point", "convex", "em", "fast")
COMPACT = 512  # columns from which it pays to compile programs for half of them, a quarter, ...
ROOM = 256  # weights that the fast marginal updates have room for, by default
FIRST_NOISE = 0.03  # part of the mean square of the measurements


class _Scaled(NamedTuple):
    """The problem in its units, and these: lengths of columns, and the size of measurements."""

    problem: Problem
    length: jax.Array
    size: jax.Array
    prior_var: jax.Array
    noise_var: jax.Array


def sbl(
    design: Num[Array | np.ndarray, "n m"] | AbstractOperator,
    y: Num[Array | np.ndarray, " _n *L"],
    *,
    noise_var: Any = None,
    update: str = "fixed-point",
    max_steps: int | None = None,
    rtol: float = 1e-4,
    prune: float = 1e-2,
    hyper_prior: Any = (0.0, 0.0),
    max_active: int | None = None,
    throw: bool = False,
) -> SBLPosterior:
    r"""Sparse Bayesian learning (SBL): automatic relevance determination, ARD.

    The relevance vector machine for regression. In $y = \Phi w + \epsilon$ each weight has a prior
    $N(0, g_j)$ of its own variance, and the variances maximise the evidence
    $\log N(y; 0, \sigma^2 I + \Phi\,\mathrm{diag}(g)\,\Phi^H)$, where most of them become 0. With
    `L` measurement vectors (M-SBL) all share the variances, so the support is common; complex data
    have circular complex normals. Columns are scaled to length 1 internally, so that scales of
    columns and of `y` do not matter.

    Updates, none of which lowers the evidence:

    - `"fixed-point"`: MacKay's, with expectation-maximisation where the evidence would fall. The
      default, as it takes the fewest steps.
    - `"convex"`: the convex bound of Wipf and Nagarajan, of the noise variance too.
    - `"em"`: expectation-maximisation; slow for weights that go to 0.
    - `"fast"`: the fast marginal likelihood maximisation of Tipping and Faul, which starts with one
      column and adds, re-estimates or deletes one in each step: the cheapest of very sparse ones.

    The first two start with twenty steps of expectation-maximisation, without which they settle on
    a support too early. A step takes $O(n m \min(n, m))$ time, one of `"fast"` with `k` columns in
    use $O(m (n + k^2))$. Outside of `jit` columns that are no longer in use are left out whenever
    their number has halved (from 512 on); under `jit` and `vmap` shapes are fixed and they only
    count as zeros.

    With fewer measurements than columns, data may support both a small noise variance with many
    weights and a larger one with few; the evidence often prefers the former. So give `noise_var`
    where it is known. There are many local maxima of the evidence, of which this finds one.

    Args:
        design: $\Phi$, shape `(n, m)`, real or complex; an operator is made dense. Columns of zeros
            are never in use; of columns that are the same any combination may be.
        y: measurements, shape `(n,)`, or `(n, L)` for `L` of them. Centred, as there is no
            intercept.
        noise_var: $\sigma^2 > 0$, scalar, in squared units of `y`; learned if None, but kept above
            a part of 1e-8, in float32 1e-5, of the mean square of `y`.
        update: see above.
        max_steps: of updates; by default 500, and 3000 of `"fast"`.
        rtol: it has converged once a step changes the prior variances by less than this, relative
            to their norm, and the noise variance by less than ten times that, or the log evidence
            has risen by less than ten times that in ten steps (of `"em"`, which is slower, by no
            more than rounding); `"fast"` once no column changes the evidence by more. Weights that
            are on their way to 0 change slowly: with a larger one many of them are still in use.
        prune: a weight is dropped once data determine less than this part of it, $1 - \Sigma_{jj} /
            g_j$, and without it the evidence is no lower; larger values, up to 0.5, leave fewer
            weights, and 0 drops none.
        hyper_prior: shape and rate of a gamma prior of each precision $1 / g_j$ (of its logarithm,
            so that `(0, 0)`, the default, is flat); rates are in inverse squared units of weights.
            Not for `"fast"`.
        max_active: number of columns that `"fast"` has room for, by default at most 256; with it
            full the `result` is `stagnation`.
        throw: whether it is an error, or a `result`, that it has not converged.

    Returns:
        The posterior, whose `active`, `evidence_trace`, `num_steps`, `result` and `converged` say
        how it went.

    Raises:
        ValueError: shapes that disagree, empty or NaN data, two precisions, measurements that are
            all 0, or so large or small that variances are out of range, options out of range.
        RuntimeError: under `jit`, values that are not finite or out of range, or measurements that
            are all 0; with `throw=True`, that it has not converged.

    References:
        Tipping (2001), "Sparse Bayesian learning and the relevance vector machine", JMLR 1; Wipf
        and Rao (2007), "An empirical Bayesian strategy for solving the simultaneous sparse
        approximation problem", IEEE Transactions on Signal Processing 55, for M-SBL; Wipf and
        Nagarajan (2008), "A new view of automatic relevance determination", NeurIPS; MacKay (1992),
        "Bayesian interpolation", Neural Computation 4; Tipping and Faul (2003), "Fast marginal
        likelihood maximisation for sparse Bayesian models", AISTATS.
    """
    one_of("sbl", "update", update, UPDATES)
    fast = update == "fast"
    if max_steps is None:
        max_steps = 3000 if fast else 500
    shape, rate = _checked_hyper_prior(hyper_prior, fast)
    design, y = checked_problem("sbl", design, y)
    design = dense(design)
    room = min(*design.shape, ROOM) if max_active is None else max_active
    options = Options(
        update=update,
        learn_noise=noise_var is None,
        max_steps=whole_number("sbl: max_steps", max_steps, 1),
        rtol=fraction("sbl", "rtol", rtol),
        prune=fraction("sbl", "prune", prune, 0.5),
        shape=shape,
        max_active=whole_number("sbl: max_active", room, 1, min(design.shape)),
    )
    real = real_of(y.dtype)
    if noise_var is not None:
        noise_var = checked_variance("sbl", "noise_var", noise_var, real)
    y = refuse_where(
        y, lambda v: (v == 0).all(), "sbl: y is 0 everywhere, which says nothing of scales"
    )
    rate = jnp.asarray(rate, real)
    traced = any(isinstance(x, jax.core.Tracer) for x in (design, y, noise_var))
    if fast or traced or design.shape[1] <= COMPACT:
        posterior = _learn(design, y, noise_var, rate, options)
    else:
        posterior = _learn_by_halves(design, y, noise_var, rate, options)
    mean = checked_units("sbl", posterior.mean)
    posterior = eqx.tree_at(lambda p: p.mean, posterior, mean)
    return thrown("sbl", posterior.result, posterior) if throw else posterior


@compiled
def _learn(
    design: jax.Array, y: jax.Array, noise_var: Any, rate: jax.Array, options: Options
) -> SBLPosterior:
    """All steps in one program, with all columns."""
    scaled = _scaled(*jax.lax.stop_gradient((design, y, noise_var, rate)))
    if options.update == "fast":
        state, result = fast_marginal(scaled.problem, scaled.noise_var, _floor(y), options)
        pair, trace, steps = (state.prior_var, state.noise_var), state.trace, state.num_steps
    else:
        first = start(scaled.prior_var, scaled.noise_var, options.max_steps)
        state = advance(scaled.problem, first, _floor(y), jnp.asarray(-1), options)
        pair, trace, steps = state.good, state.trace, state.num_steps
        result = _how_it_ended(state, options)
    every = jnp.arange(design.shape[1])
    return _posterior(design, y, noise_var, scaled, every, pair, trace, steps, result)


def _learn_by_halves(
    design: jax.Array, y: jax.Array, noise_var: Any, rate: jax.Array, options: Options
) -> SBLPosterior:
    """The same without the columns that are no longer in use, whenever half of them are not."""
    scaled = _scaled(design, y, noise_var, rate)
    problem, columns = scaled.problem, np.arange(design.shape[1])
    state = start(scaled.prior_var, scaled.noise_var, options.max_steps)
    while True:
        few = len(columns) // 2 if len(columns) > COMPACT else -1
        state = advance(problem, state, _floor(y), jnp.asarray(few), options)
        left = np.flatnonzero(np.asarray(state.prior_var))
        if left.size > few:
            break
        kept = _padded(left, few, len(columns))
        columns = columns[kept]
        problem, state = _compacted(problem, state, jnp.asarray(kept))
    result = _how_it_ended(state, options)
    return _posterior(
        design, y, noise_var, scaled, jnp.asarray(columns), state.good, state.trace,
        state.num_steps, result,
    )  # fmt: skip


def _padded(left: np.ndarray, size: int, total: int) -> np.ndarray:
    """So many positions, with those that are left, in their order."""
    others = np.setdiff1d(np.arange(total), left)[: size - left.size]
    return np.sort(np.concatenate([left, others]))


@compiled
def _compacted(problem: Problem, state: State, kept: jax.Array) -> tuple[Problem, State]:
    design = problem.design[:, kept]
    state = state._replace(
        prior_var=state.prior_var[kept],
        good=(state.good[0][kept], state.good[1]),
        safe=(state.safe[0][kept], state.safe[1]),
    )
    return with_products(design, problem.y, problem.rate[kept]), state


@compiled
def _scaled(design: jax.Array, y: jax.Array, noise_var: Any, rate: jax.Array) -> _Scaled:
    """Columns of length 1 and measurements of mean square 1, with prior variances to start from."""
    y = y[:, None] if y.ndim == 1 else y
    largest = jnp.max(jnp.abs(y))  # so that no square is out of range
    size = largest * jnp.sqrt(jnp.mean(square(y / largest)))
    largest = jnp.max(jnp.abs(design), axis=0)
    safe = jnp.where(largest > 0, largest, 1)
    length = safe * jnp.sqrt(jnp.sum(square(design / safe), axis=0))
    length = jnp.where(largest > 0, length, 1)
    n, m = design.shape
    rate = rate * (length / size) ** 2
    problem = with_products(design / length, y / size, rate)
    prior_var = jnp.where(largest > 0, jnp.asarray(n / m, size.dtype), 0)
    first = jnp.asarray(FIRST_NOISE, size.dtype) if noise_var is None else noise_var / size / size
    return _Scaled(problem, length, size, prior_var, first)


@compiled
def _posterior(
    design: jax.Array,
    y: jax.Array,
    noise_var: Any,
    scaled: _Scaled,
    columns: jax.Array,
    pair: tuple[jax.Array, jax.Array],
    trace: jax.Array,
    steps: jax.Array,
    result: RESULTS,
) -> SBLPosterior:
    m, size = design.shape[1], scaled.size
    own = pair[0] * (size / scaled.length[columns]) ** 2
    noise = pair[1] * size**2 if noise_var is None else noise_var
    weights = conditioned(design[:, columns], y, noise, own)
    mean = jnp.where(in_range(pair[0], own) & in_range(pair[1], noise), weights.mean, jnp.inf)
    mean = jnp.zeros((m, *y.shape[1:]), y.dtype).at[columns].set(mean)
    variance, prior_var = (
        jnp.zeros(m, own.dtype).at[columns].set(x) for x in (weights.variance, own)
    )
    per = 2 if jnp.iscomplexobj(y) else 1
    trace = trace - per * y.size * jnp.log(size)  # a density in units of y
    return SBLPosterior(
        weights, columns, mean, variance, prior_var, prior_var > 0, trace, steps, result
    )


def _how_it_ended(state: State, options: Options) -> RESULTS:
    return first_of(
        (state.lost, RESULTS.breakdown),
        (state.change <= options.rtol, RESULTS.successful),
        otherwise=RESULTS.max_steps_reached,
    )


def _floor(y: jax.Array) -> jax.Array:
    """The least noise variance that is learned, in units where y has a mean square of 1."""
    real = real_of(y.dtype)
    return jnp.asarray(1e-8 if real == jnp.float64 else 1e-5, real)


def _checked_hyper_prior(value: Any, fast: bool) -> tuple[float, float]:
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"sbl: hyper_prior must be a pair (shape, rate), got {value!r}")
    shape, rate = (fraction("sbl", "each number of hyper_prior", number) for number in value)
    if fast and (shape or rate):
        raise ValueError('sbl: hyper_prior must be (0, 0) with update="fast"')
    return shape, rate
