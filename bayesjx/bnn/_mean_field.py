"""Mean-field variational inference of the weights of any network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._core import (
    Algorithm,
    check_key,
    constrained_field,
    gradient_algorithm,
    GradientState,
    known_field,
    trained,
    whole_number,
)
from ..distributions import repaired
from ..likelihoods import Likelihood
from ._arguments import check_optimizer, inputs, positive
from ._distribution import AbstractNetworkDistribution
from ._leaves import Leaves, random_leaves, Where
from ._network import (
    batch_weight,
    check_network,
    log_likelihoods,
    parameter_dtype,
    value_at,
)
from ._priors import (
    AbstractJointPrior,
    check_prior,
    leaf_priors,
    normal_parameters,
    total,
    WeightPrior,
)
from ._stochastic import by_input, check_applied_once, eligible_layers, Estimator, other_owners


class MeanField(AbstractNetworkDistribution):
    """A network whose leaves are random, with independent normal distributions; see `mean_field`.

    Attributes:
        rest: the network with None in the places of its random leaves; its other arrays are
            trained as they are.
        leaves: which leaves are random.
        likelihood: from the function to a distribution of observations, or None.
        estimator: how function values are drawn.
        means: of the random leaves, in their order.
        scales: their standard deviations.
        prior: of them.
    """

    rest: Any
    leaves: Leaves
    likelihood: Any
    estimator: Estimator = eqx.field(static=True)
    means: tuple[Float[Array, ...], ...]
    scales: tuple[Float[Array, ...], ...] = constrained_field(constraints.positive)
    prior: Any = known_field()

    def draw(self, key: jax.Array) -> tuple[jax.Array, ...]:
        keys = jax.random.split(key, len(self.means))
        return tuple(
            mean + scale * jax.random.normal(own, mean.shape, mean.dtype)
            for mean, scale, own in zip(self.means, self.scales, keys, strict=True)
        )

    def mean_leaves(self) -> tuple[jax.Array, ...]:
        return self.means

    def values(self, key: jax.Array, x: Any) -> Float[Array, " n *p"]:
        """Values of random networks at each input, drawn by the estimator.

        Those of one input are values of a draw of the network; those of several inputs are not of
        one draw, but with `estimator="weights"`.

        Args:
            key: PRNG key.
            x: inputs, one a row, shape `(n, ...)`.

        Returns:
            Shape `(n,)` or `(n, p)`.

        Raises:
            ValueError: no key; inputs that the network does not take, or that are empty or NaN.
        """
        check_key(key)
        x, guard = inputs("values", x, parameter_dtype(self.means))
        f = self._values(key, x)
        return f * guard.astype(f.dtype)

    def kl(self, prior: WeightPrior | None = None, *, key: Any = None) -> Float[Array, ""]:
        """Kullback-Leibler divergence of the random leaves from their prior, scalar.

        In closed form where a prior is normal; the expectation of others is taken at one draw,
        whose derivatives are unbiased too.

        Args:
            prior: another one than that of this distribution, see `mean_field`.
            key: for priors that are not normal.

        Raises:
            ValueError: a prior that is not normal without a key, or that does not fit.
        """
        prior = self.prior if prior is None else prior
        if isinstance(prior, AbstractJointPrior) and prior.by_leaf() is None:
            return self._kl_of_joint(prior, key)
        priors = leaf_priors("kl", prior, self.leaves, self.means)
        drawn = None
        terms = []
        for i, (p, mean, scale) in enumerate(zip(priors, self.means, self.scales, strict=True)):
            normal = normal_parameters(p)
            if normal is not None:
                loc, width = normal
                ratio = scale / width
                squares = ratio**2 + ((mean - loc) / width) ** 2
                terms.append(jnp.sum(0.5 * (squares - 1) - jnp.log(ratio)))
                continue
            if key is None:
                raise ValueError(
                    f"kl: the prior of {self.leaves.names[i]} is not normal, so that its "
                    "expectation is taken at a draw, which needs a key"
                )
            drawn = self.draw(key) if drawn is None else drawn
            terms.append(-_entropy(scale) - repaired(p).log_prob(drawn[i]))
        return total(terms, self.means)

    def elbo(
        self,
        x: Any,
        y: Any,
        num_data: int | None = None,
        *,
        key: jax.Array,
        kl_weight: Any = 1.0,
        num_samples: int = 1,
    ) -> Float[Array, ""]:
        r"""An unbiased estimate of the evidence lower bound, of all data or of a minibatch.

        $\frac{N}{B} \sum_n E_q[\log p(y_n \mid f(x_n))] - \lambda \, \mathrm{KL}(q(w) \| p(w))$.
        With $\lambda = 1$ it bounds the evidence. Any other weight is tempering: below 1 a cold
        posterior, narrower than that of Bayes' rule.

        Args:
            x: inputs, shape `(b, ...)`.
            y: observations, shape `(b,)`, or `(b, ...)` of vectors.
            num_data: $N$, of which these are drawn; by default these are all.
            key: PRNG key.
            kl_weight: $\lambda$, a number that is not negative.
            num_samples: draws of each function value that are averaged.

        Returns:
            Scalar.

        Raises:
            ValueError: no key, shapes that disagree, NaN in `x`, `y` outside of the likelihood's
                support, fewer data than the batch has, options out of range.
            TypeError: there is no likelihood, or it does not return a NumPyro distribution.
            RuntimeError: under `jit`, such values.

        References:
            Blundell, Cornebise, Kavukcuoglu and Wierstra (2015), "Weight uncertainty in neural
            networks", ICML, equation 2.
        """
        check_key(key)
        x, guard = inputs("elbo", x, parameter_dtype(self.means))
        number = whole_number("elbo: num_samples", num_samples)
        data_weight = batch_weight("elbo", x, num_data)
        for_values, for_kl = jax.random.split(key)
        keys = jax.random.split(for_values, number)
        f = jax.vmap(lambda key: self._values(key, x))(keys)
        terms = log_likelihoods(self.likelihood, f, y, guard)
        kl_weight = positive("elbo", "kl_weight", kl_weight, f.dtype, zero=True)
        data = data_weight * jnp.sum(terms) / number
        return data - kl_weight * self.kl(key=for_kl).astype(f.dtype)

    def trained(self, state: GradientState, *, average: bool = False) -> MeanField:
        """The same with the arrays of a state of `mean_field_vi`, made from it.

        Args:
            state: of its steps.
            average: whether to take the Polyak average.
        """
        return trained(self, state, average=average)

    def _kl_of_joint(self, prior: AbstractJointPrior, key: Any) -> jax.Array:
        """An estimate at one draw, where the prior's leaves depend on each other."""
        prior.check_fits("kl", self.leaves, self.means)
        if key is None:
            raise ValueError(
                f"kl: the expectation of a {type(prior).__name__} is taken at a draw, which needs "
                "a key"
            )
        terms = [-_entropy(scale) for scale in self.scales]
        return total([*terms, -prior.log_prob(self.draw(key))], self.means)

    def _values(self, key: jax.Array, x: jax.Array) -> jax.Array:
        shared, rows = jax.random.split(key)
        network = self.mean_network()
        scales = self.leaves.only(network, self.scales)
        of_key = by_input(network, scales, self.estimator, shared)

        def of_input(x: jax.Array, key: jax.Array) -> jax.Array:
            noise, own = jax.random.split(key)
            return value_at("values", of_key(noise), x, own)

        keys = jax.random.split(rows, len(x))
        f = jax.vmap(of_input)(x, keys)
        if self.estimator == "local":
            check_applied_once(of_input, x[0], keys[0])
        return f


