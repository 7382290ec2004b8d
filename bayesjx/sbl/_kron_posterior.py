"""The posterior of coefficients whose prior variances are a Kronecker product."""

from __future__ import annotations

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import random
from jaxtyping import Array, Bool, Float, Inexact, Int
from numpyro import distributions as dist

from .._core import check_key, is_successful, RESULTS
from ..distributions import ComplexNormal
from ..ops import kron_mm, outer_grid
from ._design import square
from ._kron_arguments import kron_factors
from ._kron_moments import decompose


class KroPosterior(eqx.Module):
    r"""Gaussian posterior of coefficients $x$ with $y = (\otimes_i H_i) x + \epsilon$.

    The prior is $x \sim N(0, \mathrm{diag}(\otimes_i g_i))$, circular complex for complex data.
    `sbl.kron_sbl` makes it. A batch of posteriors, as `jax.vmap` of that returns, has leading axes
    in all fields; its methods are called under `jax.vmap` as well.

    Attributes:
        factors: $H_i$, shape `(m_i, n_i)` each.
        y: measurements, shape `(m_1, ..., m_I)`, or with a last axis of snapshots.
        prior_factors: $g_i$, shape `(n_i,)` each; all but the last have norm 1. 0 for what was
            pruned.
        noise_var: variance of the noise, scalar, of both parts together if it is complex.
        prior_var: their product, prior variances of the coefficients, shape `(n_1, ..., n_I)`.
        active: which coefficients were not pruned, booleans of that shape.
        mean: of the coefficients, shape `(n_1, ..., n_I)`, or with the axis of snapshots.
        variance: of the coefficients, shape `(n_1, ..., n_I)`, the same for all snapshots.
        effective_dof: effective degrees of freedom of a snapshot's fit, scalar.
        evidence_trace: log evidence at the start and after each step, NaN behind the last. It
            never falls with `"am"` and `"convex"`, but where coefficients are pruned.
        ends: log evidence where each start ended, shape `(restarts,)`; of `"svd+am"`, where its
            first part did. Ends apart say that there are several maxima, of which more starts may
            find a better one.
        num_steps: of the iteration.
        result: how it ended.
    """

    factors: tuple[Inexact[Array, "_m _n"], ...]
    y: Inexact[Array, ...]
    prior_factors: tuple[Float[Array, " _n"], ...]
    noise_var: Float[Array, ...]
    prior_var: Float[Array, ...]
    active: Bool[Array, ...]
    mean: Inexact[Array, ...]
    variance: Float[Array, ...]
    effective_dof: Float[Array, ...]
    evidence_trace: Float[Array, ...]
    ends: Float[Array, ...]
    num_steps: Int[Array, ...]
    result: RESULTS

    @property
    def converged(self) -> Bool[Array, ...]:
        """Whether `result` is successful."""
        return is_successful(self.result)

    def log_evidence(self) -> Float[Array, ...]:
        """Log marginal likelihood of all measurements, scalar."""
        at = jnp.expand_dims(self.num_steps, -1)
        return jnp.take_along_axis(self.evidence_trace, at, axis=-1)[..., 0]

    def moments(self, factors: Any = None) -> tuple[Inexact[Array, ...], Float[Array, ...]]:
        r"""Mean and variance of $(\otimes_i A_i) x$, without noise, each by itself.

        Args:
            factors: $A_i$, shape `(k_i, n_i)` each; by default those of the measurements.

        Returns:
            The mean, shape `(k_1, ..., k_I)`, with the axis of snapshots if there is one, and the
            variance, `(k_1, ..., k_I)`.

        Raises:
            ValueError: not a matrix with $n_i$ columns for each axis.
        """
        self._refuse_batch("moments")
        new = self.factors if factors is None else kron_factors("moments", factors)
        columns, wanted = ([f.shape[1] for f in fs] for fs in (new, self.factors))
        if columns != wanted:
            raise ValueError(
                f"moments: factors must have {wanted} columns, one matrix for each axis, got "
                f"{columns}"
            )
        spectrum = decompose(self.factors, self.prior_factors)
        total = self.noise_var + outer_grid(list(spectrum.values))
        gain = [
            (a * g) @ (f.conj().T @ u)
            for a, g, f, u in zip(
                new, self.prior_factors, self.factors, spectrum.vectors, strict=True
            )
        ]
        grid = tuple(len(a) for a in new)
        explained = kron_mm(tuple(map(square, gain)), 1 / total.reshape(-1, 1)).reshape(grid)
        prior = [square(a) @ g for a, g in zip(new, self.prior_factors, strict=True)]
        mean = kron_mm(new, self.mean.reshape(self.variance.size, -1))
        shape = (*grid, *self.mean.shape[self.variance.ndim :])
        return mean.reshape(shape), jnp.maximum(outer_grid(prior) - explained, 0)

    def predict(self, factors: Any = None) -> dist.Normal | ComplexNormal:
        """Predictive distributions of new measurements, each by itself.

        Args:
            factors: shape `(k_i, n_i)` each; by default those of the measurements.

        Returns:
            Normal distributions of the shape of the mean of `moments`, circular ones of complex
            data.

        Raises:
            ValueError: not a matrix with $n_i$ columns for each axis.
        """
        mean, variance = self.moments(factors)
        variance = (variance + self.noise_var)[(..., *(None,) * (mean.ndim - variance.ndim))]
        scale = jnp.sqrt(variance)
        return (ComplexNormal if jnp.iscomplexobj(mean) else dist.Normal)(mean, scale)

    def sample(self, key: jax.Array, sample_shape: tuple[int, ...] = ()) -> Inexact[Array, ...]:
        """Joint draws of the coefficients, by Matheron's rule, in Kronecker products only.

        Args:
            key: PRNG key.
            sample_shape: of the draws.

        Returns:
            Shape `(*sample_shape, n_1, ..., n_I)`, with the axis of snapshots behind if there is
            one.

        Raises:
            ValueError: no PRNG key, or no shape.
        """
        self._refuse_batch("sample")
        check_key(key)
        if not isinstance(sample_shape, tuple):
            raise ValueError(f"sample: sample_shape must be a tuple, got {sample_shape!r}")
        spectrum = decompose(self.factors, self.prior_factors)
        total = self.noise_var + outer_grid(list(spectrum.values)).reshape(-1, 1)
        root, n = jnp.sqrt(self.prior_var.reshape(-1, 1)), self.variance.size
        flat = self.mean.reshape(n, -1)
        dtype, m = flat.dtype, total.size
        into = tuple(
            u.conj().T @ (f * g)
            for u, f, g in zip(spectrum.vectors, self.factors, self.prior_factors, strict=True)
        )

        def draw(key: jax.Array) -> jax.Array:
            for_prior, for_noise = random.split(key)
            drawn = root * random.normal(for_prior, flat.shape, dtype)
            noise = random.normal(for_noise, (m, flat.shape[1]), dtype)
            measured = kron_mm(self.factors, drawn) + jnp.sqrt(self.noise_var) * noise
            rotated = kron_mm(tuple(u.conj().T for u in spectrum.vectors), measured)
            shift = kron_mm(tuple(a.conj().T for a in into), rotated / total)
            return (flat + drawn - shift).reshape(self.mean.shape)

        keys = random.split(key, math.prod(sample_shape))
        draws = jax.vmap(draw)(keys)
        return draws.reshape(*sample_shape, *self.mean.shape)

    def _refuse_batch(self, name: str) -> None:
        if jnp.ndim(self.noise_var):
            raise ValueError(
                f"{name}: this is a batch of {jnp.shape(self.noise_var)} posteriors; call it under "
                f"jax.vmap, as jax.vmap(lambda posterior: posterior.{name}(...))(posteriors)"
            )
