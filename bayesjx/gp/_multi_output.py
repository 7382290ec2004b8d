"""Several outputs as one process: the number of the output is the last coordinate of a point."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
from jaxtyping import Array, Float

from .. import ops
from .._core import refuse_where, whole_number
from ..kernels import AbstractKernel, Coregion, real_points
from ._arguments import check_kernel, real_array
from ._inputs import all_points, Grid


def icm(kernel: AbstractKernel, factor: Any, diagonal: Any) -> AbstractKernel:
    r"""Intrinsic coregionalisation, $k(x, x') B_{ij}$ with $B = W W^\top + \mathrm{diag}(\kappa)$.

    The last coordinate of a point is the number of its output, see `stack_outputs`. On
    `Grid(x, jnp.arange(p))` the covariance is a Kronecker product.

    Args:
        kernel: of the other coordinates.
        factor: $W$, shape `(p, r)`.
        diagonal: $\kappa$, shape `(p,)`, not negative.

    Raises:
        ValueError: the shapes do not fit, or `diagonal` is negative.

    References:
        Bonilla, Chai and Williams (2007), "Multi-task Gaussian process prediction", NeurIPS.
    """
    check_kernel(kernel)
    return kernel.on(slice(0, -1)) * Coregion(factor, diagonal).on(-1)


def lcm(
    kernels: Sequence[AbstractKernel], factors: Sequence[Any], diagonals: Sequence[Any]
) -> AbstractKernel:
    r"""Linear coregionalisation, $\sum_q k_q(x, x') B^q_{ij}$: a sum of `icm`.

    Args:
        kernels: of the other coordinates, one for each term.
        factors: $W_q$, shape `(p, r_q)` each.
        diagonals: $\kappa_q$, shape `(p,)` each, not negative.

    Raises:
        ValueError: there is no term, their numbers differ, or those of the outputs do.

    References:
        Alvarez, Rosasco and Lawrence (2012), "Kernels for vector-valued functions: a review",
        section 4.2.1.
    """
    if not len(kernels) == len(factors) == len(diagonals) or not kernels:
        raise ValueError(
            "lcm: kernels, factors and diagonals must hold one for each term, got "
            f"{len(kernels)}, {len(factors)} and {len(diagonals)}"
        )
    outputs = {jnp.shape(factor)[0] for factor in factors if jnp.ndim(factor) == 2}
    if len(outputs) > 1:
        raise ValueError(f"lcm: the factors are of different numbers of outputs: {sorted(outputs)}")
    first, *rest = (icm(*term) for term in zip(kernels, factors, diagonals, strict=True))
    for term in rest:
        first = first + term
    return first


def at_output(x: Any, output: int) -> Float[Array, "n d_plus_1"]:
    """Points of one output: with its number as last coordinate.

    Args:
        x: shape `(n, d)` or `(n,)`.
        output: the number, from 0.

    Returns:
        Shape `(n, d + 1)`.
    """
    whole_number("output", output, 0)
    x = real_points("x", real_array("x", x))
    return jnp.concatenate([x, jnp.full((len(x), 1), output, x.dtype)], axis=1)


def stack_outputs(
    xs: Sequence[Any], ys: Sequence[Any]
) -> tuple[Float[Array, "n d_plus_1"], Float[Array, " n"]]:
    """Observations of several outputs, each at points of its own, as those of one process.

    Args:
        xs: points of each output, shape `(n_i, d)` or `(n_i,)`.
        ys: responses of each output, shape `(n_i,)`.

    Returns:
        Points with the number of the output as last coordinate, shape `(sum n_i, d + 1)`, and
        responses, shape `(sum n_i,)`, one output after the other.

    Raises:
        ValueError: no output, other lengths, or points of different dimensions.
    """
    if len(xs) != len(ys) or not len(xs):
        raise ValueError(f"as many xs as ys are needed, got {len(xs)} and {len(ys)}")
    stacked = [at_output(x, output) for output, x in enumerate(xs)]
    for output, (x, y) in enumerate(zip(stacked, ys, strict=True)):
        if jnp.shape(y) != (len(x),):
            raise ValueError(
                f"output {output} has {len(x)} points and responses of shape {jnp.shape(y)}"
            )
    if len({x.shape[1] for x in stacked}) > 1:
        sizes = [x.shape[1] - 1 for x in stacked]
        raise ValueError(f"the points of the outputs have different dimensions: {sizes}")
    x = jnp.concatenate(stacked)
    return x, jnp.concatenate([jnp.asarray(y) for y in ys]).astype(x.dtype)


def output_noise(variances: Any, x: Any) -> Any:
    """The noise of each output, as `GP(kernel, noise_var=...)` takes it for observations at `x`.

    Args:
        variances: of the noise of each output, shape `(p,)`.
        x: points with the number of their output as last coordinate, shape `(n, d + 1)`, or a
            `Grid` whose last axis is `jnp.arange(p)`.

    Returns:
        A variance for each observation, shape `(n,)`; on a grid a diagonal `ops.Kron`, with which
        the covariance of the observations keeps its structure.

    Raises:
        ValueError: `variances` has the wrong shape, or a number is known to be of no output.
    """
    if jnp.ndim(variances) != 1:
        raise ValueError(f"variances must have shape (p,), got {jnp.shape(variances)}")
    last = x.axes[-1][:, -1] if isinstance(x, Grid) else all_points(x)[:, -1]
    if not isinstance(variances, jax.core.Tracer):  # else densities are NaN
        refuse_where(variances, lambda v: ~(v >= 0), "variances must not be negative or NaN")
    variances = jnp.asarray(variances).astype(last.dtype)
    count = len(variances)
    refuse_where(
        last,
        lambda v: ~((v >= 0) & (v < count) & (v == v.round())),
        f"the last coordinate must be the number of an output, 0 to {count - 1}",
    )
    own = variances[last.astype(int)]
    if not isinstance(x, Grid):
        return own
    identities = [jnp.eye(size, dtype=own.dtype) for size in x.shape[:-1]]
    return ops.Kron(*identities, jnp.diag(own), tags=ops.psd)
