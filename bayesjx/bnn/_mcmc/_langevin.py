"""Stochastic gradient Langevin dynamics of networks, by BlackJAX, and its cyclical schedule."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from ..._core import Algorithm, Step, whole_number
from .._arguments import positive
from ._chains import NetworkChains
from ._moves import dtype_of, started, Target, target_of
from ._state import ChainInfo, ChainState


class _Constant(eqx.Module):
    """The same step size always."""

    step_size: jax.Array

    def __call__(self, count: jax.Array) -> jax.Array:
        return self.step_size


class _Cosine(eqx.Module):
    """The step size of cycles, which falls from its largest value to almost 0 in each."""

    step_size: jax.Array
    length: int = eqx.field(static=True)

    def __call__(self, count: jax.Array) -> jax.Array:
        phase = (count % self.length).astype(self.step_size.dtype) / self.length
        return self.step_size / 2 * (jnp.cos(math.pi * phase) + 1)


class _Since(eqx.Module):
    """Whether steps count as draws: from some number of them on, of all or of each cycle."""

    start: int = eqx.field(static=True)
    length: int | None = eqx.field(static=True)

    def __call__(self, count: jax.Array) -> jax.Array:
        return (count if self.length is None else count % self.length) >= self.start


def sgld(
    chains: NetworkChains,
    *,
    step_size: Any,
    num_data: int | None = None,
    batch_size: int | None = None,
    burn_in: int = 0,
    temperature: Any = 1.0,
    gibbs_every: int | None = None,
) -> Algorithm:
    r"""Stochastic gradient Langevin dynamics by BlackJAX, for `bayesjx.fit`.

    $w \leftarrow w + \epsilon g + N(0, 2 T \epsilon)$ with the batch's gradient $g$ of the log
    joint density; $\epsilon$ is half of that of the source. Batches add noise to it that is not
    accounted for, so that variances are too large unless step sizes are small.

    Args:
        chains: what is sampled, and where it starts.
        step_size: $\epsilon$, positive, or a schedule of it: a function of the number of steps,
            such as `optax.polynomial_schedule(1e-4, 1e-6, 0.55, 5000)`.
        num_data: number of all data, of which a step is given minibatches, such as by `batch_size`
            of `bayesjx.fit`; by default a step is given all data.
        batch_size: rows of these that each chain draws for itself, with replacement; by default all
            are used. Chains that share their batches, as those of `bayesjx.fit`, share the batches'
            noise, and then agree more than they should.
        burn_in: number of steps that are no draws.
        temperature: $T$, positive; the posterior is that of Bayes' rule at 1.
        gibbs_every: see `sghmc`.

    Returns:
        As `sghmc`.

    Raises:
        ValueError: options out of range; when traced, what `log_joint` raises.
        ImportError: BlackJAX is not installed.

    References:
        Welling and Teh (2011), "Bayesian learning via stochastic gradient Langevin dynamics", ICML,
        equation 4.
    """
    target, temperature = target_of("sgld", chains, num_data, batch_size, temperature, gibbs_every)
    burn_in = whole_number("sgld: burn_in", burn_in, 0)
    schedule = step_size
    if not callable(step_size):
        schedule = _Constant(positive("sgld", "step_size", step_size, dtype_of(chains)))
    return _langevin(target, chains, schedule, _Since(burn_in, None), temperature, True)


def cyclical_sgld(
    chains: NetworkChains,
    *,
    num_steps: int,
    step_size: Any,
    num_data: int | None = None,
    batch_size: int | None = None,
    num_cycles: int = 4,
    exploration: float = 0.8,
    temperature: Any = 1.0,
    gibbs_every: int | None = None,
) -> Algorithm:
    r"""Cyclical stochastic gradient Langevin dynamics, for `bayesjx.fit`.

    The step size falls from its largest value to 0 as a cosine, again and again. The first part of
    each cycle is gradient ascent without noise, which finds another mode; in the rest steps of
    `sgld` sample around it. Draws of the first part are left out of the posterior.

    Args:
        chains: what is sampled, and where it starts.
        num_steps: $K$, of the whole fit.
        step_size: the largest one, $\epsilon_0$, positive; half of that of the source, as in
            `sgld`.
        num_data: number of all data, of which a step is given minibatches, such as by `batch_size`
            of `bayesjx.fit`; by default a step is given all data.
        batch_size: rows of these that each chain draws for itself, with replacement; by default all
            are used. Chains that share their batches, as those of `bayesjx.fit`, share the batches'
            noise, and then agree more than they should.
        num_cycles: $M$, of $\lceil K / M \rceil$ steps each.
        exploration: $\beta$, the share of each cycle without noise, in [0, 1).
        temperature: of the other steps, positive.
        gibbs_every: see `sghmc`.

    Returns:
        As `sghmc`.

    Raises:
        ValueError: options out of range; when traced, what `log_joint` raises.
        ImportError: BlackJAX is not installed.

    References:
        Zhang, Li, Zhang, Chen and Wilson (2020), "Cyclical stochastic gradient MCMC for Bayesian
        deep learning", ICLR, equation 1 and algorithm 1.
    """
    owner = "cyclical_sgld"
    target, temperature = target_of(owner, chains, num_data, batch_size, temperature, gibbs_every)
    num_steps = whole_number(f"{owner}: num_steps", num_steps)
    num_cycles = whole_number(f"{owner}: num_cycles", num_cycles)
    if num_cycles > num_steps:
        raise ValueError(
            f"{owner}: num_cycles must be at most num_steps={num_steps}, got {num_cycles}"
        )
    share = float(positive(owner, "exploration", exploration, float, zero=True))
    if not share < 1:
        raise ValueError(f"{owner}: exploration must be in [0, 1), got {exploration!r}")
    length = -(-num_steps // num_cycles)
    schedule = _Cosine(positive(owner, "step_size", step_size, dtype_of(chains)), length)
    since = _Since(min(math.ceil(share * length), length - 1), length)
    return _langevin(target, chains, schedule, since, temperature, False)


def _langevin(
    target: Target,
    chains: NetworkChains,
    schedule: Callable[[jax.Array], Any],
    since: _Since,
    temperature: jax.Array,
    always_hot: bool,
) -> Algorithm:
    kernel = _kernel()

    def init(key: jax.Array | None = None) -> ChainState:
        return started(target, chains, key, ())

    return Algorithm(init, Step(_step, kernel, target, schedule, since, temperature, always_hot))


def _step(
    kernel: Callable[..., Any],
    target: Target,
    schedule: Callable[[jax.Array], Any],
    since: _Since,
    temperature: jax.Array,
    always_hot: bool,
    key: jax.Array,
    state: ChainState,
    x: Any,
    y: Any,
) -> tuple[ChainState, ChainInfo]:
    for_slopes, for_noise, for_scales = jax.random.split(key, 3)
    state = state._replace(precisions=target.refreshed(for_scales, state))
    values, slopes = target.slopes(for_slopes, state, x, y)
    step_size = jnp.asarray(schedule(state.count), temperature.dtype)
    sampling = since(state.count)
    hot = temperature if always_hot else jnp.where(sampling, temperature, 0)

    def one(key: jax.Array, position: Any, slope: Any) -> Any:
        return kernel(key, position, lambda *_: slope, None, step_size, hot)

    keys = jax.random.split(for_noise, len(values))
    position = jax.vmap(one)(keys, state.position, slopes)
    as_before = lambda new, old: new.astype(old.dtype)  # noqa: E731
    position = jax.tree.map(as_before, position, state.position)
    info = ChainInfo(jnp.mean(values), sampling, step_size, jnp.full_like(step_size, jnp.nan))
    return ChainState(position, state.precisions, (), state.count + 1, sampling), info


@functools.cache
def _kernel() -> Callable[..., Any]:
    try:
        from blackjax.sgmcmc import sgld as blackjax_sgld
    except ImportError as error:
        raise ImportError(
            "this sampler needs BlackJAX, which is optional: pip install blackjax"
        ) from error
    return blackjax_sgld.build_kernel()
