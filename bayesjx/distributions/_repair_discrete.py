"""Densities of counts and labels whose derivatives NumPyro 0.22 has wrong at some points."""

from __future__ import annotations

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jax.scipy.special import betaln, gammaln, xlog1py, xlogy
from numpyro.distributions.util import validate_sample
from numpyro.util import not_jax_tracer as is_concrete


class BernoulliLogits(dist.BernoulliLogits):
    """`numpyro.distributions.BernoulliLogits` with the right gradient at logits of exactly zero.

    NumPyro 0.22 computes `max(x, 0)` by a product with `x > 0`, whose derivative at zero makes
    the score 0 or 1 in place of -1/2 or 1/2; zero is where zero-initialised models start.

    Values are checked where they are known, not under `jax.jit`, where the check would be a fifth
    of the cost of a step of a variational autoencoder: values between 0 and 1 then interpolate.
    """

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        dtype = jnp.result_type(self.logits, float)
        log_prob = _bernoulli_log_prob(jnp.asarray(self.logits, dtype), jnp.asarray(value, dtype))
        if self._validate_args and is_concrete(value):
            possible = np.isin(np.asarray(value), (0, 1))
            if not possible.all():
                warnings.warn("Out-of-support values: a flag is 0 or 1", stacklevel=2)
                return jnp.where(possible, log_prob, -jnp.inf)
        return log_prob

    def entropy(self) -> jax.Array:
        """Entropy in nats; NumPyro's is NaN for logits below -709."""
        size = jnp.abs(jnp.asarray(self.logits))
        wrong = jax.nn.sigmoid(-size)
        return jnp.where(wrong > 0, wrong * size, 0) + jnp.log1p(jnp.exp(-size))


@jax.custom_jvp
def _bernoulli_log_prob(logits: jax.Array, value: jax.Array) -> jax.Array:
    size = jnp.abs(logits)
    wrong = jnp.where(logits > 0, 1 - value, value)  # how far the value is from the likely one
    return jnp.where(wrong == 0, 0, -size * wrong) - jnp.log1p(jnp.exp(-size))


@_bernoulli_log_prob.defjvp
def _bernoulli_log_prob_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # One sigmoid is cheaper than what automatic differentiation makes of this, and right at 0.
    logits, value = primals
    slope = (value - jax.nn.sigmoid(logits)) * tangents[0]
    slope += jnp.where(jnp.isinf(logits), 0, logits) * tangents[1]
    return _bernoulli_log_prob(logits, value), slope


class BinomialLogits(dist.BinomialLogits):
    """`BinomialLogits` with the right derivatives at logits of exactly zero."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        total = jnp.asarray(self.total_count, jnp.result_type(float))
        logits = jnp.asarray(self.logits)
        choices = gammaln(total + 1) - gammaln(value + 1) - gammaln(total - value + 1)
        # Successes and failures apart: an infinite logit is only wrong if it was.
        wins = jnp.where(value == 0, 0, value * jax.nn.log_sigmoid(_known(logits, value == 0)))
        rest = total - value
        losses = jnp.where(rest == 0, 0, rest * jax.nn.log_sigmoid(-_known(logits, rest == 0)))
        return choices + wins + losses


def _known(x: jax.Array, unused: Any) -> jax.Array:
    """`x` with zeros for infinite elements that are not used, whose derivative would be NaN."""
    return jnp.where(unused & jnp.isinf(x), 0, x)


def _log_odds_apart(probs: Any, wins: Any, losses: Any) -> jax.Array:
    """`wins * log(p) + losses * log(1 - p)`.

    NumPyro keeps probabilities away from 0 and from 1 in both terms. A probability of 0 is as good
    as any other where nothing was won, and the value and its derivatives are then right.
    """
    finfo = jnp.finfo(jnp.result_type(probs, float))
    log_win = xlogy(wins, jnp.where(wins == 0, 1, jnp.maximum(probs, finfo.tiny)))
    safe = jnp.where(losses == 0, 0, jnp.minimum(probs, 1 - finfo.eps))
    return log_win + xlog1py(losses, -safe)


class BernoulliProbs(dist.BernoulliProbs):
    """`BernoulliProbs` with the right derivatives at probabilities of 0 and 1 that were right."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        value = jnp.asarray(value, jnp.result_type(float))
        return _log_odds_apart(self.probs, value, 1 - value)


