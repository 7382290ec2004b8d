"""Distributions of new observations where the function is known through its moments."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from numpyro import distributions as dist

from ..distributions._likelihood import Gaussian, Likelihood

NODES = 20  # of the quadrature over the function


def predictive(
    likelihood: Likelihood, mean: jax.Array, variance: jax.Array, num_nodes: int = NODES
) -> Any:
    """The distribution of a new observation at each point, batch shape `(m,)`.

    A normal for `gp.Gaussian`; else a mixture of the likelihood's distributions at the nodes of
    Gauss-Hermite quadrature over the function, with density, moments and draws.

    Args:
        likelihood: from the function to a NumPyro distribution, the same for all observations.
        mean: of the function, shape `(m,)`.
        variance: of the function, shape `(m,)`.
        num_nodes: of the quadrature.

    Raises:
        ValueError: the likelihood holds data of each observation, so that of new ones is not known.
    """
    if isinstance(likelihood, Gaussian):
        return dist.Normal(mean, jnp.sqrt(variance + likelihood.noise.astype(mean.dtype)))
    places, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    f = mean[:, None] + jnp.sqrt(variance)[:, None] * jnp.asarray(places, mean.dtype)
    probs = jnp.asarray(weights / weights.sum(), mean.dtype)
    _refuse_data_of_observations(likelihood, f.size + 1, mean.dtype)
    return dist.MixtureSameFamily(dist.CategoricalProbs(probs), likelihood(f))


def held(likelihood: Likelihood | None) -> Any:
    """A likelihood as a field of a posterior whose leaves are arrays, which `jax.jit` takes."""
    if likelihood is None or isinstance(likelihood, eqx.Module | Partial):
        return likelihood
    return Partial(likelihood)


def _refuse_data_of_observations(likelihood: Likelihood, size: int, dtype: Any) -> None:
    """Whether a likelihood takes a function of any length, longer than what it may hold."""
    found: list[Any] = []

    def look(f: jax.Array) -> jax.Array:
        found.append(likelihood(f).batch_shape)
        return f

    at = jax.ShapeDtypeStruct((size,), dtype)
    try:
        eqx.filter_eval_shape(look, at)
    except (TypeError, ValueError) as error:
        found, cause = [str(error)], error
    else:
        cause = None
    if found != [(size,)]:
        raise ValueError(
            "predict: the likelihood must be the same for all observations, a function of f alone, "
            f"but from values of shape ({size},) it makes {found[0]}; does it hold data of each "
            "observation? Put those of the new ones into a likelihood of their own and use it with "
            "marginal(x), as in gp.log_predictive_prob(likelihood, y, mean, variance)"
        ) from cause
