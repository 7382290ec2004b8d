"""Spectral densities of stationary kernels, and draws from them."""

from __future__ import annotations

import functools
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Float

from .._core import compiled, nan_if_negative
from ._kernel import Constant, OnDims, Product, Scaled, Sum
from ._parameters import check_coordinates
from ._spectral import SpectralMixture, StudentMixture
from ._stationary import (
    Cosine,
    Matern12,
    Matern32,
    Matern52,
    Matern72,
    Periodic,
    RationalQuadratic,
    RBF,
)

HARMONICS = 256  # of a periodic kernel; with ten standard deviations they reach ℓ > 0.04
SHORTEST = 8 / HARMONICS  # lengthscale whose harmonics end there; the rest is below 1e-14
DEGREES = {Matern12: 1, Matern32: 3, Matern52: 5, Matern72: 7}


def sample_spectrum(
    key: jax.Array, kernel: Any, num: int, dim: int
) -> tuple[Float[Array, "num dim"], Float[Array, " num"]]:
    r"""Frequencies and weights with $E \sum_j w_j e^{i \omega_j^\top \tau} = k(\tau)$.

    All $w_j e^{i \omega_j^\top \tau}$ have the same mean, so that two such sums can be multiplied
    term by term. Only their real parts need that mean; `Product` makes it that of the whole.

    Args:
        key: of the draw.
        kernel: a stationary one.
        num: how many.
        dim: coordinates of a point.

    Returns:
        Frequencies in radians per unit, shape `(num, dim)`, and weights, shape `(num,)`.

    Raises:
        ValueError: the spectrum of this kernel is not known.
    """
    return _sampled(kernel, key, num, dim)


