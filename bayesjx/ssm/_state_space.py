"""Which state space stands for a kernel of time."""

from __future__ import annotations

import functools
import math
import warnings
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .. import kernels
from ._elementary_spaces import (
    ConstantSpace,
    LineSpace,
    MaternSpace,
    OscillatorSpace,
    WaveSpace,
    WienerSpace,
)
from ._inputs import count, kernel as check_kernel
from ._spaces import AbstractStateSpace, ProductSpace, ScaledSpace, SumSpace

HARMONICS = 6
MISSING_VARIANCE = 1e-4
MORE_HARMONICS = 60  # that share the variance but are left out
ORDERS = {kernels.Matern12: 0, kernels.Matern32: 1, kernels.Matern52: 2, kernels.Matern72: 3}


def state_space(kernel: kernels.AbstractKernel, harmonics: int = HARMONICS) -> AbstractStateSpace:
    r"""The linear stochastic differential equation whose solution has this covariance function.

    Exact for Matérn kernels of orders 1/2 to 7/2, `Cosine`, `SHO`, `Constant`, `Linear`, `Wiener`,
    `IntegratedWiener`, and for sums, products and multiples of these. `Periodic` is cut off after
    some harmonics: with 6 the variance lacks 5e-7 at a lengthscale of 1 and 2e-5 at 0.8, and twice
    as many are needed at half of the lengthscale.

    Args:
        kernel: a kernel of time, with scalar parameters.
        harmonics: waves of a `Periodic` kernel besides its constant; its state has `2 harmonics +
            1` entries, and that of a product the product of sizes.

    Raises:
        ValueError: the kernel has no state space of finite size, or is of several coordinates.

    Warns:
        UserWarning: the harmonics left out have more than 1e-4 of the variance.

    References:
        Hartikainen and Särkkä (2010), "Kalman filtering and smoothing solutions to temporal
        Gaussian process regression models"; Solin and Särkkä (2014), "Explicit link between
        periodic covariance functions and state space models", equation 27 (`Periodic`).
    """
    check_kernel("kernel", kernel)
    count("harmonics", harmonics)
    return _space(kernel, harmonics)


@functools.singledispatch
def _space(kernel: Any, harmonics: int) -> AbstractStateSpace:
    raise ValueError(
        f"{type(kernel).__name__} has no state space of finite size. There is one for Matern12, "
        "Matern32, Matern52, Matern72, Cosine, Periodic, SHO, Constant, Linear, Wiener, "
        "IntegratedWiener, and their sums, products and multiples" + _HINTS.get(type(kernel), "")
    )


_HINTS = {
    kernels.RBF: "; Matern72 is the smoothest Matérn kernel among them",
    kernels.White: "; white noise is the noise of the observations",
}


def _matern(kernel: Any, harmonics: int) -> AbstractStateSpace:
    order = ORDERS[type(kernel)]
    rate = math.sqrt(2 * order + 1) / _positive("lengthscale", kernel.lengthscale)
    return MaternSpace(order, rate, _variance(kernel))


for _kind in ORDERS:
    _space.register(_kind, _matern)


@_space.register
def _(kernel: kernels.Cosine, harmonics: int) -> AbstractStateSpace:
    return WaveSpace(2 * jnp.pi / _positive("period", kernel.period), _variance(kernel))


@_space.register
def _(kernel: kernels.Periodic, harmonics: int) -> AbstractStateSpace:
    frequency = 2 * jnp.pi / _positive("period", kernel.period)
    shares = periodic_shares(_positive("lengthscale", kernel.lengthscale), harmonics)
    variance = _variance(kernel)
    lost = 1 - jnp.sum(shares)
    if not isinstance(lost, jax.core.Tracer) and lost > MISSING_VARIANCE:
        warnings.warn(
            f"Periodic: {harmonics} harmonics leave out {float(lost):.1e} of the variance at a "
            f"lengthscale of {float(kernel.lengthscale):g}; pass harmonics=",
            stacklevel=2,
        )
    waves = [WaveSpace(j * frequency, variance * shares[j]) for j in range(1, len(shares))]
    return SumSpace((ConstantSpace(variance * shares[0]), *waves))


