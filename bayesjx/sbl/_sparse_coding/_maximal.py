"""Causes of which the strongest makes a pixel: maximal causes, of positive and of either sign."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from ..._core import constrained_field
from ._discrete import AbstractDiscreteCoding
from ._model import AbstractSparseCoding, Joint
from ._parts import activity, chosen, floored_noise, over_causes, split_states, times
from ._start import fill, start

LEAST_TEMPERATURE = 1.05  # that sharpens responsibilities: their exponent is 21 then
LEAST_SHARE = -60.0  # log of the responsibility of a cause much weaker than the strongest one


class MaximalStatistics(NamedTuple):
    r"""Sums of expected sufficient statistics of a model of maximal causes.

    Attributes:
        count: weights of the data.
        square: $\sum \| y \|^2$.
        residual: $\sum \langle \| y - \bar y \|^2 \rangle$.
        share: responsibilities of causes for pixels, $\sum \langle A \rangle$.
        target: $\sum \langle A \rangle y$.
        active: number of active causes.
    """

    count: Float[Array, ""]
    square: Float[Array, ""]
    residual: Float[Array, ""]
    share: Float[Array, "h d"]
    target: Float[Array, "h d"]
    active: Float[Array, ""]


class AbstractMaximalCoding(AbstractDiscreteCoding):
    r"""Abstract base class of models in which the strongest active cause makes a pixel.

    Posteriors take the maximum itself. In the M-step a pixel belongs to the active causes of a
    state by $A_{hd}(s) \propto s_h \lvert W_{hd} \rvert^\rho$, with $\rho = 21$ at temperature 1
    and less above, and weights are the means of the pixels that belong to them. Pixels are looked
    at one by one, so that memory is that of the probabilities of states.
    """

    prior_prob: eqx.AbstractVar[Float[Array, ""]]

    @abc.abstractmethod
    def strongest(self, values: Float[Array, "c n"]) -> Float[Array, "k n"]:
        """A pixel that states with several active candidates make, of the candidates' weights."""

    @abc.abstractmethod
    def scores(self, y: Float[Array, "n d"]) -> Float[Array, "h n"]:
        """What candidates are chosen by."""

    def joint(self, y: Float[Array, "n d"]) -> Joint:
        candidates = chosen(self.scores(y), self.num_candidates)
        norms = jnp.sum(self.weights**2, axis=1)
        alone = times(self.weights, y.T) - 0.5 * norms[:, None]

        def add(total: jax.Array, pixel: Any) -> tuple[jax.Array, None]:
            weights, values = pixel
            top = self.strongest(weights[candidates])
            return total + top * (values - 0.5 * top), None

        several = jnp.zeros((len(self.several), len(y)), y.dtype)
        if len(several):
            several = jax.lax.scan(add, several, (self.weights.T, y.T))[0]
        null = jnp.zeros((1, len(y)), y.dtype)
        log_ratio = jnp.concatenate([null, alone, several]) / self.noise_var
        size = jnp.sum(y**2, axis=1) / self.noise_var
        log_null = -0.5 * (size + y.shape[1] * jnp.log(2 * jnp.pi * self.noise_var))
        return Joint(candidates, self.log_prior(), log_ratio, log_null)

    def expectations(
        self,
        y: Float[Array, "n d"],
        joint: Joint,
        probs: Float[Array, "k n"],
        mass: Float[Array, " n"],
        temperature: Any,
    ) -> MaximalStatistics:
        alone, several = split_states(probs, self.num_causes, 1)
        exponent = 1 / (1 - 1 / jnp.maximum(temperature, LEAST_TEMPERATURE))
        exponent = jnp.asarray(exponent, y.dtype)
        states = jnp.asarray(self.several, y.dtype)

        def belonging(_: None, pixel: Any) -> tuple[None, tuple[jax.Array, jax.Array]]:
            weights, values = pixel
            powers = _powers(weights[joint.candidates], exponent)
            share = powers * times(states.T, several / times(states, powers))
            share = over_causes(share, joint.candidates, self.num_causes)
            return None, (jnp.sum(share, axis=1), times(share, values))

        share = jnp.sum(alone[0], axis=1)[:, None] + jnp.zeros_like(self.weights)
        target = times(alone[0], y)
        if len(states):
            more = jax.lax.scan(belonging, None, (self.weights.T, y.T))[1]
            share, target = share + more[0].T, target + more[1].T
        square = jnp.sum(mass * jnp.sum(y**2, axis=1))
        residual = square - 2 * self.noise_var * jnp.sum(probs * joint.log_ratio)
        active = jnp.sum(alone) + jnp.sum(times(states.sum(axis=1), several))
        return MaximalStatistics(jnp.sum(mass), square, residual, share, target, active)

    def maximised(self, statistics: MaximalStatistics) -> AbstractMaximalCoding:
        count, square, residual, share, target, active = statistics
        pull = 4 * jnp.finfo(share.dtype).eps * count
        weights = self.feasible((target + pull * self.weights) / (share + pull))
        size = count * self.weights.shape[1]
        noise = floored_noise(residual / size, square / size)
        prob = activity(self.prior_prob, active / count, self.num_causes, self.max_active)
        where = lambda m: (m.weights, m.noise_var, m.prior_prob)  # noqa: E731
        return eqx.tree_at(where, self, (weights, noise, prob))

    def expected(self, joint: Joint, probs: Float[Array, "k n"]) -> Float[Array, "n d"]:
        alone, several = split_states(probs, self.num_causes, 1)
        clean = times(alone[0].T, self.weights)
        if not len(self.several):
            return clean

        def pixel(weights: jax.Array) -> jax.Array:
            return jnp.sum(several * self.strongest(weights[joint.candidates]), axis=0)

        return clean + jax.lax.map(pixel, self.weights.T).T

    def superpose(self, codes: Float[Array, "... h"]) -> Float[Array, "... d"]:
        def pixel(weights: jax.Array) -> jax.Array:
            found = codes * weights
            top, bottom = (f(found, axis=-1, initial=0.0) for f in (jnp.max, jnp.min))
            return jnp.where(top >= -bottom, top, bottom)

        return jnp.moveaxis(jax.lax.map(pixel, self.weights.T), 0, -1)

    def with_prior_of(self, other: Any) -> AbstractSparseCoding:
        return eqx.tree_at(lambda m: m.prior_prob, self, other.prior_prob)

    def value_probs(self) -> Float[Array, " v"]:
        return self.prior_prob[None]