class BinomialProbs(dist.BinomialProbs):
    """`BinomialProbs` with the right derivatives at probabilities of 0 and 1 that were right."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        value = jnp.asarray(value, jnp.result_type(float))
        rest = self.total_count - value
        choices = gammaln(self.total_count + 1) - gammaln(value + 1) - gammaln(rest + 1)
        return choices + _log_odds_apart(self.probs, value, rest)


def _xlogy(x: Any, y: Any) -> jax.Array:
    """`x * log(y)`, 0 with derivative 0 in `y` where `x` is 0, as `y` may be there too."""
    none = (x == 0) & (y == 0)
    return jnp.where(none, 0.0, xlogy(x, jnp.where(none, 1.0, y)))


class Poisson(dist.Poisson):
    """`Poisson` with the right derivative, -1, where the rate and the count are 0."""

    def log_prob(self, value: Any, intermediates: Any = None) -> jax.Array:
        if self.is_sparse:
            return super().log_prob(value)
        return self._dense_log_prob(value)

    @validate_sample
    def _dense_log_prob(self, value: Any) -> jax.Array:
        dtype = jnp.result_type(float)
        rate, count = jnp.astype(self.rate, dtype), jnp.astype(value, dtype)
        return _xlogy(count, rate) - gammaln(count + 1) - rate


class MultinomialProbs(dist.MultinomialProbs):
    """`MultinomialProbs` with finite derivatives where an event of probability 0 was not seen."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        value = jnp.asarray(value, jnp.result_type(float))
        terms = _xlogy(value, jnp.asarray(self.probs)) - gammaln(value + 1)
        return gammaln(self.total_count + 1) + jnp.sum(terms, axis=-1)


class GeometricProbs(dist.GeometricProbs):
    """`GeometricProbs` with density 1, in place of 0, of no failures where success is certain."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        probs, value = jnp.asarray(self.probs), jnp.asarray(value)
        never = (probs == 1) & (value == 0)
        return value * jnp.log1p(-jnp.where(never, 0, probs)) + jnp.log(probs)


def _betaln(a: Any, b: Any) -> jax.Array:
    """The logarithm of the beta function.

    That of JAX sorts its arguments, which halves derivatives at equal ones: first derivatives of
    the symmetric function come out right all the same, second ones do not. Equal arguments are
    told apart by $B(a, b) = B(a, b + 1) (a + b) / b$.
    """
    equal = jnp.asarray(a == b)
    return betaln(a, b + equal) + jnp.where(equal, jnp.log1p(a / b), 0.0)


class BetaBinomial(dist.BetaBinomial):
    """`BetaBinomial` with the right second derivatives at equal concentrations."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        rest = self.total_count - value
        choices = gammaln(self.total_count + 1.0) - gammaln(value + 1.0) - gammaln(rest + 1.0)
        after = _betaln(value + self.concentration1, rest + self.concentration0)
        return choices + after - _betaln(self.concentration1, self.concentration0)


