"""Mixtures of normal kernels at draws: what turns a sample into a density."""

from __future__ import annotations

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpyro.distributions as dist

from .._core import checked_finite, number_array, refuse_where
from ._repair_continuous import Normal


def kernel_mixture(samples: Any) -> dist.MixtureSameFamily:
    r"""A density with the mean and the covariance of draws, such as those of a posterior.

    The mixture of $N(a \theta_i + (1 - a) \bar\theta, h^2 V)$ over draws $\theta_i$ with the mean
    $\bar\theta$ and the covariance $V$, in which $a^2 = 1 - h^2$: kernels as wide as they must be,
    at places that are shrunk towards the mean by as much as the kernels widen. Kernels that are not
    shrunk would have the covariance $(1 + h^2) V$. The bandwidth is
    $h = (4 / ((d + 2) s))^{1 / (d + 4)}$, of $s$ draws in $d$ dimensions.

    It is a prior that NUTS can use, for a handful of dimensions; in many, kernels are as wide as
    the distribution itself, which then is nearly normal.

    Args:
        samples: draws, shape `(s,)`, or `(s, d)` of vectors.

    Returns:
        A NumPyro distribution with event shape `()` or `(d,)`.

    Raises:
        ValueError: another shape, fewer than `d + 2` draws, NaN or infinite ones, draws that do not
            vary in all directions.

    References:
        West (1993), "Approximating posterior distributions by mixtures", JRSS-B 55: section 3.
        Silverman (1986), "Density estimation for statistics and data analysis": equation 4.14, for
        the bandwidth.
    """
    draws = _checked(samples)
    number, d = draws.shape[0], 1 if draws.ndim == 1 else draws.shape[1]
    bandwidth = (4 / ((d + 2) * number)) ** (1 / (d + 4))
    mean = jnp.mean(draws, axis=0)
    places = mean + (1 - bandwidth**2) ** 0.5 * (draws - mean)
    scale = jnp.std(draws, axis=0)
    low = 10 * jnp.finfo(draws.dtype).eps
    varies = "kernel_mixture: samples must vary in all directions"
    scale = refuse_where(scale, lambda v: ~(v > low * abs(mean)), varies)
    mixing = dist.Categorical(logits=jnp.zeros(number, draws.dtype))
    if draws.ndim == 1:
        return dist.MixtureSameFamily(mixing, Normal(places, bandwidth * scale))
    standard = (draws - mean) / scale
    tril = jnp.linalg.cholesky(standard.T @ standard / number)
    tril = refuse_where(tril, lambda v: ~(abs(v) <= 2), f"{varies}, not only in some of them")
    tril = bandwidth * jnp.asarray(scale)[:, None] * jnp.asarray(tril)
    return dist.MixtureSameFamily(mixing, dist.MultivariateNormal(places, scale_tril=tril))


def _checked(samples: Any) -> jax.Array:
    array = number_array("kernel_mixture: samples", samples)
    if array.ndim not in (1, 2) or 0 in array.shape[1:]:
        raise ValueError(
            "kernel_mixture: samples must have shape (s,) or (s, d), a draw in each row; got "
            f"{array.shape}"
        )
    least = 2 + (array.shape[1] if array.ndim == 2 else 1)
    if array.shape[0] < least:
        raise ValueError(
            f"kernel_mixture: samples must hold at least {least} draws, got {array.shape[0]}"
        )
    checked_finite("kernel_mixture: samples", array)
    array = jnp.asarray(array)
    floats = jnp.issubdtype(array.dtype, jnp.floating)
    return array if floats else array.astype(jnp.result_type(float))
