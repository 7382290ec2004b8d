"""Spectral mixture kernels, with normal or Student-t bands."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._core import compiled, constrained_field, nan_unless_valid
from ._kernel import AbstractConstantVariance
from ._parameters import numbers


class AbstractMixture(AbstractConstantVariance):
    """Abstract base class of kernels whose spectrum is a mixture of bands, of one coordinate."""

    weights: Float[Array, " Q"] = constrained_field(constraints.nonnegative)
    rates: Float[Array, " Q"] = constrained_field(constraints.nonnegative)
    frequencies: Float[Array, " Q"] = constrained_field(constraints.nonnegative)

    def __init__(self, weights: Any, rates: Any, frequencies: Any):
        self.weights, self.rates, self.frequencies = _components(
            weights=weights, rates=rates, frequencies=frequencies
        )

    @abc.abstractmethod
    def decay(self) -> Callable[[jax.Array, jax.Array], jax.Array]:
        """The correlation of a band of frequency 0, as a function of lags and its rate."""

    def amplitude(self, x: Float[Array, "n d"]) -> Float[Array, ""]:
        _check_one_coordinate(self, x)
        return jnp.sum(nan_unless_valid(self, self.weights)).astype(x.dtype)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        _check_one_coordinate(self, x)
        parts = nan_unless_valid(self, self.weights), self.rates, self.frequencies
        parts = tuple(jnp.asarray(part, x.dtype) for part in parts)
        return _waves(x - y[:, 0], parts, self.decay())


class SpectralMixture(AbstractMixture):
    r"""Spectral mixture kernel $\sum_q w_q e^{-a_q \tau^2} \cos(2 \pi \mu_q \tau)$.

    Of one coordinate. Its spectrum is a mixture of normal densities around the frequencies
    $\pm\mu_q$; any stationary covariance is the limit of such.

    Args:
        weights: variances $w_q$ of the components, not negative, shape `(Q,)`.
        rates: $a_q$, not negative (0 is a pure wave), shape `(Q,)`, in inverse squared units of
            the input.
        frequencies: $\mu_q$, not negative, shape `(Q,)`, in cycles per unit of the input.

    Raises:
        ValueError: the shapes differ, or a value is known and negative.

    References:
        Wilson and Adams (2013), "Gaussian process kernels for pattern discovery and
        extrapolation", ICML.
    """

    def decay(self) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return _normal_decay


class StudentMixture(AbstractMixture):
    r"""Student-t mixture kernel $\sum_q w_q (1 + z + z^2/3) e^{-z} \cos(2 \pi \mu_q \tau)$.

    Of one coordinate, with $z^2 = 5 \rho_q^2 \tau^2$. Its spectrum is a mixture of Student's t
    densities with five degrees of freedom: sharp lines with heavy tails, as of processes that are
    twice differentiable.

    Args:
        weights: variances $w_q$ of the components, not negative, shape `(Q,)`.
        rates: $\rho_q$, not negative (0 is a pure wave), shape `(Q,)`, in inverse units of the
            input.
        frequencies: $\mu_q$, not negative, shape `(Q,)`, in cycles per unit of the input.

    Raises:
        ValueError: the shapes differ, or a value is known and negative.

    References:
        Fang, Cooley, Long, Li, Kirby and Zhe (2024), "Solving high frequency and multi-scale PDEs
        with Gaussian processes", ICLR.
    """

    def decay(self) -> Callable[[jax.Array, jax.Array], jax.Array]:
        return _student_decay


def _normal_decay(lag: jax.Array, rate: jax.Array) -> jax.Array:
    return jnp.exp(-rate * lag**2)


def _student_decay(lag: jax.Array, rate: jax.Array) -> jax.Array:
    # Of the absolute lag, whose derivatives of one side are all of the four that exist; the rule of
    # `matern` would be lost in a scan.
    z = 5**0.5 * rate * jnp.abs(lag)
    return (1 + z + z**2 / 3) * jnp.exp(-z)


@compiled
def _waves(lag: jax.Array, components: tuple[jax.Array, ...], decay: Any) -> jax.Array:
    def add(total: jax.Array, component: Any) -> tuple[jax.Array, None]:
        weight, rate, frequency = component
        wave = jnp.cos(2 * jnp.pi * frequency * lag)
        return total + weight * decay(lag, rate) * wave, None

    return jax.lax.scan(add, jnp.zeros_like(lag), components)[0]  # no (Q, n, m) array


def _check_one_coordinate(kernel: Any, x: jax.Array) -> None:
    if x.shape[1] != 1:
        raise ValueError(
            f"{type(kernel).__name__} is of one coordinate and points have {x.shape[1]}; multiply "
            "one for each, by .on(dim)"
        )


def _components(**given: Any) -> tuple[jax.Array, ...]:
    values = {name: numbers(name, value) for name, value in given.items()}
    shapes = {name: value.shape for name, value in values.items()}
    if len(set(shapes.values())) != 1 or len(shapes["weights"]) != 1 or not shapes["weights"][0]:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"the components of a mixture must all have shape (Q,), got {listed}")
    return tuple(values.values())
