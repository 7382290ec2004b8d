"""Predictive distributions that are mixtures over networks."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax import random
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.util import validate_sample

from ..distributions import BernoulliLogits, repaired
from ..likelihoods import held
from ._network import Outputs


class NetworkMixture(dist.Distribution):
    r"""The likelihood's distribution of observations, averaged over networks.

    $p(y) = \sum_s w_s \, p(y \mid f_s)$ at each point, for the values $f_s$ of `s` networks.

    Args:
        likelihood: from the function to a NumPyro distribution, the same for all observations.
        f: values, shape `(s, m)`, or `(s, m, p)` of networks with several outputs.
        log_weights: $\log w_s$, normalised, shape `(s,)`.
        each: whether the arrays of the likelihood have an axis in front, of one for each network.
        validate_args: whether values are checked, as elsewhere in NumPyro.

    Raises:
        ValueError: the likelihood holds data of each observation, so that of new ones is not known.
    """

    arg_constraints = {
        "likelihood": constraints.dependent,
        "f": constraints.real,
        "log_weights": constraints.real,
    }
    pytree_data_fields = ("likelihood", "f", "log_weights")
    pytree_aux_fields = ("each", "ndim")

    def __init__(
        self,
        likelihood: Any,
        f: jax.Array,
        log_weights: jax.Array,
        *,
        each: bool = False,
        validate_args: bool | None = False,
    ):
        self.likelihood, self.f, self.log_weights = held(likelihood), f, log_weights
        self.each, self.ndim = each, f.ndim
        _refuse_data_of_observations(self._first(), f)
        event_shape = self._at_first().event_shape
        super().__init__(f.shape[1:2], event_shape, validate_args=validate_args)

    @constraints.dependent_property
    def support(self) -> Any:
        """That of the likelihood."""
        return self._at_first().support

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws, shape `(*sample_shape, m, ...)`."""
        of_network, of_observations = random.split(key)
        self._check_whole()
        shape = (*sample_shape, *self.batch_shape)
        which = random.categorical(of_network, self.log_weights, shape=shape)
        f = self.f[which, jnp.arange(self.f.shape[1])]
        if not self.each:
            y = Outputs(self.likelihood, len(shape))(f).sample(of_observations)
            return _as_float(y, f.dtype)
        one_of_each = jax.tree.map(
            lambda x: x[which.reshape(-1)] if eqx.is_array(x) else x, self.likelihood
        )
        draw = eqx.filter_vmap(
            lambda likelihood, f, key: Outputs(likelihood, 0)(f).sample(key),
            in_axes=(eqx.if_array(0), 0, 0),
        )
        keys = random.split(of_observations, which.size)
        y = draw(one_of_each, f.reshape(which.size, *f.shape[len(shape) :]), keys)
        return _as_float(y.reshape(*shape, *self.event_shape), f.dtype)

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        """Log densities, of the shape of `value` without event axes."""
        value = jnp.asarray(value)

        def of(observed: Any) -> jax.Array:
            return jnp.asarray(repaired(observed).log_prob(value)).astype(self.f.dtype)

        terms = self._over_networks(of)
        weights = self.log_weights.reshape(-1, *(1,) * (terms.ndim - 1))
        return jax.nn.logsumexp(terms + weights, axis=0)

    @property
    def mean(self) -> jax.Array:
        """Means, shape `(m, ...)`."""
        return self._averaged(self._over_networks(lambda observed: observed.mean))

    @property
    def variance(self) -> jax.Array:
        """Variances, shape `(m, ...)`."""
        means = self._over_networks(lambda observed: observed.mean)
        within = self._over_networks(lambda observed: observed.variance)
        return self._averaged(within + (means - self._averaged(means)) ** 2)

    def _over_networks(self, of: Any) -> jax.Array:
        """A function of the distribution at the values of each network, with `s` in front."""
        self._check_whole()
        axes = eqx.if_array(0) if self.each else None
        call = lambda likelihood, f: of(Outputs(likelihood)(f))  # noqa: E731
        return eqx.filter_vmap(call, in_axes=(axes, 0))(self.likelihood, self.f)

    def _check_whole(self) -> None:
        if self.f.ndim != self.ndim:
            raise ValueError(
                "NetworkMixture: this one came out of jax.vmap with an axis more; ask it for "
                "densities, moments or draws within, and return those"
            )

    def _averaged(self, values: jax.Array) -> Float[Array, "m ..."]:
        return jnp.tensordot(jnp.exp(self.log_weights), values, axes=1)

    def _first(self) -> Any:
        """The likelihood of the first network."""
        if not self.each:
            return self.likelihood
        return jax.tree.map(lambda x: x[0] if eqx.is_array(x) else x, self.likelihood)

    def _at_first(self) -> Any:
        return Outputs(self._first())(self.f[0])


def network_predictive(
    likelihood: Any, f: jax.Array, log_weights: jax.Array, each: bool = False
) -> dist.Distribution:
    """The distribution of a new observation at each point, batch shape `(m,)`.

    A Bernoulli or categorical distribution for classes, else a `NetworkMixture`, whose arguments
    these are.
    """
    mixture = NetworkMixture(likelihood, f, log_weights, each=each)
    observed = mixture._at_first()
    m = f.shape[1]
    if isinstance(observed, dist.BernoulliLogits | dist.BernoulliProbs):
        log_probs = mixture.log_prob(jnp.broadcast_to(jnp.arange(2)[:, None], (2, m)))
        return BernoulliLogits(log_probs[1] - log_probs[0])
    if isinstance(observed, dist.CategoricalLogits | dist.CategoricalProbs):
        classes = observed.probs.shape[-1]
        log_probs = mixture.log_prob(jnp.broadcast_to(jnp.arange(classes)[:, None], (classes, m)))
        return dist.CategoricalLogits(log_probs.T)
    return mixture


def _as_float(y: jax.Array, dtype: Any) -> jax.Array:
    return y.astype(dtype) if jnp.issubdtype(y.dtype, jnp.floating) else y


def _refuse_data_of_observations(likelihood: Any, f: jax.Array) -> None:
    """Whether a likelihood takes values of any number of points, more than it may hold."""
    size = 3 * f.shape[1] + 1
    made: list[Any] = []

    def look(f: jax.Array) -> jax.Array:
        made.append(Outputs(likelihood)(f).batch_shape)
        return f

    try:
        eqx.filter_eval_shape(look, jax.ShapeDtypeStruct((size, *f.shape[2:]), f.dtype))
    except (TypeError, ValueError, AttributeError) as error:
        made, cause = [str(error)], error
    else:
        cause = None
    if made != [(size,)]:
        raise ValueError(
            "predict: the likelihood must be a function from f to a NumPyro distribution, the same "
            f"for all observations, but from values of shape {(size, *f.shape[2:])} it makes "
            f"{made[0]}; does it hold data of each observation? Put those of the new ones into a "
            "likelihood of their own and use it with values(x)"
        ) from cause
