"""Posteriors that several libraries approximate by a Gaussian, and the autoencoder's images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax import random
from numpyro.infer.util import initialize_model

from benchmarks.vi import _hand

BATCH, HIDDEN, LATENT = 128, 128, 10  # task B


class Posterior(NamedTuple):
    """A model whose latents are continuous.

    Attributes:
        model: NumPyro model without arguments.
        log_density: of the flat vector of unconstrained latents, in the order of the program.
        size: number of unconstrained latents.
        names: of the latents, in that order.
    """

    model: Callable[[], None]
    log_density: Callable[[jax.Array], jax.Array]
    size: int
    names: tuple[str, ...]


def posteriors() -> dict[str, Callable[[], Posterior]]:
    """By short name; A is the task of that letter, the others are tasks F."""
    return {
        "A": lambda: _posterior(_hierarchical()),
        "schools": lambda: _posterior(_eight_schools),
        "logistic": lambda: _posterior(_tumours()),
    }


def digits() -> jax.Array:
    """Task B: binary images in batches, `steps BATCH 64`."""
    from sklearn.datasets import load_digits

    images = np.asarray(load_digits().data >= 8, np.float32)
    return jnp.asarray(images[: len(images) // BATCH * BATCH].reshape(-1, BATCH, 64))


def _hierarchical() -> Callable[[], None]:
    data = _hand.grouped_data(500, 5, 20)

    def model() -> None:
        mean = numpyro.sample("mean", dist.Normal(0.0, 1.0))
        log_spread = numpyro.sample("log_spread", dist.Normal(0.0, 1.0))
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0).expand([5]).to_event(1))
        with numpyro.plate("groups", 20):
            intercept = numpyro.sample("intercept", dist.Normal(mean, jnp.exp(log_spread)))
        with numpyro.plate("data", len(data.y)):
            logits = data.x @ slope + jnp.asarray(intercept)[data.group]
            numpyro.sample("y", dist.Bernoulli(logits=logits), obs=data.y)

    return model


def _eight_schools() -> None:
    """Effects of coaching in eight schools, non-centred (Rubin 1981)."""
    y = jnp.array([28.0, 8.0, -3.0, 7.0, -1.0, 1.0, 18.0, 12.0])
    scale = jnp.array([15.0, 10.0, 16.0, 11.0, 9.0, 11.0, 10.0, 18.0])
    mean = numpyro.sample("mean", dist.Normal(0.0, 5.0))
    spread = numpyro.sample("spread", dist.HalfCauchy(5.0))
    with numpyro.plate("schools", 8):
        effect = numpyro.sample("effect", dist.Normal(0.0, 1.0))
        numpyro.sample("y", dist.Normal(mean + spread * effect, scale), obs=y)


def _tumours() -> Callable[[], None]:
    """Logistic regression of 569 tumours on 30 standardised covariates (scikit-learn's data)."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    x = jnp.asarray((x - x.mean(axis=0)) / x.std(axis=0), jnp.float32)
    y = jnp.asarray(y, jnp.float32)

    def model() -> None:
        intercept = numpyro.sample("intercept", dist.Normal(0.0, 2.5))
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0).expand([x.shape[1]]).to_event(1))
        with numpyro.plate("data", len(y)):
            numpyro.sample("y", dist.Bernoulli(logits=intercept + x @ slope), obs=y)

    return model


def _posterior(model: Callable[[], None]) -> Posterior:
    info: Any = initialize_model(random.key(0), model)
    sites = [name for name, site in info.model_trace.items() if site["type"] == "sample"]
    names = tuple(name for name in sites if name in info.param_info.z)
    shapes = {name: jnp.shape(info.param_info.z[name]) for name in names}
    ends = np.cumsum([math.prod(shapes[name]) for name in names])

    def log_density(z: jax.Array) -> jax.Array:
        parts = zip(names, jnp.split(z, ends[:-1]), strict=True)
        return -info.potential_fn({name: part.reshape(shapes[name]) for name, part in parts})

    return Posterior(model, log_density, int(ends[-1]), names)
