"""Turbo variational inference of networks: weights that are zero in runs."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.tree_util import Partial
from jaxtyping import Array, Float, Int

from .._core import Algorithm, gradient_algorithm, GradientState, whole_number
from ._arguments import check_optimizer, positive
from ._mean_field import MeanField
from ._network import parameter_dtype
from ._spike import spike_schedule, SpikeSlabPrecision
from ._support import LARGEST, MarkovSupport

Axis = Literal["inputs", "outputs", "both"]
ROUNDS = 3  # of messages between the chains along two axes
UPDATES = 160  # of precisions and indicators in all, unless told


class TurboState(NamedTuple):
    """What `turbo_mean_field_vi` holds beside the normal distributions of the weights.

    Attributes:
        count: steps so far, scalar.
        inclusion_prob: probability that each weight is not zero, of each random leaf.
        precision: mean precision of each weight's prior, of each random leaf.
    """

    count: Int[Array, ""]
    inclusion_prob: tuple[Float[Array, ...], ...]
    precision: tuple[Float[Array, ...], ...]


def turbo_mean_field_vi(
    distribution: MeanField,
    optimizer: optax.GradientTransformation,
    *,
    num_data: int,
    support: MarkovSupport,
    num_steps: int,
    axis: Axis = "inputs",
    update_every: int | None = None,
    precision: SpikeSlabPrecision | None = None,
    kl_weight: float = 1.0,
    num_samples: int = 1,
) -> Algorithm:
    r"""Turbo-VBI of a network, for `bayesjx.fit`: weights whose non-zeros come in runs.

    The normal distributions of the weights follow the gradient of $E_q[\log p(y \mid f)] -
    \mathrm{KL}(q \| N(0, 1 / \langle\rho\rangle))$. Every few steps the other module takes a turn:
    the mean precisions and the indicators of all weights, given $E[w^2]$ and messages along the
    chains, on the schedule of `turbo_vbi`. Start from a trained network. Precisions are of weights
    times the square root of their number of inputs, so that one prior serves layers of any width;
    the prior of `distribution` itself is not used.

    `distribution.trained(state)` has the weights, `state.natural` the `TurboState`; `pruned` makes
    the network of weights that are likelier not to be zero, and `compact` a smaller one of that.

    Args:
        distribution: made by `mean_field`, of the leaves that are to be sparse.
        optimizer: Optax gradient transformation.
        num_data: number of all data, of which minibatches are drawn.
        support: prior of the indicators along each chain.
        num_steps: of the whole schedule; further steps stay at its end.
        axis: along which axis of a weight matrix chains run: over a unit's `"inputs"`, so that each
            unit reads runs of inputs; over the `"outputs"`, so that each input is read by runs of
            units; or `"both"`, a grid, on which messages are approximate. Vectors are one chain.
        update_every: steps between turns of the other module, by default a 160th of all.
        precision: gamma priors of the precisions.
        kl_weight: of the divergence, see `MeanField.elbo`.
        num_samples: draws of each function value that are averaged.

    Returns:
        `init() -> GradientState`, `step(key, state, x, y) -> (GradientState, GradientInfo)`.

    Raises:
        ValueError: options out of range or of another kind.

    References:
        Xia, Tsang and Lau (2023), "Structured Bayesian compression for deep neural networks based
        on the turbo-VBI approach", IEEE Transactions on Signal Processing 71, algorithm 2.
    """
    owner = "turbo_mean_field_vi"
    if not isinstance(distribution, MeanField):
        raise ValueError(
            f"{owner}: distribution must be what mean_field(network, likelihood) returns, got "
            f"{type(distribution).__name__}"
        )
    if not isinstance(support, MarkovSupport):
        raise ValueError(f"{owner}: support must be a MarkovSupport, got {support!r:.80}")
    if not isinstance(precision, SpikeSlabPrecision | None):
        raise ValueError(f"{owner}: precision must be a SpikeSlabPrecision, got {precision!r:.80}")
    if axis not in ("inputs", "outputs", "both"):
        raise ValueError(f"{owner}: axis must be 'inputs', 'outputs' or 'both', got {axis!r:.80}")
    check_optimizer(owner, optimizer)
    total = whole_number(f"{owner}: num_steps", num_steps, 4)
    every = max(total // UPDATES, 1) if update_every is None else update_every
    dtype = parameter_dtype(distribution.means)
    loss = Partial(
        _loss,
        _Options(
            whole_number(f"{owner}: num_data", num_data),
            whole_number(f"{owner}: num_samples", num_samples),
            total,
            whole_number(f"{owner}: update_every", every),
            axis,
        ),
        support,
        SpikeSlabPrecision() if precision is None else precision,
        positive(owner, "kl_weight", kl_weight, dtype, zero=True),
    )
    ones = tuple(jnp.ones_like(mean) for mean in distribution.means)
    units = tuple(one * fan_in(one.shape) for one in ones)
    natural = TurboState(jnp.zeros((), jnp.int32), ones, units)
    return gradient_algorithm(loss, distribution, optimizer, natural=natural)


def pruned(distribution: MeanField, state: GradientState, *, threshold: float = 0.5) -> Any:
    """The network of posterior means, with zeros where weights are likely to be zero.

    Args:
        distribution: what `turbo_mean_field_vi` was given.
        state: of its steps.
        threshold: inclusion probability up to which a weight is zero, in [0, 1).

    Raises:
        ValueError: another state, or a threshold out of range.
    """
    if not isinstance(getattr(state, "natural", None), TurboState):
        raise ValueError("pruned: state must be one of turbo_mean_field_vi's")
    if isinstance(threshold, bool) or not 0 <= threshold < 1:
        raise ValueError(f"pruned: threshold must be in [0, 1), got {threshold!r:.80}")
    q = distribution.trained(state)
    pairs = zip(q.means, state.natural.inclusion_prob, strict=True)
    values = tuple(jnp.where(prob > threshold, mean, 0) for mean, prob in pairs)
    return q.leaves.put(q.mean_network(), values)


class _Options(NamedTuple):
    num_data: int
    num_samples: int
    num_steps: int
    update_every: int
    axis: Axis

    def __hash__(self) -> int:
        return hash(tuple(self))


def fan_in(shape: tuple[int, ...]) -> int:
    """Number of inputs of each unit of a layer whose weights have that shape."""
    return max(math.prod(shape[1:]), 1)


def _loss(
    options: _Options,
    support: MarkovSupport,
    prior: SpikeSlabPrecision,
    kl_weight: jax.Array,
    key: jax.Array,
    q: MeanField,
    state: TurboState,
    x: Any,
    y: Any,
) -> tuple[jax.Array, jax.Array, TurboState]:
    fixed = jax.lax.stop_gradient((q.means, q.scales))
    turn = state.count % options.update_every == 0
    state = jax.lax.cond(
        turn, lambda: _updated(options, support, prior, state, *fixed), lambda: state
    )
    data = q.elbo(x, y, options.num_data, key=key, kl_weight=0.0, num_samples=options.num_samples)
    terms = [
        0.5 * jnp.sum(rho * (mean**2 + scale**2) - jnp.log(rho) - 2 * jnp.log(scale) - 1)
        for rho, mean, scale in zip(state.precision, q.means, q.scales, strict=True)
    ]
    bound = data - kl_weight * sum(terms)
    return -bound, bound, state._replace(count=state.count + 1)


def _updated(
    options: _Options,
    support: MarkovSupport,
    prior: SpikeSlabPrecision,
    state: TurboState,
    means: tuple[jax.Array, ...],
    scales: tuple[jax.Array, ...],
) -> TurboState:
    """Indicators and mean precisions given the normal distributions of the weights."""
    part = state.count.astype(means[0].dtype)
    rate, chained = spike_schedule(jnp.minimum(part, options.num_steps), options.num_steps)
    independent = MarkovSupport.independent(support.density)
    probs, precisions = [], []
    for mean, scale in zip(means, scales, strict=True):
        unit = fan_in(mean.shape)
        square = unit * (mean**2 + scale**2)
        zero, one = prior.evidence(square, rate.astype(mean.dtype))
        said = jnp.clip(one - zero, -LARGEST, LARGEST)
        alone, _ = independent.messages(said)
        told = jnp.where(chained, grid_messages(support, said, options.axis), alone)
        prob = jax.nn.sigmoid(told + said)
        probs.append(prob)
        precisions.append(unit * prior.mean_precision(square, rate.astype(mean.dtype), prob))
    return TurboState(state.count, tuple(probs), tuple(precisions))


def grid_messages(support: MarkovSupport, said: jax.Array, axis: Axis) -> jax.Array:
    """Extrinsic log odds of the indicators of a weight matrix, of its shape."""
    if said.ndim < 2:
        return support.messages(said.reshape(-1))[0].reshape(said.shape)
    flat = said.reshape(said.shape[0], -1)
    if axis == "inputs":
        return support.messages(flat)[0].reshape(said.shape)
    if axis == "outputs":
        return support.messages(flat.T)[0].T.reshape(said.shape)
    # Both chains know the density, which counts once.
    density = jnp.log(support.p01 / support.p10).astype(said.dtype)
    columns = jnp.full_like(flat, density)
    rows = columns
    for _ in range(ROUNDS):
        rows = support.messages(flat + columns - density)[0]
        columns = support.messages((flat + rows - density).T)[0].T
    return (rows + columns - density).reshape(said.shape)