class BetaNegativeBinomial(dist.BetaNegativeBinomial):
    """`BetaNegativeBinomial` with the right second derivatives at equal concentrations."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        choices = gammaln(self.n + value) - gammaln(self.n) - gammaln(value + 1.0)
        after = _betaln(self.concentration1 + value, self.concentration0 + self.n)
        return choices + after - _betaln(self.concentration1, self.concentration0)


def _log_choices(concentration: Any, value: Any) -> jax.Array:
    r"""$\log \Gamma(c + y) / (\Gamma(c) y!)$ of the negative binomial distribution."""
    return -_betaln(concentration, value + 1) - jnp.log(concentration + value)


class _GammaPoisson:
    """With the right second derivatives at a concentration of the count plus one.

    Large concentrations, near the Poisson distribution, keep their digits.
    """

    @validate_sample
    def log_prob(self: Any, value: Any) -> jax.Array:
        dtype = jnp.result_type(float)
        concentration = jnp.asarray(self.concentration, dtype)
        rate, value = jnp.asarray(self.rate, dtype), jnp.asarray(value, dtype)
        odds = xlog1py(-concentration, 1 / rate) - xlog1py(value, rate)
        return _log_choices(concentration, value) + odds


class GammaPoisson(_GammaPoisson, dist.GammaPoisson):
    """`GammaPoisson` with the right second derivatives at a concentration of the count plus one.

    Large concentrations, near the Poisson distribution, keep their digits.
    """


class NegativeBinomial2(_GammaPoisson, dist.NegativeBinomial2):
    """`NegativeBinomial2` with the density of `GammaPoisson`."""


class NegativeBinomialProbs(dist.NegativeBinomialProbs):
    """`NegativeBinomialProbs` with the right derivatives at a probability of 0 too."""

    @validate_sample
    def log_prob(self, value: Any) -> jax.Array:
        dtype = jnp.result_type(float)
        total = jnp.asarray(self.total_count, dtype)
        probs, value = jnp.asarray(self.probs, dtype), jnp.asarray(value, dtype)
        return _log_choices(total, value) + xlog1py(total, -probs) + _xlogy(value, probs)


class _ZeroInflated:
    """With finite derivatives at gates of 0 and 1, and no underflow."""

    @validate_sample
    def log_prob(self: Any, value: Any) -> jax.Array:
        log_prob = self.base_dist.log_prob(value)
        dtype = jnp.result_type(log_prob)
        gate = jnp.asarray(self.gate, dtype)
        zero = jnp.asarray(value) == 0
        at_zero = _log_mixed_with_one(gate, jnp.where(zero, log_prob, 0))
        return jnp.where(zero, at_zero, jnp.log1p(-jnp.where(zero, 0, gate)) + log_prob)


@jax.custom_jvp
def _log_mixed_with_one(gate: jax.Array, log_prob: jax.Array) -> jax.Array:
    r"""$\log(g + (1 - g) p)$."""
    inside = (gate > 0) & (gate < 1)
    safe = jnp.where(inside, gate, 0.5)
    mixed = jnp.logaddexp(jnp.log(safe), jnp.log1p(-safe) + log_prob)
    return jnp.where(
        inside, mixed, jnp.where(gate == 0, log_prob, jnp.where(gate == 1, 0, jnp.nan))
    )


@_log_mixed_with_one.defjvp
def _log_mixed_with_one_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    gate, log_prob = primals
    mixed = _log_mixed_with_one(gate, log_prob)
    impossible = jnp.isneginf(mixed)
    safe = jnp.where(impossible, 0, mixed)
    ratio = jnp.where(impossible, 1, jnp.exp(log_prob - safe))  # of p to the mixture
    slope = jnp.exp(-safe) - ratio
    return mixed, slope * tangents[0] + (1 - gate) * ratio * tangents[1]


class ZeroInflatedProbs(_ZeroInflated, dist.ZeroInflatedProbs):
    """`ZeroInflatedProbs` with finite derivatives at gates of 0 and 1, and no underflow."""


class ZeroInflatedPoisson(_ZeroInflated, dist.ZeroInflatedPoisson):
    """`ZeroInflatedPoisson` with finite derivatives at gates of 0 and 1, and no underflow."""


class _Hurdle:
    """With finite derivatives at gates of 0 and 1."""

    @validate_sample
    def log_prob(self: Any, value: Any) -> jax.Array:
        zero = jnp.asarray(value) == 0
        gate = jnp.asarray(self.gate)
        magnitude = self.base_dist.log_prob(jnp.where(zero, jnp.ones_like(value), value))
        if self._is_discrete:
            magnitude -= self._log_one_minus_p_zero()
        passed = jnp.log1p(-jnp.where(zero, 0, gate)) + magnitude
        return jnp.where(zero, jnp.log(jnp.where(zero, gate, 1)), passed)


class HurdleProbs(_Hurdle, dist.HurdleProbs):
    """`HurdleProbs` with finite derivatives at gates of 0 and 1."""


class HurdlePoisson(_Hurdle, dist.HurdlePoisson):
    """`HurdlePoisson` with finite derivatives at gates of 0 and 1."""


class HurdleGamma(_Hurdle, dist.HurdleGamma):
    """`HurdleGamma` with finite derivatives at gates of 0 and 1."""


class HurdleLogNormal(_Hurdle, dist.HurdleLogNormal):
    """`HurdleLogNormal` with finite derivatives at gates of 0 and 1."""


MENDED = (
    "BernoulliLogits", "BernoulliProbs", "BetaBinomial", "BetaNegativeBinomial", "BinomialLogits",
    "BinomialProbs", "GammaPoisson", "GeometricProbs", "HurdleGamma", "HurdleLogNormal",
    "HurdlePoisson", "HurdleProbs", "MultinomialProbs",
    "NegativeBinomial2", "NegativeBinomialProbs", "Poisson", "ZeroInflatedPoisson",
    "ZeroInflatedProbs",
)  # fmt: skip
