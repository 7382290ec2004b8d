"""What all sparse coding models share: truncated posteriors, and evidences and draws by them."""

from __future__ import annotations

import abc
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..._core import check_key, compiled, whole_number
from ._arguments import finite_guard, observations
from ._chunks import AT_ONCE, mapped
from ._parts import largest
from ._states import num_states


class Joint(NamedTuple):
    """The joint distribution of data and states, for the states that are kept of each datum.

    First comes the state without an active cause, then each cause alone, for every value that it
    may have, then the states with several active candidates.

    Attributes:
        candidates: numbers of the causes that may be active together, shape `(c, n)`.
        log_prior: of the states, shape `(k, n)`, or `(k, 1)` if it is the same for all data.
        log_ratio: log likelihood less that without an active cause, shape `(k, n)`.
        log_null: log likelihood without an active cause, shape `(n,)`.
        inside: what a model needs besides for its expectations.
    """

    candidates: Int[Array, "c n"]
    log_prior: Float[Array, "k _"]
    log_ratio: Float[Array, "k n"]
    log_null: Float[Array, " n"]
    inside: Any = None


class CodePosterior(eqx.Module):
    """The truncated posterior of the codes of data.

    Attributes:
        codes: the most probable states of the causes, best first, shape `(n, top_k, h)`; of
            spike-and-slab codes the mean given which causes are active.
        probs: their posterior probabilities, shape `(n, top_k)`.
        mean: posterior mean of the code, shape `(n, h)`.
        active_prob: posterior probability that a cause is active, shape `(n, h)`.
        log_evidence: log probability of each datum and of the states that are kept, a lower bound
            of its log evidence, shape `(n,)`.
    """

    codes: Float[Array, "n top_k h"]
    probs: Float[Array, "n top_k"]
    mean: Float[Array, "n h"]
    active_prob: Float[Array, "n h"]
    log_evidence: Float[Array, " n"]


