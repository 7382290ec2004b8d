"""Processes of time with any likelihood, by one normal factor for each observation."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from .._core import Algorithm
from ..distributions._likelihood import in_support, Likelihood, log_predictive_prob
from . import _process as process, _sites as site
from ._markov_gp import MarkovGP
from ._posterior import MarkovPosterior
from ._sites import Problem, Sites
from ._steps import Series

METHODS = ("vi", "ep", "pl")


class SitesState(NamedTuple):
    """Where site updates are.

    Attributes:
        sites: natural parameters, in the order of time.
        mean: of the function less its prior mean, under the approximation by these sites.
        variance: of the function.
    """

    sites: Sites
    mean: jax.Array
    variance: jax.Array


class SitesInfo(NamedTuple):
    """What an update did.

    Attributes:
        change: the largest change of a mean, in standard deviations, or of a log variance.
    """

    change: jax.Array


class _Method(NamedTuple):
    update: Callable[..., Sites]
    energy: Callable[..., jax.Array]


def site_updates(
    prior: MarkovGP,
    y: Any,
    likelihood: Likelihood,
    method: str = "vi",
    *,
    rate: float = 0.7,
    power: float = 1.0,
    residual: Any = 0.0,
) -> Algorithm:
    """Conjugate-computation VI, power EP or posterior linearisation as `(init, step)`.

    A step replaces all sites at once, in one filter and one smoother. `init()` gives a
    `SitesState`; `step(None, state)` the next one and a `SitesInfo`. Arguments and errors are those
    of `approximate`.
    """
    problem = _problem(prior, y, likelihood, residual)
    return _algorithm(prior, problem, _method(method, power), rate)


def approximate(
    prior: MarkovGP,
    y: Any,
    likelihood: Likelihood,
    method: str = "vi",
    *,
    rate: float = 0.7,
    power: float = 1.0,
    residual: Any = 0.0,
    max_steps: int = 100,
    tolerance: float | None = None,
) -> MarkovApproximation:
    r"""The law of a process of time given observations with any likelihood, in $O(n)$ a step.

    The likelihood of each observation is replaced by a normal factor; three methods say which.

    - `"vi"`, conjugate-computation variational inference: the normal law that maximises the
      evidence lower bound, which its `log_evidence` is.
    - `"ep"`, power expectation propagation: most accurate as a rule, above all with `power=0.5`
      where likelihoods are not log-concave; its `log_evidence` is an estimate, of either sign.
    - `"pl"`, posterior linearisation: only needs mean and variance of the observations; so a
      Student-t likelihood is to it a normal one. Its `log_evidence` is the lower bound there.

    In a NumPyro model it integrates the function out:
    `numpyro.factor("evidence", approximate(MarkovGP(kernel, times), y, likelihood).log_evidence())`
    has exact derivatives with `"vi"` and `"ep"`, where it is stationary in the sites.

    Args:
        prior: the process at the times of the observations, without noise; several outputs too.
        y: observations, of its event shape; where its mask says that nothing was observed they may
            be anything.
        likelihood: from values of the function to a NumPyro distribution, elementwise, such as
            `lambda f: dist.Poisson(jnp.exp(f))`; one observation depends on one value.
        method: "vi", "ep" or "pl".
        rate: how far a step goes from the old sites to the new ones, in (0, 1]. 1 is fastest where
            the likelihood is log-concave, and may go round in circles where it is not.
        power: of "ep", in (0, 1].
        residual: variance that the function has besides the process, at each observation alone: a
            scalar or of the shape of `y`; what inducing places leave, for example.
        max_steps: at most.
        tolerance: it has converged once means change by less than this in standard deviations, and
            log variances too; by default 1e-8, or 1e-4 in single precision.

    Returns:
        The posterior, which says whether it has converged; if not, its evidence is NaN.

    Raises:
        ValueError: a wrong shape, a prior with noise, `y` outside of the support, an unknown
            method, rate or power outside of (0, 1].
        TypeError: the likelihood does not return a NumPyro distribution.

    References:
        Wilkinson, Särkkä and Solin (2023), "Bayes-Newton methods for approximate Bayesian
        inference with PSD guarantees", JMLR 24; Chang, Wilkinson, Khan and Solin (2020), "Fast
        variational learning in state-space Gaussian process models", MLSP.
    """
    problem, way = _problem(prior, y, likelihood, residual), _method(method, power)
    algorithm = _algorithm(prior, problem, way, rate)
    precise = prior.steps.dtype == jnp.float64
    tolerance = tolerance or (1e-8 if precise else 1e-4)

    def goes_on(carry: Any) -> jax.Array:
        _, info, count = carry
        return (count < max_steps) & ~(info.change < tolerance)

    def step(carry: Any) -> Any:
        return *algorithm.step(None, carry[0]), carry[2] + 1

    def solve() -> Any:
        unknown = SitesInfo(jnp.asarray(jnp.inf, prior.steps.dtype))
        return jax.lax.while_loop(goes_on, step, (algorithm.init(), unknown, jnp.zeros((), int)))

    # All that parameters enter by, also inside the likelihood, is held fixed in the search.
    run, constants = jax.closure_convert(solve)
    state, info, count = jax.lax.stop_gradient(run(*jax.lax.stop_gradient(constants)))
    found = _conditioned(prior, state.sites)
    done = info.change < tolerance
    return MarkovApproximation(found, state, problem, count, done, method, power)


class MarkovApproximation(eqx.Module):
    """The normal law of a process given observations with some likelihood.

    Attributes:
        posterior: of the process given the sites.
        state: sites and moments at the observations, in the order of time.
        problem: observations and likelihood.
        steps: updates made, scalar.
        converged: whether they have converged, boolean scalar.
        method: "vi", "ep" or "pl".
        power: of "ep".
    """

    posterior: MarkovPosterior
    state: SitesState
    problem: Problem
    steps: jax.Array
    converged: jax.Array
    method: str = eqx.field(static=True)
    power: float = eqx.field(static=True)

    def log_evidence(self) -> jax.Array:
        """The lower bound ("vi", "pl") or estimate ("ep") of the log evidence, scalar.

        NaN where the sites have not converged. Its derivatives hold them fixed: for "vi" and "ep"
        they are those of the whole.
        """
        fixed = jax.lax.stop_gradient(self.state)
        flat = jax.tree.map(lambda array: array.reshape(-1), fixed)
        energy = _method(self.method, self.power).energy
        total = self.posterior.log_evidence() + energy(self.problem, *flat)
        return jnp.where(self.converged, total, jnp.nan)

    def moments(self, times: Any = None, term: int | None = None) -> tuple[jax.Array, jax.Array]:
        """Mean and variance of the function, without the prior mean; see `MarkovPosterior`."""
        return self.posterior.moments(times, term)

    def marginal(self, times: Any = None, term: int | None = None) -> dist.Normal:
        """The law of the function at each time; see `MarkovPosterior`."""
        return self.posterior.marginal(times, term)

    def sample(self, key: jax.Array, times: Any = None, shape: tuple[int, ...] = ()) -> jax.Array:
        """Joint draws of the function; see `MarkovPosterior`. NaN where a site curves upward."""
        return self.posterior.sample(key, times, shape)

    def log_predictive_prob(self, times: Any, y: Any, mean: Any = 0.0) -> jax.Array:
        """The log density of new observations, each by itself, shape `(m,)`.

        Args:
            times: shape `(m,)`.
            y: observations, `(m,)`, or `(m, p)` of several outputs, which are returned flat.
            mean: prior mean of the process there, a scalar or of that shape.
        """
        centre, variance = self.posterior.moments(times)
        f = jnp.broadcast_to(mean + centre, centre.shape).reshape(-1)
        y = jnp.reshape(y, -1)
        return log_predictive_prob(self.problem.likelihood, y, f, variance.reshape(-1))


def _algorithm(prior: MarkovGP, problem: Problem, way: _Method, rate: float) -> Algorithm:
    if not 0 < rate <= 1:
        raise ValueError(f"rate must be in (0, 1], got {rate}")
    space, shape = prior.space, prior.event_shape
    rows = np.asarray([space.readout]) if prior.readout is None else prior.readout

    def moments(sites: Sites) -> tuple[jax.Array, jax.Array]:
        found = process.smooth(prior.plan, space, _series(prior, sites), rows, prior.readout)
        return found[0].reshape(shape), found[1].reshape(shape)

    def init() -> SitesState:
        zero = jnp.zeros(shape, prior.steps.dtype)
        sites = Sites(zero, zero)
        return SitesState(sites, *moments(sites))

    def step(key: Any, state: SitesState) -> tuple[SitesState, SitesInfo]:
        sites, mean, variance = jax.tree.map(lambda a: a.reshape(-1), state)
        new = way.update(problem, sites, mean, variance)
        new = jax.tree.map(lambda a, b: b + rate * (a - b), new, sites)
        shaped = Sites(*(a.reshape(shape) for a in new))
        after = SitesState(shaped, *moments(shaped))
        # Sites that curve upward can leave no normal law; then they are flat for once.
        flat = Sites(*(a.reshape(shape) for a in site.without_upward(new, mean)))
        after = jax.lax.cond(
            jnp.all(after.variance > 0),
            lambda: after,
            lambda: SitesState(flat, *moments(flat)),
        )
        moved = jnp.abs(after.mean - state.mean) / jnp.sqrt(state.variance)
        grown = jnp.abs(jnp.log(after.variance / state.variance))
        return after, SitesInfo(jnp.max(jnp.maximum(moved, grown)))

    return Algorithm(init, step)


def _method(method: str, power: float) -> _Method:
    if not 0 < power <= 1:
        raise ValueError(f"power must be in (0, 1], got {power}")
    if method == "vi":
        return _Method(site.variational, site.variational_energy)
    if method == "ep":
        update = functools.partial(site.power_ep, power)
        return _Method(update, functools.partial(site.ep_energy, power))
    if method == "pl":
        return _Method(site.linearised, site.variational_energy)
    raise ValueError(f"method must be one of {METHODS}, got {method!r}")


def _problem(prior: MarkovGP, y: Any, likelihood: Likelihood, residual: Any) -> Problem:
    """Observations in the order of time, flat, and checked."""
    if prior.noisy:
        raise ValueError("the prior must have no noise, which is for the likelihood to say")
    if prior.readout is not None and prior.readout.ndim == 3:
        raise ValueError("approximate: likelihoods are of values of the function, not of slopes")
    if prior.backend in ("square-root", "steady"):
        raise ValueError(f"approximate: backend {prior.backend!r} has no sites, take another one")
    if jnp.shape(y) != prior.event_shape:
        raise ValueError(f"y must have shape {prior.event_shape}, got {jnp.shape(y)}")
    seen = prior.seen.reshape(-1)
    y = prior.in_order(jnp.asarray(y)).reshape(-1)
    # Something that the likelihood allows, where nothing was observed.
    y = jnp.where(seen > 0, y, y[jnp.argmax(seen)])
    loc = prior.in_order(prior.loc).reshape(-1)
    checked, guard = in_support(likelihood, y, loc, jnp.ones((), loc.dtype))
    wide = jnp.broadcast_to(jnp.asarray(residual, loc.dtype), prior.event_shape)
    left = prior.in_order(wide).reshape(-1)
    return Problem(checked, guard * seen, loc, left, likelihood)


def _series(prior: MarkovGP, sites: Sites) -> Series:
    nothing = jnp.zeros_like(sites.linear)
    return Series(prior.before, prior.steps, sites.linear, nothing, prior.seen, sites.precision)


def _conditioned(prior: MarkovGP, sites: Sites) -> MarkovPosterior:
    fixed = jax.lax.stop_gradient(sites)
    return MarkovPosterior(
        prior.space,
        _series(prior, fixed),
        prior.loc,
        prior.order,
        prior.readout,
        prior.origin,
        prior.backend,
    )
