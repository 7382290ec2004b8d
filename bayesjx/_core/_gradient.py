"""Stochastic gradient descent, the one loop behind everything that Optax trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

from bayesjx._core._algorithm import Algorithm
from bayesjx._core._parameters import from_real, known, unconstrained
from bayesjx._core._program import Step


class GradientState(NamedTuple):
    """State of `gradient_algorithm`; `trained(params, state)` puts the parameters together.

    Attributes:
        params: what Optax trains, on the real line, None elsewhere.
        opt_state: of Optax.
        natural: what the loss itself moves, or None.
        average: Polyak average of `params`, or None.
    """

    params: Any
    opt_state: Any
    natural: Any
    average: Any


class GradientInfo(NamedTuple):
    """Info of a gradient step: the objective at its start, and the norm of its gradient."""

    objective: jax.Array
    gradient_norm: jax.Array


def gradient_algorithm(
    loss: Callable[..., Any],
    params: Any,
    optimizer: optax.GradientTransformation | None,
    *,
    trainable: Any = None,
    natural: Any = None,
    average: float | None = None,
    maximise: bool = False,
    diagnose: Callable[..., str] | None = None,
) -> Algorithm:
    """Stochastic gradient descent on a loss, for `bayesjx.fit`.

    Fields of modules that declare a constraint move on the real line, by NumPyro's `biject_to`.
    Fits with one `loss` and `optimizer` and with parameters of the same structure and shapes share
    a compiled program, whatever their values; what `loss` reads beside its arguments is read when
    that program is made.

    Args:
        loss: `loss(key, params, *batch) -> scalar`, a pure function. A `jax.tree_util.Partial` or
            an Equinox module may hold arrays.
        params: where to start: modules in any pytree.
        optimizer: Optax gradient transformation, such as `optax.adam(1e-2)`; None with `natural`,
            to keep `params` as they are.
        trainable: chooses what Optax moves: a function from `params` to a node of it or a list of
            nodes, or a tree of booleans like `params`. By default every floating-point array but
            what is known: fields that are declared so, and arrays on the boundary of their
            constraint, such as a variance of 0.
        natural: pytree of arrays that the loss moves by a rule of its own in the same evaluation,
            such as distributions by their natural gradients or running means. The loss is then
            `loss(key, params, natural, *batch) -> (loss, objective, natural)`.
        average: decay in (0, 1) of a running (Polyak) average of the parameters; None for none.
        maximise: whether the gradient is climbed; with `natural` it never is.
        diagnose: see `Algorithm`.

    Returns:
        `init() -> GradientState` and `step(key, state, *batch) -> (GradientState, GradientInfo)`.

    Raises:
        ValueError: nothing to train, values that break their constraint, or a decay out of range;
            when traced, a loss that is not a scalar.
    """
    if average is not None and not 0 < average < 1:
        raise ValueError(f"average is a decay in (0, 1), got {average}")
    if optimizer is None:
        free = jax.tree.map(lambda _: None, params)
    else:
        free = unconstrained(params, trainable)
    fixed = known(params, free)

    def init() -> GradientState:
        opt_state = optimizer.init(free) if optimizer is not None else ()
        return GradientState(free, opt_state, natural, free if average is not None else None)

    moved = optimizer and optimizer.update
    step = Step(_step, loss, fixed, moved, average, maximise, natural is not None)
    return Algorithm(init, step, diagnose)


def trained(params: Any, state: GradientState, *, average: bool = False) -> Any:
    """The parameters that `gradient_algorithm` was given, with the arrays of a state.

    Args:
        params: those it was given.
        state: of its steps.
        average: whether to take the Polyak average.
    """
    return eqx.combine(from_real(state.average if average else state.params), params)


def _step(
    loss: Callable[..., Any],
    fixed: Any,
    update: Callable[..., Any] | None,
    average: float | None,
    maximise: bool,
    has_natural: bool,
    key: jax.Array,
    state: GradientState,
    *batch: Any,
) -> tuple[GradientState, GradientInfo]:
    def value(free: Any) -> tuple[jax.Array, tuple[jax.Array, Any]]:
        params = eqx.combine(from_real(free), fixed)
        if has_natural:
            total, objective, natural = loss(key, params, state.natural, *batch)
            return _scalar(total), (objective, natural)
        total = _scalar(loss(key, params, *batch))
        return (-total if maximise else total), (total, None)

    if update is None:
        objective, natural = value(state.params)[1]
        info = GradientInfo(objective, jnp.zeros((), objective.dtype))
        return state._replace(natural=natural), info
    gradient, (objective, natural) = jax.grad(value, has_aux=True)(state.params)
    updates, opt_state = update(gradient, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    mean = state.average
    if average is not None:
        mean = jax.tree.map(lambda a, p: average * a + (1 - average) * p, mean, params)
    info = GradientInfo(objective, optax.tree.norm(gradient))
    return GradientState(params, opt_state, natural, mean), info


def _scalar(value: Any) -> Any:
    if jnp.shape(value) != ():
        raise ValueError(f"the loss must be a scalar, got shape {jnp.shape(value)}")
    return value
