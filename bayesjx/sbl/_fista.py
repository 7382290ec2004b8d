"""Least squares with a penalty: monotone accelerated proximal gradient descent."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Bool, Float, Inexact, Int

from .._core import checked_finite, compiled, first_of, is_successful, RESULTS, thrown, whole_number
from ._arguments import checked_problem, fraction, real_of
from ._design import adjoint_times, square, times
from ._prox import AbstractPenalty

POWER_STEPS = 30  # of the power iteration for the norm of the design
MARGIN = 1.02  # by which the squared norm is taken to be larger than what has been seen of it


class ProximalFit(eqx.Module):
    r"""Result of `fista`: sparse weights, and how they were reached.

    Attributes:
        weights: shape `(m,)`.
        objective: $\frac12 \|y - \Phi w\|^2$ and the penalty, scalar.
        objective_trace: of it after each step, shape `(max_steps,)`, never increasing but by
            rounding; NaN beyond `num_steps`.
        stationarity: norm of $w$ less the proximal gradient step from it, relative to that of $w$:
            0 at a minimiser of a convex problem, and at critical points of others.
        norm_squared: the $L$ whose inverse is the step: the squared norm of the design as far as a
            power iteration has found it, or more. Its quadratic bound of the objective was checked
            to hold in every step that was taken, which is what their descent needs.
        num_steps: products with the design and its adjoint, integer.
        result: successful where `stationarity` fell to `rtol`; stagnation where rounding lets no
            step lower the objective before.
    """

    weights: Inexact[Array, " m"]
    objective: Float[Array, ""]
    objective_trace: Float[Array, " t"]
    stationarity: Float[Array, ""]
    norm_squared: Float[Array, ""]
    num_steps: Int[Array, ""]
    result: RESULTS

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether `result` is successful."""
        return is_successful(self.result)

    @property
    def active(self) -> Bool[Array, " m"]:
        """Which weights are not zero."""
        return self.weights != 0


def fista(
    design: Any,
    y: Any,
    penalty: AbstractPenalty,
    *,
    init: Any = None,
    max_steps: int = 2000,
    rtol: float | None = None,
    throw: bool = False,
) -> ProximalFit:
    r"""Monotone FISTA with restarts for $\min_w \frac12 \|y - \Phi w\|^2 + \text{penalty}(w)$.

    Each step is a proximal gradient step of length $1 / L$ from a point that is extrapolated along
    the last move. One that does not lower the objective is not taken, and momentum starts anew;
    so it does where it points uphill, and once before the end, so that the fixed point is checked
    at the answer itself. $L$ comes from a power iteration, which is a lower bound of
    $\|\Phi\|^2$, and grows where a step shows it to be too small.

    With `L1` the answer is a global minimum. The other penalties are not convex: it is a critical
    point, which depends on the start; that of `L1` is a good one. Derivatives are those of forward
    mode (`jax.jvp`, `jax.jacfwd`); the loop has none in reverse.

    Args:
        design: $\Phi$, an array or an operator of `bayesjx.ops`, shape `(n, m)`, real or complex.
        y: shape `(n,)`.
        penalty: `L1`, `Lq`, `L0`, `CEL0` or another `AbstractPenalty`.
        init: where to start, shape `(m,)`, by default zero.
        max_steps: at most so many products with the design.
        rtol: ends where the proximal gradient step from the weights moves them by no more than this
            times their norm; by default 1e-8, in single precision 1e-5.
        throw: whether it is an error that it has not converged.

    Returns:
        The weights. Look at `result`.

    Raises:
        ValueError: shapes or types that disagree, data that are empty or not finite, options out of
            range; values under `jit` are a `RuntimeError`.
        RuntimeError: not converged, with `throw=True`.

    References:
        Beck and Teboulle (2009), "A fast iterative shrinkage-thresholding algorithm for linear
        inverse problems"; O'Donoghue and Candès (2015), "Adaptive restart for accelerated gradient
        schemes"; Li and Lin (2015), "Accelerated proximal gradient methods for nonconvex
        programming", for what monotonicity gives without convexity.
    """
    operator, y, start = _checked(design, y, init)
    if not isinstance(penalty, AbstractPenalty):
        raise ValueError(
            f"fista: penalty must be one such as sbl.L1(0.1), got {type(penalty).__name__}"
        )
    max_steps = whole_number("fista: max_steps", max_steps, 1)
    if rtol is None:
        rtol = 1e-8 if real_of(y.dtype) == jnp.float64 else 1e-5
    rtol = fraction("fista", "rtol", rtol, below=1.0)
    sizes = {jnp.shape(leaf) for leaf in jax.tree.leaves(penalty)} - {(), start.shape}
    if sizes:
        raise ValueError(
            f"fista: arrays of penalty must be scalars or have shape {start.shape}, one number for "
            f"each column of the design, got {sizes.pop()}"
        )
    fit = _fista(operator, y, penalty, start, max_steps, rtol)
    return thrown("fista", fit.result, fit) if throw else fit


