"""What a step over prior variances takes: moments and evidence, by the smaller system."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from .._core import cholesky_each
from ._design import solve_adjoint, square
from ._triangular import half_solved, small_inverse
from ._weight_space import root
from ._weights import normal_log_prob


class Problem(NamedTuple):
    """A problem in units where columns have length 1 and measurements a mean square of 1.

    Attributes:
        design: shape `(n, m)`.
        y: shape `(n, L)`.
        gram: products of columns, shape `(m, m)`, where there are fewer of them than rows; else
            empty.
        rhs: their products with `y`, shape `(m, L)`, there too.
        rate: rates of the gamma prior of each precision, shape `(m,)`.
    """

    design: jax.Array
    y: jax.Array
    gram: jax.Array
    rhs: jax.Array
    rate: jax.Array


class Statistics(NamedTuple):
    r"""Of the posterior given prior variances $g$ and the noise variance.

    Attributes:
        power: $\|\mu_j\|^2 / L$, shape `(m,)`.
        known: $1 - \Sigma_{jj} / g_j$, how far the data determine each weight, shape `(m,)`.
        error: $\|Y - \Phi \mu\|^2 / L$, scalar.
        free: $n$ less the effective degrees of freedom, scalar.
        log_evidence: scalar.
    """

    power: jax.Array
    known: jax.Array
    error: jax.Array
    free: jax.Array
    log_evidence: jax.Array


def with_products(design: jax.Array, y: jax.Array, rate: jax.Array) -> Problem:
    """The problem, with the products that the system of its weights takes."""
    if design.shape[0] <= design.shape[1]:
        return Problem(design, y, design[:0], y[:0], rate)
    adjoint = design.mT.conj()
    return Problem(design, y, adjoint @ design, adjoint @ y, rate)


def statistics(problem: Problem, prior_var: jax.Array, noise_var: jax.Array) -> Statistics:
    """Moments and evidence at prior variances, shape `(m,)`, and a noise variance."""
    by_data = len(problem.gram) == 0
    return (_by_data if by_data else _by_weights)(problem, prior_var, noise_var)


def _by_data(problem: Problem, prior_var: jax.Array, noise_var: jax.Array) -> Statistics:
    design, y = problem.design, problem.y
    n, num = y.shape
    covariance = (design * prior_var) @ design.mT.conj() + noise_var * jnp.eye(n, dtype=y.dtype)
    tril = cholesky_each(covariance)
    half, white = half_solved(tril, design, y)
    known = prior_var * jnp.sum(square(half), axis=0)
    power = prior_var**2 * jnp.sum(square(half.mT.conj() @ white), axis=1) / num
    # The residual is the noise variance times C⁻¹ y.
    error = noise_var**2 * jnp.sum(square(solve_adjoint(tril, white))) / num
    logdet = 2 * jnp.sum(jnp.log(jnp.real(jnp.diag(tril))))
    evidence = jnp.sum(normal_log_prob(jnp.sum(square(white), axis=0), logdet, y))
    return Statistics(power, known, error, _positive(n - jnp.sum(known), n), evidence)


def _by_weights(problem: Problem, prior_var: jax.Array, noise_var: jax.Array) -> Statistics:
    y, half = problem.y, root(prior_var)
    (n, num), m = y.shape, half.size
    scaled = half[:, None] * problem.gram * half / noise_var
    tril = cholesky_each(scaled + jnp.eye(m, dtype=y.dtype))
    inverse = small_inverse(tril)
    unknown = jnp.sum(square(inverse), axis=0)
    white = inverse.mT.conj() @ (inverse @ (half[:, None] * problem.rhs)) / noise_var
    mean = half[:, None] * white
    residual = jnp.sum(square(y - problem.design @ mean), axis=0)
    quadratic = residual / noise_var + jnp.sum(square(white), axis=0)
    logdet = n * jnp.log(noise_var) + 2 * jnp.sum(jnp.log(jnp.real(jnp.diag(tril))))
    evidence = jnp.sum(normal_log_prob(quadratic, logdet, y))
    free = _positive(n - m + jnp.sum(unknown), n)
    known = jnp.where(prior_var > 0, jnp.maximum(1 - unknown, 0), 0)
    power = jnp.sum(square(mean), axis=1) / num
    return Statistics(power, known, jnp.sum(residual) / num, free, evidence)


def _positive(free: jax.Array, n: int) -> jax.Array:
    return jnp.maximum(free, 10 * n * jnp.finfo(free.dtype).eps)
