"""Predictive resampling: posteriors from one-step predictive distributions alone."""

from __future__ import annotations

import inspect
import math
import weakref
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from .._core import check_flag, check_key, whole_number
from ._chains import applied, batch_of, Horizon, horizon_of, run_chains, run_segments
from ._martingale_posterior import diagnosed, MartingalePosterior
from ._predictive_rule import (
    AbstractPredictiveRule,
    add_row,
    checked_rows,
    checked_rule,
    num_rows,
    pick_row,
    Rows,
    with_room,
)
from ._rule_checks import (
    checked_data_and_points,
    cid_defect,
    order_sensitivity,
    predictions,
    rows_of,
)


def predictive_resample(
    key: jax.Array,
    rule: AbstractPredictiveRule,
    data: Any,
    functional: Callable[..., Any],
    *,
    num_forward: int,
    num_samples: int = 1000,
    of: str = "rows",
    inputs: Any = "urn",
    points: Any = None,
    num_records: int = 5,
    correct: bool = False,
    batch_size: int | None = None,
) -> MartingalePosterior:
    r"""The martingale posterior of a functional, by drawing the data that one does not have.

    From the data, the next observation is drawn from the rule's predictive and absorbed, and again,
    until there are $N = n$ + `num_forward` rows, of which the functional is computed. This is
    repeated `num_samples` times. If the rule is a Bayesian model, the functionals are draws of
    their posterior as $N \to \infty$ (Doob); other rules give posteriors without a prior.

    With a finite horizon about the share $n / N$ of the variance is missing: 5 % at
    `num_forward = 20 n`. Chains run side by side, a number at a time, and are compiled once for
    equal shapes.

    Args:
        key: PRNG key.
        rule: a predictive rule.
        data: observations, one a row, any pytree of arrays; pairs `(x, y)` of rules with inputs.
        functional: `functional(rows)` from data of any number of rows to arrays of fixed shapes, a
            pytree, such as `jnp.mean`. If it has an argument `weights`, it is called with all rows
            and `weights=` of shape `(N,)` which sum to 1, as functionals of `bayesian_bootstrap`
            are: one that is costly to compile is compiled once. Booleans become 0 and 1. With
            `of="state"`, a function of the rule's state.
        num_forward: draws ahead, at least 1; fewer for networks, which must not leave the sizes of
            context that they were trained with.
        num_samples: draws of the functional.
        of: `"rows"`, data and drawn observations; or `"state"`, the final state of the rule.
        inputs: of rules that have them, where those of a drawn observation come from: `"urn"`, one
            of the rows so far, drawn ones included; an array `(k, ...)`, one of its rows; or a
            function from a key to inputs of one row.
        points: rows like those of `data`, at which diagnostics compare predictions; evenly spaced,
            they show distances in L1. Without it there are none of them.
        num_records: at how many times on the way the functional is recorded.
        correct: whether deviations of the samples from their mean are multiplied by
            $\sqrt{N / (N - n)}$, which makes up for the finite horizon where functionals are
            asymptotically normal. The result says so.
        batch_size: chains at a time; by default what fits in about 100 MB.

    Returns:
        Samples and diagnostics. Drift beyond 3 standard errors of a linear functional says that
        the rule is no martingale.

    Raises:
        ValueError: arguments of wrong kinds or shapes, data that are not finite, a functional whose
            shapes depend on the number of rows, nothing to draw inputs from.

    References:
        Fong, Holmes and Walker (2023), "Martingale posterior distributions", JRSS-B 85: algorithm
        1 and sections 2 and 3.
    """
    owner = "predictive_resample"
    check_key(key)
    rule = checked_rule(owner, rule)
    check_flag(f"{owner}: correct", correct)
    if of not in ("rows", "state"):
        raise ValueError(f"{owner}: of must be 'rows' or 'state', got {of!r}")
    num_samples = whole_number(f"{owner}: num_samples", num_samples)
    if points is None:
        data = rows_of(owner, rule, data)
    else:
        data, points = checked_data_and_points(owner, rule, data, points)
    n = num_rows(data)
    horizon = horizon_of(owner, n, num_forward, num_records)
    source = _inputs(inputs, rule, data)
    state = rule.init(data, horizon.num_forward)
    data = _as_drawn(rule, state, data, source)
    initial = _initial(functional, of, data, state, horizon)
    arrays, static = eqx.partition((rule, state, data, points, source), eqx.is_array)

    def one(key: jax.Array, arrays: Any) -> Any:
        return _chain(key, *eqx.combine(arrays, static), functional, of, horizon)

    key_chains, key_checks = jax.random.split(key)
    keys = jax.random.split(key_chains, num_samples)
    room = sum(x.size for x in jax.tree.leaves(state))
    if _keeps_rows(of, source):
        room += sum(x[:1].size for x in jax.tree.leaves(data)) * int(horizon.num_rows[-1])
    batch_size = batch_of(owner, batch_size, num_samples, room)
    paths, densities, reports = run_chains(one, keys, arrays, batch_size, functional)
    checks: list[Any] = [None, None, None]
    if points is not None:
        checks[0] = predictions(rule, state, points)
        checks[1] = cid_defect(key_checks, rule, data, points) if n or source is None else None
        checks[2] = order_sensitivity(key_checks, rule, data, points) if n > 1 else None
    rows = n if of == "rows" else None
    last, found = diagnosed(
        paths, initial, horizon.num_rows, rows, densities, checks[0], reports, *checks[1:]
    )
    factor = math.sqrt(horizon.num_rows[-1] / horizon.num_forward) if correct else 1.0
    samples = jax.tree.map(lambda v: widened(v, factor), last)
    return MartingalePosterior(
        samples, found, initial, type(rule).__name__, n, horizon.num_forward, factor
    )


