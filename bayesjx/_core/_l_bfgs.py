"""L-BFGS as a loop on the device, which keeps the last values to judge whether it has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax


class Descent(NamedTuple):
    """State of `l_bfgs`.

    Attributes:
        params: the last point at which all was finite.
        solver: state of Optax.
        num_steps: steps done.
        value: of the function at `params`.
        values: of the last steps, the oldest first, shape `(window + 1,)`; inf before the start.
        slope: largest element of the gradient; NaN where no step can be made.
        converged: what the caller's rule says.
    """

    params: Any
    solver: Any
    num_steps: jax.Array
    value: jax.Array
    values: jax.Array
    slope: jax.Array
    converged: jax.Array


def l_bfgs(
    value: Callable[[Any], jax.Array],
    start: Any,
    converged: Callable[[Descent], jax.Array],
    *,
    max_steps: int,
    memory: int,
    window: int,
    linesearch: Any = None,
) -> Descent:
    """Minimises a function of a pytree by Optax's L-BFGS, with its zoom line search.

    It ends where `converged` says so, after `max_steps`, or where value or gradient are no
    numbers: then at the point before.

    Args:
        value: scalar function of a pytree of floating-point arrays.
        start: where to begin.
        converged: rule of the state after a step.
        max_steps: of L-BFGS.
        memory: pairs of differences that it keeps.
        window: how many values before the last one `converged` sees.
        linesearch: a transformation of Optax; None for the default of `optax.lbfgs`.

    References:
        Liu and Nocedal (1989), "On the limited memory BFGS method for large scale optimization".
    """

    def cast(params: Any) -> jax.Array:
        # The line search makes float64 of a point in float32, where that is enabled.
        return value(jax.tree.map(lambda x, first: x.astype(first.dtype), params, start))

    if linesearch is None:
        solver = optax.lbfgs(memory_size=memory)
    else:
        solver = optax.lbfgs(memory_size=memory, linesearch=linesearch)
    value_and_grad = optax.value_and_grad_from_state(cast)

    def go_on(state: Descent) -> jax.Array:
        return (state.num_steps < max_steps) & ~state.converged & jnp.isfinite(state.slope)

    def step(state: Descent) -> Descent:
        now, gradient = value_and_grad(state.params, state=state.solver)
        updates, solver_state = solver.update(
            gradient, state.solver, state.params, value=now, grad=gradient, value_fn=cast
        )
        params = optax.apply_updates(state.params, updates)
        after = optax.tree.get(solver_state, "value")
        slope = _largest(optax.tree.get(solver_state, "grad")).astype(after.dtype)
        lost = ~(jnp.isfinite(after) & jnp.isfinite(_largest(params)))
        params = jax.tree.map(lambda new, old: jnp.where(lost, old, new), params, state.params)
        new = Descent(
            params, solver_state, state.num_steps + 1, jnp.where(lost, now, after),
            jnp.append(state.values[1:], after), jnp.where(lost, jnp.nan, slope), state.converged,
        )  # fmt: skip
        return new._replace(converged=converged(new) & ~lost)

    first = cast(start)
    values = jnp.full(window + 1, jnp.inf, first.dtype).at[-1].set(first)
    slope = jnp.where(jnp.isfinite(first), 1, jnp.nan).astype(first.dtype)
    begin = Descent(
        start, solver.init(start), jnp.asarray(0), first, values, slope, jnp.asarray(False)
    )
    return jax.lax.while_loop(go_on, step, begin)


def _largest(tree: Any) -> jax.Array:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(tree)]))
