"""Truncated EM with annealing, on all data or on minibatches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core import Algorithm, Step, whole_number
from ._arguments import finite_guard, observations
from ._chunks import mapped, summed
from ._model import AbstractSparseCoding, rows_at_once, truncated_posterior

Schedule = float | Callable[[jax.Array], Any]


class TruncatedEMState(NamedTuple):
    """State of `truncated_em`.

    Attributes:
        model: with the parameters so far.
        statistics: means of expected sufficient statistics over the minibatches so far; None if
            each step has all data.
        count: number of steps made, integer.
    """

    model: AbstractSparseCoding
    statistics: Any
    count: Int[Array, ""]


class TruncatedEMInfo(NamedTuple):
    """What a step of `truncated_em` reports.

    Attributes:
        objective: lower bound of the log evidence, the mean over data, at the state that the step
            started from. At temperature 1 it is the truncated log evidence.
        noise_var: after the step.
        temperature: of the step.
        kept: share of the data that the M-step had.
    """

    objective: Float[Array, ""]
    noise_var: Float[Array, ""]
    temperature: Float[Array, ""]
    kept: Float[Array, ""]


def truncated_em(
    model: AbstractSparseCoding,
    *,
    temperature: Schedule = 1.0,
    cut: Schedule = 0.0,
    jitter: Schedule = 0.0,
    step_size: Schedule | None = None,
    chunk_size: int | None = None,
) -> Algorithm:
    r"""Truncated EM for dictionaries, for `bayesjx.fit`; `learn_dictionary` runs it with a recipe.

    The E-step takes states and their probabilities as `model.posterior` does, with likelihoods to
    the power $1 / T$; the M-step has a closed form. At temperature 1, where nothing is truncated
    or cut, no step lowers the evidence of models whose causes add up.

    Args:
        model: where to start, such as `BSC.at_data(key, y, 10)`.
        temperature: $T \ge 1$, or a schedule of Optax, such as `optax.linear_schedule(2, 1, 80)`.
        cut: how much of the part of the data that is expected to have more than `max_active`
            active causes is left out of the M-step, those of the lowest evidence: from 0 to 1, or
            a schedule.
        jitter: standard deviation of normal steps that are added to the weights after each M-step,
            relative to that of the noise, or a schedule. At a high temperature causes become equal
            to each other; this lets them part again.
        step_size: for minibatches: statistics are running means, which move that far to those of
            a batch, in (0, 1], or a schedule such as `lambda t: (t + 2.0) ** -0.7` (stepwise EM).
            None if each step has all data.
        chunk_size: data whose posteriors are held at a time; by default as many as make four
            million probabilities.

    Returns:
        `init() -> TruncatedEMState`, `step(key, state, y) -> (TruncatedEMState, TruncatedEMInfo)`
        with `y` of shape `(n, d)`, all data or a minibatch, on one device or sharded over several;
        without `jitter` the key is not used. `state.model` is the result.

    Raises:
        ValueError: options out of range; when traced, data of another shape, or none.
        RuntimeError: NaN or infinite data, when a step runs.

    References:
        Lücke and Eggert (2010), "Expectation truncation and the benefits of preselection in
        training generative models", JMLR 11; Cappé and Moulines (2009), "On-line
        expectation-maximization algorithm for latent data models", JRSS B 71 (`step_size`).
    """
    if not isinstance(model, AbstractSparseCoding):
        raise ValueError(f"model must be a sparse coding model such as sbl.BSC, got {model!r:.80}")
    _check_schedule("temperature", temperature, 1.0, float("inf"))
    _check_schedule("cut", cut, 0.0, 1.0)
    _check_schedule("jitter", jitter, 0.0, float("inf"))
    if step_size is not None:
        _check_schedule("step_size", step_size, 0.0, 1.0)
        if step_size == 0:
            raise ValueError("step_size must be positive, got 0")
    if chunk_size is not None:
        chunk_size = whole_number("chunk_size", chunk_size)

    def init() -> TruncatedEMState:
        statistics = None if step_size is None else _no_statistics(model)
        return TruncatedEMState(model, statistics, jnp.zeros((), jnp.int32))

    return Algorithm(init, Step(_step, temperature, cut, jitter, step_size, chunk_size))


def _step(
    temperature: Schedule,
    cut: Schedule,
    jitter: Schedule,
    step_size: Schedule | None,
    chunk_size: int | None,
    key: Any,
    state: TruncatedEMState,
    y: Any,
) -> tuple[TruncatedEMState, TruncatedEMInfo]:
    model, mean, count = state
    y = observations(y, model.weights.shape[1], model.weights.dtype)
    temperature = _now(temperature, count, y.dtype)
    size = rows_at_once(model) if chunk_size is None else chunk_size
    found, bound, kept = e_step(model, y, temperature, _now(cut, count, y.dtype), size)
    guard = finite_guard(y)
    found = jax.tree.map(lambda x: guard * x / len(y), found)
    if step_size is not None:
        rate = jnp.where(count == 0, 1, _now(step_size, count, y.dtype)).astype(y.dtype)
        found = jax.tree.map(lambda old, new: old + rate * (new - old), mean, found)
    new = jittered(key, model.maximised(found), _now(jitter, count, y.dtype))
    info = TruncatedEMInfo(bound, new.noise_var, jnp.asarray(temperature, y.dtype), kept)
    return TruncatedEMState(new, None if step_size is None else found, count + 1), info


def e_step(
    model: AbstractSparseCoding, y: jax.Array, temperature: Any, cut: Any, size: int
) -> tuple[Any, jax.Array, jax.Array]:
    """Sums of expected sufficient statistics, mean bound of the log evidence, share of data kept.

    Args:
        model: of the data.
        y: data, shape `(n, d)`.
        temperature: of the posterior.
        cut: from 0 to 1, see `truncated_em`.
        size: data that are looked at together.
    """
    n = len(y)
    beyond = None if isinstance(cut, float) and cut == 0 else model.beyond()
    share = None if beyond is None else beyond * cut
    if n <= size:
        joint = model.joint(y)
        probs, bounds = truncated_posterior(joint, temperature)
        mass = _kept(bounds, share)
        sums = model.expectations(y, joint, probs * mass, mass, temperature)
        return sums, jnp.mean(bounds), jnp.mean(mass)

    def bounds_of(y: jax.Array) -> jax.Array:
        return truncated_posterior(model.joint(y), temperature)[1]

    def sums_of(rows: Any) -> tuple[Any, jax.Array]:
        y, there, mass = rows
        joint = model.joint(y)
        probs, bounds = truncated_posterior(joint, temperature)
        sums = model.expectations(y, joint, probs * mass, mass, temperature)
        return sums, jnp.sum(there * bounds)

    there = jnp.ones(n, y.dtype)
    mass = there if share is None else _kept(mapped(bounds_of, y, size), share)
    sums, total = summed(sums_of, (y, there, mass), size)
    return sums, total / n, jnp.mean(mass)


def jittered(key: Any, model: AbstractSparseCoding, scale: Any) -> AbstractSparseCoding:
    """A model with normal steps added to its weights, of a scale relative to the noise."""
    if isinstance(scale, int | float) and scale == 0:
        return model
    size = scale * jnp.sqrt(model.noise_var)
    noise = jax.random.normal(key, model.weights.shape, model.weights.dtype)
    return eqx.tree_at(lambda m: m.weights, model, model.feasible(model.weights + size * noise))


def _kept(bounds: Float[Array, " n"], share: Any) -> Float[Array, " n"]:
    """Weights of data, 0 for the given share of them with the lowest evidence and 1 for others."""
    if share is None:
        return jnp.ones_like(bounds)
    index = jnp.floor(share * len(bounds)).astype(jnp.int32)
    least = jnp.sort(bounds)[jnp.clip(index, 0, len(bounds) - 1)]
    return (bounds >= least).astype(bounds.dtype)


def _no_statistics(model: AbstractSparseCoding) -> Any:
    y = jax.ShapeDtypeStruct((1, model.weights.shape[1]), model.weights.dtype)
    shapes = jax.eval_shape(lambda y: e_step(model, y, 1.0, 0.0, 1)[0], y)
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _now(schedule: Schedule, count: jax.Array, dtype: Any) -> Any:
    return jnp.asarray(schedule(count), dtype) if callable(schedule) else schedule


def _check_schedule(name: str, schedule: Any, low: float, high: float) -> None:
    if callable(schedule):
        return
    if not isinstance(schedule, int | float) or not low <= schedule <= high:
        raise ValueError(
            f"{name} must be a number from {low:g} to {high:g} or a function of the number of "
            f"steps, got {schedule!r}"
        )
