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
from jaxtyping import Array, Float, Int
from numpyro import handlers

from ..._core import whole_number
from .._estimator import (
    AbstractStrategy,
    activate,
    check_programs,
    check_strategy,
    Context,
    Cost,
    current,
    drawable,
    log_mean,
    log_sum,
    map_sites,
    particles,
)
from .._programs import (
    Fixed,
    log_density,
    refuse_narrower,
    simulate,
    Supports,
)
from .._strategies import (
    Reinforce,
    with_strategy,
)

Values = dict[str, jax.Array]


class Particle(NamedTuple):
    """A draw of the free sites of a `Target`.

    Attributes:
        values: value per site.
        log_weight: log importance weight, scalar.
        log_joint: log of the unnormalised density; if it is an estimate, the one in the weight.
    """

    values: Values
    log_weight: Float[Array, ...]
    log_joint: Float[Array, ...]


class Target(NamedTuple):
    """A program with some of its latent sites fixed: an unnormalised density over the rest.

    Attributes:
        program: NumPyro program.
        given: values of the fixed sites; they count as observed.
        args: positional arguments of the program.
        kwargs: its keyword arguments.
        params: values of the `numpyro.param` sites of program and proposal.
    """

    program: Callable[..., Any]
    given: Values
    args: tuple
    kwargs: Mapping[str, Any]
    params: Mapping[str, Any] = {}

    @property
    def conditioned(self) -> Callable[..., Any]:
        """The program with the given values observed."""
        return self._bind(Fixed(self.program, self.given) if self.given else self.program)

    def density(self, values: Values) -> Cost:
        """Log of the unnormalised density at values of all free sites."""
        return log_density(self.conditioned, values, *self.args, **self.kwargs)

    def log_joint(self, values: Values) -> Float[Array, ""]:
        """`density` as a scalar."""
        return self.density(values).total

    def draw(self, proposal: Callable[..., Any] | None) -> Particle:
        """One draw of the free sites.

        Without a proposal the program's own ancestral sampling is used (likelihood weighting).
        """
        if proposal is None:
            trace, cost = simulate(self.conditioned, *self.args, **self.kwargs)
            return Particle(dict(trace.values), _observed(cost, trace.values), cost.total)
        proposed, own = Supports(self.propose(proposal)), Supports(self.conditioned)
        trace, log_r = simulate(proposed, *self.args, **self.kwargs)
        values = {k: v for k, v in trace.values.items() if k not in trace.auxiliary}
        log_joint = log_density(own, values, *self.args, **self.kwargs).total
        refuse_narrower(proposed.by_site, own.by_site)
        return Particle(values, log_joint - log_r.total, log_joint)

    def weigh(
        self, values: Values, density: Cost, proposal: Callable[..., Any] | None
    ) -> Float[Array, ""]:
        """Log importance weight of given values with a known `density`, scalar."""
        if proposal is None:
            return _observed(density, values)
        program = self.propose(proposal)
        return density.total - log_density(program, values, *self.args, **self.kwargs).total

    def propose(self, proposal: Callable[..., Any]) -> Callable[..., Any]:
        """A proposal as a program of the target's arguments."""
        if not self.given:
            return self._bind(proposal)
        return self._bind(lambda *args, **kwargs: proposal(self.given, *args, **kwargs))

    def _bind(self, program: Callable[..., Any]) -> Callable[..., Any]:
        params: Any = self.params
        return handlers.substitute(program, data=params) if params else program


def _observed(cost: Cost, latent: Mapping[str, Any]) -> jax.Array:
    """The part of a program's log density that does not belong to its latent sites."""
    prefix = current("marginal").prefix
    terms = [
        term
        for term in cost.terms
        if term.label.removeprefix(prefix).partition("/")[2] not in latent
    ]
    return Cost(tuple(terms)).total if terms else jnp.zeros_like(cost.total)


class AbstractEvidenceEstimator(eqx.Module):
    """An algorithm that estimates the normalising constant $Z$ of a `Target`.

    All methods run inside an objective.
    """

    @abc.abstractmethod
    def log_evidence(self, target: Target) -> Float[Array, ""]:
        r"""Log of an estimate with $E[\hat Z] = Z$, scalar."""

    @abc.abstractmethod
    def log_evidence_given(self, target: Target, values: Values, density: Cost) -> Float[Array, ""]:
        r"""Log of an estimate that keeps `values` among its particles, scalar.

        If `values` is a draw from the normalised target, then $E[1/\hat Z] = 1/Z$.

        Args:
            target: program and fixed sites.
            values: values of all free sites.
            density: the unnormalised log density there. If the program contains marginals it is
                an estimate: that of the run that drew `values`, where there was one.
        """

    @abc.abstractmethod
    def resample(self, target: Target) -> tuple[Values, Float[Array, ""], Float[Array, ""]]:
        r"""A draw that approximates the normalised target.

        Returns:
            the draw, the log of its unnormalised density, and the log of the estimate $\hat Z$.
        """


