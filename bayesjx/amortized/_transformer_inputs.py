"""What a distribution transformer is given, checked and in its precision."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from .._core import checked_finite, number_array
from ._gaussian_mixture import GaussianMixture
from ._mixture_supports import Support
from ._transformer_forward import fitted_mixture


def checked_prior(prior: Any, support: Support, num_components: int, dtype: Any) -> GaussianMixture:
    """The mixture that a prior is, with that many components.

    Raises:
        ValueError: it is none, of other latent variables, or has more components.
    """
    mixture = GaussianMixture.of(prior, support)
    if mixture.num_latents != len(support):
        raise ValueError(
            f"prior must be of {len(support)} latent variables, got {mixture.num_latents}"
        )
    return fitted_mixture(mixture, num_components, dtype)


def checked_parameters(prior: Any, size: int, dtype: Any) -> Float[Array, "*batch p"]:
    """Parameters of a prior.

    Raises:
        ValueError: another number of them, or NaN.
    """
    phi = checked_finite("prior", jnp.asarray(number_array("prior", prior)))
    if np.ndim(phi) < 1 or np.shape(phi)[-1] != size:
        raise ValueError(f"prior must be parameters of shape (*batch, {size}), got {np.shape(phi)}")
    return jnp.asarray(phi, dtype)


def checked_observed(
    z: Any, mask: Any, size: int, dtype: Any
) -> tuple[Float[Array, "*batch n d"], Bool[Array, "*batch n"]]:
    """Observations, 0 where they do not count, and which of them do.

    Raises:
        ValueError: wrong shapes, NaN where they count.
    """
    z = number_array("z", z)
    if np.ndim(z) < 2 or np.shape(z)[-1] != size:
        raise ValueError(f"z must be observations of shape (*batch, n, {size}), got {np.shape(z)}")
    if mask is None:
        z = jnp.asarray(z, dtype)
        return checked_finite("z", z) if z.size else z, jnp.ones(np.shape(z)[:-1], bool)
    mask = jnp.asarray(mask)
    if mask.dtype != bool or mask.shape != np.shape(z)[:-1]:
        raise ValueError(
            f"mask must be booleans of shape {np.shape(z)[:-1]}, got {mask.dtype} of shape "
            f"{mask.shape}"
        )
    z = jnp.where(mask[..., None], jnp.asarray(z, dtype), 0)
    return (checked_finite("z", z) if z.size else z), mask
