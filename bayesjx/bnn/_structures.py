"""Structures of the curvature in Laplace's approximation, and the Gaussians that they make."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float, Int

from .. import ops
from .._core import (
    cho_solve,
    cholesky_each,
    compiled,
    eigenvalues,
    map_chunks,
    TracedFunction,
)
from ..sbl import condition, condition_products, ProductsPosterior, WeightPosterior


class AbstractLogdet(eqx.Module):
    r"""Abstract base class of $\log\det(c H + \Delta)$ as a function of prior and noise."""

    @abc.abstractmethod
    def __call__(self, precision: Float[Array, " L"], scale: Float[Array, ""]) -> jax.Array:
        """For prior precisions of the layers, and what the curvature is multiplied with."""


class SpectralLogdet(AbstractLogdet):
    """From eigenvalues, each of which belongs to one layer."""

    values: Float[Array, " m"]
    layer: Int[Array, " m"]

    def __call__(self, precision: Float[Array, " L"], scale: Float[Array, ""]) -> jax.Array:
        return jnp.sum(jnp.log(scale * self.values + precision[self.layer]))


class DenseLogdet(AbstractLogdet):
    r"""From the matrix: a Cholesky factor of $I + c \Delta^{-1/2} H \Delta^{-1/2}$ each time."""

    matrix: Float[Array, "m m"]
    layer: Int[Array, " m"]

    def __call__(self, precision: Float[Array, " L"], scale: Float[Array, ""]) -> jax.Array:
        each = precision[self.layer]
        half = 1 / jnp.sqrt(each)
        inside = scale * half[:, None] * self.matrix * half
        system = jnp.eye(each.size, dtype=each.dtype) + inside
        return ops.Dense(system, ops.psd).psd_logdet() + jnp.sum(jnp.log(each))


class RowsLogdet(AbstractLogdet):
    """The same from the products of rows, one matrix for each layer."""

    products: Float[Array, "L r r"]
    sizes: Float[Array, " L"]

    def __call__(self, precision: Float[Array, " L"], scale: Float[Array, ""]) -> jax.Array:
        inside = scale * jnp.tensordot(1 / precision, self.products, axes=1)
        system = jnp.eye(len(inside), dtype=inside.dtype) + inside
        return ops.Dense(system, ops.psd).psd_logdet() + self.sizes @ jnp.log(precision)


class AbstractWeights(eqx.Module):
    """Abstract base class of Gaussians of the weights around the network's."""

    @abc.abstractmethod
    def logdet(self) -> Float[Array, ""]:
        """Log-determinant of the precision, scalar."""

    @abc.abstractmethod
    def solve(self, gradient: Float[Array, " m"]) -> Float[Array, " m"]:
        """The covariance times a vector."""

    @abc.abstractmethod
    def covariance_of(self, rows: Float[Array, "*b k m"]) -> Float[Array, "*b k k"]:
        """Covariances of combinations of the weights."""

    @abc.abstractmethod
    def sample(self, key: jax.Array, num: int) -> Float[Array, "{num} m"]:
        """Draws of what is added to the network's weights."""


class AbstractStructure(eqx.Module):
    """Abstract base class of curvatures of a log likelihood, each in its structure.

    `layer` says of each weight, or direction, which layer's prior precision it has.
    """

    layer: eqx.AbstractVar[Int[Array, " m"]]

    @abc.abstractmethod
    def log_determinant(self, num_layers: int) -> AbstractLogdet:
        """The log-determinant of the posterior precision, prepared for many evaluations.

        Args:
            num_layers: that have a prior precision each; 1 if they share one.
        """

    @abc.abstractmethod
    def weights(self, precision: Float[Array, " L"], scale: Float[Array, ""]) -> AbstractWeights:
        """The Gaussian of the weights."""


class GramStructure(AbstractStructure):
    """The whole matrix, where there are no more weights than values of the function."""

    layer: Int[Array, " m"]
    matrix: Float[Array, "m m"]

    def log_determinant(self, num_layers: int) -> AbstractLogdet:
        if num_layers > 1:
            return DenseLogdet(self.matrix, self.layer)
        return SpectralLogdet(jnp.maximum(eigenvalues(self.matrix), 0), 0 * self.layer)

    def weights(self, precision: Float[Array, " L"], scale: Float[Array, ""]) -> DenseWeights:
        each = precision[self.layer]
        zero = jnp.zeros_like(each)
        core = condition_products(self.matrix, zero, noise_var=1 / scale, prior_var=1 / each)
        return DenseWeights(core, core.logdet + jnp.sum(jnp.log(each)))


