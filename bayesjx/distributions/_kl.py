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
from ._structured_normal import (
    AbstractStructuredNormal,
    dense_covariance,
    log_determinant,
    quad_logdet,
    StructuredNormal,
)


def _structured_kl(p: AbstractStructuredNormal, q: AbstractStructuredNormal) -> jax.Array:
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
    return each(_with_batch(p, batch), _with_batch(q, batch))


def _one_kl(p: AbstractStructuredNormal, q: AbstractStructuredNormal) -> jax.Array:
    with failures_are_nan():
        quad, logdet = quad_logdet(q, p.loc - q.loc)
        rest = _trace(p, q) - p.loc.shape[-1] + logdet - log_determinant(p)
    return 0.5 * (quad + rest)


def _trace(p: AbstractStructuredNormal, q: AbstractStructuredNormal) -> jax.Array:
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


def _is_diagonal(d: AbstractStructuredNormal) -> bool:
    operator = d.precision if d.covariance is None else d.covariance
    return isinstance(operator, (Diag, ScaledIdentity))


def _times_precision(d: AbstractStructuredNormal, columns: jax.Array) -> jax.Array:
    if d.precision is not None:
        return d.precision.mm(columns)
    return d.covariance.solve(columns)  # ty: ignore


def _precision_diagonal(d: AbstractStructuredNormal) -> jax.Array:
    return d.covariance.inverse_diag() if d.precision is None else d.precision.diag()  # ty: ignore


def _with_batch(d: AbstractStructuredNormal, batch: tuple[int, ...]) -> AbstractStructuredNormal:
    """The same distributions with all axes of the batch in front of all arrays."""
    mapped = d._mapped_ndim
    # The operator's own axes lead those of `loc`, which may have more.
    shared = d.loc.ndim - 1 - mapped
    new = (1,) * (len(batch) - d.loc.ndim + 1)

    def leading(x: jax.Array) -> jax.Array:
        own = x.shape[mapped:]
        x = x.reshape(new + x.shape[:mapped] + (1,) * shared + own)
        return jnp.broadcast_to(x, batch + own)

    extended = copy.copy(d)
    extended.loc = jnp.broadcast_to(d.loc, (*batch, d.loc.shape[-1]))
    extended.covariance, extended.precision = jax.tree.map(leading, (d.covariance, d.precision))
    return extended


@functools.singledispatch
def _structured(d: Any) -> AbstractStructuredNormal:
    """The same distribution as a structured one."""
    raise NotImplementedError(
        f"kl_divergence: no divergence of a StructuredNormal and {type(d).__name__} is known"
    )


@_structured.register
def _(d: AbstractStructuredNormal) -> AbstractStructuredNormal:
    return d


@_structured.register
def _(d: dist.MultivariateNormal) -> AbstractStructuredNormal:
    matrix = jnp.broadcast_to(jnp.asarray(d.covariance_matrix), d.batch_shape + 2 * d.event_shape)
    return _batched(d, lambda matrix: Dense(matrix, psd), matrix)


@_structured.register
def _(d: dist.LowRankMultivariateNormal) -> AbstractStructuredNormal:
    factor = jnp.broadcast_to(d.cov_factor, d.shape() + d.cov_factor.shape[-1:])
    diagonal = jnp.broadcast_to(d.cov_diag, d.shape())
    return _batched(d, LowRankPlusDiag, factor, diagonal)


@_structured.register
def _(d: Independent) -> AbstractStructuredNormal:
    base = d.base_dist
    while isinstance(base, ExpandedDistribution):
        base = base.base_dist
    if not isinstance(base, dist.Normal) or d.event_dim != 1:
        return _structured.dispatch(object)(d)
    variance = jnp.broadcast_to(base.scale**2, d.shape())
    return _batched(d, lambda variance: Diag(variance, psd), variance)


def _batched(d: dist.Distribution, operator: Any, *arrays: jax.Array) -> AbstractStructuredNormal:
    """A batch of structured distributions from arrays whose leading axes are those of `d`."""
    make = lambda loc, *arrays: StructuredNormal(loc, operator(*arrays))  # noqa: E731
    for _ in d.batch_shape:
        make = jax.vmap(make)
    return promote_batch_shape(make(jnp.broadcast_to(d.mean, d.shape()), *arrays))


def _kl(p: Any, q: Any) -> jax.Array:
    return _structured_kl(_structured(p), _structured(q))


kl_divergence.register(AbstractStructuredNormal, AbstractStructuredNormal)(_structured_kl)
for _other in (dist.MultivariateNormal, dist.LowRankMultivariateNormal, Independent):
    kl_divergence.register(AbstractStructuredNormal, _other)(_kl)
    kl_divergence.register(_other, AbstractStructuredNormal)(_kl)
