"""Algorithms that estimate the normalising constant of a program: the engines of `marginal`
and `normalize`."""

from __future__ import annotations

import abc
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro
import numpyro.distributions as dist
from jax.scipy.special import logsumexp
from numpyro import handlers

from ._context import activate, Context
from ._cost import Cost
from ._particles import particles
from ._programs import log_density, simulate
from ._score import Reinforce
from ._strategy import AbstractStrategy
from ._wrappers import with_strategy

Values = dict[str, jax.Array]


class Target(NamedTuple):
    """A program with some of its latent sites fixed: an unnormalised density over the rest.

    Attributes:
        program: NumPyro program.
        given: values of the fixed sites; they count as observed.
        args: positional arguments of the program.
        kwargs: its keyword arguments.
    """

    program: Callable[..., Any]
    given: Values
    args: tuple
    kwargs: Mapping[str, Any]

    @property
    def conditioned(self) -> Callable[..., Any]:
        """The program with the given values observed."""
        given: Any = self.given
        return handlers.condition(self.program, data=given) if given else self.program

    def log_joint(self, values: Values) -> jax.Array:
        """Log of the unnormalised density at values of all free sites, scalar."""
        return log_density(self.conditioned, values, *self.args, **self.kwargs).total

    def draw(self, proposal: Callable[..., Any] | None) -> tuple[Values, jax.Array]:
        """One draw of the free sites and its log importance weight.

        Without a proposal the program's own ancestral sampling is used (likelihood weighting).
        """
        if proposal is None:
            trace, cost = simulate(self.conditioned, *self.args, **self.kwargs)
            return dict(trace.values), _observed(cost, trace.values)
        trace, log_r = simulate(self._propose(proposal), *self.args, **self.kwargs)
        values = {k: v for k, v in trace.values.items() if k not in trace.auxiliary}
        return values, self.log_joint(values) - log_r.total

    def weigh(self, values: Values, proposal: Callable[..., Any] | None) -> jax.Array:
        """Log importance weight of given values, scalar."""
        if proposal is None:
            cost = log_density(self.conditioned, values, *self.args, **self.kwargs)
            return _observed(cost, values)
        log_r = log_density(self._propose(proposal), values, *self.args, **self.kwargs).total
        return self.log_joint(values) - log_r

    def _propose(self, proposal: Callable[..., Any]) -> Callable[..., Any]:
        if not self.given:
            return proposal
        return lambda *args, **kwargs: proposal(self.given, *args, **kwargs)


def _observed(cost: Cost, latent: Any) -> jax.Array:
    terms = [term for term in cost.terms if term.label.rpartition("/")[2] not in latent]
    return Cost(tuple(terms)).total if terms else jnp.zeros(())


class AbstractEvidenceEstimator(eqx.Module):
    """An algorithm that estimates the normalising constant $Z$ of a `Target`.

    All methods run inside an objective.
    """

    @abc.abstractmethod
    def log_evidence(self, target: Target) -> jax.Array:
        r"""Log of an estimate with $E[\hat Z] = Z$, scalar."""

    @abc.abstractmethod
    def log_evidence_given(self, target: Target, values: Values) -> jax.Array:
        r"""Log of an estimate that keeps `values` among its particles, scalar.

        If `values` is a draw from the normalised target, then $E[1/\hat Z] = 1/Z$.
        """

    @abc.abstractmethod
    def resample(self, target: Target) -> tuple[Values, jax.Array]:
        r"""A draw that approximates the normalised target, and the log of the $\hat Z$ found."""


class SIR(AbstractEvidenceEstimator):
    """Importance sampling with resampling. Made by `sir`."""

    num_particles: int = eqx.field(static=True)
    proposal: Callable[..., Any] | None = eqx.field(static=True, default=None)
    index_strategy: AbstractStrategy = Reinforce()

    def __check_init__(self):
        _check_count("num_particles", self.num_particles)

    def log_evidence(self, target: Target) -> jax.Array:
        _, weights = particles(self.num_particles)(lambda: target.draw(self.proposal))()
        return log_mean(weights)

    def log_evidence_given(self, target: Target, values: Values) -> jax.Array:
        weights = target.weigh(values, self.proposal)[None]
        if self.num_particles > 1:
            draws = particles(self.num_particles - 1)(lambda: target.draw(self.proposal)[1])
            weights = jnp.concatenate([weights, draws()])
        return log_mean(weights)

    def resample(self, target: Target) -> tuple[Values, jax.Array]:
        values, weights = particles(self.num_particles)(lambda: target.draw(self.proposal))()
        index = choose(weights, self.index_strategy)
        return jax.tree.map(lambda v: v[index], values), log_mean(weights)


