"""Covariances of one-hot categorical vectors: their products without a matrix for each."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ._checks import checked_arrays, checked_size
from ._operator import AbstractOperator, unknown
from ._tags import psd


class CategoricalCovariance(AbstractOperator):
    r"""Block-diagonal matrix of the blocks $\mathrm{diag}(p_i) - p_i p_i^\top$.

    The covariances of one-hot vectors of `n` categorical variables. Minus the Hessian of the log
    density of a category in the logits is the same, whatever the category, and so is the Fisher
    information. A product takes $O(nC)$, and so does the memory: no `C x C` block is formed. The
    root is $\mathrm{diag}(\sqrt{p}) - p \sqrt{p}^\top$, exact where probabilities are 0, too. Ones
    are in the null space of each block, so that it has no inverse.

    Args:
        probs: $p$, shape `(n, C)`: rows that are not negative and sum to 1, which is believed.

    Raises:
        ValueError: `probs` is no matrix of floating-point numbers.
    """

    probs: Float[Array, "n C"]
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, probs: Any):
        self.probs = _checked("CategoricalCovariance", probs)
        self.tags = frozenset([psd])

    @property
    def shape(self) -> tuple[int, int]:
        return (self.probs.size, self.probs.size)

    @property
    def dtype(self) -> Any:
        return self.probs.dtype

    def transpose(self) -> CategoricalCovariance:
        return self

    def _mm(self, x: jax.Array) -> jax.Array:
        return _product(self.probs, self.probs, self.probs, x)

    _solve = unknown("solve")
    _logdet = unknown("logdet")

    def _diag(self) -> jax.Array:
        return (self.probs * (1 - self.probs)).reshape(-1)

    def _root(self) -> CategoricalRoot:
        return CategoricalRoot(self.probs)


class CategoricalRoot(AbstractOperator):
    r"""Block-diagonal matrix of the blocks $R = \mathrm{diag}(\sqrt{p}) - p \sqrt{p}^\top$.

    $R R^\top = \mathrm{diag}(p) - p p^\top$, as $p$ sums to 1.

    Args:
        probs: $p$, shape `(n, C)`.
        transposed: whether it is $R^\top$.
    """

    probs: Float[Array, "n C"]
    transposed: bool = eqx.field(static=True)
    tags: frozenset[object] = eqx.field(static=True)

    def __init__(self, probs: Any, transposed: bool = False):
        self.probs = _checked("CategoricalRoot", probs)
        self.transposed = transposed
        self.tags = frozenset()

    @property
    def shape(self) -> tuple[int, int]:
        return (self.probs.size, self.probs.size)

    @property
    def dtype(self) -> Any:
        return self.probs.dtype

    def transpose(self) -> CategoricalRoot:
        return CategoricalRoot(self.probs, not self.transposed)

    def _mm(self, x: jax.Array) -> jax.Array:
        root = _sqrt(self.probs)
        sides = (root, self.probs) if self.transposed else (self.probs, root)
        return _product(root, *sides, x)

    _solve = unknown("solve")
    _logdet = unknown("logdet")
    _root = unknown("root")

    def _diag(self) -> jax.Array:
        root = _sqrt(self.probs)
        return (root * (1 - self.probs)).reshape(-1)


def _product(d: jax.Array, u: jax.Array, v: jax.Array, x: jax.Array) -> jax.Array:
    r"""$(\mathrm{diag}(d_i) - u_i v_i^\top) x_i$ for every row, `x` of shape `(nC, k)`."""
    grid = x.reshape(*d.shape, x.shape[1])
    inner = jnp.einsum("nc,nck->nk", v, grid)
    return (d[..., None] * grid - u[..., None] * inner[:, None]).reshape(x.shape)


def _sqrt(probs: jax.Array) -> jax.Array:
    positive = probs > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, probs, 1)), 0)


def _checked(owner: str, probs: Any) -> jax.Array:
    (probs,) = checked_arrays(owner, {"probs": probs})
    if probs.ndim != 2 or probs.size == 0 or not jnp.issubdtype(probs.dtype, jnp.floating):
        raise ValueError(
            f"{owner}: probs must be real, of shape (n, C) with a row for each variable; got "
            f"{probs.dtype} of shape {probs.shape}"
        )
    checked_size(owner, probs.size)
    return probs
