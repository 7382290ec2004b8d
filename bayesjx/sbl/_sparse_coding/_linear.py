"""Causes with few values whose contributions add up: binary, ternary, discrete sparse coding."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from ..._core import constrained_field, known_field
from ._discrete import AbstractDiscreteCoding
from ._model import AbstractSparseCoding, Joint
from ._parts import (
    activity,
    chosen,
    dictionary,
    floored_noise,
    of_candidates,
    over_causes,
    pair_features,
    pairs_of_candidates,
    PRIOR_FLOOR,
    residual,
    split_states,
    sum_of_pairs,
    times,
)
from ._start import check_parameters, fill, parameter, start, weight_matrix
from ._states import pairs, truncation


class LinearStatistics(NamedTuple):
    r"""Sums of expected sufficient statistics of a linear model.

    Attributes:
        count: weights of the data.
        square: $\sum \| y \|^2$.
        code: $\sum \langle s \rangle y^\top$.
        outer: $\sum \langle s s^\top \rangle$.
        values: how many causes have each of the values of an active one.
    """

    count: Float[Array, ""]
    square: Float[Array, ""]
    code: Float[Array, "h d"]
    outer: Float[Array, "h h"]
    values: Float[Array, " v"]


class AbstractLinearCoding(AbstractDiscreteCoding):
    r"""Abstract base class of models $y \sim N(s W, \sigma^2 I)$ with few values of each cause.

    Only inner products of data and weights are needed (Gram form): the likelihood of all states is
    one product of matrices, and their expectations another.
    """

    @abc.abstractmethod
    def with_values(self, prob: jax.Array, shares: Float[Array, " v"]) -> AbstractLinearCoding:
        """The model with other prior probabilities.

        Args:
            prob: that a cause is active.
            shares: of the values of an active cause, of which the sum is 1.
        """

    def joint(self, y: Float[Array, "n d"]) -> Joint:
        values = jnp.asarray(self.values, y.dtype)
        gram = times(self.weights, self.weights.T) / self.noise_var
        inner = times(self.weights, y.T) / self.noise_var
        norms = jnp.diag(gram)[:, None]
        alone = values[:, None, None] * inner - 0.5 * values[:, None, None] ** 2 * norms
        log_odds = self.log_odds()
        candidates = chosen(self._scores(alone, log_odds, norms), self.num_candidates)
        states = self.several
        first, second = pairs(self.num_candidates)
        quadratic = pair_features(states) * np.where(first == second, -0.5, -1.0)
        features = [of_candidates(inner, candidates), pairs_of_candidates(gram, candidates)]
        # One product of matrices: XLA would make two of the parts, and loops of those.
        features = jax.lax.optimization_barrier(jnp.concatenate(features))
        several = times(np.concatenate([states, quadratic], 1), features)
        null = jnp.zeros((1, len(y)), y.dtype)
        log_ratio = jnp.concatenate([null, alone.reshape(-1, len(y)), several])
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
    ) -> LinearStatistics:
        del temperature
        values = jnp.asarray(self.values, y.dtype)[:, None, None]
        alone, several = split_states(probs, self.num_causes, len(self.values))
        states, size = self.several, self.num_candidates
        counts = np.stack([np.sum(states == value, axis=1) for value in self.values], axis=1)
        table = np.concatenate([states, pair_features(states), counts], axis=1)
        moments = times(table.T, several)
        code = jnp.sum(values * alone, axis=0)
        code = code + over_causes(moments[:size], joint.candidates, self.num_causes)
        outer = sum_of_pairs(
            moments[size : -len(self.values)], joint.candidates, self.num_causes
        ) + jnp.diag(jnp.sum(values**2 * alone, axis=(0, 2)))
        return LinearStatistics(
            jnp.sum(mass),
            jnp.sum(mass * jnp.sum(y**2, axis=1)),
            times(code, y),
            outer,
            jnp.sum(alone, axis=(1, 2)) + jnp.sum(moments[-len(self.values) :], axis=1),
        )

    def maximised(self, statistics: LinearStatistics) -> AbstractLinearCoding:
        count, square, code, outer, values = statistics
        weights = dictionary(outer, code, self.weights)
        size = count * self.weights.shape[1]
        noise = floored_noise(residual(square, outer, code, weights) / size, square / size)
        active = jnp.sum(values)
        prob = activity(
            jnp.sum(self.value_probs()), active / count, self.num_causes, self.max_active
        )
        shares = jnp.maximum(values / (active + jnp.finfo(active.dtype).tiny), PRIOR_FLOOR)
        model = self.with_values(prob, shares / jnp.sum(shares))
        return eqx.tree_at(lambda m: (m.weights, m.noise_var), model, (weights, noise))

    def feasible(self, weights: Float[Array, "h d"]) -> Float[Array, "h d"]:
        return weights

    def expected(self, joint: Joint, probs: Float[Array, "k n"]) -> Float[Array, "n d"]:
        return self.superpose(self.code_moments(joint, probs)[0].T)

    def superpose(self, codes: Float[Array, "... h"]) -> Float[Array, "... d"]:
        return times(codes, self.weights)

    def _scores(self, alone: jax.Array, log_odds: jax.Array, norms: jax.Array) -> jax.Array:
        """What candidates are chosen by, shape `(h, n)`: how probable each cause alone is."""
        if len(self.values) > 1:
            return jnp.max(alone + log_odds[:, None, None], axis=0)
        # The cosine of the angle to the datum, which a long row of weights does not make larger.
        floor = jnp.finfo(norms.dtype).tiny
        return (alone[0] + 0.5 * norms) / jnp.sqrt(jnp.maximum(norms, floor))


class BSC(AbstractLinearCoding):
    r"""Binary sparse coding: causes that are there or not, and add up.

    $y \sim N(s W, \sigma^2 I)$ with $s_h \in \{0, 1\}$ of probability $\pi$.

    Args:
        weights: $W$, shape `(h, d)`.
        noise_var: $\sigma^2$.
        prior_prob: $\pi$.
        num_candidates: causes for each datum that may be active together, by default 7.
        max_active: of them at once, by default 5.

    Raises:
        ValueError: wrong shapes, values out of range, more active causes than states allow.

    References:
        Haft, Hofmann and Tresp (2004), "Generative binary codes", Pattern Analysis and
        Applications 6; Henniges et al. (2010), "Binary sparse coding", LVA/ICA.
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
    ) -> BSC:
        options = {"num_candidates": num_candidates, "max_active": max_active}
        return cls(*start(key, y, num_causes), **options)

    @property
    def values(self) -> tuple[float, ...]:
        """The value of an active cause, 1."""
        return (1.0,)

    def value_probs(self) -> Float[Array, " v"]:
        return self.prior_prob[None]

    def with_prior_of(self, other: Any) -> AbstractSparseCoding:
        return eqx.tree_at(lambda m: m.prior_prob, self, other.prior_prob)

    def with_values(self, prob: jax.Array, shares: Float[Array, " v"]) -> BSC:
        return eqx.tree_at(lambda m: m.prior_prob, self, prob)


