"""Structures of the curvature by layers: Kronecker products, and the whole of one layer."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float, Int

from .. import ops
from .._core import compiled, map_chunks, sum_chunks, TracedFunction
from ._structures import (
    AbstractLogdet,
    AbstractStructure,
    AbstractWeights,
    DenseWeights,
    GramStructure,
    SpectralLogdet,
)
from ._taps import Seen


class KronStructure(AbstractStructure):
    """Kronecker products, one for each layer, decomposed once for all priors and noises.

    Attributes:
        layer: of each weight, its layer, in the order of the weights.
        vectors: eigenvectors of each block, $Q_B$ and $Q_A$.
        values: eigenvalues of each block, shape `(out, in)`.
        order: places among the weights of the elements of the blocks.
        block_layer: of each block.
    """

    layer: Int[Array, " m"]
    vectors: tuple[ops.Kron, ...]
    values: tuple[Float[Array, "_o _i"], ...]
    order: Int[Array, " m"]
    block_layer: tuple[int, ...] = eqx.field(static=True)

    def log_determinant(self, num_layers: int) -> AbstractLogdet:
        flat = jnp.concatenate([v.reshape(-1) for v in self.values])
        layer = self.block_layer if num_layers > 1 else (0,) * len(self.values)
        each = [jnp.full(v.size, i) for v, i in zip(self.values, layer, strict=True)]
        return SpectralLogdet(flat, jnp.concatenate(each))

    def weights(self, precision: Float[Array, " L"], scale: Float[Array, ""]) -> KronWeights:
        pairs = zip(self.values, self.block_layer, strict=True)
        total = [scale * v + precision[i] for v, i in pairs]
        return KronWeights(self.vectors, tuple(total), self.order)


class KronWeights(AbstractWeights):
    """Weights whose precision has Kronecker-structured eigenvectors, block by block."""

    vectors: tuple[ops.Kron, ...]
    values: tuple[Float[Array, "_o _i"], ...]
    order: Int[Array, " m"]

    def logdet(self) -> Float[Array, ""]:
        return jnp.sum(jnp.stack([jnp.sum(jnp.log(v)) for v in self.values]))

    def solve(self, gradient: Float[Array, " m"]) -> Float[Array, " m"]:
        turned = self._turned(gradient[None])
        return self._back([t / v for t, v in zip(turned, self.values, strict=True)])[0]

    def covariance_of(self, rows: Float[Array, "*b k m"]) -> Float[Array, "*b k k"]:
        lead = rows.shape[:-1]
        turned = self._turned(rows.reshape(-1, rows.shape[-1]))
        halves = [t / jnp.sqrt(v) for t, v in zip(turned, self.values, strict=True)]
        half = jnp.concatenate([h.reshape(*lead, -1) for h in halves], axis=-1)
        return half @ half.mT

    def of_views(self, views: tuple[Seen, ...]) -> Float[Array, "c p p"]:
        """Covariances of the function at some inputs, from what layers see there."""
        total: Any = 0.0
        for view, vectors, value in zip(views, self.vectors, self.values, strict=True):
            outer, inner = vectors.factors
            outputs, inputs = view.outputs @ outer, view.inputs @ inner  # (c, p, R, o), (c, R, i)
            if inputs.shape[1] == 1:
                variance = inputs[:, 0] ** 2 @ (1 / value).T
                half = outputs[:, :, 0] * jnp.sqrt(variance)[:, None]
            else:
                rows = jnp.einsum("cpro,cri->cpoi", outputs, inputs) / jnp.sqrt(value)
                half = rows.reshape(*rows.shape[:2], -1)
            total = total + half @ half.mT
        return total

    def sample(self, key: jax.Array, num: int) -> Float[Array, "{num} m"]:
        size = sum(v.size for v in self.values)
        noise = random.normal(key, (num, size), self.values[0].dtype)
        parts, start = [], 0
        for v in self.values:
            part = noise[:, start : start + v.size].reshape(num, *v.shape)
            parts.append(part / jnp.sqrt(v))
            start += v.size
        return self._back(parts)

    def _turned(self, rows: jax.Array) -> list[jax.Array]:
        """Rows `(k, m)` in the eigenvectors of each block, `(k, out, in)`."""
        ordered, parts, start = rows[:, self.order], [], 0
        for vectors, v in zip(self.vectors, self.values, strict=True):
            part = ordered[:, start : start + v.size].reshape(-1, *v.shape)
            outer, inner = vectors.factors
            parts.append(outer.T @ part @ inner)
            start += v.size
        return parts

    def _back(self, parts: list[jax.Array]) -> jax.Array:
        """The inverse."""
        turned = []
        for vectors, part in zip(self.vectors, parts, strict=True):
            outer, inner = vectors.factors
            turned.append((outer @ part @ inner.T).reshape(len(part), -1))
        joined = jnp.concatenate(turned, axis=1)
        return jnp.zeros_like(joined).at[:, self.order].set(joined)


class LayerWeights(AbstractWeights):
    """Dense weights of one linear layer, whose values' covariances take no rows."""

    dense: DenseWeights
    blocks: Float[Array, "o o i i"]
    order: Int[Array, " m"]

    def logdet(self) -> Float[Array, ""]:
        return self.dense.logdet()

    def solve(self, gradient: Float[Array, " m"]) -> Float[Array, " m"]:
        return self.dense.solve(gradient)

    def covariance_of(self, rows: Float[Array, "*b k m"]) -> Float[Array, "*b k k"]:
        return self.dense.covariance_of(rows)

    def of_views(self, views: tuple[Seen, ...]) -> Float[Array, "c p p"]:
        """Covariances of the function at some inputs, from what the layer sees there."""
        outputs, inputs = views[0].outputs[:, :, 0], views[0].inputs[:, 0]
        o, i = self.blocks.shape[1], self.blocks.shape[2]
        pairs = (inputs[:, :, None] * inputs[:, None]).reshape(-1, i * i)
        inner = (pairs @ self.blocks.reshape(o * o, i * i).T).reshape(-1, o, o)
        return outputs @ inner @ outputs.mT

    def sample(self, key: jax.Array, num: int) -> Float[Array, "{num} m"]:
        return self.dense.sample(key, num)


