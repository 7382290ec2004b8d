r"""Posterior moments given Kronecker-structured prior variances; nothing of size $N \times M$.

With $K_i = H_i \mathrm{diag}(g_i) H_i^H = U_i \mathrm{diag}(p_i) U_i^H$, the covariance of the
measurements is $C = (\otimes_i U_i) (\mathrm{diag}(\otimes_i p_i) + \sigma^2 I) (\otimes_i U_i)^H$.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Inexact

from .._core import eigh
from ..ops import kron_mm, outer_grid
from ._design import square
from ._weights import normal_log_prob


class Problem(NamedTuple):
    """Measurements and designs as an iteration uses them.

    Attributes:
        factors: shape `(m_i, n_i)` each, columns of norm 1 or 0.
        y: shape `(m, L)`, in C order.
        rest: energy of measurements that no column reaches, scalar.
        size: how many measurements a snapshot has, those of `rest` included.
    """

    factors: tuple[jax.Array, ...]
    y: jax.Array
    rest: jax.Array
    size: int


class Spectrum(NamedTuple):
    """Eigendecompositions of the covariances of the axes.

    Attributes:
        vectors: $U_i$, shape `(m_i, m_i)` each.
        values: $p_i$, not negative.
    """

    vectors: tuple[jax.Array, ...]
    values: tuple[jax.Array, ...]


class Moments(NamedTuple):
    """What an expectation step gives.

    Attributes:
        solved: $H^H C^{-1} y$, shape `(n, L)`; the posterior mean is the prior variance times it.
        leverage: diagonal of $H^H C^{-1} H$, shape `(n_1, ..., n_I)`.
        residual_sq: mean over snapshots of $\\|y - H \\mu\\|^2$, scalar.
        inverse_trace: trace of $C^{-1}$, scalar.
        effective_dof: effective degrees of freedom, $\\sum_j (1 - \\Sigma_{jj} / \\gamma_j)$.
        log_evidence: of all snapshots.
    """

    solved: jax.Array
    leverage: jax.Array
    residual_sq: jax.Array
    inverse_trace: jax.Array
    effective_dof: jax.Array
    log_evidence: jax.Array


def decompose(
    factors: tuple[Inexact[Array, "_m _n"], ...], variances: tuple[Float[Array, " _n"], ...]
) -> Spectrum:
    """Eigendecompositions of the covariances of the axes, without derivatives."""
    pairs = [_decomposed(f, g) for f, g in zip(factors, variances, strict=True)]
    return Spectrum(tuple(p[1] for p in pairs), tuple(p[0] for p in pairs))


@jax.custom_jvp
def _decomposed(factor: jax.Array, variance: jax.Array) -> tuple[jax.Array, jax.Array]:
    values, vectors = eigh((factor * variance) @ factor.conj().T)
    return jnp.maximum(values, 0), vectors


@_decomposed.defjvp
def _(primals: Any, tangents: Any) -> Any:
    # Eigenvalues coincide as a rule, at 0, so there is no derivative of eigenvectors to use.
    raise ValueError(
        "a Kronecker-structured posterior has no derivatives in factors, prior variances and "
        "noise; the first derivatives of its evidence are those of sbl.KroMarginal(...).log_prob"
    )


def moments(
    problem: Problem, variances: tuple[Float[Array, " _n"], ...], noise_var: Float[Array, ""]
) -> Moments:
    """Posterior moments and evidence, exact for any rank of the designs."""
    vectors, values = decompose(problem.factors, variances)
    eigenvalues = outer_grid(list(values)).reshape(-1)
    total = noise_var + eigenvalues
    turned = tuple(u.conj().T @ f for u, f in zip(vectors, problem.factors, strict=True))
    rotated = kron_mm(tuple(u.conj().T for u in vectors), problem.y)
    weighted = rotated / total[:, None]
    back = tuple(t.conj().T for t in turned)
    solved = kron_mm(back, weighted)
    leverage = kron_mm(tuple(square(b) for b in back), (1 / total)[:, None])
    num, beyond = problem.y.shape[1], problem.size - total.size
    quad = (jnp.sum(square(rotated) / total[:, None]) + problem.rest / noise_var) / num
    logdet = jnp.sum(jnp.log(total)) + beyond * jnp.log(noise_var)
    whole = jnp.broadcast_to(problem.y[:1], (problem.size, num))  # of which the size is used
    residual = noise_var**2 * jnp.sum(square(weighted)) + problem.rest
    return Moments(
        solved,
        leverage.reshape(tuple(f.shape[1] for f in problem.factors)),
        residual / num,
        jnp.sum(1 / total) + beyond / noise_var,
        jnp.sum(eigenvalues / total),
        num * normal_log_prob(quad, logdet, whole),
    )


def posterior_moments(
    found: Moments, variances: tuple[jax.Array, ...]
) -> tuple[Inexact[Array, " ..."], Float[Array, " ..."]]:
    """Mean `(n_1, ..., n_I, L)` and variance `(n_1, ..., n_I)` of the coefficients."""
    prior = outer_grid(list(variances))
    mean = prior[..., None] * found.solved.reshape(*prior.shape, -1)
    return mean, prior * jnp.maximum(1 - prior * found.leverage, 0)
