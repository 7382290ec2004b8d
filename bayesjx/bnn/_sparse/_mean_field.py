"""Networks with independent normal weights on active subspaces."""

from __future__ import annotations

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from ..._core import check_key, constrained_field, GradientState, known_field, path_name, trained
from ...likelihoods import Likelihood
from .._arguments import inputs, positive
from .._distribution import AbstractNetworkDistribution
from .._leaves import Leaves
from .._network import (
    batch_weight,
    check_network,
    log_likelihoods,
    parameter_dtype,
    value_at,
)
from .._stochastic import check_applied_once
from ._arguments import one_of
from ._evaluate import by_input, weights_of, with_weights
from ._weight import SparseWeight

ESTIMATORS = ("local", "weights")


class SparseMeanField(AbstractNetworkDistribution):
    """A network whose sparse weights are random; see `sparse_mean_field`.

    Attributes:
        rest: the network with None for means and scales of its random weights; its other arrays,
            as biases, are trained as they are.
        leaves: the means of these weights.
        likelihood: from the function to a distribution of observations, or None.
        estimator: how function values are drawn in training.
        means: of the active weights of each layer, see `SparseWeight`.
        scales: their standard deviations.
        prior_scale: standard deviation of the prior of each active weight, scalar.
    """

    rest: Any
    leaves: Leaves
    likelihood: Any
    estimator: Literal["local", "weights"] = eqx.field(static=True)
    means: tuple[Float[Array, ...], ...]
    scales: tuple[Float[Array, ...], ...] = constrained_field(constraints.positive)
    prior_scale: Float[Array, ""] = known_field()

    @property
    def weights(self) -> list[SparseWeight]:
        """The random weights of each layer."""
        blank = (weight for weight in weights_of(self.rest) if weight.mean is None)
        triples = zip(blank, self.means, self.scales, strict=True)
        return [weight.replaced(mean=mean, scale=scale) for weight, mean, scale in triples]

    def network(self) -> Any:
        """The network with the random weights in its layers."""
        left = iter(self.weights)
        blank = weights_of(self.rest)
        return with_weights(self.rest, [next(left) if w.mean is None else w for w in blank])

    def draw(self, key: jax.Array) -> tuple[jax.Array, ...]:
        keys = jax.random.split(key, len(self.means))
        drawn = (weight.drawn(own) for weight, own in zip(self.weights, keys, strict=True))
        return tuple(weight.mean for weight in drawn)

    def mean_leaves(self) -> tuple[jax.Array, ...]:
        return self.means

    def kl(self) -> Float[Array, ""]:
        """Kullback-Leibler divergence of the active weights from their prior, scalar."""
        each = [weight.divergence(self.prior_scale) for weight in self.weights]
        return jnp.sum(jnp.stack(each))

    def elbo(
        self, x: Any, y: Any, num_data: int | None = None, *, key: jax.Array, kl_weight: Any = 1.0
    ) -> Float[Array, ""]:
        r"""An unbiased estimate of the evidence lower bound, of all data or of a minibatch.

        $\frac{N}{B} \sum_n E_q[\log p(y_n \mid f(x_n))] - \lambda \, \mathrm{KL}(q(w) \| p(w))$
        with the active weights only. A weight $\lambda$ other than 1 is tempering: below 1 a cold
        posterior, narrower than that of Bayes' rule.

        Args:
            x: inputs, shape `(b, ...)`.
            y: observations, shape `(b,)`, or `(b, ...)` of vectors.
            num_data: $N$, of which these are drawn; by default these are all.
            key: PRNG key.
            kl_weight: $\lambda$, a number that is not negative.

        Returns:
            Scalar, for example for `numpyro.factor`.

        Raises:
            ValueError: no key, shapes that disagree, NaN in `x`, `y` outside of the likelihood's
                support, such as labels out of range, fewer data than the batch has.
            TypeError: there is no likelihood, or it does not return a NumPyro distribution.
            RuntimeError: under `jit`, such values.
        """
        check_key(key)
        kl_weight = positive("elbo", "kl_weight", kl_weight, parameter_dtype(self.means), zero=True)
        data = self.data_term(key, x, y, num_data)
        return data - kl_weight.astype(data.dtype) * self.kl().astype(data.dtype)

    def data_term(
        self, key: jax.Array | None, x: Any, y: Any, num_data: int | None, probes: Any = None
    ) -> Float[Array, ""]:
        """The first term of `elbo`; without a key that of mean weights.

        Args:
            key: PRNG key.
            x: inputs.
            y: observations.
            num_data: of which these are drawn.
            probes: for each sparse layer of the network a dense matrix that is added to its
                weights, or None.
        """
        x, guard = inputs("elbo", x, parameter_dtype(self.means))
        weight = batch_weight("elbo", x, num_data)
        f = self._values(key, x, probes)
        return weight * jnp.sum(log_likelihoods(self.likelihood, f[None], y, guard))

    def trained(self, state: GradientState) -> SparseMeanField:
        """The same with the arrays of a state of `ssvi`, made from it, and its active subspace."""
        return trained(self.at(None), state).at(state.natural.indices)

    def at(self, indices: Any) -> SparseMeanField:
        """The same with other indices in its random weights; with None for each if that is None."""
        weights = weights_of(self.rest)
        count = sum(weight.mean is None for weight in weights)
        left = iter([None] * count if indices is None else indices)
        moved = [w.replaced(index=next(left)) if w.mean is None else w for w in weights]
        return eqx.tree_at(lambda q: q.rest, self, with_weights(self.rest, moved))

    def _values(self, key: jax.Array | None, x: jax.Array, probes: Any) -> jax.Array:
        network = self.network()
        if key is None:
            mean_network = by_input(network, probes)(None)
            return jax.vmap(lambda x: value_at("elbo", mean_network, x))(x)
        if self.estimator == "weights":
            key, of_weights = jax.random.split(key)
            network = self.sample(of_weights)
        of_key = by_input(network, probes)

        def of_input(x: jax.Array, key: jax.Array) -> jax.Array:
            noise, own = jax.random.split(key)
            return value_at("elbo", of_key(noise), x, own)

        keys = jax.random.split(key, len(x))
        f = jax.vmap(of_input)(x, keys)
        if self.estimator == "local":
            check_applied_once(of_input, x[0], keys[0], instead="weights")
        return f