class MCA(AbstractMaximalCoding):
    r"""Maximal causes analysis: of active causes with weights of at least 0 the largest counts.

    $y_d \sim N(\max_h s_h W_{hd}, \sigma^2)$ with $s_h \in \{0, 1\}$ of probability $\pi$.

    Args:
        weights: $W \ge 0$, shape `(h, d)`.
        noise_var: $\sigma^2$.
        prior_prob: $\pi$.
        num_candidates: causes for each datum that may be active together, by default 7.
        max_active: of them at once, by default 5.

    Raises:
        ValueError: wrong shapes, values out of range, more active causes than states allow.

    References:
        Lücke and Sahani (2008), "Maximal causes for non-linear component extraction", JMLR 9;
        Lücke and Eggert (2010), section 5.
    """

    num_candidates: int = eqx.field(static=True)
    max_active: int = eqx.field(static=True)
    weights: Float[Array, "h d"] = constrained_field(constraints.nonnegative)
    noise_var: Float[Array, ""] = constrained_field(constraints.positive)
    prior_prob: Float[Array, ""] = constrained_field(constraints.open_interval(0, 1))

    def __init__(
        self,
        weights: Any,
        noise_var: Any,
        prior_prob: Any,
        *,
        num_candidates: int | None = None,
        max_active: int | None = None,
    ):
        fill(self, weights, noise_var, prior_prob, num_candidates, max_active)

    @classmethod
    def at_data(
        cls,
        key: jax.Array,
        y: Any,
        num_causes: int,
        *,
        num_candidates: int | None = None,
        max_active: int | None = None,
    ) -> MCA:
        weights, noise, prob = start(key, y, num_causes)
        options = {"num_candidates": num_candidates, "max_active": max_active}
        return cls(jnp.maximum(weights, 0), noise, prob, **options)

    @property
    def values(self) -> tuple[float, ...]:
        """The value of an active cause, 1."""
        return (1.0,)

    def strongest(self, values: Float[Array, "c n"]) -> Float[Array, "k n"]:
        states = jnp.asarray(self.several, values.dtype)
        top = states[:, 0, None] * values[0]
        for i in range(1, len(values)):
            top = jnp.maximum(top, states[:, i, None] * values[i])
        return top

    def scores(self, y: Float[Array, "n d"]) -> Float[Array, "h n"]:
        def add(total: jax.Array, pixel: Any) -> tuple[jax.Array, None]:
            weights, values = pixel
            return total - jnp.maximum(weights[:, None] - values, 0), None

        nothing = jnp.zeros((self.num_causes, len(y)), y.dtype)
        return jax.lax.scan(add, nothing, (self.weights.T, y.T))[0]

    def feasible(self, weights: Float[Array, "h d"]) -> Float[Array, "h d"]:
        return jnp.maximum(weights, 0)


