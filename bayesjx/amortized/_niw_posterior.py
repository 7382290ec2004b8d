"""The posterior of a network that was adapted to a task by NIW-Meta."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from .._core import check_key, compiled, whole_number
from ..distributions import BernoulliLogits, StructuredNormal
from ..likelihoods import AbstractPosterior
from ._niw_checks import checked_inputs
from ._niw_episode import TaskPosterior

CLASSES = (dist.CategoricalLogits, dist.CategoricalProbs)
COINS = (dist.BernoulliLogits, dist.BernoulliProbs)


class AdaptedNetwork(AbstractPosterior):
    r"""Posterior of a task's network: a Gaussian over its random weights; see `NIWMeta.adapt`.

    Predictions average the likelihood's distributions over draws of the weights. Values of the
    function have shape `(m,)`, or `(m, p)` of networks with `p` outputs.

    Attributes:
        meta: the `NIWMeta`.
        gaussian: over the `d` random weights; `weights` is the NumPyro distribution.
        draws: those that predictions are averaged over, shape `(s, d)`.
        bound: evidence lower bound of the task, an estimate by these draws, scalar.
    """

    meta: Any
    gaussian: TaskPosterior
    draws: Float[Array, "s d"]
    bound: Float[Array, ""]

    @property
    def weights(self) -> StructuredNormal:
        """Distribution of the random weights, flattened and joined in their order."""
        return self.gaussian.distribution()

    def network(self) -> Any:
        """The network with the mean weights."""
        return self.meta.network(self.gaussian.loc)

    def values(self, x: Any) -> Float[Array, "s m ..."]:
        """Values of the network with each draw of the weights, shape `(s, m)` or `(s, m, p)`.

        Args:
            x: inputs, shape `(m, ...)`.

        Raises:
            ValueError: inputs that the network does not take, or that are empty or NaN.
        """
        return _values(self.meta, self.draws, checked_inputs("values", self.meta, x))

    def moments(self, x: Any) -> tuple[Float[Array, "m ..."], Float[Array, "m ..."]]:
        """Mean and variance of the function at each point, shape `(m,)` or `(m, p)` both."""
        f = self.values(x)
        return jnp.mean(f, axis=0), jnp.var(f, axis=0)

    def mean(self, x: Any) -> Float[Array, "m ..."]:
        """Means of the function, shape `(m,)` or `(m, p)`."""
        return self.moments(x)[0]

    def covariance(self, x: Any) -> Float[Array, ...]:
        """Covariances of the function between points, `(m, m)`, or `(p, m, m)` of each output."""
        f = self.values(x)
        off = jnp.moveaxis(f - jnp.mean(f, axis=0), 0, -1)
        off = off if off.ndim == 2 else jnp.moveaxis(off, 1, 0)
        return off @ off.mT / len(f)

    def predict(self, x: Any) -> dist.Distribution:
        """Distribution of a new observation at each point, batch shape `(m,)`.

        Class probabilities, or densities, are averaged over draws of the weights: a Bernoulli or
        categorical distribution for classes, else a `MixtureSameFamily`.

        Args:
            x: inputs, shape `(m, ...)`.

        Raises:
            ValueError: see `values`; the likelihood holds data of each observation.
        """
        f = jnp.moveaxis(self.values(x), 0, 1)
        return _mixture(self.meta.likelihood, f)

    def sample(
        self, key: jax.Array, x: Any, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, ...]:
        """Joint draws of the function, of new weights: `(*sample_shape, m)` or with `p` last."""
        check_key(key)
        if not isinstance(sample_shape, tuple):
            raise ValueError(f"sample: sample_shape must be a tuple, got {sample_shape!r}")
        for size in sample_shape:
            whole_number("sample: each size of sample_shape", size, 0)
        x = checked_inputs("sample", self.meta, x)
        drawn = self.gaussian.sample(key, math.prod(sample_shape))
        f = _values(self.meta, drawn, x)
        return f.reshape(*sample_shape, *f.shape[1:])

    def log_evidence(self) -> Float[Array, ""]:
        """Lower bound of the log evidence of the support set, but for the task's share of that of
        all tasks."""
        return self.bound


@compiled
def _values(meta: Any, draws: jax.Array, x: jax.Array) -> jax.Array:
    return jax.vmap(lambda weights: jax.vmap(meta.network(weights))(x))(draws)


def _mixture(likelihood: Any, f: Float[Array, "m s ..."]) -> dist.Distribution:
    """The likelihood's distributions averaged over the second axis of the function's values."""
    m, s = f.shape[:2]
    try:
        observed = likelihood(f)
    except (TypeError, ValueError) as error:
        raise ValueError(
            "predict: the likelihood must be a function of f alone, the same for all "
            f"observations; it fails at values of shape {f.shape}: {error}"
        ) from error
    observed = observed.to_event(max(len(observed.batch_shape) - 2, 0))
    if observed.batch_shape != (m, s):
        raise ValueError(
            "predict: the likelihood must be a function of f alone, the same for all observations, "
            f"but of values {f.shape} it makes distributions of shape {observed.batch_shape}"
        )
    if isinstance(observed, CLASSES):
        return dist.CategoricalLogits(_averaged(observed, observed.probs.shape[-1], f))
    if isinstance(observed, COINS):
        log_probs = _averaged(observed, 2, f)
        return BernoulliLogits(log_probs[:, 1] - log_probs[:, 0])
    weights = dist.CategoricalLogits(jnp.zeros((m, s), f.dtype))
    return dist.MixtureSameFamily(weights, observed)


def _averaged(observed: Any, classes: int, f: jax.Array) -> Float[Array, "m c"]:
    """Logarithms of mean probabilities of the classes."""
    each = [jnp.asarray(observed.log_prob(c)).astype(f.dtype) for c in range(classes)]
    return jax.nn.log_softmax(jax.nn.logsumexp(jnp.stack(each, axis=-1), axis=1))