@_space.register
def _(kernel: kernels.SHO, harmonics: int) -> AbstractStateSpace:
    frequency = 2 * jnp.pi / _positive("period", kernel.period)
    return OscillatorSpace(frequency, _positive("quality", kernel.quality), _variance(kernel))


@_space.register
def _(kernel: kernels.Constant, harmonics: int) -> AbstractStateSpace:
    return ConstantSpace(_variance(kernel))


@_space.register
def _(kernel: kernels.Linear, harmonics: int) -> AbstractStateSpace:
    return LineSpace(_scalar("centre", kernel.centre), _variance(kernel))


@_space.register
def _(kernel: kernels.Wiener, harmonics: int) -> AbstractStateSpace:
    return WienerSpace(0, _scalar("origin", kernel.origin), _variance(kernel))


@_space.register
def _(kernel: kernels.IntegratedWiener, harmonics: int) -> AbstractStateSpace:
    return WienerSpace(1, _scalar("origin", kernel.origin), _variance(kernel))


@_space.register
def _(kernel: kernels.Scaled, harmonics: int) -> AbstractStateSpace:
    return ScaledSpace(_space(kernel.kernel, harmonics), _variance(kernel))


@_space.register
def _(kernel: kernels.OnDims, harmonics: int) -> AbstractStateSpace:
    if kernel.dims not in ((0,), slice(None)):
        raise ValueError(f"a kernel of time has one coordinate, 0; it is of {kernel.dims}")
    return _space(kernel.kernel, harmonics)


@_space.register
def _(kernel: kernels.Sum, harmonics: int) -> AbstractStateSpace:
    return SumSpace(tuple(_space(term, harmonics) for term in kernel.terms))


@_space.register
def _(kernel: kernels.Product, harmonics: int) -> AbstractStateSpace:
    return functools.reduce(_product, (_space(term, harmonics) for term in kernel.terms))


def _product(first: AbstractStateSpace, second: AbstractStateSpace) -> AbstractStateSpace:
    """A sum of products for a product of sums, whose matrices are block-diagonal."""
    if isinstance(first, ScaledSpace):
        return ScaledSpace(_product(first.space, second), first.factor)
    if isinstance(second, ScaledSpace):
        return ScaledSpace(_product(first, second.space), second.factor)
    if isinstance(first, SumSpace):
        return SumSpace(tuple(_product(space, second) for space in first.spaces))
    if isinstance(second, SumSpace):
        return SumSpace(tuple(_product(first, space) for space in second.spaces))
    return ProductSpace(first, second)


def periodic_shares(lengthscale: Any, harmonics: int) -> Float[Array, " h"]:
    r"""Shares of the variance that the harmonics $0, 1, \dots$ of a `Periodic` kernel have.

    $e^{-z} I_0(z)$ and $2 e^{-z} I_j(z)$ with $z = \ell^{-2}$. Ratios of neighbours come from the
    recurrence of Bessel functions, downward, where it is stable (Miller), and the sum over all
    harmonics is 1.

    Returns:
        Shape `(harmonics + 1,)`.
    """
    z = lengthscale**-2.0
    ratio, ratios = jnp.zeros_like(z), []
    for j in range(harmonics + MORE_HARMONICS, 0, -1):  # I_j / I_{j - 1}
        ratio = z / (2 * j + z * ratio)
        ratios.append(ratio)
    bessel = jnp.cumprod(jnp.stack([jnp.ones_like(z), *ratios[::-1]]))
    shares = bessel * np.where(np.arange(len(bessel)) == 0, 1, 2).astype(bessel.dtype)
    return (shares / jnp.sum(shares))[: harmonics + 1]


def _scalar(name: str, value: Any) -> jax.Array:
    if jnp.size(value) != 1:
        raise ValueError(f"{name} of a kernel of time must be a scalar, got {jnp.shape(value)}")
    return jnp.reshape(value, ())


def _positive(name: str, value: Any) -> jax.Array:
    """The parameter, NaN where it is not positive: two that are negative must not cancel."""
    value = _scalar(name, value)
    return jnp.where(value > 0, value, jnp.nan)


def _variance(kernel: Any) -> jax.Array:
    value = _scalar("variance", kernel.variance)
    return jnp.where(value >= 0, value, jnp.nan)
