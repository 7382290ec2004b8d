"""Roots of block-diagonal weights, row by row, as Gauss-Newton matrices take them."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Inexact

from .._core import each, eigh
from ._block_diag import BlockDiag
from ._categorical import CategoricalCovariance
from ._diagonal import Diag, ScaledIdentity


class CategoricalRows(eqx.Module):
    r"""Roots $\mathrm{diag}(\sqrt{p}) - p \sqrt{p}^\top$ of categorical covariances.

    Attributes:
        probs: $p$, shape `(n, C)`, or `(C,)` of one datum.
    """

    probs: Inexact[Array, "*n C"]


@functools.singledispatch
def weight_roots(weight: Any, num: int) -> Any:
    r"""The root $R_i$ of each block $W_i = R_i R_i^\top$ of a weight, for `ops.times_root`.

    Args:
        weight: an `ops.ScaledIdentity`, `ops.Diag`, `ops.BlockDiag` of one array or
            `ops.CategoricalCovariance`; negative curvature counts as none.
        num: `n`, the number of blocks.

    Returns:
        A pytree of arrays with a leading axis of `n`: multiples `(n, 1)` of the identity,
        diagonals `(n, p)`, matrices `(n, p, p)`, or categorical ones by their probabilities.

    Raises:
        ValueError: another kind of operator, or of another size.
    """
    raise ValueError(
        f"gauss_newton: {type(weight).__name__} is not known as a weight of data by themselves: it "
        "must be an ops.ScaledIdentity, ops.Diag, ops.BlockDiag of one array or "
        "ops.CategoricalCovariance"
    )


@weight_roots.register
def _(weight: ScaledIdentity, num: int) -> Any:
    return jnp.full((num, 1), _sqrt(weight.scale))


@weight_roots.register
def _(weight: Diag, num: int) -> Any:
    return _sqrt(weight.entries).reshape(num, -1)


@weight_roots.register
def _(weight: BlockDiag, num: int) -> Any:
    blocks = weight.blocks
    if isinstance(blocks, tuple) or blocks.shape[0] != num or blocks.shape[1] != blocks.shape[2]:
        raise ValueError(
            f"gauss_newton: a BlockDiag as weight must have one array with a square block for each "
            f"of the {num} data"
        )
    if blocks.shape[1] == 1:
        return _sqrt(blocks[:, 0])
    values, vectors = each(eigh, 0.5 * (blocks + blocks.mT))
    return vectors * _sqrt(values)[:, None]


@weight_roots.register
def _(weight: CategoricalCovariance, num: int) -> Any:
    if len(weight.probs) != num:
        raise ValueError(
            f"gauss_newton: {len(weight.probs)} categorical variables as weight of {num} data"
        )
    return CategoricalRows(weight.probs)


def times_root(root: Any, f: jax.Array) -> jax.Array:
    r"""$R^\top f$ for the values of one datum.

    Args:
        root: of one datum, a row of what `weight_roots` made: a diagonal `(p,)` or `(1,)`, a
            matrix `(p, r)`, or `CategoricalRows` of `(C,)`.
        f: shape `(p,)`, or `(p, k)` for columns.

    Raises:
        ValueError: `root` is none of these, or `f` has another shape.
    """
    array = root.probs if isinstance(root, CategoricalRows) else root
    if jnp.ndim(array) not in (1, 2) or (jnp.ndim(array) == 2 and array is not root):
        raise ValueError(
            "times_root: root must be that of one datum, of shape (p,), (1,) or (p, r), or "
            f"CategoricalRows of (C,); got shape {jnp.shape(array)}"
        )
    size = array.shape[0]
    if f.ndim not in (1, 2) or (size not in (1, len(f)) if array is root else size != len(f)):
        raise ValueError(
            f"times_root: f must have shape ({size},) or ({size}, k) for a root of shape "
            f"{array.shape}, got {f.shape}"
        )
    if isinstance(root, CategoricalRows):
        return (_sqrt(root.probs) * (f - root.probs @ f).T).T
    return root.T @ f if root.ndim == 2 else (root * f.T).T


def _sqrt(x: jax.Array) -> jax.Array:
    positive = x > 0
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)