class LayerStructure(AbstractStructure):
    """The whole matrix of one linear layer."""

    layer: Int[Array, " m"]
    gram: GramStructure
    order: Int[Array, " m"]
    shape: tuple[int, int] = eqx.field(static=True)

    def log_determinant(self, num_layers: int) -> AbstractLogdet:
        return self.gram.log_determinant(num_layers)

    def weights(self, precision: Float[Array, " L"], scale: Float[Array, ""]) -> LayerWeights:
        dense = self.gram.weights(precision, scale)
        o, i = self.shape
        covariance = dense.core.covariance()[self.order][:, self.order]
        blocks = covariance.reshape(o, i, o, i).transpose(0, 2, 1, 3)
        return LayerWeights(dense, blocks, self.order)


@compiled
def layer_gram(
    look: TracedFunction, vector: jax.Array, data: Any, order: jax.Array, chunk_size: int | None
) -> jax.Array:
    r"""$\sum_n (G_n^\top G_n) \otimes a_n a_n^\top$ of one linear layer, `(m, m)`, in its order."""

    def of_some(part: Any) -> jax.Array:
        (view,) = jax.vmap(lambda datum: look(vector, datum))(part)
        outputs, inputs = view.outputs[:, :, 0], view.inputs[:, 0]
        weights = outputs.mT @ outputs
        o, i = weights.shape[-1], inputs.shape[-1]
        pairs = (inputs[:, :, None] * inputs[:, None]).reshape(-1, i * i)
        return weights.reshape(-1, o * o).T @ pairs

    found = sum_chunks(of_some, data, chunk_size)
    i = round(math.sqrt(found.shape[1]))
    o = round(math.sqrt(found.shape[0]))
    matrix = found.reshape(o, o, i, i).transpose(0, 2, 1, 3).reshape(o * i, o * i)
    back = jnp.argsort(order)
    return matrix[back][:, back]


@compiled
def covariances_of_views(
    weights: Any, look: TracedFunction, vector: jax.Array, x: jax.Array, chunk_size: int | None
) -> jax.Array:
    """Covariances `(n, p, p)` of the function at inputs, by what layers see there."""

    def of_some(x: jax.Array) -> jax.Array:
        return weights.of_views(jax.vmap(lambda x: look(vector, x))(x))

    return map_chunks(of_some, x, chunk_size)