class MMCA(AbstractMaximalCoding):
    r"""Maximum magnitude causes analysis: of active causes that of the largest magnitude counts.

    $y_d \sim N(s_h W_{hd}, \sigma^2)$ for the $h$ with the largest $\lvert s_h W_{hd} \rvert$, and
    $s_h \in \{0, 1\}$ of probability $\pi$.

    Args:
        weights: $W$, shape `(h, d)`.
        noise_var: $\sigma^2$.
        prior_prob: $\pi$.
        num_candidates: causes for each datum that may be active together, by default 7.
        max_active: of them at once, by default 5.

    Raises:
        ValueError: wrong shapes, values out of range, more active causes than states allow.

    References:
        Bornschein, Henniges and Lücke (2013), "Are V1 simple cells optimized for visual
        occlusions? A comparative study", PLoS Computational Biology 9.
    """

    num_candidates: int = eqx.field(static=True)
    max_active: int = eqx.field(static=True)
    weights: Float[Array, "h d"]
    noise_var: Float[Array, ""] = constrained_field(constraints.positive)
    prior_prob: Float[Array, ""] = constrained_field(constraints.open_interval(0, 1))

    def __init__(
        self,
        weights: Any,
        noise_var: Any,
        prior_prob: Any,
        *,
        num_candidates: int | None = None,
        max_active: int | None = None,
    ):
        fill(self, weights, noise_var, prior_prob, num_candidates, max_active)

    @classmethod
    def at_data(
        cls,
        key: jax.Array,
        y: Any,
        num_causes: int,
        *,
        num_candidates: int | None = None,
        max_active: int | None = None,
    ) -> MMCA:
        options = {"num_candidates": num_candidates, "max_active": max_active}
        return cls(*start(key, y, num_causes), **options)

    @property
    def values(self) -> tuple[float, ...]:
        """The value of an active cause, 1."""
        return (1.0,)

    def strongest(self, values: Float[Array, "c n"]) -> Float[Array, "k n"]:
        states = jnp.asarray(self.several, values.dtype)
        top = bottom = jnp.zeros((len(states), values.shape[1]), values.dtype)
        for i, value in enumerate(values):
            here = states[:, i, None] * value
            top, bottom = jnp.maximum(top, here), jnp.minimum(bottom, here)
        return jnp.where(top >= -bottom, top, bottom)

    def scores(self, y: Float[Array, "n d"]) -> Float[Array, "h n"]:
        return times(self.weights, y.T) - 0.5 * jnp.sum(self.weights**2, axis=1)[:, None]

    def feasible(self, weights: Float[Array, "h d"]) -> Float[Array, "h d"]:
        return weights


def _powers(weights: Float[Array, "c n"], exponent: jax.Array) -> Float[Array, "c n"]:
    """Powers of magnitudes relative to the largest one, none of them 0."""
    size = jnp.abs(weights)
    top = jnp.max(size, axis=0) + jnp.finfo(size.dtype).tiny
    return jnp.exp(jnp.maximum(exponent * jnp.log(size / top), LEAST_SHARE))
