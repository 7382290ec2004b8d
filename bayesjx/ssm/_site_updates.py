"""Updates of all sites at once, their fixed point, and its derivatives in parameters."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .._core import first_of, RESULTS
from . import _process as process, _sites as site
from ._backend import Plan
from ._process import Series
from ._sites import Problem, Sites
from ._spaces import AbstractStateSpace

METHODS = ("vi", "ep", "pl")
MOST = 2000  # steps, of the equation for derivatives
ACCURACY = {"float64": 1e-10, "float32": 1e-5}  # of derivatives of sites, relative


class SitesState(NamedTuple):
    """State of site updates; all of the shape of the observations, in the order of these.

    Attributes:
        sites: natural parameters.
        mean: of the function less its prior mean, under the approximation by these sites.
        variance: of the function.
    """

    sites: Sites
    mean: Float[Array, "n ..."]
    variance: Float[Array, "n ..."]


class SitesInfo(NamedTuple):
    """Info of a site update.

    Attributes:
        change: the largest change of a mean, in standard deviations, or of a log variance;
            infinite if a site could not be updated.
    """

    change: Float[Array, ""]


class Method(NamedTuple):
    """An approximation: its update of the sites from moments, and its part of the evidence."""

    update: Callable[..., tuple[Sites, jax.Array]]
    energy: Callable[..., jax.Array]


class Chain(eqx.Module):
    """A process of time at its observations.

    Attributes:
        space: the state space.
        before: see `_times.Times`.
        steps: see `_times.Times`.
        observed: 1 where something was observed, in the order of time.
        order: see `_times.Times`.
        readout: of several outputs, else None.
        plan: how it is filtered.
    """

    space: AbstractStateSpace
    before: Float[Array, " n"]
    steps: Float[Array, " n"]
    observed: Float[Array, " n *p"]
    order: Any
    readout: Any
    plan: Plan = eqx.field(static=True)

    def series(self, sites: Sites) -> Series:
        """Sites, of the shape of the observations, as factors in the order of time."""
        linear, precision = (
            array if self.order is None else array[self.order[0]] for array in sites
        )
        nothing = jnp.zeros_like(linear)
        return Series(self.before, self.steps, linear, nothing, self.observed, precision)

    def moments(self, sites: Sites) -> tuple[Float[Array, " n *p"], Float[Array, " n *p"]]:
        """Means and variances of the function under these sites, of their shape."""
        rows = [self.space.readout] if self.readout is None else self.readout
        made = process.smooth(self.plan, self.space, self.series(sites), rows, self.readout)
        arrays = (array.reshape(self.observed.shape) for array in made[:2])
        mean, variance = (a if self.order is None else a[self.order[1]] for a in arrays)
        return mean, variance


def method_of(name: str) -> Method:
    """The method of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {name!r}")
    return _METHODS[name]


_METHODS = {
    "vi": Method(site.variational, site.variational_energy),
    "ep": Method(site.power_ep, site.ep_energy),
    "pl": Method(site.linearised, site.variational_energy),
}


@jax.jit
def begin(chain: Chain) -> SitesState:
    """Flat sites."""
    zero = jnp.zeros(chain.observed.shape, chain.steps.dtype)
    sites = Sites(zero, zero)
    return SitesState(sites, *chain.moments(sites))


def updated(method: str, chain: Chain, problem: Problem, power: Any, state: SitesState) -> Any:
    """New sites from moments, and which of them could be updated."""
    flat = jax.tree.map(lambda array: array.reshape(-1), state)
    new, done = method_of(method).update(power, problem, *flat)
    return jax.tree.map(lambda array: array.reshape(chain.observed.shape), (new, done))


@functools.partial(jax.jit, static_argnums=0)
def step(
    method: str, chain: Chain, problem: Problem, power: Any, rate: Any, state: SitesState
) -> tuple[SitesState, SitesInfo]:
    """One update of all sites, a part of the way."""
    wanted, done = updated(method, chain, problem, power, state)
    new = jax.tree.map(lambda a, b: b + rate * (a - b), wanted, state.sites)

    # Convex sites can leave no normal distribution; then they are flat for once.
    def attempt(carry: Any) -> Any:
        sites, (_, _, tries) = carry[0].sites, carry
        flat = site.without_convex(sites, state.mean)
        sites = jax.tree.map(lambda a, b: jnp.where(tries > 0, b, a), sites, flat)
        after = SitesState(sites, *chain.moments(sites))
        return after, jnp.all(after.variance > 0), tries + 1

    def fails(carry: Any) -> jax.Array:
        return ~carry[1] & (carry[2] < 2)

    first = SitesState(new, state.mean, state.variance), jnp.asarray(False), jnp.zeros((), int)
    after, _, tries = jax.lax.while_loop(fails, attempt, first)
    proper = tries == 1
    moved = jnp.abs(after.mean - state.mean) / jnp.sqrt(state.variance)
    grown = jnp.abs(jnp.log(after.variance / state.variance))
    change = jnp.max(jnp.maximum(moved, grown))
    return after, SitesInfo(jnp.where(proper & jnp.all(done), change, jnp.inf))


