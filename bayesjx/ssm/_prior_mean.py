"""The prior mean of a process of time, as a number or a function."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def means_at(
    mean: Any, times: Float[Array, " n"], outputs: tuple[int, ...], dtype: Any
) -> Float[Array, " n *p"]:
    """The prior mean at times, `(m,)`, or `(m, p)` of several outputs.

    Args:
        mean: a number, one for each output, or a function from a time, a scalar, to such.
        times: shape `(m,)`.
        outputs: `()` or `(p,)`.
        dtype: of the result.

    Raises:
        ValueError: the function gives something else.
    """
    shape = (len(times), *outputs)
    if not callable(mean):
        return jnp.broadcast_to(jnp.asarray(mean, dtype), shape)
    values = jnp.asarray(jax.vmap(mean)(times), dtype)
    if values.shape == (len(times), 1) and not outputs:
        return values[:, 0]
    if values.shape not in (shape, shape[:1]):
        raise ValueError(
            f"mean must be a function from a time to a number{f' or {outputs}' * bool(outputs)}, "
            f"this gives shape {values.shape[1:]}"
        )
    return jnp.broadcast_to(values if values.shape == shape else values[:, None], shape)


def mean_slopes_at(mean: Any, times: Float[Array, " n"], dtype: Any) -> Float[Array, " n"]:
    """The derivative of the prior mean of one output at times, `(m,)`."""
    if not callable(mean):
        return jnp.zeros(len(times), dtype)
    scalar = lambda t: jnp.reshape(mean(t), ())  # noqa: E731
    return jax.vmap(jax.grad(scalar))(times).astype(dtype)
