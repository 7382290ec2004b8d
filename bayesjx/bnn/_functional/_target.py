"""Processes that a network's prior is matched to, and the inputs at which they are compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float

from ..._core import checked_finite, known_field, number_array, whole_number
from ...gp import GP


class MeasurementSet(eqx.Module):
    """Random inputs at which functions are compared: rows of data, and uniform ones in their box.

    Args:
        x: inputs of data, shape `(n, ...)`.
        num_points: how many inputs a set has.
        uniform: the part of them that is uniform between the smallest and the largest value of each
            feature; the others are rows of `x`, different ones where there are enough.

    Raises:
        ValueError: `x` is empty, NaN or no array of real numbers; no such number or part.

    References:
        Tran, Rossi, Milios and Filippone (2022), "All you need is a good functional prior for
        Bayesian deep learning", JMLR 23, section 4.1.
    """

    num_points: int = eqx.field(static=True)
    uniform: float = eqx.field(static=True)
    x: Float[Array, "n ..."] = known_field()

    def __init__(self, x: Any, num_points: int = 100, *, uniform: Any = 0.3):
        self.x = _real_rows("MeasurementSet: x", x)
        self.num_points = whole_number("MeasurementSet: num_points", num_points)
        if isinstance(uniform, bool) or not (
            isinstance(uniform, int | float) and 0 <= uniform <= 1
        ):
            raise ValueError(
                f"MeasurementSet: uniform must be a part from 0 to 1, got {uniform!r:.80}"
            )
        self.uniform = float(uniform)

    def __call__(self, key: jax.Array) -> Float[Array, "m ..."]:
        """A set of inputs, shape `(m, ...)`."""
        for_rows, for_box = jax.random.split(key)
        number = round(self.uniform * self.num_points)
        rows = self.num_points - number
        repeated = rows > len(self.x)
        chosen = self.x[jax.random.choice(for_rows, len(self.x), (rows,), replace=repeated)]
        low, high = jnp.min(self.x, 0), jnp.max(self.x, 0)
        unit = jax.random.uniform(for_box, (number, *self.x.shape[1:]), self.x.dtype)
        return jnp.concatenate([chosen, low + (high - low) * unit])


class Target(eqx.Module):
    """Draws of functions of a process, in the shape that values of a network have.

    Attributes:
        source: a process, or a function of a key and inputs; see `match_prior`.
        outputs: `()` or `(p,)`, what the network returns of one input.
    """

    source: Any
    outputs: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, key: jax.Array, x: jax.Array, num_samples: int) -> Float[Array, "s m *p"]:
        """Values of so many functions at the inputs.

        Raises:
            ValueError: what the function returns is of another shape.
        """
        if isinstance(self.source, GP):
            flat = x.reshape(len(x), -1)
            drawn = self.source.latent(flat).sample(key, (num_samples, *self.outputs))
            return jnp.moveaxis(drawn, -1, 1).astype(x.dtype)
        keys = jax.random.split(key, num_samples)
        return jax.vmap(lambda key: self._one(key, x))(keys).astype(x.dtype)

    def _one(self, key: jax.Array, x: jax.Array) -> jax.Array:
        own, for_values = jax.random.split(key)
        drawn, wanted = self.source(own, x), (len(x), *self.outputs)
        if isinstance(drawn, dist.Distribution):
            whole = (*drawn.batch_shape, *drawn.event_shape) == wanted
            drawn = drawn.sample(for_values, () if whole else self.outputs)
            drawn = drawn if whole or not self.outputs else jnp.moveaxis(drawn, 0, -1)
        if jnp.shape(drawn) != wanted:
            raise ValueError(
                f"match_prior: target must give the values {wanted} of one function at the inputs, "
                f"or a distribution of them, got shape {jnp.shape(drawn)}"
            )
        return jnp.asarray(drawn)


def checked_target(owner: str, target: Any) -> Any:
    """A process, or a function that draws.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(target, type) or not (isinstance(target, GP) or callable(target)):
        raise ValueError(
            f"{owner}: target must be a gp.GP, or a function of a key and inputs that returns the "
            f"values of one function or a distribution of them, got {target!r:.80}"
        )
    return target


def checked_measure(owner: str, measure: Any) -> Callable[[jax.Array], jax.Array]:
    """A function from a key to inputs, from one or from fixed inputs.

    Raises:
        ValueError: it is neither.
    """
    if callable(measure) and not isinstance(measure, type):
        return measure
    if isinstance(measure, type) or isinstance(measure, str) or measure is None:
        raise ValueError(
            f"{owner}: measure must be inputs, shape (m, ...), or a function from a key to them "
            f"such as bnn.MeasurementSet(x), got {measure!r:.80}"
        )
    return FixedInputs(_real_rows(f"{owner}: measure", measure))


class FixedInputs(eqx.Module):
    """The same inputs for any key."""

    x: Float[Array, "m ..."] = known_field()

    def __call__(self, key: jax.Array) -> Float[Array, "m ..."]:
        return self.x


def _real_rows(name: str, x: Any) -> jax.Array:
    array = number_array(name, x)
    if jnp.ndim(array) == 0 or jnp.issubdtype(array.dtype, jnp.complexfloating):
        raise ValueError(
            f"{name} must hold real inputs, one a row, shape (n, ...); got {array.dtype} of shape "
            f"{jnp.shape(array)}"
        )
    array = jnp.asarray(array)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        array = array.astype(float)
    return checked_finite(name, array)
