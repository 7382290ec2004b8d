"""Where learning starts, and checks of parameters."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..._core import check_key, check_known, checked_finite, whole_number
from ._arguments import finite_guard, observations, real
from ._states import truncation


class Start(NamedTuple):
    """Random weights and the variance of the data about their mean."""

    weights: Float[Array, "h d"]
    noise_var: Float[Array, ""]
    prior_prob: Float[Array, ""]


def start(key: jax.Array, y: Any, num_causes: int) -> Start:
    """Weights that differ from the mean of the data by a quarter of their standard deviation.

    Raises:
        ValueError: no key, data of another shape or none, NaN.
    """
    check_key(key)
    num_causes = whole_number("num_causes", num_causes)
    y = observations(y)
    mean = jnp.mean(y, axis=0) * finite_guard(y)
    variance = jnp.mean((y - mean) ** 2)
    variance = jnp.where(variance > 0, variance, jnp.mean(y**2) + jnp.finfo(y.dtype).tiny)
    noise = jax.random.normal(key, (num_causes, y.shape[1]), y.dtype)
    prob = jnp.asarray(min(1 / num_causes, 0.5), y.dtype)
    return Start(mean + 0.25 * jnp.sqrt(variance) * noise, variance, prob)


def weight_matrix(weights: Any) -> jax.Array:
    """Weights of shape `(h, d)`.

    Raises:
        ValueError: another shape.
    """
    weights = real("weights", weights)
    if weights.ndim != 2 or weights.size == 0:
        raise ValueError(f"weights must have shape (h, d), one row a cause; got {weights.shape}")
    return weights


def parameter(name: str, value: Any, like: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """A parameter of a given shape, in the precision of the weights; scalars are broadcast.

    Raises:
        ValueError: another shape.
    """
    value = real(name, value, like.dtype)
    if value.shape not in ((), shape):
        wanted = "a scalar" if shape == () else f"a scalar or of shape {shape}"
        raise ValueError(f"{name} must be {wanted}, got shape {value.shape}")
    return jnp.broadcast_to(value, shape)


def fill(
    model: Any,
    weights: Any,
    noise_var: Any,
    prior_prob: Any,
    num_candidates: int | None,
    max_active: int | None,
) -> None:
    """Sets and checks the fields of a model whose causes are active with one probability.

    Raises:
        ValueError: wrong shapes, values out of range, more active causes than states allow.
    """
    model.weights = weight_matrix(weights)
    model.noise_var = parameter("noise_var", noise_var, model.weights)
    model.prior_prob = parameter("prior_prob", prior_prob, model.weights)
    sizes = truncation(len(model.weights), len(model.values), num_candidates, max_active)
    model.num_candidates, model.max_active = sizes
    check_parameters(model)


def check_parameters(model: Any) -> None:
    """Whether known parameters are finite and fulfil their constraints.

    Raises:
        ValueError: they do not; names the parameter.
    """
    if not isinstance(model.weights, jax.core.Tracer):
        checked_finite("weights", model.weights)
    check_known(model)
