"""Kernels of inner products: linear, polynomial, and of random networks (arc-cosine)."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._core import positive_field
from ._kernel import AbstractKernel, floating, scalar


class Linear(AbstractKernel):
    r"""$(x - c)^\top S (x' - c)$: linear functions with independent normal slopes.

    Args:
        variance: of the slopes, not negative, scalar or shape `(d,)`, $S$ its diagonal.
        centre: the point $c$ where all functions are 0, scalar or shape `(d,)`.
    """

    centre: jax.Array
    variance: jax.Array = positive_field()

    def __init__(self, variance: Any = 1.0, centre: Any = 0.0):
        self.variance = floating("variance", variance)
        self.centre = jnp.asarray(centre, float)

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        centre = self.centre.astype(x.dtype)
        return ((x - centre) * self.variance.astype(x.dtype)) @ (y - centre).T

    def variances(self, x: jax.Array) -> jax.Array:
        return jnp.sum((x - self.centre.astype(x.dtype)) ** 2 * self.variance.astype(x.dtype), -1)


class Polynomial(AbstractKernel):
    r"""$(s\, x^\top x' + b)^p$: polynomials up to a degree.

    Args:
        degree: $p$, a positive integer.
        variance: $s$, not negative, scalar.
        offset: $b$, not negative, scalar; above 0 it lets in the lower degrees.
    """

    degree: int = eqx.field(static=True)
    variance: jax.Array = positive_field()
    offset: jax.Array = positive_field()

    def __init__(self, degree: int = 2, variance: Any = 1.0, offset: Any = 1.0):
        if not isinstance(degree, int) or degree < 1:
            raise ValueError(f"degree must be a positive integer, got {degree!r}")
        self.degree = degree
        self.variance = scalar("variance", variance)
        self.offset = scalar("offset", offset)

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        return self._of(x @ y.T)

    def variances(self, x: jax.Array) -> jax.Array:
        return self._of(jnp.sum(x**2, axis=1))

    def _of(self, product: jax.Array) -> jax.Array:
        dtype = product.dtype
        return (self.variance.astype(dtype) * product + self.offset.astype(dtype)) ** self.degree


class ArcCosine(AbstractKernel):
    r"""Covariance of a layer of infinitely many units, $\|\tilde x\|^p \|\tilde x'\|^p J_p / \pi$.

    The inputs are scaled and get a bias, $\tilde x = (x / \ell, b)$; $J_p$ is a function of the
    angle between $\tilde x$ and $\tilde x'$. With order 1 it is twice the expected product of two
    rectified linear units with standard normal weights; order 0 has steps, order 2 squares.

    Args:
        order: 0, 1 or 2.
        lengthscale: positive, scalar or shape `(d,)`.
        bias: scalar.
        variance: not negative, scalar.

    References:
        Cho and Saul (2009), "Kernel methods for deep learning", NeurIPS, equations 3 to 6.
    """

    order: int = eqx.field(static=True)
    bias: jax.Array
    lengthscale: jax.Array = positive_field()
    variance: jax.Array = positive_field()

    def __init__(
        self, order: int = 1, lengthscale: Any = 1.0, bias: Any = 1.0, variance: Any = 1.0
    ):
        if order not in (0, 1, 2):
            raise ValueError(f"order must be 0, 1 or 2, got {order!r}")
        self.order = order
        self.lengthscale = floating("lengthscale", lengthscale)
        self.bias = scalar("bias", bias)
        self.variance = scalar("variance", variance)

    def pairwise(self, x: jax.Array, y: jax.Array) -> jax.Array:
        x_bar, y_bar = self._augmented(x), self._augmented(y)
        size_x, size_y = (jnp.sqrt(jnp.sum(z**2, axis=1)) for z in (x_bar, y_bar))
        sizes = size_x[:, None] * size_y
        zero = sizes == 0
        cosine = jnp.where(zero, 0.0, x_bar @ y_bar.T / jnp.where(zero, 1.0, sizes))
        scale = self.variance.astype(x.dtype) / jnp.pi
        return scale * sizes**self.order * _ANGULAR[self.order](jnp.clip(cosine, -1.0, 1.0))

    def variances(self, x: jax.Array) -> jax.Array:
        squares = jnp.sum(self._augmented(x) ** 2, axis=1)
        at_equal = (1.0, 1.0, 3.0)[self.order]  # J_p / π where the angle is 0
        return self.variance.astype(x.dtype) * at_equal * squares**self.order

    def _augmented(self, x: jax.Array) -> jax.Array:
        bias = jnp.full((len(x), 1), self.bias, x.dtype)
        return jnp.concatenate([x / self.lengthscale.astype(x.dtype), bias], axis=1)


# As functions of the cosine c, with their own derivatives: that of arccos is infinite at c = ±1,
# those of J_1 and J_2 are not: J_1' = π - θ and J_2' = 4 J_1.


@jax.custom_jvp
def _angular_1(c: jax.Array) -> jax.Array:
    return _sine(c) + _open_angle(c) * c


@_angular_1.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (c,), (change,) = primals, tangents
    return _angular_1(c), _open_angle(c) * change


@jax.custom_jvp
def _angular_2(c: jax.Array) -> jax.Array:
    return 3 * _sine(c) * c + _open_angle(c) * (1 + 2 * c**2)


@_angular_2.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (c,), (change,) = primals, tangents
    return _angular_2(c), 4 * _angular_1(c) * change


@jax.custom_jvp
def _open_angle(c: jax.Array) -> jax.Array:
    """π - θ."""
    return jnp.pi - jnp.arccos(c)


@_open_angle.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # Infinite at c = ±1, where it is cut off: there order 0 is not differentiable.
    (c,), (change,) = primals, tangents
    smallest = jnp.finfo(c.dtype).eps
    return _open_angle(c), change / jnp.sqrt(jnp.maximum((1 - c) * (1 + c), smallest))


def _sine(c: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.maximum((1 - c) * (1 + c), 0))


_ANGULAR = (_open_angle, _angular_1, _angular_2)
