"""The tasks of the overhead benchmark in plain JAX: parameters, data, hand-written gradients.

Written as one writes them without a probabilistic language: the formulas of the bound, one key per
random variable, `jax.value_and_grad`. Imports jax only, so a worker process with another jax
measures the same baselines.

- **A** hierarchical logistic regression, mean-field Gaussian guide, reparameterised.
- **B** variational autoencoder of binary images, reparameterised.
- **C** attend-infer-repeat in small: up to three objects per image, found one after the other; the
  presence of each is a Bernoulli variable that depends on everything found before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random

Params = dict[str, jax.Array]
OBJECTS, WHAT = 3, 6  # task C: objects per image, size of an object's code
NOISE = 0.3  # task C: standard deviation of pixels
HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Grouped(NamedTuple):
    """Data of task A: covariates `n d`, group `n` in `range(num_groups)`, binary response `n`."""

    x: jax.Array
    group: jax.Array
    y: jax.Array


# --- data and parameters ---------------------------------------------------------------------


def grouped_data(n: int, d: int, num_groups: int) -> Grouped:
    """Data drawn from the model of task A."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, d))
    group = rng.integers(num_groups, size=n)
    logits = x @ rng.normal(size=d) + 0.5 + 0.7 * rng.normal(size=num_groups)[group]
    y = rng.random(n) < 1 / (1 + np.exp(-logits))
    return Grouped(jnp.float32(x), jnp.int32(group), jnp.float32(y))


def problem(
    task: str,
    images: list[list[int]],
    n: int = 500,
    num_groups: int = 20,
    batch: int = 128,
) -> tuple[dict[str, Params], Any]:
    """Parameters and data of task A, B or C.

    Args:
        task: its letter.
        images: grey values 0 to 16; in B, pixels from 8 on are one and the others zero.
        n: number of responses in A.
        num_groups: number of groups in A.
        batch: number of images in B and C.
    """
    if task == "A":
        return regression_params(5, num_groups), grouped_data(n, 5, num_groups)
    grey = jnp.array(images[:batch], jnp.float32)
    if task == "B":
        return vae_params(grey.shape[1], 128, 10), (grey >= 8).astype(jnp.float32)
    return scene_params(grey.shape[1], 128), grey / 16


def regression_params(d: int, num_groups: int) -> dict[str, Params]:
    """Guide of task A: location and log scale of every latent variable."""
    shapes = {"mean": (), "log_spread": (), "slope": (d,), "intercept": (num_groups,)}
    return {
        name: {"loc": jnp.zeros(shape), "log_scale": jnp.full(shape, -1.0)}
        for name, shape in shapes.items()
    }


def vae_params(pixels: int, hidden: int, latent: int) -> dict[str, Params]:
    """Encoder and decoder of task B."""
    w = _Weights()
    return {
        "encoder": {
            "w": w(pixels, hidden),
            "b": w(hidden),
            "loc_w": w(hidden, latent),
            "loc_b": w(latent),
            "scale_w": w(hidden, latent),
            "scale_b": w(latent),
        },
        "decoder": {
            "w": w(latent, hidden),
            "b": w(hidden),
            "out_w": w(hidden, pixels),
            "out_b": w(pixels),
        },
    }


def scene_params(pixels: int, hidden: int) -> dict[str, Params]:
    """Recurrent encoder and decoder of task C."""
    w = _Weights()
    return {
        "encoder": {
            "image_w": w(pixels, hidden),
            "object_w": w(1 + WHAT, hidden),
            "b": w(hidden),
            "logit_w": w(hidden),
            "logit_b": w(),
            "loc_w": w(hidden, WHAT),
            "loc_b": w(WHAT),
            "scale_w": w(hidden, WHAT),
            "scale_b": w(WHAT),
        },
        "decoder": {"w": w(WHAT, hidden), "b": w(hidden), "out_w": w(hidden, pixels)},
        "prior": {"logit": w(), "more": w()},
    }


class _Weights:
    """Arrays of small random numbers, a new one at each call."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(1)

    def __call__(self, *shape: int) -> jax.Array:
        scale = shape[0] ** -0.5 if len(shape) == 2 else 0.1
        return jnp.float32(scale * self._rng.normal(size=shape))


# --- networks, shared by all candidates ------------------------------------------------------


def encode(p: Params, image: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Task B: location and scale of the latent code."""
    hidden = jnp.tanh(image @ p["w"] + p["b"])
    return hidden @ p["loc_w"] + p["loc_b"], jnp.exp(hidden @ p["scale_w"] + p["scale_b"])


def decode(p: Params, z: jax.Array) -> jax.Array:
    """Task B: logits of the pixels."""
    return jnp.tanh(z @ p["w"] + p["b"]) @ p["out_w"] + p["out_b"]


def look(p: Params, image: jax.Array) -> jax.Array:
    """Task C: what every step of the encoder sees of the image."""
    return image @ p["image_w"] + p["b"]


def attend(p: Params, seen: jax.Array, present: jax.Array, what: jax.Array) -> jax.Array:
    """Task C: state of the encoder after the previous object."""
    before = jnp.concatenate([present[..., None], what], -1)
    return jnp.tanh(seen + before @ p["object_w"])


def presence(p: Params, state: jax.Array) -> jax.Array:
    """Task C: logit of there being a further object."""
    return state @ p["logit_w"] + p["logit_b"]