class AbstractSparseCoding(eqx.Module):
    r"""Abstract base class of generative models with few active causes.

    Codes $s$ of $H$ causes, most of them 0, are put together to $\bar y(s, W)$, and
    $y \sim N(\bar y(s, W), \sigma^2 I)$. Posteriors run over the state without causes, over each
    cause alone, and over all states with at most `max_active` active causes among
    `num_candidates` that are chosen for each datum (expectation truncation).

    References:
        Lücke and Eggert (2010), "Expectation truncation and the benefits of preselection in
        training generative models", JMLR 11.
    """

    num_candidates: eqx.AbstractVar[int]
    max_active: eqx.AbstractVar[int]
    weights: eqx.AbstractVar[Float[Array, "h d"]]
    noise_var: eqx.AbstractVar[Float[Array, ""]]

    @classmethod
    @abc.abstractmethod
    def at_data(
        cls,
        key: jax.Array,
        y: Any,
        num_causes: int,
        *,
        num_candidates: int | None = None,
        max_active: int | None = None,
    ) -> AbstractSparseCoding:
        """A model to start from: random weights about the mean of the data, and their variance.

        Args:
            key: PRNG key.
            y: data, shape `(n, d)`.
            num_causes: number of causes, $H$.
            num_candidates: causes for each datum that may be active together, by default 7.
            max_active: of them at once, by default 5.

        Raises:
            ValueError: another shape, no data, NaN, or more active causes than states allow.
        """

    @property
    @abc.abstractmethod
    def values(self) -> tuple[float, ...]:
        """The values of an active cause."""

    @abc.abstractmethod
    def joint(self, y: Float[Array, "n d"]) -> Joint:
        """The joint distribution of data and the states that are kept of each."""

    @abc.abstractmethod
    def expectations(
        self,
        y: Float[Array, "n d"],
        joint: Joint,
        probs: Float[Array, "k n"],
        mass: Float[Array, " n"],
        temperature: Any,
    ) -> Any:
        """Sums of expected sufficient statistics.

        Args:
            y: data, shape `(n, d)`.
            joint: what `joint` gave of them.
            probs: of the states, times the weight of the datum, shape `(k, n)`.
            mass: weights of the data, shape `(n,)`.
            temperature: of the step.
        """

    @abc.abstractmethod
    def maximised(self, statistics: Any) -> AbstractSparseCoding:
        """The model after the M-step, from sums or means of expected sufficient statistics."""

    @abc.abstractmethod
    def feasible(self, weights: Float[Array, "h d"]) -> Float[Array, "h d"]:
        """Weights that the model allows, near to those given."""

    @abc.abstractmethod
    def with_prior_of(self, other: Any) -> AbstractSparseCoding:
        """The model with the prior probabilities of another one of its class."""

    @abc.abstractmethod
    def with_cause(self, number: Any, weights: Float[Array, " d"]) -> AbstractSparseCoding:
        """The model with new weights of one cause, and what else it has of its own reset."""

    @abc.abstractmethod
    def code_moments(
        self, joint: Joint, probs: Float[Array, "k n"]
    ) -> tuple[Float[Array, "h n"], Float[Array, "h n"]]:
        """Mean of the codes, and the probabilities that causes are active."""

    @abc.abstractmethod
    def codes(self, joint: Joint, index: Int[Array, "t n"]) -> Float[Array, "t n h"]:
        """The codes of states that are given by their numbers."""

    @abc.abstractmethod
    def expected(self, joint: Joint, probs: Float[Array, "k n"]) -> Float[Array, "n d"]:
        r"""The posterior mean of $\bar y$."""

    @abc.abstractmethod
    def superpose(self, codes: Float[Array, "... h"]) -> Float[Array, "... d"]:
        r"""$\bar y(s, W)$: data without noise that codes make, shape `(..., d)`."""

    @abc.abstractmethod
    def sample_codes(self, key: jax.Array, shape: tuple[int, ...]) -> Float[Array, "... h"]:
        """Draws of codes from the prior, shape `(*shape, h)`."""

    @abc.abstractmethod
    def beyond(self) -> Float[Array, ""] | None:
        """Prior probability of more active causes than states have; None if that does not matter.

        So large a part of the data may be left out of an M-step.
        """

    @property
    def num_causes(self) -> int:
        """The number of causes."""
        return self.weights.shape[0]

    @property
    def num_states(self) -> int:
        """The number of states of each datum that posteriors run over."""
        return num_states(self.num_causes, len(self.values), self.num_candidates, self.max_active)

    def log_evidence(self, y: Any) -> Float[Array, " n"]:
        """Log probability of each datum together with the states that are kept, `(n,)`.

        It is a lower bound of the log evidence, and equal to it where nothing is truncated.

        Args:
            y: data, shape `(n, d)`.

        Raises:
            ValueError: another shape, no data, NaN; under `jit` that is a `RuntimeError`.
        """
        return _log_evidence(self, observations(y, self.weights.shape[1], self.weights.dtype))

    def posterior(self, y: Any, top_k: int = 1) -> CodePosterior:
        """The truncated posterior of the codes of data.

        Args:
            y: data, shape `(n, d)`.
            top_k: how many of the most probable states to give.

        Raises:
            ValueError: another shape, no data, NaN (under `jit` a `RuntimeError`), more states
                than there are.
        """
        top_k = whole_number("top_k", top_k)
        if top_k > self.num_states:
            raise ValueError(f"top_k is {top_k}, but there are {self.num_states} states")
        y = observations(y, self.weights.shape[1], self.weights.dtype)
        return _posterior(self, y, top_k)

    def reconstruct(self, y: Any) -> Float[Array, "n d"]:
        r"""Data without their noise: the posterior mean of $\bar y$, shape `(n, d)`.

        Args:
            y: data, shape `(n, d)`.

        Raises:
            ValueError: another shape, no data, NaN; under `jit` that is a `RuntimeError`.
        """
        return _reconstruction(self, observations(y, self.weights.shape[1], self.weights.dtype))

    def sample(
        self, key: jax.Array, sample_shape: tuple[int, ...] = ()
    ) -> tuple[Float[Array, "... h"], Float[Array, "... d"]]:
        """Draws of codes and of data, shapes `(*sample_shape, h)` and `(*sample_shape, d)`.

        Args:
            key: PRNG key.
            sample_shape: how many.

        Raises:
            ValueError: no key, or no shape.
        """
        check_key(key)
        if not isinstance(sample_shape, tuple):
            raise ValueError(f"sample_shape must be a tuple such as (100,), got {sample_shape!r}")
        for size in sample_shape:
            whole_number("sample_shape", size, 0)
        return _sample(self, key, sample_shape)