@functools.partial(jax.jit, static_argnums=0)
def search(
    method: str,
    chain: Chain,
    problem: Problem,
    power: Any,
    rate: Any,
    state: SitesState,
    max_steps: Any,
    atol: Any,
) -> tuple[SitesState, Int[Array, ""], RESULTS]:
    """Updates until nothing changes: the state, the number of updates, and how they ended."""

    def goes_on(carry: Any) -> jax.Array:
        _, change, count = carry
        return (count < max_steps) & ~(change < atol)

    def next_one(carry: Any) -> Any:
        state, info = step(method, chain, problem, power, rate, carry[0])
        return state, info.change, carry[2] + 1

    first = state, jnp.asarray(jnp.inf, chain.steps.dtype), jnp.zeros((), int)
    state, change, count = jax.lax.while_loop(goes_on, next_one, first)
    result = first_of(
        (change < atol, RESULTS.successful),
        (jnp.isnan(change), RESULTS.nonfinite),
        (jnp.isinf(change), RESULTS.breakdown),
        otherwise=RESULTS.max_steps_reached,
    )
    return state, count, result


class Parameters(NamedTuple):
    """All that a fixed point depends on."""

    chain: Chain
    problem: Problem


@eqx.filter_custom_jvp
def fixed_point(
    parameters: Parameters, state: SitesState, *, method: str, power: Any, rate: Any
) -> SitesState:
    """The state, which is a fixed point of the updates, with the derivatives of one.

    By the implicit function theorem, to any order. NaN where the equation for them could not be
    solved.

    References:
        Christianson (1994), "Reverse accumulation and attractive fixed points", Optimization
        Methods and Software (the iteration that finds a fixed point solves for its derivatives).
    """
    return state


@fixed_point.def_jvp
def _(primals: Any, tangents: Any, *, method: str, power: Any, rate: Any) -> Any:
    parameters, state = primals
    options = {"method": method, "power": power, "rate": rate}
    state = fixed_point(parameters, state, **options)

    def after(parameters: Parameters, sites: Sites) -> Sites:
        chain, problem = parameters
        moments = chain.moments(sites)
        return updated(method, chain, problem, power, SitesState(sites, *moments))[0]

    _, direct = eqx.filter_jvp(
        lambda parameters: after(parameters, state.sites), (parameters,), (tangents[0],)
    )

    def lacking(change: Sites) -> Sites:
        _, then = jax.jvp(lambda sites: after(parameters, sites), (state.sites,), (change,))
        return jax.tree.map(jnp.subtract, change, then)

    solve = functools.partial(_relax, rate)
    change = jax.lax.custom_linear_solve(lacking, direct, solve, solve)
    _, moments = eqx.filter_jvp(
        lambda parameters, sites: parameters.chain.moments(sites),
        (parameters, state.sites),
        (tangents[0], change),
    )
    return state, SitesState(change, *moments)


def _relax(rate: Any, lacking: Callable[[Sites], Sites], wanted: Sites) -> Sites:
    """The solution of a linear equation of sites, by the iteration that found the fixed point."""
    accuracy = ACCURACY[str(wanted.linear.dtype)]

    def goes_on(carry: Any) -> jax.Array:
        _, moved, count = carry
        return (count < MOST) & ~(moved <= accuracy)

    def again(carry: Any) -> Any:
        sites, _, count = carry
        move = jax.tree.map(jnp.subtract, wanted, lacking(sites))
        new = jax.tree.map(lambda a, b: a + rate * b, sites, move)
        moved, size = ([jnp.max(jnp.abs(a)) for a in tree] for tree in (move, new))
        parts = [a / jnp.where(b > 0, b, 1.0) for a, b in zip(moved, size, strict=True)]
        return new, jnp.maximum(*parts), count + 1

    first = wanted, jnp.asarray(jnp.inf, wanted.linear.dtype), jnp.zeros((), int)
    sites, moved, _ = jax.lax.while_loop(goes_on, again, first)
    return jax.tree.map(lambda a: jnp.where(moved <= accuracy, a, jnp.nan), sites)


@eqx.filter_custom_jvp
def evidence(
    parameters: Parameters, state: SitesState, *, method: str, power: Any, rate: Any
) -> Float[Array, ""]:
    """The log evidence or its bound at a fixed point of the updates.

    Where it is stationary in the state, first derivatives hold that fixed; others follow it.
    """
    return energy(parameters, state, method, power)


@evidence.def_jvp
def _(primals: Any, tangents: Any, *, method: str, power: Any, rate: Any) -> Any:
    parameters, state = primals
    options = {"method": method, "power": power, "rate": rate}
    state = fixed_point(parameters, state, **options)
    return eqx.filter_jvp(
        lambda parameters: energy(parameters, state, method, power), (parameters,), (tangents[0],)
    )


@functools.partial(jax.jit, static_argnums=2)
def energy(parameters: Parameters, state: SitesState, method: str, power: Any) -> Float[Array, ""]:
    """The log evidence or its bound, of a state whose moments belong to its sites, scalar."""
    chain, problem = parameters
    flat = jax.tree.map(lambda array: array.reshape(-1), state)
    total = process.log_density(chain.plan, chain.space, chain.series(state.sites), chain.readout)
    return total + method_of(method).energy(power, problem, *flat)