class SIR(AbstractEvidenceEstimator):
    """Importance sampling with resampling. Made by `sir`."""

    num_particles: int = eqx.field(static=True)
    proposal: Callable[..., Any] | None = eqx.field(static=True, default=None)
    index_strategy: AbstractStrategy = Reinforce()

    def __check_init__(self):
        whole_number("num_particles", self.num_particles)
        check_programs(True, proposal=self.proposal)
        check_strategy("index_strategy", self.index_strategy)

    def log_evidence(self, target: Target) -> Float[Array, ""]:
        return log_mean(self._draw(target, self.num_particles).log_weight)

    def log_evidence_given(self, target: Target, values: Values, density: Cost) -> Float[Array, ""]:
        weights = target.weigh(values, density, self.proposal)[None]
        if self.num_particles > 1:
            others = self._draw(target, self.num_particles - 1)
            weights = jnp.concatenate([weights, others.log_weight])
        return log_mean(weights)

    def resample(self, target: Target) -> tuple[Values, Float[Array, ""], Float[Array, ""]]:
        drawn = self._draw(target, self.num_particles)
        log_evidence = log_mean(drawn.log_weight)
        if self.num_particles == 1:
            return *_pick(drawn, 0), log_evidence
        return *_pick(drawn, choose(drawn.log_weight, self.index_strategy)), log_evidence

    def _draw(self, target: Target, count: int) -> Particle:
        """Particles along a leading axis."""
        if count == 1:  # no mapped axis, so that every strategy may be used
            return jax.tree.map(lambda x: x[None], target.draw(self.proposal))
        return particles(count)(lambda: target.draw(self.proposal))()


class Exact(AbstractEvidenceEstimator):
    """Exact summation over all joint values of finite free sites. Made by `exact`."""

    index_strategy: AbstractStrategy = Reinforce()

    def __check_init__(self):
        check_strategy("index_strategy", self.index_strategy)

    def log_evidence(self, target: Target) -> Float[Array, ""]:
        return log_sum(self._all(target).log_weight)

    def log_evidence_given(self, target: Target, values: Values, density: Cost) -> Float[Array, ""]:
        points = self._all(target)
        same = [point == values[name] for name, point in points.values.items()]
        here = jnp.all(jnp.stack(same), axis=0) if same else jnp.ones((1,), bool)
        return log_sum(jnp.where(here, density.total, points.log_weight))

    def resample(self, target: Target) -> tuple[Values, Float[Array, ""], Float[Array, ""]]:
        points = self._all(target)
        index = choose(points.log_weight, self.index_strategy)
        return *_pick(points, index), log_sum(points.log_weight)

    def _all(self, target: Target) -> Particle:
        supports: dict[str, Any] = {}

        def look() -> jax.Array:
            context = Context(jax.random.key(0))
            with activate(context):
                trace, _ = simulate(target.conditioned, *target.args, **target.kwargs)
            for site in context.sites:
                name = site.address.partition("/")[2]
                if name not in trace:
                    continue  # inside a marginal
                if not site.family.has_enumerate_support or site.value.ndim:
                    raise site.explain(
                        "vi.exact sums over scalar sites with finite support only",
                        "Use vi.sir",
                    )
                with jax.ensure_compile_time_eval():
                    support = site.family.enumerate_support(expand=False).reshape(-1)
                    supports[name] = support.astype(site.value.dtype)
            return jnp.zeros(())

        jax.eval_shape(look)
        grid = list(itertools.product(*supports.values()))
        values = {name: jnp.stack([point[i] for point in grid]) for i, name in enumerate(supports)}
        if len(grid) == 1:
            log_joint = target.log_joint({name: value[0] for name, value in values.items()})[None]
        else:
            log_joint = map_sites(target.log_joint, values)
        return Particle(values, log_joint, log_joint)


def _pick(particles: Particle, index: Any) -> tuple[Values, jax.Array]:
    """Values and log density of one of several particles."""
    values, _, log_joint = jax.tree.map(lambda x: x[index], particles)
    return values, log_joint


def sir(
    num_particles: int,
    proposal: Callable[..., Any] | None = None,
    index_strategy: AbstractStrategy | None = None,
) -> AbstractEvidenceEstimator:
    """Importance sampling, for `marginal` and (with resampling) for `normalize`.

    Args:
        num_particles: draws from the proposal, positive; the draw itself counts as one of them.
        proposal: NumPyro program over the free sites. For `normalize` it takes the program's
            arguments; for `marginal` a mapping of the kept values comes first. It may itself
            sample a `marginal`. None: the program's own ancestral sampling, which suits few free
            sites. Its support must cover that of the program: a kind or bound that is narrower is
            an error where it can be seen. Where it cannot, a value that was sampled outside the
            proposal's support has log density inf, and bounds are −inf there.
        index_strategy: gradient strategy of the resampled index (`normalize` only), a strategy
            instance; `vi.reinforce()` by default.

    Raises:
        ValueError: `num_particles` is not a positive integer; when used, the proposal lacks a
            site, or its support is narrower than the program's.
    """
    return SIR(num_particles, proposal, _or_reinforce(index_strategy))


def exact(index_strategy: AbstractStrategy | None = None) -> AbstractEvidenceEstimator:
    """Exact summation, for programs whose free sites are few scalars of finite support.

    Args:
        index_strategy: gradient strategy of the index drawn by `normalize`; `vi.reinforce()` by
            default.
    """
    return Exact(_or_reinforce(index_strategy))


def _or_reinforce(strategy: AbstractStrategy | None) -> AbstractStrategy:
    return Reinforce() if strategy is None else strategy


def choose(log_weights: Float[Array, " n"], strategy: AbstractStrategy) -> Int[Array, ...]:
    """An index drawn in proportion to the weights, a site of the running objective.

    All-impossible weights choose uniformly: the estimate of the evidence is then zero anyway.
    """
    distribution = with_strategy(dist.Categorical(logits=drawable(log_weights)), strategy)
    trace, _ = simulate(lambda: numpyro.sample("index", distribution))
    return trace["index"]
