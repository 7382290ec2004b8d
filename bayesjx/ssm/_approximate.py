"""Processes of time with any likelihood, by one normal factor for each observation."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from numpyro import distributions as dist

from .._core import Algorithm, check_flag, is_successful, refuse_where, RESULTS, thrown
from ..likelihoods import AbstractPosterior, held, in_support, Likelihood, predictive
from . import _site_updates as updates
from ._backend import Plan
from ._inputs import count, evaluated, numbers, positive, share
from ._posterior import MarkovPosterior
from ._site_updates import Chain, method_of, Parameters, SitesInfo, SitesState
from ._sites import make_problem, Problem
from ._spaces import AbstractStateSpace

ALLOWED = (0, 1, 0.5, -1)  # values, one of which most likelihoods allow


@runtime_checkable
class MarkovPrior(Protocol):
    """Protocol of priors that `approximate` takes; `MarkovGP` has it."""

    space: AbstractStateSpace
    before: Float[Array, " n"]
    steps: Float[Array, " n"]
    loc: Float[Array, "n ..."]
    mean_function: Any
    observed: Float[Array, " n *p"]
    order: Any
    readout: Any
    origin: float
    backend: str
    noisy: bool

    @property
    def event_shape(self) -> tuple[int, ...]:
        """That of the observations."""
        ...

    @property
    def plan(self) -> Plan:
        """How a series of this length is filtered."""
        ...

    def as_given(self, array: jax.Array) -> jax.Array:
        """An array in the order of time, in the order of the observations."""
        ...


def site_updates(
    prior: MarkovPrior,
    y: Any,
    likelihood: Likelihood,
    method: str = "vi",
    *,
    rate: float = 0.7,
    power: float = 1.0,
    residual_var: Any = 0.0,
) -> Algorithm:
    """Conjugate-computation VI, power EP or posterior linearisation as `(init, step)`.

    A step replaces all sites at once, in one filter and one smoother. `init()` gives a
    `SitesState`; `step(None, state)` the next one and a `SitesInfo`. Arguments and errors are those
    of `approximate`.
    """
    chain, problem = _checked(prior, y, likelihood, method, residual_var, rate=rate, power=power)

    def step(key: Any, state: SitesState) -> tuple[SitesState, SitesInfo]:
        return updates.step(method, chain, problem, power, rate, state)

    return Algorithm(lambda: updates.begin(chain), step)


def approximate(
    prior: MarkovPrior,
    y: Any,
    likelihood: Likelihood,
    method: str = "vi",
    *,
    rate: float = 0.7,
    power: float = 1.0,
    residual_var: Any = 0.0,
    max_steps: int = 100,
    atol: float | None = None,
    throw: bool = False,
) -> MarkovApproximation:
    r"""The approximate posterior of a process of time with any likelihood, in $O(n)$ a step.

    The likelihood of each observation is replaced by a normal factor; three methods say which.

    - `"vi"`, conjugate-computation variational inference: the normal distribution that maximises
      the evidence lower bound, which its `log_evidence` is.
    - `"ep"`, power expectation propagation: most accurate as a rule, above all with `power=0.5`
      where likelihoods are not log-concave; its `log_evidence` is an estimate, of either sign.
    - `"pl"`, posterior linearisation: only needs mean and variance of the observations; so a
      Student-t likelihood is to it a normal one. Its `log_evidence` is the lower bound for these
      factors.

    In a NumPyro model it integrates the function out:
    `numpyro.factor("evidence", approximate(MarkovGP(kernel, times), y, likelihood).log_evidence())`

    Derivatives of all that it computes are exact, to any order: those of the fixed point, by the
    implicit function theorem.

    The likelihood is traced at each call, so it must be a pure function; calls whose shapes are
    equal and whose likelihoods do the same, with other data inside perhaps, share one program.

    Args:
        prior: a `MarkovGP` at the times of the observations, without noise; several outputs too.
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
        residual_var: variance that the function has besides the process, at each observation alone:
            a scalar or of the shape of `y`; what inducing points leave, for example.
        max_steps: at most.
        atol: it has converged once means change by less than this in standard deviations, and
            log variances too; by default 1e-8, or 1e-4 in single precision.
        throw: whether it is an error, or a `result`, that the sites have not converged.

    Returns:
        The posterior, whose `result` says whether it has converged; if not, its evidence is NaN. It
        has not where a site could not be updated, as where its cavity is no normal distribution, or
        where a likelihood is narrower than 3e-8 of what it is multiplied with.

    Raises:
        ValueError: a wrong shape, a prior with noise, `y` outside of the support, an unknown
            method, rate or power outside of (0, 1], a likelihood that fails or whose moments are
            not known to "pl".
        TypeError: the likelihood does not return a NumPyro distribution.
        RuntimeError: with `throw=True`, the sites have not converged.

    References:
        Wilkinson, Särkkä and Solin (2023), "Bayes-Newton methods for approximate Bayesian
        inference with PSD guarantees", JMLR 24; Chang, Wilkinson, Khan and Solin (2020), "Fast
        variational learning in state-space Gaussian process models", MLSP.
    """
    chain, problem = _checked(prior, y, likelihood, method, residual_var, rate=rate, power=power)
    count("max_steps", max_steps)
    check_flag("approximate: throw", throw)
    if atol is None:
        atol = 1e-8 if chain.steps.dtype == jnp.float64 else 1e-4
    positive("atol", atol)
    parameters = Parameters(chain, problem)
    # All that parameters enter by, also inside the likelihood, is held fixed in the search.
    fixed = jax.lax.stop_gradient(parameters)
    state = updates.begin(fixed.chain)
    state, num_steps, result = updates.search(method, *fixed, power, rate, state, max_steps, atol)
    state = thrown("approximate", result, state) if throw else state
    return MarkovApproximation(
        parameters,
        jax.lax.stop_gradient(state),
        num_steps,
        result,
        held(likelihood),
        prior.loc,
        prior.mean_function,
        prior.origin,
        prior.backend,
        method,
        power,
        rate,
    )


class MarkovApproximation(AbstractPosterior):
    """The normal approximation of the posterior of a process with some likelihood.

    All that it computes has the derivatives of the whole, in parameters of prior and likelihood,
    the sites' motion included, to any order. `x` stands for times as in `MarkovPosterior`.

    Attributes:
        parameters: the process at its observations, and these with their likelihood.
        solution: sites and moments, without derivatives.
        num_steps: updates made, scalar.
        result: whether they have converged; `RESULTS.breakdown` if a site could not be updated.
        likelihood: of the observations.
        loc: prior mean of the function at the observations.
        mean_function: see `MarkovPosterior`.
        origin: what the times are counted from.
        backend: see `MarkovGP`.
        method: "vi", "ep" or "pl".
        power: of "ep".
        rate: see `approximate`.
    """

    parameters: Parameters
    solution: SitesState
    num_steps: Int[Array, ""]
    result: RESULTS
    likelihood: Any
    loc: Float[Array, "n ..."]
    mean_function: Any
    origin: float = eqx.field(static=True)
    backend: str = eqx.field(static=True)
    method: str = eqx.field(static=True)
    power: float = eqx.field(static=True)
    rate: float = eqx.field(static=True)

    @property
    def converged(self) -> Bool[Array, ""]:
        """Whether `result` is successful."""
        return is_successful(self.result)

    @property
    def state(self) -> SitesState:
        """Sites and moments at the observations, in the order in which these were given.

        Moments are of the function less its prior mean.
        """
        return updates.fixed_point(self.parameters, self.solution, **self._options)

    @property
    def posterior(self) -> MarkovPosterior:
        """The process given the sites."""
        chain = self.parameters.chain
        return MarkovPosterior(
            chain.space,
            chain.series(self.state.sites),
            self.loc,
            self.mean_function,
            None,
            chain.order,
            chain.readout,
            self.origin,
            self.backend,
        )

    @property
    def _options(self) -> dict[str, Any]:
        return {"method": self.method, "power": self.power, "rate": self.rate}

    def log_evidence(self) -> Float[Array, ""]:
        """The lower bound ("vi", "pl") or estimate ("ep") of the log evidence, scalar.

        NaN where the sites have not converged.
        """
        if self.method == "pl":  # whose bound is not stationary in the sites
            total = updates.energy(self.parameters, self.state, self.method, self.power)
        else:
            total = updates.evidence(self.parameters, self.solution, **self._options)
        return jnp.where(self.converged, total, jnp.nan)

    def moments(
        self, x: Any = None, term: int | None = None
    ) -> tuple[Float[Array, " m *p"], Float[Array, " m *p"]]:
        """Mean and variance of the function at each time; see `MarkovPosterior.moments`."""
        return self.posterior.moments(x, term)

    def mean(self, x: Any = None) -> Float[Array, " m *p"]:
        """Means of the function, shape `(m,)`."""
        return self.moments(x)[0]

    def covariance(self, x: Any = None) -> Float[Array, "mp mp"]:
        """Covariances of the function; see `MarkovPosterior.covariance`."""
        return self.posterior.covariance(x)

    def predict(self, x: Any = None, *, likelihood: Likelihood | None = None) -> dist.Distribution:
        """The predictive distribution of a new observation at each time, batch shape `(m,)`.

        Args:
            x: times, shape `(m,)`; by default those of the observations.
            likelihood: of these observations, if it is another one, as where that of the data
                carries data of the observations.

        Raises:
            ValueError: wrong times, a likelihood that holds data of each observation.
        """
        return predictive(self.likelihood if likelihood is None else likelihood, *self.moments(x))

    def sample(
        self, key: jax.Array, x: Any = None, sample_shape: tuple[int, ...] = ()
    ) -> Float[Array, ...]:
        """Joint draws of the function; see `MarkovPosterior.sample`. NaN where a site is convex."""
        return self.posterior.sample(key, x, sample_shape)


def check_prior(prior: Any) -> None:
    """Refuse a prior to which no likelihood can be added.

    Raises:
        ValueError: it is no `MarkovGP`, has noise, or holds slopes.
    """
    if not isinstance(prior, MarkovPrior):
        raise ValueError(f"prior must be a MarkovGP, got {type(prior).__name__}")
    if prior.noisy:
        raise ValueError("the prior must have no noise, which is for the likelihood to say")
    if prior.readout is not None and prior.readout.ndim == 3:
        raise ValueError("prior: likelihoods are of values of the function, not of slopes")


def _checked(
    prior: MarkovPrior,
    y: Any,
    likelihood: Likelihood,
    method: str,
    residual_var: Any,
    *,
    rate: Any,
    power: Any,
) -> tuple[Chain, Problem]:
    """The process and the observations, flat, and checked."""
    method_of(method)
    share("rate", rate)
    share("power", power)
    check_prior(prior)
    if prior.backend in ("square-root", "steady"):
        raise ValueError(f"approximate: backend {prior.backend!r} has no sites, take another one")
    shape, loc = prior.event_shape, prior.loc.reshape(-1)
    if np.shape(numbers("y", y)) != shape:
        raise ValueError(f"y must have shape {shape}, got {np.shape(y)}")
    if np.shape(numbers("residual_var", residual_var)) not in ((), shape):
        got = np.shape(residual_var)
        raise ValueError(f"residual_var must be a scalar or have shape {shape}, got {got}")
    if not isinstance(residual_var, jax.core.Tracer):
        text = "residual_var must not be negative or NaN"
        refuse_where(residual_var, lambda v: ~(v >= 0), text)
    observed = prior.as_given(prior.observed).reshape(-1)
    flat = jnp.asarray(y).reshape(-1)
    flat = jnp.where(observed > 0, flat, _allowed(evaluated(likelihood, loc), flat, observed))
    checked, guard = in_support(likelihood, flat, loc, jnp.ones((), loc.dtype))
    residual = jnp.broadcast_to(jnp.asarray(residual_var, loc.dtype), shape).reshape(-1)
    chain = Chain(
        prior.space,
        prior.before,
        prior.steps,
        prior.observed,
        prior.order,
        prior.readout,
        prior.plan,
    )
    problem = make_problem(likelihood, checked, guard * observed, loc, residual, method == "pl")
    return chain, problem


def _allowed(distribution: Any, y: jax.Array, observed: jax.Array) -> jax.Array:
    """Something that the likelihood allows, for where nothing was observed."""
    chosen = y[jnp.argmax(observed)]
    for value in reversed(ALLOWED):
        if isinstance(distribution, dist.Distribution) and value == y.dtype.type(value):
            candidate = jnp.asarray(value, y.dtype)
            inside = distribution.support(jnp.broadcast_to(candidate, y.shape))
            chosen = jnp.where(inside, candidate, chosen)
    return chosen
