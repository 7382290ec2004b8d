"""FIVO: the evidence estimate of a particle filter as a variational bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float
from numpyro.primitives import Messenger

from ..._core import whole_number
from .._estimator import (
    AbstractReplay,
    AbstractScore,
    activate,
    check_number,
    check_programs,
    Context,
    current,
    expectation,
    log_sum,
    Objective,
)
from .._programs import (
    log_density,
    simulate,
)
from .._strategies import (
    Reinforce,
)

Program = Callable[..., Any]


class FilterStep(NamedTuple):
    """Output of one step of the filter: arrays over time after the scan.

    Attributes:
        log_evidence: increment of the log evidence.
        site_score: log probability of the step's score-function draws, all particles.
        index_score: log probability of the resampled indices.
    """

    log_evidence: Float[Array, ...]
    site_score: Float[Array, ...]
    index_score: Float[Array, ...]


def fivo(
    model_step: Program,
    guide_step: Program | None = None,
    num_particles: int = 16,
    resampling: Literal["drop", "reinforce"] = "drop",
    threshold: float | None = None,
) -> Objective:
    r"""Filtering variational objective $E[\sum_t \log \frac1N \sum_i w_t^i] \le \log p(y_{1:T})$.

    A lower bound that tightens with `num_particles`. Prefer it to `iwelbo` for sequences: its
    variance grows linearly in time where that of importance weights grows exponentially. It is
    −inf once all weights are zero at a step.

    Args:
        model_step: NumPyro program `(params, state, y_t) -> new state` of one step: its latent
            sites are the transition, `y_t` is observed.
        guide_step: program of the proposal with the same arguments, or None for the model's own
            transition (bootstrap filter).
        num_particles: $N$, positive.
        resampling: how the gradient treats the resampled indices: `"drop"` ignores them (biased,
            with much lower variance, the published default), `"reinforce"` is unbiased.
        threshold: resample where the effective sample size falls below this share of $N$: by
            default a half with `"drop"` (systematic resampling), and always with `"reinforce"`
            (multinomial), since reparameterised particles that cross a threshold make a jump.

    Returns:
        an `Objective` of `(params, state, ys)`: initial state (a pytree) of one particle, and
        observations, a pytree with time as leading axis.

    Raises:
        ValueError: bad options; a site with a replay strategy or a baseline; observations whose
            leading axes differ.

    References:
        Maddison, Lawson, Tucker, Heess, Norouzi, Mnih, Doucet and Teh (2017), "Filtering
        variational objectives".
    """
    if resampling not in ("drop", "reinforce"):
        raise ValueError(f'resampling must be "drop" or "reinforce", got {resampling!r}')
    check_programs(model_step=model_step)
    check_programs(True, guide_step=guide_step)
    whole_number("num_particles", num_particles)
    if threshold is not None:
        check_number("threshold", threshold)
    if threshold is not None and not threshold >= 0:
        raise ValueError(f"threshold is a share of the particles, not negative; got {threshold}")

    share = threshold if threshold is not None else (0.5 if resampling == "drop" else 2.0)
    n = num_particles

    def propagate(key: jax.Array, params: Any, state: Any, y: Any) -> tuple[Any, Any, Any]:
        """One particle: new state, log weight increment, score of its draws."""
        context = Context(key)
        with activate(context):
            trace, log_q = simulate(guide_step or _latent_only(model_step), params, state, y)
            result = _Result(model_step)
            log_p = log_density(result, trace, params, state, y)
        log_weight = (log_p - log_q).total
        for site in context.sites:
            if isinstance(site.strategy, AbstractReplay):
                raise site.explain("fivo cannot replay a site", "Use vi.reinforce")
            if isinstance(site.strategy, AbstractScore) and site.strategy != Reinforce():
                raise site.explain(
                    "fivo multiplies scores with all later increments, without a baseline",
                    "Use vi.reinforce without one",
                )
        scores = [site.log_prob(site.value) for site in context.scores]
        scores += [record.log_prob for record in context.exported]
        score = sum((jnp.sum(score) for score in scores), jnp.zeros((), log_weight.dtype))
        return result.output, log_weight, score

    def objective(params: Any, state: Any, ys: Any) -> jax.Array:
        _, key = current("fivo").enter_call()
        lengths = {y.shape[0] if jnp.ndim(y) else 0 for y in jax.tree.leaves(ys)}
        if len(lengths) != 1 or 0 in lengths:
            raise ValueError(
                "fivo: ys needs one or more arrays with the same number of time steps along the "
                f"leading axis, got {sorted(lengths)}"
            )
        move = partial(propagate, params=params)
        first = jax.tree.map(lambda y: y[0], ys)
        shapes, dtype, _ = jax.eval_shape(lambda: move(key, state=state, y=first))
        _check_state(state, shapes)
        states = jax.tree.map(
            lambda x, s: jnp.broadcast_to(jnp.asarray(x, s.dtype), (n, *s.shape)), state, shapes
        )
        even = jnp.full((n,), -math.log(n), dtype.dtype)

        def step(carry: Any, inputs: Any) -> tuple[Any, FilterStep]:
            states, log_weights = carry
            key, y = inputs
            move_key, resample_key = random.split(key)
            keys = random.split(move_key, n)
            states, increments, scores = jax.vmap(lambda k, x: move(k, state=x, y=y))(keys, states)
            log_weights = log_weights + increments
            total = log_sum(log_weights)
            # Without hope the filter goes on with even weights; the bound is -inf by then.
            log_share = jnp.where(jnp.isinf(total), even, log_weights - total)
            ess = jnp.exp(-log_sum(2 * jax.lax.stop_gradient(log_share)))
            index = _resample(resample_key, log_share, resampling)
            wanted = ess < share * n
            states = jax.tree.map(lambda x: jnp.where(wanted, x[index], x), states)
            log_weights = jnp.where(wanted, even, log_share)
            index_score = jnp.where(wanted, jnp.sum(log_share[index]), 0.0)
            return (states, log_weights), FilterStep(total, jnp.sum(scores), index_score)

        (steps,) = lengths
        _, out = jax.lax.scan(step, (states, even), (random.split(key, steps), ys))
        bound = jnp.sum(out.log_evidence)
        fixed = jax.lax.stop_gradient(out.log_evidence)
        # What follows each step; an infinite increment has no gradient.
        to_go = jnp.cumsum(jnp.where(jnp.isinf(fixed), 0.0, fixed)[::-1])[::-1]
        score = jnp.sum(out.site_score * to_go)
        if resampling == "reinforce":
            after = jnp.append(to_go[1:], jnp.zeros((1,), to_go.dtype))
            score = score + jnp.sum(out.index_score * after)
        return bound + score - jax.lax.stop_gradient(score)

    return expectation(objective)


def _check_state(state: Any, after: Any) -> None:
    """Raises `ValueError` unless a step leaves a state like the one that it was given."""
    before = jax.tree.map(jnp.shape, state)
    found = jax.tree.map(lambda s: s.shape, after)
    same = jax.tree.structure(state) == jax.tree.structure(after)
    is_shape = lambda x: isinstance(x, tuple)  # noqa: E731
    pairs = zip(*(jax.tree.leaves(t, is_leaf=is_shape) for t in (before, found)), strict=False)
    if not same or any(a != b and a != () for a, b in pairs):
        raise ValueError(
            f"fivo: the step must return a state like the one it gets, but a state of shape "
            f"{before} comes back as {found}; give the initial state of one particle"
        )


def _resample(key: jax.Array, log_share: jax.Array, resampling: str) -> jax.Array:
    """Indices of the survivors."""
    n = log_share.shape[0]
    log_share = jax.lax.stop_gradient(log_share)
    if resampling == "reinforce":
        return random.categorical(key, log_share, shape=(n,))
    offsets = (jnp.arange(n) + random.uniform(key, (), log_share.dtype)) / n
    steps = jnp.cumsum(jnp.exp(log_share))
    return jnp.clip(jnp.searchsorted(steps / steps[-1], offsets), 0, n - 1)


class _Result:
    """A program that remembers what it returned, since scoring returns a cost only."""

    def __init__(self, program: Program):
        self._program = program
        self.output: Any = None

    def __call__(self, *args: Any) -> Any:
        self.output = self._program(*args)
        return self.output


class _HideObserved(Messenger):
    """Keeps observed sites out of the proposal's density."""

    def process_message(self, msg: Any) -> None:
        if msg["type"] == "sample" and msg["is_observed"]:
            msg["stop"] = True


def _latent_only(program: Program) -> Program:
    def run(*args: Any) -> None:
        with _HideObserved():
            program(*args)

    return run