def mean_field(
    network: Any,
    likelihood: Likelihood | None = None,
    *,
    prior: WeightPrior = 1.0,
    where: Where = None,
    init_scale: Any = 0.01,
    estimator: Estimator = "flipout",
) -> MeanField:
    r"""A network whose leaves have independent normal distributions: mean-field inference.

    It is trained by `mean_field_vi`; before that its means are the network's own values.

    Args:
        network: a callable Equinox module of one input, an array of any shape, with values of shape
            `()` or `(p,)`; no layer has a state. If it takes a `key`, as with dropout, it gets one.
        likelihood: from these values to a NumPyro distribution of observations, such as
            `likelihoods.Gaussian(0.1)`, whose noise is then trained too, or
            `lambda f: dist.Categorical(logits=f)`. None if only networks are drawn.
        prior: of the random leaves: the standard deviation of a normal distribution; a distribution
            that is broadcast to each leaf; a function of a leaf's name and shape that returns one,
            such as `FanIn()`; a mapping from names, such as `layers[0].weight`, to them; or a prior
            of the whole network, such as what `normal_prior` returns.
        where: which leaves are random: a function from the network to a leaf, a node or a list of
            them, as in `equinox.tree_at`, or a tree of booleans like the network. By default all
            floating-point arrays. The others have no distribution, and are trained as they are.
        init_scale: standard deviation of all random leaves before training.
        estimator: how function values are drawn in training. `"weights"`: one draw of all random
            leaves for a batch. `"flipout"`: linear and convolution layers of `equinox.nn` get
            weights with other signs for each input, which are less correlated. `"local"`: the
            outputs of these layers are drawn in place of their weights, with the smallest
            variance. That is exact for linear layers that an input passes once, as is checked; of
            convolutions the marginal distributions of the outputs are right and their correlations
            are left out, so that the bound is another one. The random leaves of other layers are
            drawn once for a batch.

    Raises:
        ValueError: no such network, leaves, prior or option; no random leaf, or for `"flipout"` and
            `"local"` none of a layer that they know.

    References:
        Blundell, Cornebise, Kavukcuoglu and Wierstra (2015), "Weight uncertainty in neural
        networks", ICML; Wen, Vicol, Ba, Tran and Grosse (2018), "Flipout: efficient
        pseudo-independent weight perturbations on mini-batches", ICLR; Kingma, Salimans and
        Welling (2015), "Variational dropout and the local reparameterization trick", NeurIPS.
    """
    check_network("mean_field", network)
    leaves = random_leaves("mean_field", network, where)
    means = leaves.of(network)
    check_prior("mean_field", prior, leaves, means)
    scales = tuple(
        jnp.full(mean.shape, positive("mean_field", "init_scale", init_scale, mean.dtype))
        for mean in means
    )
    _check_estimator(estimator, network, leaves.only(network, scales))
    rest = leaves.put(network, [None] * len(means))
    return MeanField(rest, leaves, likelihood, estimator, means, scales, prior)