class TSC(AbstractLinearCoding):
    r"""Ternary sparse coding: causes that add, take away or are not there.

    $y \sim N(s W, \sigma^2 I)$ with $s_h \in \{-1, 0, 1\}$, of probability $\pi / 2$ for each sign.

    Args:
        weights: $W$, shape `(h, d)`.
        noise_var: $\sigma^2$.
        prior_prob: $\pi$.
        num_candidates: causes for each datum that may be active together, by default 7.
        max_active: of them at once, by default 5.

    Raises:
        ValueError: wrong shapes, values out of range, more active causes than states allow.

    References:
        Exarchakis et al. (2012), "Ternary sparse coding", LVA/ICA.
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
    ) -> TSC:
        options = {"num_candidates": num_candidates, "max_active": max_active}
        return cls(*start(key, y, num_causes), **options)

    @property
    def values(self) -> tuple[float, ...]:
        """The values of an active cause, 1 and -1."""
        return (1.0, -1.0)

    def value_probs(self) -> Float[Array, " v"]:
        return jnp.stack([0.5 * self.prior_prob] * 2)

    def with_prior_of(self, other: Any) -> AbstractSparseCoding:
        return eqx.tree_at(lambda m: m.prior_prob, self, other.prior_prob)

    def with_values(self, prob: jax.Array, shares: Float[Array, " v"]) -> TSC:
        return eqx.tree_at(lambda m: m.prior_prob, self, prob)


class DSC(AbstractLinearCoding):
    r"""Discrete sparse coding: causes with any few values, whose probabilities are learnt.

    $y \sim N(s W, \sigma^2 I)$ with $p(s_h = \phi_k) = \pi_k$ for values $\phi_k$ and 0.

    Args:
        weights: $W$, shape `(h, d)`.
        noise_var: $\sigma^2$.
        prior_probs: $\pi$, of each of the values, not of 0, shape `(v,)`.
        values: $\phi$, not 0 and all different.
        num_candidates: causes for each datum that may be active together, by default 7.
        max_active: of them at once, by default 5.

    Raises:
        ValueError: wrong shapes, values out of range, more active causes than states allow.

    References:
        Exarchakis and Lücke (2017), "Discrete sparse coding", Neural Computation 29.
    """

    num_candidates: int = eqx.field(static=True)
    max_active: int = eqx.field(static=True)
    levels: tuple[float, ...] = known_field(static=True)
    weights: Float[Array, "h d"]
    noise_var: Float[Array, ""] = constrained_field(constraints.positive)
    prior_probs: Float[Array, " v"] = constrained_field(constraints.positive)

    def __init__(
        self,
        weights: Any,
        noise_var: Any,
        prior_probs: Any,
        *,
        values: tuple[float, ...] = (1.0, 2.0),
        num_candidates: int | None = None,
        max_active: int | None = None,
    ):
        self.weights = weight_matrix(weights)
        self.noise_var = parameter("noise_var", noise_var, self.weights)
        self.levels = _known_values(values)
        shape = (len(self.values),)
        self.prior_probs = parameter("prior_probs", prior_probs, self.weights, shape)
        sizes = truncation(len(self.weights), len(self.values), num_candidates, max_active)
        self.num_candidates, self.max_active = sizes
        check_parameters(self)
        if not isinstance(self.prior_probs, jax.core.Tracer) and np.sum(self.prior_probs) >= 1:
            raise ValueError(
                "prior_probs must leave something for the value 0: their sum is "
                f"{np.sum(self.prior_probs):.4g}"
            )

    @classmethod
    def at_data(
        cls,
        key: jax.Array,
        y: Any,
        num_causes: int,
        *,
        values: tuple[float, ...] = (1.0, 2.0),
        num_candidates: int | None = None,
        max_active: int | None = None,
    ) -> DSC:
        weights, noise, prob = start(key, y, num_causes)
        probs = jnp.full(len(_known_values(values)), prob / len(values), prob.dtype)
        options = {"num_candidates": num_candidates, "max_active": max_active}
        return cls(weights, noise, probs, values=values, **options)

    @property
    def values(self) -> tuple[float, ...]:
        """The values of an active cause."""
        return self.levels

    def value_probs(self) -> Float[Array, " v"]:
        return self.prior_probs

    def with_prior_of(self, other: Any) -> AbstractSparseCoding:
        return eqx.tree_at(lambda m: m.prior_probs, self, other.prior_probs)

    def with_values(self, prob: jax.Array, shares: Float[Array, " v"]) -> DSC:
        return eqx.tree_at(lambda m: m.prior_probs, self, prob * shares)


def _known_values(values: Any) -> tuple[float, ...]:
    try:
        array = np.asarray(values, float)
    except (TypeError, ValueError):
        raise ValueError(f"values must be numbers such as (1.0, 2.0), got {values!r}") from None
    if array.ndim != 1 or array.size == 0 or not np.all(np.isfinite(array)):
        raise ValueError(f"values must be finite numbers such as (1.0, 2.0), got {values!r}")
    if np.any(array == 0) or len(np.unique(array)) < array.size:
        raise ValueError(
            f"values must be different from each other and from 0, which is added; got {values!r}"
        )
    return tuple(map(float, array))
