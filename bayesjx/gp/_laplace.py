"""Laplace's approximation: any likelihood, on grids with missing cells and at points."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .. import ops
from .._core import (
    check_flag,
    checked_finite,
    compiled,
    first_of,
    RESULTS,
    thrown,
    traced,
    whole_number,
)
from ..likelihoods import held, in_support, Likelihood, log_likelihood
from ._grid_posterior import cell_values, checked_mask
from ._inputs import all_points, Grid
from ._laplace_posterior import Curvature, LaplacePosterior
from ._process import GP, known_mask
from ._svgp import check_observed

DENSE_LIMIT = 1000  # observed cells up to which a dense factor is chosen
ORDERS = 2  # up to which derivatives of a mode are right
HALVINGS = 20  # of a Newton step at most


def laplace(
    prior: GP,
    likelihood: Likelihood,
    x: Any,
    y: Any,
    mask: Any = None,
    *,
    solver: str = "auto",
    max_steps: int = 50,
    rtol: float | None = None,
    cg_rtol: float | None = None,
    cg_max_steps: int = 1000,
    throw: bool = False,
) -> LaplacePosterior:
    r"""Laplace's approximation at the posterior mode, for any log-concave likelihood.

    Newton's method with line search finds the mode $\hat f = m + K \alpha$ of
    $\log p(y \mid f) - \frac12 \alpha^\top K \alpha$; the posterior has there the precision
    $K^{-1} + W$ with $W = -\nabla^2 \log p(y \mid \hat f)$. On a grid nothing but Kronecker
    products is made with `solver="cg"`: a step takes a solve with $I + W^{1/2} K W^{1/2}$ by
    conjugate gradients. Only observed cells have a likelihood.

    In a NumPyro model it integrates the function out:
    `numpyro.factor("evidence", laplace(GP(kernel), likelihood, grid, y).log_evidence())`. Its
    derivatives with respect to kernel, mean and likelihood are those of the whole approximation,
    with the mode that moves (by the implicit function theorem); with a dense factor up to second
    order.

    Args:
        prior: the process, without noise.
        likelihood: from the function's values `(n,)` to a NumPyro distribution of that batch
            shape, such as `lambda f: dist.Poisson(jnp.exp(f))`, where observation `i` depends on
            value `i` only. Where it is not log-concave, negative curvature counts as none.
        x: points, shape `(n, d)` or `(n,)`, or a `Grid`.
        y: observations, shape `(n,)`; on a grid also of its shape, or of the observed cells only.
        mask: which observations there are, booleans, known when traced.
        solver: `"dense"`, a Cholesky factor of the observed cells; `"cg"`, for grids;
            `"auto"`: the former at points, and up to 1000 observed cells.
        max_steps: of Newton's method.
        rtol: it has converged once a step changes values by less than this, in posterior
            standard deviations; by default 1e-6 in float64 and 1e-3 in float32.
        cg_rtol: of conjugate gradients, by default 1e-8 and 1e-5.
        cg_max_steps: of conjugate gradients at most.
        throw: whether it is an error, or a `result`, that the mode was not found.

    Returns:
        The posterior, whose `result` says whether Newton's method has converged; if not, its
        evidence is NaN.

    Raises:
        ValueError: shapes that disagree, NaN in an observed cell, `y` outside of the support, a
            prior with noise, several latent functions, `"cg"` without a grid.
        TypeError: the likelihood does not return a NumPyro distribution.
        RuntimeError: what is only known at run time, under `jit`; with `throw=True`, that the mode
            was not found.

    References:
        Rasmussen and Williams (2006), "Gaussian processes for machine learning", algorithm 3.1
        and section 5.5.1; Flaxman, Wilson, Neill, Nickisch and Smola (2015), "Fast Kronecker
        inference in Gaussian processes with non-Gaussian likelihoods", ICML, for grids.
    """
    if solver not in ("auto", "dense", "cg"):
        raise ValueError(f'laplace: solver must be "auto", "dense" or "cg", got {solver!r}')
    check_flag("laplace: throw", throw)
    if not isinstance(prior, GP):
        raise ValueError(f"laplace: prior must be a gp.GP, got {type(prior).__name__}")
    whole_number("laplace: max_steps", max_steps)
    whole_number("laplace: cg_max_steps", cg_max_steps)
    for name, number in (("rtol", rtol), ("cg_rtol", cg_rtol)):
        if number is not None and not number > 0:
            raise ValueError(f"laplace: {name} must be positive, got {number!r}")
    check_observed(prior, likelihood, False)
    x, y, observed = _data(x, y, mask)
    count = x.size if isinstance(x, Grid) else len(x)
    cells = slice(None) if observed is None else observed
    mean = prior.mean_at(x)[cells]
    y, guard = in_support(likelihood, y, mean, jnp.ones((), mean.dtype))
    mean = guard * mean
    if solver == "auto":
        solver = "cg" if isinstance(x, Grid) and y.size > DENSE_LIMIT else "dense"
    if solver == "cg" and not isinstance(x, Grid):
        raise ValueError('laplace: solver="cg" is for a Grid, whose products are fast')
    double = mean.dtype == jnp.float64
    cg_rtol = cg_rtol or (1e-8 if double else 1e-5)
    operator = prior.covariance(x)
    if solver == "dense":
        matrix = operator.as_matrix()
        operator = ops.Dense(matrix[cells][:, cells], ops.psd)
    curvature = Curvature(
        operator,
        None if solver == "dense" else observed,
        jnp.ones_like(mean),
        cg_rtol,
        cg_max_steps,
    )
    rtol = rtol or (1e-6 if double else 1e-3)
    log_prob, constants = _explicit(likelihood, y, mean)
    problem = _Problem(mean, curvature, constants, log_prob)
    mode, result, steps = _find_mode(jax.lax.stop_gradient(problem), max_steps, rtol)
    mode = thrown("laplace", result, mode) if throw else mode
    alpha = _attached(problem, mode)
    f = mean + curvature.times(alpha)
    _, weight = problem.slopes(f)
    weights = alpha if observed is None else jnp.zeros(count, mean.dtype).at[observed].set(alpha)
    return LaplacePosterior(
        prior, x, held(likelihood), observed, weights, f, problem.objective(alpha, f),
        curvature.at(weight), steps, result,
    )  # fmt: skip


class _Problem(eqx.Module):
    """What Newton's method works on, with all parameters as arrays of its own."""

    mean: jax.Array
    curvature: Curvature
    constants: list[Any]
    log_prob: Callable[..., jax.Array]

    def objective(self, alpha: jax.Array, f: jax.Array) -> jax.Array:
        return jnp.sum(self.log_prob(f, *self.constants)) - 0.5 * alpha @ (f - self.mean)

    def slopes(self, f: jax.Array) -> tuple[jax.Array, jax.Array]:
        """First derivatives of the log likelihood, and second ones, negative, where they are."""
        total = lambda f: jnp.sum(self.log_prob(f, *self.constants))  # noqa: E731
        first, second = jax.jvp(jax.grad(total), (f,), (jnp.ones_like(f),))
        return first, jnp.maximum(-second, 0)

    def newton(self, f: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
        """Where a full step goes: the coefficients, with the curvature that it used."""
        first, weight = self.slopes(f)
        inner = self.curvature.at(weight)
        right = weight * (f - self.mean) + first
        solved, ok = inner.solve_quietly(inner.half * inner.times(right))
        return right - inner.half * solved, first, weight, ok


class _Carry(NamedTuple):
    alpha: jax.Array
    f: jax.Array
    objective: jax.Array
    steps: jax.Array
    state: jax.Array  # 0 goes on, 1 has converged, 2 has stagnated, 3 had no solution


@compiled
def _find_mode(
    problem: _Problem, max_steps: int, rtol: float
) -> tuple[jax.Array, RESULTS, jax.Array]:
    """Coefficients of the mode, whether they are that, and the number of steps."""
    mean = problem.mean

    def step(carry: _Carry) -> _Carry:
        alpha, _, weight, ok = problem.newton(carry.f)
        f = mean + problem.curvature.times(alpha)
        d_alpha, d_f = alpha - carry.alpha, f - carry.f
        # The squared length of the step in the norm of the posterior's precision.
        length = jnp.sqrt(jnp.abs(d_alpha @ d_f) + jnp.sum(weight * d_f**2))
        scaled = length / f.size**0.5

        def value(t: Any) -> jax.Array:
            return problem.objective(carry.alpha + t * d_alpha, carry.f + t * d_f)

        def lower(search: Any) -> jax.Array:
            halvings, t = search
            return ~(value(t) >= carry.objective) & (halvings < HALVINGS)  # NaN is lower

        start = jnp.zeros((), int), jnp.ones((), mean.dtype)
        halvings, t = jax.lax.while_loop(lower, lambda s: (s[0] + 1, s[1] / 2), start)
        # Near the mode rounding decides which of two values is the lower one; a full step is best.
        stuck = halvings == HALVINGS
        close = (scaled <= rtol) | (stuck & (scaled <= rtol**0.5))
        t = jnp.where(close, 1, t)
        state = jnp.where(ok, jnp.where(close, 1, jnp.where(stuck, 2, 0)), 3)
        alpha, f = carry.alpha + t * d_alpha, carry.f + t * d_f
        return _Carry(alpha, f, problem.objective(alpha, f), carry.steps + 1, state)

    none = jnp.zeros((), int)
    zero = jnp.zeros_like(mean)
    first = _Carry(zero, mean, problem.objective(zero, mean), none, none)
    last = jax.lax.while_loop(lambda c: (c.state == 0) & (c.steps < max_steps), step, first)
    result = first_of(
        (last.state == 1, RESULTS.successful),
        (last.state == 2, RESULTS.stagnation),
        (last.state == 3, RESULTS.breakdown),
        otherwise=RESULTS.max_steps_reached,
    )
    return last.alpha, result, last.steps


def _attached(problem: _Problem, mode: jax.Array) -> jax.Array:
    r"""The mode with its derivatives with respect to all parameters.

    It solves $\alpha = g(m + K \alpha)$ with $g = \nabla \log p$, so that one step of Newton's
    method, whose matrix $I + W K$ is held constant, has the first derivatives of the solution, and
    each further one those of an order more.
    """
    fixed = jax.lax.stop_gradient(problem)
    f = fixed.mean + fixed.curvature.times(mode)
    inner = fixed.curvature.at(fixed.slopes(f)[1])
    for _ in range(ORDERS):
        f = problem.mean + problem.curvature.times(mode)
        left = mode - problem.slopes(f)[0]
        solved, _ = inner.solve_quietly(inner.half * inner.times(left))
        mode = mode - (left - inner.half * solved)
    return mode


def _explicit(
    likelihood: Likelihood, y: jax.Array, f: jax.Array
) -> tuple[Callable[..., jax.Array], list[Any]]:
    """The log likelihood with all that it closes over as arguments, of which some are traced."""
    return traced(lambda f: log_likelihood(likelihood, f, y), jax.eval_shape(lambda: f)), []


def _data(x: Any, y: Any, mask: Any) -> tuple[Any, jax.Array, jax.Array | None]:
    """Inputs, the observations of observed ones, and on a grid with a mask where those are."""
    if isinstance(x, Grid):
        seen = None if mask is None else checked_mask(mask, x)
        kind = jnp.result_type(y)
        y = cell_values(x, y, seen)
        y = y if jnp.issubdtype(kind, jnp.floating) else y.astype(kind)
        if seen is None or seen.all():
            return x, y, None
        return x, y, jnp.asarray(np.flatnonzero(seen), jnp.int32)
    x = all_points(x)
    if jnp.ndim(y) == 0 or len(y) != len(x):
        raise ValueError(f"laplace: y must have shape ({len(x)},), got {jnp.shape(y)}")
    y = jnp.asarray(y)
    if mask is not None:
        seen = known_mask(mask)
        if seen.shape != (len(x),) or not seen.any():
            raise ValueError(f"laplace: mask must have shape ({len(x)},) and a True")
        x, y = x[np.flatnonzero(seen)], y[np.flatnonzero(seen)]
    return x, checked_finite("y", y), None
