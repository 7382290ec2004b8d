"""Dictionaries from data by one recipe: random start, annealing, EM until it ends."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ..._core import check_key, compiled, first_of, is_successful, RESULTS, thrown, whole_number
from ._arguments import finite_guard, observations
from ._chunks import mapped
from ._em import e_step, jittered
from ._model import AbstractSparseCoding, CodePosterior, rows_at_once, truncated_posterior

PATIENCE = 3  # steps that do not raise the bound


class LearnedDictionary(eqx.Module):
    """A sparse coding model that was learnt from data.

    Attributes:
        model: with the parameters that were found; it gives posteriors, reconstructions and draws.
        log_evidence: lower bound of the log evidence of all data, scalar.
        evidence_trace: the same before each step, at the temperature of the step, shape
            `(max_steps,)`; NaN after the last one.
        num_steps: of EM, integer.
        result: how it ended; successful where the bound has stopped changing.
    """

    model: AbstractSparseCoding
    log_evidence: Float[Array, ""]
    evidence_trace: Float[Array, " t"]
    num_steps: Int[Array, ""]
    result: RESULTS

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether `result` is successful."""
        return is_successful(self.result)

    @property
    def weights(self) -> Float[Array, "h d"]:
        """The dictionary, one row for each cause."""
        return self.model.weights

    @property
    def noise_var(self) -> Float[Array, ""]:
        """Variance of the noise."""
        return self.model.noise_var

    def posterior(self, y: Any, top_k: int = 1) -> CodePosterior:
        """The truncated posterior of the codes of data, see `AbstractSparseCoding.posterior`."""
        return self.model.posterior(y, top_k)


def learn_dictionary(
    key: jax.Array,
    kind: type[AbstractSparseCoding],
    y: Any,
    num_causes: int,
    *,
    temperature: float = 4.0,
    jitter: float = 0.1,
    anneal_steps: int = 80,
    reseeds: int = 10,
    max_steps: int = 200,
    rtol: float = 1e-5,
    throw: bool = True,
    **options: Any,
) -> LearnedDictionary:
    """Learns a dictionary by truncated EM with deterministic annealing.

    The temperature falls to 1 in the first `anneal_steps` steps, while the part of the data that
    is left out as too complex for the states rises to what the prior expects; priors stay as they
    are meanwhile. Then, `reseeds` times, the cause that the fewest data have is moved to what the
    others do not explain of a datum, followed by a third as many steps from half the temperature;
    it is kept if the bound of the evidence is better then. At last EM goes on until the bound stays
    where it is. All is one compiled program, which `vmap` runs for many keys or data at once. For
    minibatches and schedules of your own see `truncated_em`.

    Args:
        key: PRNG key.
        kind: class of the model: `BSC`, `TSC`, `DSC`, `GSC`, `MCA` or `MMCA`.
        y: data, shape `(n, d)`.
        num_causes: rows of the dictionary.
        temperature: at the first step, 1 or more.
        jitter: standard deviation of random steps of the weights, relative to that of the noise, at
            the first step; it falls to 0 along with the temperature.
        anneal_steps: steps until the temperature is 1.
        reseeds: how often a cause is moved.
        max_steps: of EM at the end, at most.
        rtol: ends where three steps have not raised the bound by more than it times the bound.
        throw: whether values that become infinite or NaN are an error, or a `result`.
        options: of `kind.at_data`, such as `num_candidates`, `max_active`, and the `values` of DSC.

    Returns:
        The model and how it was reached. Not to have converged is no error: look at `result`.

    Raises:
        ValueError: options out of range, data of another shape, none, or NaN.
        RuntimeError: values became infinite or NaN, unless `throw=False`; under `jit`, NaN data.

    References:
        Lücke and Eggert (2010), "Expectation truncation and the benefits of preselection in
        training generative models", JMLR 11; Ueda and Nakano (1998), "Deterministic annealing EM
        algorithm", Neural Networks 11; Ueda et al. (2000), "SMEM algorithm for mixture models",
        Neural Computation 12 (moves between optima that are kept if they are better).
    """
    check_key(key)
    if not (isinstance(kind, type) and issubclass(kind, AbstractSparseCoding)):
        raise ValueError(f"kind must be a class of models such as sbl.BSC, got {kind!r:.80}")
    numbers = (("temperature", temperature, 1.0), ("jitter", jitter, 0.0), ("rtol", rtol, 0.0))
    for name, number, least in numbers:
        if not isinstance(number, int | float) or not least <= number < float("inf"):
            raise ValueError(f"{name} must be a number from {least:g} on, got {number!r}")
    recipe = _Recipe(
        float(temperature),
        float(jitter),
        whole_number("anneal_steps", anneal_steps),
        whole_number("reseeds", reseeds, 0),
        whole_number("max_steps", max_steps),
        float(rtol),
    )
    y = observations(y)
    start_key, key = jax.random.split(key)
    start = kind.at_data(start_key, y, num_causes, **options)
    found = _learnt(key, start, y, recipe)
    if not throw:
        return found
    lost = found.result == RESULTS.nonfinite
    return thrown("learn_dictionary", RESULTS.where(lost, found.result, RESULTS.successful), found)


class _Recipe(NamedTuple):
    """Options of `learn_dictionary` that are part of its program."""

    temperature: float
    jitter: float
    anneal_steps: int
    reseeds: int
    max_steps: int
    rtol: float


