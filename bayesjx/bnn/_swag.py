"""SWAG: a normal distribution of weights from the path of stochastic gradient descent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from .._core import (
    Algorithm,
    gradient_algorithm,
    GradientInfo,
    GradientState,
    known_field,
    Step,
    trained,
    whole_number,
)
from ..likelihoods import Likelihood
from ._arguments import check_optimizer
from ._distribution import AbstractNetworkDistribution
from ._leaves import Leaves, random_leaves, Where
from ._network import check_network, log_joint_of_leaves
from ._priors import check_prior, WeightPrior


class SWAGState(NamedTuple):
    """State of `swag_sgd`.

    Attributes:
        gradient: of the gradient steps.
        count: number of steps so far, integer.
        collected: number of points that the moments are of, integer.
        mean: their mean, of all that is trained.
        squares: sum of squared deviations from it, of each random leaf.
        deviations: of the last points from the mean at their time, shape `(rank, ...)` each.
    """

    gradient: GradientState
    count: Int[Array, ""]
    collected: Int[Array, ""]
    mean: Any
    squares: tuple[jax.Array, ...]
    deviations: tuple[jax.Array, ...]


class SWAG(AbstractNetworkDistribution):
    r"""A network with a normal distribution of its random leaves; see `swag`.

    $w \sim N(\bar w, \frac12 \Sigma_{\text{diag}} + \frac{1}{2 (k - 1)} D^\top D)$.

    Attributes:
        rest: the network with None in the places of its random leaves.
        leaves: which leaves are random.
        likelihood: from the function to a distribution of observations.
        collected: number of points.
        means: of the random leaves, in their order, $\bar w$.
        variances: diagonal of the covariance of the points, of each leaf.
        deviations: rows $D$, the last `k` points less the mean at their time, `(rank, ...)` each.
        prior: of the random leaves, or None.
    """

    rest: Any
    leaves: Leaves
    likelihood: Any
    collected: Int[Array, ""]
    means: tuple[Float[Array, ...], ...]
    variances: tuple[Float[Array, ...], ...] = known_field()
    deviations: tuple[Float[Array, "rank ..."], ...] = known_field()
    prior: Any = known_field()

    def draw(self, key: jax.Array) -> tuple[jax.Array, ...]:
        rank = len(self.deviations[0])
        low, *keys = jax.random.split(key, 1 + len(self.means))
        used = jnp.minimum(self.collected, rank)
        dtype = jnp.result_type(*[mean.dtype for mean in self.means])
        common = jax.random.normal(low, (rank,), dtype)
        common = common / jnp.sqrt(2 * jnp.maximum(used - 1, 1).astype(dtype))
        return tuple(
            mean
            + jnp.sqrt(variance / 2) * jax.random.normal(own, mean.shape, mean.dtype)
            + jnp.tensordot(common.astype(mean.dtype), rows, axes=1)
            for mean, variance, rows, own in zip(
                self.means, self.variances, self.deviations, keys, strict=True
            )
        )

    def mean_leaves(self) -> tuple[jax.Array, ...]:
        return self.means

    def trained(self, state: SWAGState) -> SWAG:
        """The distribution of a state of `swag_sgd`, made from this.

        What is trained and not random has its mean over the points, too.

        Args:
            state: of its steps.

        Raises:
            ValueError: fewer than two points were collected, as far as is known.
        """
        number = state.collected
        if not isinstance(number, jax.core.Tracer) and np.any(np.asarray(number) < 2):
            raise ValueError(
                f"trained: the moments of SWAG need at least 2 points, and {number} were "
                "collected: make more steps than start, or collect every few of them"
            )
        mean = trained(self, state.gradient._replace(params=state.mean))
        count = jnp.maximum(number, 1)
        variances = tuple(squares / count.astype(squares.dtype) for squares in state.squares)
        return SWAG(
            mean.rest,
            self.leaves,
            mean.likelihood,
            number,
            mean.means,
            variances,
            state.deviations,
            self.prior,
        )


def swag(
    network: Any,
    likelihood: Likelihood,
    *,
    prior: WeightPrior | None = None,
    where: Where = None,
    rank: int = 20,
) -> SWAG:
    """Stochastic weight averaging with a normal distribution: low rank plus diagonal.

    `swag_sgd` trains the network and collects the moments of the points that it passes.

    Args:
        network: a callable Equinox module of one input, best one that is trained already.
        likelihood: from the function to a NumPyro distribution of observations.
        prior: of the random leaves, see `mean_field`; None to maximise the likelihood alone.
        where: which leaves are random, see `mean_field`.
        rank: how many of the last points the low-rank part is of, at least 2.

    Raises:
        ValueError: no such network, leaves, prior or rank.

    References:
        Maddox, Garipov, Izmailov, Vetrov and Wilson (2019), "A simple baseline for Bayesian
        uncertainty in deep learning", NeurIPS, section 3 and algorithm 1. The diagonal is summed as
        squared deviations, as the difference of mean squares has no digits in single precision.
    """
    check_network("swag", network)
    leaves = random_leaves("swag", network, where)
    means = leaves.of(network)
    if prior is not None:
        check_prior("swag", prior, leaves, means)
    rank = whole_number("swag: rank", rank, 2)
    variances = tuple(jnp.zeros_like(mean) for mean in means)
    deviations = tuple(jnp.zeros((rank, *mean.shape), mean.dtype) for mean in means)
    rest, none = leaves.put(network, [None] * len(means)), jnp.zeros((), jnp.int32)
    return SWAG(rest, leaves, likelihood, none, means, variances, deviations, prior)


def swag_sgd(
    distribution: SWAG,
    optimizer: optax.GradientTransformation,
    *,
    num_data: int,
    start: int = 0,
    every: int = 1,
    trainable: Callable[[Any], Any] | None = None,
) -> Algorithm:
    """Gradient steps that collect the moments of the weights on their way, for `bayesjx.fit`.

    Args:
        distribution: where to start.
        optimizer: Optax gradient transformation whose steps do not die out, such as
            `optax.sgd(1e-5, momentum=0.9)`: the objective is a sum over all data.
        num_data: number of all data, of which minibatches are drawn.
        start: number of steps before the first point.
        every: number of steps from a point to the next, such as those of an epoch.
        trainable: chooses what is trained, `trainable(distribution)` a leaf or a list of leaves,
            the random ones, `means`, among them; by default all floating-point arrays.

    Returns:
        `init() -> SWAGState`, `step(key, state, x, y) -> (SWAGState, GradientInfo)`.
        `distribution.trained(state)` is the result.

    Raises:
        ValueError: options out of range, a random leaf that is not trained; when traced, what
            `log_joint` raises.
    """
    if not isinstance(distribution, SWAG):
        raise ValueError(
            "swag_sgd: distribution must be what swag(network, likelihood) returns, got "
            f"{type(distribution).__name__}"
        )
    check_optimizer("swag_sgd", optimizer)
    num_data = whole_number("swag_sgd: num_data", num_data)
    start = whole_number("swag_sgd: start", start, 0)
    every = whole_number("swag_sgd: every", every)
    loss = Partial(_loss, num_data)
    inner = gradient_algorithm(loss, distribution, optimizer, trainable=trainable, maximise=True)

    def init() -> SWAGState:
        gradient = inner.init()
        for name, leaf in zip(distribution.leaves.names, gradient.params.means, strict=True):
            if leaf is None:
                raise ValueError(f"swag_sgd: {name} is random, but trainable leaves it out")
        none = jnp.zeros((), jnp.int32)
        zeros = tuple(jnp.zeros_like(mean) for mean in distribution.means)
        rows = tuple(jnp.zeros_like(row) for row in distribution.deviations)
        return SWAGState(gradient, none, none, gradient.params, zeros, rows)

    function, parts = inner.step.function, inner.step.parts  # ty: ignore[missing-attribute]
    return Algorithm(init, Step(_step, function, parts, start, every))


def _loss(num_data: int, key: jax.Array, swag: SWAG, x: Any, y: Any) -> jax.Array:
    return log_joint_of_leaves(
        swag.mean_network(), swag.likelihood, x, y, num_data, swag.prior, swag.leaves, key
    )


def _step(
    gradient_step: Callable[..., Any],
    parts: Any,
    start: int,
    every: int,
    key: jax.Array,
    state: SWAGState,
    *batch: Any,
) -> tuple[SWAGState, GradientInfo]:
    gradient, info = gradient_step(*parts, key, state.gradient, *batch)
    count = state.count + 1
    state = state._replace(gradient=gradient, count=count)
    due = (count > start) & ((count - start) % every == 0)
    return jax.lax.cond(due, _collected, lambda state: state, state), info


def _collected(state: SWAGState) -> SWAGState:
    """The state with the moments of one point more (Welford's recursion)."""
    number = state.collected + 1
    point = state.gradient.params
    mean = jax.tree.map(lambda m, p: m + (p - m) / number.astype(m.dtype), state.mean, point)
    mean = jax.tree.map(lambda m, p: jnp.where(number == 1, p, m), mean, point)
    triples = zip(point.means, state.mean.means, mean.means, strict=True)
    products = [(p - new) * jnp.where(number == 1, 0, p - old) for p, old, new in triples]
    squares = tuple(s + product for s, product in zip(state.squares, products, strict=True))
    deviations = tuple(
        rows.at[state.collected % len(rows)].set(p - m)
        for rows, p, m in zip(state.deviations, point.means, mean.means, strict=True)
    )
    return state._replace(collected=number, mean=mean, squares=squares, deviations=deviations)
