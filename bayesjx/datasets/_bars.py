"""The bars test: images that a few horizontal and vertical bars make."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._core import check_key, whole_number

Superposition = Literal["linear", "max", "max_magnitude"]


class Bars(NamedTuple):
    """Images of bars and what they were made of.

    Attributes:
        y: images, row by row, shape `(n, size**2)`.
        codes: which bars an image has, and how strong they are, shape `(n, 2 * size)`.
        weights: the bars, shape `(2 * size, size**2)`: horizontal ones first.
        noise_var: variance of the noise.
    """

    y: Float[Array, "n d"]
    codes: Float[Array, "n h"]
    weights: Float[Array, "h d"]
    noise_var: float


def bars(
    key: jax.Array,
    num_data: int,
    *,
    size: int = 5,
    superposition: Superposition = "linear",
    height: float = 10.0,
    signed: bool = False,
    prior_prob: float = 0.2,
    values: tuple[float, ...] = (1.0,),
    value_probs: tuple[float, ...] | None = None,
    slab: tuple[float, float] | None = None,
    noise_var: float = 4.0,
) -> Bars:
    """Draws images of `size` by `size` pixels in which each bar is there or not.

    Args:
        key: PRNG key.
        num_data: number of images.
        size: pixels of a side.
        superposition: where bars cross, `"linear"` adds them up, `"max"` takes the larger one,
            `"max_magnitude"` the one of larger magnitude.
        height: of a bar.
        signed: whether every other bar is negative.
        prior_prob: probability that a bar is there.
        values: that a bar which is there is multiplied with.
        value_probs: their probabilities, of which the sum is 1; by default all the same.
        slab: mean and variance of a normal factor for each bar that is there, in place of `values`.
        noise_var: variance of the noise of a pixel.

    Returns:
        Images and the truth, a pure function of the key, in JAX's default precision.

    Raises:
        ValueError: options out of range, no key.

    References:
        Földiák (1990), "Forming sparse representations by local anti-Hebbian learning", Biological
        Cybernetics 64; sizes as Lücke and Eggert (2010), section 5.
    """
    check_key(key)
    whole_number("bars: num_data", num_data)
    whole_number("bars: size", size)
    if superposition not in ("linear", "max", "max_magnitude"):
        raise ValueError(
            f"bars: superposition must be 'linear', 'max' or 'max_magnitude', got {superposition!r}"
        )
    if not 0 < prior_prob < 1:
        raise ValueError(f"bars: prior_prob must be between 0 and 1, got {prior_prob}")
    if not noise_var >= 0:
        raise ValueError(f"bars: noise_var must not be negative, got {noise_var}")
    probs = _value_probs(values, value_probs)
    there_key, value_key, noise_key = jax.random.split(key, 3)
    shape = (num_data, 2 * size)
    if slab is None:
        value = jax.random.choice(value_key, jnp.asarray(values, float), shape, p=probs)
    else:
        value = slab[0] + slab[1] ** 0.5 * jax.random.normal(value_key, shape)
    codes = jnp.where(jax.random.uniform(there_key, shape) < prior_prob, value, 0)
    weights = jnp.asarray(_bars(size, height, signed))
    clean = _superposed(codes, weights, superposition)
    noise = jax.random.normal(noise_key, clean.shape)
    return Bars(clean + noise_var**0.5 * noise, codes, weights, noise_var)


def _bars(size: int, height: float, signed: bool) -> Any:
    lines = np.eye(size)
    rows = [np.outer(line, np.ones(size)).ravel() for line in lines]
    columns = [np.outer(np.ones(size), line).ravel() for line in lines]
    signs = (-1.0) ** np.arange(2 * size) if signed else np.ones(2 * size)
    return (height * signs[:, None] * np.array(rows + columns)).astype(jnp.result_type(float))


def _superposed(codes: jax.Array, weights: jax.Array, superposition: str) -> jax.Array:
    if superposition == "linear":
        return codes @ weights
    each = codes[:, :, None] * weights
    top, bottom = jnp.max(each, axis=1), jnp.min(each, axis=1)
    if superposition == "max":
        return top
    return jnp.where(top >= -bottom, top, bottom)


def _value_probs(values: Any, value_probs: Any) -> jax.Array:
    if np.ndim(values) != 1 or np.size(values) == 0:
        raise ValueError(f"bars: values must be numbers such as (1.0, 2.0), got {values!r}")
    probs = np.full(len(values), 1 / len(values)) if value_probs is None else value_probs
    if np.shape(probs) != np.shape(values) or not np.all(np.greater_equal(probs, 0)):
        raise ValueError(
            f"bars: value_probs must be a probability of each of {values}, got {probs}"
        )
    if not np.isclose(np.sum(probs), 1):
        raise ValueError(f"bars: the sum of value_probs must be 1, got {np.sum(probs):.4g}")
    return jnp.asarray(probs, float)
