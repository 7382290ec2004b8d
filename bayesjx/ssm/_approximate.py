"""Processes of time with any likelihood, by one normal factor for each observation."""

from __future__ import annotations

from typing import Any

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from numpyro import distributions as dist

from .._core import Algorithm, refuse_where
from ..likelihoods import in_support, Likelihood, log_predictive_prob
from . import _site_updates as updates
from ._inputs import count, law_of, numbers, positive, share
from ._markov_gp import MarkovGP
from ._posterior import MarkovPosterior
from ._site_updates import Chain, method_of, Parameters, SitesInfo, SitesState
from ._sites import make_problem, Problem

ALLOWED = (0, 1, 0.5, -1)  # values, one of which most likelihoods allow


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
    chain, problem = _checked(prior, y, likelihood, method, residual, rate=rate, power=power)

    def step(key: Any, state: SitesState) -> tuple[SitesState, SitesInfo]:
        return updates.step(method, chain, problem, power, rate, state)

    return Algorithm(lambda: updates.begin(chain), step)


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

    Derivatives of whatever it answers are exact, to any order: those of the fixed point, by the
    implicit function theorem.

    The likelihood is traced at each call, so it must be a pure function; calls whose shapes are
    equal and whose likelihoods do the same, with other data inside perhaps, share one program.

    Args:
        prior: the process at the times of the observations, without noise; several outputs too.
        y: observations, of its event shape; where its mask says that nothing was observed they may
            be anything.
        likelihood: from values of the function to a NumPyro distribution, elementwise, such as
            `lambda f: dist.Poisson(jnp.exp(f))`; one observation depends on one value. It may
            carry data of the observations, in their order, of several outputs flat: it is called
            with shape `(n,)`, or `(n * p,)`.
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
        The posterior, which says whether it has converged; if not, its evidence is NaN. It has
        not where a site could not be updated, as where its cavity is no normal law, or where a
        likelihood is narrower than 3e-8 of what it is multiplied with.

    Raises:
        ValueError: a wrong shape, a prior with noise, `y` outside of the support, an unknown
            method, rate or power outside of (0, 1], a likelihood that fails or whose moments are
            not known to "pl".
        TypeError: the likelihood does not return a NumPyro distribution.

    References:
        Wilkinson, Särkkä and Solin (2023), "Bayes-Newton methods for approximate Bayesian
        inference with PSD guarantees", JMLR 24; Chang, Wilkinson, Khan and Solin (2020), "Fast
        variational learning in state-space Gaussian process models", MLSP.
    """
    chain, problem = _checked(prior, y, likelihood, method, residual, rate=rate, power=power)
    count("max_steps", max_steps)
    if tolerance is None:
        tolerance = 1e-8 if chain.steps.dtype == jnp.float64 else 1e-4
    positive("tolerance", tolerance)
    parameters = Parameters(chain, problem)
    # All that parameters enter by, also inside the likelihood, is held fixed in the search.
    fixed = jax.lax.stop_gradient(parameters)
    state = updates.begin(fixed.chain)
    state, taken, done = updates.search(method, *fixed, power, rate, state, max_steps, tolerance)
    return MarkovApproximation(
        parameters,
        jax.lax.stop_gradient(state),
        taken,
        done,
        likelihood,
        prior.loc,
        prior.origin,
        prior.backend,
        method,
        power,
        rate,
    )


class MarkovApproximation(eqx.Module):
    """The normal law of a process given observations with some likelihood.

    All that it answers has the derivatives of the whole, in parameters of prior and likelihood,
    the sites' motion included, to any order.

    Attributes:
        parameters: the process at its observations, and these with their likelihood.
        found: sites and moments, without derivatives.
        steps: updates made, scalar.
        converged: whether they have converged, boolean scalar; not if a site could not be updated.
        likelihood: as it was given.
        loc: prior mean of the function.
        origin: what the times are counted from.
        backend: see `MarkovGP`.
        method: "vi", "ep" or "pl".
        power: of "ep".
        rate: see `approximate`.
    """

    parameters: Parameters
    found: SitesState
    steps: jax.Array
    converged: jax.Array
    likelihood: Likelihood
    loc: jax.Array
    origin: float = eqx.field(static=True)
    backend: str = eqx.field(static=True)
    method: str = eqx.field(static=True)
    power: float = eqx.field(static=True)
    rate: float = eqx.field(static=True)

    @property
    def state(self) -> SitesState:
        """Sites and moments at the observations, in the order in which these were given."""
        return updates.fixed_point(self.parameters, self.found, **self._options)

    @property
    def posterior(self) -> MarkovPosterior:
        """The process given the sites."""
        chain = self.parameters.chain
        return MarkovPosterior(
            chain.space,
            chain.series(self.state.sites),
            self.loc,
            chain.order,
            chain.readout,
            self.origin,
            self.backend,
        )

    @property
    def _options(self) -> dict[str, Any]:
        return {"method": self.method, "power": self.power, "rate": self.rate}

    def log_evidence(self) -> jax.Array:
        """The lower bound ("vi", "pl") or estimate ("ep") of the log evidence, scalar.

        NaN where the sites have not converged.
        """
        if self.method == "pl":  # whose bound is not stationary in the sites
            total = updates.energy(self.parameters, self.state, self.method, self.power)
        else:
            total = updates.evidence(self.parameters, self.found, **self._options)
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

    def log_predictive_prob(
        self, times: Any, y: Any, mean: Any = 0.0, likelihood: Likelihood | None = None
    ) -> jax.Array:
        """The log density of new observations, each by itself, shape `(m,)`.

        Args:
            times: shape `(m,)`.
            y: observations, `(m,)`, or `(m, p)` of several outputs, which are returned flat.
            mean: prior mean of the process there, a scalar or of that shape.
            likelihood: of these observations, if it is another one, as where it carries data of
                the observations that were approximated; of flat values too.

        Raises:
            ValueError: shapes that disagree, `y` outside of the support.
        """
        centre, variance = self.posterior.moments(times)
        if np.shape(numbers("y", y)) != centre.shape:
            raise ValueError(f"y must have shape {centre.shape}, got {np.shape(y)}")
        if np.shape(mean) not in ((), centre.shape):
            raise ValueError(f"mean must be a scalar or {centre.shape}, got {np.shape(mean)}")
        f = jnp.broadcast_to(mean + centre, centre.shape).reshape(-1)
        likelihood = self.likelihood if likelihood is None else likelihood
        law_of(likelihood, f)
        return log_predictive_prob(likelihood, jnp.asarray(y).reshape(-1), f, variance.reshape(-1))


def _checked(
    prior: MarkovGP,
    y: Any,
    likelihood: Likelihood,
    method: str,
    residual: Any,
    *,
    rate: Any,
    power: Any,
) -> tuple[Chain, Problem]:
    """The process and the observations, flat, and checked."""
    method_of(method)
    share("rate", rate)
    share("power", power)
    if not isinstance(prior, MarkovGP):
        raise ValueError(f"prior must be a MarkovGP, got {type(prior).__name__}")
    if prior.noisy:
        raise ValueError("the prior must have no noise, which is for the likelihood to say")
    if prior.readout is not None and prior.readout.ndim == 3:
        raise ValueError("prior: likelihoods are of values of the function, not of slopes")
    if prior.backend in ("square-root", "steady"):
        raise ValueError(f"approximate: backend {prior.backend!r} has no sites, take another one")
    shape, loc = prior.event_shape, prior.loc.reshape(-1)
    if np.shape(numbers("y", y)) != shape:
        raise ValueError(f"y must have shape {shape}, got {np.shape(y)}")
    if np.shape(numbers("residual", residual)) not in ((), shape):
        got = np.shape(residual)
        raise ValueError(f"residual must be a scalar or have shape {shape}, got {got}")
    if not isinstance(residual, jax.core.Tracer):
        refuse_where(residual, lambda v: ~(v >= 0), "residual must not be negative or NaN")
    seen = prior.as_given(prior.seen).reshape(-1)
    flat = jnp.asarray(y).reshape(-1)
    flat = jnp.where(seen > 0, flat, _allowed(law_of(likelihood, loc), flat, seen))
    checked, guard = in_support(likelihood, flat, loc, jnp.ones((), loc.dtype))
    left = jnp.broadcast_to(jnp.asarray(residual, loc.dtype), shape).reshape(-1)
    chain = Chain(
        prior.space,
        prior.before,
        prior.steps,
        prior.seen,
        prior.order,
        prior.readout,
        prior.plan,
    )
    problem = make_problem(likelihood, checked, guard * seen, loc, left, method == "pl")
    return chain, problem


def _allowed(law: Any, y: jax.Array, seen: jax.Array) -> jax.Array:
    """Something that the likelihood allows, for where nothing was observed."""
    found = y[jnp.argmax(seen)]
    for value in reversed(ALLOWED):
        if isinstance(law, dist.Distribution) and value == y.dtype.type(value):
            there = jnp.asarray(value, y.dtype)
            found = jnp.where(law.support(jnp.broadcast_to(there, y.shape)), there, found)
    return found
