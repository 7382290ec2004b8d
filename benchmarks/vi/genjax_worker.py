"""genjax's side of the overhead benchmark, run by a Python of its own; see `overhead.py`.

The same tasks as generative functions, their gradients by `genjax.adev`, and the same hand-written
baselines in the same process, so that ratios compare.
"""

from __future__ import annotations

from typing import Any

import genjax.adev as adev  # ty: ignore[import-not-found]
import jax
import jax.numpy as jnp
from genjax import (  # ty: ignore[import-not-found]
    bernoulli,
    flip,
    gen,
    normal,
    seed,
)
from genjax.adev import (  # ty: ignore[import-not-found]
    expectation,
    flip_reinforce,
    invoke_closed_over,
    multivariate_normal_diag_reparam as normals,
    normal_reparam,
)
from genjax.core import distribution  # ty: ignore[import-not-found]

from benchmarks._worker import serve
from benchmarks.vi import _hand as hand

candidates: dict[str, Any] = {}


@gen
def regression_guide(params):
    scales = {name: jnp.exp(leaf["log_scale"]) for name, leaf in params.items()}
    normal_reparam(params["mean"]["loc"], scales["mean"]) @ "mean"
    normal_reparam(params["log_spread"]["loc"], scales["log_spread"]) @ "log_spread"
    normals(params["slope"]["loc"], scales["slope"]) @ "slope"
    normals(params["intercept"]["loc"], scales["intercept"]) @ "intercept"


@gen
def regression_model(x, group, num_groups):
    mean = normal(0.0, 1.0) @ "mean"
    log_spread = normal(0.0, 1.0) @ "log_spread"
    slope = normals(jnp.zeros(x.shape[1]), jnp.ones(x.shape[1])) @ "slope"
    spread = jnp.full(num_groups.shape, jnp.exp(log_spread))
    intercept = normals(jnp.full(num_groups.shape, mean), spread) @ "intercept"
    bernoulli.vmap(in_axes=(0,))(x @ slope + intercept[group]) @ "y"


@expectation
def regression_loss(params, data, groups):
    trace = regression_guide.simulate(params)
    observed = {**trace.get_choices(), "y": data.y}
    log_p, _ = regression_model.assess(observed, data.x, data.group, groups)
    return -(log_p + trace.get_score())


@gen
def vae_guide(params, images):
    loc, scale = hand.encode(params["encoder"], images)
    normals(loc, scale) @ "z"


@gen
def vae_model(params, images):
    shape = (len(images), params["decoder"]["w"].shape[0])
    z = normals(jnp.zeros(shape), jnp.ones(shape)) @ "z"
    pixels = bernoulli.vmap(in_axes=(0,)).vmap(in_axes=(0,))
    return pixels(hand.decode(params["decoder"], z)) @ "x"


@expectation
def vae_loss(params, images):
    trace = vae_guide.simulate(params, images)
    log_p, _ = vae_model.assess({**trace.get_choices(), "x": images}, params, images)
    return -(log_p + trace.get_score())


@gen
def scene_model(params, image):
    decoder, prior = params["decoder"], params["prior"]
    present = jnp.float32(1.0)
    mean = jnp.zeros(image.shape)
    for t in range(hand.OBJECTS):
        logits = prior["logit"] + prior["more"] * present
        present = jnp.float32(flip(1 / (1 + jnp.exp(-logits))) @ f"present{t}")
        what = normals(jnp.zeros(hand.WHAT), jnp.ones(hand.WHAT)) @ f"what{t}"
        mean += hand.render(decoder, present, what)
    normals(mean, jnp.full(mean.shape, hand.NOISE)) @ "image"


def scene_loss(flip_of_choice: Any) -> Any:
    """One image's loss; genjax has no plates, images are mapped over."""

    @gen
    def guide(params, image):
        encoder = params["encoder"]
        seen = hand.look(encoder, image)
        present, what = jnp.float32(1.0), jnp.zeros(hand.WHAT)
        for t in range(hand.OBJECTS):
            state = hand.attend(encoder, seen, present, what)
            chance = 1 / (1 + jnp.exp(-hand.presence(encoder, state)))
            present = jnp.float32(flip_of_choice(chance) @ f"present{t}")
            loc, scale = hand.describe(encoder, state)
            what = normals(loc, scale) @ f"what{t}"

    @expectation
    def loss(params, image):
        trace = guide.simulate(params, image)
        log_p, _ = scene_model.assess({**trace.get_choices(), "image": image}, params, image)
        return -(log_p + trace.get_score())

    return loss


def value_and_grad(loss: Any, params: Any, key: Any, *rest: Any) -> Any:
    def run(params, *rest):
        return jax.value_and_grad(lambda p: invoke_closed_over(loss, (p, *rest)))(params)

    return seed(run)(key, params, *rest)


def per_image(loss: Any) -> Any:
    @jax.jit
    def run(params, key, images):
        keys = jax.random.split(key, len(images))
        one = jax.vmap(lambda key, image: value_and_grad(loss, params, key, image))
        value, gradient = one(keys, images)
        return value.sum(), jax.tree.map(lambda leaf: leaf.sum(0), gradient)

    return run


def start(task: str, images: Any = None) -> list[str]:
    """Prepares the candidates of a task, each run once; returns their names."""
    key = jax.random.key(0)
    if task == "A":
        data = hand.grouped_data(500, 5, 20)
        params = hand.regression_params(5, 20)
        groups = jnp.zeros(20)
        run = jax.jit(lambda p, k, d: value_and_grad(regression_loss, p, k, d, groups))
        own, args = {"genjax": run}, (params, key, data)
        baseline = {"its hand": hand.regression_loss}
    elif task == "B":
        args = (hand.vae_params(64, 128, 10), key, jnp.float32(images))
        own = {"genjax": jax.jit(lambda p, k, x: value_and_grad(vae_loss, p, k, x))}
        baseline = {"its hand": hand.vae_loss}
    else:
        args = (hand.scene_params(64, 128), key, jnp.float32(images))
        flip_enum = distribution(adev.flip_enum, flip.logpdf)
        flip_mvd = distribution(adev.flip_mvd, flip.logpdf)
        flips = {"reinforce": flip_reinforce, "enum": flip_enum, "mvd": flip_mvd}
        own = {f"genjax {name}": per_image(scene_loss(f)) for name, f in flips.items()}
        baseline = {"its hand": hand.scene_loss}
    own.update({name: jax.jit(jax.value_and_grad(loss)) for name, loss in baseline.items()})
    candidates.clear()
    for name, run in own.items():
        jax.block_until_ready(run(*args))
        candidates[name] = (run, args)
    return list(candidates)


if __name__ == "__main__":
    serve({"start": start}, candidates)
