"""Components of mixtures of Gaussians as numbers for a network, and changes of them."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import known_field
from ._gaussian_mixture import GaussianMixture

LEAST = -30.0  # log weight relative to the largest one, below which it is raised
_JITTER = 0.01  # standard deviation of what tells copies of a component apart, in scales of numbers
_STEEPEST = 6.0  # largest change of the logarithm of a scale in one update
_FLOOR = 1e-4  # smallest diagonal of a factor that is predicted as such, in scales of a latent


class MixtureTokens(NamedTuple):
    """A mixture in a network: what it is, and what the network remembers of each component.

    Attributes:
        hidden: tokens, one for each component, shape `(*batch, k, e)`.
        mixture: on the unconstrained scale.
    """

    hidden: Float[Array, "*batch k e"]
    mixture: GaussianMixture


class Scaling(eqx.Module):
    """Centre and scale of numbers, and the smallest and largest of them that were seen.

    Attributes:
        loc: shape `(d,)`.
        scale: shape `(d,)`.
        low: shape `(d,)`; -inf where nothing is known.
        high: shape `(d,)`.
    """

    loc: Float[Array, " d"] = known_field()
    scale: Float[Array, " d"] = known_field()
    low: Float[Array, " d"] = known_field()
    high: Float[Array, " d"] = known_field()

    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch d"]:
        """Standardised numbers."""
        return (x - self.loc) / self.scale

    @staticmethod
    def of(values: Any) -> Scaling:
        """Of numbers that were seen, one row each."""
        values = np.asarray(values).reshape(-1, np.shape(values)[-1])
        scale = values.std(axis=0)
        ends = values.min(axis=0), values.max(axis=0)
        loc = values.mean(axis=0)
        same = scale <= 1e-6 * np.maximum(np.abs(loc), 1)
        return Scaling(*map(jnp.asarray, (loc, np.where(same, 1, scale), *ends)))

    @staticmethod
    def none(size: int) -> Scaling:
        """That changes nothing."""
        zero = jnp.zeros(size)
        return Scaling(zero, zero + 1, zero - jnp.inf, zero + jnp.inf)

    def outside(self, x: Any) -> np.ndarray:
        """Which columns of numbers lie outside of what was seen, by more than a tenth of it."""
        x = np.asarray(x).reshape(-1, len(self.loc))
        low, high = np.asarray(self.low), np.asarray(self.high)
        room = np.where(np.isfinite(high - low), 0.1 * (high - low) + 0.01, 0)
        return np.any((x < low - room) | (x > high + room), axis=0)


def num_features(num_latents: int) -> int:
    """Of one component."""
    return 1 + num_latents + num_latents * (num_latents + 1) // 2


def feature_names(num_latents: int) -> list[str]:
    """What the numbers of `features` are."""
    rows, columns = np.tril_indices(num_latents, -1)
    return [
        "a log weight",
        *(f"loc[{i}]" for i in range(num_latents)),
        *(f"log scale_tril[{i}, {i}]" for i in range(num_latents)),
        *(f"scale_tril[{i}, {j}]" for i, j in zip(rows, columns, strict=True)),
    ]


def features(mixture: GaussianMixture) -> Float[Array, "*batch k f"]:
    """Centred log weight, mean, log diagonal and lower entries of the factor of each component."""
    tril, s = mixture.scale_tril, mixture.num_latents
    rows, columns = np.tril_indices(s, -1)
    log_weights = mixture.log_weights + math.log(mixture.num_components)
    log_diagonal = jnp.log(jnp.diagonal(tril, axis1=-2, axis2=-1))
    parts = (
        jnp.arcsinh(log_weights)[..., None],
        mixture.loc,
        log_diagonal,
        tril[..., rows, columns],
    )
    return jnp.concatenate(parts, axis=-1)


def told_apart(x: Float[Array, "*batch k f"]) -> Float[Array, "*batch k f"]:
    """Features with a little noise on copies of components, each by how many came before it.

    Without it all copies would stay the same in every layer. Of different ones nothing changes.
    """
    k = x.shape[-2]
    same = jnp.all(x[..., :, None, :] == x[..., None, :, :], axis=-1)
    rank = jnp.sum(same & np.tril(np.ones((k, k), bool), -1), axis=-1)
    noise = np.random.default_rng(0).normal(size=(k, x.shape[-1]))
    noise[0] = 0
    return x + _JITTER * jnp.asarray(noise, x.dtype)[rank]


def fitted(mixture: GaussianMixture, num_components: int) -> GaussianMixture:
    """The mixture with that many components, copies where it has fewer, and no tiny weights.

    Raises:
        ValueError: it has more.
    """
    k = mixture.num_components
    if k > num_components:
        raise ValueError(
            f"prior has {k} components, more than num_components = {num_components} of the network"
        )
    log_weights = clipped(mixture.log_weights)
    if k < num_components:
        which = np.arange(num_components) % k
        counts = np.bincount(which, minlength=k)
        log_weights = log_weights - jnp.log(jnp.asarray(counts, log_weights.dtype))
        log_weights = log_weights[..., which]
        mixture = GaussianMixture(
            log_weights, mixture.loc[..., which, :], mixture.scale_tril[..., which, :, :]
        )
    return with_weights(mixture, log_weights)


def clipped(log_weights: Float[Array, "*batch k"]) -> Float[Array, "*batch k"]:
    """Log weights of which none is so small that derivatives vanish."""
    top = jax.lax.stop_gradient(jnp.max(log_weights, axis=-1, keepdims=True))
    return jnp.maximum(log_weights, top + LEAST)


def with_weights(mixture: GaussianMixture, log_weights: Any) -> GaussianMixture:
    """The same components with other weights."""
    return GaussianMixture(log_weights, mixture.loc, mixture.scale_tril)


def changed(mixture: GaussianMixture, outputs: Float[Array, "*batch k f"]) -> GaussianMixture:
    r"""The mixture after an update, each component in coordinates in which it was standard normal.

    $\mu' = \mu + L \delta$ and $L' = L T$ with $T$ lower triangular, log weights by addition; where
    outputs are 0, nothing changes.

    Args:
        mixture: before.
        outputs: log weights, $\delta$, log diagonal and lower entries of $T$.
    """
    logit, shift, log_diagonal, lower = _parted(outputs, mixture.num_latents)
    diagonal = jnp.exp(_STEEPEST * jnp.tanh(log_diagonal / _STEEPEST))
    return GaussianMixture(
        clipped(mixture.log_weights + logit),
        mixture.loc + jnp.einsum("...ij,...j->...i", mixture.scale_tril, shift),
        mixture.scale_tril @ _lower_triangular(diagonal, lower),
    )


def absolute(outputs: Float[Array, "*batch k f"], scaling: Scaling) -> GaussianMixture:
    """A mixture in the units of the latent variables.

    Args:
        outputs: log weights, means, diagonal before a softplus, and lower entries of the factors.
        scaling: of latent variables.
    """
    logit, loc, diagonal, lower = _parted(outputs, len(scaling.loc))
    tril = _lower_triangular(jax.nn.softplus(diagonal) + _FLOOR, lower)
    return GaussianMixture(
        clipped(logit), scaling.loc + scaling.scale * loc, scaling.scale[:, None] * tril
    )


def _parted(outputs: Any, s: int) -> tuple[Any, Any, Any, Any]:
    return (
        outputs[..., 0],
        outputs[..., 1 : 1 + s],
        outputs[..., 1 + s : 1 + 2 * s],
        outputs[..., 1 + 2 * s :],
    )


def _lower_triangular(diagonal: Any, lower: Any) -> Any:
    s = diagonal.shape[-1]
    rows, columns = np.tril_indices(s, -1)
    matrix = jnp.zeros((*diagonal.shape, s), diagonal.dtype)
    matrix = matrix.at[..., np.arange(s), np.arange(s)].set(diagonal)
    return matrix.at[..., rows, columns].set(lower)
