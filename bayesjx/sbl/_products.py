"""The posterior of Gaussian weights from the products of a design that is never held whole."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float

from .._core import checked_finite, compiled, number_array
from ._arguments import checked_variance
from ._weights import combinations, draws_around, from_products, WeightSpace


class ProductsPosterior(eqx.Module):
    r"""Posterior of the weights of $y = \Phi w + \epsilon$, $w_j \sim N(0, g_j)$, from products.

    It is made by `condition_products`; see `WeightPosterior`, which holds the design, too.

    Attributes:
        noise_var: $\sigma^2$, scalar.
        prior_var: $g$, shape `(m,)`.
        rhs: $\Phi^\top y$, shape `(m,)`.
        mean: posterior means, shape `(m,)`.
        explained: $\Phi^\top C^{-1} y$ for the covariance $C$ of the measurements, shape `(m,)`.
        effective_dof: the number of weights that the data determine, scalar.
        logdet: $\log\det C - n \log\sigma^2$, of `n` measurements, scalar.
        system: the factorisation.
    """

    noise_var: Float[Array, ""]
    prior_var: Float[Array, " m"]
    rhs: Float[Array, " m"]
    mean: Float[Array, " m"]
    explained: Float[Array, " m"]
    effective_dof: Float[Array, ""]
    logdet: Float[Array, ""]
    system: WeightSpace

    def log_evidence(self, square: Any, num_data: int) -> Float[Array, ""]:
        r"""Log marginal likelihood of the measurements, with all weights integrated out, scalar.

        A difference of squares, which loses digits where the weights explain nearly all.

        Args:
            square: $y^\top y$, scalar.
            num_data: number of measurements.
        """
        quadratic = square / self.noise_var - self.mean @ self.rhs / self.noise_var
        constant = num_data * (math.log(2 * math.pi) + jnp.log(self.noise_var))
        return -0.5 * (constant + self.logdet + quadratic)

    def covariance(self) -> Float[Array, "m m"]:
        """Posterior covariance of the weights, shape `(m, m)`."""
        return self.system.covariance

    def covariance_of(
        self, design: Float[Array | np.ndarray, "*batch k m"]
    ) -> Float[Array, "*batch k k"]:
        r"""Posterior covariances $A \Sigma A^\top$ of combinations, see `WeightPosterior`."""
        return self.system.covariance_of(combinations(design, len(self.mean)))

    def sample(
        self, key: jax.Array, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, "*sample m"]:
        """Joint draws of the weights, shape `(*sample_shape, m)`.

        Raises:
            ValueError: no key, or a shape that is no tuple of integers.
        """

        def deviations(key: jax.Array, num: int) -> jax.Array:
            white = random.normal(key, (len(self.mean), num), self.mean.dtype)
            return self.system.deviations(self.prior_var, white)

        return draws_around(self.mean, key, sample_shape, deviations)


def condition_products(gram: Any, rhs: Any, *, noise_var: Any, prior_var: Any) -> ProductsPosterior:
    r"""Bayesian linear regression from $\Phi^\top \Phi$ and $\Phi^\top y$.

    For designs that are summed chunk by chunk; the posterior is that of `condition`. Rows with
    noise of their own are divided by its standard deviation before, with `noise_var=1`.

    Args:
        gram: $\Phi^\top \Phi$, shape `(m, m)`.
        rhs: $\Phi^\top y$, shape `(m,)`.
        noise_var: $\sigma^2 > 0$, scalar.
        prior_var: $g \ge 0$, scalar or shape `(m,)`.

    Raises:
        ValueError: shapes that disagree, empty or NaN data, two types, a variance that is known to
            be out of range.
        RuntimeError: under `jit`, values that are not finite or out of range.
    """
    gram, rhs = number_array("gram", gram), number_array("rhs", rhs)
    shape = jnp.shape(gram)
    if len(shape) != 2 or shape[0] != shape[1] or jnp.shape(rhs) != shape[:1]:
        raise ValueError(
            f"condition_products: gram must be (m, m) and rhs (m,); got {shape} and "
            f"{jnp.shape(rhs)}"
        )
    dtype = gram.dtype
    if not jnp.issubdtype(dtype, jnp.floating) or rhs.dtype != dtype:
        raise ValueError(
            "condition_products: gram and rhs must hold real floating-point numbers of one type, "
            f"got {dtype} and {rhs.dtype}"
        )
    gram = checked_finite("gram", jnp.asarray(gram))
    rhs = checked_finite("rhs", jnp.asarray(rhs))
    noise_var = checked_variance("condition_products", "noise_var", noise_var, dtype)
    prior_var = checked_variance(
        "condition_products", "prior_var", prior_var, dtype, len(rhs), zero=True
    )
    return _conditioned(gram, rhs, noise_var, prior_var)


@compiled
def _conditioned(
    gram: jax.Array, rhs: jax.Array, noise_var: jax.Array, prior_var: jax.Array
) -> ProductsPosterior:
    found, system, dof = from_products(gram, rhs[:, None], noise_var, prior_var)
    mean, explained = found.mean[:, 0], found.score[:, 0]
    return ProductsPosterior(noise_var, prior_var, rhs, mean, explained, dof, found.logdet, system)