def mean_field_vi(
    distribution: MeanField,
    optimizer: optax.GradientTransformation,
    *,
    num_data: int,
    kl_weight: float | Callable[[jax.Array], Any] = 1.0,
    num_samples: int = 1,
    average: float | None = None,
    trainable: Callable[[Any], Any] | None = None,
) -> Algorithm:
    """Stochastic gradient ascent of the evidence lower bound of a network, for `bayesjx.fit`.

    Args:
        distribution: where to start.
        optimizer: Optax gradient transformation, such as `optax.adam(1e-3)`. Standard deviations
            move on a logarithmic scale.
        num_data: number of all data, of which minibatches are drawn.
        kl_weight: of the divergence from the prior, see `MeanField.elbo`; or a schedule of Optax,
            such as a warm-up.
        num_samples: draws of each function value that are averaged.
        average: decay in (0, 1) of a running (Polyak) average of the parameters; None for none.
        trainable: chooses what is trained, `trainable(distribution)` a leaf or a list of leaves; by
            default means and standard deviations of the random leaves, all other floating-point
            arrays of the network, and those of the likelihood.

    Returns:
        `init() -> GradientState`, `step(key, state, x, y) -> (GradientState, GradientInfo)` and a
        diagnosis. `distribution.trained(state)` is the result.

    Raises:
        ValueError: options out of range, nothing to train; when traced, what `elbo` raises.
    """
    if not isinstance(distribution, MeanField):
        raise ValueError(
            "mean_field_vi: distribution must be what mean_field(network, likelihood) returns, got "
            f"{type(distribution).__name__}"
        )
    check_optimizer("mean_field_vi", optimizer)
    num_data = whole_number("mean_field_vi: num_data", num_data)
    num_samples = whole_number("mean_field_vi: num_samples", num_samples)
    scheduled, weight = callable(kl_weight), kl_weight
    if not scheduled:
        dtype = parameter_dtype(distribution.means)
        weight = positive("mean_field_vi", "kl_weight", kl_weight, dtype, zero=True)
    return gradient_algorithm(
        Partial(_scheduled_loss if scheduled else _bound, num_data, num_samples, weight),
        distribution,
        optimizer,
        trainable=trainable,
        natural=jnp.zeros((), jnp.int32) if scheduled else None,
        average=average,
        maximise=not scheduled,
        diagnose=_diagnosis(distribution),
    )


