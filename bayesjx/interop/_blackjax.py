"""Samplers of BlackJAX as algorithms of the fit loop."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from .._core import Algorithm, check_key, fit, FitResult, path_name, Step, to_datatree, whole_number

_NAMES = {"is_divergent": "diverging", "num_integration_steps": "n_steps"}  # as ArviZ has them


class SampleInfo(NamedTuple):
    """What a step of a sampler reports.

    Attributes:
        objective: log density of the state, mean over chains; None where states hold none.
        stats: numbers of each chain by name, such as `acceptance_rate`, `diverging` and `lp`.
    """

    objective: jax.Array | None
    stats: dict[str, jax.Array]


def from_blackjax(sampler: Any, *, num_chains: int | None = None) -> Algorithm:
    """A sampler of BlackJAX as an `Algorithm`, for `bayesjx.fit`.

    So that it gets progress bars, callbacks, checkpoints and exact resume; `sample` does both.
    Chains run side by side, by `jax.vmap`.

    Args:
        sampler: what a factory such as `blackjax.nuts(log_density, step_size, inverse_mass)`
            returns: `init(position)` or `init(position, rng_key)`, and
            `step(rng_key, state, *batch) -> (state, info)`. One whose step returns the state only,
            as those of stochastic gradients do, will do.
        num_chains: with it, all arrays of positions and states have a leading axis of this length.

    Returns:
        `init(position, key=None)` and `step(key, state, *batch) -> (state, SampleInfo)`.

    Raises:
        ValueError: `sampler` is no sampler, or `num_chains` no positive integer; in use, a position
            whose arrays do not have a row for each chain.

    References:
        Cabezas, Corenflos, Lao and Louf (2024), "BlackJAX: composable Bayesian inference in JAX".
    """
    if not all(callable(getattr(sampler, name, None)) for name in ("init", "step")):
        raise ValueError(
            "sampler must have init and step, such as blackjax.nuts(log_density, step_size, "
            f"inverse_mass_matrix); got {type(sampler).__name__}"
        )
    if num_chains is not None:
        num_chains = whole_number("num_chains", num_chains)

    def init(position: Any, key: jax.Array | None = None) -> Any:
        position = jax.tree.map(jnp.asarray, position)
        wanted = inspect.signature(sampler.init).parameters
        given = key is not None and len(wanted) > 1  # for a momentum, say
        if num_chains is None:
            return sampler.init(position, key) if given else sampler.init(position)
        for path, x in jax.tree_util.tree_leaves_with_path(position):
            if x.shape[:1] != (num_chains,):
                raise ValueError(
                    f"{path_name(path, 'position')} must have a row for each of {num_chains} "
                    f"chains, got shape {x.shape}"
                )
        if given:
            return jax.vmap(sampler.init)(position, jax.random.split(key, num_chains))
        return jax.vmap(lambda one: sampler.init(one))(position)

    return Algorithm(init, Step(_step, sampler.step, num_chains))


def _step(
    move: Callable[..., Any], num_chains: int | None, key: jax.Array, state: Any, *batch: Any
) -> tuple[Any, SampleInfo]:
    def one(key: jax.Array, state: Any) -> tuple[Any, Any, dict[str, jax.Array]]:
        out = move(key, state, *batch)
        has_info = isinstance(out, tuple) and len(out) == 2 and not hasattr(out, "_fields")
        new, info = out if has_info else (out, None)
        log_density = getattr(new, "logdensity", None)
        stats = {} if log_density is None else {"lp": log_density}
        for name in getattr(info, "_fields", ()):
            value = getattr(info, name)
            if hasattr(value, "dtype") and value.ndim == 0:
                stats[_NAMES.get(name, name)] = value
        return new, log_density, stats

    if num_chains is None:
        new, log_density, stats = one(key, state)
    else:
        new, log_density, stats = jax.vmap(one)(jax.random.split(key, num_chains), state)
    return new, SampleInfo(None if log_density is None else jnp.mean(log_density), stats)


def _position(state: Any) -> Any:
    return getattr(state, "position", state)


@dataclasses.dataclass(frozen=True)
class Samples:
    """Draws of `sample`.

    Attributes:
        draws: a pytree like the position; `(chains, draws, ...)`, or `(draws, ...)` of one chain.
        stats: numbers of the steps that led to the draws, of the same leading axes.
        fit: how the loop went, with the last state.
        num_chains: number of chains, or None.
    """

    draws: Any
    stats: dict[str, np.ndarray]
    fit: FitResult
    num_chains: int | None

    def to_datatree(self, **options: Any) -> Any:
        """Draws and statistics as an `xarray.DataTree`, with dimensions `chain` and `draw`.

        Args:
            **options: of `bayesjx.to_datatree`.
        """
        draws = self.draws
        if not isinstance(draws, Mapping):
            leaves = jax.tree_util.tree_leaves_with_path(draws)
            draws = {path_name(path, "position"): x for path, x in leaves}
        axis = None if self.num_chains is None else 0
        attrs = {"fit_message": self.fit.message, "fit_seconds": self.fit.seconds}
        attrs.update(options.pop("attrs", None) or {})
        return to_datatree(draws, sample_stats=self.stats, attrs=attrs, chain_axis=axis, **options)


def sample(
    key: Any,
    sampler: Any,
    position: Any,
    num_samples: int,
    *,
    thin: int = 1,
    num_chains: int | None = None,
    **options: Any,
) -> Samples:
    """Draws of a sampler of BlackJAX: `bayesjx.fit` over `from_blackjax`.

    A chain that was killed goes on from its checkpoint and ends with the same bits.

    Args:
        key: one PRNG key.
        sampler: see `from_blackjax`; tuned, as by `blackjax.window_adaptation`.
        position: where to start, a pytree of arrays.
        num_samples: draws of each chain.
        thin: steps from one draw to the next.
        num_chains: with it, arrays of `position` have a row for each chain.
        **options: `progress`, `checkpoint`, `callback`, `data`, `batches`, ... of `bayesjx.fit`.

    Returns:
        Draws, statistics and `to_datatree`.

    Raises:
        ValueError: see `from_blackjax` and `bayesjx.fit`.
        NonFiniteError: a state became infinite or not a number.
    """
    check_key(key)
    for name, value in (("num_samples", num_samples), ("thin", thin)):
        whole_number(name, value)
    algorithm = from_blackjax(sampler, num_chains=num_chains)
    start_key, key = jax.random.split(key)
    state = algorithm.init(position, start_key)
    result = fit(key, algorithm, state, num_samples * thin, keep=_position, thin=thin, **options)
    rows = slice(thin - 1, None, thin)
    stats = {name: x[rows] for name, x in result.info.stats.items()}
    draws = result.kept
    if num_chains is not None:
        draws, stats = jax.tree.map(lambda x: x.swapaxes(0, 1), (draws, stats))
    return Samples(draws, stats, result, num_chains)
