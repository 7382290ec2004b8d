"""Priors of a meta-prior, latent variables and observations that are drawn from them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist

from ._gaussian_mixture import GaussianMixture
from ._mixture_supports import checked_support, MapTo, Support
from ._mixture_tokens import features, num_features, Scaling


class Update(NamedTuple):
    """A prior, latent variables drawn from it, and observations of them.

    Attributes:
        phi: a `GaussianMixture`, or parameters of a prior.
        x: latent variables on the unconstrained scale, shape `(s,)`.
        z: observations, shape `(n, d)`.
    """

    phi: Any
    x: Any
    z: Any


def sample_updates(
    key: jax.Array,
    meta_prior: Callable[[jax.Array], Any],
    simulator: Callable[..., Any],
    prior: Callable[[Any], dist.Distribution] | None,
    support: Support,
    num_samples: int,
) -> Update:
    """Independent priors, latent variables and observations, with a leading axis."""
    keys = jax.random.split(key, num_samples)
    return jax.vmap(lambda k: _update(k, meta_prior, simulator, prior, support))(keys)


def _update(key: Any, meta_prior: Any, simulator: Any, prior: Any, support: Support) -> Update:
    keys = jax.random.split(key, 3)
    phi = meta_prior(keys[0])
    if isinstance(phi, GaussianMixture):
        x = phi.sample(keys[1])
        y = MapTo(support)(x)
    else:
        phi = jnp.asarray(phi)
        drawn = jnp.asarray(prior(phi).sample(keys[1]), phi.dtype)
        y = drawn.reshape(len(support))
        x = jnp.asarray(MapTo(support).inv(y))
    return Update(phi, x, jnp.asarray(simulator(keys[2], y), x.dtype))


def scalings_of(drawn: Update) -> dict[str, Scaling]:
    """Scales and ranges of what a network is given, from draws."""
    latents, observed = Scaling.of(drawn.x), Scaling.of(drawn.z)
    if isinstance(drawn.phi, GaussianMixture):
        of_prior = components = Scaling.of(features(drawn.phi))
    else:
        of_prior = Scaling.of(drawn.phi)
        lead = jnp.concatenate([jnp.zeros(1), latents.loc, jnp.log(latents.scale)])
        components = Scaling.none(num_features(len(latents.loc)))
        loc = components.loc.at[: len(lead)].set(lead)
        components = eqx.tree_at(lambda m: m.loc, components, loc)
    return {
        "latents": latents,
        "observed": observed,
        "prior": of_prior,
        "components": components,
    }


def check_meta_prior(
    owner: str, meta_prior: Any, simulator: Any, prior: Any, support: Any
) -> Update:
    """The shapes of what is drawn, an `Update` of `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: these are no functions, or do not return what they should.
    """
    for name, function in (("meta_prior", meta_prior), ("simulator", simulator)):
        if not callable(function):
            raise ValueError(f"{owner}: {name} must be callable, got {type(function).__name__}")
    if prior is not None and not callable(prior):
        raise ValueError(f"{owner}: prior must be callable, got {type(prior).__name__}")
    key = jax.random.key(0)
    phi = jax.eval_shape(meta_prior, key)
    if isinstance(phi, GaussianMixture):
        if phi.log_weights.ndim != 1 or prior is not None:
            raise ValueError(
                f"{owner}: meta_prior must return one GaussianMixture, without prior, got log "
                f"weights of shape {phi.log_weights.shape} and prior={prior!r:.40}"
            )
        s = phi.num_latents
    else:
        if not isinstance(phi, jax.ShapeDtypeStruct) or phi.ndim != 1:
            raise ValueError(
                f"{owner}: meta_prior must return a GaussianMixture or parameters of shape (p,), "
                f"got {phi!r:.80}"
            )
        if prior is None:
            raise ValueError(
                f"{owner}: prior must be given, from parameters to a numpyro distribution, as "
                "meta_prior returns parameters"
            )
        shape = jax.eval_shape(lambda k: jnp.asarray(prior(meta_prior(k)).sample(k)), key).shape
        if len(shape) > 1:
            raise ValueError(
                f"{owner}: prior must be a distribution of shape (s,) or of a number, got draws of "
                f"shape {shape}"
            )
        s = shape[0] if shape else 1
    bounds = support if _are_bounds(support) else checked_support(owner, support, s)
    if len(bounds) != s:
        raise ValueError(f"{owner}: meta_prior must be of {len(bounds)} latent variables, got {s}")
    shapes = jax.eval_shape(lambda k: _update(k, meta_prior, simulator, prior, bounds), key)
    if shapes.z.ndim != 2:
        raise ValueError(
            f"{owner}: simulator must return observations of shape (n, d), got {shapes.z.shape}"
        )
    return shapes


def _are_bounds(support: Any) -> bool:
    return isinstance(support, tuple) and all(isinstance(one, tuple) for one in support)
