"""Densities on the line and the circle whose derivatives NumPyro 0.22 has wrong at some points."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import gammaln
from numpyro.distributions.directional import log_I1
from numpyro.distributions.util import lazy_property, validate_sample

_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)


class Normal(dist.Normal):
    """`numpyro.distributions.Normal` whose density takes the logarithm of the scale alone.

    A scale that was computed as `exp(x)` then costs no logarithm: XLA cancels the two, which it
    cannot do in NumPyro's `log(sqrt(2 * pi) * scale)`. Values are not checked, as all are possible.
    """

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        standardised = (value - self.loc) / self.scale
        return -0.5 * standardised**2 - jnp.log(self.scale) - _HALF_LOG_TWO_PI


def _times_log(c: Any, x: Any) -> jax.Array:
    """`c * log(x)` where `x` may be 0: there 0 with the derivative 0 if `c` is 0, else infinite."""
    c, x = jnp.asarray(c), jnp.asarray(x)
    edge = jax.lax.stop_gradient(jnp.where(c == 0, 0.0, -jnp.inf * c))
    return jnp.where(x == 0, edge, c * jnp.log(jnp.where(x == 0, 1, x)))


class _Beta:
    """With the right derivatives at 0 and 1, where NumPyro has none in any parameter."""

    @validate_sample
    def log_prob(self: Any, value: Any) -> jax.Array:
        one, zero = self.concentration1, self.concentration0
        norm = gammaln(one) + gammaln(zero) - gammaln(one + zero)
        return _times_log(one - 1.0, value) + _times_log(zero - 1.0, 1.0 - value) - norm


class Beta(_Beta, dist.Beta):
    """`Beta` with the right derivatives at 0 and 1, where NumPyro has none in any parameter."""


class BetaProportion(_Beta, dist.BetaProportion):
    """`BetaProportion` with the right derivatives at 0 and 1, as `Beta` has them."""


class Dirichlet(dist.Dirichlet):
    """`Dirichlet` with a density, not NaN, where an element is 0 and its concentration 1."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        alpha = jnp.asarray(self.concentration)
        norm = jnp.sum(gammaln(alpha), axis=-1) - gammaln(jnp.sum(alpha, axis=-1))
        return jnp.sum(_times_log(alpha - 1.0, value), axis=-1) - norm