@functools.singledispatch
def _sampled(kernel: Any, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    raise ValueError(f"sample_spectrum: the spectrum of {type(kernel).__name__} is not known")


def has_spectrum(kernel: Any) -> bool:
    """Whether `sample_spectrum` knows the spectrum of a kernel."""
    if isinstance(kernel, Scaled | OnDims):
        return has_spectrum(kernel.kernel)
    if isinstance(kernel, Sum | Product):
        return all(has_spectrum(term) for term in kernel.terms)
    return _sampled.dispatch(type(kernel)) is not _sampled.dispatch(object)


@_sampled.register
def _(kernel: RBF, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    draw = random.normal(key, (num, dim), parameter_dtype(kernel))
    return draw / _lengthscale(kernel, dim), _even(kernel, num)


@_sampled.register(Matern12)
@_sampled.register(Matern32)
@_sampled.register(Matern52)
@_sampled.register(Matern72)
def _(kernel: Any, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    draw = _student(key, num, dim, DEGREES[type(kernel)], parameter_dtype(kernel))
    return draw / _lengthscale(kernel, dim), _even(kernel, num)


@_sampled.register
def _(kernel: RationalQuadratic, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    dtype = parameter_dtype(kernel)
    normal, gamma = random.split(key)
    alpha = nan_if_negative(kernel.alpha)
    rate = random.gamma(gamma, alpha.astype(dtype), (num, 1), dtype) / alpha
    draw = jnp.sqrt(rate) * random.normal(normal, (num, dim), dtype)
    return draw / _lengthscale(kernel, dim), _even(kernel, num)


@_sampled.register
def _(kernel: SpectralMixture, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    check_one_coordinate(kernel, dim)
    order, draw = random.split(key)
    which, weights = _components(order, nan_if_negative(kernel.weights), num)
    scale = jnp.sqrt(2 * kernel.rates[which])
    draw = scale * random.normal(draw, (num,), parameter_dtype(kernel))
    return (2 * jnp.pi * nan_if_negative(kernel.frequencies)[which] + draw)[:, None], weights


@_sampled.register
def _(kernel: StudentMixture, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    check_one_coordinate(kernel, dim)
    order, draw = random.split(key)
    which, weights = _components(order, nan_if_negative(kernel.weights), num)
    draw = (
        nan_if_negative(kernel.rates)[which]
        * _student(draw, num, 1, 5, parameter_dtype(kernel))[:, 0]
    )
    return (2 * jnp.pi * nan_if_negative(kernel.frequencies)[which] + draw)[:, None], weights


@_sampled.register
def _(kernel: Periodic, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    # One harmonic of each coordinate. A draw of integers has no derivative, so weights carry it:
    # they are probabilities over themselves, of value 1.
    for name in ("lengthscale", "period"):
        check_coordinates(kernel, name, dim)
    log_mass = log_harmonics(jnp.broadcast_to(kernel.lengthscale, (dim,)))
    which, sign = random.split(key)
    chosen = random.categorical(which, jax.lax.stop_gradient(log_mass), shape=(num, dim))
    log_mass = jnp.take_along_axis(log_mass, chosen.T, axis=1)
    ratio = jnp.exp(jnp.sum(log_mass - jax.lax.stop_gradient(log_mass), axis=0))
    # Coordinates need signs of their own: waves of the sum alone are no product of cosines.
    signed = chosen * random.rademacher(sign, (num, dim), ratio.dtype)
    return 2 * jnp.pi * signed / nan_if_negative(kernel.period), ratio * nan_if_negative(
        kernel.variance
    ) / num


@_sampled.register
def _(kernel: Cosine, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    check_coordinates(kernel, "period", dim)
    frequency = jnp.broadcast_to(2 * jnp.pi / nan_if_negative(kernel.period), (num, dim))
    return frequency, _even(kernel, num)


@_sampled.register
def _(kernel: Constant, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    return jnp.zeros((num, dim), kernel.variance.dtype), _even(kernel, num)


@_sampled.register
def _(kernel: Scaled, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    frequencies, weights = _sampled(kernel.kernel, key, num, dim)
    return frequencies, nan_if_negative(kernel.variance) * weights


@_sampled.register
def _(kernel: OnDims, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    own = kernel.columns(dim)
    frequencies, weights = _sampled(kernel.kernel, key, num, len(own))
    whole = jnp.zeros((num, dim), frequencies.dtype)
    return whole.at[:, jnp.asarray(own)].add(frequencies), weights


@_sampled.register
def _(kernel: Sum, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    terms, order = kernel.terms, random.fold_in(key, len(kernel.terms))
    if num < len(terms):
        raise ValueError(f"a sum of {len(terms)} kernels needs at least {2 * len(terms)} features")
    shares = [num // len(terms) + (i < num % len(terms)) for i in range(len(terms))]
    keys = random.split(key, len(terms))
    parts = [_sampled(t, k, n, dim) for t, k, n in zip(terms, keys, shares, strict=True)]
    frequencies, weights = (jnp.concatenate(part) for part in zip(*parts, strict=True))
    mixed = random.permutation(order, num)
    return frequencies[mixed], weights[mixed]


@_sampled.register
def _(kernel: Product, key: jax.Array, num: int, dim: int) -> tuple[jax.Array, jax.Array]:
    frequencies, weights = 0.0, 1.0 / num
    for term, k in zip(kernel.terms, random.split(key, len(kernel.terms)), strict=True):
        draw, sign = random.split(k)
        own, weight = _sampled(term, draw, num, dim)
        # Of random sign the sines vanish on average: that of a sum is then the product of cosines.
        frequencies += own * random.rademacher(sign, (num, 1), own.dtype)
        weights *= num * weight
    return jnp.asarray(frequencies), jnp.asarray(weights)


def log_harmonics(lengthscale: Float[Array, " d"]) -> Float[Array, "d k"]:
    r"""Logarithms of the weights of $\cos k\theta$ in $\exp((\cos\theta - 1) / \ell^2)$.

    The weights are $2 e^{-z} I_k(z)$ with $z = \ell^{-2}$, half of that for $k = 0$. Ratios of
    successive Bessel functions, from the last one down, give all of them to the last digit, so
    that their roots are smooth in the lengthscale.

    Args:
        lengthscale: shape `(d,)`.

    Returns:
        Shape `(d, HARMONICS)`; the weights sum to 1.

    Raises:
        RuntimeError: a lengthscale so short that more harmonics are needed.
    """
    lengthscale = eqx.error_if(
        lengthscale,
        (lengthscale > 0) & (lengthscale < SHORTEST),
        f"fourier_features: a lengthscale of Periodic is below {SHORTEST}, where more than "
        f"{HARMONICS} harmonics are needed",
    )
    return _harmonics(nan_if_negative(lengthscale) ** -2)


@compiled
def _harmonics(z: jax.Array) -> jax.Array:
    def before(ratio: jax.Array, k: jax.Array) -> tuple[jax.Array, jax.Array]:
        ratio = 1 / (2 * k / z + ratio)  # of I_k to I_{k-1}
        return ratio, ratio

    order = jnp.arange(1, HARMONICS, dtype=z.dtype)
    last = z / (HARMONICS + jnp.sqrt(HARMONICS**2 + z**2))  # to leading order
    ratios = jax.lax.scan(before, last, order, reverse=True)[1]
    log_bessel = jnp.cumsum(jnp.log(ratios), axis=0) + jnp.log(2.0).astype(z.dtype)
    log_bessel = jnp.concatenate([jnp.zeros_like(z)[None], log_bessel])
    return jax.nn.log_softmax(log_bessel.T, axis=1)


def check_one_coordinate(kernel: Any, dim: int) -> None:
    """Refuses points of several coordinates.

    Raises:
        ValueError: `dim` is not 1.
    """
    if dim != 1:
        raise ValueError(
            f"{type(kernel).__name__} is of one coordinate and points have {dim}; choose it, by "
            ".on(dim)"
        )


def parameter_dtype(kernel: Any) -> Any:
    """The type of a kernel's parameters, in which its features are drawn."""
    return jnp.result_type(*jax.tree.leaves(eqx.filter(kernel, eqx.is_inexact_array)), jnp.float32)


def _lengthscale(kernel: Any, dim: int) -> jax.Array:
    check_coordinates(kernel, "lengthscale", dim)
    return nan_if_negative(kernel.lengthscale)


def _even(kernel: Any, num: int) -> jax.Array:
    return jnp.broadcast_to(nan_if_negative(kernel.variance) / num, (num,))


def _student(key: jax.Array, num: int, dim: int, degrees: int, dtype: Any) -> jax.Array:
    """Draws of the multivariate Student t distribution, shape `(num, dim)`."""
    normal, square = random.split(key)
    squares = jnp.sum(random.normal(square, (num, degrees), dtype) ** 2, axis=1, keepdims=True)
    return random.normal(normal, (num, dim), dtype) * math.sqrt(degrees) / jnp.sqrt(squares)


def _components(key: jax.Array, weights: jax.Array, num: int) -> tuple[jax.Array, jax.Array]:
    """Which component each draw is of, the same number of each, and the weights of the draws."""
    size = len(weights)
    if num < size:
        raise ValueError(f"a mixture of {size} components needs at least {2 * size} features")
    which = random.permutation(key, jnp.arange(num) % size)
    counts = jnp.asarray([num // size + (i < num % size) for i in range(size)], weights.dtype)
    return which, (weights / counts)[which]
