"""Stochastic gradient Hamiltonian Monte Carlo that adapts its scales in the burn-in."""

from __future__ import annotations

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._core import Algorithm, refuse_where, Step, whole_number
from .._arguments import positive
from ._chains import NetworkChains
from ._moves import dtype_of, started, Target, target_of
from ._state import ChainInfo, ChainPosition, ChainState


class ScaleAdaptation(NamedTuple):
    """What `sghmc` carries along, for each of the `d` numbers that a chain's position has.

    Attributes:
        momentum: displacement of the next step.
        mean: running mean of gradients.
        square: running mean of squared gradients, which sets the step size.
        window: number of steps that running means are of.
        noise: variance of the gradients between batches.
        last: gradient of the step before.
        change: of the gradient, to that one.
    """

    momentum: Float[Array, "chains d"]
    mean: Float[Array, "chains d"]
    square: Float[Array, "chains d"]
    window: Float[Array, "chains d"]
    noise: Float[Array, "chains d"]
    last: Float[Array, "chains d"]
    change: Float[Array, "chains d"]


class _Options(eqx.Module):
    """Of a step, as arrays."""

    step_size: jax.Array
    friction: jax.Array
    temperature: jax.Array
    burn_in: jax.Array


def sghmc(
    chains: NetworkChains,
    *,
    num_data: int | None = None,
    batch_size: int | None = None,
    step_size: Any = 0.02,
    friction: Any = 0.05,
    burn_in: int = 2000,
    temperature: Any = 1.0,
    gibbs_every: int | None = None,
) -> Algorithm:
    r"""Stochastic gradient Hamiltonian Monte Carlo with scale adaptation, for `bayesjx.fit`.

    In the burn-in it estimates the mean square $\hat v$ of each weight's gradient, with a window
    that adapts itself; from then on the squared time step of that weight is fixed,
    $h = \epsilon^2 / \sqrt{\hat v}$. With momentum $m$, friction $c$ and the batch's gradient $g$
    of the log joint density, a step is

    $m \leftarrow m + h g, \quad m' = (1 - c) m + N(0, T h c (2 - c) - (1 - c/2)^2 h^2 \hat\nu),
    \quad w \leftarrow w + (m + m') / 2.$

    These are the terms of the source's equation 10 in an order that makes the variance of weights
    right for any time step with a normal posterior, where theirs is larger by
    $1 / (1 - h \lambda / 4)$ at curvature $\lambda$. $\hat\nu$ is the variance of gradients between
    batches, whose share of the noise is left out of what is added: the source takes $\hat v$ for
    it, which is far more where batches are large, and then samples too cold. Where that share would
    be more than all, friction is raised to it.
    BlackJAX has no such sampler; its `sghmc` has one step size for all weights and no burn-in.

    Args:
        chains: what is sampled, and where it starts.
        num_data: number of all data, of which a step is given minibatches, such as by `batch_size`
            of `bayesjx.fit`; by default a step is given all data.
        batch_size: rows of these that each chain draws for itself, with replacement; by default all
            are used. Chains that share their batches, as those of `bayesjx.fit`, share the batches'
            noise, and then agree more than they should.
        step_size: $\epsilon$, positive. It is too large where the `temperature` of steps is not
            near $T$, or predictions change with a smaller one.
        friction: $c$, in (0, 1): the share of the momentum that a step replaces.
        burn_in: steps of adaptation, which are no draws.
        temperature: $T$, positive; the posterior is that of Bayes' rule at 1.
        gibbs_every: of hierarchical priors, the number of steps from one draw of the scales given
            the weights to the next; by default the scales are integrated out.

    Returns:
        `init(key=None) -> ChainState`, whose key draws the first scales of `gibbs_every`, and
        `step(key, state, x, y) -> (ChainState, ChainInfo)`. `keep=bnn.chain_draws` of
        `bayesjx.fit` is what `chains.posterior` is made from.

    Raises:
        ValueError: options out of range; when traced, what `log_joint` raises.

    References:
        Springenberg, Klein, Falkner and Hutter (2016), "Bayesian optimization with robust Bayesian
        neural networks", NeurIPS, equations 8 to 10; Chen, Fox and Guestrin (2014), "Stochastic
        gradient Hamiltonian Monte Carlo", ICML; order of the terms: Leimkuhler and Matthews (2013),
        "Rational construction of stochastic numerical methods for molecular sampling", BAOAB.
    """
    target, temperature = target_of("sghmc", chains, num_data, batch_size, temperature, gibbs_every)
    dtype = dtype_of(chains)
    friction = refuse_where(
        positive("sghmc", "friction", friction, dtype),
        lambda c: ~(c < 1),
        "sghmc: friction must be in (0, 1)",
    )
    burn_in = whole_number("sghmc: burn_in", burn_in)
    step_size = positive("sghmc", "step_size", step_size, dtype)
    options = _Options(step_size, friction, temperature, jnp.asarray(burn_in, jnp.int32))

    def init(key: jax.Array | None = None) -> ChainState:
        flat = _flat(chains.start)
        zero, one = jnp.zeros_like(flat), jnp.ones_like(flat)
        memory = ScaleAdaptation(zero, zero, zero, one, zero, zero, zero)
        return started(target, chains, key, memory)

    return Algorithm(init, Step(_step, target, options))


