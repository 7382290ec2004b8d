"""Linear autoencoders as NumPyro programs, trained by `bayesjx.vi` to compare their spectra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jax import random

import bayesjx
from bayesjx import Algorithm, vi

Params = dict[str, jax.Array]


def vae_model(params: Params, x: jax.Array, eta: jax.Array) -> None:
    """Images `x`, shape (n, d); both scales `eta`."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", _normal(0.0, eta, params["dec"].shape[1]))
        numpyro.sample("x", dist.Normal(z @ params["dec"].T, eta).to_event(1), obs=x)


def vae_guide(params: Params, x: jax.Array, eta: jax.Array) -> None:
    """A linear mean and one scale per latent dimension."""
    with numpyro.plate("data", len(x)):
        scale = jnp.exp(params["log_scale"])
        numpyro.sample("z", dist.Normal(x @ params["enc"].T, scale).to_event(1))


def cvae_model(params: Params, x: jax.Array, y: jax.Array, eta: jax.Array) -> None:
    """Outputs `y` given conditions `x`."""
    with numpyro.plate("data", len(x)):
        z = numpyro.sample("z", _normal(0.0, eta, params["dec"].shape[1]))
        mean = z @ params["dec"].T + x @ params["dec_x"].T
        numpyro.sample("y", dist.Normal(mean, eta).to_event(1), obs=y)


def cvae_guide(params: Params, x: jax.Array, y: jax.Array, eta: jax.Array) -> None:
    """A mean that is linear in both."""
    with numpyro.plate("data", len(x)):
        mean = x @ params["enc_x"].T + y @ params["enc"].T
        numpyro.sample("z", dist.Normal(mean, jnp.exp(params["log_scale"])).to_event(1))


def hvae_model(params: Params, x: jax.Array, eta: jax.Array, sigma1: jax.Array) -> None:
    """Two levels: z2 -> z1 -> x."""
    with numpyro.plate("data", len(x)):
        z2 = numpyro.sample("z2", _normal(0.0, eta, params["dec2"].shape[1]))
        z1 = numpyro.sample("z1", dist.Normal(z2 @ params["dec2"].T, eta).to_event(1))
        numpyro.sample("x", dist.Normal(z1 @ params["dec"].T, eta).to_event(1), obs=x)


def hvae_guide(params: Params, x: jax.Array, eta: jax.Array, sigma1: jax.Array) -> None:
    """x -> z1 with the fixed scale `sigma1`, then z1 -> z2 with a learned one."""
    with numpyro.plate("data", len(x)):
        z1 = numpyro.sample("z1", dist.Normal(x @ params["enc"].T, sigma1).to_event(1))
        scale = jnp.exp(params["log_scale"])
        numpyro.sample("z2", dist.Normal(z1 @ params["enc2"].T, scale).to_event(1))


def _normal(loc: float, scale: jax.Array, size: int) -> dist.Distribution:
    return dist.Normal(loc, scale).expand([size]).to_event(1)


def weighted_elbo(model: Callable[..., Any], guide: Callable[..., Any]) -> vi.Objective:
    """The ELBO per data point with weights on the divergences of the latent sites."""

    @vi.expectation
    def objective(params: Params, weights: dict[str, jax.Array], x: jax.Array, *args: Any) -> Any:
        trace, log_q = vi.simulate(guide, params, x, *args)
        bound = vi.log_density(model, trace, params, x, *args) - log_q
        return bound.weight_sites(weights) / len(x)

    return objective


def shapes(kind: str, d: int, p: int, k: int) -> dict[str, tuple[int, ...]]:
    """Shapes of the weights: inputs or conditions of size `d`, outputs `p`, latents `k`."""
    common = {"dec": (p, k), "enc": (k, p), "log_scale": (k,)}
    return {
        "vae": common,
        "cvae": {**common, "dec_x": (p, d), "enc_x": (k, d)},
        "hvae": {**common, "dec2": (k, k), "enc2": (k, k)},
    }[kind]


def start(key: jax.Array, sizes: dict[str, tuple[int, ...]], eta: float) -> Params:
    """Small random weights, scales of the prior."""
    keys = random.split(key, len(sizes))
    params = {
        name: 0.1 * random.normal(k, shape)
        for k, (name, shape) in zip(keys, sizes.items(), strict=True)
    }
    return {**params, "log_scale": jnp.full(sizes["log_scale"], np.log(eta))}


def trainer(objective: vi.Objective, params: Params, num_steps: int, rate: float) -> Algorithm:
    """Adam with a falling rate and an average of the last steps; one program for all data."""
    schedule = optax.cosine_decay_schedule(rate, num_steps, alpha=0.01)
    return vi.optimise(objective, params, optax.adam(schedule), average=0.998)


def train(key: jax.Array, algorithm: Algorithm, num_steps: int, data: tuple) -> Params:
    """The averaged weights after training."""
    result = bayesjx.fit(key, algorithm, algorithm.init(), num_steps, data=data)
    average: Any = result.state.average
    return {name: value for name, value in average.items()}


def spectrum(matrix: Any) -> np.ndarray:
    """Singular values, in double precision."""
    return np.linalg.svd(np.asarray(matrix, float), compute_uv=False)