def _checked(design: Any, y: Any, init: Any) -> tuple[Any, jax.Array, jax.Array]:
    """Design, observations and start, in one type."""
    design, y = checked_problem("fista", design, y)
    if y.ndim != 1:
        raise ValueError(
            f"fista: y must have shape (n,), got {y.shape}; several are a jax.vmap over y"
        )
    size, dtype = design.shape[1], jnp.result_type(design.dtype, y.dtype)
    y = y.astype(dtype)
    if init is None:
        return design, y, jnp.zeros(size, dtype)
    if jnp.shape(init) != (size,) or (jnp.iscomplexobj(init) and not jnp.iscomplexobj(y)):
        raise ValueError(
            f"fista: init must be {dtype} of shape ({size},), got {jnp.result_type(init)} of "
            f"shape {jnp.shape(init)}"
        )
    return design, y, checked_finite("init", jnp.asarray(init, dtype))


class _Point(NamedTuple):
    """Weights, the design times them, and the objective."""

    weights: jax.Array
    product: jax.Array
    objective: jax.Array


class _Walk(NamedTuple):
    """The state of the iteration.

    Attributes:
        at: the best weights so far.
        before: the ones that momentum is measured from; `at` itself where it starts anew.
        momentum: $t_k$ of Nesterov's sequence, 1 where it starts anew.
        norm_squared: $L$.
        lowest: objective so far.
        stationarity: of the last step without momentum.
        trace: the objective after each step.
        num_steps: so many.
        stuck: whether a step without momentum came no closer than the last such.
    """

    at: _Point
    before: _Point
    momentum: jax.Array
    norm_squared: jax.Array
    lowest: jax.Array
    stationarity: jax.Array
    trace: jax.Array
    num_steps: jax.Array
    stuck: jax.Array


