"""The whitened features of inducing points, on which all sparse approximations are built."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp

from .._core import safe_cholesky, solve_triangular
from ..kernels import AbstractKernel
from ._arguments import checked_jitter
from ._structure import all_points


class InducingFeatures(eqx.Module):
    r"""$\phi(x) = L_u^{-1} k_u(x)$ with $K_{uu} = L_u L_u^\top$.

    Attributes:
        kernel: the covariance function.
        points: inducing points, shape `(m, d)`.
        tril: $L_u$, shape `(m, m)`.
        jitter: what was added to the diagonal of $K_{uu}$, scalar. The inducing variables are
            then values of the function with a noise of that variance: bounds stay bounds.
    """

    kernel: AbstractKernel
    points: jax.Array
    tril: jax.Array
    jitter: jax.Array

    def __call__(self, x: jax.Array) -> jax.Array:
        """Features of points `(n, d)`, shape `(m, n)`."""
        return solve_triangular(self.tril, self.kernel.gram(self.points, x), lower=True)

    def residual(self, x: jax.Array, features: jax.Array) -> jax.Array:
        r"""$k(x, x) - \|\phi(x)\|^2$, the variance that the inducing points leave, shape `(n,)`."""
        return jnp.maximum(self.kernel.diag(x) - jnp.sum(features**2, axis=0), 0)


def inducing_features(
    kernel: AbstractKernel, points: Any, jitter: float | None = None
) -> InducingFeatures:
    """Features of some inducing points.

    Args:
        kernel: the covariance function.
        points: shape `(m, d)` or `(m,)`.
        jitter: added to the diagonal, relative to its mean; by default 1e-6 in float64 and 1e-4
            in float32. It is there from the start, so that bounds are smooth in all parameters,
            and grows by `safe_cholesky` only where it does not suffice.

    Raises:
        ValueError: points of the wrong rank, none, or NaN; a negative `jitter`.
        RuntimeError: no jitter helped, or lengthscales or variances are not positive.
    """
    points = all_points(points, "points")
    jitter = checked_jitter(jitter, points.dtype)
    matrix = kernel.gram(points)
    start = jitter * jax.lax.stop_gradient(jnp.mean(jnp.diag(matrix)))
    factor = safe_cholesky(matrix + start * jnp.eye(len(points), dtype=points.dtype))
    return InducingFeatures(kernel, points, factor.tril, start + factor.jitter)