def sparse_mean_field(
    network: Any,
    likelihood: Likelihood | None = None,
    *,
    prior_scale: Any = 0.1,
    estimator: Any = "local",
) -> SparseMeanField:
    """A network with independent normal weights in its sparse layers; trained by `ssvi`.

    Args:
        network: callable Equinox module of one input with `SparseLinear` or `SparseConv` layers, as
            `sparsify` makes them, with values of shape `()` or `(p,)`. If it takes a `key`, as with
            dropout, it gets one.
        likelihood: from these values to a NumPyro distribution of observations, such as
            `lambda f: dist.Categorical(logits=f)`; parameters of an Equinox module are trained.
        prior_scale: standard deviation of the prior of each active weight, positive, scalar.
        estimator: how function values are drawn in training: `"local"`, outputs of layers in place
            of their weights, with the smallest variance; of convolutions the marginal distributions
            of the outputs are right and their correlations are left out. Or `"weights"`, one draw
            of all weights for a batch.

    Raises:
        ValueError: no such network, or one without random sparse weights; options out of range.
    """
    check_network("sparse_mean_field", network)
    one_of("estimator", estimator, ESTIMATORS)
    weights = weights_of(network)
    random = [weight for weight in weights if weight.scale is not None]
    if not random:
        raise ValueError(
            "sparse_mean_field: network must have sparse layers with random weights; make it of a "
            f"dense one with bnn.sparsify. Got {type(network).__name__}"
        )
    dtype = parameter_dtype([weight.mean for weight in random])
    prior_scale = positive("sparse_mean_field", "prior_scale", prior_scale, dtype)
    blank = [w if w.scale is None else w.replaced(mean=None, scale=None) for w in weights]
    rest = with_weights(network, blank)
    scales = tuple(weight.scale for weight in random if weight.scale is not None)
    means = tuple(weight.mean for weight in random)
    leaves = _places(network)
    return SparseMeanField(rest, leaves, likelihood, estimator, means, scales, prior_scale)


class _Here:
    """Stands in the place of a leaf."""


def _places(network: Any) -> Leaves:
    """The leaves with the means of random weights."""
    here = _Here()
    weights = weights_of(network)
    marked = [w if w.scale is None else w.replaced(mean=here, scale=None) for w in weights]
    tree = with_weights(network, marked)
    paths = jax.tree_util.tree_flatten_with_path(tree, is_leaf=lambda x: x is None)[0]
    found = [
        (i, path_name(path, "network")) for i, (path, leaf) in enumerate(paths) if leaf is here
    ]
    places, names = zip(*found, strict=True)
    return Leaves(places, names)
