"""Predictive distributions: of new observations where the function is known by its moments."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import random
from jax.tree_util import Partial
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from ..distributions import BernoulliLogits
from ._likelihood import Gaussian, Likelihood, log_expectation
from ._quadrature import gauss_hermite

NODES = 20  # of Gauss-Hermite quadrature for moments


class Predictive(dist.Distribution):
    r"""The likelihood's distribution of observations, averaged over a normal latent function.

    $p(y) = E_{f \sim N(\mu, v)}[p(y \mid f)]$ at each point. Densities are by quadrature with nodes
    where likelihood and normal density have their mass together, as `log_predictive_prob`, moments
    by Gauss-Hermite quadrature of 20 nodes; draws are exact, of the function first. `predictive`
    makes it where nothing better is known.

    Args:
        likelihood: from the function to a NumPyro distribution, the same for all observations.
        loc: $\mu$, mean of the function, shape `(m,)`.
        latent_var: $v$, its variance, shape `(m,)`.
        validate_args: whether values are checked, as elsewhere in NumPyro.

    Raises:
        ValueError: the likelihood holds data of each observation, so that of new ones is not known.

    References:
        Liu and Pierce (1994), "A note on Gauss-Hermite quadrature", Biometrika.
    """

    arg_constraints = {
        "likelihood": constraints.dependent,
        "loc": constraints.real,
        "latent_var": constraints.nonnegative,
    }
    pytree_data_fields = ("likelihood", "loc", "latent_var")

    def __init__(
        self,
        likelihood: Likelihood,
        loc: jax.Array,
        latent_var: jax.Array,
        *,
        validate_args: bool | None = False,
    ):
        self.likelihood, self.loc, self.latent_var = held(likelihood), loc, latent_var
        _refuse_data_of_observations(likelihood, NODES * loc.size + 1, loc.dtype)
        event_shape = likelihood(loc).event_shape
        super().__init__(jnp.shape(loc), event_shape, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> Any:
        """That of the likelihood."""
        return self.likelihood(self.loc).support

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws, shape `(*sample_shape, m, ...)`."""
        of_function, of_observations = random.split(key)
        shape = (*sample_shape, *jnp.shape(self.loc))
        noise = random.normal(of_function, shape, self.loc.dtype)
        f = self.loc + jnp.sqrt(self.latent_var) * noise
        y = self.likelihood(f).sample(of_observations)
        return y.astype(f.dtype) if jnp.issubdtype(y.dtype, jnp.floating) else y

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        """Log densities, of the shape of `value` without event axes."""
        value = jnp.asarray(value)
        lead = value.shape[: value.ndim - self.event_dim]
        shape = jnp.broadcast_shapes(lead, jnp.shape(self.loc))
        y = jnp.broadcast_to(value, (*shape, *self.event_shape)).reshape(-1, *self.event_shape)
        mean, variance = (
            jnp.broadcast_to(v, shape).reshape(-1) for v in (self.loc, self.latent_var)
        )
        return log_expectation(self.likelihood, y, mean, variance).reshape(shape)

    @property
    def mean(self) -> jax.Array:
        """Means, shape `(m, ...)`."""
        observed, weights = self._at_nodes()
        return jnp.tensordot(weights, observed.mean, axes=1)

    @property
    def variance(self) -> jax.Array:
        """Variances, shape `(m, ...)`."""
        observed, weights = self._at_nodes()
        mean = jnp.tensordot(weights, observed.mean, axes=1)
        between = (observed.mean - mean) ** 2
        return jnp.tensordot(weights, observed.variance + between, axes=1)

    def _at_nodes(self) -> tuple[Any, jax.Array]:
        """The likelihood at quadrature nodes, batch shape `(q, m)`, and their weights."""
        nodes, weights = gauss_hermite(NODES)
        nodes = jnp.asarray(nodes, self.loc.dtype).reshape(-1, *[1] * jnp.ndim(self.loc))
        f = self.loc + jnp.sqrt(self.latent_var) * nodes
        return self.likelihood(f), jnp.asarray(weights, self.loc.dtype)


def predictive(likelihood: Likelihood, mean: jax.Array, variance: jax.Array) -> dist.Distribution:
    """The distribution of a new observation at each point, batch shape `(m,)` or `(m, p)`.

    A normal for `Gaussian`, a Bernoulli or categorical distribution for classes, else `Predictive`.

    Args:
        likelihood: from the function to a NumPyro distribution, the same for all observations.
        mean: of the function, shape `(m,)`, or `(m, p)` of several outputs.
        variance: of the function, of that shape.

    Raises:
        ValueError: the likelihood holds data of each observation, so that of new ones is not known.
    """
    if isinstance(likelihood, Gaussian):
        noise_var = likelihood.noise_var.astype(mean.dtype)
        return dist.Normal(mean, jnp.sqrt(variance + noise_var))
    mixed = Predictive(likelihood, mean, variance)
    observed = likelihood(mean)
    if isinstance(observed, dist.BernoulliLogits | dist.BernoulliProbs):
        log_probs = mixed.log_prob(_beside(jnp.arange(2), mean))
        return BernoulliLogits(log_probs[1] - log_probs[0])
    if isinstance(observed, dist.CategoricalLogits | dist.CategoricalProbs):
        classes = jnp.arange(observed.probs.shape[-1])
        log_probs = mixed.log_prob(_beside(classes, mean))
        return dist.CategoricalLogits(jnp.moveaxis(log_probs, 0, -1))
    return mixed


def _beside(values: jax.Array, mean: jax.Array) -> jax.Array:
    """Values along an axis in front of those of the function."""
    return values.reshape(-1, *(1,) * mean.ndim)


def held(likelihood: Likelihood | None) -> Any:
    """A likelihood as a field of a posterior whose leaves are arrays, which `jax.jit` takes."""
    if likelihood is None or isinstance(likelihood, eqx.Module | Partial):
        return likelihood
    return Partial(likelihood)


def _refuse_data_of_observations(likelihood: Likelihood, size: int, dtype: Any) -> None:
    """Whether a likelihood takes a function of any length, longer than what it may hold."""
    made: list[Any] = []

    def look(f: jax.Array) -> jax.Array:
        made.append(likelihood(f).batch_shape)
        return f

    at = jax.ShapeDtypeStruct((size,), dtype)
    try:
        eqx.filter_eval_shape(look, at)
    except (TypeError, ValueError) as error:
        made, cause = [str(error)], error
    else:
        cause = None
    if made != [(size,)]:
        raise ValueError(
            "predict: the likelihood must be the same for all observations, a function of f alone, "
            f"but from values of shape ({size},) it makes {made[0]}; does it hold data of each "
            "observation? Put those of the new ones into a likelihood of their own and use it with "
            "marginal(x), as in likelihoods.log_predictive_prob(likelihood, y, mean, variance)"
        ) from cause
