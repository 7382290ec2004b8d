"""Hamiltonian Monte Carlo from draws of a Gaussian: what it changes tells how good that was."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random

_CHAINS = 250
TRANSITIONS = 8  # of which the later half is looked at
_LEAPFROG = 8  # steps of a trajectory
_FIRST_STEP = 0.2  # the largest; eight are a quarter of a turn where the Gaussian is right
_BATCH = 100  # chains at once
_EFFECTIVE = 500.0  # draws that those looked at are worth, cautiously
_MEAN_WITHIN, _SD_WITHIN = 0.1, 0.15  # in standard deviations; relative
_LEAST_ACCEPTED = 0.5


class Moved(NamedTuple):
    """Draws after transitions that leave the posterior invariant.

    Attributes:
        draws: shape `(s, d)`.
        accepted: mean acceptance probability.
        step_size: of the leapfrog integrator, at the end.
    """

    draws: jax.Array
    accepted: jax.Array
    step_size: jax.Array


class Change(NamedTuple):
    """How far the transitions moved the coordinates from where the Gaussian has them.

    Attributes:
        mean: root mean square of the changes of means, in standard deviations.
        sd: that of the relative changes of standard deviations.
        reliable: whether these and the largest ones are small, and moves were accepted.
    """

    mean: jax.Array
    sd: jax.Array
    reliable: jax.Array


@eqx.filter_jit
def look(key: jax.Array, density: Any, normal: Any) -> tuple[Moved, Change]:
    """Moves draws of a Gaussian, and compares their moments with its own.

    References:
        Hoffman (2017), "Learning deep latent Gaussian models with Markov chain Monte Carlo", ICML,
        for transitions that start at variational draws.
    """
    run_key, draw_key = random.split(key)
    start = normal.sample(draw_key, _CHAINS)
    states, accepted, step_size = _run(run_key, density, normal, start, _FIRST_STEP, True)
    late = states[TRANSITIONS // 2 :]
    draws = late.reshape(-1, late.shape[-1])
    mean, sd = jnp.mean(draws, axis=0), jnp.std(draws, axis=0)
    shift, ratio = (mean - normal.loc) / sd, jnp.log(sd / normal.sd)
    noise = 1 / _EFFECTIVE
    rms_mean = jnp.sqrt(jnp.maximum(jnp.mean(shift**2) - noise, 0.0))
    rms_sd = jnp.sqrt(jnp.maximum(jnp.mean(ratio**2) - noise / 2, 0.0))
    good = (rms_mean <= _MEAN_WITHIN) & (rms_sd <= _SD_WITHIN)
    good &= jnp.max(jnp.abs(shift)) <= _MEAN_WITHIN + 4.5 * noise**0.5
    good &= jnp.max(jnp.abs(ratio)) <= _SD_WITHIN + 4.5 * (noise / 2) ** 0.5
    rate = jnp.mean(accepted[TRANSITIONS // 2 :])
    good &= rate >= _LEAST_ACCEPTED
    return Moved(draws, rate, step_size), Change(rms_mean, rms_sd, good)


@eqx.filter_jit
def moved_draws(
    key: jax.Array, density: Any, normal: Any, step_size: jax.Array, num_draws: int
) -> jax.Array:
    """Fresh draws of the Gaussian after the transitions, shape `(num_draws, d)`."""
    run_key, draw_key = random.split(key)
    start = normal.sample(draw_key, num_draws)
    return _run(run_key, density, normal, start, step_size, False)[0][-1]


def _run(
    key: jax.Array, density: Any, normal: Any, start: jax.Array, step_size: Any, adapt: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """States of all transitions, their acceptance probabilities and the last step size.

    Velocities have the covariance of the Gaussian, so that it sets the scales.
    """

    def score(point: jax.Array) -> tuple[jax.Array, jax.Array]:
        value, gradient = jax.value_and_grad(density)(point)
        good = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient))
        return jnp.where(good, value, -jnp.inf), jnp.where(good, gradient, 0.0)

    def scores(points: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jax.lax.map(score, points, batch_size=_BATCH)

    def leapfrog(size: jax.Array, carry: tuple, _: None) -> tuple[tuple, None]:
        z, v, _, force = carry
        v = v + 0.5 * size * force
        z = z + size * v
        value, gradient = scores(z)
        force = normal.times_covariance(gradient)
        return (z, v + 0.5 * size * force, value, force), None

    def transition(carry: tuple, number: jax.Array) -> tuple[tuple, tuple]:
        z, value, force, size = carry
        velocity_key, jitter_key, accept_key = random.split(random.fold_in(key, number), 3)
        v = normal.sample(velocity_key, len(z)) - normal.loc
        jittered = size * random.uniform(jitter_key, (), z.dtype, 0.75, 1.25)
        first = z, v, value, force
        end, _ = jax.lax.scan(lambda c, x: leapfrog(jittered, c, x), first, length=_LEAPFROG)
        energy = normal.log_prob(normal.loc + end[1]) - normal.log_prob(normal.loc + v)
        log_ratio = end[2] - value + energy
        log_ratio = jnp.where(jnp.isnan(log_ratio), -jnp.inf, log_ratio)
        log_ratio = jnp.where(jnp.isneginf(value) & jnp.isfinite(end[2]), 0.0, log_ratio)
        noise = jnp.log(random.uniform(accept_key, log_ratio.shape, z.dtype, 1e-12, 1.0))
        taken = (noise < log_ratio)[:, None]
        z, force = jnp.where(taken, end[0], z), jnp.where(taken, end[3], force)
        value = jnp.where(taken[:, 0], end[2], value)
        rate = jnp.mean(jnp.exp(jnp.minimum(log_ratio, 0.0)))
        if adapt:
            change = jnp.where(rate < 0.65, 0.6, jnp.where(rate > 0.9, 1.2, 1.0))
            adapted = jnp.minimum(size * change, _FIRST_STEP)
            size = jnp.where(number < TRANSITIONS // 2, adapted, size).astype(z.dtype)
        return (z, value, force, size), (z, rate)

    value, gradient = scores(start)
    size = jnp.asarray(step_size, start.dtype)
    carry = start, value, normal.times_covariance(gradient), size
    last, (states, rates) = jax.lax.scan(transition, carry, jnp.arange(TRANSITIONS))
    return states, rates, last[3]
