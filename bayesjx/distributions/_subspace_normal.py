"""A normal distribution whose covariance is diagonal but for a small subspace."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from numpyro.distributions import constraints

from .._core import solve_triangular
from ._vector_normal import AbstractVectorNormal


class SubspaceNormal(AbstractVectorNormal):
    r"""Normal distribution of $m + s \odot (u + Q (L - I) Q^\top u)$ for standard normal $u$.

    The covariance is $S (I + Q (L L^\top - I) Q^\top) S$ with $S = \mathrm{diag}(s)$: a diagonal
    changed on the span of $Q$ only, in either direction, which is what quasi-Newton methods know of
    an inverse Hessian. Sampling and densities take $O(d k)$, also for large $d$.

    Args:
        loc: mean $m$, shape `(d,)`.
        scale: positive $s$, shape `(d,)`.
        basis: $Q$ with orthonormal columns, shape `(d, k)`.
        inner_tril: lower triangular $L$ with positive diagonal, shape `(k, k)`.
    """

    arg_constraints = {
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
        "basis": constraints.independent(constraints.real, 2),
        "inner_tril": constraints.lower_cholesky,
    }
    pytree_data_fields = ("loc", "scale", "basis", "inner_tril")

    def __init__(
        self,
        loc: Any,
        scale: Any,
        basis: Any,
        inner_tril: Any,
        *,
        validate_args: bool | None = False,
    ):
        self.loc = loc
        self.scale = scale
        self.basis = basis
        self.inner_tril = inner_tril
        shapes = tuple(jnp.shape(x) for x in (loc, scale, basis, inner_tril))
        d, k = shapes[2] if len(shapes[2]) == 2 else (-1, -1)
        if shapes != ((d,), (d,), (d, k), (k, k)):
            raise ValueError(
                "SubspaceNormal takes shapes (d,), (d,), (d, k) and (k, k) for loc, scale, basis "
                f"and inner_tril; got {shapes}"
            )
        super().__init__((), (d,), validate_args=validate_args)

    @property
    def _mapped_ndim(self) -> int:
        return jnp.ndim(self.loc) - 1

    def _sample(self, key: Any, shape: tuple[int, ...]) -> jax.Array:
        noise = jax.random.normal(key, (*shape, *self.event_shape), self.loc.dtype)
        inside = noise @ self.basis
        return self.loc + self.scale * (
            noise + (inside @ self.inner_tril.T - inside) @ self.basis.T
        )

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        return self._batched_log_prob(value)

    def _log_prob(self, value: jax.Array) -> jax.Array:
        unit = (value - self.loc) / self.scale
        inside = unit @ self.basis
        columns = inside.reshape(-1, inside.shape[-1]).T  # one solve for all, no batch of them
        solved = solve_triangular(self.inner_tril, columns, lower=True)
        solved = jnp.sum(solved**2, 0).reshape(inside.shape[:-1])
        squares = jnp.sum(unit**2, -1) - jnp.sum(inside**2, -1) + solved
        return -0.5 * (squares + self.loc.size * jnp.log(2 * jnp.pi)) - self._log_det

    def _entropy(self) -> jax.Array:
        return 0.5 * self.loc.size * (1 + jnp.log(2 * jnp.pi)) + self._log_det

    @property
    def _log_det(self) -> jax.Array:
        return jnp.sum(jnp.log(self.scale)) + jnp.sum(jnp.log(jnp.diag(self.inner_tril)))

    def _variance(self) -> jax.Array:
        rows = self.basis @ self.inner_tril
        inside = jnp.sum(rows**2, -1) - jnp.sum(self.basis**2, -1)
        return self.scale**2 * (1 + inside)

    @property
    def precision_diagonal(self) -> jax.Array:
        """Diagonal of the inverse covariance, shape `(d,)`."""
        rows = solve_triangular(self.inner_tril, self.basis.T, lower=True)
        inside = jnp.sum(rows**2, 0) - jnp.sum(self.basis**2, -1)
        return (1 + inside) / self.scale**2

    def _covariance_matrix(self) -> jax.Array:
        dense = self.covariance_times(jnp.eye(self.loc.size, dtype=self.loc.dtype))
        return 0.5 * (dense + dense.T)  # symmetric to the last bit, as NumPyro asks for

    def covariance_times(self, columns: jax.Array) -> jax.Array:
        """The covariance times a matrix of shape `(d, c)`, without forming the covariance."""
        unit = self.scale[:, None] * columns
        inside = self.basis.T @ unit
        moved = self.inner_tril @ (self.inner_tril.T @ inside) - inside
        return self.scale[:, None] * (unit + self.basis @ moved)
