"""Causes that have few values, each with a probability of its own."""

from __future__ import annotations

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ._model import AbstractSparseCoding, Joint
from ._parts import decoded, kept_states, over_causes, split_states, times
from ._states import several_active


class AbstractDiscreteCoding(AbstractSparseCoding):
    """Abstract base class of models whose causes have few values."""

    @abc.abstractmethod
    def value_probs(self) -> Float[Array, " v"]:
        """Prior probabilities of the values of an active cause, shape `(v,)`."""

    def code_moments(
        self, joint: Joint, probs: Float[Array, "k n"]
    ) -> tuple[Float[Array, "h n"], Float[Array, "h n"]]:
        alone, several = split_states(probs, self.num_causes, len(self.values))
        values = jnp.asarray(self.values, probs.dtype)[:, None, None]
        mean, active = (
            over_causes(times(table.T, several), joint.candidates, self.num_causes)
            for table in (self.several, self.several != 0)
        )
        return mean + jnp.sum(values * alone, axis=0), active + jnp.sum(alone, axis=0)

    def codes(self, joint: Joint, index: Int[Array, "t n"]) -> Float[Array, "t n h"]:
        kind = self.weights.dtype
        return decoded(index, self.several, self.values, joint.candidates, self.num_causes, kind)

    def sample_codes(self, key: jax.Array, shape: tuple[int, ...]) -> Float[Array, "... h"]:
        probs = self.value_probs()
        log_probs = jnp.log(jnp.append(1 - jnp.sum(probs), probs))
        drawn = jax.random.categorical(key, log_probs, shape=(*shape, self.num_causes))
        return jnp.asarray((0.0, *self.values), self.weights.dtype)[drawn]

    def with_cause(self, number: Any, weights: Float[Array, " d"]) -> AbstractSparseCoding:
        moved = self.weights.at[number].set(weights)
        return eqx.tree_at(lambda m: m.weights, self, self.feasible(moved))

    def beyond(self) -> Float[Array, ""] | None:
        if self.max_active == self.num_causes:
            return None
        active = jnp.sum(self.value_probs())
        return 1 - kept_states(active, self.num_causes, self.max_active)[0]

    @property
    def several(self) -> np.ndarray:
        """States with two and more active candidates, by the value of each, shape `(k, c)`."""
        return several_active(self.num_candidates, self.max_active, self.values)

    def log_odds(self) -> Float[Array, " v"]:
        """Log probabilities of the values of an active cause, less that of 0."""
        probs = self.value_probs()
        return jnp.log(probs) - jnp.log1p(-jnp.sum(probs))

    def log_prior(self) -> Float[Array, "k 1"]:
        """Log prior probabilities of all states."""
        none = self.num_causes * jnp.log1p(-jnp.sum(self.value_probs()))
        log_odds = self.log_odds()
        alone = jnp.repeat(log_odds, self.num_causes)
        counts = np.stack([np.sum(self.several == v, axis=1) for v in self.values], axis=1)
        several = times(counts, log_odds)
        return (none + jnp.concatenate([jnp.zeros(1, alone.dtype), alone, several]))[:, None]
