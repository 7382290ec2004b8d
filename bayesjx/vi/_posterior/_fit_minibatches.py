"""Fits of models with subsampled plates: stochastic gradients in the coordinates of the mode."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import random

from ._modes import (
    Coordinates,
    coordinates,
    find_modes,
)
from ._normal_mixture import (
    NormalMixture,
)
from ._posterior_fit import (
    PosteriorFit,
)
from ._unconstrained import (
    Unconstrained,
)

_BATCHES = 16  # minibatches whose mean log density stands for that of all data at the start
_STARTS = 4
_STEPS, _DRAWS = 3000, 4
_RATE, _LAST_RATE = 0.03, 0.001  # in standard deviations of the mode
MOST_DIM = 300


class _Averaged(eqx.Module):
    """The mean log density over fixed minibatches."""

    density: Unconstrained
    keys: jax.Array

    def __call__(self, vector: jax.Array) -> jax.Array:
        return jnp.mean(jax.lax.map(lambda key: self.density(vector, key), self.keys))


def fit_minibatches(key: jax.Array, density: Unconstrained) -> PosteriorFit:
    """See `fit_posterior`: `"stl"` gradients of the bound, one minibatch a step.

    Raises:
        ValueError: more than 300 dimensions, or no finite start.
    """
    if density.dim > MOST_DIM:
        raise ValueError(
            f"fit_posterior: {density.dim} latent dimensions with minibatches; above {MOST_DIM} "
            "write a guide for vi.fit, e.g. vi.GaussianGuide(model, scale='lowrank')"
        )
    start_key, batch_key, fit_key, draw_key = random.split(key, 4)
    averaged = _Averaged(density, random.split(batch_key, _BATCHES))
    free = jnp.ones(density.dim, bool)
    modes = find_modes(averaged, density.starts(start_key, _STARTS), free)
    values = np.asarray(modes.values)
    if not np.isfinite(values).any():
        raise ValueError("fit_posterior: the log density is finite at no start; look at the data")
    best = int(np.nanargmax(values))
    coords = coordinates(averaged, modes.points[best], free)
    mixture = _train(fit_key, density, coords)
    names = ", ".join(map(repr, density.subsampled))
    notes = [
        f"minibatches of plate {names}: fitted by stochastic gradients (stl, Adam, {_STEPS} steps) "
        "in the coordinates of a mode"
    ]
    if not bool(modes.converged[best]):
        notes.append("no start reached a mode of the mean over some minibatches")
    draws = mixture.sample(draw_key, 1000)
    return PosteriorFit.unweighted(density, mixture, draws, tuple(notes))


@eqx.filter_jit
def _train(key: jax.Array, density: Unconstrained, coords: Coordinates) -> NormalMixture:
    d = density.dim
    schedule = optax.exponential_decay(_RATE, _STEPS, _LAST_RATE / _RATE)
    solver = optax.adam(schedule)
    zeros = jnp.zeros(d, coords.loc.dtype)
    params = {"loc": zeros, "log_scale": zeros, "lower": jnp.zeros((d, d), zeros.dtype)}

    def tril_of(params: dict[str, jax.Array]) -> jax.Array:
        return jnp.tril(params["lower"], -1) + jnp.diag(jnp.exp(params["log_scale"]))

    def loss(params: dict[str, jax.Array], key: jax.Array) -> jax.Array:
        noise_key, batch_key = random.split(key)
        noise = random.normal(noise_key, (_DRAWS, d), zeros.dtype)
        tril = tril_of(params)
        draws = params["loc"] + noise @ tril.T
        # The score of the Gaussian at its own draws, without a gradient through its parameters.
        slope = jax.lax.stop_gradient(
            -jax.scipy.linalg.solve_triangular(tril, noise.T, trans=1, lower=True).T
        )
        bound = jax.vmap(lambda u: density(coords.loc + coords.scale @ u, batch_key))(draws)
        return -jnp.mean(bound - jnp.sum(slope * draws, axis=1))

    def step(carry: tuple, number: jax.Array) -> tuple[tuple, None]:
        params, state, mean = carry
        gradient = jax.grad(loss)(params, random.fold_in(key, number))
        finite = jnp.all(jnp.stack([jnp.all(jnp.isfinite(x)) for x in jax.tree.leaves(gradient)]))
        gradient = jax.tree.map(lambda x: jnp.where(finite, x, 0.0), gradient)
        updates, state = solver.update(gradient, state)
        params: Any = optax.apply_updates(params, updates)
        share = jnp.maximum(1.0 / (number + 1), 0.005).astype(zeros.dtype)
        mean = jax.tree.map(lambda a, p: a + share * (p - a), mean, params)
        return (params, state, mean), None

    start = params, solver.init(params), params
    mean = jax.lax.scan(step, start, jnp.arange(_STEPS))[0][2]
    root = coords.scale @ tril_of(mean)
    upper = jnp.linalg.qr(root.T, mode="r")
    sign = jnp.where(jnp.diag(upper) < 0, -1.0, 1.0).astype(root.dtype)
    tril = jnp.tril(upper.T * sign)
    loc = coords.loc + coords.scale @ mean["loc"]
    return NormalMixture(jnp.zeros(1, zeros.dtype), loc[None], tril[None], wide=False)