def _step(
    target: Target, options: _Options, key: jax.Array, state: ChainState, x: Any, y: Any
) -> tuple[ChainState, ChainInfo]:
    for_slopes, for_noise, for_scales = jax.random.split(key, 3)
    state = state._replace(precisions=target.refreshed(for_scales, state))
    values, slopes = target.slopes(for_slopes, state, x, y)
    slope = _flat(slopes)
    adapted = _adapted(state.count, slope, state.memory)
    burning = state.count < options.burn_in
    memory = jax.tree.map(lambda new, old: jnp.where(burning, new, old), adapted, state.memory)
    hot, tiny = options.temperature, jnp.finfo(slope.dtype).tiny
    step = options.step_size**2 / jnp.sqrt(jnp.maximum(memory.square, tiny))
    step = jnp.minimum(step, hot / jnp.maximum(memory.noise, tiny))
    share = step * memory.noise / hot  # of the batches' noise
    friction = jnp.maximum(options.friction, share)
    added = friction * (2 - friction) - (1 - friction / 2) ** 2 * share
    noise = jnp.sqrt(hot * step * added) * jax.random.normal(for_noise, slope.shape, slope.dtype)
    before = memory.momentum + step * slope
    after = (1 - friction) * before + noise
    position = _moved(state.position, (before + after) / 2)
    count = state.count + 1
    sampling = count > options.burn_in
    info = ChainInfo(jnp.mean(values), sampling, jnp.mean(step), jnp.mean(after**2 / step))
    memory = memory._replace(momentum=after)
    return ChainState(position, state.precisions, memory, count, sampling), info


def _flat(position: ChainPosition) -> Float[Array, "chains d"]:
    """All numbers of each chain in a row, in the widest type: one array is quicker than many."""
    leaves = jax.tree.leaves(position)
    dtype = jnp.result_type(*leaves)
    return jnp.concatenate([leaf.reshape(len(leaf), -1).astype(dtype) for leaf in leaves], axis=1)


def _moved(position: ChainPosition, moves: Float[Array, "chains d"]) -> ChainPosition:
    leaves, structure = jax.tree.flatten(position)
    ends = np.cumsum([leaf.size // len(leaf) for leaf in leaves])[:-1]
    parts = jnp.split(moves, ends, axis=1)
    pairs = zip(leaves, parts, strict=True)
    moved = [leaf + part.reshape(leaf.shape).astype(leaf.dtype) for leaf, part in pairs]
    return jax.tree.unflatten(structure, moved)


def _adapted(count: jax.Array, slope: jax.Array, memory: ScaleAdaptation) -> ScaleAdaptation:
    """Running moments of gradients with one more of them."""
    first = count == 0
    mean, square = (
        jnp.where(first, new, old) for new, old in ((slope, memory.mean), (slope**2, memory.square))
    )
    weight = 1 / (memory.window + 1)
    tiny = jnp.finfo(slope.dtype).tiny
    window = memory.window * (1 - mean**2 / jnp.maximum(square, tiny)) + 1
    change = jnp.where(first, 0, slope - memory.last)
    # In second differences the path's own part is small, and noise has 6 times its variance.
    noise = jnp.where(count < 2, 0, (change - memory.change) ** 2 / 6)
    return ScaleAdaptation(
        memory.momentum,
        mean + weight * (slope - mean),
        square + weight * (slope**2 - square),
        window,
        memory.noise + weight * (noise - memory.noise),
        slope,
        change,
    )
