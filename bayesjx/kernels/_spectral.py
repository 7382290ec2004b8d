"""Kernels given by their spectrum: mixtures of frequencies with bands of two shapes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints

from .._core import compiled, constrained_field, nan_unless_valid
from ._kernel import AbstractKernel
from ._parameters import numbers


class SpectralMixture(AbstractKernel):
    r"""$\sum_q w_q e^{-a_q \tau^2} \cos(2 \pi \mu_q \tau)$, of one coordinate.

    Its spectrum is a mixture of normal densities around the frequencies $\pm\mu_q$; any stationary
    covariance is the limit of such.

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

    weights: jax.Array = constrained_field(constraints.nonnegative)
    rates: jax.Array = constrained_field(constraints.nonnegative)
    frequencies: jax.Array = constrained_field(constraints.nonnegative)

    def __init__(self, weights: Any, rates: Any, frequencies: Any):
        self.weights, self.rates, self.frequencies = _components(
            weights=weights, rates=rates, frequencies=frequencies
        )

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return _mixture(self, x, y, _normal_decay)

    def variances(self, x: jax.Array) -> jax.Array:
        return _variances(self, x)


class StudentMixture(AbstractKernel):
    r"""$\sum_q w_q (1 + z + z^2/3) e^{-z} \cos(2 \pi \mu_q \tau)$, $z^2 = 5 \rho_q^2 \tau^2$.

    Its spectrum is a mixture of Student's t densities with five degrees of freedom: sharp lines
    with heavy tails, as of processes that are twice differentiable.

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

    weights: jax.Array = constrained_field(constraints.nonnegative)
    rates: jax.Array = constrained_field(constraints.nonnegative)
    frequencies: jax.Array = constrained_field(constraints.nonnegative)

    def __init__(self, weights: Any, rates: Any, frequencies: Any):
        self.weights, self.rates, self.frequencies = _components(
            weights=weights, rates=rates, frequencies=frequencies
        )

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return _mixture(self, x, y, _student_decay)

    def variances(self, x: jax.Array) -> jax.Array:
        return _variances(self, x)


def _normal_decay(lag: jax.Array, rate: jax.Array) -> jax.Array:
    return jnp.exp(-rate * lag**2)


def _student_decay(lag: jax.Array, rate: jax.Array) -> jax.Array:
    # Of the absolute lag, whose derivatives of one side are all of the four that exist; the rule of
    # `matern` would be lost in a scan.
    z = 5**0.5 * rate * jnp.abs(lag)
    return (1 + z + z**2 / 3) * jnp.exp(-z)


def _mixture(kernel: Any, x: jax.Array, y: jax.Array, decay: Any) -> jax.Array:
    _check_one_coordinate(kernel, x)
    parts = nan_unless_valid(kernel, kernel.weights), kernel.rates, kernel.frequencies
    return _waves(x - y[:, 0], tuple(jnp.asarray(part, x.dtype) for part in parts), decay)


@compiled
def _waves(lag: jax.Array, components: tuple[jax.Array, ...], decay: Any) -> jax.Array:
    def add(total: jax.Array, component: Any) -> tuple[jax.Array, None]:
        weight, rate, frequency = component
        wave = jnp.cos(2 * jnp.pi * frequency * lag)
        return total + weight * decay(lag, rate) * wave, None

    return jax.lax.scan(add, jnp.zeros_like(lag), components)[0]  # no (Q, n, m) array


def _variances(kernel: Any, x: jax.Array) -> jax.Array:
    _check_one_coordinate(kernel, x)
    return jnp.full(len(x), jnp.sum(nan_unless_valid(kernel, kernel.weights)), x.dtype)


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
