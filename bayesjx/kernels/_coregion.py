"""Coregionalisation: covariances between outputs, as a kernel of their index."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int
from numpyro.distributions import constraints

from .._core import constrained_field, nan_unless_valid, refuse_where
from ._kernel import AbstractKernel
from ._parameters import finite, numbers


class Coregion(AbstractKernel):
    r"""Coregionalisation kernel $B = W W^\top + \mathrm{diag}(\kappa)$ of $p$ outputs.

    Points are the numbers $0, \dots, p - 1$ of the outputs, held as floats. Times a kernel of the
    other coordinates, `Coregion(W, kappa).on(-1) * RBF(1.0).on(slice(0, -1))`, it is the intrinsic
    coregionalisation model; `gp.icm` writes that. Other numbers are an error where they are
    known when traced; at run time the covariance is NaN.

    Args:
        factor: $W$, shape `(p, r)`: how the outputs load on $r$ shared functions.
        diagonal: $\kappa$, shape `(p,)`, not negative: variances of independent parts of each.

    Raises:
        ValueError: the shapes do not fit, or `diagonal` is known and negative.

    References:
        Bonilla, Chai and Williams (2007), "Multi-task Gaussian process prediction", NeurIPS;
        Alvarez, Rosasco and Lawrence (2012), "Kernels for vector-valued functions: a review",
        section 4.2.
    """

    factor: Float[Array, "p r"]
    diagonal: Float[Array, " p"] = constrained_field(constraints.nonnegative)

    def __init__(self, factor: Any, diagonal: Any):
        factor, diagonal = numbers("factor", factor), numbers("diagonal", diagonal)
        shape = factor.shape
        if len(shape) != 2 or 0 in shape or diagonal.shape != shape[:1]:
            raise ValueError(
                "Coregion: factor must have shape (p, r) and diagonal (p,), got "
                f"{shape} and {diagonal.shape}"
            )
        self.factor = finite("factor", factor)
        self.diagonal = diagonal

    @property
    def num_outputs(self) -> int:
        """Number of outputs, $p$."""
        return len(self.factor)

    def matrix(self) -> Float[Array, "p p"]:
        """Covariances of the outputs, $B$, shape `(p, p)`."""
        return nan_unless_valid(self, self.factor @ self.factor.T + jnp.diag(self.diagonal))

    def pairwise(self, x: Float[Array, "n d"], y: Float[Array, "m d"]) -> Float[Array, "n m"]:
        rows, row_is_one = self.index(x)
        columns, column_is_one = self.index(y)
        covariances = self.matrix().astype(x.dtype)[rows[:, None], columns]
        return jnp.where(row_is_one[:, None] & column_is_one, covariances, jnp.nan)

    def variances(self, x: Float[Array, "n d"]) -> Float[Array, " n"]:
        index, is_one = self.index(x)
        own = nan_unless_valid(self, jnp.sum(self.factor**2, axis=1) + self.diagonal)
        return jnp.where(is_one, own.astype(x.dtype)[index], jnp.nan)

    def index(self, x: Float[Array, "n _"]) -> tuple[Int[Array, " n"], Bool[Array, " n"]]:
        """The outputs that points denote.

        Args:
            x: shape `(n, 1)`.

        Returns:
            Integers in $0, ..., p - 1$, shape `(n,)`, and whether `x` holds them.

        Raises:
            ValueError: points of several coordinates, or values known to be no index of an output.
        """
        if x.shape[1] != 1:
            raise ValueError(
                "Coregion is of one coordinate, which holds the number of an output, and points "
                f"have {x.shape[1]}; choose it, by .on(-1)"
            )
        column, last = x[:, 0], self.num_outputs - 1
        nearest = jnp.round(column)
        is_one = (column == nearest) & (nearest >= 0) & (nearest <= last)
        if not isinstance(is_one, jax.core.Tracer):  # a kernel must not stop a compiled program
            refuse_where(
                is_one,
                lambda fits: ~fits,
                f"Coregion: outputs have the numbers 0 to {last} and points hold others: "
                f"{column[~is_one][:5]}",
            )
        return jnp.clip(jnp.nan_to_num(nearest), 0, last).astype(int), is_one
