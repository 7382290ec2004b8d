"""Random linear problems whose coefficients have a Kronecker-structured support."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Bool, Float, Inexact

from .._core import check_key, whole_number


class KronSparse(NamedTuple):
    """Measurements of Kronecker-sparse coefficients, and the truth.

    Attributes:
        factors: designs, shape `(m_i, n_i)` each.
        y: measurements, shape `(m_1, ..., m_I)`.
        coefficients: shape `(n_1, ..., n_I)`.
        support: columns of each axis that are not zero, booleans, shape `(n_i,)` each.
        noise_var: variance of the noise, scalar, of both parts together if it is complex.
    """

    factors: tuple[Inexact[Array, "_m _n"], ...]
    y: Inexact[Array, ...]
    coefficients: Inexact[Array, ...]
    support: tuple[Bool[Array, " _n"], ...]
    noise_var: Float[Array, ...]


def kron_sparse(
    key: jax.Array,
    *,
    rows: Sequence[int] = (8, 12, 15),
    columns: Sequence[int] = (15, 15, 15),
    num_active: int | Sequence[int] = 3,
    snr_db: Any = 20.0,
    rank_one: bool = True,
    dtype: Any = float,
) -> KronSparse:
    r"""Normal designs and coefficients with a random Kronecker-structured support.

    By default the experiment of He and Joseph: $x = x_1 \otimes x_2 \otimes x_3$, each with so many
    standard normal elements that are not zero.

    Args:
        key: PRNG key.
        rows: $m_i$ of each design.
        columns: $n_i$ of each design.
        num_active: columns that are not zero, of each axis or one number for all.
        snr_db: mean square of noise-free measurements over the noise variance, in decibels; may be
            traced.
        rank_one: whether the coefficients are a Kronecker product, or independent on the support.
        dtype: of the arrays, real or complex; complex numbers are circular, of unit variance.

    Raises:
        ValueError: other numbers of axes, or more active columns than there are.

    References:
        He and Joseph (2025), "Bayesian algorithms for Kronecker-structured sparse vector recovery
        with application to IRS-MIMO channel estimation", IEEE Transactions on Signal Processing.
    """
    check_key(key)
    rows, columns = _sizes("rows", rows), _sizes("columns", columns)
    active = (num_active,) * len(rows) if np.ndim(num_active) == 0 else num_active
    active = _sizes("num_active", active)
    if not len(rows) == len(columns) == len(active):
        raise ValueError(
            "kron_sparse: rows, columns and num_active must have one element for each axis, got "
            f"{len(rows)}, {len(columns)} and {len(active)}"
        )
    if any(k > n for k, n in zip(active, columns, strict=True)):
        raise ValueError(f"kron_sparse: num_active {active} is more than columns {columns}")
    dtype = jax.dtypes.canonicalize_dtype(dtype)
    if not jnp.issubdtype(dtype, jnp.inexact):
        raise ValueError(f"kron_sparse: dtype must be real or complex floating-point, got {dtype}")
    keys = random.split(key, (3, len(rows)))
    for_values, for_noise = random.split(random.fold_in(key, 1))
    sizes = list(zip(rows, columns, active, strict=True))
    factors = tuple(random.normal(keys[0, d], (m, n), dtype) for d, (m, n, _) in enumerate(sizes))
    support = tuple(
        random.permutation(keys[1, d], jnp.arange(n) < k) for d, (_, n, k) in enumerate(sizes)
    )
    if rank_one:
        parts = [random.normal(keys[2, d], (n,), dtype) for d, n in enumerate(columns)]
        values = functools.reduce(jnp.multiply.outer, parts)
    else:
        values = random.normal(for_values, columns, dtype)
    coefficients = values * functools.reduce(jnp.multiply.outer, support)
    signal = coefficients
    for axis, factor in enumerate(factors):
        signal = jnp.moveaxis(jnp.tensordot(factor, signal, (1, axis)), 0, axis)
    y, noise_var = with_noise(for_noise, signal, snr_db)
    return KronSparse(factors, y, coefficients, support, noise_var)


def with_noise(
    key: jax.Array, signal: Inexact[Array, ...], snr_db: Any
) -> tuple[Inexact[Array, ...], Float[Array, ...]]:
    """The signal with normal noise, circular if it is complex, and the noise's variance."""
    noise_var = jnp.mean(jnp.abs(signal) ** 2) * 10 ** (-jnp.asarray(snr_db, float) / 10)
    noise_var = noise_var.astype(jnp.finfo(signal.dtype).dtype)
    noise = random.normal(key, signal.shape, signal.dtype)
    return signal + jnp.sqrt(noise_var) * noise, noise_var


def _sizes(name: str, sizes: Any) -> tuple[int, ...]:
    if not len(sizes):
        raise ValueError(f"kron_sparse: {name} must be integers of at least 1, got none")
    return tuple(whole_number(f"kron_sparse: {name}", size) for size in sizes)
