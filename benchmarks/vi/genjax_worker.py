"""genjax's side of the overhead benchmark, run by a Python of its own.

The tasks as generative functions of genjax 1.0.14 with the gradient estimators of `genjax.adev`,
in the fastest form found: densities of data by formula (its Bernoulli costs more), batches through
one derivative (`batched`). The same hand-written code is measured beside it, so ratios compare.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import genjax.adev as adev  # ty: ignore[import-not-found]
import jax
import jax.numpy as jnp
from genjax import flip, gen, normal, seed  # ty: ignore[import-not-found]
from genjax.adev import (  # ty: ignore[import-not-found]
    multivariate_normal_diag_reparam as normals,
)
from genjax.core import distribution  # ty: ignore[import-not-found]

from benchmarks import serve
from benchmarks.vi import _agree, _hand

candidates: dict[str, Any] = {}
FLIPS = {
    "genjax": adev.flip_reinforce,
    "genjax_enum": distribution(adev.flip_enum, flip.logpdf),
    "genjax_mvd": distribution(adev.flip_mvd, flip.logpdf),
}


def bernoulli_log_prob(x: jax.Array, logits: jax.Array) -> jax.Array:
    """Without `jax.nn.softplus`: `genjax.adev` has no rule for custom derivatives."""
    return x * logits - jnp.maximum(logits, 0) - jnp.log1p(jnp.exp(-jnp.abs(logits)))


def sigmoid(logits: jax.Array) -> jax.Array:
    return 1 / (1 + jnp.exp(-logits))


@gen
def regression_guide(params):
    scale = {name: jnp.exp(p["log_scale"]) for name, p in params.items()}
    adev.normal_reparam(params["mean"]["loc"], scale["mean"]) @ "mean"
    adev.normal_reparam(params["log_spread"]["loc"], scale["log_spread"]) @ "log_spread"
    normals(params["slope"]["loc"], scale["slope"]) @ "slope"
    normals(params["intercept"]["loc"], scale["intercept"]) @ "intercept"


@gen
def regression_prior(params):
    mean = normal(0.0, 1.0) @ "mean"
    log_spread = normal(0.0, 1.0) @ "log_spread"
    like_slope, like_intercept = params["slope"]["loc"], params["intercept"]["loc"]
    normals(jnp.zeros_like(like_slope), jnp.ones_like(like_slope)) @ "slope"
    loc, scale = jnp.full_like(like_intercept, mean), jnp.exp(log_spread)
    normals(loc, jnp.full_like(like_intercept, scale)) @ "intercept"


@adev.expectation
def regression_loss(params, x, group, y):
    trace = regression_guide.simulate(params)
    z = trace.get_choices()
    log_p, _ = regression_prior.assess(z, params)
    logits = x @ z["slope"] + z["intercept"][group]
    return -(log_p + jnp.sum(bernoulli_log_prob(y, logits)) + trace.get_score())


@gen
def vae_guide(params, images):
    loc, scale = _hand.encode(params["encoder"], images)
    return normals(loc, scale) @ "z"


@adev.expectation
def vae_loss(params, images):
    trace = vae_guide.simulate(params, images)
    z = trace.get_choices()["z"]
    log_p, _ = normals.assess(z, jnp.zeros_like(z), jnp.ones_like(z))
    logits = _hand.decode(params["decoder"], z)
    return -(log_p + jnp.sum(bernoulli_log_prob(images, logits)) + trace.get_score())


@gen
def scene_model(params, image):
    decoder, prior = params["decoder"], params["prior"]
    present, mean = jnp.ones(()), jnp.zeros_like(image)
    for t in range(_hand.OBJECTS):
        chance = sigmoid(prior["logit"] + prior["more"] * present)
        present = jnp.float32(flip(chance) @ f"present{t}")
        what = normals(jnp.zeros(_hand.WHAT), jnp.ones(_hand.WHAT)) @ f"what{t}"
        mean += _hand.render(decoder, present, what)
    normals(mean, jnp.full_like(mean, _hand.NOISE)) @ "image"


def scene_loss(flip_of_choice: Any) -> Any:
    """Minus the bound of one image."""

    @gen
    def guide(params, image):
        encoder = params["encoder"]
        seen = _hand.look(encoder, image)
        present, what = jnp.ones(()), jnp.zeros(_hand.WHAT)
        for t in range(_hand.OBJECTS):
            state = _hand.attend(encoder, seen, present, what)
            chance = sigmoid(_hand.presence(encoder, state))
            present = jnp.float32(flip_of_choice(chance) @ f"present{t}")
            what = normals(*_hand.describe(encoder, state)) @ f"what{t}"

    @adev.expectation
    def loss(params, image):
        trace = guide.simulate(params, image)
        log_p, _ = scene_model.assess({**trace.get_choices(), "image": image}, params, image)
        return -(log_p + trace.get_score())

    return loss


def value_and_grad(loss: Any) -> Callable[..., Any]:
    """Of an expectation: value and gradient in its first argument."""

    @seed
    def run(params, *data):
        of = lambda p: adev.invoke_closed_over(loss, (p, *data))  # noqa: E731
        return jax.value_and_grad(of)(params)

    return run


def batched(loss: Any) -> Callable[..., Any]:
    """The same, summed over images.

    genjax's estimate of a directional derivative is mapped over the images and then transposed:
    one backward pass through matrix products. `jax.vmap(seed(loss.grad_estimate))` makes a gradient
    per image and is slower.
    """

    @jax.custom_jvp
    def total(params, keys, images):
        raise NotImplementedError("only its derivative is used")

    @total.defjvp
    def _(primals, tangents):
        params, keys, images = primals

        @seed
        def one(params, direction, image):
            pair = adev.Dual.dual_tree(params, direction)
            estimate = loss.jvp_estimate(pair, adev.Dual.tree_pure(image))
            return estimate.primal, estimate.tangent

        over_images = jax.vmap(one, (0, None, None, 0))
        values, slopes = over_images(keys, params, tangents[0], images)
        return values.sum(), slopes.sum()

    def run(key, params, images):
        return jax.value_and_grad(total)(params, jax.random.split(key, len(images)), images)

    return run


def start(task: str, size: dict[str, Any]) -> list[str]:
    """Makes the candidates of a task; gives their names."""
    params, data = _hand.problem(task, **size)
    args = (params, jax.random.key(0), data)
    if task == "A":
        hand, own = _hand.regression_loss, {"genjax": value_and_grad(regression_loss)}
    elif task == "B":
        hand, own = _hand.vae_loss, {"genjax": value_and_grad(vae_loss)}
    else:
        hand = _hand.scene_loss
        own = {name: batched(scene_loss(of_choice)) for name, of_choice in FLIPS.items()}
    candidates.clear()
    candidates["their hand"] = (jax.jit(jax.value_and_grad(hand)), args)
    for name, run in own.items():
        candidates[name] = (jax.jit(_on_problem(run)), args)
    return list(candidates)


def _on_problem(run: Callable[..., Any]) -> Callable[..., Any]:
    def function(params, key, data):
        return run(key, params, *(data if isinstance(data, _hand.Grouped) else (data,)))

    return function


def moments(name: str, draws: int) -> _agree.Moments:
    """See `_agree.moments`."""
    return _agree.moments(*candidates[name], draws)


if __name__ == "__main__":
    serve({"start": start, "moments": moments}, candidates)
