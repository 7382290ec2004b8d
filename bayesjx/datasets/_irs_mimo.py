"""Channels of a multi-antenna link over an intelligent reflecting surface."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Bool, Complex, Float

from .._core import check_key, whole_number
from ._kron_sparse import with_noise


class IRSMIMO(NamedTuple):
    r"""Received pilots of a link over an intelligent reflecting surface, and its channel.

    The channel under pattern $\theta_k$ is $F_k = F_2 \mathrm{diag}(\theta_k) F_1$, from the mobile
    station's antennas over the surface to the base station's.

    Attributes:
        factors: $H_1$ `(patterns, grid)`, $H_2$ `(pilots, grid)` and $H_3$ `(bs, grid)`: designs of
            the differences of angles at the surface, of departure and of arrival.
        y: received, shape `(patterns, pilots, bs)`.
        coefficients: path gains on the grid of angles, shape `(grid, grid, grid)`.
        support: angles of each axis that have a path, booleans, shape `(grid,)` each.
        noise_var: variance of the noise, both parts together, scalar.
        channel_factors: the same with antennas `(ms, grid)` in place of pilots: applied to
            coefficients they give the channel.
        channel: shape `(patterns, ms, bs)`.
    """

    factors: tuple[Complex[Array, "_m n"], ...]
    y: Complex[Array, ...]
    coefficients: Complex[Array, ...]
    support: tuple[Bool[Array, " n"], ...]
    noise_var: Float[Array, ...]
    channel_factors: tuple[Complex[Array, "_m n"], ...]
    channel: Complex[Array, ...]


def irs_mimo(
    key: jax.Array,
    *,
    snr_db: Any = 20.0,
    num_ms: int = 6,
    num_bs: int = 16,
    num_irs: int = 256,
    num_angles: int = 18,
    num_pilots: int = 3,
    num_patterns: int = 6,
    angular_spread: int = 3,
    dtype: Any = complex,
) -> IRSMIMO:
    r"""A random channel over an intelligent reflecting surface, and its received pilots.

    Angles lie on a grid, $\phi_i = -1 + 2 i / n$. Each of the two links has one angle of departure
    and `angular_spread` neighbouring angles of arrival with standard normal gains. Pilots are QPSK
    symbols, and the surface's elements have random signs. As products of two of its steering
    vectors depend on the difference of angles only, the received pilots are a linear model
    with a Kronecker product of three factors, of whose coefficients as many as the square of
    `angular_spread` are not zero.

    Args:
        key: PRNG key.
        snr_db: mean square of noise-free pilots over the noise variance, in decibels; may be
            traced.
        num_ms: antennas of the mobile station.
        num_bs: antennas of the base station.
        num_irs: elements of the surface.
        num_angles: of the grid.
        num_pilots: vectors that are sent under each pattern.
        num_patterns: of the surface.
        angular_spread: neighbouring angles of arrival.
        dtype: complex.

    Raises:
        ValueError: a size that is no positive integer, more neighbours than angles, or a type that
            is not complex.

    References:
        He and Joseph (2025), "Bayesian algorithms for Kronecker-structured sparse vector recovery
        with application to IRS-MIMO channel estimation", IEEE Transactions on Signal Processing,
        section of the numerical experiments.
    """
    check_key(key)
    sizes = {
        "num_ms": num_ms, "num_bs": num_bs, "num_irs": num_irs, "num_angles": num_angles,
        "num_pilots": num_pilots, "num_patterns": num_patterns, "angular_spread": angular_spread,
    }  # fmt: skip
    for name, size in sizes.items():
        whole_number(f"irs_mimo: {name}", size)
    if angular_spread > num_angles:
        raise ValueError(
            f"irs_mimo: angular_spread {angular_spread} is more than num_angles {num_angles}"
        )
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(f"irs_mimo: dtype must be complex, got {dtype}")
    at_ms, at_bs, at_irs = (_steering(n, num_angles, dtype) for n in (num_ms, num_bs, num_irs))
    keys = random.split(key, 5)
    paths = num_ms * num_irs / angular_spread, num_bs * num_irs / angular_spread
    to_irs = math.sqrt(paths[0]) * _gains(keys[0], num_angles, angular_spread, dtype)
    to_bs = math.sqrt(paths[1]) * _gains(keys[1], num_angles, angular_spread, dtype)
    pilots = _qpsk(keys[2], (num_ms, num_pilots), dtype) / math.sqrt(num_ms)
    signs = random.rademacher(keys[3], (num_irs, num_patterns), jnp.finfo(dtype).dtype)
    patterns = signs.astype(dtype) / math.sqrt(num_irs)
    # Column c has the difference of the first angle and the c-th; so has every pair c apart.
    between = patterns.T @ (at_irs[:, :1] * at_irs.conj())
    factors = between, pilots.T @ at_ms.conj(), at_bs
    channel_factors = between, at_ms.conj(), at_bs
    coefficients = _cascade(to_irs, to_bs)
    surface_in = at_irs @ to_irs @ at_ms.conj().T
    surface_out = at_bs @ to_bs @ at_irs.conj().T
    channel = jnp.einsum("bn,nk,nm->kmb", surface_out, patterns, surface_in)
    signal = jnp.einsum("kmb,mp->kpb", channel, pilots)
    y, noise_var = with_noise(keys[4], signal, snr_db)
    support = tuple(
        jnp.any(coefficients != 0, axis=tuple(d for d in range(3) if d != axis))
        for axis in range(3)
    )
    return IRSMIMO(factors, y, coefficients, support, noise_var, channel_factors, channel)


def _steering(num: int, num_angles: int, dtype: Any) -> jax.Array:
    """Responses of a uniform linear array to waves from the grid of angles, one a column."""
    angles = -1 + 2 * np.arange(num_angles) / num_angles
    phases = np.pi * np.arange(num)[:, None] * angles
    return jnp.asarray(np.exp(1j * phases) / math.sqrt(num), dtype)


def _gains(key: jax.Array, num_angles: int, angular_spread: int, dtype: Any) -> jax.Array:
    """Path gains, shape `(arrival, departure)`: neighbours of arrival, one departure."""
    for_gains, for_arrival, for_departure = random.split(key, 3)
    first = random.randint(for_arrival, (), 0, num_angles - angular_spread + 1)
    departure = random.randint(for_departure, (), 0, num_angles)
    gains = random.normal(for_gains, (angular_spread,), dtype)
    arrival = jnp.zeros(num_angles, dtype).at[first + jnp.arange(angular_spread)].set(gains)
    return jnp.outer(arrival, jnp.arange(num_angles) == departure)


def _qpsk(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    real, imag = random.rademacher(key, (2, *shape), jnp.finfo(dtype).dtype)
    return ((real + 1j * imag) / math.sqrt(2)).astype(dtype)


def _cascade(to_irs: jax.Array, to_bs: jax.Array) -> jax.Array:
    """Coefficients `(difference, departure, arrival)` of the two links one after the other."""
    num = len(to_irs)
    arrival, departure = np.indices((num, num))
    pairs = jnp.einsum("aj,ib->abji", to_irs, to_bs)  # angles at the surface: a in, b out
    difference = (departure - arrival) % num
    flat = jnp.zeros((num, *pairs.shape[2:]), pairs.dtype)
    return flat.at[difference].add(pairs)