class Exact(AbstractEvidenceEstimator):
    """Exact summation over all joint values of finite free sites. Made by `exact`."""

    index_strategy: AbstractStrategy = Reinforce()

    def log_evidence(self, target: Target) -> jax.Array:
        return logsumexp(self._all(target)[1])

    def log_evidence_given(self, target: Target, values: Values) -> jax.Array:
        return self.log_evidence(target)

    def resample(self, target: Target) -> tuple[Values, jax.Array]:
        values, weights = self._all(target)
        index = choose(weights, self.index_strategy)
        return jax.tree.map(lambda v: v[index], values), logsumexp(weights)

    def _all(self, target: Target) -> tuple[Values, jax.Array]:
        supports: dict[str, Any] = {}

        def look() -> jax.Array:
            context = Context(jax.random.key(0))
            with activate(context):
                simulate(target.conditioned, *target.args, **target.kwargs)
            for site in context.sites:
                if not site.family.has_enumerate_support or site.value.ndim:
                    raise site.explain(
                        "vi.exact sums over scalar sites with finite support only",
                        "Use vi.sir",
                    )
                with jax.ensure_compile_time_eval():
                    supports[site.name] = site.family.enumerate_support(expand=False).reshape(-1)
            return jnp.zeros(())

        jax.eval_shape(look)
        grid = list(itertools.product(*supports.values()))
        values = {name: jnp.stack([point[i] for point in grid]) for i, name in enumerate(supports)}
        return values, jax.vmap(target.log_joint)(values)


def sir(
    num_particles: int,
    proposal: Callable[..., Any] | None = None,
    index_strategy: AbstractStrategy | None = None,
) -> SIR:
    """Importance sampling, for `marginal` and (with resampling) for `normalize`.

    Args:
        num_particles: draws from the proposal, positive; the draw itself counts as one of them.
        proposal: NumPyro program over the free sites. For `normalize` it takes the program's
            arguments; for `marginal` a mapping of the kept values comes first. It may itself
            sample a `marginal`. None: the program's own ancestral sampling, which suits few free
            sites. Its support must cover that of the program.
        index_strategy: gradient strategy of the resampled index (`normalize` only), a strategy
            instance; `vi.Reinforce()` by default.

    Raises:
        ValueError: `num_particles` is not a positive integer.
    """
    return SIR(num_particles, proposal, index_strategy or Reinforce())


def exact(index_strategy: AbstractStrategy | None = None) -> Exact:
    """Exact summation, for programs whose free sites are few scalars of finite support.

    Args:
        index_strategy: gradient strategy of the index drawn by `normalize`; `vi.Reinforce()` by
            default.
    """
    return Exact(index_strategy or Reinforce())


def choose(log_weights: jax.Array, strategy: AbstractStrategy) -> jax.Array:
    """An index drawn in proportion to the weights, a site of the running objective.

    All-impossible weights choose uniformly: the estimate of the evidence is then zero anyway.
    """
    hopeless = jnp.all(log_weights == -jnp.inf)
    logits = jnp.where(hopeless, 0.0, log_weights)
    law = with_strategy(dist.Categorical(logits=logits), strategy)
    trace, _ = simulate(lambda: numpyro.sample("index", law))
    return trace["index"]


def log_mean(log_weights: jax.Array) -> jax.Array:
    """Log of the mean weight; −inf, and no NaN gradient, where all weights are zero."""
    n = jnp.asarray(log_weights.shape[0], log_weights.dtype)
    hopeless = jnp.all(log_weights == -jnp.inf)
    safe = jnp.where(hopeless, 0.0, log_weights)
    return jnp.where(hopeless, -jnp.inf, logsumexp(safe) - jnp.log(n))


def _check_count(name: str, value: Any) -> None:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{name} must be a positive integer, got {value!r}")
