"""Neural processes run autoregressively: targets are fed back in as context."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float
from numpyro.distributions import constraints

from .._core import check_key, compiled, whole_number
from ._neural_process import check_draws, check_network
from ._pfn_posterior import checked_data, checked_inputs
from ._process_posterior import check_span

BATCH = 16  # conditionals of a density that are computed at a time


class AutoregressiveDistribution(dist.Distribution):
    """Joint distribution of targets by the chain rule, in the order in which they are.

    Args:
        conditional: from an index and targets, of which those before that index are read, to the
            distribution of the target there, batch shape `(1,)`; a pytree of arrays.
        size: number of targets.
        dtype: their type.
        validate_args: as elsewhere in NumPyro.
    """

    arg_constraints: dict[str, Any] = {}
    support = constraints.real_vector
    pytree_data_fields = ("conditional",)
    pytree_aux_fields = ("dtype",)

    def __init__(
        self, conditional: Any, size: int, dtype: Any, *, validate_args: bool | None = None
    ):
        self.conditional, self.dtype = conditional, jnp.dtype(dtype)
        super().__init__((), (size,), validate_args=validate_args)

    def sample(self, key: jax.Array | None, sample_shape: tuple[int, ...] = ()) -> jax.Array:
        """Draws, one target after another, shape `(*sample_shape, size)`."""
        check_key(key)
        keys = jax.random.split(key, math.prod(sample_shape))  # ty: ignore
        draws = _draws(self.conditional, keys, *self.event_shape, self.dtype)
        return draws.reshape(*sample_shape, *self.event_shape)

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        """Joint log density, in nats.

        Args:
            value: targets, shape `(*batch, size)`.
            intermediates: not used.
        """
        del intermediates
        value = jnp.asarray(value, self.dtype)
        if value.shape[-1:] != self.event_shape:
            raise ValueError(
                f"log_prob: value must have shape (*batch, {self.event_shape[0]}), got "
                f"{value.shape}"
            )
        rows = value.reshape(-1, value.shape[-1])
        return _log_density(self.conditional, rows).reshape(value.shape[:-1])


def autoregressive(
    network: Any,
    x: Any,
    y: Any,
    x_new: Any,
    *,
    mask: Any = None,
    key: jax.Array | None = None,
    num_samples: int = 50,
) -> AutoregressiveDistribution:
    """Joint distribution of targets by any neural process: each is fed back in as context.

    Predictions of single targets are turned into dependent ones without another training. A density
    or a draw of `m` targets costs `m` predictions. It depends on the order of targets; random
    orders do best where inputs are not a sequence.

    Args:
        network: a neural process.
        x: inputs of the context, shape `(n, d)`; `n` may be 0.
        y: its targets, shape `(n,)`.
        x_new: inputs of the targets, in order, shape `(m, d)`.
        mask: rows of the context that count, booleans, shape `(n,)`.
        key: PRNG key of the draws of a network that makes any; density and samples use the same.
        num_samples: number of draws for each target, over which its distribution is a mixture.

    Returns:
        Event shape `(m,)`: `sample(key, sample_shape)` and `log_prob(y_new)`.

    Raises:
        ValueError: wrong shapes, NaN, no key for a network that draws, no draws.

    References:
        Bruinsma, Markou, Requeima, Foong, Andersson, Vaughan, Buonomo, Hosking and Turner (2023),
        "Autoregressive conditional neural processes", ICLR: section 3.
    """
    check_network("autoregressive", network)
    x, y, mask = checked_data("autoregressive", network, x, y, mask)
    x_new = checked_inputs("autoregressive", network, x_new)
    if not len(x_new):
        raise ValueError("autoregressive: x_new has no rows")
    x_new = check_span("autoregressive", network, x_new, x, mask)
    num_samples = whole_number("autoregressive: num_samples", num_samples)
    check_draws("autoregressive", network, key)
    key = key if network.stochastic else None
    chain = Chain(network, key, x, y, mask, x_new, num_samples)
    return AutoregressiveDistribution(chain, len(x_new), y.dtype)


class Chain(eqx.Module):
    """Distribution of each target of a neural process with those before it as context."""

    network: Any
    key: jax.Array | None
    x: Float[Array, "n d"]
    y: Float[Array, " n"]
    mask: Bool[Array, " n"]
    x_new: Float[Array, "m d"]
    num_samples: int = eqx.field(static=True)

    def __call__(self, i: Any, y_new: Float[Array, " m"]) -> dist.Distribution:
        """Of target `i`, batch shape `(1,)`; later elements of `y_new` may be anything."""
        before = jnp.arange(len(y_new)) < i
        x = jnp.concatenate([self.x, self.x_new])
        y = jnp.concatenate([self.y, jnp.where(before, y_new, 0)])
        key = None if self.key is None else jax.random.fold_in(self.key, i)
        mask = jnp.concatenate([self.mask, before])
        cache = self.network.encode(key, x, y, mask, self.num_samples)
        return self.network.marginals(self.x_new[i][None], cache)


@compiled
def _draws(conditional: Any, keys: jax.Array, size: int, dtype: Any) -> Float[Array, "k m"]:
    def one(key: jax.Array) -> jax.Array:
        def step(y: jax.Array, at: Any) -> tuple[jax.Array, None]:
            i, key = at
            return y.at[i].set(conditional(i, y).sample(key)[0].astype(y.dtype)), None

        each = jnp.arange(size), jax.random.split(key, size)
        return jax.lax.scan(step, jnp.zeros(size, dtype), each)[0]

    return jax.lax.map(one, keys, batch_size=BATCH)


@compiled
def _log_density(conditional: Any, y: Float[Array, "k m"]) -> Float[Array, " k"]:
    def one(y: jax.Array) -> jax.Array:
        def at(i: jax.Array) -> jax.Array:
            return jnp.asarray(conditional(i, y).log_prob(y[i]))[0]

        return jnp.sum(jax.lax.map(at, jnp.arange(len(y)), batch_size=BATCH))

    return jax.lax.map(one, y)