class Kumaraswamy(dist.Kumaraswamy):
    """`Kumaraswamy` with finite derivatives at 0 where the density is."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        a, b = jnp.asarray(self.concentration1), jnp.asarray(self.concentration0)
        value = jnp.asarray(value)
        zero = value == 0
        # Where the value is 0 its power is too, with a slope there only if the exponent is 1.
        inside = jnp.where(zero, 1, value)
        power = jnp.where(zero, jnp.where(a == 1, value, 0), inside**a)
        eps = jnp.finfo(jnp.result_type(float)).eps
        outer = (b - 1) * jnp.log1p(-jnp.minimum(power, 1 - eps))
        return jnp.log(a) + jnp.log(b) + _times_log(a - 1, value) + outer


@jax.custom_jvp
def _laplace_cdf(z: jax.Array) -> jax.Array:
    return 0.5 - 0.5 * jnp.sign(z) * jnp.expm1(-jnp.abs(z))


@_laplace_cdf.defjvp
def _laplace_cdf_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    (z,), (dz,) = primals, tangents
    return _laplace_cdf(z), 0.5 * jnp.exp(-jnp.abs(z)) * dz


class Laplace(dist.Laplace):
    """`Laplace` with the right derivative of the distribution function at the mode."""

    def cdf(self, value: Any) -> jax.Array:
        return _laplace_cdf((jnp.asarray(value) - self.loc) / self.scale)


class AsymmetricLaplace(dist.AsymmetricLaplace):
    """`AsymmetricLaplace` with the right derivative of the distribution function at the mode."""

    def cdf(self, value: Any) -> jax.Array:
        z = jnp.asarray(value) - self.loc
        odds = jnp.asarray(self.asymmetry) ** 2
        right = z >= 0
        above = 1 - jnp.exp(-jnp.where(right, z, 0) / self.right_scale) / (1 + odds)
        below = odds / (1 + odds) * jnp.exp(jnp.where(right, 0, z) / self.left_scale)
        return jnp.where(right, above, below)


class StudentT(dist.StudentT):
    """`StudentT` with the right derivative, not NaN, of the distribution function at the mode.

    Densities truncated there, as the half-Student prior of scales, have it in their constant. Many
    degrees of freedom, near the normal distribution, keep their digits.
    """

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        z = (value - self.loc) / self.scale
        df = jnp.asarray(self.df, jnp.result_type(z))
        tails = -0.5 * (df + 1) * jnp.log1p(z**2 / df)
        return tails - jnp.log(self.scale) - 0.5 * jnp.log(jnp.pi) + _log_peak(df)

    def cdf(self, value: Any) -> jax.Array:
        z = (jnp.asarray(value) - self.loc) / self.scale
        near = jnp.abs(z) < jnp.finfo(z.dtype).eps ** 0.25
        df = jnp.asarray(self.df, z.dtype)
        # F = 1/2 + f(0) (z - (df + 1) / df z^3 / 6) + O(z^5) near the mode.
        peak = jnp.exp(_log_peak(df)) / math.sqrt(math.pi)
        series = 0.5 + peak * (z - (df + 1) / df * z**3 / 6)
        away = dist.StudentT(self.df, 0.0, 1.0, validate_args=False)
        return jnp.where(near, series, away.cdf(jnp.where(near, 1, z)))


def _log_peak(df: jax.Array) -> jax.Array:
    r"""$\log \Gamma(x + 1/2) - \log \Gamma(x) - \log(2 x) / 2$ with $x = \nu / 2$.

    From 40 degrees of freedom by the series in $1 / x$, as the two functions cancel.
    """
    many = df > 40
    few = jnp.where(many, 1, df)
    exact = gammaln(0.5 * (few + 1)) - gammaln(0.5 * few) - 0.5 * jnp.log(few)
    r = 2 / jnp.where(many, df, 1)
    terms = r * (-1 / 8 + r**2 * (1 / 192 + r**2 * (-1 / 640 + r**2 * 17 / 14336)))
    return jnp.where(many, terms - 0.5 * math.log(2), exact)


class DoublyTruncatedPowerLaw(dist.DoublyTruncatedPowerLaw):
    r"""With the right derivatives in the ends, and in exponents near -1.

    With $a = 1 + \alpha$, $D = \log h - \log l$ and $z = a D / 2$ its constant is
    $a (\log h + \log l) / 2 + \log D + \log(\sinh(z) / z)$.
    """

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        low, high = jnp.asarray(self.low), jnp.asarray(self.high)
        a = 1.0 + jnp.asarray(self.alpha)
        from_zero = low == 0
        log_high, log_low = jnp.log(high), jnp.log(jnp.where(from_zero, 0.5 * high, low))
        length = log_high - log_low
        norm = 0.5 * a * (log_high + log_low) + jnp.log(length) + _log_sinhc(0.5 * a * length)
        possible = from_zero & (a > 0)
        alone = a * log_high - jnp.log(jnp.where(possible, a, 1))
        alone = jnp.where(a > 0, alone, jnp.inf)  # not integrable
        return self.alpha * jnp.log(value) - jnp.where(from_zero, alone, norm)


def _log_sinhc(z: jax.Array) -> jax.Array:
    r"""$\log(\sinh(z) / z)$, a smooth even function."""
    small = jnp.abs(z) < 0.1
    square = jnp.where(small, z, 0) ** 2
    series = square / 6 - square**2 / 180 + square**3 / 2835 - square**4 / 37800
    size = jnp.abs(jnp.where(small, 1, z))
    return jnp.where(small, series, size + jnp.log(-jnp.expm1(-2 * size) / (2 * size)))


class SineBivariateVonMises(dist.SineBivariateVonMises):
    """`SineBivariateVonMises` with the right second derivative, not NaN, at a correlation of 0."""

    @lazy_property
    def norm_const(self) -> jax.Array:
        # Singh, Hnizdo and Demchuk (2002), eq. 2.2: a power series in r^2 / (4 a b) <= 1/4.
        shape = jnp.shape(self.correlation)
        first, second = (
            jnp.reshape(jnp.broadcast_to(x, shape), -1)
            for x in (self.phi_concentration, self.psi_concentration)
        )
        ratio = jnp.reshape(self.correlation, -1) ** 2 / (4 * first * second)
        orders = jnp.arange(50)[:, None]
        terms = gammaln(2 * orders + 1.0) - 2 * gammaln(orders + 1.0)
        terms = terms + log_I1(49, jnp.stack([first, second], -1), terms=10_001).sum(-1)
        series = jnp.polyval(jnp.exp(terms - terms[0])[::-1], ratio)
        return jnp.reshape(2 * math.log(2 * math.pi) + terms[0] + jnp.log(series), shape)


MENDED = (
    "AsymmetricLaplace", "Beta", "BetaProportion", "Dirichlet", "DoublyTruncatedPowerLaw",
    "Kumaraswamy", "Laplace", "Normal", "SineBivariateVonMises", "StudentT",
)  # fmt: skip
