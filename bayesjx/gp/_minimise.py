"""L-BFGS over the parameters of processes, in coordinates without constraints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random

from .._core import from_real, to_real

MEMORY = 10  # pairs of differences that L-BFGS keeps


class Minimum(NamedTuple):
    """Where `minimise` ended.

    Attributes:
        params: the parameters, of the structure that it was given.
        objective: its value there, scalar.
        steps: of L-BFGS, integer.
        converged: whether the gradient or the decrease fell below the tolerance.
    """

    params: Any
    objective: jax.Array
    steps: jax.Array
    converged: jax.Array


def minimise(
    objective: Callable[..., jax.Array],
    params: Any,
    *data: Any,
    trainable: Callable[[Any], Any] | None = None,
    max_steps: int = 200,
    tolerance: float = 1e-6,
    restarts: int = 1,
    spread: float = 1.0,
    key: jax.Array | None = None,
) -> Minimum:
    r"""Minimise a function of modules by L-BFGS; positive fields move on a logarithmic scale.

    `minimise(lambda prior: -prior(x).log_prob(y), prior)` maximises the marginal likelihood.

    Args:
        objective: `objective(params, *data) -> scalar`.
        params: where to start, modules in any pytree, such as a `GP` or a tuple with inducing
            points. All arrays of floating-point numbers change, but positive ones that are 0, as
            the noise of a function observed itself, stay.
        data: further arguments of the objective.
        trainable: chooses what changes, `trainable(params)` a leaf or a list of leaves.
        max_steps: of each start.
        tolerance: ends where the largest element of the gradient is below it times
            `1 + |objective|`, or the relative decrease is below its square over ten steps.
        restarts: how many starts; the first is at `params`, the others have normal steps added,
            and the best end is returned. Points and weights start anew too, so that restarts are
            for objectives of few parameters, or with `trainable`.
        spread: standard deviation of those steps, on the scale that is optimised.
        key: for `restarts > 1`.

    Raises:
        ValueError: nothing to train, an objective that is not a scalar, restarts without a key,
            or a positive array in which some elements are 0.
        RuntimeError: the objective is NaN or infinite at every start.

    References:
        Liu and Nocedal (1989), "On the limited memory BFGS method for large scale optimization";
        run by Optax, with its zoom line search.
    """
    spec = jax.tree.map(eqx.is_inexact_array, params)
    if trainable is not None:
        spec = jax.tree.map(lambda _: False, params)
        spec = eqx.tree_at(trainable, spec, replace_fn=lambda _: True)
    real = to_real(params)
    spec = jax.tree.map(_is_free, spec, real)
    free, fixed = eqx.partition(real, spec)
    if not jax.tree.leaves(free):
        raise ValueError("minimise: params hold no floating-point array to train")
    if restarts > 1 and key is None:
        raise ValueError("minimise: restarts need a key")
    arrays, static = eqx.partition((fixed, data), eqx.is_array)
    starts = [free]
    if key is not None:
        starts += [_moved(random.fold_in(key, i), free, spread) for i in range(1, restarts)]
    ends = [_minimise(objective, at, arrays, static, max_steps, tolerance) for at in starts]
    best = min(ends, key=lambda end: float(jnp.nan_to_num(end.objective, nan=jnp.inf)))
    if not jnp.isfinite(best.objective):
        raise RuntimeError(
            f"minimise: the objective is {best.objective} at every start; try other parameters, or "
            "more noise"
        )
    found = eqx.filter(from_real(eqx.combine(best.params, fixed)), spec)
    return best._replace(params=eqx.combine(found, eqx.filter(params, spec, inverse=True)))


@eqx.filter_jit
def _minimise(
    objective: Any, start: Any, arrays: Any, static: Any, max_steps: int, tolerance: float
) -> Minimum:
    fixed, data = eqx.combine(arrays, static)
    start = jax.tree.map(lambda x: jnp.asarray(x, x.dtype), start)

    def value(free: Any) -> jax.Array:
        out = objective(from_real(eqx.combine(free, fixed)), *data)
        if jnp.shape(out) != ():
            raise ValueError(f"minimise: the objective must be a scalar, got {jnp.shape(out)}")
        return jnp.where(jnp.isnan(out), jnp.inf, out)

    solver = optax.lbfgs(memory_size=MEMORY)
    value_and_grad = optax.value_and_grad_from_state(value)

    def go_on(carry: Any) -> jax.Array:
        _, _, steps, stalled, _ = carry
        return (steps < max_steps) & (stalled < 10)

    def step(carry: Any) -> Any:
        free, state, steps, stalled, _ = carry
        now, gradient = value_and_grad(free, state=state)
        updates, state = solver.update(
            gradient, state, free, value=now, grad=gradient, value_fn=value
        )
        after = optax.tree_utils.tree_get(state, "value")
        size = 1 + jnp.abs(now)
        flat = _largest(optax.tree_utils.tree_get(state, "grad")) < tolerance * size
        small = now - after <= tolerance**2 * size
        stalled = jnp.where(flat, 10, jnp.where(small, stalled + 1, 0))
        return optax.apply_updates(free, updates), state, steps + 1, stalled, after

    none = jnp.asarray(0)
    carry = (start, solver.init(start), none, none, value(start))
    free, _, steps, stalled, after = jax.lax.while_loop(go_on, step, carry)
    return Minimum(free, after, steps, stalled >= 10)


def _is_free(chosen: bool, leaf: Any) -> bool:
    """Whether a leaf moves: not a variance of 0, whose logarithm is infinite."""
    if not chosen:
        return False
    none = np.isneginf(np.asarray(leaf))
    if none.any() and not none.all():
        raise ValueError(
            "minimise: a positive array holds zeros beside other values; make them positive, or "
            "leave the array out by trainable"
        )
    return not none.any()


def _largest(tree: Any) -> jax.Array:
    return jnp.max(jnp.stack([jnp.max(jnp.abs(x)) for x in jax.tree.leaves(tree)]))


def _moved(key: jax.Array, tree: Any, spread: float) -> Any:
    leaves, structure = jax.tree.flatten(tree)
    keys = random.split(key, len(leaves))
    moved = [
        x + spread * random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)
    ]
    return jax.tree.unflatten(structure, moved)