@compiled
def _learnt(
    key: jax.Array, start: AbstractSparseCoding, y: jax.Array, recipe: _Recipe
) -> LearnedDictionary:
    y = y * finite_guard(y)
    anneal_key, key = jax.random.split(key)
    steps = recipe.anneal_steps, recipe.temperature, recipe.jitter
    model, trace = _annealed(anneal_key, start, y, *steps, first=True)
    model, more = _reseeded(key, model, y, recipe)
    end = _until_flat(model, y, recipe)
    bound = e_step(end.model, y, 1.0, 0.0, rows_at_once(start))[1]
    lost = ~(jnp.isfinite(bound) & jnp.isfinite(_last(end)))
    result = first_of(
        (lost, RESULTS.nonfinite),
        (end.flat >= PATIENCE, RESULTS.successful),
        otherwise=RESULTS.max_steps_reached,
    )
    trace = len(y) * jnp.concatenate([trace, more, end.trace])
    count = len(trace) - recipe.max_steps + end.count
    return LearnedDictionary(end.model, len(y) * bound, trace, count, result)


def _annealed(
    key: jax.Array,
    model: AbstractSparseCoding,
    y: jax.Array,
    num_steps: int,
    temperature: float,
    jitter: float,
    *,
    first: bool = False,
) -> tuple[AbstractSparseCoding, Float[Array, " t"]]:
    """The model after steps in which the temperature falls to 1, and the bounds before them.

    In the first ones the cut rises to 1 as well, and priors stay as they are.
    """

    def step(model: AbstractSparseCoding, count: jax.Array) -> tuple[Any, jax.Array]:
        done = count.astype(y.dtype) / num_steps
        now, cut = jnp.asarray(temperature, y.dtype) ** (1 - done), done if first else 1.0
        statistics, bound, _ = e_step(model, y, now, cut, rows_at_once(model))
        new = model.maximised(jax.tree.map(lambda x: x / len(y), statistics))
        if first:
            new = new.with_prior_of(model)
        return jittered(jax.random.fold_in(key, count), new, jitter * (1 - done)), bound

    return jax.lax.scan(step, model, jnp.arange(num_steps))


class _Reached(NamedTuple):
    """A model, the bound of the evidence, how many data have a cause, what is not explained."""

    model: AbstractSparseCoding
    bound: Float[Array, ""]
    active: Float[Array, " h"]
    residual: Float[Array, "n d"]


def _reached(model: AbstractSparseCoding, y: jax.Array) -> _Reached:
    def one(y: jax.Array) -> tuple[jax.Array, ...]:
        joint = model.joint(y)
        probs, bound = truncated_posterior(joint)
        return bound, model.code_moments(joint, probs)[1].T, y - model.expected(joint, probs)

    bound, active, residual = mapped(one, y, rows_at_once(model))
    return _Reached(model, jnp.mean(bound), jnp.mean(active, axis=0), residual)


def _reseeded(
    key: jax.Array, model: AbstractSparseCoding, y: jax.Array, recipe: _Recipe
) -> tuple[AbstractSparseCoding, Float[Array, " t"]]:
    """The best of what moves of the least used cause lead to, and the bounds before all steps."""
    num_steps = -(-recipe.anneal_steps // 3)
    temperature = max(1.0, recipe.temperature / 2)

    def attempt(state: _Reached, key: jax.Array) -> tuple[_Reached, jax.Array]:
        row_key, key = jax.random.split(key)
        size = jnp.sum(state.residual**2, axis=1)
        size = 2 * jnp.log(size + jnp.finfo(y.dtype).tiny)
        row = state.residual[jax.random.categorical(row_key, size)]
        moved = state.model.with_cause(jnp.argmin(state.active), row)
        model, trace = _annealed(key, moved, y, num_steps, temperature, 0.0)
        new = _reached(model, y)
        better = new.bound > state.bound
        return jax.tree.map(lambda x, old: jnp.where(better, x, old), new, state), trace

    if not recipe.reseeds:
        return model, jnp.zeros(0, y.dtype)
    keys = jax.random.split(key, recipe.reseeds)
    end, trace = jax.lax.scan(attempt, _reached(model, y), keys)
    return end.model, trace.reshape(-1)


class _Ending(NamedTuple):
    """Bounds before each step, the best one, and the number of steps that were no better.

    Only what is better by `rtol` counts as better.
    """

    model: AbstractSparseCoding
    trace: Float[Array, " t"]
    count: Int[Array, ""]
    best: Float[Array, ""]
    flat: Int[Array, ""]


def _until_flat(model: AbstractSparseCoding, y: jax.Array, recipe: _Recipe) -> _Ending:
    """Steps at temperature 1 until the bound does not rise any more."""

    def go_on(state: _Ending) -> jax.Array:
        ended = (state.flat >= PATIENCE) | ~jnp.isfinite(_last(state))
        return (state.count < recipe.max_steps) & ~ended

    def step(state: _Ending) -> _Ending:
        model, trace, count, best, flat = state
        statistics, bound, _ = e_step(model, y, 1.0, 1.0, rows_at_once(model))
        better = (count == 0) | (bound > best + recipe.rtol * jnp.abs(best))
        return _Ending(
            model.maximised(jax.tree.map(lambda x: x / len(y), statistics)),
            trace.at[count].set(bound),
            count + 1,
            jnp.where(better, bound, best),
            jnp.where(better, 0, flat + 1),
        )

    trace, none = jnp.full(recipe.max_steps, jnp.nan, y.dtype), jnp.zeros((), jnp.int32)
    return jax.lax.while_loop(
        go_on, step, _Ending(model, trace, none, jnp.zeros((), y.dtype), none)
    )


def _last(state: _Ending) -> jax.Array:
    """The last bound, 0 before the first one."""
    return jnp.where(state.count == 0, 0, state.trace[jnp.maximum(state.count - 1, 0)])