def _bound(
    num_data: int, num_samples: int, kl_weight: Any, key: jax.Array, q: MeanField, x: Any, y: Any
) -> jax.Array:
    return q.elbo(x, y, num_data, key=key, kl_weight=kl_weight, num_samples=num_samples)


def _scheduled_loss(
    num_data: int,
    num_samples: int,
    schedule: Callable[[jax.Array], Any],
    key: jax.Array,
    q: MeanField,
    count: jax.Array,
    x: Any,
    y: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The negative bound, the bound, and the number of steps after this one."""
    bound = _bound(num_data, num_samples, schedule(count), key, q, x, y)
    return -bound, bound, count + 1


def _entropy(scale: jax.Array) -> jax.Array:
    """That of independent normal distributions, scalar."""
    return jnp.sum(jnp.log(scale)) + 0.5 * scale.size * (1 + np.log(2 * np.pi))


def _check_estimator(estimator: Any, network: Any, scales: Any) -> None:
    if estimator not in ("weights", "flipout", "local"):
        raise ValueError(
            f"mean_field: estimator must be 'weights', 'flipout' or 'local', got {estimator!r:.80}"
        )
    if estimator != "weights" and not eligible_layers(network, scales):
        raise ValueError(
            f"mean_field: estimator={estimator!r} is for eqx.nn.Linear, Conv and ConvTranspose, "
            f"but the random leaves belong to {', '.join(other_owners(network, scales))}: use "
            "estimator='weights'"
        )


def _diagnosis(start: MeanField) -> Callable[..., str]:
    def diagnose(key: jax.Array, state: GradientState, x: Any, y: Any) -> str:
        q = start.trained(state)
        for name, mean, scale in zip(q.leaves.names, q.means, q.scales, strict=True):
            if not bool(jnp.all(jnp.isfinite(mean) & (scale > 0) & jnp.isfinite(scale))):
                return f"the distribution of {name} is not finite; take shorter steps"
        x, guard = inputs("elbo", x, parameter_dtype(q.means))
        f = q._values(key, x)[None]
        if not bool(jnp.all(jnp.isfinite(f))):
            return "values of the network are not finite at this draw; take shorter steps"
        bad = ~jnp.isfinite(log_likelihoods(q.likelihood, f, y, guard)[0])
        if bool(jnp.any(bad)):
            return (
                f"the log density of {int(jnp.sum(bad))} of {len(x)} observations is not finite, "
                f"first of number {int(jnp.argmax(bad))} of the batch"
            )
        return "the bound is finite at this draw; its gradient or the update is not"

    return diagnose
