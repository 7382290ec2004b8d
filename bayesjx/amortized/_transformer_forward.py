"""Forward passes of distribution transformers, one program for each structure and shapes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from .._core import compiled
from ._attention import normed
from ._gaussian_mixture import GaussianMixture
from ._mixture_tokens import absolute, changed, features, fitted, MixtureTokens, told_apart


@compiled
def fitted_mixture(mixture: GaussianMixture, num_components: int, dtype: Any) -> GaussianMixture:
    """The same mixture with that many components, in the network's precision."""
    mixture = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), mixture)
    return fitted(mixture, num_components)


@compiled
def known_features(mixture: GaussianMixture) -> Float[Array, "*batch k f"]:
    """The numbers that stand for components."""
    return features(mixture)


@compiled
def tokens_of_parameters(network: Any, phi: Float[Array, "*batch p"]) -> MixtureTokens:
    """Tokens of priors that are given by their parameters."""
    hidden = network.parameters(network.scalings["prior"](phi))
    hidden = hidden.reshape(*phi.shape[:-1], network.num_components, -1)
    mixture = _whole(network, hidden)
    return MixtureTokens(hidden + _hidden(network, mixture), mixture)


@compiled
def tokens_of_mixture(network: Any, mixture: GaussianMixture) -> MixtureTokens:
    """Tokens of priors that are mixtures."""
    hidden = _hidden(network, mixture)
    return MixtureTokens(hidden, mixture if network.change is not None else _whole(network, hidden))


@compiled
def updated(
    network: Any,
    tokens: MixtureTokens,
    z: Float[Array, "*batch n d"],
    mask: Bool[Array, "*batch n"],
) -> MixtureTokens:
    """Tokens of posteriors; where no observation counts they stay as they are."""
    scaled = network.scalings["observed"](z)
    # Beside the numbers, their order of magnitude with the sign.
    both = jnp.concatenate([scaled, jnp.arcsinh(10 * scaled) / 3], axis=-1)
    first, second = network.observations
    seen, allowed = second(jax.nn.gelu(first(both))), mask[..., None, :]
    for layer in network.encoder:
        seen = layer(seen, layer.keys_values(seen), allowed)
    hidden = tokens.hidden
    for layer in network.layers:
        hidden = layer(hidden, seen, allowed)
    if network.change is not None:
        mixture = changed(tokens.mixture, network.change(normed(network.norm, hidden)))
    else:
        mixture = _whole(network, hidden)
    new, some = MixtureTokens(hidden, mixture), jnp.any(mask, axis=-1)

    def chosen(new: Any, old: Any) -> Any:
        return jnp.where(some.reshape(some.shape + (1,) * (new.ndim - some.ndim)), new, old)

    return jax.tree.map(chosen, new, tokens)


def _hidden(network: Any, mixture: GaussianMixture) -> Any:
    return network.components(told_apart(network.scalings["components"](features(mixture))))


def _whole(network: Any, hidden: Any) -> GaussianMixture:
    if network.whole is None:
        raise RuntimeError("a residual network of mixtures has no output of whole mixtures")
    return absolute(network.whole(normed(network.norm, hidden)), network.scalings["latents"])
