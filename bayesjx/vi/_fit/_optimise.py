"""Stochastic gradient loops over objectives."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from numpyro.distributions.distribution import validation_enabled

from ..._core import (
    Algorithm,
    ArraySpec,
    fit as run_fit,
    FitResult,
    gradient_algorithm,
    GradientState,
    Identity,
    is_array,
    trained,
    WeakCache,
    whole_number,
)
from .._estimator import (
    check_number,
    DrawKey,
    map_draws,
    Objective,
)

_MAX_DIAGNOSED = 8  # draws of a bad step that are looked at one by one


def optimise(
    objective: Objective,
    params: Any,
    optimizer: optax.GradientTransformation,
    *,
    num_draws: int = 1,
    average: float | None = None,
    trainable: Callable[[Any], Any] | None = None,
    data: tuple | None = None,
) -> Algorithm:
    """Stochastic gradient ascent (or descent) on an objective, for `bayesjx.fit`.

    A `gradient_algorithm`, so that fits of one objective share a compiled program.

    Args:
        objective: an `Objective` of `(params, *batch)`; climbed if it was made with
            `maximise=True`, else descended.
        params: pytree, Equinox modules included; its floating-point arrays are trained, but for
            those that fields of modules declare to be known. Fields with a constraint move on the
            real line. Other arrays are arguments of the program, all else is part of it.
        optimizer: Optax gradient transformation.
        num_draws: gradient draws averaged in a step, by `jax.vmap`.
        average: decay in (0, 1) of a running (Polyak) average of the parameters; None for none.
        trainable: chooses what is trained, from `params` to a node of it or a list of nodes.
        data: example of a step's batch, `()` if there is none; only needed with `vi.EMA`
            baselines, whose states must be known before the first step.

    Returns:
        `init() -> GradientState`, `step(key, state, *batch) -> (GradientState, GradientInfo)`,
        and a diagnosis that names the first site that is not finite.

    Raises:
        TypeError: `objective` is no `Objective`, or `optimizer` is not of Optax.
        ValueError: `params` has no floating-point array, or an option is out of range.
    """
    if not isinstance(objective, Objective):
        raise TypeError(
            f"objective must be an Objective, got {type(objective).__name__}; "
            "decorate the function with @vi.expectation"
        )
    whole_number("num_draws", num_draws)
    _check_optimizer(optimizer)
    if average is not None:
        check_number("average", average)
    loss = jax.tree_util.Partial(_loss, objective, num_draws)
    records = {} if data is None else _first_records(loss, params, data)

    def diagnose(key: jax.Array, state: GradientState, *batch: Any) -> str:
        full = trained(params, state)
        report = None
        for draw in _bad_first(objective, key, num_draws, full, batch):
            report = report or objective.diagnose(draw, full, *batch)
        if report:
            return report
        value = objective.estimate(key, full, *batch)
        if _without_digits(value, objective.maximise):
            return (
                f"the objective of {value:.3g} is better than any could be and has no correct "
                "digit: the scale of a guide has collapsed to a point. Start it elsewhere"
            )
        return "all sites are finite at this draw; the gradient or the update is not"

    return gradient_algorithm(
        loss,
        params,
        optimizer,
        trainable=trainable,
        natural=records,
        average=average,
        diagnose=diagnose,
    )


def _loss(
    objective: Objective,
    num_draws: int,
    key: jax.Array,
    params: Any,
    records: dict[str, jax.Array] | None,
    *batch: Any,
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """What is descended, the objective, and the states of moving averages after the step.

    Of `records` that are None nothing is known yet.
    """

    def draw(key: jax.Array | DrawKey) -> tuple[jax.Array, dict[str, jax.Array]]:
        value, (_, new) = objective.surrogate_with_records(key, records or None, params, *batch)
        return value, new

    if num_draws == 1:
        value, new = draw(key)
    else:
        values, stacked = map_draws(draw, key, num_draws)
        value = jnp.mean(values)
        new = {name: jnp.mean(record, axis=0) for name, record in stacked.items()}
    if records is not None and set(new) != set(records):
        raise ValueError(
            f"the sites {sorted(new)} carry vi.EMA baselines; pass data=(...), an example "
            "of a step's batch, to vi.optimise"
        )
    objective_value = jnp.where(_without_digits(value, objective.maximise), jnp.nan, value)
    return -value if objective.maximise else value, objective_value, new


_RECORDS = WeakCache(256)  # shapes by what they are of, since it takes a trace to know them


def _first_records(loss: Any, params: Any, data: tuple) -> dict[str, jax.Array]:
    """States of moving averages before the first step, zeros."""
    own, rest = eqx.partition((loss, params), eqx.is_array)
    given, others = eqx.partition(data, is_array)
    arrays, static = (*own, given), (*rest, others)
    key = Identity(static, jax.tree.map(ArraySpec.of, arrays))
    shapes = _RECORDS.get(key)
    if shapes is None:
        shapes = jax.eval_shape(functools.partial(_records, static), jax.random.key(0), arrays)
        _RECORDS.put(key, shapes)
    return {name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()}


def _records(static: Any, key: jax.Array, arrays: Any) -> dict[str, jax.Array]:
    loss, params, data = eqx.combine(arrays, static)
    return loss(key, params, None, *data)[2]


def _without_digits(value: jax.Array, maximise: bool) -> jax.Array:
    """Whether an objective is so good that only rounding errors can have made it."""
    return (value if maximise else -value) > jnp.finfo(value.dtype).eps ** -2.0


def _check_optimizer(optimizer: Any) -> None:
    parts = [getattr(optimizer, name, None) for name in ("init", "update")]
    if all(callable(part) for part in parts) and not hasattr(optimizer, "get_params"):
        return
    kind = type(optimizer)
    name = kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"
    hint = "such as optax.adam(0.01)"
    if name.startswith("numpyro"):
        hint = (
            f"such as optax.{kind.__name__.lower()}(...) here; only numpyro.infer.SVI takes others"
        )
    elif callable(optimizer):
        hint += ", called with its learning rate"
    raise TypeError(f"optimizer must be an Optax gradient transformation, {hint}; got {name}")


def _bad_first(
    objective: Objective, key: jax.Array, num_draws: int, params: Any, batch: tuple
) -> list[Any]:
    """Keys of some draws of a step, those first whose objective is not finite."""
    if num_draws == 1:
        return [key]
    with validation_enabled(False):  # bad parameters are the diagnosis's to name
        values = map_draws(lambda draw: objective.surrogate(draw, params, *batch), key, num_draws)
    finite = jnp.isfinite(values[0] if objective.has_aux else values)
    order = jnp.argsort(finite)[:_MAX_DIAGNOSED].astype(jnp.uint32)
    return [DrawKey(key, index) for index in order]


@dataclasses.dataclass(frozen=True, repr=False)
class VIResult(FitResult):
    """A `bayesjx.FitResult` that also holds the trained parameters, put together again.

    Attributes:
        params: like the parameters that `fit` was given, trained.
        average: the Polyak average of the parameters, or None.
    """

    params: Any = None
    average: Any = None


def fit(
    key: Any,
    objective: Objective,
    params: Any,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    *,
    data: tuple = (),
    batches: Callable[[int], tuple] | None = None,
    batch_size: int | None = None,
    num_draws: int = 1,
    average: float | None = None,
    trainable: Callable[[Any], Any] | None = None,
    **options: Any,
) -> VIResult:
    """Trains the parameters of an objective: `bayesjx.fit` over `optimise`.

    Another call with the same objective and optimizer and with parameters and data of the same
    shapes compiles nothing.

    Args:
        key: one PRNG key.
        objective: an `Objective` of `(params, *data, *batch)`.
        params: pytree whose floating-point arrays are trained.
        optimizer: Optax gradient transformation.
        num_steps: how many steps.
        data: arguments that every step gets after the parameters.
        batches: `batches(step) -> tuple` of further arguments of that step.
        batch_size: rows of `data` that each step draws, on the device; by default it gets all.
        num_draws: gradient draws averaged in a step.
        average: decay of a Polyak average, or None.
        trainable: chooses what is trained, from `params` to a node of it or a list of nodes.
        **options: `progress`, `callback`, `checkpoint`, ... of `bayesjx.fit`.

    Returns:
        the history and `params`, trained.

    Raises:
        NonFiniteError: a step made something non-finite; the message names the site or parameter.
        ValueError: see `optimise` and `bayesjx.fit`.
    """
    if not isinstance(data, tuple | list):
        raise ValueError(f"data must be a tuple of arguments, data=(x,), got {type(data).__name__}")
    rows = data if batch_size is None else jax.tree.map(lambda x: x[:1].repeat(batch_size, 0), data)
    example = (*rows, *(batches(0) if batches is not None else ()))
    algorithm = optimise(
        objective,
        params,
        optimizer,
        num_draws=num_draws,
        average=average,
        trainable=trainable,
        data=example,
    )
    result = run_fit(
        key,
        algorithm,
        algorithm.init(),
        num_steps,
        data=data,
        batches=batches,
        batch_size=batch_size,
        **options,
    )
    averaged = None if average is None else trained(params, result.state, average=True)
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return VIResult(**fields, params=trained(params, result.state), average=averaged)
