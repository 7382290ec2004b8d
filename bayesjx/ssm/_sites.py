r"""Normal factors in place of a likelihood, one for each observation.

A site $\exp(\lambda_1 x - \lambda_2 x^2 / 2)$ stands for the likelihood of the value $m_0 + x$ of
the function, where $m_0$ is its prior mean. An update takes the moments of $x$ under the current
approximation, and returns sites and what the energy needs of them.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from ..distributions._likelihood import expectation, Likelihood, log_likelihood

NODES = 32  # of Gauss-Hermite quadrature for moments of likelihoods
LEAST_VARIANCE = 1e-10  # of observations, relative to one


class Sites(NamedTuple):
    r"""Natural parameters of the sites, of the shape of the observations.

    Attributes:
        linear: $\lambda_1$.
        precision: $\lambda_2$; negative where the likelihood curves upward.
    """

    linear: jax.Array
    precision: jax.Array


class Problem(NamedTuple):
    """Observations and their likelihood, flat.

    Attributes:
        y: `(n,)`, something allowed where nothing was observed.
        seen: 1 where something was observed, else 0.
        loc: prior mean of the function.
        residual: variance of what the function has besides the process.
        likelihood: from the function to a distribution.
    """

    y: jax.Array
    seen: jax.Array
    loc: jax.Array
    residual: jax.Array
    likelihood: Likelihood


def variational(problem: Problem, sites: Sites, mean: Any, variance: Any) -> Sites:
    """Where the expected log likelihood has the derivatives of the sites.

    References:
        Khan and Lin (2017), "Conjugate-computation variational inference", AISTATS, theorem 1.
    """

    def expected(mean: jax.Array, variance: jax.Array) -> jax.Array:
        return jnp.sum(problem.seen * _expected(problem, mean, variance))

    slope, half = jax.grad(expected, (0, 1))(mean, variance)
    return Sites(slope - 2 * half * mean, -2 * half)


def power_ep(power: float, problem: Problem, sites: Sites, mean: Any, variance: Any) -> Sites:
    """Where a cavity times a power of the site has the moments that it has with the likelihood.

    A site whose cavity is not a normal law stays as it is.

    References:
        Minka (2004), "Power EP"; Wilkinson, Chang, Riis Andersen and Solin (2020), "State space
        expectation propagation", ICML.
    """
    inside, centre, spread = cavity(power, sites, mean, variance)
    total = lambda m, v: jnp.sum(log_partition(problem, m, v, power))  # noqa: E731
    slope, half = jax.grad(total, (0, 1))(centre, spread)
    curvature = 2 * half - slope**2
    growth = power * (1 + spread * curvature)
    new = Sites((slope - curvature * centre) / growth, -curvature / growth)
    usable = inside & (growth > 0) & (problem.seen > 0)
    return jax.tree.map(lambda a, b: jnp.where(usable, a, b), new, sites)


def linearised(problem: Problem, sites: Sites, mean: Any, variance: Any) -> Sites:
    """The likelihood as a normal law of a line through the function, fitted to its moments.

    References:
        García-Fernández, Tronarp and Särkkä (2019), "Gaussian process classification using
        posterior linearization", IEEE Signal Processing Letters.
    """
    expected, slope, noise = regression(problem, mean, variance)
    precision = slope**2 / noise
    linear = slope * (problem.y - expected) / noise + precision * mean
    return Sites(problem.seen * linear, problem.seen * precision)


def regression(problem: Problem, mean: Any, variance: Any) -> tuple[Any, Any, Any]:
    """Mean and slope of the observation in the process, and the variance about that line."""
    places, weights = _hermite(mean)
    total = variance + problem.residual
    scale = jnp.sqrt(total)
    law = problem.likelihood(problem.loc + mean + scale * places[:, None])
    expected = weights @ law.mean
    slope = (weights * places) @ law.mean / scale
    spread = weights @ law.variance + weights @ (law.mean - expected) ** 2
    noise = spread - slope**2 * variance  # what the residual does counts as noise
    return expected, slope, jnp.maximum(noise, LEAST_VARIANCE)


def without_upward(sites: Sites, mean: Any) -> Sites:
    """Sites that curve upward as straight ones with the same slope at the mean."""
    flat = jnp.maximum(sites.precision, 0)
    return Sites(sites.linear + (flat - sites.precision) * mean, flat)


def cavity(power: float, sites: Sites, mean: Any, variance: Any) -> tuple[Any, Any, Any]:
    """The marginal without a power of its site: whether it is a law, its mean and variance."""
    precision = 1 / variance - power * sites.precision
    inside = precision > 0
    spread = 1 / jnp.where(inside, precision, 1 / variance)
    return inside, spread * (mean / variance - power * sites.linear), spread


def log_partition(problem: Problem, mean: Any, variance: Any, power: float) -> jax.Array:
    """The log of the expected likelihood, to that power, of each observation."""
    places, weights = _hermite(mean)
    f = problem.loc + mean + jnp.sqrt(variance + problem.residual) * places[:, None]
    log_prob = log_likelihood(problem.likelihood, f, problem.y)
    found = jax.nn.logsumexp(power * log_prob, axis=0, b=weights[:, None])
    return jnp.where(problem.seen > 0, found, 0.0)


def log_mean(sites: Sites, mean: Any, variance: Any, power: float) -> jax.Array:
    """The log of the expectation of the site, to that power."""
    linear, precision = power * sites.linear, power * sites.precision
    growth = 1 + precision * variance
    inside = linear**2 * variance + 2 * linear * mean - precision * mean**2
    return 0.5 * (inside / growth - jnp.log(growth))


def variational_energy(problem: Problem, sites: Sites, mean: Any, variance: Any) -> jax.Array:
    """What the evidence lower bound has besides the log integral of prior and sites, scalar."""
    found = _expected(problem, mean, variance)
    in_sites = sites.linear * mean - 0.5 * sites.precision * (mean**2 + variance)
    return jnp.sum(jnp.where(problem.seen > 0, found - in_sites, 0.0))


def ep_energy(power: float, problem: Problem, sites: Sites, mean: Any, variance: Any) -> jax.Array:
    """The same of power EP's approximation of the evidence."""
    _, centre, spread = cavity(power, sites, mean, variance)
    gap = log_partition(problem, centre, spread, power) - log_mean(sites, centre, spread, power)
    return jnp.sum(jnp.where(problem.seen > 0, gap, 0.0)) / power


def _expected(problem: Problem, mean: Any, variance: Any) -> jax.Array:
    total = variance + problem.residual
    return expectation(problem.likelihood, problem.y, problem.loc + mean, total)


def _hermite(like: jax.Array) -> tuple[jax.Array, jax.Array]:
    places, weights = np.polynomial.hermite_e.hermegauss(NODES)
    return jnp.asarray(places, like.dtype), jnp.asarray(weights / weights.sum(), like.dtype)