class RowsStructure(AbstractStructure):
    """The rows of a root, where there are fewer values of the function than weights."""

    layer: Int[Array, " m"]
    rows: Float[Array, "r m"]

    def log_determinant(self, num_layers: int) -> AbstractLogdet:
        r, m = self.rows.shape
        if num_layers == 1:
            values = jnp.maximum(eigenvalues(self.rows @ self.rows.T), 0)
            return SpectralLogdet(jnp.pad(values, (0, m - r)), 0 * self.layer)
        chosen = self.layer == jnp.arange(num_layers)[:, None]
        products = jax.lax.map(lambda c: (self.rows * c) @ self.rows.T, chosen)
        return RowsLogdet(products, jnp.sum(chosen, axis=1).astype(self.rows.dtype))

    def weights(self, precision: Float[Array, " L"], scale: Float[Array, ""]) -> DenseWeights:
        each = precision[self.layer]
        zero = jnp.zeros_like(self.rows[:, 0])
        core = condition(self.rows, zero, noise_var=1 / scale, prior_var=1 / each)
        logdet = core.logdet + len(zero) * jnp.log(scale)
        return DenseWeights(core, logdet + jnp.sum(jnp.log(each)))


class DenseWeights(AbstractWeights):
    """By the posterior of the weights of a linear model."""

    core: WeightPosterior | ProductsPosterior
    log_determinant: Float[Array, ""]

    def logdet(self) -> Float[Array, ""]:
        return self.log_determinant

    def solve(self, gradient: Float[Array, " m"]) -> Float[Array, " m"]:
        core = self.core
        if isinstance(core, ProductsPosterior):
            return core.covariance() @ gradient
        # The covariance is the prior's less what the data explain; nothing of m x m is formed.
        prior = core.prior_var * gradient
        design = jnp.asarray(core.design)
        seen = design @ prior
        half = cho_solve((core.system.tril, True), seen)
        return prior - core.prior_var * (design.T @ half)

    def covariance_of(self, rows: Float[Array, "*b k m"]) -> Float[Array, "*b k k"]:
        return self.core.covariance_of(rows)

    def sample(self, key: jax.Array, num: int) -> Float[Array, "{num} m"]:
        return jnp.asarray(self.core.sample(key, (num,))) - self.core.mean


class DiagStructure(AbstractStructure):
    """The diagonal."""

    layer: Int[Array, " m"]
    diagonal: Float[Array, " m"]

    def log_determinant(self, num_layers: int) -> AbstractLogdet:
        return SpectralLogdet(self.diagonal, self.layer if num_layers > 1 else 0 * self.layer)

    def weights(self, precision: Float[Array, " L"], scale: Float[Array, ""]) -> DiagWeights:
        return DiagWeights(scale * self.diagonal + precision[self.layer])


class DiagWeights(AbstractWeights):
    """Independent weights."""

    precision: Float[Array, " m"]

    def logdet(self) -> Float[Array, ""]:
        return jnp.sum(jnp.log(self.precision))

    def solve(self, gradient: Float[Array, " m"]) -> Float[Array, " m"]:
        return gradient / self.precision

    def covariance_of(self, rows: Float[Array, "*b k m"]) -> Float[Array, "*b k k"]:
        return (rows / self.precision) @ rows.mT

    def sample(self, key: jax.Array, num: int) -> Float[Array, "{num} m"]:
        noise = random.normal(key, (num, self.precision.size), self.precision.dtype)
        return noise / jnp.sqrt(self.precision)


@compiled
def covariances_of_rows(
    weights: Any, rows: TracedFunction, vector: jax.Array, x: jax.Array, chunk_size: int | None
) -> jax.Array:
    """The same by the Jacobian's rows, whose function is `rows(vector, x)`, shape `(p, m)`."""

    def of_some(x: jax.Array) -> jax.Array:
        return weights.covariance_of(jax.vmap(lambda x: rows(vector, x))(x))

    return map_chunks(of_some, x, chunk_size)


def joint_tril(covariance: Float[Array, "n p p"]) -> Float[Array, "n p p"]:
    """Roots of covariances that may be singular: with a rounding of each on its diagonal."""
    size = covariance.shape[-1]
    scale = jnp.trace(covariance, axis1=-2, axis2=-1) / size
    eps = 10 * size * jnp.finfo(covariance.dtype).eps
    added = eps * scale + jnp.finfo(covariance.dtype).tiny
    return cholesky_each(covariance + added[:, None, None] * jnp.eye(size, dtype=covariance.dtype))