def widened(samples: jax.Array, factor: float) -> jax.Array:
    """Samples with deviations from their mean multiplied."""
    if factor == 1:
        return samples
    centre = jnp.mean(samples, axis=0)
    return centre + factor * (samples - centre)


def _chain(
    key: jax.Array,
    rule: AbstractPredictiveRule,
    state: Any,
    data: Any,
    points: Any,
    source: Any,
    functional: Callable[..., Any],
    of: str,
    horizon: Horizon,
) -> Any:
    """The functional, predictions at points and the rule's reports after each segment."""

    def step(t: Any, carry: tuple[Any, Rows | None]) -> tuple[Any, Rows | None]:
        state, rows = carry
        key_t = jax.random.fold_in(key, t)
        if source is None:
            y, state = rule.step(key_t, state)
            return state, None if rows is None else add_row(rows, y)
        key_x, key_y = jax.random.split(key_t)
        x = _drawn(key_x, source) if rows is None else _input(key_x, rows, source)
        x = jnp.asarray(x, data[0].dtype)
        y, state = rule.step(key_y, state, x)
        return state, None if rows is None else add_row(rows, (x, y))

    def observe(carry: tuple[Any, Rows | None]) -> Any:
        state = carry[0]
        value = _floats(functional(state)) if of == "state" else None
        at = None if points is None else predictions(rule, state, points)
        return value, at, rule.report(state)

    rows = with_room(data, horizon.num_forward) if _keeps_rows(of, source) else None
    (_, rows), (path, densities, reports) = run_segments(horizon, (state, rows), step, observe)
    if of == "rows":
        path = _of_rows(functional, rows.rows, horizon.num_rows)
    return path, densities, reports


def _keeps_rows(of: str, source: Any) -> bool:
    """Whether something is computed of drawn rows or drawn from them."""
    return of == "rows" or isinstance(source, str)


def _of_rows(functional: Callable[..., Any], rows: Any, sizes: np.ndarray) -> Any:
    """A functional of the first rows, for each number of them, stacked."""
    if not takes_weights(functional):
        each = [_floats(functional(_first(rows, int(size)))) for size in sizes]
        return jax.tree.map(lambda *values: jnp.stack(values), *each)
    dtype = _weight_dtype(rows)
    places = jnp.arange(num_rows(rows))

    def weighted(size: Any) -> Any:
        weights = jnp.where(places < size, 1 / size.astype(dtype), jnp.zeros((), dtype))
        return _floats(functional(rows, weights=weights))

    return jax.lax.map(weighted, jnp.asarray(sizes))


def takes_weights(functional: Callable[..., Any]) -> bool:
    """Whether a functional has an argument `weights`."""
    try:
        return "weights" in inspect.signature(functional).parameters
    except (TypeError, ValueError):
        return False


def _initial(functional: Any, of: str, data: Any, state: Any, horizon: Horizon) -> Any:
    """The functional of the data alone, after it was found to be one."""
    if not callable(functional):
        raise ValueError(
            "predictive_resample: functional must be a function of rows, got "
            f"{type(functional).__name__}"
        )
    if of == "state":
        checked_values("predictive_resample", functional, state)
        arrays, static = eqx.partition(state, eqx.is_array)
        of_state = lambda a: _floats(functional(eqx.combine(a, static)))  # noqa: E731
        return applied(of_state, arrays, source=functional)
    sizes = [int(size) for size in horizon.num_rows[-1:]] + [horizon.num_data] * bool(
        num_rows(data)
    )
    shapes = []
    for size in sizes:
        rows = jax.tree.map(
            lambda v, size=size: jax.ShapeDtypeStruct((size, *v.shape[1:]), v.dtype), data
        )
        shapes.append(checked_values("predictive_resample", functional, rows))
    if len(shapes) == 2 and shapes[0] != shapes[1]:
        raise ValueError(
            "predictive_resample: functional must return arrays whose shapes do not depend on the "
            f"number of rows; got {shapes[1]} for {sizes[1]} rows and {shapes[0]} for {sizes[0]}. "
            "Was a mean over rows left out?"
        )
    if not num_rows(data):
        return None
    return applied(lambda rows: _floats(functional(rows)), data, source=functional)