def truncated_posterior(
    joint: Joint, temperature: Any = 1.0
) -> tuple[Float[Array, "k n"], Float[Array, " n"]]:
    r"""Probabilities of the states at a temperature, and the bound of the log evidence they give.

    $q(s) \propto p(s) p(y \mid s)^{1/T}$, and the bound is
    $\sum_s q(s) \log (p(y, s) / q(s))$: at $T = 1$ the log of the sum of the joint probabilities.

    Args:
        joint: of data and states.
        temperature: $T$, 1 or more.

    Returns:
        Shapes `(k, n)` and `(n,)`.
    """
    is_one = isinstance(temperature, int | float) and temperature == 1
    log_ratio = joint.log_ratio
    tempered = joint.log_prior + (log_ratio if is_one else log_ratio / temperature)
    top = jnp.max(tempered, axis=0)
    relative = jnp.exp(tempered - top)
    total = jnp.sum(relative, axis=0)
    probs = relative / total
    bound = joint.log_null + top + jnp.log(total)
    if not is_one:
        bound = bound + (1 - 1 / temperature) * jnp.sum(probs * log_ratio, axis=0)
    return probs, bound


def rows_at_once(model: AbstractSparseCoding) -> int:
    """How many data a chunk has by default."""
    return max(1, AT_ONCE // model.num_states)


@compiled
def _log_evidence(model: AbstractSparseCoding, y: jax.Array) -> jax.Array:
    guard = finite_guard(y)
    one = lambda y: truncated_posterior(model.joint(y))[1]  # noqa: E731
    return guard * mapped(one, y, rows_at_once(model))


@compiled
def _reconstruction(model: AbstractSparseCoding, y: jax.Array) -> jax.Array:
    def one(y: jax.Array) -> jax.Array:
        joint = model.joint(y)
        return model.expected(joint, truncated_posterior(joint)[0])

    return finite_guard(y) * mapped(one, y, rows_at_once(model))


@compiled
def _posterior(model: AbstractSparseCoding, y: jax.Array, top_k: int) -> CodePosterior:
    def one(y: jax.Array) -> CodePosterior:
        joint = model.joint(y)
        probs, bound = truncated_posterior(joint)
        index = largest(probs, top_k)
        best = jnp.take_along_axis(probs, index, axis=0).T
        codes = jnp.moveaxis(model.codes(joint, index), 0, 1)
        mean, active = model.code_moments(joint, probs)
        return CodePosterior(codes, best, mean.T, active.T, bound)

    found = mapped(one, y, rows_at_once(model))
    guarded = finite_guard(y) * found.log_evidence
    return eqx.tree_at(lambda f: f.log_evidence, found, guarded)


@compiled
def _sample(
    model: AbstractSparseCoding, key: jax.Array, shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array]:
    code_key, noise_key = jax.random.split(key)
    codes = model.sample_codes(code_key, shape)
    clean = model.superpose(codes)
    noise = jax.random.normal(noise_key, clean.shape, clean.dtype)
    return codes, clean + jnp.sqrt(model.noise_var) * noise
