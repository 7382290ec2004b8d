r"""Normal factors in place of a likelihood, one for each observation.

A site $\exp(\lambda_1 x - \lambda_2 x^2 / 2)$ stands for the likelihood of the value $m_0 + x$ of
the function, where $m_0$ is its prior mean. An update takes the moments of $x$ under the current
approximation, and returns sites.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Shaped

from .._core import traced, TracedFunction
from ..likelihoods import (
    AbstractLikelihood,
    adaptive_nodes,
    gauss_hermite,
    Likelihood,
    log_likelihood,
)

NODES = 32  # of Gauss-Hermite quadrature for moments of observations


class Sites(NamedTuple):
    r"""Natural parameters of the sites, of the shape of the observations.

    Attributes:
        linear: $\lambda_1$.
        precision: $\lambda_2$; negative where the likelihood is convex.
    """

    linear: Float[Array, "n ..."]
    precision: Float[Array, "n ..."]


class Problem(NamedTuple):
    """Observations and their likelihood, flat, in the order in which they were given.

    Attributes:
        y: `(n,)`, something allowed where nothing was observed.
        observed: 1 where something was observed, else 0.
        loc: prior mean of the function.
        residual_var: variance of what the function has besides the process.
        log_prob: from values of the function `(n,)` and `y` to log densities `(n,)`.
        expected: from `y`, means and variances of the function to expected log densities, where
            these have a closed form.
        moments: from values of the function to means and variances of the observations, where
            a method needs them.
    """

    y: Shaped[Array, " n"]
    observed: Float[Array, " n"]
    loc: Float[Array, " n"]
    residual_var: Float[Array, " n"]
    log_prob: TracedFunction
    expected: TracedFunction | None
    moments: TracedFunction | None


def make_problem(
    likelihood: Likelihood, y: Any, observed: Any, loc: Any, residual_var: Any, with_moments: bool
) -> Problem:
    """The problem, with the likelihood as functions that have been traced."""

    def moments(f: jax.Array) -> Any:
        distribution = likelihood(f)
        for name in ("mean", "variance"):
            if not _has(distribution, name):
                raise ValueError(
                    f'method "pl" needs mean and variance of the likelihood, and the {name} of '
                    f"{type(distribution).__name__} is not known"
                )
        return tuple(
            jnp.broadcast_to(a, f.shape).astype(f.dtype)
            for a in (distribution.mean, distribution.variance)
        )

    log_prob = traced(lambda f, y: log_likelihood(likelihood, f, y), loc, y)
    expected = None
    if isinstance(likelihood, AbstractLikelihood):
        expected = traced(likelihood.expected_log_prob, y, loc, loc)
    which = traced(moments, loc) if with_moments else None
    return Problem(y, observed, loc, residual_var, log_prob, expected, which)


def _has(distribution: Any, name: str) -> bool:
    try:
        return getattr(distribution, name) is not None
    except NotImplementedError:
        return False


def variational(
    power: Any, problem: Problem, sites: Sites, mean: Any, variance: Any
) -> tuple[Sites, Bool[Array, " n"]]:
    """Sites of conjugate-computation variational inference, from derivatives in the moments.

    References:
        Khan and Lin (2017), "Conjugate-computation variational inference", AISTATS, theorem 1.
    """

    def expected(mean: jax.Array, variance: jax.Array) -> jax.Array:
        return jnp.sum(_expected(problem, mean, variance))

    slope, half = jax.grad(expected, (0, 1))(mean, variance)
    return Sites(slope - 2 * half * mean, -2 * half), jnp.ones_like(mean, bool)


def power_ep(
    power: Any, problem: Problem, sites: Sites, mean: Any, variance: Any
) -> tuple[Sites, Bool[Array, " n"]]:
    """Sites of power EP, which match the moments of the tilted distribution.

    A site whose cavity is not a normal distribution stays as it is.

    Returns:
        The sites, and which of them have been replaced, or need not be.

    References:
        Minka (2004), "Power EP"; Wilkinson, Chang, Riis Andersen and Solin (2020), "State space
        expectation propagation", ICML.
    """
    inside, centre, cavity_var = cavity(power, sites, mean, variance)
    x, log_prob, log_weights = _tilted(problem, centre, cavity_var, power, mean)
    weights = jax.nn.softmax(power * log_prob + log_weights, axis=0)
    # With a residual the nodes are of the function, and the process is regressed on it.
    total = cavity_var + problem.residual_var
    first = jnp.sum(weights * x, axis=0)
    second = jnp.sum(weights * (x - first) ** 2, axis=0)
    tilted = centre + cavity_var / jnp.sqrt(total) * first
    tilted_var = cavity_var * (problem.residual_var + cavity_var * second) / total
    linear, precision = tilted / tilted_var - centre / cavity_var, 1 / tilted_var - 1 / cavity_var
    new = Sites(linear / power, precision / power)
    updated = inside & jnp.isfinite(new.linear) & jnp.isfinite(new.precision)
    observed = problem.observed > 0
    kept = jax.tree.map(lambda a, b: jnp.where(updated & observed, a, b), new, sites)
    return kept, updated | ~observed


def linearised(
    power: Any, problem: Problem, sites: Sites, mean: Any, variance: Any
) -> tuple[Sites, Bool[Array, " n"]]:
    """The likelihood as a normal distribution about a line in the function, fitted to its moments.

    References:
        García-Fernández, Tronarp and Särkkä (2019), "Gaussian process classification using
        posterior linearization", IEEE Signal Processing Letters.
    """
    expected, slope, noise = regression(problem, mean, variance)
    precision = slope**2 / noise
    linear = slope * (problem.y - expected) / noise + precision * mean
    observed = problem.observed > 0
    sites = Sites(jnp.where(observed, linear, 0.0), jnp.where(observed, precision, 0.0))
    return sites, jnp.ones_like(mean, bool)


def regression(problem: Problem, mean: Any, variance: Any) -> tuple[Any, Any, Any]:
    """Mean and slope of the observation in the process, and the variance about that line."""
    nodes, weights = _hermite(mean)
    total = variance + problem.residual_var
    scale = jnp.sqrt(total)
    f = problem.loc + mean + scale * nodes[:, None]
    if problem.moments is None:
        raise ValueError("posterior linearisation needs moments of the likelihood")
    means, variances = jax.vmap(problem.moments)(f)
    expected = weights @ means
    slope = (weights * nodes) @ means / scale
    # Sums of what is positive, so that small ones keep their digits.
    off_line = means - expected - slope * scale * nodes[:, None]
    noise = weights @ variances + weights @ off_line**2
    return expected, slope, noise + slope**2 * problem.residual_var  # which counts as noise


def without_convex(sites: Sites, mean: Any) -> Sites:
    """Convex sites as straight ones with the same slope at the mean."""
    flat = jnp.maximum(sites.precision, 0)
    return Sites(sites.linear + (flat - sites.precision) * mean, flat)


def cavity(power: Any, sites: Sites, mean: Any, variance: Any) -> tuple[Any, Any, Any]:
    """The marginal without a power of its site: whether it is proper, its mean and variance."""
    precision = 1 / variance - power * sites.precision
    inside = precision > 0
    cavity_var = 1 / jnp.where(inside, precision, 1 / variance)
    return inside, cavity_var * (mean / variance - power * sites.linear), cavity_var


def log_partition(
    problem: Problem, mean: Any, variance: Any, power: Any, start: Any = None
) -> Float[Array, " n"]:
    """The log of the expected likelihood, to that power, of each observation."""
    _, log_prob, log_weights = _tilted(problem, mean, variance, power, start)
    total = jax.nn.logsumexp(power * log_prob + log_weights, axis=0)
    return jnp.where(problem.observed > 0, total, 0.0)


def log_mean(sites: Sites, mean: Any, variance: Any, power: Any) -> Float[Array, " n"]:
    """The log of the expectation of the site, to that power."""
    linear, precision = power * sites.linear, power * sites.precision
    growth = 1 + precision * variance
    inside = linear**2 * variance + 2 * linear * mean - precision * mean**2
    return 0.5 * (inside / growth - jnp.log(growth))


def variational_energy(
    power: Any, problem: Problem, sites: Sites, mean: Any, variance: Any
) -> Float[Array, ""]:
    """The evidence lower bound less the log integral of prior and sites, scalar."""
    expected = _expected(problem, mean, variance)
    in_sites = sites.linear * mean - 0.5 * sites.precision * (mean**2 + variance)
    return jnp.sum(jnp.where(problem.observed > 0, expected - in_sites, 0.0))


def ep_energy(
    power: Any, problem: Problem, sites: Sites, mean: Any, variance: Any
) -> Float[Array, ""]:
    """The same of power EP's approximation of the evidence."""
    _, centre, cavity_var = cavity(power, sites, mean, variance)
    partition = log_partition(problem, centre, cavity_var, power, mean)
    gap = partition - log_mean(sites, centre, cavity_var, power)
    return jnp.sum(jnp.where(problem.observed > 0, gap, 0.0)) / power


