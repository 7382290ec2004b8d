"""Kullback-Leibler divergences of structured normal distributions, in NumPyro's dispatch."""

from __future__ import annotations

import copy
import functools
from typing import Any

import jax
import jax.numpy as jnp
from numpyro import distributions as dist
from numpyro.distributions.batch_util import promote_batch_shape
from numpyro.distributions.distribution import ExpandedDistribution, Independent
from numpyro.distributions.kl import kl_divergence

from .._core import failures_are_nan
from ..ops import Dense, Diag, LowRankPlusDiag, psd, ScaledIdentity
from ._structured_normal import dense_covariance, log_determinant, quad_logdet, StructuredNormal


def _structured_kl(p: StructuredNormal, q: StructuredNormal) -> jax.Array:
    r"""$\mathrm{KL}(p \| q)$ with the structure of both operators.

    The trace of $\Sigma_q^{-1} \Sigma_p$ takes solves or diagonals only where one of them is
    diagonal, or $\Sigma_p$ is low rank plus diagonal; else the dense $\Sigma_p$.
    """
    if p.event_shape != q.event_shape:
        raise ValueError(
            f"kl_divergence: distributions of vectors of shape {p.event_shape} and {q.event_shape}"
        )
    if not p._mapped_ndim and not q._mapped_ndim:
        return _one_kl(p, q)
    batch = jnp.broadcast_shapes(p.loc.shape[:-1], q.loc.shape[:-1])
    each = _one_kl
    for _ in batch:
        each = jax.vmap(each)
    return each(_spread(p, batch), _spread(q, batch))


def _one_kl(p: StructuredNormal, q: StructuredNormal) -> jax.Array:
    with failures_are_nan():
        quad, logdet = quad_logdet(q, p.loc - q.loc)
        rest = _trace(p, q) - p.loc.shape[-1] + logdet - log_determinant(p)
    return 0.5 * (quad + rest)


def _trace(p: StructuredNormal, q: StructuredNormal) -> jax.Array:
    """Of the precision of `q` times the covariance of `p`."""
    if isinstance(p.covariance, LowRankPlusDiag) and not _is_diagonal(q):
        factor = p.covariance.factor
        return jnp.sum(factor * _times_precision(q, factor)) + jnp.sum(
            p.covariance.diagonal * _precision_diagonal(q)
        )
    if _is_diagonal(p) or _is_diagonal(q):
        variance = p.covariance.diag() if p.precision is None else p.precision.inverse_diag()  # ty: ignore
        return jnp.sum(variance * _precision_diagonal(q))
    return jnp.trace(_times_precision(q, dense_covariance(p)))


def _is_diagonal(law: StructuredNormal) -> bool:
    operator = law.precision if law.covariance is None else law.covariance
    return isinstance(operator, (Diag, ScaledIdentity))


def _times_precision(law: StructuredNormal, columns: jax.Array) -> jax.Array:
    if law.precision is not None:
        return law.precision.mm(columns)
    return law.covariance.solve(columns)  # ty: ignore


def _precision_diagonal(law: StructuredNormal) -> jax.Array:
    return law.covariance.inverse_diag() if law.precision is None else law.precision.diag()  # ty: ignore


def _spread(law: StructuredNormal, batch: tuple[int, ...]) -> StructuredNormal:
    """The same with all axes of the batch in front of all arrays."""
    mapped = law._mapped_ndim
    # The operator's own axes lead those of `loc`, which may have more.
    shared = law.loc.ndim - 1 - mapped
    new = (1,) * (len(batch) - law.loc.ndim + 1)

    def spread(x: jax.Array) -> jax.Array:
        own = x.shape[mapped:]
        x = x.reshape(new + x.shape[:mapped] + (1,) * shared + own)
        return jnp.broadcast_to(x, batch + own)

    spread_law = copy.copy(law)
    spread_law.loc = jnp.broadcast_to(law.loc, (*batch, law.loc.shape[-1]))
    spread_law.covariance, spread_law.precision = jax.tree.map(
        spread, (law.covariance, law.precision)
    )
    return spread_law


@functools.singledispatch
def _structured(law: Any) -> StructuredNormal:
    """The same distribution as a structured one."""
    raise NotImplementedError(
        f"kl_divergence: no divergence of a StructuredNormal and {type(law).__name__} is known"
    )


@_structured.register
def _(law: StructuredNormal) -> StructuredNormal:
    return law


@_structured.register
def _(law: dist.MultivariateNormal) -> StructuredNormal:
    matrix = jnp.broadcast_to(
        jnp.asarray(law.covariance_matrix), law.batch_shape + 2 * law.event_shape
    )
    return _batched(law, lambda matrix: Dense(matrix, psd), matrix)


@_structured.register
def _(law: dist.LowRankMultivariateNormal) -> StructuredNormal:
    factor = jnp.broadcast_to(law.cov_factor, law.shape() + law.cov_factor.shape[-1:])
    diagonal = jnp.broadcast_to(law.cov_diag, law.shape())
    return _batched(law, LowRankPlusDiag, factor, diagonal)


@_structured.register
def _(law: Independent) -> StructuredNormal:
    base = law.base_dist
    while isinstance(base, ExpandedDistribution):
        base = base.base_dist
    if not isinstance(base, dist.Normal) or law.event_dim != 1:
        return _structured.dispatch(object)(law)
    variance = jnp.broadcast_to(base.scale**2, law.shape())
    return _batched(law, lambda variance: Diag(variance, psd), variance)


def _batched(law: dist.Distribution, operator: Any, *arrays: jax.Array) -> StructuredNormal:
    """A batch of structured distributions from arrays whose leading axes are those of `law`."""
    make = lambda loc, *arrays: StructuredNormal(loc, operator(*arrays))  # noqa: E731
    for _ in law.batch_shape:
        make = jax.vmap(make)
    return promote_batch_shape(make(jnp.broadcast_to(law.mean, law.shape()), *arrays))


def _kl(p: Any, q: Any) -> jax.Array:
    return _structured_kl(_structured(p), _structured(q))


kl_divergence.register(StructuredNormal, StructuredNormal)(_structured_kl)
for _other in (dist.MultivariateNormal, dist.LowRankMultivariateNormal, Independent):
    kl_divergence.register(StructuredNormal, _other)(_kl)
    kl_divergence.register(_other, StructuredNormal)(_kl)
