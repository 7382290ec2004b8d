"""A linear layer with a sparse set of trainable weights."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Inexact

from ._checks import checked_arrays
from ._sparse_operator import AbstractSparse


class SubspaceLinear(eqx.Module):
    r"""Linear layer $x \mapsto x (W_0 + W)$ with $W_0$ frozen and $W$ sparse.

    Inference sees the active entries only: they are all that has a gradient, and with it memory in
    an optimiser. With $W_0$ the cost is that of the dense product; without, that of the sparse one.

    Attributes:
        base: $W_0$, shape `(K, N)`, or None for zero. No gradient goes to it.
        active: $W$, for example `bayesjx.ops.GroupedColumns`.

    Raises:
        ValueError: shapes or types of the two differ, or `active` is not a sparse layout.

    Example:
        ```python
        layer = ops.SubspaceLinear(None, ops.GroupedColumns.from_indices((K, N), index, values))
        moving, fixed = eqx.partition(layer, layer.trainable())
        ```

    References:
        Li et al. (2024), "Training Bayesian neural networks with sparse subspace variational
        inference", ICLR: fixed budgets of active weights in variational inference.
    """

    base: Inexact[Array, "K N"] | None
    active: AbstractSparse

    def __init__(self, base: Any, active: Any):
        if not isinstance(active, AbstractSparse):
            raise ValueError(
                "active must be one of BlockSparse, GroupedColumns and EntrySparse; got "
                f"{type(active).__name__}"
            )
        if base is not None:
            (base,) = checked_arrays("SubspaceLinear", {"base": base})
            if base.shape != active.shape or base.dtype != active.dtype:
                raise ValueError(
                    f"base must be as active, {active.shape} of {active.dtype}; got {base.shape} "
                    f"of {base.dtype}"
                )
        self.base, self.active = base, active

    def __call__(self, x: jax.Array, *, key: Any = None) -> Inexact[Array, "*b N"]:
        """The outputs, shape `(..., N)`, for inputs of shape `(..., K)`.

        Args:
            x: one input or any batch of them.
            key: ignored; an argument of every layer in `equinox.nn.Sequential`.
        """
        del key
        if jnp.ndim(x) == 0 or jnp.shape(x)[-1] != self.active.shape[0]:
            raise ValueError(f"x must have shape (..., {self.active.shape[0]}), got {jnp.shape(x)}")
        out = x @ self.active
        return out if self.base is None else out + x @ lax.stop_gradient(self.base)

    def trainable(self) -> SubspaceLinear:
        """The layer with True in place of the active values and False elsewhere.

        A filter for `equinox.partition`, which without it would keep the base for training too.
        """
        nothing = jax.tree.map(lambda _: False, self)
        return eqx.tree_at(lambda layer: layer.active.values, nothing, True)
