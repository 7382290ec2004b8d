"""Kernels of inner products: linear, polynomial and arc-cosine."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from .._core import constrained_field, nan_unless_valid, whole_number
from ._distances import at_most, safe_sqrt, squared_distances
from ._kernel import AbstractKernel
from ._parameters import (
    along,
    finite,
    finite_scalar,
    numbers,
    of_coordinates,
    one_or_each,
    scalar,
    valid_variance,
)


class Linear(AbstractKernel):
    r"""Linear kernel $(x - c)^\top S (x' - c)$: linear functions with normal slopes.

    Args:
        variance: of the slopes, not negative, scalar or shape `(d,)`, $S$ its diagonal.
        centre: the point $c$ where all functions are 0, scalar or shape `(d,)`.
    """

    centre: Float[Array, "*c"]
    variance: Float[Array, "*d"] = constrained_field(constraints.nonnegative)

    def __init__(self, variance: Any = 1.0, centre: Any = 0.0):
        self.variance = one_or_each("variance", numbers("variance", variance))
        self.centre = one_or_each("centre", finite("centre", centre))

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        centre = along(self, "centre", x)
        variance = nan_unless_valid(self, along(self, "variance", x))
        return ((x - centre) * variance) @ (y - centre).T

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        centre = along(self, "centre", x)
        variance = nan_unless_valid(self, along(self, "variance", x))
        return jnp.sum((x - centre) ** 2 * variance, axis=1)


class Polynomial(AbstractKernel):
    r"""Polynomial kernel $(s\, x^\top x' + b)^p$.

    Args:
        degree: $p$, a positive integer.
        variance: $s$, not negative, scalar.
        offset: $b$, not negative, scalar; above 0 it lets in the lower degrees.
    """

    degree: int = eqx.field(static=True)
    variance: Float[Array, ""] = constrained_field(constraints.nonnegative)
    offset: Float[Array, ""] = constrained_field(constraints.nonnegative)

    def __init__(self, degree: int = 2, variance: Any = 1.0, offset: Any = 1.0):
        self.degree = whole_number("degree", degree)
        self.variance = scalar("variance", variance)
        self.offset = scalar("offset", offset)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        return self._of(x @ y.T)

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        return self._of(jnp.sum(x**2, axis=1))

    def _of(self, product: jax.Array) -> jax.Array:
        slope, offset = valid_variance(self, product.dtype), jnp.asarray(self.offset, product.dtype)
        return (slope * product + offset) ** self.degree


class ArcCosine(AbstractKernel):
    r"""Arc-cosine kernel of an infinitely wide layer, $\|\tilde x\|^p \|\tilde x'\|^p J_p / \pi$.

    The inputs are scaled and get a bias, $\tilde x = (x / \ell, b)$; $J_p$ is a function of the
    angle between $\tilde x$ and $\tilde x'$. With order 1 it is twice the expected product of two
    rectified linear units with standard normal weights; order 0 has steps, order 2 squares.

    Args:
        order: 0, 1 or 2.
        lengthscale: positive, scalar or shape `(d,)`.
        bias: of either sign, scalar.
        variance: not negative, scalar.

    References:
        Cho and Saul (2009), "Kernel methods for deep learning", NeurIPS, equations 3 to 6.
    """

    order: int = eqx.field(static=True)
    bias: Float[Array, ""]
    lengthscale: Float[Array, "*d"] = constrained_field(constraints.positive)
    variance: Float[Array, ""] = constrained_field(constraints.nonnegative)

    def __init__(
        self, order: int = 1, lengthscale: Any = 1.0, bias: Any = 1.0, variance: Any = 1.0
    ):
        if isinstance(order, bool) or not isinstance(order, int) or order not in (0, 1, 2):
            raise ValueError(f"order must be 0, 1 or 2, got {order!r:.80}")
        self.order = order
        self.lengthscale = of_coordinates("lengthscale", lengthscale)
        self.bias = finite_scalar("bias", bias)
        self.variance = scalar("variance", variance)

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        units_x, sizes_x = self._directions(x)
        units_y, sizes_y = (units_x, sizes_x) if y is x else self._directions(y)
        # 1 - cos θ is half the squared distance of unit vectors, which keeps small angles exact.
        apart = at_most(squared_distances(units_x, units_y) / 2, 2.0)
        # A point 0 (without bias) has no direction: it is at right angles to all but itself.
        apart = jnp.where((sizes_x == 0)[:, None] ^ (sizes_y == 0), 1.0, apart)
        scale = valid_variance(self, x.dtype) / jnp.pi
        sizes = (sizes_x[:, None] * sizes_y) ** self.order
        return scale * sizes * _ANGULAR[self.order](apart)

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        squares = jnp.sum(self._augmented(x) ** 2, axis=1)
        at_equal = (1.0, 1.0, 3.0)[self.order]  # J_p / π where the angle is 0
        return valid_variance(self, x.dtype) * at_equal * squares**self.order

    def _augmented(self, x: jax.Array) -> jax.Array:
        bias = jnp.full((len(x), 1), self.bias, x.dtype)
        return jnp.concatenate([x / along(self, "lengthscale", x), bias], axis=1)

    def _directions(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Augmented points of length 1, shape `(n, d + 1)`, and their lengths; 0 stays 0."""
        x = self._augmented(x)
        squares = jnp.sum(x**2, axis=1)
        root = safe_sqrt(squares)
        return x / root[:, None], jnp.where(squares == 0, 0.0, root)


# As functions of u = 1 - cos θ, with their own derivatives: that of the angle is infinite at u = 0
# and 2, those of J_1 and J_2 are not: J_0' = -1 / sin θ, J_1' = -J_0 and J_2' = -4 J_1.


@jax.custom_jvp
def _angular_0(u: jax.Array) -> jax.Array:
    """π - θ."""
    return 2 * jnp.arctan2(safe_sqrt(2 - u), safe_sqrt(u))


@_angular_0.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # Infinite where points have one direction, where it is cut off: order 0 is not differentiable
    # there. See `matern` of order 1/2.
    (u,), (change,) = primals, tangents
    smallest = jnp.finfo(u.dtype).eps
    return _angular_0(u), -change / jnp.sqrt(jnp.maximum(u * (2 - u), smallest))


@jax.custom_jvp
def _angular_1(u: jax.Array) -> jax.Array:
    return safe_sqrt(u * (2 - u)) + _angular_0(u) * (1 - u)


@_angular_1.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (u,), (change,) = primals, tangents
    return _angular_1(u), -_angular_0(u) * change


@jax.custom_jvp
def _angular_2(u: jax.Array) -> jax.Array:
    return 3 * safe_sqrt(u * (2 - u)) * (1 - u) + _angular_0(u) * (1 + 2 * (1 - u) ** 2)


@_angular_2.defjvp
def _(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (u,), (change,) = primals, tangents
    return _angular_2(u), -4 * _angular_1(u) * change


_ANGULAR = (_angular_0, _angular_1, _angular_2)