def checked_values(owner: str, functional: Callable[..., Any], *args: Any) -> Any:
    """Shapes of what a functional returns.

    Raises:
        ValueError: it cannot be computed, or returns something else than arrays of numbers.
    """
    try:
        out = jax.eval_shape(_referenced(functional), *args)
    except (TypeError, ValueError, IndexError, KeyError, AttributeError) as error:
        shapes = jax.tree.map(jnp.shape, args)
        traced = isinstance(error, jax.errors.TracerArrayConversionError)
        hint = "; is it written with NumPy instead of jax.numpy?" if traced else ""
        raise ValueError(
            f"{owner}: functional cannot be computed of arguments with shapes {shapes}: "
            f"{str(error).splitlines()[0]}{hint}"
        ) from error
    leaves = jax.tree.leaves(out)
    if not leaves or not all(_is_real(leaf.dtype) for leaf in leaves):
        raise ValueError(f"{owner}: functional must return arrays of real numbers, got {out}")
    return jax.tree.map(lambda leaf: leaf.shape, out)


def _referenced(functional: Callable[..., Any]) -> Callable[..., Any]:
    """A function that JAX can refer to, which those of NumPy are not."""
    try:
        weakref.ref(functional)
    except TypeError:
        return lambda *args: functional(*args)
    return functional


def _is_real(dtype: Any) -> bool:
    return not jnp.issubdtype(dtype, jnp.complexfloating) and (
        jnp.issubdtype(dtype, jnp.number) or jnp.issubdtype(dtype, jnp.bool_)
    )


def _floats(tree: Any) -> Any:
    def convert(x: Any) -> jax.Array:
        x = jnp.asarray(x)
        return x if _is_floating(x) else x.astype(jnp.result_type(float))

    return jax.tree.map(convert, tree)


def _first(rows: Any, size: int) -> Any:
    return jax.tree.map(lambda v: v[:size], rows)


def _weight_dtype(rows: Any) -> Any:
    floats = [v.dtype for v in jax.tree.leaves(rows) if _is_floating(v)]
    return jnp.result_type(*floats) if floats else jnp.result_type(float)


def _inputs(inputs: Any, rule: AbstractPredictiveRule, data: Any) -> Any:
    """Where inputs come from: `"urn"`, an array or a function; None of rules without."""
    owner = "predictive_resample"
    if not rule.has_inputs:
        return None
    width = data[0].shape[1:]
    if isinstance(inputs, str):
        if inputs != "urn":
            raise ValueError(f"{owner}: inputs must be 'urn', rows or a function, got {inputs!r}")
        if not num_rows(data):
            raise ValueError(f"{owner}: data is empty; then inputs must be rows or a function")
        return inputs
    if callable(inputs):
        shape = jax.eval_shape(inputs, jax.random.key(0)).shape
        if shape != width:
            raise ValueError(
                f"{owner}: inputs must return those of one row, shape {width}, got {shape}"
            )
        return inputs
    rows = checked_rows(f"{owner}: inputs", inputs)
    if rows.shape[1:] != width or not rows.shape[0]:
        raise ValueError(
            f"{owner}: inputs must be rows like those of x, shape (k, *{width}), got {rows.shape}"
        )
    return rows


def _as_drawn(rule: AbstractPredictiveRule, state: Any, data: Any, source: Any) -> Any:
    """Data of types that hold drawn rows too: integers are none where real numbers are drawn."""
    if all(_is_floating(v) for v in jax.tree.leaves(data)):
        return data

    def row(key: jax.Array) -> Any:
        if source is None:
            return rule.sample(key, state)
        x = jnp.asarray(data[0][0] if isinstance(source, str) else _drawn(key, source))
        return x, rule.sample(key, state, x)

    def held(values: jax.Array, drawn: Any) -> jax.Array:
        if _is_floating(values):
            return values
        return values.astype(jnp.promote_types(values.dtype, drawn.dtype))

    return jax.tree.map(held, data, jax.eval_shape(row, jax.random.key(0)))


def _is_floating(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.floating)


def _input(key: jax.Array, rows: Rows, source: Any) -> jax.Array:
    return pick_row(key, rows)[0] if isinstance(source, str) else _drawn(key, source)


def _drawn(key: jax.Array, source: Any) -> jax.Array:
    if callable(source):
        return source(key)
    return source[jax.random.randint(key, (), 0, source.shape[0])]
