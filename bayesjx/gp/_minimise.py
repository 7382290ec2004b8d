"""L-BFGS over the parameters of processes, in coordinates without constraints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Bool, Float, Int

from .._core import (
    check_flag,
    check_key,
    compiled,
    compiled_for,
    Descent,
    failures_are_nan,
    first_of,
    from_real,
    is_successful,
    known,
    l_bfgs,
    RESULTS,
    traced,
    TracedFunction,
    unconstrained,
    whole_number,
)

MEMORY = 10  # pairs of differences that L-BFGS keeps
WINDOW = 10  # steps whose decrease together is compared with `rtol`


class Minimum(NamedTuple):
    """Result of `minimise`: the best parameters and how they were reached.

    Attributes:
        params: the parameters, of the structure that it was given.
        objective: its value at them, scalar.
        num_steps: of L-BFGS, integer.
        result: how the best start ended; successful where the gradient or the decrease fell below
            `rtol`.
        gradient: the largest element of the gradient, on the scale that was optimised.
        decrease: of the objective in the last ten steps.
        ends: the objective at the end of each start, shape `(restarts,)`. Ends
            apart say that there are several minima, of which more starts may find a better one.
    """

    params: Any
    objective: Float[Array, ...]
    num_steps: Int[Array, ...]
    result: RESULTS
    gradient: Float[Array, ...]
    decrease: Float[Array, ...]
    ends: Float[Array, ...]

    @property
    def converged(self) -> Bool[Array, ...]:
        """Whether `result` is successful."""
        return is_successful(self.result)

    @property
    def message(self) -> str:
        """How it went, with what to try if it has not converged, and how far apart starts ended."""
        if self.ends.size == 1:
            return self._of_the_best
        known = np.asarray(self.ends)[np.isfinite(self.ends)]
        apart = f"the {known.size} starts ended between {known.min():.6g} and {known.max():.6g}"
        if known.size < self.ends.size:
            apart += f", {self.ends.size - known.size} more without a finite objective"
        return f"{self._of_the_best}; {apart}"

    @property
    def _of_the_best(self) -> str:
        if self.converged:
            return f"converged in {self.num_steps} steps"
        if not jnp.isfinite(self.gradient):
            return (
                f"stopped after {self.num_steps} steps, as the gradient is NaN or infinite: start "
                "elsewhere, add noise, or compute in float64"
            )
        return (
            f"not converged in {self.num_steps} steps: the objective still fell by "
            f"{float(self.decrease):.2g} in the last {WINDOW}, and the largest element of the "
            f"gradient is {float(self.gradient):.2g}. Go on from its params with more max_steps; "
            "standardise inputs and responses; start at gp.in_units_of(prior, x, y); try restarts"
        )


def minimise(
    objective: Callable[..., jax.Array],
    params: Any,
    *data: Any,
    trainable: Callable[[Any], Any] | None = None,
    max_steps: int = 500,
    rtol: float = 1e-6,
    restarts: int = 1,
    restart_scale: float = 1.0,
    key: jax.Array | None = None,
    side_by_side: bool | None = None,
    throw: bool = True,
) -> Minimum:
    r"""Minimise a function of modules by L-BFGS; positive fields move on a logarithmic scale.

    `minimise(lambda prior: -prior(x).log_prob(y), prior)` maximises the marginal likelihood. Of
    data that are not standardised, start at `in_units_of(prior, x, y)`.

    Args:
        objective: `objective(params, *data) -> scalar`, a pure function. It is compiled once for
            each function object and shapes, other data included; what it reads beside its
            arguments is read anew in each call.
        params: where to start, modules in any pytree, such as a `GP` or a tuple with inducing
            points. All arrays of floating-point numbers change, but what is known stays: noise
            given for each observation or as an operator, and positive arrays that are 0, as the
            noise of a function observed itself.
        data: further arguments of the objective.
        trainable: chooses what changes, `trainable(params)` a node of `params`, such as
            `lambda p: p.kernel`, or a list of nodes; what is known changes if it is chosen.
        max_steps: of each start.
        rtol: ends where the largest element of the gradient is below it times
            `1 + abs(objective)`, or ten steps together have lowered the objective by less than a
            hundredth of that: for log evidences, by far less than what tells two models apart.
        restarts: how many starts; the first is at `params`, the others have normal steps added,
            and the best end is returned, with the objective at all of them. Points and weights
            start anew too, so that restarts are for objectives of few parameters, or with
            `trainable`.
        restart_scale: standard deviation of those steps, on the scale that is optimised.
        key: for `restarts > 1`.
        side_by_side: whether the starts run at once, by `jax.vmap`, with the memory of all of them;
            by default on accelerators. On CPUs one after another is as fast, as each ends when it
            has converged. Both work under `jit`, where values that are traced all move: leave out
            by `trainable` a variance that may be 0.
        throw: whether it is an error, or a `result`, that no start has a finite objective. An end
            that has not converged is never one.

    Returns:
        The best end. Look at `result`, or print `message`: on real data, with many lengthscales
        that grow without end, 50 to 150 steps are usual, and hundreds with inducing points.

    Raises:
        ValueError: nothing to train, an objective that is not a scalar, restarts without a key,
            options out of range, or a positive array in which some elements are 0 or negative.
        RuntimeError: the objective is NaN or infinite at every start (also under `jit`), unless
            `throw=False`.

    References:
        Liu and Nocedal (1989), "On the limited memory BFGS method for large scale optimization";
        run by Optax, with its zoom line search.
    """
    _check_options(max_steps, rtol, restarts, restart_scale, key)
    check_flag("minimise: throw", throw)
    if side_by_side is not None:
        check_flag("minimise: side_by_side", side_by_side)
    if not callable(objective):
        raise ValueError(f"minimise: objective must be a function, got {objective!r:.80}")
    free = unconstrained(params, trainable)
    fixed = known(params, free)
    arrays, static = eqx.partition((fixed, data), eqx.is_array)
    free = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), free)
    starts = [free]
    if key is not None:
        starts += [_moved(random.fold_in(key, i), free, restart_scale) for i in range(1, restarts)]

    def value(free: Any, arrays: Any) -> jax.Array:
        fixed, data = eqx.combine(arrays, static)
        return _value(objective, eqx.combine(from_real(free), fixed), data)

    same = traced(value, free, arrays, source=objective)
    # Rules of derivatives are traced here, and not where a density asks for NaN.
    with failures_are_nan():
        ends = _ends(same, starts, arrays, (max_steps, rtol), side_by_side)
    index = jnp.argmin(jnp.nan_to_num(ends.objective, nan=jnp.inf))
    best = jax.tree.map(lambda x: x[index], ends)
    lost = ~jnp.isfinite(best.objective)
    text = (
        "minimise: the objective is NaN or infinite at every start; try other parameters, or "
        "more noise"
    )
    if throw and isinstance(lost, jax.core.Tracer):
        best = best._replace(objective=eqx.error_if(best.objective, lost, text))
    elif throw and lost:
        raise RuntimeError(text)
    return best._replace(params=eqx.combine(from_real(best.params), fixed), ends=ends.objective)


def _ends(
    objective: TracedFunction,
    starts: list[Any],
    arrays: Any,
    options: tuple[int, float],
    side_by_side: bool | None,
) -> Minimum:
    """Where each start ends, a stack."""
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *starts)
    is_traced = any(isinstance(x, jax.core.Tracer) for x in jax.tree.leaves((stacked, arrays)))
    at_once = jax.default_backend() != "cpu" if side_by_side is None else side_by_side
    identity = objective.identity
    run = _from_all if identity is None else compiled_for(identity, _from_all)
    if is_traced or at_once:
        return run(objective, stacked, arrays, options, at_once)
    # One after another in Python, with a program that serves any number of starts.
    single = [jax.tree.map(lambda x: x[None], start) for start in starts]
    ends = [run(objective, start, arrays, options, True) for start in single]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *ends)


def _value(objective: Callable[..., jax.Array], params: Any, data: Any) -> jax.Array:
    out = objective(params, *data)
    if jnp.shape(out) != ():
        raise ValueError(f"minimise: the objective must be a scalar, got {jnp.shape(out)}")
    if not jnp.issubdtype(jnp.result_type(out), jnp.floating):
        raise ValueError(
            f"minimise: the objective must be a floating-point scalar, got {jnp.result_type(out)}"
        )
    return jnp.where(jnp.isnan(out), jnp.inf, out)


@compiled
def _from_all(
    objective: TracedFunction, starts: Any, arrays: Any, options: Any, at_once: bool
) -> Minimum:
    """The ends of a stack of starts, by `vmap` or one after another."""
    run = lambda start: _l_bfgs(objective, start, arrays, *options)  # noqa: E731
    if len(jax.tree.leaves(starts)[0]) == 1:  # without the cost of a batch
        end = run(jax.tree.map(lambda x: x[0], starts))
        return jax.tree.map(lambda x: x[None], end)
    return jax.vmap(run)(starts) if at_once else jax.lax.map(run, starts)


def _l_bfgs(
    objective: TracedFunction, start: Any, arrays: Any, max_steps: int, rtol: float
) -> Minimum:
    def value(free: Any) -> jax.Array:
        return objective(free, arrays)

    def converged(state: Descent) -> jax.Array:
        size = rtol * (1 + jnp.abs(state.value))
        return (state.slope < size) | (state.values[0] - state.value <= 0.01 * size)

    last = l_bfgs(value, start, converged, max_steps=max_steps, memory=MEMORY, window=WINDOW)
    finite = jnp.where(jnp.isfinite(last.values), last.values, last.value)
    fallen = jnp.max(finite) - last.value
    lost = ~(jnp.isfinite(last.slope) & jnp.isfinite(last.value))
    result = first_of(
        (last.converged, RESULTS.successful),
        (lost, RESULTS.nonfinite),
        otherwise=RESULTS.max_steps_reached,
    )
    return Minimum(
        last.params, last.value, last.num_steps, result, last.slope, fallen, last.value
    )  # fmt: skip


def _check_options(max_steps: Any, rtol: Any, restarts: Any, restart_scale: Any, key: Any) -> None:
    whole_number("minimise: max_steps", max_steps, 0)
    whole_number("minimise: restarts", restarts)
    for name, number in (("rtol", rtol), ("restart_scale", restart_scale)):
        if not isinstance(number, (int, float, np.number)) or not 0 <= number < np.inf:
            raise ValueError(f"minimise: {name} must be a number from 0 on, got {number!r}")
    if restarts > 1:
        if key is None:
            raise ValueError("minimise: restarts need a key")
        check_key(key)


def _moved(key: jax.Array, tree: Any, restart_scale: float) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    keys = random.split(key, len(leaves))
    moved = [
        x + restart_scale * random.normal(k, x.shape, x.dtype)
        for k, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)