def _expected(problem: Problem, mean: Any, variance: Any) -> jax.Array:
    """Expected log densities, 0 where nothing was observed."""
    if problem.expected is not None:
        total = variance + problem.residual_var
        expected = problem.expected(problem.y, problem.loc + mean, total)
    else:
        _, log_prob, log_weights = _tilted(problem, mean, variance, 1.0, mean, whole=True)
        expected = jnp.sum(jnp.exp(log_weights) * log_prob, axis=0)
    return jnp.where(problem.observed > 0, expected, 0.0)


def _tilted(
    problem: Problem, mean: Any, variance: Any, power: Any, start: Any, whole: bool = False
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Standardised quadrature nodes where the function has its mass given an observation.

    Returns:
        Nodes, the log density of the observation there, and log weights, `(q, n)` each.
    """
    fixed = jax.lax.stop_gradient(problem)
    centre, total = problem.loc + mean, variance + problem.residual_var
    begin = None if start is None else problem.loc + start
    x, log_weights = adaptive_nodes(
        lambda f: fixed.log_prob(f, fixed.y), centre, total, power, begin, whole
    )
    f = centre + jnp.sqrt(total) * x
    return x, jax.vmap(lambda f: problem.log_prob(f, problem.y))(f), log_weights


def _hermite(like: jax.Array) -> tuple[jax.Array, jax.Array]:
    nodes, weights = gauss_hermite(NODES)
    return jnp.asarray(nodes[:, 0], like.dtype), jnp.asarray(weights, like.dtype)
