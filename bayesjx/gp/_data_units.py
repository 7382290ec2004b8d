"""A process whose parameters were chosen for standardised data, in the units of the data."""

from __future__ import annotations

import functools
from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from .. import kernels
from .._core import checked_finite
from ._arguments import real_array
from ._inputs import all_points
from ._process import check_prior, GP


def in_units_of(prior: GP, x: Any, y: Any) -> GP:
    r"""A Gaussian process for data as they are, from one for standardised data.

    A start for `minimise` that suits any units: a lengthscale of 1 becomes one standard deviation
    of its coordinate, a variance of 1 that of `y`. With $s$ and $m$ the standard deviation and mean
    of `y`, and $z$ the data standardised, $\log p(y) = \log p(z) - n \log s$.

    Args:
        prior: for inputs and responses of mean 0 and variance 1. Its kernel may be made of those
            that have units: stationary and periodic ones, `Linear`, `Constant`, `White`, `SHO`,
            their sums, products and multiples, and `.on`. A parameter that all coordinates share
            takes the geometric mean of their standard deviations.
        x: points `(n, d)` or `(n,)`, a `Grid` or `Times`.
        y: responses, shape `(n,)`, or any of as many elements.

    Returns:
        The process. Noise given for each observation, or as an operator, is known: it stays. So
        does a mean that is a function.

    Raises:
        ValueError: a kernel without units that are known; `x` and `y` of different lengths, empty
            or with NaN; responses that are all equal.
    """
    check_prior(prior)
    points = all_points(x)
    y = checked_finite("y", jnp.asarray(real_array("y", y), points.dtype).reshape(-1))
    if len(y) != len(points):
        raise ValueError(f"y must have one response for each of {len(points)} x, got {len(y)}")
    scale = jnp.std(y)
    if not isinstance(scale, jax.core.Tracer) and not scale > 0:
        raise ValueError("in_units_of: y must not be constant, as its scale is its own unit")
    scales = jnp.std(points, axis=0)
    scales = jnp.where(scales > 0, scales, 1)  # a coordinate that does not vary
    kernel = _rescaled(prior.kernel, jnp.mean(points, axis=0), scales, scale**2)
    mean = prior.mean if callable(prior.mean) else jnp.mean(y) + scale * prior.mean
    known = not isinstance(prior.noise_var, jax.Array) or prior.noise_var.ndim > 0
    return GP(kernel, mean, noise_var=prior.noise_var if known else scale**2 * prior.noise_var)


@functools.singledispatch
def _rescaled(kernel: Any, centre: jax.Array, scales: jax.Array, variance: Any) -> Any:
    """The kernel where inputs are `centre` and `scales` times as large, times `variance`."""
    raise ValueError(
        f"in_units_of: the units of {type(kernel).__name__} are not known; standardise x and y, or "
        "set its parameters by hand"
    )


def _with(module: Any, /, **fields: Any) -> Any:
    names = list(fields)
    where = lambda k: [getattr(k, name) for name in names]  # noqa: E731
    return eqx.tree_at(where, module, list(fields.values()))


def _fitting(scales: jax.Array, parameter: jax.Array) -> jax.Array:
    """The standard deviations that a parameter is multiplied by."""
    return scales if jnp.ndim(parameter) else jnp.exp(jnp.mean(jnp.log(scales)))


@_rescaled.register(kernels.AbstractStationary)
@_rescaled.register(kernels.RationalQuadratic)
def _(kernel: Any, centre: jax.Array, scales: jax.Array, variance: Any) -> Any:
    lengthscale = kernel.lengthscale * _fitting(scales, kernel.lengthscale)
    return _with(kernel, lengthscale=lengthscale, variance=kernel.variance * variance)


@_rescaled.register(kernels.Periodic)
@_rescaled.register(kernels.Cosine)
@_rescaled.register(kernels.SHO)
def _(kernel: Any, centre: jax.Array, scales: jax.Array, variance: Any) -> Any:
    period = kernel.period * _fitting(scales, kernel.period)
    return _with(kernel, period=period, variance=kernel.variance * variance)


@_rescaled.register
def _(kernel: kernels.Linear, centre: jax.Array, scales: jax.Array, variance: Any) -> Any:
    slopes = kernel.variance * variance / _fitting(scales, kernel.variance) ** 2
    return _with(kernel, centre=centre + scales * kernel.centre, variance=slopes)


@_rescaled.register(kernels.White)
@_rescaled.register(kernels.Constant)
def _(kernel: Any, centre: jax.Array, scales: jax.Array, variance: Any) -> Any:
    return _with(kernel, variance=kernel.variance * variance)


@_rescaled.register
def _(kernel: kernels.Sum, centre: jax.Array, scales: jax.Array, variance: Any) -> Any:
    return _with(kernel, terms=tuple(_rescaled(k, centre, scales, variance) for k in kernel.terms))


@_rescaled.register
def _(kernel: kernels.Product, centre: jax.Array, scales: jax.Array, variance: Any) -> Any:
    first, *others = kernel.terms
    rest = (_rescaled(k, centre, scales, 1.0) for k in others)
    return _with(kernel, terms=(_rescaled(first, centre, scales, variance), *rest))


@_rescaled.register
def _(kernel: kernels.Scaled, centre: jax.Array, scales: jax.Array, variance: Any) -> Any:
    inner = _rescaled(kernel.kernel, centre, scales, 1.0)
    return _with(kernel, kernel=inner, variance=kernel.variance * variance)


@_rescaled.register
def _(kernel: kernels.OnDims, centre: jax.Array, scales: jax.Array, variance: Any) -> Any:
    columns = np.asarray(kernel.columns(len(scales)))
    inner = _rescaled(kernel.kernel, centre[columns], scales[columns], variance)
    return _with(kernel, kernel=inner)
