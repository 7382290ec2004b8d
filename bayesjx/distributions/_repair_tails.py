"""Truncated and censored densities, with logarithms of probabilities that do not underflow.

NumPyro 0.22 takes logarithms of differences of distribution functions: infinite densities and
scores of 0 or NaN far from the mode, and scores that are wrong at it.
"""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import log_ndtr
from numpyro.distributions.util import validate_sample

_SYMMETRIC = (
    dist.Normal,
    dist.Laplace,
    dist.Logistic,
    dist.Cauchy,
    dist.SoftLaplace,
    dist.StudentT,
)


@functools.singledispatch
def _log_cdf(base: Any, x: Any) -> jax.Array:
    return jnp.log(base.cdf(x))


@_log_cdf.register
def _(base: dist.Normal, x: Any) -> jax.Array:
    return log_ndtr((x - base.loc) / base.scale)


@_log_cdf.register
def _(base: dist.LogNormal, x: Any) -> jax.Array:
    return log_ndtr((jnp.log(x) - base.loc) / base.scale)


@_log_cdf.register
def _(base: dist.Logistic, x: Any) -> jax.Array:
    return jax.nn.log_sigmoid((x - base.loc) / base.scale)


@_log_cdf.register
def _(base: dist.Laplace, x: Any) -> jax.Array:
    z = (x - base.loc) / base.scale
    below = z < 0
    right = jnp.log1p(-0.5 * jnp.exp(-jnp.where(below, 0, z)))
    return jnp.where(below, z + jnp.log(0.5), right)


@_log_cdf.register
def _(base: dist.Cauchy, x: Any) -> jax.Array:
    z = (x - base.loc) / base.scale
    return jnp.log(jnp.arctan2(jnp.ones_like(z), -z) / jnp.pi)


@_log_cdf.register
def _(base: dist.SoftLaplace, x: Any) -> jax.Array:
    z = (x - base.loc) / base.scale
    tail = jnp.arctan(jnp.exp(-jnp.maximum(jnp.abs(z), 1e-30))) * (2 / jnp.pi)
    return jnp.where(z < 0, jnp.log(tail), jnp.log1p(-tail))


def _log_sf(base: Any, x: Any) -> jax.Array:
    """The logarithm of the probability of more than `x`."""
    if isinstance(base, _SYMMETRIC):
        return _log_cdf(base, 2 * base.loc - x)
    return _log_survival(base, x)


@functools.singledispatch
def _log_survival(base: Any, x: Any) -> jax.Array:
    raise NotImplementedError


@_log_survival.register
def _(base: dist.LogNormal, x: Any) -> jax.Array:
    return log_ndtr((base.loc - jnp.log(x)) / base.scale)


@_log_survival.register
def _(base: dist.Exponential, x: Any) -> jax.Array:
    return -jnp.asarray(base.rate) * x


@_log_survival.register
def _(base: dist.Weibull, x: Any) -> jax.Array:
    return -((x / base.scale) ** base.concentration)


@_log_survival.register
def _(base: dist.Gompertz, x: Any) -> jax.Array:
    return -base.concentration * jnp.expm1(base.rate * x)


def _knows(function: Any, base: Any) -> bool:
    return function.dispatch(type(base)) is not function.dispatch(object)


def _log_between(base: Any, low: Any, high: Any) -> jax.Array:
    """The logarithm of the probability between two values, for symmetric distributions.

    Both are moved to the left half if they are in the right one, where all of the probability is
    to the left.
    """
    flip = low > base.loc
    low, high = (
        jnp.where(flip, 2 * base.loc - high, low),
        jnp.where(flip, 2 * base.loc - low, high),
    )
    above = _log_cdf(base, high)
    none = jnp.isneginf(low)
    gap = above - _log_cdf(base, jnp.where(none, high - base.scale, low))
    return above + jnp.where(none, 0, jax.nn.log1mexp(gap))


class LeftTruncatedDistribution(dist.LeftTruncatedDistribution):
    """`LeftTruncatedDistribution` with the right constant, and its derivatives, at any end."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        return self.base_dist.log_prob(value) - _log_sf(self.base_dist, self.low)


class RightTruncatedDistribution(dist.RightTruncatedDistribution):
    """`RightTruncatedDistribution` with the right constant, and its derivatives, at any end."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        return self.base_dist.log_prob(value) - _log_cdf(self.base_dist, self.high)


class TwoSidedTruncatedDistribution(dist.TwoSidedTruncatedDistribution):
    """`TwoSidedTruncatedDistribution` with the right constant, and its derivatives, at any ends."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        return self.base_dist.log_prob(value) - _log_between(self.base_dist, self.low, self.high)


class LeftCensoredDistribution(dist.LeftCensoredDistribution):
    """`LeftCensoredDistribution` with the right probability in the tail, for the usual families."""

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        if not (isinstance(self.base_dist, _SYMMETRIC) or _knows(_log_cdf, self.base_dist)):
            return super().log_prob(value)
        return self._censored_log_prob(value)

    @validate_sample
    def _censored_log_prob(self, value: Any) -> jax.Array:
        return jnp.where(
            self.censored, _log_cdf(self.base_dist, value), self.base_dist.log_prob(value)
        )


class RightCensoredDistribution(dist.RightCensoredDistribution):
    """`RightCensoredDistribution` with the right probability in the tail, for the usual families.

    NumPyro's is never below the rounding error, with a score of 0 beyond.
    """

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        if not (isinstance(self.base_dist, _SYMMETRIC) or _knows(_log_survival, self.base_dist)):
            return super().log_prob(value)
        return self._censored_log_prob(value)

    @validate_sample
    def _censored_log_prob(self, value: Any) -> jax.Array:
        return jnp.where(
            self.censored, _log_sf(self.base_dist, value), self.base_dist.log_prob(value)
        )


class IntervalCensoredDistribution(dist.IntervalCensoredDistribution):
    """`IntervalCensoredDistribution` with the right tail probabilities, for symmetric families."""

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        if not isinstance(self.base_dist, _SYMMETRIC):
            return super().log_prob(value)
        return self._censored_log_prob(value)

    @validate_sample
    def _censored_log_prob(self, value: Any) -> jax.Array:
        base, value = self.base_dist, jnp.asarray(value)
        left, right, between, double, point = self._get_censoring_masks(value)
        # Ends that do not count may be anything, infinite for instance.
        low = jnp.where(left, base.loc, value[..., 0])
        high = jnp.where(right, base.loc, value[..., 1])
        apart = between | double
        inside = _log_between(
            base, jnp.where(apart, low, base.loc), jnp.where(apart, high, base.loc + base.scale)
        )
        outside = jnp.logaddexp(
            _log_cdf(base, jnp.where(double, low, base.loc)),
            _log_sf(base, jnp.where(double, high, base.loc)),
        )
        cases = [left, right, point, double]
        values = [_log_cdf(base, high), _log_sf(base, low), base.log_prob(low), outside]
        return jnp.select(cases, values, inside)


MENDED = (
    "IntervalCensoredDistribution", "LeftCensoredDistribution", "LeftTruncatedDistribution",
    "RightCensoredDistribution", "RightTruncatedDistribution", "TwoSidedTruncatedDistribution",
)  # fmt: skip
