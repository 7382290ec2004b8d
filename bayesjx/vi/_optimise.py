"""Stochastic gradient loops over objectives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from numpyro.distributions.distribution import validation_enabled

from .._core import Algorithm, fit as run_fit, FitResult
from ._context import DrawKey, map_draws
from ._expectation import Expectation
from ._options import check_count, check_number

_MAX_DIAGNOSED = 8  # draws of a bad step that are looked at one by one


class OptimiseState(NamedTuple):
    """State of `optimise`.

    Attributes:
        params: the trained arrays, a pytree like the parameters with None elsewhere.
        opt_state: Optax state.
        records: states of moving-average baselines by site address.
        average: Polyak average of `params`, or None.
    """

    params: Any
    opt_state: Any
    records: dict[str, jax.Array]
    average: Any


class OptimiseInfo(NamedTuple):
    """What one step reports: the objective at its start, and the norm of its gradient."""

    objective: jax.Array
    gradient_norm: jax.Array


def optimise(
    objective: Expectation,
    params: Any,
    optimizer: optax.GradientTransformation,
    *,
    num_draws: int = 1,
    average: float | None = None,
    data: tuple | None = None,
) -> Algorithm:
    """Stochastic gradient ascent (or descent) on an objective, for `bayesjx.fit`.

    Args:
        objective: an `Expectation` of `(params, *batch)`; climbed if it was made with
            `maximise=True`, else descended.
        params: pytree, Equinox modules included; all of its floating-point arrays are trained,
            everything else is part of the program.
        optimizer: Optax gradient transformation.
        num_draws: gradient draws averaged in a step, by `jax.vmap`.
        average: decay in (0, 1) of a running (Polyak) average of the parameters; None for none.
        data: example of a step's batch, `()` if there is none; only needed with `vi.EMA`
            baselines, whose states must be known before the first step.

    Returns:
        `init() -> OptimiseState`, `step(key, state, *batch) -> (OptimiseState, OptimiseInfo)`,
        and a diagnosis that names the site which went bad first.

    Raises:
        TypeError: `objective` is no `Expectation`, or `optimizer` is not of Optax.
        ValueError: `params` has no floating-point array, or an option is out of range.
    """
    if not isinstance(objective, Expectation):
        raise TypeError(
            f"objective must be an Expectation, got {type(objective).__name__}; "
            "decorate the function with @vi.expectation"
        )
    check_count("num_draws", num_draws)
    _check_optimizer(optimizer)
    if average is not None:
        check_number("average", average)
        if not 0 < average < 1:
            raise ValueError(f"average is a decay in (0, 1), got {average}")
    trained, static = eqx.partition(params, eqx.is_inexact_array)
    if not jax.tree.leaves(trained):
        raise ValueError("params holds no floating-point array to train")

    def loss(
        trained: Any, key: jax.Array, records: dict[str, jax.Array], batch: tuple
    ) -> tuple[jax.Array, Any]:
        full = eqx.combine(trained, static)
        sign = -1.0 if objective.maximise else 1.0

        def draw(key: jax.Array | DrawKey) -> tuple[jax.Array, dict[str, jax.Array]]:
            states = records or None
            value, (_, new) = objective.surrogate_with_records(key, states, full, *batch)
            return value, new

        if num_draws == 1:
            value, new = draw(key)
        else:
            values, stacked = map_draws(draw, key, num_draws)
            value = jnp.mean(values)
            new = {name: jnp.mean(record, axis=0) for name, record in stacked.items()}
        return sign * value, (value, new)

    def init() -> OptimiseState:
        records: dict[str, jax.Array] = {}
        if data is not None:
            shapes = jax.eval_shape(loss, trained, jax.random.key(0), {}, data)[1][1]
            records = {name: jnp.zeros(s.shape, s.dtype) for name, s in shapes.items()}
        return OptimiseState(
            trained, optimizer.init(trained), records, trained if average is not None else None
        )

    def step(key: jax.Array, state: OptimiseState, *batch: Any) -> tuple[OptimiseState, Any]:
        gradient, (value, records) = jax.grad(loss, has_aux=True)(
            state.params, key, state.records, batch
        )
        if set(records) != set(state.records):
            raise ValueError(
                f"the sites {sorted(records)} carry vi.EMA baselines; pass data=(...), an example "
                "of a step's batch, to vi.optimise"
            )
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        new = optax.apply_updates(state.params, updates)
        averaged = state.average
        if average is not None:
            averaged = jax.tree.map(lambda a, p: average * a + (1 - average) * p, averaged, new)
        value = jnp.where(_without_digits(value, objective.maximise), jnp.nan, value)
        info = OptimiseInfo(value, optax.tree.norm(gradient))
        return OptimiseState(new, opt_state, records, averaged), info

    def diagnose(key: jax.Array, state: OptimiseState, *batch: Any) -> str:
        full = eqx.combine(state.params, static)
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

    return Algorithm(init, step, diagnose)


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
    objective: Expectation, key: jax.Array, num_draws: int, params: Any, batch: tuple
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
    objective: Expectation,
    params: Any,
    optimizer: optax.GradientTransformation,
    num_steps: int,
    *,
    data: tuple = (),
    batches: Callable[[int], tuple] | None = None,
    num_draws: int = 1,
    average: float | None = None,
    **options: Any,
) -> VIResult:
    """Trains the parameters of an objective: `bayesjx.fit` over `optimise`.

    Args:
        key: one PRNG key.
        objective: an `Expectation` of `(params, *data, *batch)`.
        params: pytree whose floating-point arrays are trained.
        optimizer: Optax gradient transformation.
        num_steps: how many steps.
        data: arguments that every step gets after the parameters.
        batches: `batches(step) -> tuple` of further arguments of that step.
        num_draws: gradient draws averaged in a step.
        average: decay of a Polyak average, or None.
        **options: `progress`, `callback`, `checkpoint`, ... of `bayesjx.fit`.

    Returns:
        the history and `params`, trained.

    Raises:
        NonFiniteError: a step made something non-finite; the message names the site or parameter.
        ValueError: see `optimise` and `bayesjx.fit`.
    """
    if not isinstance(data, tuple | list):
        raise ValueError(f"data must be a tuple of arguments, data=(x,), got {type(data).__name__}")
    example = (*data, *(batches(0) if batches is not None else ()))
    algorithm = optimise(
        objective, params, optimizer, num_draws=num_draws, average=average, data=example
    )
    result = run_fit(
        key, algorithm, algorithm.init(), num_steps, data=data, batches=batches, **options
    )
    _, static = eqx.partition(params, eqx.is_inexact_array)
    averaged = None if average is None else eqx.combine(result.state.average, static)
    fields = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    return VIResult(**fields, params=eqx.combine(result.state.params, static), average=averaged)
