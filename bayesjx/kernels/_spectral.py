"""Kernels given by their spectrum: mixtures of frequencies with bands of two shapes."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from .._core import compiled, positive_field
from ._kernel import AbstractKernel, floating


class SpectralMixture(AbstractKernel):
    r"""$\sum_q w_q e^{-a_q \tau^2} \cos(2 \pi \mu_q \tau)$, of one coordinate.

    Its spectrum is a mixture of normal densities around the frequencies $\pm\mu_q$; any stationary
    covariance is the limit of such.

    Args:
        weights: variances $w_q$ of the components, not negative, shape `(Q,)`.
        rates: $a_q$, positive, shape `(Q,)`, in inverse squared units of the input.
        frequencies: $\mu_q$, not negative, shape `(Q,)`, in cycles per unit of the input.

    Raises:
        ValueError: the shapes differ.

    References:
        Wilson and Adams (2013), "Gaussian process kernels for pattern discovery and
        extrapolation", ICML.
    """

    weights: jax.Array = positive_field()
    rates: jax.Array = positive_field()
    frequencies: jax.Array = positive_field()

    def __init__(self, weights: Any, rates: Any, frequencies: Any):
        self.weights, self.rates, self.frequencies = _components(
            weights=weights, rates=rates, frequencies=frequencies
        )

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return _mixture(self, x, y, self.rates, _normal_decay)

    def variances(self, x: jax.Array) -> jax.Array:
        return jnp.full(len(x), jnp.sum(self.weights), x.dtype)


class StudentMixture(AbstractKernel):
    r"""$\sum_q w_q (1 + z + z^2/3) e^{-z} \cos(2 \pi \mu_q \tau)$, $z^2 = 5 \rho_q^2 \tau^2$.

    Its spectrum is a mixture of Student's t densities with five degrees of freedom: sharp lines
    with heavy tails, as of processes that are twice differentiable.

    Args:
        weights: variances $w_q$ of the components, not negative, shape `(Q,)`.
        rates: $\rho_q$, positive, shape `(Q,)`, in inverse units of the input.
        frequencies: $\mu_q$, not negative, shape `(Q,)`, in cycles per unit of the input.

    Raises:
        ValueError: the shapes differ.

    References:
        Fang, Cooley, Long, Li, Kirby and Zhe (2024), "Solving high frequency and multi-scale PDEs
        with Gaussian processes", ICLR.
    """

    weights: jax.Array = positive_field()
    rates: jax.Array = positive_field()
    frequencies: jax.Array = positive_field()

    def __init__(self, weights: Any, rates: Any, frequencies: Any):
        self.weights, self.rates, self.frequencies = _components(
            weights=weights, rates=rates, frequencies=frequencies
        )

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return _mixture(self, x, y, self.rates, _student_decay)

    def variances(self, x: jax.Array) -> jax.Array:
        return jnp.full(len(x), jnp.sum(self.weights), x.dtype)


def _normal_decay(lag: jax.Array, rate: jax.Array) -> jax.Array:
    return jnp.exp(-rate * lag**2)


def _student_decay(lag: jax.Array, rate: jax.Array) -> jax.Array:
    z = 5**0.5 * rate * jnp.abs(lag)
    return (1 + z + z**2 / 3) * jnp.exp(-z)


def _mixture(kernel: Any, x: jax.Array, y: jax.Array, rates: jax.Array, decay: Any) -> jax.Array:
    if x.shape[1] != 1:
        raise ValueError(
            f"{type(kernel).__name__} is of one coordinate and points have {x.shape[1]}; multiply "
            "one for each, by .on(dim)"
        )
    components = tuple(c.astype(x.dtype) for c in (kernel.weights, rates, kernel.frequencies))
    return _waves(x - y[:, 0], components, decay)


@compiled
def _waves(lag: jax.Array, components: tuple[jax.Array, ...], decay: Any) -> jax.Array:
    def add(total: jax.Array, component: Any) -> tuple[jax.Array, None]:
        weight, rate, frequency = component
        wave = jnp.cos(2 * jnp.pi * frequency * lag)
        return total + weight * decay(lag, rate) * wave, None

    return jax.lax.scan(add, jnp.zeros_like(lag), components)[0]  # no (Q, n, m) array


def _components(**given: Any) -> tuple[jax.Array, ...]:
    shapes = {name: jnp.shape(value) for name, value in given.items()}
    if len(set(shapes.values())) != 1 or len(shapes["weights"]) != 1:
        listed = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"the components of a mixture must all have shape (Q,), got {listed}")
    return tuple(floating(name, value) for name, value in given.items())