@compiled
def _fista(
    design: Any,
    y: jax.Array,
    penalty: AbstractPenalty,
    start: jax.Array,
    max_steps: int,
    rtol: float,
) -> ProximalFit:
    real = real_of(y.dtype)
    one, eps = jnp.ones((), real), float(jnp.finfo(real).eps)

    def point(weights: jax.Array) -> _Point:
        product = _product(design, weights)
        objective = 0.5 * _square(y - product) + penalty(weights)
        return _Point(weights, product, objective.astype(real))

    def step(walk: _Walk) -> _Walk:
        at, before, rate = walk.at, walk.before, walk.norm_squared
        following = 0.5 * (1 + jnp.sqrt(1 + 4 * walk.momentum**2))
        beta = ((walk.momentum - 1) / following).astype(y.dtype)
        ahead = at.weights + beta * (at.weights - before.weights)
        product = at.product + beta * (at.product - before.product)
        slope = _adjoint(design, product - y)
        new = point(penalty.prox(ahead - slope / rate.astype(y.dtype), 1 / rate))
        # The quadratic bound of the step must hold where it went, or the step was too long.
        length, seen = _square(new.weights - ahead), _square(new.product - product)
        rounding = (100 * eps) ** 2 * (_square(new.product) + _square(product))
        short = seen > rate * length * (1 + 100 * eps) + rounding
        plain = walk.momentum == 1
        moved = jnp.sqrt(length / jnp.maximum(_square(new.weights), jnp.finfo(real).tiny))
        # Under the bound a step without momentum lowers the objective, whatever rounding says.
        lower = new.objective <= walk.lowest + 8 * eps * jnp.abs(walk.lowest)
        taken = ~short & (plain | lower)
        # Against the last move, or as little of a move as is looked for: a step without momentum.
        uphill = _inner(ahead - new.weights, new.weights - at.weights) > 0
        anew = ~taken | uphill | (moved <= rtol)
        chosen: _Point = jax.tree.map(lambda a, b: jnp.where(taken, a, b), new, at)
        stuck = (new.objective >= walk.lowest) & (moved >= walk.stationarity)
        return _Walk(
            chosen,
            jax.tree.map(lambda a, b: jnp.where(anew, a, b), chosen, at),
            jnp.where(anew, one, following),
            jnp.where(short, MARGIN * seen / jnp.where(short, length, 1), rate),
            jnp.minimum(walk.lowest, chosen.objective),
            jnp.where(plain & ~short, moved, walk.stationarity),
            walk.trace.at[walk.num_steps].set(chosen.objective),
            walk.num_steps + 1,
            plain & ~short & stuck,
        )

    def go_on(walk: _Walk) -> jax.Array:
        ended = walk.stuck | (walk.stationarity <= rtol) | ~jnp.isfinite(walk.at.objective)
        return (walk.num_steps < max_steps) & ~ended

    first = point(start)
    walk = _Walk(
        first,
        first,
        one,
        MARGIN * _norm_squared(design),
        first.objective,
        jnp.full((), jnp.inf, real),
        jnp.full(max_steps, jnp.nan, real),
        jnp.asarray(0),
        jnp.asarray(False),
    )
    walk = jax.lax.while_loop(go_on, step, walk)
    result = first_of(
        (~jnp.isfinite(walk.at.objective), RESULTS.nonfinite),
        (walk.stationarity <= rtol, RESULTS.successful),
        (walk.stuck, RESULTS.stagnation),
        otherwise=RESULTS.max_steps_reached,
    )
    return ProximalFit(
        walk.at.weights,
        walk.at.objective,
        walk.trace,
        walk.stationarity,
        walk.norm_squared,
        walk.num_steps,
        result,
    )


def _norm_squared(design: Any) -> jax.Array:
    """A lower bound of the squared norm of the design, close to it, by power iteration."""
    real = real_of(design.dtype)
    start = random.normal(random.key(0), (design.shape[1],), real).astype(design.dtype)

    def power(_: Any, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        vector, _ = carry
        size = jnp.sqrt(_square(vector))
        product = _product(design, vector / jnp.where(size > 0, size, 1).astype(vector.dtype))
        return _adjoint(design, product), _square(product)

    zero = jnp.zeros((), real)
    _, norm = jax.lax.fori_loop(0, POWER_STEPS, power, (start, zero))
    return jnp.where(norm > 0, norm, 1)  # a design of zeros: any step will do


def _product(design: Any, x: jax.Array) -> jax.Array:
    return times(design, x[:, None])[:, 0]


def _adjoint(design: Any, x: jax.Array) -> jax.Array:
    return adjoint_times(design, x[:, None])[:, 0]


def _square(x: jax.Array) -> jax.Array:
    return jnp.sum(square(x))


def _inner(x: jax.Array, y: jax.Array) -> jax.Array:
    return jnp.sum(jnp.real(jnp.conj(x) * y))