def describe(p: Params, state: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Task C: location and scale of the object's code."""
    return state @ p["loc_w"] + p["loc_b"], jnp.exp(state @ p["scale_w"] + p["scale_b"])


def render(p: Params, present: jax.Array, what: jax.Array) -> jax.Array:
    """Task C: what an object adds to the image."""
    return present[..., None] * (jnp.tanh(what @ p["w"] + p["b"]) @ p["out_w"])


# --- the bounds by hand ----------------------------------------------------------------------


def normal_log_prob(x: jax.Array, loc: Any, scale: Any) -> jax.Array:
    return -0.5 * ((x - loc) / scale) ** 2 - jnp.log(scale) - HALF_LOG_TWO_PI


def bernoulli_log_prob(x: jax.Array, logits: jax.Array) -> jax.Array:
    return x * logits - jax.nn.softplus(logits)


def regression_loss(params: dict[str, Params], key: jax.Array, data: Grouped) -> jax.Array:
    """Task A: minus the reparameterised bound."""
    keys = dict(zip(params, random.split(key, len(params)), strict=True))
    z, log_q = {}, 0.0
    for name, p in params.items():
        scale = jnp.exp(p["log_scale"])
        z[name] = p["loc"] + scale * random.normal(keys[name], p["loc"].shape)
        log_q += jnp.sum(normal_log_prob(z[name], p["loc"], scale))
    log_p = normal_log_prob(z["mean"], 0.0, 1.0) + normal_log_prob(z["log_spread"], 0.0, 1.0)
    log_p += jnp.sum(normal_log_prob(z["slope"], 0.0, 1.0))
    log_p += jnp.sum(normal_log_prob(z["intercept"], z["mean"], jnp.exp(z["log_spread"])))
    logits = data.x @ z["slope"] + z["intercept"][data.group]
    log_p += jnp.sum(bernoulli_log_prob(data.y, logits))
    return log_q - log_p


def vae_loss(params: dict[str, Params], key: jax.Array, images: jax.Array) -> jax.Array:
    """Task B: minus the reparameterised bound."""
    loc, scale = encode(params["encoder"], images)
    z = loc + scale * random.normal(key, loc.shape)
    log_q = jnp.sum(normal_log_prob(z, loc, scale))
    log_p = jnp.sum(normal_log_prob(z, 0.0, 1.0))
    log_p += jnp.sum(bernoulli_log_prob(images, decode(params["decoder"], z)))
    return log_q - log_p


def scene_log_densities(
    params: dict[str, Params],
    images: jax.Array,
    noises: list[jax.Array],
    choose: Callable[[int, jax.Array], jax.Array],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Task C for a batch of images.

    Args:
        params: of encoder, decoder and prior.
        images: `batch pixels`.
        noises: standard normal draws per object, `batch WHAT`.
        choose: presence of object `t` (as 0.0 or 1.0) given its logits, both `batch`.

    Returns:
        log p(image, all), log q(presences), log q(codes), each `batch`.
    """
    encoder, decoder, prior = params["encoder"], params["decoder"], params["prior"]
    seen = look(encoder, images)
    present, what = jnp.ones(images.shape[:1]), jnp.zeros((images.shape[0], WHAT))
    log_p = log_q_present = log_q_what = jnp.zeros(images.shape[:1])
    mean = jnp.zeros_like(images)
    for t in range(OBJECTS):
        state = attend(encoder, seen, present, what)
        logits = presence(encoder, state)
        prior_logits = prior["logit"] + prior["more"] * present
        present = choose(t, logits)
        loc, scale = describe(encoder, state)
        what = loc + scale * noises[t]
        log_q_present += bernoulli_log_prob(present, logits)
        log_q_what += jnp.sum(normal_log_prob(what, loc, scale), axis=-1)
        log_p += bernoulli_log_prob(present, prior_logits)
        log_p += jnp.sum(normal_log_prob(what, 0.0, 1.0), axis=-1)
        mean += render(decoder, present, what)
    log_p += jnp.sum(normal_log_prob(images, mean, NOISE), axis=-1)
    return log_p, log_q_present, log_q_what


def scene_loss(params: dict[str, Params], key: jax.Array, images: jax.Array) -> jax.Array:
    """Task C: minus the bound with the score-function gradient of the presences."""
    keys = random.split(key, 2 * OBJECTS)

    def choose(t: int, logits: jax.Array) -> jax.Array:
        probs = jax.lax.stop_gradient(jax.nn.sigmoid(logits))
        return random.bernoulli(keys[t], probs).astype(logits.dtype)

    densities = scene_log_densities(params, images, _noises(keys, images), choose)
    log_p, log_q_present, log_q_what = densities
    # The gradient of log q(presences) on its own has mean zero.
    bound = log_p - log_q_what - jax.lax.stop_gradient(log_q_present)
    score = log_q_present * jax.lax.stop_gradient(bound)
    return -jnp.sum(bound + score - jax.lax.stop_gradient(score))


def scene_enumerated_loss(
    params: dict[str, Params], key: jax.Array, images: jax.Array
) -> jax.Array:
    """Task C: minus the bound summed over all joint presences, eight runs under `jax.vmap`."""
    keys = random.split(key, 2 * OBJECTS)
    noises = _noises(keys, images)

    def given(presences: jax.Array) -> jax.Array:
        def choose(t: int, logits: jax.Array) -> jax.Array:
            return jnp.full_like(logits, presences[t])

        log_p, log_q_present, log_q_what = scene_log_densities(params, images, noises, choose)
        return jnp.exp(log_q_present) * (log_p - log_q_present - log_q_what)

    joint = jnp.stack(jnp.meshgrid(*[jnp.array([0.0, 1.0])] * OBJECTS), axis=-1)
    return -jnp.sum(jax.vmap(given)(joint.reshape(-1, OBJECTS)))


def _noises(keys: jax.Array, images: jax.Array) -> list[jax.Array]:
    shape = (images.shape[0], WHAT)
    return [random.normal(k, shape) for k in keys[OBJECTS:]]
